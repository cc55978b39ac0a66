"""Options of the fit commands: frozen dataclasses, checked on construction; the command lines are made from them.

Every field is one flag (``train_per_user`` is ``--train-per-user``), one key of a YAML file and one keyword of
:func:`inference.fit`. No heavy import here: ``--help`` must answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyro_cvae.errors import InputError


def _check(ok: bool, flag: str, value: object, must: str) -> None:
    if not ok:
        raise InputError(f"--{flag.replace('_', '-')} is {value!r}, but it must be {must}")


def _choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, flag, value, "one of " + ", ".join(choices))


@dataclass(frozen=True)
class DataOptions:
    """What is fitted: the data, and how it is split into training and test.

    Parameters:
        data: A name (simulated, simulated-gaussian, citeulike-a, citeulike-t) or a path to a folder or a file.
        items: A table of items and their texts, where ``data`` is a table of interactions.
        split: How training and test are told apart (per-user, time, items); ignored with ``train_file``.
        train_per_user: Training items per user (the paper's P) of a per-user split.
        train_file: A file of training rows in CiteULike's format; all other pairs are test.
        test_fraction: Share of test pairs of a split by time, or of held-out items of a split by items.
        split_seed: Seed of the split.
        validation: Share of the training ratings (for P = 1: of the users) that early stopping and tuning look at.
        scaling: How word counts become content (auto, none, binary, word-max, row-max, tfidf).
    """

    data: str = "simulated"
    items: str | None = None
    split: str = "per-user"
    train_per_user: int = 10
    train_file: str | None = None
    test_fraction: float = 0.2
    split_seed: int = 0
    validation: float = 0.0
    scaling: str = "auto"

    def __post_init__(self) -> None:
        _choice("split", self.split, ("per-user", "time", "items"))
        _check(self.train_per_user >= 1, "train_per_user", self.train_per_user, "at least 1")
        _check(0 < self.test_fraction < 1, "test_fraction", self.test_fraction, "between 0 and 1")
        _check(0 <= self.validation < 1, "validation", self.validation, "at least 0 and below 1")
        _choice("scaling", self.scaling, ("auto", "none", "binary", "word-max", "row-max", "tfidf"))
