"""Which users, items and pairs are looked at, by row, and what a fit saw or held out of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.draws.ratings import confidences_of_zeros, stored_confidences
from inference.fitting import Fit
from pyro_cvae.data.interactions import Interactions


def spread_rows(counts: np.ndarray, n: int) -> np.ndarray:
    """``n`` rows evenly over the order of their counts, ascending by row; all rows where ``n`` is 0."""
    if n == 0 or n >= len(counts):
        return np.arange(len(counts))
    order = np.argsort(counts, kind="stable")
    return np.sort(order[np.linspace(0, len(counts) - 1, n).round().astype(np.int64)])


def pairs_by_kind(fit: Fit, users: np.ndarray, n: int, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Up to ``n`` pairs (user rows, item rows) of each user of a kind: "train", "test", and "neither", at random.

    "train" are the stored pairs of the training part that are not missing, "test" those of the test part.
    """
    rng = np.random.default_rng(seed)
    train, test = fit.split.train, fit.split.test
    n_items = train.n_items
    wanted = np.zeros(train.n_users, bool)
    wanted[users] = True
    pairs = {}
    for kind, stored in (("train", train.select(train.observed)), ("test", test)):
        mine = rng.permutation(np.flatnonzero(wanted[stored.users]))
        pairs[kind] = _first_of_each(stored.users[mine], stored.items[mine], n)
    candidates = rng.integers(0, n_items, (len(users), 2 * n + 10)) + n_items * np.asarray(users)[:, None]
    keys = rng.permutation(np.unique(candidates))
    keys = keys[~np.isin(keys, np.concatenate([train.keys, test.keys]))]
    pairs["neither"] = _first_of_each(*np.divmod(keys, n_items), n)
    return pairs


def _first_of_each(users: np.ndarray, items: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``n`` pairs of each user, by user."""
    order = np.argsort(users, kind="stable")
    users, items = users[order], items[order]
    rank = np.arange(len(users)) - np.searchsorted(users, users)
    return users[rank < n], items[rank < n]


def places_in(stored: Interactions, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pair of rows is among stored pairs, and whether it is, (n_pairs,) each."""
    keys = users * stored.n_items + items
    if not len(stored):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(stored.keys, keys), len(stored) - 1)
    return at, stored.keys[at] == keys


@dataclass(frozen=True, eq=False)
class Cells:
    """Pairs as rows of users and items, with a rating and a confidence each, all (n,)."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    confidences: np.ndarray

    def __len__(self) -> int:
        return len(self.users)


def seen_cells(fit: Fit, users: np.ndarray, items: np.ndarray) -> Cells:
    """Those of the pairs that have a factor in the fit's likelihood, with R and C as it saw them.

    A pair that is not stored in training is a zero, of precision b in the paper, be it a test pair or not, or missing,
    by the likelihood; a missing one (confidence 0) and one of an item without a column have no factor.
    """
    train, likelihood = fit.split.train, fit.model.ratings
    at, stored = places_in(train, users, items)
    columns = np.bincount(train.items, minlength=train.n_items) > 0
    has_column = columns[items] if fit.options.model.unrated == "masked" else np.ones(len(items), bool)
    ratings = np.where(stored, train.ratings[at], 0.0)
    confidences = np.where(stored, stored_confidences(train, likelihood)[at], confidences_of_zeros(fit, items))
    there = has_column & (confidences > 0)
    return Cells(users[there], items[there], ratings[there], confidences[there])


def held_out_cells(fit: Fit, users: np.ndarray, items: np.ndarray) -> Cells:
    """Those of the pairs that are in the test part, with the rating that came; a C not stated is the default."""
    test = fit.split.test
    at, stored = places_in(test, users, items)
    confidences = stored_confidences(test, fit.model.ratings)
    stored &= confidences[at] > 0 if len(test) else False
    at = at[stored]
    return Cells(users[stored], items[stored], test.ratings[at], confidences[at])
