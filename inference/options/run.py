"""Options of where the run goes."""

from __future__ import annotations

from dataclasses import dataclass

from inference.kinds import Format
from inference.options.checking import check, check_parent, check_words
from pyro_cvae.errors import InputError

LOGS = ("jsonl", "tensorboard", "mlflow")
"""Words of ``--log``."""


@dataclass(frozen=True)
class RunOptions:
    """Where the run comes from and goes.

    Parameters:
        start_from: A run folder to go on from with these data: its networks are kept, its settings are the defaults,
            its v is where sweeps begin. Users and items are matched by their ids. --pretrain-epochs is out then, and
            --epochs and --tune are 0 unless they are given beside it (of inference.svi: --learning-rate).
        out: The run folder; by default runs/DATA-MODE.
        log: Where each epoch is told besides history.csv: jsonl (log.jsonl in the run folder, or jsonl=FILE),
            tensorboard (in the run folder, or tensorboard=FOLDER), mlflow (where its own environment says).
        resume: Go on with a run that was stopped, to the same numbers.
        overwrite: Replace the run folder if it exists.
        checkpoint_seconds: Least time between two checkpoints.
        quiet: No progress bar; where stderr is no terminal, no lines of progress.
        format: How the result is printed.
    """

    start_from: str | None = None
    out: str | None = None
    log: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False
    checkpoint_seconds: float = 20.0
    quiet: bool = False
    format: Format = "table"

    def __post_init__(self) -> None:
        check_words(self)
        logs_in(self.log)
        check(not (self.resume and self.overwrite), "resume", self.resume, "given without --overwrite")
        check(self.checkpoint_seconds >= 0, "checkpoint_seconds", self.checkpoint_seconds, "0 or more")


def logs_in(texts: tuple[str, ...]) -> dict[str, str | None]:
    """Kinds of ``--log`` and their paths, ``None`` where none is given; InputError for what is none of them."""
    found: dict[str, str | None] = {}
    for text in texts:
        kind, given, path = text.partition("=")
        must = "one or more of jsonl, tensorboard, mlflow, the first two with =PATH where they go elsewhere"
        check(kind in LOGS and bool(path) == bool(given) and not (path and kind == "mlflow"), "log", text, must)
        if kind in found:
            raise InputError(f"--log has {kind} twice", "give it once")
        if path:
            check_parent("log", path)
        found[kind] = path or None
    return found
