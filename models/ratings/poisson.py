"""Counts, such as plays or visits: R_ij ~ Poisson(exp(s_ij)), a cell that is not stored being a count of 0."""

from __future__ import annotations

import math

import torch
from pyro.distributions import Distribution
from pyro.distributions import Poisson as PoissonDistribution
from torch import Tensor

from models.observations import RatingColumns
from models.ratings.base import RatingLikelihood, mean_rating, stored_support
from pyro_cvae.errors import InputError


class Poisson(RatingLikelihood):
    """R_ij ~ Poisson(exp(s_ij)); every cell that is not stored is a 0, or missing without ``zeros``.

    ``subsample`` users are drawn for the zeros of a training step, 0 takes all. Confidences say which cells are missing
    and nothing else. It has no closed form: ``inference.svi`` fits it.
    """

    def __init__(self, zeros: bool = True, subsample: int = 1024) -> None:
        super().__init__()
        if not isinstance(subsample, int) or subsample < 0:
            raise InputError(f"subsample is {subsample!r}, but it must be a whole number, 0 or more", "0 takes all")
        self.zeros, self.subsample = zeros, subsample

    def cell(self, score: Tensor, confidence: Tensor) -> Distribution:
        """A Poisson of this log rate."""
        return PoissonDistribution(score.exp())

    def log_prob(self, score: Tensor, ratings: Tensor, confidence: Tensor) -> Tensor:
        """R s - e^s - log r!."""
        return ratings * score - score.exp() - torch.lgamma(ratings + 1)

    def check(self, columns: RatingColumns) -> None:
        """Every rating must be a whole number, 0 or more."""
        good = (columns.ratings >= 0) & (columns.ratings == columns.ratings.round())
        stored_support(columns, good, "Poisson", "whole counts", "use another --rating-likelihood")

    def initial_mean(self, columns: RatingColumns) -> float:
        """The log of the mean rating."""
        return math.log(max(mean_rating(self, columns), 1e-6))
