"""q of the rows of one side, users or items, as the closed form has it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """q of one side: points, diagonal Normals, or Normals with full covariances.

    Shapes: ``loc`` (n_rows, n_factors); ``variance`` (n_rows, n_factors) of the diagonal family. The full family has
    ``covariance`` (n_blocks, n_factors, n_factors) and each row's ``block`` (n_rows,): a row with stored cells has one
    of its own, the others share two; ``log_det`` (n_blocks,) are their log determinants. Where a row's prior mean is
    itself Normal with variances ``spread`` (n_rows, n_factors), ``covariance`` S is that given this mean, and the row's
    own is S + slope^2 S diag(spread) S.
    """

    loc: Tensor
    variance: Tensor | None = None
    covariance: Tensor | None = None
    block: Tensor | None = None
    log_det: Tensor | None = None
    spread: Tensor | None = None
    slope: float = 0.0

    @property
    def is_point(self) -> bool:
        """True without any covariance."""
        return self.variance is None and self.covariance is None

    def second_moment(self, weights: Tensor) -> Tensor:
        """Sum over rows of weight times E[w w'], (n_factors, n_factors); ``weights`` (n_rows,) may be a mask."""
        weights = weights.to(self.loc.dtype)
        total = self.loc.mT @ (self.loc * weights[:, None])
        if self.variance is not None:
            total = total + torch.diag(weights @ self.variance)
        elif self.covariance is not None:
            assert self.block is not None
            uses = self.covariance.new_zeros(len(self.covariance)).index_add(0, self.block, weights)
            total = total + torch.tensordot(uses, self.covariance, 1)
            if self.spread is not None:
                spread = self._by_block(self.spread * weights[:, None], self.block)
                for s, d in zip(self.covariance.split(1024), spread.split(1024), strict=True):
                    total = total + self.slope**2 * torch.einsum("bij,bj,bkj->ik", s, d, s)
        return total

    def own_covariances(self) -> Tensor:
        """Covariance of the row that owns each block, (n_blocks, n_factors, n_factors)."""
        assert self.covariance is not None and self.block is not None
        if self.spread is None:
            return self.covariance
        spread = self._by_block(self.spread, self.block)
        spread[-2:] = 0.0  # shared by rows of different spread, none of which has a stored cell
        parts = zip(self.covariance.split(1024), spread.split(1024), strict=True)
        return torch.cat([s + self.slope**2 * (s * d[:, None, :]) @ s for s, d in parts])

    def traces(self) -> Tensor:
        """Trace of each row's covariance, (n_rows,)."""
        if self.variance is not None:
            return self.variance.sum(-1)
        if self.covariance is None:
            return self.loc.new_zeros(len(self.loc))
        trace = self.covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[self.block]
        if self.spread is not None:
            trace = trace + self.slope**2 * (self.covariance.square().sum(-1)[self.block] * self.spread).sum(-1)
        return trace

    def expected_square(self, prior_loc: Tensor | None) -> Tensor:
        """E|w_i - prior mean|^2 of each row, (n_rows,), under q of both where that mean is Normal too."""
        away = self.loc if prior_loc is None else self.loc - prior_loc
        square = away.square().sum(-1)
        if self.spread is None:
            return square + self.traces()
        s = self.covariance
        assert s is not None
        given, squared = s.diagonal(dim1=-2, dim2=-1), s.square().sum(-1)
        drift = (1 - 2 * self.slope * given + self.slope**2 * squared)[self.block]  # diagonal of (slope S - I)^2
        return square + given.sum(-1)[self.block] + (drift * self.spread).sum(-1)

    def kl(self, precision: float, prior_loc: Tensor | None) -> Tensor:
        """KL(q(w_i) || N(prior mean, 1 / precision)) of each row in nats, (n_rows,); of points minus log p(w_i)."""
        size = self.loc.shape[1]
        square = 0.5 * precision * self.expected_square(prior_loc).double()
        if self.is_point:
            return square - 0.5 * size * math.log(precision / (2 * math.pi))
        if self.variance is not None:
            log_det = self.variance.log().sum(-1)
        else:
            log_det = self.log_det[self.block]  # type: ignore[index]
        return square - 0.5 * (size * (1 + math.log(precision)) + log_det.double())

    def _by_block(self, values: Tensor, block: Tensor) -> Tensor:
        assert self.covariance is not None
        return values.new_zeros(len(self.covariance), values.shape[1]).index_add(0, block, values)
