"""Which part of the paper's study is computed, on which data, and where it goes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from analysis.kinds import Part
from inference.options.checking import check, check_least, check_parent, check_words
from pyro_cvae.data.names import NAMES

PARTS: tuple[Part, ...] = tuple(part for part in get_args(Part) if part != "all")
SPLITS: dict[Part, int] = {"fig4": 5, "fig5": 5, "fig6": 3, "fig7": 3, "table1": 1}
"""Splits of each part where none are asked for."""


@dataclass(frozen=True)
class PaperOptions:
    """Which part of the paper's study is computed, on which data, and where it goes.

    Parameters:
        parts: Figures and tables of the paper (fig4, fig5, fig6, fig7, table1), or all.
        data: Names or paths of data sets; a published one is read from $PYRO_CVAE_DATA where that folder has it.
        splits: Random splits, with seeds from 0; by default 5 for fig4 and fig5, 3 for fig6 and fig7, 1 for table1.
        methods: Names of methods, if not all of a part are wanted.
        out: The folder of finished fits, figures, tables and verdicts, made if need be.
        threads: CPU threads of each process.
        jobs: Processes that fit at once; with 1 it is this one.
        quiet: No progress bar; where stderr is no terminal, no lines of progress.
    """

    parts: tuple[Part, ...]
    data: tuple[str, ...] = ("citeulike-t", "citeulike-a")
    splits: int | None = None
    methods: tuple[str, ...] = ()
    out: str = "runs/paper"
    threads: int = 1
    jobs: int = 1
    quiet: bool = False

    def __post_init__(self) -> None:
        check_words(self)
        check_least(self, {"splits": 1, "threads": 1, "jobs": 1})
        check(len(set(self.data)) == len(self.data) > 0, "data", " ".join(self.data), "one or more, each once")
        if self.out != "runs/paper":
            check_parent("out", self.out)

    @property
    def chosen(self) -> tuple[Part, ...]:
        """The parts that are asked for, in the paper's order."""
        return PARTS if "all" in self.parts else tuple(part for part in PARTS if part in self.parts)

    def n_splits(self, part: Part) -> int:
        """Splits of a part; the table is of one split."""
        if part == "table1":
            return 1
        return SPLITS[part] if self.splits is None else self.splits


def place_of(data: str) -> str:
    """Where a data set is: a published one under ``$PYRO_CVAE_DATA``, where it is there; otherwise as it is called."""
    folder = os.environ.get("PYRO_CVAE_DATA")
    if data in NAMES and folder and (Path(folder) / data).is_dir():
        return str(Path(folder) / data)
    return data
