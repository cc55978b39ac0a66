"""Stars of MovieLens-100k with few and with many training ratings a user.

All fits have the networks, factors and sweeps of :mod:`benchmarks.stars`; the networks are trained once on the films'
genres and titles and held. Each user has ``n`` training ratings, or all where there are no more. The other ratings are
test, so that users with ``n`` ratings or fewer train and are not tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any

from benchmarks.bayes_study.store import Key, Store
from benchmarks.stars import CLOSED, SHARED
from benchmarks.study.choosing import least, validation_as_test
from inference.fitting import Fit, Pretrained, fit_with
from inference.options import Options
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split, per_user, with_validation

PART = "stars"
FEW = 5
"""Factors, where :mod:`benchmarks.stars` has 50."""
NUMBERS = (5, 10, 20, 40, 80)
MODELS: dict[str, dict[str, Any]] = {
    "map, defaults": {"mode": "map"},
    "bayes, defaults": {},
    "bayes, precisions learned": {"learn_precisions": True},
    "map, 5 factors": {"mode": "map", "factors": FEW},
    "bayes, 5 factors": {"factors": FEW},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bayes, diagonal": {"diagonal": True},
    "bayes, structured": {"guide": "structured"},
}
"""Nothing of all these is chosen. The families come last, after all splits of the others."""
TUNED = "map, tuned"
GRID = [{"user_shrinkage": u, "item_shrinkage": v} for u, v in product((20.0, 40.0, 80.0, 320.0), (1.25, 2.5, 5.0))]
"""Around the defaults, 20 and 2.5; with 320 little but the biases is left."""
VALIDATION = 0.2


def case_of(n: int) -> str:
    """The case of ``n`` training ratings a user."""
    return f"{n} ratings"


class Stars:
    """Fits of one data set on the same networks."""

    def __init__(self, dataset: Dataset, threads: int = 1, **changes: Any) -> None:
        self.dataset = dataset
        self.pretrained: dict[int, Pretrained] = {}
        self.shared: dict[str, Any] = {**SHARED, **CLOSED, "threads": threads, **changes}

    def fit(self, split: Split, settings: Mapping[str, Any]) -> Fit:
        """A fit of a split."""
        options = Options.of("coordinate", **{**self.shared, **settings})
        pretrained = self.pretrained.setdefault(options.model.factors, Pretrained())
        return fit_with(self.dataset, split, options, pretrained=pretrained)

    def train(self, split: Split) -> None:
        """Train the networks of each number of factors, once, so that they are in nobody's seconds."""
        for factors in {SHARED["factors"], FEW} - set(self.pretrained):
            self.fit(split, {**GRID[0], "mode": "map", "factors": factors, "sweeps": 1})

    def measure(self, split: Split, settings: Mapping[str, Any]) -> dict[str, float]:
        """RMSE, mean log density (nats) and coverage of 90 % intervals of the test ratings."""
        return scored(self.fit(split, settings).metrics)

    def choose(self, split: Split, seed: int) -> dict[str, Any]:
        """The settings of ``map`` that predict a fifth of each user's training ratings best."""
        tuning = validation_as_test(with_validation(split, VALIDATION, seed, tell=False))
        return least(lambda settings: self.measure(tuning, {"mode": "map", **settings})["rmse"], GRID)[0]

    def tuned(self, split: Split, seed: int) -> dict[str, Any]:
        """``map`` with chosen settings; the seconds are those of choosing and of the fit."""
        settings = self.choose(split, seed)
        return self.measure(split, {"mode": "map", **settings}) | {"settings": settings}


def scored(metrics: Mapping[str, float]) -> dict[str, float]:
    """The three metrics of stars, from those of a fit."""
    names = {"rmse": "rmse", "log_score": "log_density", "coverage": "coverage@90"}
    return {name: float(metrics[own]) for name, own in names.items()}


def run(store: Store, dataset: Dataset, splits: int, threads: int = 1, numbers: tuple[int, ...] = NUMBERS) -> None:
    """Measure every model with every number of ratings a user on every split."""
    fits = Stars(dataset, threads)
    for models, seed, n in product((MODELS, FAMILIES), range(splits), numbers):
        names = (*models, TUNED) if models is MODELS else tuple(models)
        keys = {name: Key(PART, case_of(n), seed, name) for name in names}
        if all(key in store.rows for key in keys.values()):
            continue
        split = per_user(dataset, n, seed)
        fits.train(split)
        for name, settings in models.items():
            store.measured(keys[name], partial(fits.measure, split, settings))
        if TUNED in keys:
            store.measured(keys[TUNED], partial(fits.tuned, split, seed))
