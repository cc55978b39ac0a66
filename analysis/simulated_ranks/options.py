"""How much is simulated, and how the sampler runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from analysis.kinds import Broken
from inference.kinds import Format
from inference.options.checking import check_file, check_least, check_seed, check_words, choice
from models.catalogue import MODELS
from pyro_cvae.errors import InputError

BREAKS = get_args(Broken)


SIMULATED = tuple(name for name, facts in MODELS.items() if facts.has_z or not facts.has_content)
"""Models whose latent sites are all drawn by inference.mcmc."""


@dataclass(frozen=True)
class SBCOptions:
    """How much is simulated, and how the sampler runs.

    Parameters:
        model: The story that is simulated (cvae, pmf).
        simulations: Data sets that are simulated.
        draws: Draws of each posterior that a true value is ranked among.
        thin: Sweeps between two of them.
        warmup: Steps of as many sweeps before the first.
        seed: Of everything random; broken samplers take the seeds from it on.
        broken: The precision that broken samplers take twice.
        broken_seeds: Broken samplers that are run, each on simulations of its own.
        words: Mean length of a simulated text, of cvae.
        a: Precision of a rating where the user was exposed; a tenth of it elsewhere.
        out: A PNG of the ECDFs, none by default.
        format: How the table is printed.
    """

    model: str = "cvae"
    simulations: int = 200
    draws: int = 99
    thin: int = 4
    warmup: int = 20
    seed: int = 0
    broken: Broken = "lambda_u"
    broken_seeds: int = 100
    words: float = 60.0
    a: float = 1.0
    out: str | None = None
    format: Format = "table"

    def __post_init__(self) -> None:
        check_words(self)
        choice("model", self.model, SIMULATED)
        check_least(self, {"simulations": 10, "draws": 9, "thin": 1, "warmup": 1, "broken_seeds": 0})
        if not (self.words >= 1 and 0 < self.a < float("inf")):
            raise InputError(f"--words is {self.words:g} and --a {self.a:g}", "use 1 or more words, and a precision a")
        check_seed(self.seed)
        check_file("out", self.out, ".png")
