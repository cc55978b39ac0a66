"""Where a fit begins that goes on from another one: means of u and v of the rows that both have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inference.algorithms.standard_scale import StandardScale
from models.base import FactorModel


@dataclass(frozen=True, eq=False)
class WarmRows:
    """Means of one side in the ratings' own units, by the rows of the new data.

    Shapes: ``factors`` (n_rows, n_factors), ``biases`` (n_rows,) or ``None``, ``known`` bool (n_rows,); rows that are
    not known are zeros.
    """

    factors: Tensor
    biases: Tensor | None
    known: Tensor


@dataclass(frozen=True, eq=False)
class Warm:
    """Both sides, and what c is: of items that nobody has chosen, and of new ones."""

    users: WarmRows
    items: WarmRows
    scales: tuple[float, float] = (1.0, 1.0)

    def of_items(self, model: FactorModel, loc: Tensor, scale: StandardScale) -> Tensor:
        """The start of v, (n_items, width) on the standard scale: ``loc`` but for the rows that are known."""
        rows, n = self.items, model.n_factors
        known, out = rows.known.to(loc.device), loc.clone()
        out[known, :n] = rows.factors.to(loc)[known]
        if rows.biases is not None:
            out[known, n] = ((rows.biases.to(loc) - scale.location) / (scale.scale * model.kappa_v))[known]
        return out

    def of_users(self, model: FactorModel, loc: Tensor, scale: StandardScale) -> Tensor:
        """The start of u, (n_users, width), likewise."""
        rows, n = self.users, model.n_factors
        known, out = rows.known.to(loc.device), loc.clone()
        out[known, :n] = rows.factors.to(loc)[known] / scale.scale
        if rows.biases is not None:
            out[known, n] = (rows.biases.to(loc) / (scale.scale * model.kappa_u))[known]
        return out

    @torch.no_grad()
    def scale_contents(self, model: FactorModel, unrated: Tensor) -> None:
        """Let contents of the items ``unrated``, bool (n_items,), and of new ones, count as they did."""
        model.scale_contents(unrated, *self.scales)
