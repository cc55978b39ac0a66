"""The contract of a ratings likelihood p(R | U, V): what a cell says of its score, over whole columns of the matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution

from models.gaussians import Gaussians
from models.making import Remembered
from models.observations import RatingColumns
from models.ratings.cells import bounds, inside, moments
from models.ratings.columns import CellColumns
from models.ratings.moments import Moments, SweepScores
from models.ratings.predictive import Predictive, predictive
from pyro_cvae.errors import InputError

N_NODES = 32
"""Nodes of the quadrature over a score."""


@dataclass(frozen=True, eq=False)
class GaussianSite:
    """A factor exp(t_ij s_ij - 1/2 c_ij s_ij^2) of every cell, s_ij its score, as sparse as the columns.

    Shapes: ``precision`` c and ``shift`` t of the stored cells (n_stored,); ``zero_precision`` that of all other cells,
    one number or (n_users,), times ``zero_weights`` (n_items,) where these are given, and ``zero_shift`` theirs, which
    is 0 where there are weights (else ValueError).
    """

    precision: Tensor
    shift: Tensor
    zero_precision: float | Tensor
    zero_shift: float = 0.0
    zero_weights: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("zero_precision", "zero_shift"):
            if isinstance(one := getattr(self, name), Tensor) and not one.dim():
                object.__setattr__(self, name, float(one))
        if self.zero_weights is not None and self.zero_shift:
            raise ValueError("zeros that items weigh have no linear part")

    def zeros_at(self, columns: RatingColumns) -> float | Tensor:
        """The precision that these stored cells would have as zeros: a number, or one for each."""
        zero, weights = self.zero_precision, self.zero_weights
        zero = zero[columns.users] if isinstance(zero, Tensor) else zero
        return zero if weights is None else zero * weights[columns.items].to(self.precision)

    def is_like(self, other: GaussianSite) -> bool:
        """Whether all cells have the same factors there."""
        parts = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(own is its or torch.as_tensor(own).equal(torch.as_tensor(its)) for own, its in parts)


class RatingLikelihood(Remembered, nn.Module, ABC):
    """p(R_ij | s_ij) of a cell given its score s_ij = u_i.v_j, with the biases where there are any.

    Subclasses state :meth:`cell`, and :meth:`expected_log_prob` where the expectation under Normals is known.
    ``zeros`` says that a cell that is not stored is a rating of 0, else it is missing; a stored confidence 0 always
    says missing. ``explicit`` marks likelihoods of ratings as people give them, which are predicted as numbers, not
    ranked alone. ``standardised`` says that they may be fitted on a standard scale, R = location + scale R', since
    the likelihood is of that form; then :meth:`rescale` exists. ``conjugate`` says that it is Gaussian in u and v, or
    has a Gaussian bound: then :meth:`site` exists, which the structured guide and the closed forms ask for; ``exact``
    is false for a bound. ``learns`` is what
    :meth:`learn` is given after a closed-form sweep, "noise" or "bound", if anything. ``subsample`` > 0 is the
    number of users whose zeros are looked at in a training step, 0 takes all. What is learned is an ``nn.Parameter``,
    another tensor that is not made from the constructor's arguments alone a buffer (``register_buffer``).
    ``weighs_zeros`` says that the confidence of all zeros may be another one than was given (:meth:`weigh_zeros`).
    ``weight_unit`` is the weight of a pair that stands for ``default_confidence``; ``None``: weights are confidences.
    """

    conjugate: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    explicit: ClassVar[bool] = False
    standardised: ClassVar[bool] = False
    learns: ClassVar[str] = ""
    weighs_zeros: ClassVar[bool] = False
    zeros: bool = True
    subsample: int = 0
    weight_unit: float | None = None

    @abstractmethod
    def cell(self, score: Tensor, confidence: Tensor) -> Distribution:
        """p(R_ij | s_ij) of single cells: batch shape that of ``score``, and of ``confidence``, their C_ij."""

    @property
    def background(self) -> float:
        """Confidence of the cells that are not stored."""
        return 1.0

    @property
    def b_power(self) -> float | None:
        """Power of an item's number of ratings that the background goes with (:meth:`zero_weights`), if with any."""
        return None

    @property
    def default_confidence(self) -> float:
        """Confidence of a stored cell that states none."""
        return 1.0

    def weigh_zeros(self, b: float, b_power: float | None = None) -> None:
        """Another confidence of the cells that are not stored, in place; a fit may find it, and how it goes with n."""
        raise NotImplementedError(f"{type(self).__name__} has no other weight of zeros")

    def zero_weights(self, counts: Tensor) -> Tensor | None:
        """Factors of the background's confidence by item, (n_items,), from numbers of ratings; ``None``: all 1.

        It is asked where there is a :attr:`b_power` that is not 0.
        """
        return None

    def weighed(self, columns: RatingColumns) -> RatingColumns:
        """All columns of a fit, their zeros with the weights of :meth:`zero_weights`."""
        if not self.b_power:
            return replace(columns, zero_weights=None)
        there = columns.items[columns.confidences > 0]
        weights = self.zero_weights(torch.bincount(there, minlength=len(columns)))
        return replace(columns, zero_weights=None if weights is None else weights.to(columns.ratings))

    def distribution(self, u: Tensor, v: Tensor, columns: RatingColumns) -> TorchDistribution:
        """The distribution of the columns, batch shape (n_items,), event shape (n_users,).

        Shapes: ``u`` (n_users, width), ``v`` (n_items, width). Of ``columns`` only the pattern of stored cells and
        their confidences may be used: they are given, not drawn.
        """
        return CellColumns(self, u, v, columns)

    def log_prob(self, score: Tensor, ratings: Tensor, confidence: Tensor) -> Tensor:
        """Log p(R_ij | s_ij) of single cells in nats."""
        return self.cell(score, confidence).log_prob(ratings)

    def expected_log_prob(self, moments: Moments, columns: RatingColumns) -> Tensor | None:
        """E_q[log p(R_j | U, v_j)] in nats without :meth:`constant`, (n_items,), or a lower bound of it; ``None``:
        there is no closed form, and draws of u and v take its place."""
        return None

    def constant(self, columns: RatingColumns) -> Tensor:
        """The part of log p(R_j | U, v_j) that depends on nothing that is fitted, in nats and float64, (n_items,)."""
        return torch.zeros(len(columns), dtype=torch.float64)

    def site(self, columns: RatingColumns, second: Tensor | None = None) -> GaussianSite:
        """The Gaussian factors of the cells; ``second`` is E_q[s^2] of the stored ones, (n_stored,), for bounds."""
        raise NotImplementedError(f"{type(self).__name__} has no Gaussian site")

    def learn(self, mean_square: Tensor) -> None:
        """Own parameters at their best given q, after a closed-form sweep.

        ``mean_square`` is E[C (R - s)^2] over the stored cells (), for "noise", or E[s^2] over each user's zeros
        (n_users,), for "bound".
        """

    @property
    def idle_parameters(self) -> list[str]:
        """Names of what is to be learned and no closed-form sweep learns."""
        cls, base = type(self), RatingLikelihood
        if (self.learns and cls.learn is not base.learn) or cls.after_sweep is not base.after_sweep:
            return []
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def after_sweep(self, columns: RatingColumns, scores: SweepScores) -> Tensor:
        """Bring own parameters to their best given q (:meth:`learn`); then E_q[log p(R | U, V)] in nats, or the bound.

        The value is :meth:`expected_log_prob` and :meth:`constant` of all columns, in float64, (). Of a likelihood that
        learns nothing and is exact it is the sweep's own sum of squares and the value at scores of 0, which costs
        nothing. Override it where something else does; what is summed over columns then goes through ``scores.total``,
        for fits by several workers.
        """
        if not self.learns and self.exact:
            return scores.total(self.at_zero(columns)) - 0.5 * scores.form
        if self.learns == "noise":
            mean, second = scores.stored
            there = columns.confidences > 0
            square = columns.ratings.square() - 2 * columns.ratings * mean + second
            weighted = (columns.confidences * square)[there].double()
            self.learn((scores.total(weighted.sum()) / scores.total(there.sum())).to(mean))
        elif self.learns:
            _, second, count = scores.zeros
            self.learn(second / count.clamp(min=1))
        expected = self.expected_log_prob(scores.moments, columns)
        if expected is None:
            raise NotImplementedError(f"{type(self).__name__} is conjugate without expected_log_prob")
        return scores.total(expected.detach().double().sum() + self.constant(columns).sum())

    @torch.no_grad()
    def at_zero(self, columns: RatingColumns) -> Tensor:
        """Log p(R | U, V) of all columns where every score is 0, in nats and float64, ()."""
        wide = columns.to(dtype=torch.float64)
        nothing = [
            torch.zeros(n, 1, dtype=torch.float64, device=wide.ratings.device) for n in (wide.n_users, len(wide))
        ]
        expected = self.expected_log_prob(Moments(*map(Gaussians, nothing)), wide)
        if expected is None:
            raise NotImplementedError(f"{type(self).__name__} is conjugate without expected_log_prob")
        return expected.double().sum() + self.constant(columns).sum()

    def keeps(self, cls: type[RatingLikelihood], *names: str) -> bool:
        """Whether a subclass of ``cls`` has left these methods as they are there, so that a short cut of it holds."""
        return all(getattr(type(self), name) is getattr(cls, name) for name in names)

    @classmethod
    def borrowed(cls) -> list[str]:
        """Names of methods that a class with a cell of its own has from one of another cell, whose density they are."""
        mro, names = list(cls.__mro__), ("distribution", "log_prob", "expected_log_prob", "site")
        place = {name: next(at for at, one in enumerate(mro) if name in vars(one)) for name in ("cell", *names)}
        own = mro.index(RatingLikelihood)
        return [name for name in names if place["cell"] < place[name] < own]

    def check(self, columns: RatingColumns) -> None:
        """Raise InputError if a rating is outside the support; by default that of :meth:`cell`, where it is always one.

        A support that moves with the score, or that is not stated, lets any rating in.
        """
        there = columns.confidences > 0
        ratings, confidence = columns.ratings[there], columns.confidences[there]
        with torch.no_grad():
            at = [self.cell(torch.full_like(ratings, score), confidence) for score in (0.0, 0.7, -1.3)]
            good = there.clone()
            try:
                good[there] = torch.stack([inside(cell, ratings) for cell in at]).all(0)
                ends = [torch.stack(torch.broadcast_tensors(*bounds(cell))) for cell in at]
            except NotImplementedError:
                return
        if all(torch.equal(ends[0], other) for other in ends[1:]):
            name = type(self).__name__
            stored_support(
                columns, good, name, "what its cell can draw", "use another --rating-likelihood or --ratings"
            )

    def initial_mean(self, columns: RatingColumns) -> float:
        """The score at which the likelihood's mean is that of the ratings: where the items' biases start."""
        return 0.0

    def units(self, columns: RatingColumns) -> tuple[float, float]:
        """Precision of a stored rating and mean square of the ratings, in units of which relative precisions are."""
        return 1.0, 1.0

    @property
    def noise_precision(self) -> float | None:
        """What confidences are multiplied by to be the precisions of Normal ratings; ``None`` of other likelihoods."""
        return None

    def start_noise(self, precision: float) -> None:
        """Begin at this precision of the noise, if the likelihood has one that was not given."""

    def rescale(self, factor: float) -> None:
        """Own parameters for ratings and scores that are ``factor`` times as large."""
        raise NotImplementedError(f"{type(self).__name__} is of no scale family")

    def predict(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of new ratings whose scores are N(mean, variance), of the same shape.

        E[R] = E[E[R|s]] and var(R) = E[var(R|s)] + var(E[R|s]), by Gauss-Hermite quadrature over s; confidences are
        the default.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
        score = mean[..., None] + variance.sqrt()[..., None] * torch.as_tensor(nodes).to(mean)
        weight = torch.as_tensor(weights / weights.sum()).to(mean)
        given = moments(self.cell(score, torch.full_like(score, self.default_confidence)))
        own_mean, own_variance = (part.to(mean) for part in given)
        expected = (weight * own_mean).sum(-1)
        away = (own_mean - expected[..., None]).square()
        return expected, (weight * (own_variance + away)).sum(-1).sqrt()

    def predictive(self, mean: Tensor, variance: Tensor, confidence: Tensor | None = None) -> Predictive:
        """New ratings whose scores are N(mean, variance), given their confidences, by default the usual one.

        It answers ``log_prob``, ``cdf``, ``pit``, ``quantile`` and ``interval``, from :meth:`cell` alone; see
        :mod:`models.ratings.predictive`. Shapes are made flat, (n_pairs,).
        """
        return predictive(self, mean, variance, confidence)

    def prepare(self, n_users: int) -> None:
        """Make what needs the number of users; called once, before anything is fitted."""

    def hold(self) -> None:
        """Stop learning what points of u and v, ``map``, say nothing of."""

    def refuse(self, what: str) -> InputError:
        """The error of an algorithm that needs a Gaussian site."""
        return InputError(f"{type(self).__name__} has no closed form, which {what} needs", "use inference.svi")


def mean_rating(likelihood: RatingLikelihood, columns: RatingColumns) -> float:
    """Mean rating over all cells that are there, the zeros among them where the likelihood has any, weighted by C."""
    weight = columns.confidences.double()
    total, count = (weight * columns.ratings.double()).sum(), weight.sum()
    if likelihood.zeros:
        n_zeros = (columns.n_users - columns.indptr.diff()) * columns.observed
        count = count + (columns.zeros(likelihood.background) * n_zeros).sum()
    return float(total / count.clamp(min=1e-12))


def stored_support(columns: RatingColumns, good: Tensor, name: str, must: str, remedy: str) -> None:
    """Raise InputError unless all ratings that are there are ``good``, bool (n_stored,)."""
    bad = ~good & (columns.confidences > 0)
    if bool(bad.any()):
        value = float(columns.ratings[bad][0])
        raise InputError(f"{name} ratings must be {must}, but there is a {value:g}", remedy)
