"""Clicks of citeulike-t with one and with ten training items a user.

All fits are ``inference.coordinate --preset best`` with K = 50, the networks trained on the texts once and held, as in
:mod:`benchmarks.bayes`. "defaults" have the package's own a, b and shrinkages. What is tuned has the settings with the
best recall@50 plus recall@300 on a validation part of the training ratings of its split: a fifth of them, or at one
item a user the other ratings of a seeded tenth of the users, who are left out of every mean.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.bayes_study.store import Key, Store
from benchmarks.study.choosing import CUTOFFS, best_recall, reported_split
from inference.average import ScoreBlock
from inference.evaluation.rankings import evaluate
from inference.fitting import Fit, Pretrained, fit_with
from inference.keywords import options_of
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split, with_validation

PART = "clicks"
NUMBERS = (1, 10)
SHARED: dict[str, Any] = {"factors": 50, "hidden": (50,), "radius": 9.0, "epochs": 0, "sweeps": 6}
DEFAULTS: dict[str, Any] = {"a": 100.0, "b": 1.0, "user_shrinkage": 0.0, "item_shrinkage": 0.0, "tune": 0}
"""In place of the preset's; 0 takes the package's."""
MODELS: dict[str, dict[str, Any]] = {
    "map, defaults": {"mode": "map"},
    "bayes, defaults": {},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bayes, diagonal": {"diagonal": True},
    "bayes, structured": {"guide": "structured"},
}
"""Nothing of all these is chosen. The families come last, after all splits of the others."""
CHOSEN: dict[str, dict[str, Any]] = {"map, tuned": {"mode": "map"}, "bayes, tuned": {}}
Setting = tuple[float, float, float]
"""a, and the shrinkages of users and items; b is a / 100."""
GRIDS: dict[int, dict[str, tuple[Setting, ...]]] = {
    1: {
        "map": tuple(product((100.0,), (5.0, 10.0, 20.0), (0.25, 0.5))),
        "bayes": tuple(product((1000.0,), (5.0, 10.0, 20.0), (0.25, 0.5))),
    },
    10: {
        "map": tuple(product((100.0,), (2.5, 5.0), (0.5, 1.0))),
        "bayes": tuple(product((100.0,), (1.25, 2.5), (0.5, 1.0))),
    },
}
"""By training items a user. Points depend on ratios to a alone; a posterior's spread depends on a, which is the one
that :mod:`benchmarks.bayes` chose of 100 and 1000."""


def settings_of(a: float, user: float, item: float) -> dict[str, Any]:
    """Options of a setting."""
    return {"a": a, "b": a / 100, "user_shrinkage": user, "item_shrinkage": item}


def case_of(n: int) -> str:
    """The case of ``n`` training items a user."""
    return f"P = {n}"


class Clicks:
    """Fits of one data set on the same networks."""

    def __init__(self, dataset: Dataset, threads: int = 1, **changes: Any) -> None:
        self.dataset, self.pretrained, self.trained = dataset, Pretrained(), False
        self.shared: dict[str, Any] = {**SHARED, "threads": threads, **changes}

    def fit(self, split: Split, settings: Mapping[str, Any]) -> Fit:
        """A fit of the training part; nothing is evaluated."""
        options = options_of("coordinate", "best", {**self.shared, **DEFAULTS, **settings})
        nothing = split.test.select(np.zeros(len(split.test), bool))
        return fit_with(
            self.dataset, replace(split, test=nothing, validation=None), options, pretrained=self.pretrained
        )

    def train(self, split: Split) -> None:
        """Train the networks, once, so that they are in nobody's seconds."""
        if not self.trained:
            self.fit(split, {"mode": "map", "sweeps": 1})
            self.trained = True

    def scores(self, split: Split, own: Mapping[str, Any], *setting: float) -> ScoreBlock:
        """The scores of a setting."""
        return self.fit(split, {**own, **settings_of(*setting)}).posterior.score_block

    def measure(self, split: Split, settings: Mapping[str, Any]) -> dict[str, float]:
        """recall@50 and recall@300, means over headline users, and the seconds of the fit."""
        began = time.process_time()
        posterior = self.fit(split, settings).posterior
        seconds = time.process_time() - began
        found = evaluate(posterior.score_block, split, cutoffs=CUTOFFS, ndcg_cutoffs=())
        return {**found.means(), "seconds": seconds}

    def tuned(self, n: int, seed: int, name: str, first: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A model of ``CHOSEN`` with chosen settings; the seconds are those of choosing and of the fit.

        ``first`` is the row of the first split. At one item a user the users to choose on are the same in every split
        and in no mean, so that its settings are taken, and its seconds told.
        """
        split = reported_split(self.dataset, n, seed)
        if n == 1 and first:
            told = {key: first[key] for key in ("settings", "seconds")}
            return {**self.measure(split, {**CHOSEN[name], **told["settings"]}), **told}
        settings, seconds = self.choose(n, seed, name)
        found = self.measure(split, {**CHOSEN[name], **settings})
        return {**found, "settings": settings, "seconds": seconds + found["seconds"]}

    def choose(self, n: int, seed: int, name: str) -> tuple[dict[str, Any], float]:
        """The settings with the best recall on the validation part, and the seconds that this takes."""
        began = time.process_time()
        split = reported_split(self.dataset, n, seed)
        tuning = split if n == 1 else with_validation(split, 0.2, seed, tell=False)
        grid = GRIDS[n][name.split(",")[0]]
        chosen, _ = best_recall(partial(self.scores, tuning, CHOSEN[name]), grid, tuning)
        return settings_of(*chosen), time.process_time() - began


def run(store: Store, dataset: Dataset, splits: int, threads: int = 1, numbers: Sequence[int] = NUMBERS) -> None:
    """Measure every model on every split."""
    fits = Clicks(dataset, threads)
    for models, seed, n in product((MODELS, FAMILIES), range(splits), numbers):
        chosen = CHOSEN if models is MODELS else {}
        keys = {name: Key(PART, case_of(n), seed, name) for name in (*models, *chosen)}
        if all(key in store.rows for key in keys.values()):
            continue
        split = reported_split(dataset, n, seed)
        fits.train(split)
        for name, settings in models.items():
            store.measured(keys[name], partial(fits.measure, split, settings))
        for name in chosen:
            first = store.rows.get(Key(PART, case_of(n), 0, name))
            store.measured(keys[name], partial(fits.tuned, n, seed, name, first))
