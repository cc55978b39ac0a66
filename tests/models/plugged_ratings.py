"""Ratings likelihoods as somebody writes them from the contract alone: the package's own two that learn, once more.

Neither derives from the package's class of the same density, so that nothing of its short cuts can be borrowed.
"""

import math
from typing import ClassVar

import torch
from pyro.distributions import Bernoulli, Normal
from torch import nn
from torch.nn.functional import logsigmoid

from models.ratings import GaussianSite, RatingLikelihood
from models.ratings.bernoulli import Bernoulli as PackageBernoulli
from models.ratings.normal import Normal as PackageNormal
from pyro_cvae.errors import InputError


class OwnNoise(RatingLikelihood):
    """R_ij ~ N(s_ij, 1 / (tau C_ij)) on stored pairs, tau learned."""

    conjugate: ClassVar[bool] = True
    explicit: ClassVar[bool] = True
    standardised: ClassVar[bool] = True
    learns: ClassVar[str] = "noise"
    zeros = False
    background = 0.0

    def __init__(self, tau: float = 1.0) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.tensor(math.log(tau)))

    def cell(self, score, confidence):
        return Normal(score, (self.log_tau.exp() * confidence).rsqrt())

    def expected_log_prob(self, moments, columns):
        mean, variance = moments.scores(columns.users, columns.items)
        there = columns.confidences > 0
        c = torch.where(there, columns.confidences, 1.0)
        square = (columns.ratings - mean).square() + variance
        cells = 0.5 * (self.log_tau + (c / (2 * math.pi)).log() - self.log_tau.exp() * c * square)
        return mean.new_zeros(len(columns)).index_add(0, columns.items, torch.where(there, cells, 0.0))

    def site(self, columns, second=None):
        precision = self.log_tau.detach().exp() * columns.confidences
        return GaussianSite(precision, precision * columns.ratings, 0.0)

    @torch.no_grad()
    def learn(self, mean_square):
        if self.log_tau.requires_grad:
            self.log_tau.copy_(-mean_square.log())

    @torch.no_grad()
    def rescale(self, factor):
        self.log_tau.sub_(2 * math.log(factor))

    def units(self, columns):
        return float(self.log_tau.detach().exp()), 1.0

    def initial_mean(self, columns):
        weight = columns.confidences.double()
        return float((weight * columns.ratings.double()).sum() / weight.sum())

    def hold(self):
        self.log_tau.requires_grad_(False)


class OwnBound(RatingLikelihood):
    """R_ij ~ Bernoulli(sigmoid(s_ij)) under Jaakkola and Jordan's bound, one xi for all zeros of a user."""

    conjugate: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    learns: ClassVar[str] = "bound"

    def __init__(self) -> None:
        super().__init__()
        self.log_xi = nn.Parameter(torch.zeros(0))

    def prepare(self, n_users):
        self.log_xi = nn.Parameter(torch.zeros(n_users))

    def cell(self, score, confidence):
        return Bernoulli(logits=score)

    def check(self, columns):
        there = columns.ratings[columns.confidences > 0]
        if not bool(((there == 0) | (there == 1)).all()):
            raise InputError("ratings must be 0 or 1", "use --ratings clicks")

    @staticmethod
    def slope(xi):
        return torch.tanh(xi / 2) / (4 * xi)

    def expected_log_prob(self, moments, columns):
        mean, variance = moments.scores(columns.users, columns.items)
        second, xi = mean.square() + variance, self.log_xi.exp()
        own = second.clamp(min=1e-6).sqrt()
        there = columns.confidences > 0
        stored = torch.where(there, logsigmoid(own) - own / 2 + (columns.ratings - 0.5) * mean, 0.0)
        slope = self.slope(xi)
        offset = logsigmoid(xi) - xi / 2 + slope * xi.square()
        zeros = offset.sum() - 0.5 * (moments.v @ moments.u.sum(0)) - moments.square(moments.gram(slope))
        as_zero = offset[columns.users] - 0.5 * mean - slope[columns.users] * second
        return zeros.index_add(0, columns.items, stored - as_zero) * columns.observed

    def site(self, columns, second=None):
        xi = self.log_xi.detach().exp()
        own = xi[columns.users] if second is None else second.clamp(min=1e-6).sqrt()
        there = columns.confidences > 0
        precision = torch.where(there, 2 * self.slope(own), 0.0)
        shift = torch.where(there, columns.ratings - 0.5, 0.0).to(precision.dtype)
        return GaussianSite(precision, shift, 2 * self.slope(xi), -0.5)

    @torch.no_grad()
    def learn(self, mean_square):
        self.log_xi.copy_(mean_square.clamp(min=1e-6).sqrt().log())

    def initial_mean(self, columns):
        n_cells = int(columns.observed.sum()) * columns.n_users
        p = float(
            (columns.confidences * columns.ratings).sum() / columns.confidences.sum().add(n_cells - len(columns.users))
        )
        return math.log(p / (1 - p))


class ShiftedNoise(PackageNormal):
    """The package's noise with a nat less an item: what a subclass states must count, not what its base knows."""

    def expected_log_prob(self, moments, columns):
        return super().expected_log_prob(moments, columns) - 1.0


class OwnZeros(RatingLikelihood):
    """R_ij ~ N(s_ij + shift, 1 / (tau C_ij)) of all cells, C = 1 where none is stated: dense, for small data."""

    conjugate: ClassVar[bool] = True

    def __init__(self, tau: float = 0.5, shift: float = 0.0) -> None:
        super().__init__()
        self.tau, self.shift = tau, shift

    def cell(self, score, confidence):
        return Normal(score + self.shift, (self.tau * confidence).rsqrt())

    def expected_log_prob(self, moments, columns):
        ratings, c = columns.dense(1.0)
        users, items = torch.arange(columns.n_users).repeat(len(columns)), torch.arange(len(columns))
        pairs = moments.scores(users, items.repeat_interleave(columns.n_users))
        mean, variance = (part.view(len(columns), -1) for part in pairs)
        square = (ratings - self.shift - mean).square() + variance
        return -0.5 * self.tau * (c * square).sum(1)

    def constant(self, columns):
        _, c = columns.dense(1.0)
        there = c > 0
        logs = (self.tau * torch.where(there, c, 1.0).double() / (2 * math.pi)).log()
        return 0.5 * (there * logs).sum(1)

    def site(self, columns, second=None):
        c = self.tau * columns.confidences
        return GaussianSite(c, c * (columns.ratings - self.shift), self.tau, -self.tau * self.shift)


class Sharpened(OwnZeros):
    """The same with a precision that sweeps bring to its best, stated by ``after_sweep`` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.tau = nn.Parameter(torch.tensor(0.5), requires_grad=False)

    def after_sweep(self, columns, scores):
        _, c = columns.dense(1.0)
        square = -2 / self.tau * self.expected_log_prob(scores.moments, columns).double().sum()
        n, square = scores.total(torch.stack([(c > 0).sum().double(), square]))
        self.tau.copy_(n / square)
        return scores.total(self.constant(columns).sum()) - n / 2


class Unlearned(OwnZeros):
    """A precision that is to be learned, and no sweep is told how."""

    def __init__(self) -> None:
        super().__init__()
        self.tau = nn.Parameter(torch.tensor(0.5))


class Probit(PackageBernoulli):
    """Another link, whose density nothing but ``cell`` states: the rest is the package's, of the logit."""

    def cell(self, score, confidence):
        return Bernoulli(torch.special.ndtr(score).clamp(1e-6, 1 - 1e-6))
