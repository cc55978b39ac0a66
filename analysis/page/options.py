"""Which runs a page is about, and whose lists it shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from inference.options.checking import check_file, check_least, check_new
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted


@dataclass(frozen=True)
class ReportOptions:
    """Which runs the page is about, and whose lists it shows.

    Parameters:
        runs: One run folder, or two of one data set and split.
        out: The HTML file; by default report-RUN.html, after the folders of the runs, in the working folder.
        user: Users whose lists are shown, by their ids; otherwise --users of them, drawn by the seed.
        users: How many users are drawn.
        top: Length of each shown list.
        draws: Posterior draws behind the intervals of each list.
        rivals: Put truncated-SVD cosine and implicit's ALS beside popularity and TF-IDF cosine; of explicit ratings
            their mean, and mean with biases, are there anyway.
        seed: Of everything random.
        threads: Number of threads; all that torch takes by itself if not given.
        overwrite: Replace the file if it exists.
        trust: Class paths outside of the package that the runs may import; see docs/security.md.
    """

    runs: tuple[str, ...]
    out: str | None = None
    user: tuple[str, ...] = ()
    users: int = 3
    top: int = 10
    draws: int = 1000
    rivals: bool = False
    seed: int = 0
    threads: int | None = None
    overwrite: bool = False
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.runs) > 2:
            raise InputError(
                f"{counted(len(self.runs), 'run', 'are')} named", "a report is about one or two; see analysis.compare"
            )
        check_least(self, {"users": 0, "top": 1, "draws": 20, "seed": 0, "threads": 1})
        if self.out is None:
            names = "-".join(re.sub(r"[^\w.-]+", "_", Path(run).absolute().name) for run in self.runs)
            object.__setattr__(self, "out", f"report-{names}.html")
        assert self.out is not None
        check_file("out", self.out, ".html", ".htm")
        if Path(self.out).is_dir():
            raise InputError("is a folder", "name a file", path=self.out)
        check_new(Path(self.out), self.overwrite)
