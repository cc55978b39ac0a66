"""Bootstrap over users, and groups of pairs by what training tells of their items and users."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.estimates import check_draws
from inference.recommending.asked import posterior_of
from pyro_cvae.data.splits import GROUPS, item_groups

if TYPE_CHECKING:
    from inference.fitting import Fit
    from inference.posterior import Posterior
    from pyro_cvae.data.interactions import Interactions

LEVEL = 0.95
"""Of all intervals and simultaneous bands."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval over users; NaN where it cannot be asked."""

    value: float
    low: float
    high: float


def told_posterior(fit: Fit, users: np.ndarray) -> tuple[Posterior, np.ndarray]:
    """The posterior that lists and predictions are made of, and the rows in it of ``users``, (n_pairs,) both.

    Users without training pairs are the average user (:mod:`inference.average`).
    """
    who, rows = np.unique(users, return_inverse=True)
    return posterior_of(fit, who), rows


def user_weights(n_users: int, resamples: int, seed: int) -> np.ndarray:
    """How often each user counts, (1 + resamples, n_users): once in the first row, then as drawn with replacement."""
    check_draws(resamples, 2 * n_users, "resamples of so many users")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_users, np.full(n_users, 1 / n_users), resamples)
    return np.concatenate([np.ones((1, n_users)), drawn])


def interval(values: np.ndarray) -> Interval:
    """From a statistic at each row of :func:`user_weights`, (1 + resamples,): its value and its percentiles."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high))


def standard_error(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the first axis; NaN of one value."""
    if len(values) < 2:
        return np.full(np.shape(values)[1:], np.nan)
    return np.asarray(values.std(0, ddof=1) / len(values) ** 0.5)


def sums_by_user(user: np.ndarray, values: np.ndarray, n_users: int, place: np.ndarray | None = None) -> np.ndarray:
    """Sums of the values of each user, (n_users,), or of each user and place, (n_users, n_places)."""
    if place is None:
        return np.bincount(user, values, minlength=n_users)
    n = int(place.max()) + 1
    return np.bincount(user * n + place, values, minlength=n_users * n).reshape(n_users, n)


def named(name: str, one: Interval) -> dict[str, float]:
    """The three numbers as columns of a table: ``name``, ``name_low``, ``name_high``."""
    return {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}


def predicts_ratings(fit: Fit) -> bool:
    """True where ratings are explicit: predicted as numbers, not ranked alone."""
    return fit.model is not None and fit.model.ratings.explicit


def confidences(fit: Fit, pairs: Interactions) -> np.ndarray:
    """C_ij of pairs of rows as the fit takes them, (n_pairs,); without a model their weights are C_ij."""
    own = getattr(fit.model, "ratings", None)
    given = (fit.options.model.a, None) if own is None else (own.default_confidence, own.weight_unit)
    return pairs.precisions(*given)


def counted_pairs(fit: Fit) -> Interactions:
    """Training pairs that count as ratings, each with rating 1: positives, or all where ratings are explicit.

    In complete data those with precisions above b.
    """
    train = fit.split.train
    counted = train.observed if predicts_ratings(fit) else train.positive
    if fit.dataset.interactions.complete and train.confidences is not None:
        counted = train.observed & ~(confidences(fit, train) <= weight_of_zeros(fit))
    chosen = train.select(counted)
    return dataclasses.replace(chosen, ratings=np.ones(len(chosen)))


def weight_of_zeros(fit: Fit) -> float:
    """The precision b of a cell that is not stored: given, or found by the fit."""
    if fit.model is None or not fit.model.ratings.weighs_zeros:
        return fit.options.model.b
    return fit.model.ratings.background


def cell_groups(fit: Fit, users: np.ndarray, items: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """(by, group, bool (n_cells,)): all cells, then by hot, warm and cold items, items' ratings and users' ratings.

    A group that is empty or holds all cells is left out.
    """
    counted = counted_pairs(fit)
    groups = [("all", "all", np.ones(len(users), bool))]
    group_of = item_groups(counted)[items]
    groups += [("items", name, group_of == index) for index, name in enumerate(GROUPS)]
    for by, counts in (("popularity", counted.item_counts[items]), ("history", counted.user_counts[users])):
        edges = np.unique(np.quantile(counts, [0, 0.25, 0.5, 0.75], method="lower"))
        place = np.searchsorted(edges, counts, side="right") - 1
        for index in range(len(edges)):
            chosen = place == index
            low, high = counts[chosen].min(), counts[chosen].max()
            groups.append((by, f"{low}" if low == high else f"{low}-{high}", chosen))
    return [group for group in groups if group[0] == "all" or (group[2].any() and not group[2].all())]
