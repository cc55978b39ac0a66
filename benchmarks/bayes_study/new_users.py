"""Users who were not in the fit, folded in from 1, 3 or 10 of their items.

A seeded fifth of the users is new. All pairs of the others train, and the fit is not told anything of the new ones. Of
each new user who has more than ``n`` items, ``n`` seeded ones are the list that is folded in, and the others are test.
Where ``map`` is tuned, a tenth of the other users is left out of the fit and folded in, and those settings are taken
that do best on them at this ``n``. The reported fit has these users back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.bayes_study import clicks, stars
from benchmarks.bayes_study.store import Key, Store
from inference.evaluation.rankings import evaluate
from inference.evaluation.ratings import rating_metrics
from inference.fitting import Fit
from inference.recommending.users import fold_in
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.splits import Split

PART = "new users"
NUMBERS = (1, 3, 10)
NEW, TUNING = 0.2, 0.1
CLICKS: tuple[clicks.Setting, ...] = tuple(product((100.0,), (2.5, 5.0, 10.0), (0.5, 1.0)))
"""Settings of ``map`` to choose from, for clicks; of stars they are those of that part."""
Metrics = dict[str, float]
Part = tuple[Interactions, Interactions]
"""Lists and test pairs."""
Measure = Callable[[Fit, Interactions, Interactions], Metrics]
"""From a fit, the lists that are folded in and the test pairs to metrics."""


@dataclass(frozen=True)
class Kind:
    """One kind of ratings: its fits, its models and the settings to choose from.

    ``fit`` makes a fit of a split and settings; ``loss`` is what settings are to make small.
    """

    name: str
    dataset: Dataset
    fit: Callable[[Split, Mapping[str, Any]], Fit]
    measure: Measure
    loss: Callable[[Metrics], float]
    models: Mapping[str, Mapping[str, Any]]
    grid: Sequence[Mapping[str, Any]]


def users_apart(n_users: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Marks of the new users and of those to tune on, bool (n_users,) each; no user is both."""
    order = np.random.default_rng(seed).permutation(n_users)
    n_new, n_tuning = round(NEW * n_users), round(TUNING * n_users)
    new, tuning = np.zeros((2, n_users), bool)
    new[order[:n_new]] = True
    tuning[order[n_new : n_new + n_tuning]] = True
    return new, tuning


def known_only(pairs: Interactions, away: np.ndarray) -> Split:
    """All pairs of the users who are not ``away``, bool (n_users,), train; nothing is test."""
    return Split(
        pairs.select(~away[pairs.users]), pairs.select(np.zeros(len(pairs), bool)), None, None, {"kind": "none"}
    )


def lists_and_test(pairs: Interactions, users: np.ndarray, n: int, seed: int) -> Part:
    """``n`` seeded pairs of each user of a mark, bool (n_users,), who has more, and the others of the same users."""
    shuffle = np.random.default_rng([seed, n]).random(len(pairs))
    order = np.lexsort((shuffle, pairs.users))
    counts = np.bincount(pairs.users, minlength=pairs.n_users)
    rank = np.empty(len(pairs), np.int64)
    rank[order] = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    mine = (users & (counts > n))[pairs.users]
    return pairs.select(mine & (rank < n)), pairs.select(mine & (rank >= n))


def folded(fit: Fit, lists: Interactions) -> Fit:
    """The fit with the users of these lists folded in."""
    dataset = fit.dataset
    return fold_in(
        fit, dataset.user_ids[lists.users].tolist(), dataset.item_ids[lists.items].tolist(), ratings=lists.ratings
    )


def of_clicks(fit: Fit, lists: Interactions, test: Interactions) -> Metrics:
    """Recall of the test items of the users that are folded in; the items of their lists are no candidates."""
    posterior = folded(fit, lists).posterior
    split = Split(lists, test, None, None, {})
    return evaluate(posterior.score_block, split, cutoffs=clicks.CUTOFFS, ndcg_cutoffs=()).means()


def of_stars(fit: Fit, lists: Interactions, test: Interactions) -> Metrics:
    """Errors, log score and coverage of the test ratings of the users that are folded in."""
    updated = folded(fit, lists)
    return stars.scored(rating_metrics(updated.posterior, fit.model.ratings, test, updated.split.train))


def kind_of_clicks(dataset: Dataset, threads: int = 1) -> Kind:
    """Clicks, as the part of clicks fits them."""
    fits = clicks.Clicks(dataset, threads)
    grid = [clicks.settings_of(*setting) for setting in CLICKS]
    return Kind(
        "clicks",
        dataset,
        fits.fit,
        of_clicks,
        lambda found: -sum(found.values()),
        clicks.MODELS,
        grid,
    )


def kind_of_stars(dataset: Dataset, threads: int = 1) -> Kind:
    """Stars, as the part of stars fits them."""
    fits = stars.Stars(dataset, threads)
    return Kind("stars", dataset, fits.fit, of_stars, lambda found: found["rmse"], stars.MODELS, stars.GRID)


def run(store: Store, kind: Kind, splits: int, numbers: Sequence[int] = NUMBERS) -> None:
    """Measure every model on every split; a fit serves all numbers of items."""
    pairs = kind.dataset.interactions
    for seed in range(splits):
        new, tuning = users_apart(kind.dataset.n_users, seed)
        parts = {n: lists_and_test(pairs, new, n, seed) for n in numbers}
        split = known_only(pairs, new)
        for name, settings in kind.models.items():
            fit = cache(partial(kind.fit, split, settings))
            for n in numbers:
                key = Key(PART, f"{kind.name}, {n}", seed, name)
                store.measured(key, partial(_measured, kind, fit, parts[n]))
        choose = cache(partial(_choose, kind, (new, tuning), seed, tuple(numbers)))
        for n in numbers:
            key = Key(PART, f"{kind.name}, {n}", seed, stars.TUNED)
            store.measured(key, partial(_tuned, kind, choose, n, (split, parts[n])))


def _measured(kind: Kind, fit: Callable[[], Fit], part: Part) -> Metrics:
    return kind.measure(fit(), *part)


def _tuned(kind: Kind, choose: Callable[[], dict[int, Any]], n: int, of: tuple[Split, Part]) -> dict[str, Any]:
    settings, (split, part) = choose()[n], of
    return {**kind.measure(kind.fit(split, {"mode": "map", **settings}), *part), "settings": settings}


def _choose(
    kind: Kind, away: tuple[np.ndarray, np.ndarray], seed: int, numbers: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """The settings of ``map`` at each number of items; ``away`` are new users and those to tune on."""
    pairs, (new, tuning) = kind.dataset.interactions, away
    split = known_only(pairs, new | tuning)
    parts = {n: lists_and_test(pairs, tuning, n, seed) for n in numbers}
    losses: dict[int, list[float]] = {n: [] for n in numbers}
    for settings in kind.grid:
        fit = kind.fit(split, {"mode": "map", **settings})
        for n in numbers:
            losses[n].append(kind.loss(kind.measure(fit, *parts[n])))
    return {n: dict(kind.grid[int(np.argmin(losses[n]))]) for n in numbers}
