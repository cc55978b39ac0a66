"""What can be asked of the distribution of one rating, whatever it states: support, moments, distribution function.

torch's distributions leave out much: Student's t and Beta have no ``cdf``, a categorical no mean. What is missing
is computed here, of discrete ones by sums over their support, of continuous ones by quadrature of their density.
Everything is in float64 and without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution, constraints

from pyro_cvae.errors import InputError
from pyro_cvae.turns import in_turn

MOST_POINTS = 2**16
"""Values of a support of counts that are looked at."""
LATTICE = np.arange(-2000, 8001) / 20
"""Where the values of a discrete support that states neither ends nor values are looked for: -100 to 400, by 0.05."""
STEP = 0.055
"""Of the double exponential quadrature, in its own variable, which runs from -3.4 to 3.4."""


def _scipy(function: Callable[..., Any], *names: str) -> Callable[[Any, Tensor], Tensor]:
    def cdf(cell: Any, value: Tensor) -> Tensor:
        given = (getattr(cell, name).detach().double().cpu().numpy() for name in names)
        return torch.as_tensor(function(value.cpu().numpy(), *given))

    return cdf


KNOWN: tuple[tuple[type[Distribution], Callable[[Any, Tensor], Tensor]], ...] = (
    (td.StudentT, _scipy(lambda x, df, loc, scale: special.stdtr(df, (x - loc) / scale), "df", "loc", "scale")),
    (td.Beta, _scipy(lambda x, a, b: special.betainc(a, b, np.clip(x, 0, 1)), "concentration1", "concentration0")),
    (td.Poisson, _scipy(lambda x, rate: np.where(x < 0, 0.0, special.pdtr(np.floor(np.maximum(x, 0)), rate)), "rate")),
)
"""Distribution functions that scipy has and torch has not."""


def support_of(cell: Distribution) -> Any:
    """The constraint that its values fulfil, without what says that some dimensions are one event."""
    support: Any = cell.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def is_discrete(cell: Distribution) -> bool:
    """Whether its values have masses, not densities."""
    if isinstance(cell, td.TransformedDistribution):
        return is_discrete(cell.base_dist)
    return bool(support_of(cell).is_discrete)


def bounds(cell: Distribution) -> tuple[Tensor, Tensor]:
    """The ends of its support, -inf and inf where it has none, each () or of its batch shape."""
    if isinstance(cell, td.TransformedDistribution):
        ends = bounds(cell.base_dist)
        for transform in cell.transforms:
            ends = tuple(transform(end) for end in ends)
        low, high = torch.broadcast_tensors(*ends)
        return torch.minimum(low, high), torch.maximum(low, high)
    support, found = support_of(cell), []
    if support is constraints.boolean:
        return torch.tensor(0.0), torch.tensor(1.0)
    for name, none in (("lower_bound", -math.inf), ("upper_bound", math.inf)):
        found.append(torch.as_tensor(getattr(support, name, none)).detach().double().cpu())
    return found[0], found[1]


def inside(cell: Distribution, value: Tensor) -> Tensor:
    """Which values it can have, bool of the shape of ``value``."""
    low, high = bounds(cell)
    found = (value >= low) & (value <= high)
    if not isinstance(cell, td.TransformedDistribution):
        found = found & support_of(cell).check(value)
    return found


def log_prob(cell: Distribution, value: Tensor) -> Tensor:
    """Log density or mass in nats; -inf for what it cannot have, where torch would raise."""
    there = inside(cell, value).expand(torch.broadcast_shapes(value.shape, cell.batch_shape))
    if bool(there.all()):
        return cell.log_prob(value).double()
    some = value.expand_as(there)[there]
    safe = torch.where(there, value, some[0] if len(some) else _middle(cell, value))
    return torch.where(there, cell.log_prob(safe).double(), -math.inf)


def _middle(cell: Distribution, like: Tensor) -> Tensor:
    with in_turn(), torch.random.fork_rng(devices=()):
        return cell.sample().to(like)


def points(cell: Distribution, up_to: float = math.inf) -> Tensor:
    """The values of a discrete distribution, ascending, (n_points,).

    Of counts without an end those up to ``up_to``, or that have all but 1e-12 of the mass. Raises InputError, naming
    the distribution, where the values cannot be found.
    """
    support = support_of(cell)
    low, high = (float(end.min() if at == 0 else end.max()) for at, end in enumerate(bounds(cell)))
    if cell.has_enumerate_support:
        return cell.enumerate_support(expand=False).double().flatten().unique()
    whole = isinstance(support, type(constraints.integer_interval(0, 1)))
    whole |= isinstance(support, (type(constraints.nonnegative_integer), type(constraints.boolean)))
    if whole and math.isfinite(low):
        end, most = min(high, up_to), low + MOST_POINTS
        if math.isfinite(end):
            return torch.arange(low, min(end, most) + 1, dtype=torch.float64)
        n = 64
        while n < MOST_POINTS:
            values = torch.arange(low, low + n, dtype=torch.float64)
            if bool((_masses(cell, values).sum(0) > 1 - 1e-12).all()):
                break
            n *= 2
        return values
    values = torch.as_tensor(LATTICE)
    values = values[support.check(values)]
    if len(values) and bool(((_masses(cell, values).sum(0) - 1).abs() < 1e-6).all()):
        return values
    problem = f"the values of the discrete distribution {type(cell).__name__} are not known"
    raise InputError(problem, "give it a support of constraints.integer_interval, or enumerate_support")


def _masses(cell: Distribution, values: Tensor) -> Tensor:
    """P of each value, (n_values, *batch)."""
    return log_prob(cell, values.view(-1, *(1 for _ in cell.batch_shape))).exp()


def cdf(cell: Distribution, value: Tensor) -> Tensor:
    """P(R <= value): its own ``cdf``, that of scipy, or a sum over its values, or an integral of its density.

    Shapes: ``value`` and the result that of the cells.
    """
    low, high = bounds(cell)
    outside = (value < low, value > high)
    if bool((outside[0] | outside[1]).any()):
        kept = torch.minimum(torch.maximum(value, low), high)
        found = torch.where(outside[1], 1.0, cdf(cell, kept))
        return torch.where(outside[0], 0.0, found)
    if is_discrete(cell):
        for known, function in KNOWN:
            if isinstance(cell, known):
                return function(cell, value)
        values = points(cell, float(value.max()))
        masses = _masses(cell, values)
        return (masses * (values.view(-1, *(1 for _ in cell.batch_shape)) <= value + 1e-9)).sum(0)
    try:
        return cell.cdf(value).double()
    except NotImplementedError:
        pass
    for known, function in KNOWN:
        if isinstance(cell, known):
            return function(cell, value)
    if isinstance(cell, td.TransformedDistribution):
        sign, kept = 1, value
        for transform in reversed(cell.transforms):
            kept, sign = transform.inv(kept), sign * transform.sign
        below = cdf(cell.base_dist, kept.expand(cell.batch_shape))
        return torch.where(torch.as_tensor(sign) > 0, below, 1 - below)
    return integrated(cell, value)


def integrated(cell: Distribution, value: Tensor) -> Tensor:
    """P(R <= value) by double exponential quadrature of the density over the side of ``value`` without the centre."""
    low, high = bounds(cell)
    centre, spread = _where(cell)
    upper = value > centre
    t = torch.arange(-3.4, 3.4, STEP, dtype=torch.float64).view(-1, *(1 for _ in value.shape))
    inner, slope = 0.5 * math.pi * t.sinh(), 0.5 * math.pi * t.cosh()
    end = torch.where(upper, high, low).expand_as(value)
    bounded = end.isfinite()
    half = torch.where(bounded, 0.5 * (end - value).abs(), 1.0)
    # from the value to a finite end by tanh, away from it for ever by exp
    along = torch.where(bounded, half * (1 + inner.tanh()), spread * inner.exp())
    weight = torch.where(bounded, half * slope / inner.cosh().square(), spread * slope * inner.exp()) * STEP
    x = torch.where(upper, value + along, value - along)
    tail = (_density(cell, x) * weight).nan_to_num(0.0).sum(0)
    return torch.where(upper, 1 - tail, tail).clamp(0, 1)


def _where(cell: Distribution) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, where it has none median and half the width of the middle half of 101 draws."""
    try:
        centre, spread = cell.mean.double(), cell.stddev.double()
        if bool(centre.isfinite().all() and spread.isfinite().all() and (spread > 0).all()):
            return centre, spread
    except NotImplementedError:
        pass
    with in_turn(), torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        drawn = cell.sample((101,)).double().sort(0).values
    return drawn[50], (0.5 * (drawn[75] - drawn[25])).clamp(min=1e-12)


def moments(cell: Distribution) -> tuple[Tensor, Tensor]:
    """Mean and variance, computed from masses or density where it states none."""
    try:
        mean, variance = cell.mean.double(), cell.variance.double()
        if not bool(mean.isnan().any() or variance.isnan().any()):
            return mean, variance
    except NotImplementedError:
        pass
    if is_discrete(cell):
        values = points(cell)
        masses, x = _masses(cell, values), values.view(-1, *(1 for _ in cell.batch_shape))
    else:
        x, masses = nodes(cell)
    mean = (masses * x).sum(0)
    return mean, (masses * (x - mean).square()).sum(0)


def nodes(cell: Distribution) -> tuple[Tensor, Tensor]:
    """Values of a continuous distribution and the mass that each stands for, (n_nodes, *batch) each."""
    low, high = (end.expand(cell.batch_shape) for end in bounds(cell))
    centre, spread = _where(cell)
    t = torch.arange(-3.4, 3.4, STEP / 2, dtype=torch.float64).view(-1, *(1 for _ in cell.batch_shape))
    inner, slope = 0.5 * math.pi * t.sinh(), 0.5 * math.pi * t.cosh()
    if bool(low.isfinite().all() and high.isfinite().all()):
        x = 0.5 * (low + high) + 0.5 * (high - low) * inner.tanh()
        weight = 0.5 * (high - low) * slope / inner.cosh().square()
    elif bool(low.isfinite().all() or high.isfinite().all()):
        away = spread * inner.exp()
        x = low + away if bool(low.isfinite().all()) else high - away
        weight = away * slope
    else:
        x, weight = line(torch.as_tensor(getattr(cell, "loc", centre)).detach().double(), spread, STEP / 2)
        weight = weight / (STEP / 2)
    return x, (_density(cell, x) * weight).nan_to_num(0.0) * (STEP / 2)


def line(centre: Tensor, spread: Tensor, step: float = STEP) -> tuple[Tensor, Tensor]:
    """Values of the whole line and their weights in an integral over it, (n_nodes, *batch) each.

    Each side of ``centre`` is by itself, since a density may have a kink there, as Laplace's.
    """
    t = torch.arange(-3.4, 3.4, step, dtype=torch.float64).view(-1, *(1 for _ in spread.shape))
    away = spread * (0.5 * math.pi * t.sinh()).exp()
    weight = step * away * (0.5 * math.pi * t.cosh())
    return torch.cat([centre - away.flip(0), centre + away]), torch.cat([weight.flip(0), weight])


def _density(cell: Distribution, x: Tensor) -> Tensor:
    """The density, 0 at an end of the support where it is infinite: a node there stands for nothing."""
    density = log_prob(cell, x).exp()
    return torch.where(density.isfinite(), density, 0.0)
