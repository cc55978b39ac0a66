"""Which runs are compared, and how closely."""

from __future__ import annotations

from dataclasses import dataclass

from inference.kinds import Format
from inference.options.checking import check, check_cutoffs, check_least, check_words
from pyro_cvae.protocol import CUTOFFS


@dataclass(frozen=True)
class CompareOptions:
    """Which runs are compared, how closely, and where tables and figure go.

    Parameters:
        runs: Run folders of one data set and split; differences are taken to the first.
        out: A folder to be made, for the tables (CSV) and the figure (PNG); without it they are only printed.
        rivals: Put popularity, TF-IDF cosine, truncated-SVD cosine and implicit's ALS beside them, or of explicit
            ratings their mean, and the mean with biases by ridge.
        cutoffs: The M of recall@M; one of all items or more is half of them, since its recall would be 1.
        resamples: Bootstrap samples of users.
        level: Level of the bootstrap intervals.
        top: Length of the lists whose stability is looked at.
        users: Users, drawn by the seed, whose lists are looked at.
        draws: Posterior draws of those lists.
        seed: Of everything random.
        threads: Number of threads; all that torch takes by itself if not given.
        block_size: Users scored at once.
        overwrite: Replace the folder, if it is of this command.
        format: How the tables are printed.
        trust: Class paths outside of the package that the runs may import; see docs/security.md.
    """

    runs: tuple[str, ...]
    out: str | None = None
    rivals: bool = False
    cutoffs: tuple[int, ...] = CUTOFFS
    resamples: int = 2000
    level: float = 0.95
    top: int = 50
    users: int = 500
    draws: int = 20
    seed: int = 0
    threads: int | None = None
    block_size: int = 256
    overwrite: bool = False
    format: Format = "table"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_words(self)
        check_cutoffs(self.cutoffs)
        check_least(self, {"resamples": 1, "top": 1, "users": 1, "block_size": 1, "threads": 1, "draws": 2, "seed": 0})
        check(0 < self.level < 1, "level", self.level, "between 0 and 1")
