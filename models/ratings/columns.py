"""Whole columns of ratings from what a likelihood says of one cell, zeros by all users or by some drawn at random."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pyro.distributions import MaskedDistribution, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from models.observations import RatingColumns

if TYPE_CHECKING:
    from models.ratings.base import RatingLikelihood

SCORES_AT_ONCE = 2**24


class CellColumns(TorchDistribution):
    r"""Columns of ratings, cell by cell: batch shape (n_items,), event shape (n_users,), values RatingColumns.

    With f(r, s) = log p(r | s) and the zeros of all users in the first sum,

        log p(R_j | U, v_j) = sum_i f(0, s_ij) + sum over stored of [f(r, s) - f(0, s)].

    In training mode, with the likelihood's ``subsample`` = m > 0, the first sum is n_users / m times that over m users
    drawn without replacement, the same ones for all items: an unbiased estimate.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, likelihood: RatingLikelihood, u: Tensor, v: Tensor, columns: RatingColumns) -> None:
        self.likelihood, self.u, self.v, self.columns = likelihood, u, v, columns
        super().__init__(torch.Size(v.shape[:1]), torch.Size(u.shape[:1]), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> CellColumns:
        """Itself: a column belongs to one item, so only its own batch shape is possible."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(f"rating columns of batch shape {tuple(self.batch_shape)} cannot expand to {batch_shape}")
        return self

    def log_prob(self, value: RatingColumns) -> Tensor:
        """Log p(R_j | U, v_j) in nats, or its estimate in training mode, (n_items,)."""
        likelihood, users, items = self.likelihood, value.users, value.items
        score = (self.u[users] * self.v[items]).sum(-1)
        # a missing cell holds no rating, not even a 0, which a likelihood of stars would refuse
        there = (value.confidences > 0).nonzero().squeeze(-1)
        given = (part[there].to(score.dtype) for part in (value.ratings, value.confidences))
        stored = likelihood.log_prob(score[there], *given)
        if not likelihood.zeros:
            return self.v.new_zeros(len(value)).index_add(0, items[there], stored)
        own = value.zeros(likelihood.background).to(score)
        whole = self._zeros(own).index_add(0, items, -self._zero(score, own[items]))
        whole = whole.index_add(0, items[there], stored)
        return whole * value.observed

    def _zero(self, score: Tensor, background: Tensor) -> Tensor:
        """Log p(0 | s) of cells that are not stored, with the confidences ``background``."""
        return self.likelihood.log_prob(score, torch.zeros_like(score), background.expand_as(score))

    def _zeros(self, background: Tensor) -> Tensor:
        """Sum over all users of log p(0 | s_ij), or the estimate from some of them, (n_items,)."""
        n_users, n_drawn = len(self.u), self.likelihood.subsample
        if self.likelihood.training and 0 < n_drawn < n_users:
            drawn = torch.randperm(n_users, device=self.u.device)[:n_drawn]
            return self._zero(self.v @ self.u[drawn].mT, background[:, None]).sum(-1) * (n_users / n_drawn)
        blocks = self.u.split(max(1, SCORES_AT_ONCE // max(1, len(self.v))))
        return torch.stack([self._zero(self.v @ block.mT, background[:, None]).sum(-1) for block in blocks]).sum(0)

    def dense(self) -> TorchDistribution:
        """The same over dense columns, for a few items; a missing cell has no density."""
        likelihood = self.likelihood
        _, confidence = self.columns.dense(likelihood.background if likelihood.zeros else 0.0)
        there = confidence > 0
        cells: Any = likelihood.cell(self.v @ self.u.mT, torch.where(there, confidence, 1.0).to(self.v.dtype))
        return MaskedDistribution(cells, there).to_event(1)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> RatingColumns:
        """Draw the cells that are there, for checks on small data: all of them, or the stored ones without ``zeros``.

        A cell keeps its confidence. With ``zeros`` a drawn 0 is not stored where that is the one of zeros.
        Missing cells stay as they are.
        """
        if len(sample_shape):
            raise NotImplementedError("draw columns one sample at a time")
        likelihood, columns = self.likelihood, self.columns
        score = self.v.detach() @ self.u.detach().mT
        if not likelihood.zeros:
            at = score[columns.items, columns.users]
            confidence = columns.confidences.clamp(min=torch.finfo(score.dtype).tiny).to(score.dtype)
            drawn = torch.where(columns.confidences > 0, likelihood.cell(at, confidence).sample(), 0.0)
            return replace(columns, ratings=drawn, times=None)
        _, confidence = columns.dense(likelihood.background)
        confidence, there = confidence.to(score.dtype), confidence > 0
        ratings = likelihood.cell(score, torch.where(there, confidence, 1.0)).sample().to(score.dtype)
        ratings[~there] = 0
        usual = confidence == columns.zeros(likelihood.background).to(columns.ratings).to(score)[:, None]
        stored = ((ratings != 0) | ~usual) & columns.observed[:, None]
        users = stored.nonzero(as_tuple=True)[1]
        indptr = torch.cat([stored.new_zeros(1, dtype=torch.int64), stored.sum(1).cumsum(0)])
        cells = users, ratings[stored], confidence[stored]
        return RatingColumns(indptr, *cells, columns.observed, columns.n_users, zero_weights=columns.zero_weights)
