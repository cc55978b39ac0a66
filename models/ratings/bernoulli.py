r"""Clicks as what they are: R_ij ~ Bernoulli(sigmoid(s_ij)), exactly or by a bound that is Gaussian in u and v.

The bound (Jaakkola and Jordan, Statistics and Computing 2000): for y = 2 R - 1 and any xi,

    log sigmoid(y s) >= log sigmoid(xi) + (y s - xi) / 2 - l(xi) (s^2 - xi^2),    l(xi) = tanh(xi / 2) / (4 xi),

best at xi^2 = E[s^2]. A xi for every cell would make the matrix dense. Stored cells have their own; all the zeros of a
user share one, xi_i, so that their precisions 2 l(xi_i) stay within one Gram matrix, sum_i 2 l(xi_i) E[u_i u_i']. The
best is xi_i^2 = the mean of E[s_ij^2] over the user's zeros. A bound with shared xi is looser, not wrong.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pyro.distributions import Bernoulli as BernoulliDistribution
from pyro.distributions import Distribution
from torch import Tensor, nn
from torch.nn import functional as F

from models.observations import RatingColumns
from models.ratings.base import GaussianSite, RatingLikelihood, mean_rating, stored_support
from models.ratings.moments import Moments, SweepScores
from pyro_cvae.errors import InputError

SMALLEST = 1e-6


class Bernoulli(RatingLikelihood):
    """R_ij ~ Bernoulli(sigmoid(s_ij)); every cell that is not stored is a 0, or missing without ``zeros``.

    ``subsample`` users are drawn for the zeros of a training step, 0 takes all. Confidences say which cells are missing
    and nothing else.
    """

    def __init__(self, zeros: bool = True, subsample: int = 1024) -> None:
        super().__init__()
        if not isinstance(subsample, int) or subsample < 0:
            raise InputError(f"subsample is {subsample!r}, but it must be a whole number, 0 or more", "0 takes all")
        self.zeros, self.subsample = zeros, subsample

    def cell(self, score: Tensor, confidence: Tensor) -> Distribution:
        """A Bernoulli with these logits."""
        return BernoulliDistribution(logits=score)

    def log_prob(self, score: Tensor, ratings: Tensor, confidence: Tensor) -> Tensor:
        """R s - softplus(s)."""
        return ratings * score - F.softplus(score)

    def check(self, columns: RatingColumns) -> None:
        """Every rating must be 0 or 1."""
        good = (columns.ratings == 0) | (columns.ratings == 1)
        stored_support(columns, good, "Bernoulli", "0 or 1", "use --ratings clicks, or another --rating-likelihood")

    def initial_mean(self, columns: RatingColumns) -> float:
        """The logit of the mean rating."""
        p = min(max(mean_rating(self, columns), 1e-6), 1 - 1e-6)
        return math.log(p / (1 - p))


class BernoulliBound(Bernoulli):
    """The same under the bound of the module's docstring: what closed forms and gradients maximise is below the ELBO.

    ``log_xi`` (n_users,) are the logs of xi_i.
    """

    conjugate: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    learns: ClassVar[str] = "bound"

    def __init__(self, zeros: bool = True) -> None:
        super().__init__(zeros, subsample=0)
        self.log_xi = nn.Parameter(torch.zeros(0))

    def prepare(self, n_users: int) -> None:
        """A xi for every user, 1 to begin with, where there are zeros."""
        self.log_xi = nn.Parameter(torch.zeros(n_users if self.zeros else 0))

    @property
    def background(self) -> float:
        """There is a background of zeros, unless ``zeros`` is off."""
        return 1.0 if self.zeros else 0.0

    def expected_log_prob(self, moments: Moments, columns: RatingColumns) -> Tensor:
        """The bound of E_q[log p(R_j | U, v_j)] in nats, (n_items,), stored cells at their best xi."""
        score, variance = moments.scores(columns.users, columns.items)
        second = score.square() + variance
        there = columns.confidences > 0
        own = best_xi(second)
        stored = torch.where(there, F.logsigmoid(own) - own / 2 + (columns.ratings - 0.5) * score, 0.0)
        nothing = score.new_zeros(len(columns))
        if not self.zeros:
            return nothing.index_add(0, columns.items, stored)
        curvature, offset = self._zeros()
        whole = offset.sum() - 0.5 * (moments.v @ moments.u.sum(0)) - moments.square(moments.gram(curvature))
        as_zero = offset[columns.users] - 0.5 * score - curvature[columns.users] * second
        return (whole.index_add(0, columns.items, stored - as_zero)) * columns.observed

    def _zeros(self) -> tuple[Tensor, Tensor]:
        """l(xi_i), and the part of a zero's bound without s, of each user, (n_users,) each."""
        xi = self.log_xi.exp()
        curvature = slope(xi)
        return curvature, F.logsigmoid(xi) - xi / 2 + curvature * xi.square()

    def site(self, columns: RatingColumns, second: Tensor | None = None) -> GaussianSite:
        """The bound's Gaussian factors; without ``second`` stored cells take the xi of their user, or 1."""
        xi = self.log_xi.detach().exp()
        if second is None:
            own = xi[columns.users] if self.zeros else torch.ones_like(columns.ratings)
        else:
            own = best_xi(second)
        there = columns.confidences > 0
        precision = torch.where(there, 2 * slope(own), 0.0)
        shift = torch.where(there, columns.ratings - 0.5, 0.0).to(precision.dtype)
        if not self.zeros:
            return GaussianSite(precision, shift, 0.0)
        return GaussianSite(precision, shift, 2 * slope(xi), -0.5)

    @torch.no_grad()
    def learn(self, mean_square: Tensor) -> None:
        """xi_i at the maximum of the bound, where E[s^2] is ``mean_square`` (n_users,) over a user's zeros."""
        self.log_xi.copy_(best_xi(mean_square).log())

    def after_sweep(self, columns: RatingColumns, scores: SweepScores) -> Tensor:
        """Every xi at its best, then the bound, from means and squares of single scores: no moments are needed."""
        if not self.keeps(BernoulliBound, "learn", "site", "expected_log_prob", "constant"):
            return super().after_sweep(columns, scores)
        score, own = scores.stored[0].double(), best_xi(scores.stored[1].double())
        there = (columns.confidences > 0).double()
        value = (there * (F.logsigmoid(own) - own / 2 + (columns.ratings.double() - 0.5) * score)).sum()
        if not self.zeros:
            return scores.total(value)
        total, second, count = scores.zeros
        self.learn(second / count.clamp(min=1))
        xi = self.log_xi.detach().double().exp()
        return scores.total(value + (count.double() * (F.logsigmoid(xi) - xi / 2)).sum() - 0.5 * total.double().sum())


def best_xi(second: Tensor) -> Tensor:
    """The xi at which the bound is best, sqrt(E[s^2])."""
    return second.clamp(min=SMALLEST).sqrt()


def slope(xi: Tensor) -> Tensor:
    """l(xi) = tanh(xi / 2) / (4 xi), 1/8 at 0."""
    return torch.tanh(xi / 2) / (4 * xi)
