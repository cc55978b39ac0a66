"""Splits of the stored pairs into training, test and validation parts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np

from pyro_cvae.checks import check_json
from pyro_cvae.data import files, stored
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.split_files import given_files, masks_of
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Splitting
from pyro_cvae.listed import Listed
from pyro_cvae.text import counted

log = logging.getLogger(__name__)

SCHEMA = 1
GROUPS = ("hot", "warm", "cold")
"""Groups of items by their training ratings."""


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test pairs of one data set, and what validation may look at.

    Parameters:
        train: What is fitted.
        test: What the reported numbers are computed on.
        validation: What early stopping and tuning look at, or ``None``. Taken out of ``train``, except at one training
            item a user, where it is the test pairs of ``tuning_users``, which ``test`` holds too.
        tuning_users: True for the users that were spent on tuning, bool (n_users,), or ``None``; the headline mean
            leaves them out.
        protocol: How the split was made, as JSON.

    Raises InputError if an observed training pair is also a test or validation pair, or if sizes disagree.
    """

    train: Interactions
    test: Interactions
    validation: Interactions | None
    tuning_users: np.ndarray | None
    protocol: dict[str, Any]

    def __post_init__(self) -> None:
        trained = self.train.keys[self.train.observed]
        for name, part in (("test", self.test), ("validation", self.validation)):
            if part is None:
                continue
            if (part.n_users, part.n_items) != (self.train.n_users, self.train.n_items):
                raise InputError(f"training and {name} part have other sizes", "split one data set")
            if len(np.intersect1d(trained, part.keys, assume_unique=True)):
                raise InputError(f"a training pair is also a {name} pair", "a pair may be in one part only")

    def __repr__(self) -> str:
        return f"Split({self.describe()})"

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the pairs of all parts and the tuning users; not over how the split was made."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        parts: dict[str, Any] = {"shape": [self.train.n_users, self.train.n_items]}
        for name, part in self._parts().items():
            parts |= {f"{name}.{column}": values for column, values in part.columns().items()}
        return files.digest(parts | {"tuning_users": self.tuning_users})

    def _parts(self) -> dict[str, Interactions]:
        parts = {"train": self.train, "test": self.test}
        return parts if self.validation is None else parts | {"validation": self.validation}

    def describe(self) -> dict[str, int | float | str]:
        """The facts worth printing, in reading order."""
        facts: dict[str, int | float | str] = {
            "split": str(self.protocol.get("kind", "")),
            "training pairs": int(self.train.observed.sum()),
            "test pairs": len(self.test),
            "users with test items": int((self.test.user_counts > 0).sum()),
            "cold items": int((self.train.item_counts == 0).sum()),
        }
        if self.validation is not None:
            facts["validation pairs"] = len(self.validation)
        if self.tuning_users is not None:
            facts["tuning users"] = int(self.tuning_users.sum())
        return facts

    def save(self, folder: files.PathLike) -> None:
        """Write the split into a folder (made if need be), which may be that of its data set."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in self._parts().items():
            files.write_table(folder / f"{name}.parquet", part.columns())
        facts = {
            "schema": SCHEMA,
            "n_users": self.train.n_users,
            "n_items": self.train.n_items,
            "fingerprint": self.fingerprint(),
            "parts": list(self._parts()),
            "tuning_users": None if self.tuning_users is None else np.flatnonzero(self.tuning_users).tolist(),
            "protocol": self.protocol,
        }
        files.write_json(folder / "split.json", facts)

    @classmethod
    def load(cls, folder: files.PathLike | Listed) -> Split:
        """Read what :meth:`save` wrote, exactly; raises InputError naming the file that is missing or damaged."""
        listed = stored.every_file(folder)
        folder = listed.folder
        facts = stored.load_json(listed, "split.json", SCHEMA)
        check_json(facts, stored.SPLIT, folder / "split.json")
        n_users, n_items = facts["n_users"], facts["n_items"]
        if not {"train", "test"} <= set(facts["parts"]) <= {"train", "test", "validation"}:
            raise InputError("its parts are not train, test and validation", stored.AGAIN, path=folder / "split.json")
        parts = {n: stored.load_interactions(listed, f"{n}.parquet", n_users, n_items) for n in facts["parts"]}
        tuning = None
        if (tuned := facts["tuning_users"]) is not None:
            if max(tuned, default=-1) >= n_users:
                raise InputError(
                    "has a tuning user that is none of its users", stored.AGAIN, path=folder / "split.json"
                )
            tuning = np.zeros(n_users, bool)
            tuning[tuned] = True
        try:
            split = cls(parts["train"], parts["test"], parts.get("validation"), tuning, facts["protocol"])
        except InputError as error:
            raise InputError(error.problem, stored.AGAIN, path=folder) from None
        intact = split.fingerprint() == facts["fingerprint"]
        if not intact:
            raise InputError("its files were changed or damaged after saving", "make the folder again", path=folder)
        return split


def per_user(dataset: Dataset, n: int, seed: int) -> Split:
    """``n`` training items a user (all of them where there are no more), the rest test: the paper's P.

    One ``numpy.random.RandomState(seed)`` goes through the users in order and draws ``permutation(n_i)`` of each one's
    items in ascending order; the first ``n`` train. With seed 123 this is the authors' cf-10 split of citeulike-t.
    Missing cells (confidence 0) stay in training and are not counted.
    """
    pairs = dataset.interactions
    random, counts = np.random.RandomState(seed), pairs.user_counts
    # One draw a user, a few microseconds each: the authors' stream of random numbers leaves no other way.
    ranks = [random.permutation(count)[:n] for count in counts]
    starts = np.cumsum(counts) - counts
    chosen = np.concatenate(
        [start + rank for start, rank in zip(starts, ranks, strict=True)] or [np.zeros(0, np.int64)]
    )
    observed = np.flatnonzero(pairs.observed)
    test = np.zeros(len(pairs), bool)
    test[observed] = True
    test[observed[chosen]] = False
    return _split(pairs, test, {"kind": "per-user", "train_per_user": n, "seed": seed})


def nothing_held_out(dataset: Dataset) -> Split:
    """All pairs train and none is test: for a fit that is to be used."""
    pairs = dataset.interactions
    return _split(pairs, np.zeros(len(pairs), bool), {"kind": "none"})


def from_file(dataset: Dataset, path: files.PathLike) -> Split:
    """The training pairs of a file, the rest test; see :func:`from_files`."""
    return from_files(dataset, SimpleNamespace(train_file=str(path)))


def from_files(dataset: Dataset, options: Any) -> Split:
    """The split that files say (``train_file``, ``validation_file``, ``test_file`` of ``DataOptions``).

    Each is a table with the user's own ids, or rows in CiteULike's format (the authors' ``cf-train-P-users.dat``);
    what is in none of them, see :func:`pyro_cvae.data.split_files.masks_of`. Raises InputError with file and line.
    """
    pairs = dataset.interactions
    masks, protocol = masks_of(dataset, options)
    test = masks.get("test", np.zeros(len(pairs), bool))
    validation = pairs.select(masks["validation"]) if "validation" in masks else None
    return Split(pairs.select(masks["train"]), pairs.select(test), validation, None, protocol)


def by_time(dataset: Dataset, test_fraction: float) -> Split:
    """The latest ``test_fraction`` of all pairs are test; pairs of one moment are never torn apart (all go to test)."""
    pairs, all_times = dataset.interactions, _times(dataset)
    observed = pairs.observed
    times = np.sort(all_times[observed])
    cut = times[min(int(np.ceil(len(times) * (1 - test_fraction))), len(times) - 1)] if len(times) else 0.0
    test = observed & (all_times >= cut)
    if not (observed & ~test).any():
        raise InputError("no pair is earlier than the test part", "use another --split or a smaller --test-fraction")
    protocol = {"kind": "time", "test_fraction": test_fraction, "cut": float(cut)}
    n, why = int(observed.sum()), "pairs of one moment stay together"
    protocol |= _became("test-fraction", test_fraction, int(test.sum()), n, "pair", why)
    return _split(pairs, test, protocol)


def last_of_each_user(dataset: Dataset, test_fraction: float, seed: int) -> Split:
    """The latest ``test_fraction`` of each user's pairs is test; see :func:`share_of_each_user`."""
    pairs, times, rng = dataset.interactions, _times(dataset), np.random.default_rng(seed)
    observed = np.flatnonzero(pairs.observed)
    test = np.zeros(len(pairs), bool)
    taken = share_of_each_user(pairs.users[observed], pairs.n_users, test_fraction, rng, times[observed])
    test[observed[taken]] = True
    protocol = {"kind": "last", "test_fraction": test_fraction, "seed": seed}
    n, why = len(observed), "every user keeps a training pair"
    protocol |= _became("test-fraction", test_fraction, int(test.sum()), n, "pair", why)
    return _split(pairs, test, protocol)


def share_of_each_user(
    users: np.ndarray, n_users: int, share: float, rng: np.random.Generator, times: np.ndarray | None = None
) -> np.ndarray:
    """A share of each user's cells, rounded at random so that its mean is exact; one or more stay. Bool (n_cells,).

    ``users`` (n_cells,) are theirs. With ``times`` (n_cells,) the latest are taken, else any. Of one moment any are. A
    time that is not known (NaN) counts as the earliest.
    """
    counts = np.bincount(users, minlength=n_users)
    wanted = np.minimum(np.floor(share * counts + rng.random(len(counts))), counts - 1)
    later = np.zeros(len(users)) if times is None else np.nan_to_num(times, nan=-np.inf)
    order = np.lexsort((rng.random(len(users)), -later, users))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.zeros(len(users), bool)
    taken[order[rank < wanted[users[order]]]] = True
    return taken


def _times(dataset: Dataset) -> np.ndarray:
    """When pairs came, (n_stored,); InputError where that is not known of all that are observed."""
    pairs = dataset.interactions
    if pairs.times is None:
        raise InputError(f"the data set {dataset.name} has no times", "give a table with a time column, or --split")
    if unknown := int(np.isnan(pairs.times[pairs.observed]).sum()):
        problem = f"of {dataset.name} {counted(unknown, 'pair', 'have', of=pairs.observed.sum())} no time"
        raise InputError(problem, "give them one, leave them out, or choose another --split")
    return pairs.times


def held_out_items(dataset: Dataset, fraction: float, seed: int) -> Split:
    """All pairs of a seeded ``fraction`` of the rated items (at least one) are test: cold start of items."""
    pairs = dataset.interactions
    rated = np.flatnonzero(pairs.item_counts)
    if len(rated) < 2:
        raise InputError("fewer than two items have ratings", "hold out items of a larger data set")
    n = min(max(1, round(fraction * len(rated))), len(rated) - 1)
    held = np.zeros(pairs.n_items, bool)
    held[np.random.default_rng(seed).permutation(rated)[:n]] = True
    protocol = {"kind": "items", "test_fraction": fraction, "seed": seed}
    protocol |= _became("test-fraction", fraction, n, len(rated), "rated item", "there are so few")
    return _split(pairs, pairs.observed & held[pairs.items], protocol)


def held_out_cells(dataset: Dataset, fraction: float, seed: int) -> Split:
    """A seeded ``fraction`` of the stored cells is test; in training they are missing (confidence 0), not zeros."""
    pairs = dataset.interactions
    observed = np.flatnonzero(pairs.observed)
    n = round(fraction * len(observed))
    test = np.zeros(len(pairs), bool)
    test[np.random.default_rng(seed).permutation(observed)[:n]] = True
    protocol = {"kind": "cells", "test_fraction": fraction, "seed": seed}
    protocol |= _became("test-fraction", fraction, n, len(observed), "cell", "there are so few")
    return Split(pairs.as_missing(test), pairs.select(test), None, None, protocol)


def with_validation(split: Split, fraction: float, seed: int, tell: bool = True) -> Split:
    """A validation part that never touches a reported test pair.

    Usually a seeded ``fraction`` of each user's training pairs leaves ``train`` (:func:`share_of_each_user`), the
    latest where the split holds out the last of each user. Where no user has more than one training pair, a seeded
    ``fraction`` of the users with test pairs becomes ``tuning_users`` instead, and their test pairs the validation
    part. ``tell`` says in the log what the share became.
    """
    train, rng = split.train, np.random.default_rng(seed)
    counts = train.user_counts
    protocol = split.protocol | {"validation": {"fraction": fraction, "seed": seed}}
    if counts.max(initial=0) <= 1:
        able = np.flatnonzero(split.test.user_counts)
        if not len(able):
            problem = "no user has a second training pair, or a test pair, to validate on"
            raise InputError(problem, "leave --validation out, or use a split with test pairs")
        tuning = np.zeros(train.n_users, bool)
        n = max(1, round(fraction * len(able)))
        tuning[rng.permutation(able)[:n]] = True
        protocol["validation"]["kind"] = "tuning users"
        protocol["validation"] |= _became("validation", fraction, n, len(able), "user", "there are so few", tell)
        validation = split.test.select(tuning[split.test.users])
        return replace(split, validation=validation, tuning_users=tuning, protocol=protocol)
    observed = np.flatnonzero(train.observed)
    times = None if train.times is None or split.protocol.get("kind") != "last" else train.times[observed]
    taken = np.zeros(len(train), bool)
    taken[observed[share_of_each_user(train.users[observed], train.n_users, fraction, rng, times)]] = True
    protocol["validation"]["kind"] = "training pairs" if times is None else "last training pairs"
    n, n_taken, why = int(counts.sum()), int(taken.sum()), "every user keeps a training pair"
    protocol["validation"] |= _became("validation", fraction, n_taken, n, "training pair", why, tell)
    kept = train.as_missing(taken) if split.protocol.get("kind") == "cells" else train.select(~taken)
    return replace(split, train=kept, validation=train.select(taken), protocol=protocol)


def make_split(dataset: Dataset, options: Any) -> Split:
    """The split that options ask for (fields as in ``inference.options.DataOptions``).

    A data set whose every cell is stored is split by cells (:func:`held_out_cells`) where ``per-user`` is asked: its
    ratings are real numbers, and a cell that is not trained on is unknown, not a zero.
    """
    if given_files(options):
        split = from_files(dataset, options)
    elif options.split == "time":
        split = by_time(dataset, options.test_fraction)
    elif options.split == "last":
        split = last_of_each_user(dataset, options.test_fraction, options.split_seed)
    elif options.split == "items":
        split = held_out_items(dataset, options.test_fraction, options.split_seed)
    elif options.split == "none":
        split = nothing_held_out(dataset)
    elif options.split not in get_args(Splitting):
        raise InputError(f"unknown split {options.split!r}", "use " + ", ".join(get_args(Splitting)))
    elif options.split == "cells" or dataset.interactions.complete:
        split = held_out_cells(dataset, options.test_fraction, options.split_seed)
    else:
        split = per_user(dataset, options.train_per_user, options.split_seed)
    if options.validation:
        split = with_validation(split, options.validation, options.split_seed)
    log.info("%s", told(split))
    return split


def told(split: Split) -> str:
    """How many pairs train and how many are held out, in a line."""
    n_train, n_test = int(split.train.observed.sum()), int(split.test.observed.sum())
    n_validation = 0 if split.validation is None else int(split.validation.observed.sum())
    apart = n_test + (n_validation if split.tuning_users is None else 0)  # tuning users validate on test pairs
    if not apart:
        return f"{counted(n_train, 'pair', 'train')}, none is held out"
    parts = [counted(n_test, "test pair")] + ([counted(n_validation, "validation pair")] if n_validation else [])
    share, how = apart / (n_train + apart), "--split none fits all"
    if str(split.protocol.get("kind")).startswith("file"):
        how = "by the files"
    return f"{counted(n_train, 'pair', 'train')}; {share:.0%} are held out: {', '.join(parts)} ({how})"


def need_test(split: Split) -> None:
    """Raise InputError where the split holds no test pairs out because it was asked not to."""
    if not len(split.test) and split.protocol.get("kind") == "none":
        problem = "all pairs were fitted (--split none), so that there is nothing to evaluate on"
        raise InputError(problem, "fit again with another --split, for instance per-user")


def item_groups(train: Interactions) -> np.ndarray:
    """Group of each item, (n_items,), an index into ``GROUPS``, by its positive training ratings.

    cold: no positive training rating. warm: from 1 to the median number of ratings of the items that have any. hot:
    more than that median.
    """
    counts = np.bincount(train.items[train.positive], minlength=train.n_items)
    median = np.median(counts[counts > 0]) if counts.any() else 0.0
    return np.where(counts == 0, 2, np.where(counts <= median, 1, 0)).astype(np.int64)


def _became(flag: str, asked: float, n: int, of: int, what: str, why: str, tell: bool = True) -> dict[str, float]:
    """What a share became, for the protocol and in the log, where that is not what was asked for."""
    share = n / max(1, of)
    if n and abs(share - asked) <= max(0.01, 0.05 * asked):
        return {}
    if tell:
        log.warning("--%s %g became %.3g: %s, since %s", flag, asked, share, counted(n, what, of=of), why)
    return {"became": round(share, 4)}


def _split(pairs: Interactions, test: np.ndarray, protocol: dict[str, Any]) -> Split:
    return Split(pairs.select(~test), pairs.select(test), None, None, protocol)
