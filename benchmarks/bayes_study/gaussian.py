"""Ratings drawn from the model itself, with known truth: scores, log scores and coverage, Monte Carlo included.

Data sets are ``simulated-gaussian``; each split is a data set of its own. A user was exposed to 5 % of the 200 items
(few ratings) or to 20 % (many). A fifth of the cells is held out. Networks are trained once on the texts and held, and
a and b are the simulator's. "defaults" have the simulator's lambda_u and lambda_v too; what is tuned has those of
twelve that predict a tenth of the training cells best.

What is measured is of all held-out cells, given the true scores s: of a prediction N(m, v) of a new rating with noise
1 / a, the error of m, the log score E[log N(R; m, v)] and the coverage P(R in the 90 % interval), both in closed form,
and the share of s in the 90 % interval of the score. A point takes its score to be known: v = 1 / a. "noise of
validation" has in place of 1 / a the mean square error on the validation cells.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.bayes_study.store import Key, Store
from benchmarks.study.choosing import least
from inference.fitting import Fit, Pretrained, fit_with
from inference.options import Options
from inference.predicted import score_moments
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.simulated import simulated_gaussian
from pyro_cvae.data.splits import Split, held_out_cells, with_validation

PART = "gaussian"
EXPOSURES = {"few ratings": 0.05, "many ratings": 0.2}
SHARED: dict[str, Any] = {"factors": 5, "hidden": (100, 50), "pretrain_epochs": 100, "a": 1.0, "b": 0.01}
SIMULATED = {"lambda_u": 1.0, "lambda_v": 10.0}
SWEPT: dict[str, Any] = {"epochs": 0, "sweeps": 20}
CHAINS: dict[str, Any] = {"warmup": 150, "draws": 250, "thin": 2, "chains": 2}
MAP, MONTE_CARLO, SAMPLED = "map, defaults", "mcmc", "few ratings"
"""Chains take most of the time, and are run in this case alone."""
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    MAP: ("coordinate", {"mode": "map", **SWEPT}),
    "bayes, defaults": ("coordinate", SWEPT),
    "bayes, diagonal": ("coordinate", {"diagonal": True, **SWEPT}),
    "bayes, structured": ("coordinate", {"guide": "structured", **SWEPT}),
    "bayes, precisions learned": ("coordinate", {"learn_precisions": True, **SWEPT}),
    MONTE_CARLO: ("mcmc", CHAINS),
}
WIDENED = "map, tuned, noise of validation"
CHOSEN: dict[str, dict[str, Any]] = {
    "map, tuned": {"mode": "map", **SWEPT},
    WIDENED: {"mode": "map", **SWEPT},
    "bayes, tuned": SWEPT,
    "bayes, structured, tuned": {"guide": "structured", **SWEPT},
}
"""What has the settings of ``GRID`` that predict the validation cells best."""
GRID = [{"lambda_u": u, "lambda_v": v} for u, v in product((1.0, 2.0, 4.0, 8.0), (0.3, 1.0, 3.0))]
LEVEL = 0.9


@dataclass(frozen=True)
class Predicted:
    """Mean and variance of the scores of cells, (n_cells,) each, and the noise's variance of a new rating."""

    mean: np.ndarray
    variance: np.ndarray
    noise: float


def expected(truth: np.ndarray, a: float, told: Predicted) -> dict[str, float]:
    """Error, log score (nats) and coverage of new ratings N(truth, 1 / a), and coverage of the truth, (n_cells,)."""
    away, variance = truth - told.mean, told.variance + told.noise
    scores = -0.5 * (np.log(2 * np.pi * variance) + (away**2 + 1 / a) / variance)
    quantile = norm.ppf(0.5 + LEVEL / 2)
    low, high = ((side * quantile * np.sqrt(variance) - away) * a**0.5 for side in (-1, 1))
    found = {"rmse": np.sqrt(np.mean(away**2)), "log_score": scores.mean()}
    found["coverage"] = np.mean(norm.cdf(high) - norm.cdf(low))
    if told.variance.any():
        found["coverage_scores"] = np.mean(np.abs(away) <= quantile * np.sqrt(told.variance))
    return {name: float(value) for name, value in found.items()}


class Gaussian:
    """Fits of one data set on the same networks; ``changes`` are of the options."""

    def __init__(self, dataset: Dataset, seed: int, threads: int = 1, **changes: Any) -> None:
        self.dataset, self.pretrained = dataset, Pretrained()
        self.split = held_out_cells(dataset, 0.2, seed)
        self.tuning = with_validation(self.split, 0.1, seed, tell=False)
        self.shared: dict[str, Any] = {**SHARED, "threads": threads, **changes}

    def fit(self, split: Split, method: str, settings: Mapping[str, Any]) -> Fit:
        """A fit of a split; the networks of ``mcmc`` are its own, the same but for chance."""
        options = Options.of(method, **{**self.shared, **SIMULATED, **settings})
        return fit_with(self.dataset, split, options, pretrained=self.pretrained if method == "coordinate" else None)

    def measure(self, fit: Fit, noise: float | None = None) -> dict[str, float]:
        """What is measured of all held-out cells."""
        assert self.dataset.truth is not None
        a, test = float(self.dataset.truth["a"]), self.split.test
        mean, variance = (part.numpy() for part in score_moments(fit.posterior, test.users, test.items))
        truth = self.dataset.truth["scores"][test.users, test.items]
        return expected(truth, a, Predicted(mean, variance, 1 / a if noise is None else noise))

    def residual(self, own: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
        """Mean square error of a model on the validation cells of precision a, fitted to the others."""
        assert self.tuning.validation is not None
        fit = self.fit(self.tuning, "coordinate", {**own, **settings})
        cells = exposed(self.tuning.validation, self.shared["a"])
        mean, _ = score_moments(fit.posterior, cells.users, cells.items)
        return float(np.mean((cells.ratings - mean.numpy()) ** 2))

    def tuned(self, name: str) -> dict[str, Any]:
        """A model of ``CHOSEN`` at the chosen precisions; the seconds are those of choosing and of the fit."""
        own = CHOSEN[name]
        settings, losses = least(partial(self.residual, own), GRID)
        fit = self.fit(self.split, "coordinate", {**own, **settings})
        return self.measure(fit, min(losses) if name == WIDENED else None) | {"settings": settings}


def exposed(cells: Interactions, a: float) -> Interactions:
    """The cells of precision ``a``."""
    assert cells.confidences is not None
    return cells.select(cells.confidences == a)


def run(store: Store, splits: int, threads: int = 1, sizes: Mapping[str, int] | None = None, **changes: Any) -> None:
    """Measure every model on every data set; ``sizes`` are of the simulator, ``changes`` of the options."""
    for seed, (case, exposure) in product(range(splits), EXPOSURES.items()):
        models = {name: how for name, how in MODELS.items() if name != MONTE_CARLO or case == SAMPLED}
        keys = {name: Key(PART, case, seed, name) for name in (*models, *CHOSEN)}
        if all(key in store.rows for key in keys.values()):
            continue
        fits = Gaussian(simulated_gaussian(seed, exposure=exposure, **(sizes or {})), seed, threads, **changes)
        fits.fit(fits.split, "coordinate", {"mode": "map", "epochs": 0, "sweeps": 1})  # the networks
        for name, (method, settings) in models.items():
            store.measured(keys[name], partial(_timed, fits, method, settings))
        for name in CHOSEN:
            store.measured(keys[name], partial(fits.tuned, name))


def _timed(fits: Gaussian, method: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a fit and its seconds, of ``mcmc`` those of its networks too."""
    began = time.process_time()
    fit = fits.fit(fits.split, method, settings)
    return {"seconds": time.process_time() - began, **fits.measure(fit)}
