r"""q of the rows of one side, users or items: the one form in which models and algorithms hand it about.

Rows are independent of one another, points or Normals. What is asked of q(U) q(V) follows from here: second moments,
divergences from a prior, draws, and the scores u_i.v_j.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

COVARIANCES_AT_ONCE = 2**22
"""Numbers of single rows, or of their covariances, that are held at once."""
BLOCKS_AT_ONCE = 1024
"""Covariances that are multiplied with one another at once."""


@dataclass(frozen=True, eq=False)
class Gaussians:
    r"""Rows w_i: points, diagonal Normals, or Normals with full covariances.

    Shapes: ``loc`` (n_rows, width) are the means; ``variance`` (n_rows, width) of the diagonal family. The full family
    has ``covariance`` (n_blocks, width, width) and each row's ``block`` (n_rows,), which rows may share; left out, each
    row has its own. ``log_det`` (n_blocks,) are the log determinants, computed where they are not given.

    A row may have a parent, Normal with variances ``spread`` (n_rows, width), as v_i has z_i. Then ``covariance`` is
    that given the parent:

        w_i | a_i ~ N(loc_i + slope S_i (a_i - E[a_i]), S_i),    cov(w_i) = S_i + slope^2 S_i diag(spread_i) S_i.
    """

    loc: Tensor
    variance: Tensor | None = None
    covariance: Tensor | None = None
    block: Tensor | None = None
    log_det: Tensor | None = None
    spread: Tensor | None = None
    slope: float = 0.0

    def __post_init__(self) -> None:
        if self.covariance is not None and self.block is None:
            object.__setattr__(self, "block", torch.arange(len(self.loc), device=self.loc.device))

    def __len__(self) -> int:
        return len(self.loc)

    @property
    def is_point(self) -> bool:
        """True without any variance."""
        return self.variance is None and self.covariance is None

    @property
    def scale(self) -> Tensor | None:
        """Standard deviations of the diagonal family, (n_rows, width), without a gradient; ``None`` of the others.

        They are numpy's roots, which are rounded correctly: that of a square is the number itself. Torch's are not.
        """
        if self.variance is None:
            return None
        return torch.from_numpy(np.sqrt(self.variance.detach().cpu().numpy())).to(self.variance.device)

    # --- the rows themselves ------------------------------------------------------------------------------------------

    def given(self, rows: Any = slice(None)) -> Tensor:
        """Full covariances of some rows given their parents, (n_rows, width, width)."""
        assert self.covariance is not None and self.block is not None
        return self.covariance[self.block[rows]]

    def covariances(self, rows: Any = slice(None)) -> Tensor:
        """Covariances of some rows, (n_rows, width, width); zeros of points."""
        if self.covariance is None:
            return torch.diag_embed(torch.zeros_like(self.loc[rows]) if self.variance is None else self.variance[rows])
        given = self.given(rows)
        return given if self.spread is None else _with_parent(given, self.spread[rows], self.slope)

    def variances(self) -> Tensor:
        """Variance of each number, (n_rows, width)."""
        if self.covariance is None:
            return torch.zeros_like(self.loc) if self.variance is None else self.variance
        rows = torch.arange(len(self), device=self.loc.device)
        parts = rows.split(max(1, COVARIANCES_AT_ONCE // self.loc.shape[1] ** 2))
        return torch.cat([self.covariances(part).diagonal(dim1=-2, dim2=-1) for part in parts])

    def marginal(self, counted: Tensor | None = None) -> Gaussians:
        """The same without parents, whose spread is in the covariances.

        Of the rows that share a block those ``counted``, bool (n_rows,), get one of their own. The others keep their
        covariances given the parent.
        """
        if self.spread is None:
            return self
        assert self.covariance is not None and self.block is not None
        alone = torch.bincount(self.block, minlength=len(self.covariance)) == 1
        spread = torch.where(alone[:, None], self._by_block(self.spread), 0.0)
        parts = zip(self.covariance.split(BLOCKS_AT_ONCE), spread.split(BLOCKS_AT_ONCE), strict=True)
        table, block = [_with_parent(*part, self.slope) for part in parts], self.block
        if counted is not None and len(sharing := (counted & ~alone[block]).nonzero().squeeze(-1)):
            block = block.clone()
            block[sharing] = len(alone) + torch.arange(len(sharing), device=block.device)
            table += [self.covariances(part) for part in sharing.split(BLOCKS_AT_ONCE)]
        return Gaussians(self.loc, covariance=torch.cat(table), block=block)

    def select(self, rows: Tensor) -> Gaussians:
        """Some rows alone, in the order given, with no block that none of them has."""
        parts: dict[str, Any] = {"loc": self.loc[rows]}
        parts |= {name: part[rows] for name in ("variance", "spread") if (part := getattr(self, name)) is not None}
        if self.covariance is not None and self.block is not None:
            blocks, parts["block"] = self.block[rows].unique(return_inverse=True)
            parts["covariance"] = self.covariance[blocks]
            parts["log_det"] = None if self.log_det is None else self.log_det[blocks]
        return replace(self, **parts)

    def joined(self, more: Gaussians) -> Gaussians:
        """These rows, and those of another q of the same family behind them."""
        parts = {name: getattr(more, name) for name in ("loc", "variance", "covariance", "spread")}
        found = {name: torch.cat([getattr(self, name), part]) for name, part in parts.items() if part is not None}
        if self.covariance is not None and self.block is not None and more.block is not None:
            found["block"] = torch.cat([self.block, len(self.covariance) + more.block])
        return Gaussians(**found, slope=self.slope)

    def mapped(self, of_means: Callable[[Tensor], Tensor], of_spreads: Callable[[Tensor], Tensor]) -> Gaussians:
        """In other coordinates: functions of means, and of variances, spreads and covariances."""
        parts = {name: getattr(self, name) for name in ("variance", "covariance", "spread")}
        moved: dict[str, Any] = {name: None if part is None else of_spreads(part) for name, part in parts.items()}
        return replace(self, loc=of_means(self.loc), log_det=None, **moved)

    # --- draws --------------------------------------------------------------------------------------------------------

    def root(self) -> Tensor | None:
        """Standard deviations (n_rows, width) or Cholesky factors (n_blocks, width, width), given the parents.

        ``None`` of points. A coordinate may have no variance at all.
        """
        if self.covariance is None:
            return self.scale
        variance = self.covariance.diagonal(dim1=-2, dim2=-1)
        if bool((variance > 0).all()):
            return torch.linalg.cholesky(self.covariance)
        held = torch.diag_embed((variance == 0).to(variance.dtype))
        return torch.linalg.cholesky(self.covariance + held) - held

    def moved(self, noise: Tensor, root: Tensor | None) -> Tensor:
        """The rows at standard Normal ``noise``, (n, n_rows, width), parents at their means; ``root`` as above."""
        if root is None:
            return self.loc.expand_as(noise)
        return self.loc + (root * noise if self.covariance is None else _times(root[self.block], noise))

    def along(self, away: Tensor) -> Tensor:
        """How far means move where parents are ``away`` from theirs, (n, n_rows, width) or the first coordinates."""
        return _times(self.slope * self.given()[..., : away.shape[-1]], away)

    # --- sums and expectations ----------------------------------------------------------------------------------------

    def second_moment(self, weights: Tensor | None = None) -> Tensor:
        """Sum over rows of weight times E[w w'], (width, width); ``weights`` (n_rows,) may be a mask, 1 if left out."""
        weights = None if weights is None else weights.to(self.loc.dtype)
        loc = self.loc if weights is None else self.loc * weights[:, None]
        total = self.loc.mT @ loc
        if self.variance is not None:
            return total + torch.diag(self.variance.sum(0) if weights is None else weights @ self.variance)
        if self.covariance is None or self.block is None:
            return total
        weights = self.loc.new_ones(len(self)) if weights is None else weights
        uses = weights.new_zeros(len(self.covariance)).index_add(0, self.block, weights)
        total = total + torch.tensordot(uses, self.covariance, 1)
        if self.spread is not None:
            spread = self._by_block(self.spread * weights[:, None])
            for s, d in zip(self.covariance.split(BLOCKS_AT_ONCE), spread.split(BLOCKS_AT_ONCE), strict=True):
                total = total + self.slope**2 * torch.einsum("bij,bj,bkj->ik", s, d, s)
        return total

    def quadratic(self, matrix: Tensor) -> Tensor:
        """E[w' M w] of each row, (n_rows,), with a symmetric ``matrix`` M (width, width)."""
        value = ((self.loc @ matrix) * self.loc).sum(-1)
        if self.variance is not None:
            return value + self.variance @ matrix.diagonal()
        if self.covariance is None:
            return value
        value = value + (self.covariance * matrix).sum((-1, -2))[self.block]
        if self.spread is not None:
            met = torch.cat([((s @ matrix) * s).sum(-1) for s in self.covariance.split(BLOCKS_AT_ONCE)])
            value = value + self.slope**2 * (met[self.block] * self.spread).sum(-1)
        return value

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
        """E|w_i - prior mean|^2 of each row, (n_rows,); where there are parents, that mean moves with them."""
        away = self.loc if prior_loc is None else self.loc - prior_loc
        square = away.square().sum(-1)
        if self.spread is None:
            return square + self.traces()
        s = self.covariance
        assert s is not None
        given, squared = s.diagonal(dim1=-2, dim2=-1), s.square().sum(-1)
        drift = (1 - 2 * self.slope * given + self.slope**2 * squared)[self.block]  # diagonal of (slope S - I)^2
        return square + given.sum(-1)[self.block] + (drift * self.spread).sum(-1)

    def kl(self, precision: float, prior_loc: Tensor | None = None) -> Tensor:
        """KL(q(w_i) || N(prior mean, 1 / precision)) of each row in nats, (n_rows,); of points minus log p(w_i)."""
        size = self.loc.shape[1]
        square = 0.5 * precision * self.expected_square(prior_loc).double()
        if self.is_point:
            return square - 0.5 * size * math.log(precision / (2 * math.pi))
        if self.variance is not None:
            log_det = self.variance.log().sum(-1)
        else:
            log_det = (self._log_det() if self.log_det is None else self.log_det)[self.block]
        return square - 0.5 * (size * (1 + math.log(precision)) + log_det.double())

    def _log_det(self) -> Tensor:
        assert self.covariance is not None
        return 2 * torch.linalg.cholesky(self.covariance).diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _by_block(self, values: Tensor) -> Tensor:
        assert self.covariance is not None and self.block is not None
        return values.new_zeros(len(self.covariance), values.shape[1]).index_add(0, self.block, values)


def scores_of_pairs(users: Gaussians, items: Gaussians, user_rows: Tensor, item_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the scores u_i.v_j of pairs of rows, (n_pairs,) each.

    var(u.v) = m_u' S_v m_u + m_v' S_u m_v + tr(S_u S_v), users being independent of items.
    """
    full, size = users.covariance is not None or items.covariance is not None, users.loc.shape[1]
    at_once = max(1, COVARIANCES_AT_ONCE // (size**2 if full else 4 * size))
    held = users.loc.requires_grad or items.loc.requires_grad  # for the gradient all are held anyway
    if len(user_rows) > at_once and (full or not held):
        pairs = zip(user_rows.split(at_once), item_rows.split(at_once), strict=True)
        means, variances = zip(*(scores_of_pairs(users, items, *part) for part in pairs), strict=True)
        return torch.cat(means), torch.cat(variances)
    u, v = users.loc[user_rows], items.loc[item_rows]
    u_var, v_var = _of_rows(users, user_rows), _of_rows(items, item_rows)
    score = (u * v).sum(-1)
    variance = torch.zeros_like(score)
    if u_var is not None:
        variance = variance + _quadratic(u_var, v)
    if v_var is not None and v_var.dim() == 2 and (u_var is None or u_var.dim() == 2):
        second = u.square() if u_var is None else u.square() + u_var
        return score, variance + (second * v_var).sum(-1)
    if v_var is not None:
        variance = variance + _quadratic(v_var, u)
        if u_var is not None:
            variance = variance + _product_trace(u_var, v_var)
    return score, variance


def _of_rows(q: Gaussians, rows: Tensor) -> Tensor | None:
    """Variances or covariances of some rows; ``None`` of points."""
    if q.covariance is not None:
        return q.covariances(rows)
    return None if q.variance is None else q.variance[rows]


def _with_parent(given: Tensor, spread: Tensor, slope: float) -> Tensor:
    """S + slope^2 S diag(spread) S."""
    return given + slope**2 * (given * spread[..., None, :]) @ given


def _times(matrices: Tensor, rows: Tensor) -> Tensor:
    """Each row (n, n_rows, width) times its matrix; matmul would copy the matrices n times."""
    return torch.einsum("rkl,...rl->...rk", matrices, rows)


def _quadratic(var: Tensor, x: Tensor) -> Tensor:
    """X' S x of each row."""
    return (var * x.square()).sum(-1) if var.dim() == 2 else ((var @ x[..., None]).squeeze(-1) * x).sum(-1)


def _product_trace(one: Tensor, other: Tensor) -> Tensor:
    """tr(S T) of each row."""
    if one.dim() == other.dim() == 3:
        return (one * other).sum((-1, -2))
    diagonals = [var if var.dim() == 2 else var.diagonal(dim1=-2, dim2=-1) for var in (one, other)]
    return (diagonals[0] * diagonals[1]).sum(-1)
