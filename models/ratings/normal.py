"""Explicit ratings, such as stars: Normal noise on the pairs that were rated, nothing said of the others."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.observations import RatingColumns
from models.ratings.base import GaussianSite
from models.ratings.confidence_normal import ConfidenceNormal, NormalColumns, expected_half_square
from models.ratings.moments import Moments, SweepScores
from pyro_cvae.errors import InputError


class Normal(ConfidenceNormal):
    """R_ij ~ N(s_ij, 1 / (tau C_ij)) on stored pairs alone (Salakhutdinov and Mnih, NIPS 2008).

    ``tau`` is the precision of the noise. Where it is not given, a fit starts it at what mean, biases and factors leave
    over of ratings that were kept aside. Where it is ``learned``, ``bayes`` learns it from there by maximising the ELBO
    (``map`` holds it: with points of u and v its maximum is the interpolation of the ratings).
    C_ij is the relative weight of a pair, 1 where it states none. Raises InputError for a ``tau`` that is no precision.
    """

    explicit: ClassVar[bool] = True
    standardised: ClassVar[bool] = True
    learns: ClassVar[str] = "noise"

    def __init__(self, tau: float = 1.0, learned: bool = True) -> None:
        super().__init__(1.0, 0.0)
        if not 0 < tau < math.inf:
            raise InputError(f"tau = {tau:g} is no precision", "use a number above 0")
        self.log_tau = nn.Parameter(torch.tensor(math.log(tau)), requires_grad=learned)

    @property
    def tau(self) -> Tensor:
        """The precision of the noise, ()."""
        return self.log_tau.exp()

    @property
    def noise_precision(self) -> float | None:
        """Tau. Of a subclass with another density nothing is known."""
        return float(self.tau.detach()) if self.keeps(Normal, "cell", "site", "tau") else None

    def cell(self, score: Tensor, confidence: Tensor) -> torch.distributions.Distribution:
        """A Normal of precision tau C_ij."""
        return super().cell(score, self.tau * confidence)

    def distribution(self, u: Tensor, v: Tensor, columns: RatingColumns) -> NormalColumns:
        """The columns' distribution."""
        return NormalColumns(u, v, columns, 0.0, self.tau)

    def expected_log_prob(self, moments: Moments, columns: RatingColumns) -> Tensor:
        """E[1/2 sum_i (log tau - tau C_ij (R_ij - s_ij)^2)] over stored pairs, (n_items,)."""
        log_tau = self.distribution(moments.u, moments.v, columns).log_tau(columns)
        return log_tau - self.tau * expected_half_square(moments, columns, 0.0)

    def site(self, columns: RatingColumns, second: Tensor | None = None) -> GaussianSite:
        """Precisions tau C_ij on stored pairs."""
        precision = self.tau.detach() * columns.confidences
        return GaussianSite(precision, precision * columns.ratings, 0.0)

    def units(self, columns: RatingColumns) -> tuple[float, float]:
        """``tau``, and 1: on the standard scale."""
        return float(self.tau.detach()), 1.0

    @torch.no_grad()
    def start_noise(self, precision: float) -> None:
        """Tau, unless it was given."""
        if "tau" not in self.made_with:
            self.log_tau.fill_(math.log(precision))

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Tau / factor^2."""
        self.log_tau.sub_(2 * math.log(factor))

    def hold(self) -> None:
        """Keep tau."""
        self.log_tau.requires_grad_(False)

    @torch.no_grad()
    def learn(self, mean_square: Tensor) -> None:
        """Tau at the maximum of the ELBO, where E[C (R - s)^2] is ``mean_square`` over the stored pairs."""
        if self.log_tau.requires_grad:
            self.log_tau.copy_(-mean_square.clamp(min=1e-12).log())

    @torch.no_grad()
    def after_sweep(self, columns: RatingColumns, scores: SweepScores) -> Tensor:
        """Tau, then E[log p(R | U, V)], both from the sweep's own sum of squares: no score of a cell is computed."""
        if not self.keeps(Normal, "learn", "site", "expected_log_prob", "constant", "tau"):
            return super().after_sweep(columns, scores)
        n_cells, tau = int(scores.total((columns.confidences > 0).sum())), self.tau.detach().double()
        stored = (self.site(columns).precision.double() * columns.ratings.double().square()).sum()
        square = scores.form + scores.total(stored)
        self.learn(square / tau / n_cells)
        square = square * (self.tau.detach().double() / tau)
        value = scores.total(self.constant(columns).sum()) + 0.5 * n_cells * self.log_tau.detach().double()
        return value - 0.5 * square
