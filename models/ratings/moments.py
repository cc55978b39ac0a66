"""What likelihoods of ratings ask of q(U) q(V): moments of users and items, and of their scores u_i.v_j."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.gaussians import Gaussians, scores_of_pairs
from models.observations import RatingColumns


@dataclass(frozen=True, eq=False)
class Moments:
    """q(U) q(V) in rows whose products are scores, biases included: ``users`` independent of ``items``."""

    users: Gaussians
    items: Gaussians

    @property
    def u(self) -> Tensor:
        """Means of users, (n_users, width)."""
        return self.users.loc

    @property
    def v(self) -> Tensor:
        """Means of items, (n_items, width)."""
        return self.items.loc

    @property
    def u_var(self) -> Tensor | None:
        """Variances of users (n_users, width), or covariances by block (n_blocks, width, width); ``None`` of points."""
        return self.users.covariance if self.users.variance is None else self.users.variance

    @property
    def v_var(self) -> Tensor | None:
        """The same of items, (n_items, width) or (n_blocks, width, width)."""
        return self.items.covariance if self.items.variance is None else self.items.variance

    def gram(self, weights: Tensor | None = None) -> Tensor:
        """Sum over users of w_i E[u_i u_i'], (width, width); ``weights`` (n_users,) are 1 where not given."""
        return self.users.second_moment(weights)

    def square(self, gram: Tensor) -> Tensor:
        """Sum over users of w_i E[s_ij^2] of each item, (n_items,), from their :meth:`gram`."""
        return self.items.quadratic(gram)

    def scores(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the scores of single cells, (n_cells,) each."""
        return scores_of_pairs(self.users, self.items, users, items)


class SweepScores:
    """What a closed-form sweep tells a ratings likelihood of the scores under the new q.

    ``form`` is E[sum over cells of c s^2 - 2 t s] with the precisions c and shifts t of the site that the sweep was
    made with. ``moments``, ``stored`` and ``zeros`` are computed when they are asked for, from ``q``, which makes q(U)
    and q(V) in rows whose products are scores.

    Of a fit by several workers the columns hold the users of one of them; ``form`` is of all. ``total`` makes of a sum
    over these columns, in float64, the one over all users.
    """

    def __init__(
        self,
        form: float,
        columns: RatingColumns,
        q: Callable[[], tuple[Gaussians, Gaussians]],
        total: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> None:
        self.form, self.total, self._columns, self._make = form, total, columns, q

    @cached_property
    def _q(self) -> tuple[Gaussians, Gaussians]:
        return self._make()

    @cached_property
    def moments(self) -> Moments:
        """q(U) q(V) in rows whose products are scores, biases included."""
        users, items = self._q
        return Moments(users, items.marginal(self._columns.observed))

    @cached_property
    def stored(self) -> tuple[Tensor, Tensor]:
        """E[s] and E[s^2] of the stored cells, (n_stored,) each."""
        users, items = self._q
        mean, variance = scores_of_pairs(users, items.marginal(), self._columns.users, self._columns.items)
        return mean, mean.square() + variance

    @cached_property
    def zeros(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of E[s] and of E[s^2] over each user's zeros, and their number, (n_users,) each."""
        users, items = self._q
        columns, seen = self._columns, self._columns.observed.to(items.loc.dtype)
        score, second = users.loc @ (seen @ items.loc), users.quadratic(items.second_moment(seen))
        inside = seen[columns.items]
        count = torch.full_like(score, float(seen.sum())).index_add(0, columns.users, -inside)
        score = score.index_add(0, columns.users, -inside * self.stored[0])
        return score, second.index_add(0, columns.users, -inside * self.stored[1]).clamp(min=0), count
