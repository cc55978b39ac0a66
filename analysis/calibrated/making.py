"""The three questions, asked of each run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.calibrated.options import CalibrationOptions
from analysis.coverage import Coverage, coverage
from analysis.error_correlation import ErrorCorrelation, error_correlation
from analysis.over_users import predicts_ratings
from analysis.reliability import Reliability, reliability
from inference.loading import load
from inference.progress import track
from inference.threads import torch_threads
from pyro_cvae.errors import about_file


def calibrate(options: CalibrationOptions) -> tuple[list[Coverage], list[Reliability], list[ErrorCorrelation]]:
    """What there is to say of each run: coverage of what is known, reliability of clicks, and correlated errors."""
    covered: list[Coverage] = []
    reliable: list[Reliability] = []
    correlated: list[ErrorCorrelation] = []
    seeds: dict[str, Any] = {"seed": options.seed}
    boot = seeds | {"reserve": options.reserve, "resamples": options.resamples}
    with torch_threads(options.threads):
        for name, path in track(_names(options.runs), "runs"):
            fit = load(path, trust=options.trust)
            known = predicts_ratings(fit) or (fit.dataset.truth is not None and "a" in fit.dataset.truth)
            with about_file(path):
                if known:
                    covered.append(coverage(fit, name, draws=options.draws, **seeds))
                else:
                    reliable.append(reliability(fit, name, top=options.top, n_bins=options.bins, **boot))
                correlated.append(error_correlation(fit, name, **boot))
    return covered, reliable, correlated


def _names(runs: Sequence[str]) -> list[tuple[str, str]]:
    """A short name for each run: its folder's, or the whole path where two are alike."""
    short = [Path(run).absolute().name for run in runs]
    return [(name if short.count(name) == 1 else run, run) for name, run in zip(short, runs, strict=True)]
