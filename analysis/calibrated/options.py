"""What is asked of fitted models, and where the answers go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference.kinds import Format
from inference.options.checking import check, check_least, check_words
from pyro_cvae.errors import InputError


@dataclass(frozen=True)
class CalibrationOptions:
    """What is asked of fitted models, and where the answers go.

    Parameters:
        runs: Run folders, as the fit commands leave them.
        out: Folder of the tables (CSV), figures (PNG) and recalibrations (JSON), made if need be; without it the tables
            are only printed.
        top: Length of the lists whose items are looked at.
        reserve: Share of the users on whom recalibrations are fitted, where the split has no tuning users.
        bins: Equal-mass bins of the calibration error.
        draws: Draws of each score for interval coverage.
        resamples: Resamples of the bootstrap over users.
        seed: Of all that is drawn.
        threads: Number of threads; all that torch takes by itself if not given.
        format: How the tables are printed.
        trust: Class paths outside of the package that the runs may import; see docs/security.md.
    """

    runs: tuple[str, ...]
    out: str | None = None
    top: int = 50
    reserve: float = 0.1
    bins: int = 15
    draws: int = 1000
    resamples: int = 1000
    seed: int = 0
    threads: int | None = None
    format: Format = "table"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_words(self)
        check_least(self, {"top": 1, "bins": 2, "draws": 20, "resamples": 20, "seed": 0, "threads": 1})
        check(0 < self.reserve < 1, "reserve", self.reserve, "between 0 and 1")
        if self.out and Path(self.out).exists() and not Path(self.out).is_dir():
            raise InputError("--out is a file", "name a folder", path=self.out)
