"""The log-likelihood of whole rating rows R_i, without a score for each cell where ratings are Normal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.draws.ratings import confidences_of_zeros, stored_confidences
from inference.fitting import Fit
from models.ratings import RatingLikelihood

FLOATS_AT_ONCE = 2**23


@dataclass(frozen=True, eq=False)
class UserRows:
    """The rating rows R_i of some users, over all items that have a column: stored cells on a background of zeros.

    Shapes: ``items`` (n_observed,) rows of the catalogue, ascending; of each stored cell ``user``, its place among the
    users, ``item``, its place among ``items``, ``rating`` and ``confidence`` (n_stored,), in the order of the items.
    Of Normal ratings, ``gaussian``, the confidences are the precisions, and ``b`` (n_observed,) are those of zeros; of
    others ``b`` are the confidences of zeros, and 0 where cells that are not stored are missing.
    """

    n_users: int
    items: np.ndarray
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    confidence: np.ndarray
    b: np.ndarray
    likelihood: RatingLikelihood
    gaussian: bool

    @classmethod
    def of(cls, fit: Fit, users: np.ndarray) -> UserRows:
        """The training rows of some users, given by row."""
        train, likelihood = fit.split.train, fit.model.ratings
        stored = np.bincount(train.items, minlength=train.n_items) > 0
        items = np.flatnonzero(stored) if fit.options.model.unrated == "masked" else np.arange(train.n_items)
        place = np.full(train.n_users, -1)
        place[users] = np.arange(len(users))
        mine = np.flatnonzero(place[train.users] >= 0)
        mine = mine[np.argsort(train.items[mine], kind="stable")]
        factor = likelihood.noise_precision
        times = 1.0 if factor is None else factor
        return cls(
            n_users=len(users),
            items=items,
            user=place[train.users[mine]],
            item=np.searchsorted(items, train.items[mine]),
            rating=train.ratings[mine],
            confidence=times * stored_confidences(train, likelihood)[mine],
            b=times * confidences_of_zeros(fit, items),
            likelihood=likelihood,
            gaussian=factor is not None,
        )

    def constant(self) -> np.ndarray:
        """The part of log p(R_i | u_i, V) that no latent changes, (n_users,); see :meth:`log_prob`."""
        return self.log_normalizer() if self.gaussian else np.zeros(self.n_users)

    def log_prob(self, block: slice, u: Tensor, v: Tensor) -> Tensor:
        """What a block of ``items`` adds to log p(R_i | u_i, V), (n_draws, n_users), in nats and float64.

        Shapes: ``u`` (n_draws, n_users, n_factors), ``v`` (n_draws, n_block, n_factors), with the biases' coordinates.
        """
        return -self.half_square(block, u, v) if self.gaussian else self._all_cells(block, u, v)

    def _all_cells(self, block: slice, u: Tensor, v: Tensor) -> Tensor:
        """The sum over all cells of the block, zeros and stored ones, a few draws at a time."""
        user, item, rating, confidence = self.cells(block, u.dtype)
        there = (confidence > 0).nonzero().squeeze(-1)
        rating, confidence = rating[there], confidence[there]
        totals = []
        step = max(1, FLOATS_AT_ONCE // max(1, self.n_users * v.shape[1]))
        with torch.no_grad():
            for start in range(0, len(u), step):
                score = u[start : start + step] @ v[start : start + step].mT
                stored = score[:, user, item]
                own = stored[:, there]
                added = self.likelihood.log_prob(own, rating.expand_as(own), confidence.expand_as(own))
                total = score.new_zeros(score.shape[:2], dtype=torch.float64)
                if (self.b > 0).any():
                    b = self.zeros(block, score.dtype)
                    total += self._zeros(score, b).double().sum(-1)
                    total.index_add_(1, user, -self._zeros(stored, b[item]).double())
                totals.append(total.index_add_(1, user[there], added.double()))
        return torch.cat(totals)

    def zeros(self, block: slice, dtype: torch.dtype) -> Tensor:
        """Confidences of zeros of a block of ``items``, (n_block,)."""
        return torch.as_tensor(self.b[block]).to(dtype)

    def _zeros(self, score: Tensor, b: Tensor) -> Tensor:
        """Log p(R = 0 | s) of cells that are not stored, in the shape of ``score``; ``b`` of each in the last one."""
        return self.likelihood.log_prob(score, torch.zeros_like(score), b.expand_as(score))

    def log_normalizer(self) -> np.ndarray:
        """sum_j 1/2 log(C_ij / 2 pi) over the cells that are there, of Normal ratings, in nats, (n_users,)."""
        there = self.confidence > 0
        log_c = np.log(np.where(there, self.confidence, 1.0) / (2 * np.pi)) * there
        total = np.bincount(self.user, log_c, self.n_users)
        log_b = np.log(np.where(self.b > 0, self.b, 1.0) / (2 * np.pi)) * (self.b > 0)
        return 0.5 * (total + log_b.sum() - np.bincount(self.user, log_b[self.item], self.n_users))

    def half_square(self, block: slice, u: Tensor, v: Tensor) -> Tensor:
        """What a block of ``items`` adds to 1/2 sum_j C_ij (R_ij - u_i.v_j)^2, (n_draws, n_users) in float64.

        With G = sum over the block of b_j v_j v_j' it is 1/2 [u_i' G u_i + sum over stored of c (r - s)^2 - b_j s^2].
        Shapes: ``u`` (n_draws, n_users, n_factors), ``v`` (n_draws, n_block, n_factors).
        """
        b = self.zeros(block, u.dtype)
        if self.n_users > u.shape[2]:  # the Gram matrix is cheaper than all scores
            square = ((u @ (v.mT @ (b[:, None] * v))) * u).double().sum(-1)
        else:
            square = ((u @ v.mT).square_() * b).double().sum(-1)
        user, item, rating, confidence = self.cells(block, u.dtype)
        score = (u[:, user] * v[:, item]).sum(-1)
        stored = confidence * (rating - score).square() - b[item] * score.square()
        return 0.5 * square.index_add_(1, user, stored.double())

    def cells(self, block: slice, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """User, item (its place in the block), rating and confidence of the stored cells in a block of ``items``."""
        begin, end = np.searchsorted(self.item, (block.start, block.stop))
        user, item = (torch.as_tensor(rows[begin:end]) for rows in (self.user, self.item - block.start))
        rating, confidence = (torch.as_tensor(values[begin:end]).to(dtype) for values in (self.rating, self.confidence))
        return user, item, rating, confidence
