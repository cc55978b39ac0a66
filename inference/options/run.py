"""Options of where the run goes."""

from __future__ import annotations

from dataclasses import dataclass

from inference.kinds import Format
from inference.options.checking import check, check_words


@dataclass(frozen=True)
class RunOptions:
    """Where the run goes.

    Parameters:
        out: The run folder; by default runs/DATA-MODE.
        resume: Go on with a run that was stopped, to the same numbers.
        overwrite: Replace the run folder if it exists.
        checkpoint_seconds: Least time between two checkpoints.
        quiet: No progress bar; where stderr is no terminal, no lines of progress.
        format: How the result is printed.
    """

    out: str | None = None
    resume: bool = False
    overwrite: bool = False
    checkpoint_seconds: float = 20.0
    quiet: bool = False
    format: Format = "table"

    def __post_init__(self) -> None:
        check_words(self)
        check(not (self.resume and self.overwrite), "resume", self.resume, "given without --overwrite")
        check(self.checkpoint_seconds >= 0, "checkpoint_seconds", self.checkpoint_seconds, "0 or more")
