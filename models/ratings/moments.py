"""Means and variances of users and items under q, and what they make of scores u_i.v_j."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """q(U) q(V) by its moments: users independent of items, each row with its own variances.

    Shapes: ``u`` (n_users, width) and ``v`` (n_items, width) are means; ``u_var`` (n_users, width) is diagonal,
    ``v_var`` diagonal (n_items, width) or full (n_items, width, width); ``None`` for points.
    """

    u: Tensor
    u_var: Tensor | None
    v: Tensor
    v_var: Tensor | None

    def gram(self, weights: Tensor | None = None) -> Tensor:
        """Sum over users of w_i E[u_i u_i'], (width, width); ``weights`` (n_users,) are 1 where not given."""
        u = self.u if weights is None else self.u * weights[:, None]
        gram = u.mT @ self.u
        if self.u_var is not None:
            var = self.u_var if weights is None else self.u_var * weights[:, None]
            gram = gram + torch.diag(var.sum(0))
        return gram

    def square(self, gram: Tensor) -> Tensor:
        """Sum over users of w_i E[s_ij^2] of each item, (n_items,), from their :meth:`gram`."""
        square = ((self.v @ gram) * self.v).sum(-1)
        if self.v_var is None:
            return square
        if self.v_var.dim() == 2:
            return square + self.v_var @ gram.diagonal()
        return square + (self.v_var * gram).sum((-1, -2))

    def scores(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the scores of single cells, (n_cells,) each.

        var(u.v) = m_u' S_v m_u + m_v' S_u m_v + tr(S_u S_v).
        """
        u, v = self.u[users], self.v[items]
        score = (u * v).sum(-1)
        variance = torch.zeros_like(score)
        if self.u_var is not None:
            variance = variance + (self.u_var[users] * v.square()).sum(-1)
        if self.v_var is not None and self.v_var.dim() == 2:
            second = u.square() if self.u_var is None else u.square() + self.u_var[users]
            variance = variance + (second * self.v_var[items]).sum(-1)
        elif self.v_var is not None:
            variance = variance + ((self.v_var[items] @ u[..., None]).squeeze(-1) * u).sum(-1)
            if self.u_var is not None:
                variance = variance + (self.u_var[users] * self.v_var.diagonal(dim1=-2, dim2=-1)[items]).sum(-1)
        return score, variance
