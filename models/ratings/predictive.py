r"""New ratings before they are seen: density, distribution function and quantiles of r where the score is a Normal's.

    p(r) = E[p(r | s)],   P(R <= r) = E[P(R <= r | s)],   s ~ N(mean, variance),

both by the trapezoidal rule over s, which for Normal weights converges faster than any power of its step; the step is
halved, pair by pair, until the answer stands. Nothing but :meth:`~models.ratings.base.RatingLikelihood.cell` is asked.
Where cells are Normals whose mean is linear in s and whose standard deviation does not depend on it, so is p(r), and
nothing is approximated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from pyro.distributions import Normal as PyroNormal
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import Normal as TorchNormal

from models.ratings import cells

if TYPE_CHECKING:
    from models.ratings.base import RatingLikelihood

REACH = 12.0
"""Standard deviations of the score to either side that are looked at."""
TOLERANCE = 1e-10
HALVINGS = 6
FLOATS_AT_ONCE = 2**20


@dataclass(frozen=True, eq=False)
class Predictive:
    """Ratings whose scores are N(``mean``, ``variance``), given their confidences; all (n_pairs,), float64.

    A variance of 0 says that the score is known.
    """

    likelihood: RatingLikelihood
    mean: Tensor
    variance: Tensor
    confidence: Tensor

    def moved_to(self, mean: Tensor) -> Predictive:
        """The same with its mean at ``mean``, (n_pairs,), where it is Normal; any other one as it is."""
        return self

    @property
    def discrete(self) -> bool:
        """Whether ratings have masses, not densities."""
        return cells.is_discrete(self._cell(self.mean[:1], self.confidence[:1]))

    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log E[p(r | s)] in nats, (n_pairs,); -inf for a rating outside the support."""
        return self._average(ratings, cells.log_prob, logs=True)

    def cdf(self, ratings: Tensor) -> Tensor:
        """P(R <= r), (n_pairs,)."""
        return self._average(ratings, cells.cdf).clamp(0, 1)

    def cdf_below(self, ratings: Tensor) -> Tensor:
        """P(R < r), (n_pairs,): that of r but for discrete ratings."""
        above = self.cdf(ratings)
        return (above - self.log_prob(ratings).exp()).clamp(min=0) if self.discrete else above

    def pit(self, ratings: Tensor, seed: int = 0) -> Tensor:
        """Where ratings lie in what was predicted, (n_pairs,): uniform on (0, 1) where the predictions are right.

        P(R < r) + w P(R = r) with w uniform on (0, 1), drawn by ``seed``: discrete ratings are spread over their mass.
        Source: Czado, Gneiting and Held, Biometrics 2009, and Smith, Journal of Forecasting 1985.
        """
        above = self.cdf(ratings)
        if not self.discrete:
            return above
        drawn = torch.rand(above.shape, generator=torch.Generator().manual_seed(seed), dtype=above.dtype)
        return (above - (1 - drawn) * self.log_prob(ratings).exp()).clamp(0, 1)

    def holds(self, ratings: Tensor, levels: Sequence[float]) -> list[Tensor]:
        """For each level whether the ratings lie within its :meth:`interval`, bool (n_pairs,) each."""
        up_to, below = self.cdf(ratings), self.cdf_below(ratings)
        tails = [0.5 * (1 - level) for level in levels]
        return [(up_to >= tail - TOLERANCE) & (below < 1 - tail) for tail in tails]

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """The ends of the central interval of this probability, (n_pairs,) each; of discrete ratings of at least it."""
        return self.quantile(0.5 * (1 - level)), self.quantile(0.5 * (1 + level))

    def quantile(self, level: float) -> Tensor:
        """The least r with P(R <= r) >= ``level``, 0 < level < 1, (n_pairs,), by bisection of :meth:`cdf`.

        Of continuous ratings by Newton's steps, which bisection keeps within what is known.
        """
        with torch.no_grad():
            parts = [part._quantile(level) for part in self._parts()]
        return torch.cat(parts) if parts else self.mean.clone()

    # --- how --------------------------------------------------------------------------------------------------------

    def _cell(self, score: Tensor, confidence: Tensor) -> Distribution:
        with torch.no_grad():
            return self.likelihood.cell(score, confidence)

    def _some(self, at: Tensor | slice) -> Predictive:
        return type(self)(self.likelihood, self.mean[at], self.variance[at], self.confidence[at])

    def _parts(self) -> list[Predictive]:
        step = FLOATS_AT_ONCE // 128
        return [self._some(slice(start, start + step)) for start in range(0, len(self.mean), step)]

    def _average(self, ratings: Tensor, asked: Callable[[Distribution, Tensor], Tensor], logs: bool = False) -> Tensor:
        """E[asked(cell of s, r)] over s, or its log where ``asked`` gives logs, (n_pairs,)."""
        ratings = ratings.to(self.mean)
        step = FLOATS_AT_ONCE // 128
        starts = range(0, len(ratings), step)
        with torch.no_grad():
            parts = [
                self._some(slice(start, start + step))._halve(ratings[start : start + step], asked, logs)
                for start in starts
            ]
        return torch.cat(parts) if parts else ratings.new_zeros(0)

    def _halve(self, ratings: Tensor, asked: Callable[[Distribution, Tensor], Tensor], logs: bool) -> Tensor:
        known = self.variance == 0
        if bool(known.all()):
            return asked(self._cell(self.mean, self.confidence), ratings)

        def at(rows: Tensor, t: Tensor, weight: float) -> Tensor:
            """Log of, or the sum of weighted answers at nodes ``t``, (n_rows,)."""
            one = self._some(rows)
            score = one.mean + one.variance.sqrt() * t[:, None]
            answers = asked(
                self._cell(score, one.confidence.expand_as(score)), ratings[rows].expand_as(score).contiguous()
            )
            if not bool(answers.isfinite().all()):  # far from the mean a likelihood of one's own may overflow
                nothing = -math.inf if logs else 0.0
                answers = answers.nan_to_num(nan=nothing, posinf=nothing, neginf=-math.inf)
            log_weight = (-0.5 * t.square() - 0.5 * math.log(2 * math.pi) + math.log(weight))[:, None]
            return (answers + log_weight).logsumexp(0) if logs else (answers * log_weight.exp()).sum(0)

        rows, width = torch.arange(len(ratings)), 0.5
        t = torch.arange(-REACH, REACH + width / 2, width, dtype=self.mean.dtype)
        found = at(rows, t, width)
        for _ in range(HALVINGS):
            more = at(rows, t[:-1] + width / 2, width)
            if logs:
                better = torch.logaddexp(found[rows], more) - math.log(2)
            else:
                better = 0.5 * (found[rows] + more)
            moved = (better - found[rows]).nan_to_num(0.0).abs() > TOLERANCE
            found[rows] = better
            rows, width = rows[moved], width / 2
            if not len(rows):
                break
            t = torch.arange(-REACH, REACH + width / 2, width, dtype=self.mean.dtype)
        return found

    def _quantile(self, level: float) -> Tensor:
        if self.discrete:
            return self._discrete_quantile(level)
        mean, sd = self.likelihood.predict(self.mean, self.variance)
        sd = torch.where(sd.isfinite() & (sd > 0), sd, 1.0)
        ends = cells.bounds(self._cell(self.mean, self.confidence))
        low, high = (end.to(mean).expand_as(mean) for end in ends)
        mean = torch.where(mean.isfinite(), mean, self.mean).clamp(low, high)
        left, right = self._bracket(mean, sd, low, high, level)
        place, rows = 0.5 * (left + right), torch.arange(len(mean))
        for _ in range(200):
            here = self._some(rows)
            beyond = here.cdf(place[rows]) - level
            left[rows], right[rows] = (
                torch.where(beyond >= 0, left[rows], place[rows]),
                torch.where(beyond >= 0, place[rows], right[rows]),
            )
            step = beyond / here.log_prob(place[rows]).exp()
            newton, middle = place[rows] - step, 0.5 * (left[rows] + right[rows])
            good = (newton >= left[rows]) & (newton <= right[rows])
            place[rows] = torch.where(good, newton, middle)
            small = torch.minimum(torch.where(good, step.abs(), math.inf), right[rows] - left[rows])
            rows = rows[(small > 1e-9 * sd[rows]) & (beyond.abs() > 1e-12)]
            if not len(rows):
                break
        return place

    def _bracket(self, mean: Tensor, sd: Tensor, low: Tensor, high: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Ends between which the quantile lies, (n_pairs,) each."""
        ends = []
        for sign, end in ((-1, low), (1, high)):
            reach, place = sd.clone(), mean
            for _ in range(60):
                place = (mean + sign * reach).clamp(low, high)
                short = (self.cdf(place) >= level) if sign < 0 else (self.cdf(place) < level)
                short &= place != end
                if not bool(short.any()):
                    break
                reach = torch.where(short, 2 * reach, reach)
            ends.append(place)
        return ends[0], ends[1]

    def _discrete_quantile(self, level: float) -> Tensor:
        """By bisection over the values that ratings can have."""
        spread = self.variance.sqrt()
        ends = torch.cat([self.mean - REACH * spread, self.mean + REACH * spread])
        values = self._values(ends, level)
        left, right = torch.full(self.mean.shape, -1), torch.full(self.mean.shape, len(values) - 1)
        while bool((right - left > 1).any()):
            middle = (left + right) // 2
            enough = self.cdf(values[middle.clamp(min=0)]) >= level - TOLERANCE
            moving = right - left > 1
            right = torch.where(moving & enough, middle, right)
            left = torch.where(moving & ~enough, middle, left)
        return values[right]

    def _values(self, ends: Tensor, level: float) -> Tensor:
        """The values of the support, of counts without an end as many as the level needs, (n_values,)."""
        cell = self._cell(self.mean, self.confidence)
        low, high = cells.bounds(cell)
        if bool(high.isfinite().all()) or not bool(low.isfinite().all()):
            return cells.points(cell)
        most = float(low.min()) + 64
        while bool((self.cdf(torch.full_like(self.mean, most)) < level).any()) and most < cells.MOST_POINTS:
            most *= 2
        return cells.points(cell, most)


@dataclass(frozen=True, eq=False)
class NormalPredictive(Predictive):
    """The closed form where cells are N(alpha + beta s, scale^2): N(alpha + beta mean, scale^2 + beta^2 variance)."""

    loc: Tensor
    scale: Tensor

    @property
    def _normal(self) -> TorchNormal:
        return TorchNormal(self.loc, self.scale, validate_args=False)

    def moved_to(self, mean: Tensor) -> NormalPredictive:
        """The same with its mean at ``mean``, (n_pairs,)."""
        return replace(self, loc=mean)

    @property
    def discrete(self) -> bool:
        """No."""
        return False

    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log N(r; loc, scale^2)."""
        return self._normal.log_prob(ratings.to(self.loc))

    def cdf(self, ratings: Tensor) -> Tensor:
        """P(R <= r)."""
        return self._normal.cdf(ratings.to(self.loc))

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """The ends of the central interval of this probability, (n_pairs,) each."""
        half = normal_half_width(level) * self.scale
        return self.loc - half, self.loc + half

    def quantile(self, level: float) -> Tensor:
        """The least r with P(R <= r) >= ``level``."""
        return self._normal.icdf(torch.full_like(self.loc, level))


def normal_half_width(level: float) -> float:
    """Half the central interval of N(0, 1) of this probability, by its lower tail, whose size does not round to 1."""
    return -float(torch.special.ndtri(torch.tensor(0.5 * (1 - level), dtype=torch.float64)))


def predictive(
    likelihood: RatingLikelihood, mean: Tensor, variance: Tensor, confidence: Tensor | None = None
) -> Predictive:
    """The predictive distribution of ratings whose scores are N(mean, variance); confidences default to the usual one.

    Shapes: ``mean``, ``variance`` and ``confidence`` broadcast against each other and are made flat, (n_pairs,).
    """
    given = mean.new_full((), likelihood.default_confidence) if confidence is None else confidence
    mean, variance, given = (
        part.detach().double().flatten() for part in torch.broadcast_tensors(mean, variance, given)
    )
    general = Predictive(likelihood, mean, variance, given)
    with torch.no_grad():
        shifts = (0.0, 1.0, -1.3, 0.71)
        some = [likelihood.cell(mean + shift, given) for shift in shifts] if len(mean) else []
        if not some or any(type(cell) not in (TorchNormal, PyroNormal) for cell in some):
            return general
        locs = [cell.loc.double().expand_as(mean) for cell in some]  # type: ignore[attr-defined]
        scales = [cell.scale.double().expand_as(mean) for cell in some]  # type: ignore[attr-defined]
        slope = locs[1] - locs[0]
        linear = (
            torch.allclose(locs[0] + slope * shift, loc, rtol=1e-9) for shift, loc in zip(shifts, locs, strict=True)
        )
        if not (all(linear) and all(torch.allclose(scales[0], scale, rtol=1e-9) for scale in scales)):
            return general
        scale = (scales[0].square() + slope.square() * variance).sqrt()
    return NormalPredictive(likelihood, mean, variance, given, locs[0], scale)
