"""What is searched, how long, and where the settings go."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from inference.kinds import Format, TunedMethod
from inference.options import RunOptions
from inference.options.checking import check, check_least, check_words
from pyro_cvae.errors import InputError

RUN_KEYS = tuple(f.name for f in fields(RunOptions))
"""Options of the run folder, which a search does not have."""
MACHINE_KEYS = ("device", "threads")
"""Options of the machine: another one may go on with the search, and the settings found do not hold them."""


@dataclass(frozen=True)
class TuneOptions:
    """What is searched, how long, and where the settings go.

    Parameters:
        method: The inference module, svi or coordinate; all its options but those of the run folder are taken, too.
        search: What is searched: name=low:high, name=low:high:log (whole numbers where the option is one), name=a,b,c.
        trials: Number of fits in all, those of an earlier call with the same storage among them.
        timeout: Minutes after which no further trial begins.
        cutoffs: The M of recall@M on the validation part; with several, their mean is what counts. An M of
            more than half of the items is that half. Of explicit ratings the RMSE counts, whatever they are.
        pruning: Stop a trial whose validation recall is below the median of earlier ones at the same epoch, or RMSE
            above it.
        out: The YAML file for the best settings; by default runs/tune-DATA-METHOD.yaml.
        storage: The SQLite file of all trials; by default beside the YAML file, with the suffix .db.
        quiet: No progress bar; where stderr is no terminal, no lines of progress.
        format: How the best trials are printed.
    """

    method: TunedMethod
    search: tuple[str, ...]
    trials: int = 50
    timeout: float | None = None
    cutoffs: tuple[int, ...] = (300,)
    pruning: bool = True
    out: str | None = None
    storage: str | None = None
    quiet: bool = False
    format: Format = "table"

    def __post_init__(self) -> None:
        check_words(self)
        names = [pieces_of(text)[0] for text in self.search]
        if not names or len(set(names)) < len(names):
            raise InputError(f"--search is {' '.join(self.search)!r}, but it must name one or more options, each once")
        check_least(self, {"trials": 1})
        check(self.timeout is None or 0 < self.timeout < math.inf, "timeout", self.timeout, "a finite number above 0")
        if not self.cutoffs or min(self.cutoffs) < 1 or len(set(self.cutoffs)) < len(self.cutoffs):
            given = " ".join(map(str, self.cutoffs))
            raise InputError(f"--cutoffs is {given!r}, but it must be one or more numbers of 1 or more, each once")


def pieces_of(text: str) -> tuple[str, list[str], bool]:
    """Name, words, and whether they are a range, of one text of ``--search``; InputError where it is none."""
    name, _, rest = text.partition("=")
    is_range = ":" in rest and "," not in rest
    pieces = [piece.strip() for piece in rest.split(":" if is_range else ",")]
    whole = len(pieces) == 2 or (len(pieces) == 3 and pieces[2] == "log") if is_range else len(pieces) >= 2
    if not name or not whole or not all(pieces) or (not is_range and len(set(pieces)) < len(pieces)):
        raise InputError(f"--search has {text!r}", "write name=low:high, name=low:high:log or name=a,b,c")
    return name.strip().replace("-", "_"), pieces, is_range
