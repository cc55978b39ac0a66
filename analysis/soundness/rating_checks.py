"""Predictive checks of ratings: stored cells, zeros, whole rows and held-out pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from analysis.draws.pairs import Cells, held_out_cells, pairs_by_kind, seen_cells, spread_rows
from analysis.draws.ratings import draw_ratings
from analysis.draws.streams import blocks_from
from analysis.draws.user_rows import UserRows
from analysis.kinds import DrawnFrom
from analysis.soundness.check import Check
from inference.fitting import Fit
from models.ratings.cells import moments

BACKGROUND_OF_A_USER = 50
FLOATS_AT_ONCE = 2**24


def rating_checks(fit: Fit, source: DrawnFrom, n_users: int, draws: int, seed: int) -> Iterator[Check]:
    """The checks of ratings among :func:`analysis.soundness.predictive.predictive_checks`, by draws from ``source``."""
    likelihood = fit.model.ratings
    rng = np.random.default_rng((seed, 2))
    users = spread_rows(fit.dataset.interactions.user_counts, n_users)
    kinds = pairs_by_kind(fit, users, BACKGROUND_OF_A_USER, seed)
    stored, background = seen_cells(fit, *kinds["train"]), seen_cells(fit, *kinds["neither"])
    held_out, neither = held_out_cells(fit, *kinds["test"]), Cells(*kinds["neither"], *np.zeros((2, 0)))
    asked = (stored, background, held_out, neither)
    scores = _scores(fit, source, [(cells.users, cells.items) for cells in asked], draws, seed)
    if likelihood.zeros and likelihood.noise_precision is None:
        yield from _whole_row_checks(fit, source, users, draws, seed)
    else:
        yield from _stored_checks(fit, stored, background, scores, rng)
    if not len(held_out) or source == "prior":
        return
    if fit.split.train.complete or likelihood.explicit:
        drawn, mean, variance = _drawn(fit, held_out, scores[2], rng)
        expected, spread = mean.mean(0), (mean.var(0) + variance.mean(0)) ** 0.5
        yield Check(
            "squares of held-out ratings",
            "Sum over held-out cells of (R - E R)^2 / var(R), for Normals E u.v and var(u.v) + 1/C; small p: the "
            "intervals are too narrow.",
            (((held_out.ratings - expected) / spread) ** 2).sum() * np.ones(draws),
            (((drawn - expected) / spread) ** 2).sum(1),
        )
    elif len(neither):
        yield _rank_check(fit, held_out, neither, scores[2], scores[3], rng)


def _drawn(fit: Fit, cells: Cells, scores: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Drawn ratings of cells given their scores, with E[R | s] and var(R | s), (n_draws, n_cells) each."""
    score = torch.as_tensor(scores)
    drawn = draw_ratings(fit.model.ratings, scores, cells.confidences, int(rng.integers(2**62)))
    with torch.no_grad():
        cell = fit.model.ratings.cell(score, torch.as_tensor(cells.confidences).to(score).expand_as(score))
        return drawn, *(moment.numpy() for moment in moments(cell))


def _stored_checks(
    fit: Fit, stored: Cells, background: Cells, scores: list[np.ndarray], rng: np.random.Generator
) -> Iterator[Check]:
    """Of ratings whose exposure is given: stored cells, and cells that are not stored where they are zeros."""
    likelihood = fit.model.ratings
    drawn, mean, variance = _drawn(fit, stored, scores[0], rng)
    means, drawn_means = _by_user(stored.ratings[None], stored.users), _by_user(drawn, stored.users)
    same = np.ones(len(drawn))
    yield Check(
        "mean of stored ratings",
        "Mean over users of the mean of their stored R"
        + ("." if likelihood.explicit else "; a click is a 1, and shrinkage draws less."),
        means.mean(1) * same,
        drawn_means.mean(1),
    )
    yield Check(
        "spread between users",
        "Standard deviation over users of that mean" + ("." if likelihood.explicit else "; 0 for clicks."),
        means.std(1) * same,
        drawn_means.std(1),
    )
    yield Check(
        "squares of stored ratings",
        "Sum over stored cells of (R - E R)^2 / var(R) given u.v, for Normals C (R - u.v)^2, of the data and of drawn "
        "ratings; small p: they are fitted badly.",
        ((stored.ratings - mean) ** 2 / variance).sum(1),
        ((drawn - mean) ** 2 / variance).sum(1),
    )
    if len(background):
        drawn, mean, variance = _drawn(fit, background, scores[1], rng)
        yield Check(
            "squares of zeros",
            "The same of cells that are not stored, R = 0; p near 1: exact zeros are no draws of a Normal.",
            (mean**2 / variance).sum(1),
            ((drawn - mean) ** 2 / variance).sum(1),
        )


def _whole_row_checks(fit: Fit, source: DrawnFrom, users: np.ndarray, draws: int, seed: int) -> Iterator[Check]:
    """Of whole rows R_i, zeros and all: totals of users and of items."""
    rows, rng = UserRows.of(fit, users), np.random.default_rng((seed, 3))
    n_users, n_items = len(users), len(rows.items)
    of_user, of_item = np.zeros((draws, n_users)), np.zeros((draws, n_items))
    for block, some, drawn in blocks_from(source, fit, users, rows.items, draws, seed):
        user, item, _, confidence = rows.cells(block, torch.float64)
        missing, (u, v) = confidence == 0, (drawn[name] for name in "uv")
        step = max(1, FLOATS_AT_ONCE // max(1, 4 * n_users * v.shape[1]))
        for start in range(0, len(u), step):
            score = (u[start : start + step] @ v[start : start + step].mT).numpy()
            given = rows.b[block]
            ratings = draw_ratings(fit.model.ratings, score, given, int(rng.integers(2**62)))
            ratings[:, user[missing].numpy(), item[missing].numpy()] = 0
            at = slice(some.start + start, some.start + start + len(score))
            of_user[at] += ratings.sum(2)
            of_item[at, block] += ratings.sum(1)
    rating = np.where(rows.confidence > 0, rows.rating, 0.0)
    data_of_user = np.bincount(rows.user, rating, n_users)
    data_of_item = np.bincount(rows.item, rating, n_items)
    same = np.ones(draws)
    mean = "Mean over users of the sum of their R over all items, zeros and all; small p: the model draws too few."
    yield Check("ratings of a user", mean, data_of_user.mean() * same, of_user.mean(1))
    spread = "Standard deviation over users of that sum: are some as active as they are?"
    yield Check("spread between users", spread, data_of_user.std() * same, of_user.std(1))
    spread = "Standard deviation over items of the sum of R over these users: are some as popular as they are?"
    yield Check("spread between items", spread, data_of_item.std() * same, of_item.std(1))


def _rank_check(
    fit: Fit, held_out: Cells, neither: Cells, positive: np.ndarray, other: np.ndarray, rng: np.random.Generator
) -> Check:
    """AUC of held-out items under drawn scores, beside that of items chosen by the drawn ratings.

    ``positive`` are the scores of the held-out cells and ``other`` those of the rest, (n_draws, n_cells).

    Clicks and counts tie: of these as many items are chosen one after the other with odds exp(u.v), by Gumbel noise.
    """
    users = np.concatenate([held_out.users, neither.users])
    both = np.isin(users, np.intersect1d(held_out.users, neither.users))
    users, scores = users[both], np.concatenate([positive, other], axis=1)[:, both]
    chosen = (np.arange(len(both)) < len(held_out))[both]
    _, place, counts = np.unique(users, return_inverse=True, return_counts=True)
    n_chosen = np.bincount(place, chosen)
    start = np.cumsum(counts) - counts
    if fit.model.ratings.noise_precision is None:
        ratings = scores + rng.gumbel(size=scores.shape)
    else:
        ratings = scores + rng.standard_normal(scores.shape) * fit.model.ratings.default_confidence**-0.5
    observed, replicated = np.empty(len(scores)), np.empty(len(scores))
    for draw, (score, rating) in enumerate(zip(scores, ratings, strict=True)):
        rank = _ranks(score, place, start)
        of_rating = _ranks(-rating, place, start)
        for into, picked in ((observed, chosen), (replicated, of_rating < n_chosen[place])):
            below = np.bincount(place, rank * picked) - n_chosen * (n_chosen - 1) / 2
            into[draw] = (below / (n_chosen * (counts - n_chosen))).mean()
    return Check(
        "rank of held-out items (AUC)",
        "Chance that a held-out item has a higher u.v than one that is neither; drawn: that of as many items chosen by "
        "their drawn R (of precision a, or of odds exp(u.v)), how well the model believes that it ranks; p near 1: it "
        "believes too much.",
        observed,
        replicated,
    )


def _ranks(values: np.ndarray, place: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Rank of each value among those of its user, from 0, in their own order."""
    order = np.lexsort((values, place))
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values)) - start[place[order]]
    return ranks


def _by_user(values: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Means of each user's values, (n_draws, n_users), from (n_draws, n_cells), the cells being in order of users."""
    _, start, counts = np.unique(users, return_index=True, return_counts=True)
    return np.add.reduceat(values, start, axis=1) / counts


def _scores(
    fit: Fit, source: DrawnFrom, pairs: Sequence[tuple[np.ndarray, np.ndarray]], draws: int, seed: int
) -> list[np.ndarray]:
    """Joint draws of the scores of several sets of pairs, (n_draws, n_pairs) each in float64."""
    users, user_at = np.unique(np.concatenate([u for u, _ in pairs]), return_inverse=True)
    items, item_at = np.unique(np.concatenate([i for _, i in pairs]), return_inverse=True)
    scores = np.empty((draws, len(user_at)))
    for block, some, drawn in blocks_from(source, fit, users, items, draws, seed):
        inside = np.flatnonzero((item_at >= block.start) & (item_at < block.stop))
        step = max(1, FLOATS_AT_ONCE // (2 * drawn["u"].shape[0] * drawn["u"].shape[2]))
        for places in np.array_split(inside, -(-len(inside) // step) or 1):
            u, v = drawn["u"][:, user_at[places]], drawn["v"][:, item_at[places] - block.start]
            scores[some, places] = (u * v).sum(-1)
    return np.split(scores, np.cumsum([len(u) for u, _ in pairs])[:-1], axis=1)
