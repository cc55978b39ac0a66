"""How stable top lists are: from model to model, and from one posterior draw to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.over_users import standard_error
from inference.evaluation.rankings import Evaluation
from inference.evaluation.ratings import RatingEvaluation
from inference.posterior import Posterior

FLOATS_AT_ONCE = 2**25

ScoreBlock = Callable[[np.ndarray], Tensor]
"""The scores of some users by row, (n_users, n_items)."""


def some_users(evaluation: Evaluation | RatingEvaluation, n: int, seed: int) -> np.ndarray:
    """Rows of ``n`` headline users (all where there are no more), in ascending order."""
    rows = evaluation.per_user.loc[~evaluation.per_user["tuning"], "user"].to_numpy()
    return np.sort(np.random.default_rng(seed).permutation(rows)[:n])


def top_lists(score_block: ScoreBlock, users: np.ndarray, known: Any, top: int, block_size: int = 256) -> Tensor:
    """The best items of each user but the known ones, int64 (n_users, top); -1 where a list is shorter.

    ``known`` is a CSR matrix (n_users, n_items), a row for each of ``users``.
    """
    lists = []
    for start in range(0, len(users), block_size):
        scores = score_block(users[start : start + block_size]).clone()
        at = known[start : start + block_size].tocoo()
        scores[torch.as_tensor(at.row).long(), torch.as_tensor(at.col).long()] = -torch.inf
        best = scores.topk(min(top, scores.shape[1]))
        lists.append(best.indices.masked_fill(best.values == -torch.inf, -1))
    return torch.cat(lists)


def drawn_lists(posterior: Posterior, users: np.ndarray, known: Any, top: int, n_draws: int, seed: int) -> list[Tensor]:
    """:func:`top_lists` of ``n_draws`` joint draws of u and v; the draws are streamed."""
    chosen = posterior.select(users=users)
    rows, at_once = np.arange(len(users)), max(1, FLOATS_AT_ONCE // (4 * chosen.v_loc.numel()))
    lists = []
    for draws in chosen.draws(n_draws, seed, at_once):
        for u, v in zip(draws["u"], draws["v"], strict=True):

            def score_block(block: np.ndarray, u: Tensor = u, v: Tensor = v) -> Tensor:
                return u[block] @ v.mT

            lists.append(top_lists(score_block, rows, known, top))
    return lists


def agreement(first: Tensor, second: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """How alike two lists of each user are: share of common items, and Kendall's tau of the order of these.

    tau = (concordant - discordant pairs) / pairs of common items; NaN where there are fewer than two. Shapes: the lists
    (n_users, top), -1 where a list is shorter; result (n_users,) each.
    """
    overlaps, taus = [], []
    for a, b in zip(first.split(256), second.split(256), strict=True):
        same = (a[:, :, None] == b[:, None, :]) & (a >= 0)[:, :, None]
        common, place = same.any(2), same.int().argmax(2)
        later = torch.ones(a.shape[1], a.shape[1], dtype=torch.bool).triu(1)
        pairs = common[:, :, None] & common[:, None, :] & later
        concordant = (pairs & (place[:, :, None] < place[:, None, :])).sum((1, 2)).double()
        n_pairs = pairs.sum((1, 2)).double()
        overlaps.append(common.sum(1) / (a >= 0).sum(1).clamp(min=1).double())
        taus.append(2 * concordant / n_pairs - 1)  # 0 / 0 is NaN
    return torch.cat(overlaps).numpy(), torch.cat(taus).numpy()


def summary(overlaps: np.ndarray, taus: np.ndarray) -> dict[str, Any]:
    """Means over users of their means over pairs of draws, (n_pairs, n_users) each, and the standard error of that."""
    by_user = overlaps.mean(0)
    counted = ~np.isnan(taus)
    tau = np.where(counted, taus, 0.0).sum() / counted.sum() if counted.any() else np.nan
    found = {"overlap": float(by_user.mean()), "overlap_se": float(standard_error(by_user))}
    return found | {"kendall": float(tau), "n_users": len(by_user)}
