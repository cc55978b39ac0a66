"""Normal priors of rows as data: what the Pyro program draws from, and what closed forms and KL terms read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyro.distributions as dist
from torch import Tensor

Above = Mapping[str, Tensor]
"""Values of the sites above u and v in a model's story, such as means of groups of users, by name."""
NOTHING: Above = {}


@dataclass(frozen=True, eq=False)
class NormalPrior:
    """N(loc_i, I / precision) of every row of u or v.

    Shapes: ``loc`` (n_rows, width), or (width,) where it is the same for all rows. ``precision`` is one number.
    ``slope`` (n_rows,) is by how much loc_i moves with m_i, the item's content; ``None``: one to one.
    """

    loc: Tensor
    precision: float
    slope: Tensor | None = None

    @property
    def distribution(self) -> dist.TorchDistribution:
        """The distribution of a row, event shape (width,)."""
        return dist.Normal(self.loc, self.precision**-0.5).to_event(1)

    def of_content(self, variance: Tensor) -> Tensor:
        """What variances of m, (n_rows, n_factors), make of the mean: slope_i^2 times as much."""
        return variance if self.slope is None else self.slope.square()[:, None] * variance

    def rows(self, n_rows: int) -> Tensor | None:
        """The means (n_rows, width) where they are not 0 for all rows, as the closed forms read them."""
        if self.loc.dim() == 1:
            return self.loc.expand(n_rows, -1) if bool(self.loc.any()) else None
        return self.loc
