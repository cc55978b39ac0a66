"""Are errors larger where the posterior standard deviation is, beyond what score and popularity tell?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.preprocessing import SplineTransformer

from analysis.over_users import (
    Interval,
    cell_groups,
    counted_pairs,
    interval,
    named,
    predicts_ratings,
    told_posterior,
    user_weights,
)
from analysis.reliability import expected_rating, is_normal, reserved_users
from pyro_cvae.errors import InputError

if TYPE_CHECKING:
    from inference.fitting import Fit


@dataclass(frozen=True, eq=False)
class ErrorCorrelation:
    """Rank correlation of squared errors with the posterior sd, alone and given score and popularity.

    Parameters:
        name: The run.
        kind: The posterior's kind.
        outcome: What the error is of: "true score", "held-out rating", or "matched" held-out positives and zeros.
        n_pairs: Pairs looked at.
        n_unmatched: Positives left out because no zero could be found for them.
        table: One row for all pairs and each group: ``by``, ``group``, ``n``, ``spearman`` and ``partial``, each with
            ``_low`` and ``_high``; empty for a point.
    """

    name: str
    kind: str
    outcome: str
    n_pairs: int
    n_unmatched: int
    table: pd.DataFrame


def popularity_bins(counts: np.ndarray) -> np.ndarray:
    """Bins of training ratings by powers of two: 0, 1, 2-3, 4-7, 8-15, ..."""
    return np.ceil(np.log2(np.asarray(counts) + 1)).astype(np.int64)


def matched_zeros(
    users: np.ndarray, items: np.ndarray, taken: np.ndarray, counts: np.ndarray, seed: int, rounds: int = 100
) -> np.ndarray:
    """For each positive pair an item of the same popularity bin that its user has nowhere in the data, -1 if none.

    Items are drawn uniformly from the bin until they are new to the user, and no item twice for one user. Shapes:
    ``users``, ``items`` (n_pairs,) rows; ``taken`` keys user * n_items + item of all pairs that are known, the
    positives among them; ``counts`` (n_items,) training ratings.
    """
    rng = np.random.default_rng(seed)
    n_items, bins = len(counts), popularity_bins(counts)
    order = np.argsort(bins, kind="stable")
    start = np.searchsorted(bins[order], np.arange(bins.max() + 2))
    zeros = np.full(len(users), -1, np.int64)
    taken, open_ = np.unique(taken), np.arange(len(users))
    for _ in range(rounds):
        if not len(open_):
            break
        wanted = bins[items[open_]]
        drawn = order[rng.integers(start[wanted], start[wanted + 1])]
        keys = users[open_] * n_items + drawn
        first = np.zeros(len(keys), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        new = first & (taken[np.searchsorted(taken, keys).clip(max=len(taken) - 1)] != keys)
        zeros[open_[new]] = drawn[new]
        if new.any():
            taken = np.sort(np.concatenate([taken, keys[new]]))
        open_ = open_[~new]
    return zeros


def error_correlation(
    fit: Fit, name: str = "", *, reserve: float = 0.1, resamples: int = 1000, seed: int = 0
) -> ErrorCorrelation:
    """Spearman correlation of squared error with sd, and the partial one given score and popularity.

    On clicks the pairs are all test positives of the reported users (R = 1) and as many matched zeros
    (:func:`matched_zeros`, R = 0); the error is R - E[u.v], or R - E[R] where the likelihood is of clicks or counts. Of
    explicit ratings they are the held-out ones, and the error is R - E[u.v]. On data drawn from the model they are the
    held-out cells, and the error is that of the true score. "Given" means: the ranks of error and of sd, less their
    least-squares fit on a cubic spline of the score's rank in each popularity bin and on log(1 + popularity). Intervals
    are percentiles of a bootstrap over users, the ranks held; NaN where one does not vary, and for the partial one with
    fewer than five pairs for each term of that fit. Of a point nothing is asked. Raises InputError as
    :func:`reliability`.

    With R in {0, 1} the error given the score is a function of R, so that the partial correlation asks whether sd
    tells ones from zeros beyond score and popularity; it can have either sign however good the intervals are.
    """
    truth, test, n_unmatched = fit.dataset.truth, fit.split.test, 0
    counts, kind = counted_pairs(fit).item_counts, fit.posterior.kind
    if truth is not None and "a" in truth:
        outcome, users, items = "true score", test.users.copy(), test.items.copy()
        r = truth["scores"][users, items]
    elif predicts_ratings(fit):
        test = test.select(test.observed)
        outcome, users, items, r = "held-out rating", test.users.copy(), test.items.copy(), test.ratings
    else:
        outcome = "matched"
        _, reported = reserved_users(fit, reserve, seed)
        positive = test.select(test.positive & np.isin(test.users, reported))
        parts = (fit.split.train, test, *([] if fit.split.validation is None else [fit.split.validation]))
        taken = np.concatenate([part.keys for part in parts])
        zeros = matched_zeros(positive.users, positive.items, taken, counts, seed)
        matched = zeros >= 0
        n_unmatched = int((~matched).sum())
        users, items = np.tile(positive.users[matched], 2), np.concatenate([positive.items[matched], zeros[matched]])
        r = np.repeat([1.0, 0.0], matched.sum())
    if not len(users):
        raise InputError("no held-out pair can be looked at", "choose a split that leaves some over")
    if fit.posterior.is_point:
        return ErrorCorrelation(name, kind, outcome, len(users), n_unmatched, pd.DataFrame())
    posterior, at = told_posterior(fit, users)
    mean, sd = (tensor.double().numpy() for tensor in posterior.score(at, items))
    expected = mean
    if outcome != "true score" and not is_normal(fit):
        expected = expected_rating(fit, mean, sd)
    rows = []
    for by, group, chosen in cell_groups(fit, users, items):
        error, given = (r - expected)[chosen] ** 2, (mean[chosen], counts[items[chosen]])
        plain, partial = _rank_correlations(error, sd[chosen], *given, users[chosen], resamples, seed)
        row = {"by": by, "group": group, "n": int(chosen.sum())}
        rows.append(row | named("spearman", plain) | named("partial", partial))
    return ErrorCorrelation(name, kind, outcome, len(users), n_unmatched, pd.DataFrame(rows))


def _rank_correlations(
    error: np.ndarray,
    sd: np.ndarray,
    score: np.ndarray,
    popularity: np.ndarray,
    users: np.ndarray,
    resamples: int,
    seed: int,
) -> tuple[Interval, Interval]:
    """Spearman's and the partial one of :func:`error_correlation`, from each user's sums of squares and products."""
    n = len(error)
    order = np.argsort(users, kind="stable")
    row = np.unique(users[order], return_inverse=True)[1]
    spline = np.ones((n, 1))
    if np.ptp(score) > 0:  # knots need scores that vary
        spline = SplineTransformer(n_knots=5, degree=3).fit_transform(rankdata(score)[order, None] / n)
    in_bin = np.unique(popularity_bins(popularity[order]), return_inverse=True)[1]
    ranks = np.stack([rankdata(error), rankdata(sd)], 1)[order] / n - 0.5
    n_users, n_bins, log_popularity = row[-1] + 1, in_bin.max() + 1, np.log1p(popularity[order, None])
    width = 2 + n_bins * spline.shape[1] + 1
    grams = np.zeros((n_users, width, width))
    for start in range(0, n, 1024):
        block = slice(start, start + 1024)
        basis = np.zeros((len(row[block]), n_bins, spline.shape[1]))
        basis[np.arange(len(basis)), in_bin[block]] = spline[block]
        part = np.concatenate([ranks[block], basis.reshape(len(basis), -1), log_popularity[block]], 1)
        first = np.flatnonzero(np.r_[True, np.diff(row[block]) > 0])
        grams[row[block][first]] += np.add.reduceat(part[:, :, None] * part[:, None, :], first, axis=0)
    gram = (user_weights(n_users, resamples, seed) @ grams.reshape(n_users, -1)).reshape(-1, width, width)
    sums, count = gram[:, :2, 2:-1].sum(-1), gram[:, 2:-1, 2:-1].sum((-1, -2))  # the splines of all bins add up to one
    alone = gram[:, :2, :2] - sums[:, :, None] * sums[:, None, :] / count[:, None, None]
    across, inner = gram[:, :2, 2:], np.linalg.pinv(gram[:, 2:, 2:], rcond=1e-10, hermitian=True)
    given = gram[:, :2, :2] - across @ inner @ across.mT
    partial = interval(_correlations(given)) if n >= 5 * (width - 2) else Interval(np.nan, np.nan, np.nan)
    return interval(_correlations(alone)), partial


def _correlations(moments: np.ndarray) -> np.ndarray:
    """Correlation of the two of each matrix, (..., 2, 2); NaN where one of them does not vary."""
    product = moments[..., 0, 0] * moments[..., 1, 1]
    varies = np.minimum(moments[..., 0, 0], moments[..., 1, 1]) > 1e-9
    return np.where(varies, moments[..., 0, 1] / np.sqrt(np.where(varies, product, 1.0)), np.nan)
