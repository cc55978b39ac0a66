"""Stars of MovieLens-100k with few and with many training ratings a user.

All fits have the networks, factors and sweeps of :mod:`benchmarks.stars`; the networks are trained once on the films'
genres and titles and held. Each user has ``n`` training ratings, or all where there are no more. The other ratings are
test, so that users with ``n`` ratings or fewer train and are not tested.
"""

from __future__ import annotations

from collections.abc import Mapping
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
NUMBERS = (5, 10, 20, 40, 80)
MODELS: dict[str, dict[str, Any]] = {
    "map, defaults": {"mode": "map"},
    "bayes, defaults": {},
    "bayes, diagonal": {"diagonal": True},
    "bayes, structured": {"guide": "structured"},
    "bayes, precisions learned": {"learn_precisions": True},
    "map, 5 factors": {"mode": "map", "factors": 5},
    "bayes, 5 factors": {"factors": 5},
}
"""Nothing of these is chosen."""
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
    wanted = [(seed, n) for seed in range(splits) for n in numbers]
    for seed, n in wanted:
        split = per_user(dataset, n, seed)
        for name, settings in MODELS.items():
            store.measured(Key(PART, case_of(n), seed, name), lambda s=settings, split=split: fits.measure(split, s))
        store.measured(Key(PART, case_of(n), seed, TUNED), lambda split=split, seed=seed: fits.tuned(split, seed))
