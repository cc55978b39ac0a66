r"""The standard scale on which explicit ratings are fitted, and the way back to the ratings' own.

With biases R = location + scale R', location and scale the mean and the standard deviation of the training ratings;
without them there is nothing that could hold a location, and the scale is their root mean square. Users, biases, noise
and precisions then go back by

    u = scale u',   b = scale b',   c = scale c' + location,   tau = tau' / scale^2,   lambda_u = lambda_u' / scale^2

while v and lambda_v stay as they are: a fit to ratings in other units is the same fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from inference.draws import Draws
from inference.posterior import Posterior
from models.base import FactorModel
from models.gaussians import Gaussians
from models.observations import RatingColumns
from pyro_cvae.errors import InputError

LARGEST = 1e15
"""Largest and, inverted, smallest spread of ratings whose squares float32 can hold."""
FAR = 1e3
"""Location in units of the scale from which on a score in the ratings' own units is kept in float64."""


@dataclass(frozen=True)
class StandardScale:
    """R = ``location`` + ``scale`` R'; 0 and 1 leave everything as it is."""

    location: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, columns: RatingColumns, biased: bool) -> StandardScale:
        """That of the ratings that are there; InputError where their spread is beyond floating-point numbers."""
        ratings = columns.ratings[columns.confidences > 0].double()
        location = float(ratings.mean()) if biased else 0.0
        scale = float((ratings - location).square().mean().sqrt())
        if not 1 / LARGEST < scale < LARGEST:
            problem = f"the ratings spread by {scale:g} around {location:g}, which squares to no floating-point number"
            raise InputError(problem, "give them in another unit")
        return cls(location, scale)

    def columns(self, columns: RatingColumns) -> RatingColumns:
        """The columns with ratings on the standard scale; cells that are missing hold 0."""
        ratings = (columns.ratings.double() - self.location) / self.scale
        return replace(columns, ratings=torch.where(columns.confidences > 0, ratings, 0.0).to(columns.ratings.dtype))

    def standard(self, model: FactorModel) -> FactorModel:
        """A model whose precisions are in the ratings' own units, with them on the standard scale."""
        self._rescale(model, 1 / self.scale, -self.location / self.scale)
        return model

    def own(self, model: FactorModel) -> FactorModel:
        """The inverse of :meth:`standard`."""
        self._rescale(model, self.scale, self.location)
        return model

    @torch.no_grad()
    def _rescale(self, model: FactorModel, scale: float, shift: float) -> None:
        if self == StandardScale():
            return
        model.lambda_u /= scale**2
        model.ratings.rescale(scale)
        if model.mean is not None:
            model.kappa_v *= scale
            model.mean.mul_(scale).add_(shift)

    def posterior(self, posterior: Posterior) -> Posterior:
        """A posterior on the standard scale in the ratings' own units."""
        if self == StandardScale():
            return posterior
        if isinstance(posterior, Draws):
            u = Gaussians(self.scale * posterior.u.loc)
            return replace(posterior, u_draws=self.scale * posterior.u_draws, u=u)
        wide = self.location != 0 and abs(self.location) > FAR * self.scale
        tensors = {n: t.double() if wide and t.is_floating_point() else t for n, t in posterior.tensors().items()}
        for name, power in (("u_loc", 1), ("u_scale", 1), ("u_covariance", 2)):
            if name in tensors:
                tensors[name] = self.scale**power * tensors[name]
        if posterior.v_pad is not None:
            shift = self.location / float(tensors["u_loc"][0, -1])  # over kappa_v in the ratings' own units
            for name in ("v_loc", "v_pad"):
                tensors[name] = torch.cat([tensors[name][..., :-1], tensors[name][..., -1:] + shift], -1)
        return Posterior.from_tensors(posterior.kind, tensors, posterior.parametrization)

    def terms(self, terms: dict[str, float], model: FactorModel, n_ratings: int) -> dict[str, float]:
        """The named parts of the objective of so many ratings as densities in their own units, in nats."""
        log_scale = math.log(self.scale)
        parts: dict[str, float] = {"ratings": n_ratings, "precisions": -2}
        parts["log_p_u"] = model.n_users * model.width
        return terms | {name: terms[name] - n * log_scale for name, n in parts.items() if name in terms}


def move(values: dict[str, Any], model: FactorModel) -> None:
    """Set a model's precisions from a dictionary of :meth:`models.base.FactorModel.precisions`."""
    for name, value in values.items():
        setattr(model, name, value)


def rated(columns: RatingColumns, kept: Tensor) -> RatingColumns:
    """The columns with the stored cells ``kept`` alone, bool (n_stored,)."""
    counts = torch.bincount(columns.items[kept], minlength=len(columns))
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    cells = (columns.users[kept], columns.ratings[kept], columns.confidences[kept])
    observed, weights = columns.observed & (counts > 0), columns.zero_weights
    return RatingColumns(indptr, *cells, observed, columns.n_users, zero_weights=weights)
