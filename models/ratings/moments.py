"""Means and covariances of users and items under q, and what they make of scores u_i.v_j."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

COVARIANCES_AT_ONCE = 2**24
"""Numbers of the covariances that are held at once for scores of single cells."""


@dataclass(frozen=True, eq=False)
class Moments:
    """q(U) q(V) by its moments: users independent of items, and every row of the others of its side.

    Shapes: ``u`` (n_users, width) and ``v`` (n_items, width) are means; ``u_var`` and ``v_var`` are ``None`` for
    points, diagonal (n_rows, width), or full (n_rows, width, width). Where rows share full covariances, these are
    (n_blocks, width, width) and ``u_block`` (n_users,), ``v_block`` (n_items,) say which is whose.
    """

    u: Tensor
    u_var: Tensor | None
    v: Tensor
    v_var: Tensor | None
    u_block: Tensor | None = None
    v_block: Tensor | None = None

    def gram(self, weights: Tensor | None = None) -> Tensor:
        """Sum over users of w_i E[u_i u_i'], (width, width); ``weights`` (n_users,) are 1 where not given."""
        u = self.u if weights is None else self.u * weights[:, None]
        gram = u.mT @ self.u
        if self.u_var is None:
            return gram
        if self.u_var.dim() == 3:
            uses = self.u.new_ones(len(self.u)) if weights is None else weights.to(self.u.dtype)
            if self.u_block is not None:
                uses = uses.new_zeros(len(self.u_var)).index_add(0, self.u_block, uses)
            return gram + torch.tensordot(uses, self.u_var, 1)
        var = self.u_var if weights is None else self.u_var * weights[:, None]
        return gram + torch.diag(var.sum(0))

    def square(self, gram: Tensor) -> Tensor:
        """Sum over users of w_i E[s_ij^2] of each item, (n_items,), from their :meth:`gram`."""
        square = ((self.v @ gram) * self.v).sum(-1)
        if self.v_var is None:
            return square
        if self.v_var.dim() == 2:
            return square + self.v_var @ gram.diagonal()
        trace = (self.v_var * gram).sum((-1, -2))
        return square + (trace if self.v_block is None else trace[self.v_block])

    def scores(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the scores of single cells, (n_cells,) each.

        var(u.v) = m_u' S_v m_u + m_v' S_u m_v + tr(S_u S_v).
        """
        full = any(var is not None and var.dim() == 3 for var in (self.u_var, self.v_var))
        at_once = max(1, COVARIANCES_AT_ONCE // (2 * self.u.shape[1] ** 2))
        if full and len(users) > at_once:
            parts = [self.scores(u, v) for u, v in zip(users.split(at_once), items.split(at_once), strict=True)]
            return torch.cat([mean for mean, _ in parts]), torch.cat([variance for _, variance in parts])
        u, v = self.u[users], self.v[items]
        score = (u * v).sum(-1)
        u_var = _of_rows(self.u_var, self.u_block, users)
        v_var = _of_rows(self.v_var, self.v_block, items)
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


def _of_rows(var: Tensor | None, block: Tensor | None, rows: Tensor) -> Tensor | None:
    if var is None:
        return None
    return var[rows if block is None else block[rows]]


def _quadratic(var: Tensor, x: Tensor) -> Tensor:
    """X' S x of each row."""
    return (var * x.square()).sum(-1) if var.dim() == 2 else ((var @ x[..., None]).squeeze(-1) * x).sum(-1)


def _product_trace(one: Tensor, other: Tensor) -> Tensor:
    """tr(S T) of each row."""
    if one.dim() == other.dim() == 3:
        return (one * other).sum((-1, -2))
    diagonals = [var if var.dim() == 2 else var.diagonal(dim1=-2, dim2=-1) for var in (one, other)]
    return (diagonals[0] * diagonals[1]).sum(-1)


class SweepScores:
    """What a closed-form sweep tells a ratings likelihood of the scores under the new q.

    ``form`` is E[sum over cells of c s^2 - 2 t s] with the precisions c and shifts t of the site that the sweep was
    made with. ``moments``, ``stored`` and ``zeros`` are computed when they are asked for.
    """

    def __init__(
        self,
        form: float,
        moments: Callable[[], Moments],
        stored: Callable[[], tuple[Tensor, Tensor]],
        zeros: Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor, Tensor]],
    ) -> None:
        self.form = form
        self._make_moments, self._make_stored, self._make_zeros = moments, stored, zeros

    @cached_property
    def moments(self) -> Moments:
        """q(U) q(V) in rows whose products are scores, biases included."""
        return self._make_moments()

    @cached_property
    def stored(self) -> tuple[Tensor, Tensor]:
        """E[s] and E[s^2] of the stored cells, (n_stored,) each."""
        return self._make_stored()

    @cached_property
    def zeros(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of E[s] and of E[s^2] over each user's zeros, and their number, (n_users,) each."""
        return self._make_zeros(self.stored)
