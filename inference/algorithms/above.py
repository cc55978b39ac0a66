r"""Sites above u and v in closed form: the best Normal q(h) given q(U) and q(V), read from the Pyro program.

With h all values of the sites above, in one vector, what the program says of them is

    f(h) = log p(h) + E_q[log p(U | h)] + E_q[log p(V | Z, h)].

Where f is quadratic, as of means that are Normal themselves, the best q(h) is N(m, P^-1) with P = -f'' anywhere and
m = h + P^-1 f'(h) from any h. Derivatives are automatic, so that a model states nothing but its story. P is diagonal
where no two numbers of h meet in one row (groups of users); otherwise it is made as a whole, up to
:data:`WHOLE_UP_TO` numbers. A story of which f is not quadratic is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pyro import poutine
from torch import Tensor

from models.base import FactorModel
from models.priors import Above
from models.story import MOST_ITEMS
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

WHOLE_UP_TO = 3000
"""Numbers of h up to which a precision that is not diagonal is made."""


@dataclass(frozen=True, eq=False)
class AboveNormal:
    """q(h) = N(loc, precision^-1) of the sites above, in one vector, and how to take it apart.

    Shapes: ``loc`` (n,); ``precision`` diagonal (n,) or whole (n, n); ``shapes`` those of the sites by name.
    """

    loc: Tensor
    precision: Tensor
    shapes: dict[str, torch.Size]

    @property
    def values(self) -> dict[str, Tensor]:
        """The means as values of the sites."""
        return unpacked(self.loc, self.shapes)

    @property
    def scales(self) -> dict[str, Tensor]:
        """Standard deviations of each number, by site."""
        whole = self.precision.dim() == 2
        variance = torch.linalg.inv(self.precision).diagonal() if whole else self.precision.reciprocal()
        return unpacked(variance.sqrt(), self.shapes)

    @property
    def log_det(self) -> float:
        """Log determinant of the covariance."""
        if self.precision.dim() == 2:
            return -float(torch.linalg.slogdet(self.precision.double())[1])
        return -float(self.precision.double().log().sum())

    def draw(self) -> dict[str, Tensor]:
        """A draw of the sites."""
        noise = torch.randn_like(self.loc)
        if self.precision.dim() == 2:
            tril = torch.linalg.cholesky(self.precision)
            away = torch.linalg.solve_triangular(tril.mT, noise[:, None], upper=True).squeeze(-1)
        else:
            away = noise * self.precision.rsqrt()
        return unpacked(self.loc + away, self.shapes)


def unpacked(vector: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The sites' values from one vector."""
    parts = vector.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def start_above(model: FactorModel) -> dict[str, Tensor]:
    """Values of the sites above at the means of their priors, or drawn where these have none; {} without sites."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        trace = poutine.trace(model.above).get_trace()
    found = {}
    for name in model.sites_above(trace):
        site = trace.nodes[name]
        mean = getattr(site["fn"], "mean", site["value"])
        found[name] = mean.expand(site["value"].shape).clone() if bool(mean.isfinite().all()) else site["value"]
    return found


def log_prior_above(model: FactorModel, above: Above) -> Tensor:
    """Log p(h) of the story in nats, ()."""
    trace = poutine.trace(poutine.condition(model.above, data=dict(above))).get_trace()
    sites = (trace.nodes[name] for name in above)
    return torch.stack([site["fn"].log_prob(site["value"]).sum() * site["scale"] for site in sites]).sum()


@torch.enable_grad()
def best_above(model: FactorModel, above: Above, u: Tensor, v: Tensor, m: Tensor) -> AboveNormal:
    """The best q(h) given means of q(U), q(V) and q(m), from any values ``above``, where f is quadratic.

    Shapes: ``u`` (n_users, width), ``v`` (n_items, width), ``m`` (n_items, n_factors). Whether f is quadratic,
    :func:`check_above` says.
    """
    shapes = {name: value.shape for name, value in above.items()}

    def log_density(vector: Tensor) -> Tensor:
        values = unpacked(vector, shapes)
        users, items = model.prior_of_users(values), model.prior_of_items(m, values)
        square = users.precision * (u - users.loc).square().sum() + items.precision * (v - items.loc).square().sum()
        return log_prior_above(model, values) - 0.5 * square

    start = torch.cat([value.detach().flatten() for value in above.values()])
    slope, times = _derivatives(log_density, start)
    precision = _precision(times, start)
    step = torch.linalg.solve(precision, slope) if precision.dim() == 2 else slope / precision
    return AboveNormal((start + step).detach(), precision.detach(), shapes)


def _derivatives(f: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The gradient, and minus the second derivative times a vector."""
    point = at.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(point), point, create_graph=True)

    def times(vector: Tensor) -> Tensor:
        if not slope.requires_grad:
            return torch.zeros_like(vector)
        (found,) = torch.autograd.grad(slope, point, vector, retain_graph=True)
        return -found

    return slope.detach(), times


def _precision(times: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Minus the second derivative: diagonal where two random vectors do not show otherwise, or whole."""
    diagonal = times(torch.ones_like(at))
    generator = torch.Generator().manual_seed(0)
    signs = [torch.randn(len(at), generator=generator, dtype=torch.float64).to(at) for _ in range(2)]
    if all(_near(times(sign), diagonal * sign) for sign in signs) and bool((diagonal > 0).all()):
        return diagonal
    if len(at) > WHOLE_UP_TO:
        problem = f"the sites above u and v have {counted(len(at), 'number')} that depend on one another"
        raise InputError(problem, "use inference.svi, which takes them as independent")
    return torch.stack([times(row) for row in torch.eye(len(at)).to(at)])


@torch.no_grad()
def check_above(model: FactorModel) -> None:
    """InputError unless log p(h) is quadratic and the means of u and v are linear in h, around and far from a start.

    Second differences are the same wherever they are taken, and those of the means are 0. All users are looked at, and
    all items up to ``MOST_ITEMS``, of more as many at even steps. Nothing is asked of a model without sites above.
    """
    above = start_above(model)
    if not above:
        return
    shapes = {name: value.shape for name, value in above.items()}
    best = torch.cat([value.flatten() for value in above.values()])
    generator = torch.Generator().manual_seed(1)
    some = torch.linspace(0, model.n_items - 1, min(MOST_ITEMS, model.n_items), dtype=torch.float64)
    some = some.round().long().to(best.device)
    m = torch.randn(len(some), model.n_factors, generator=generator, dtype=torch.float64).to(best)

    def said(vector: Tensor) -> list[Tensor]:
        values = unpacked(vector, shapes)
        means = model.prior_of_users(values).loc, model.prior_of_items(m, values, some).loc
        return [log_prior_above(model, values), *means]

    for size in (1.0, 5.0):
        noise = torch.randn(len(best), generator=generator, dtype=torch.float64).to(best)
        step = size * (1 + best.abs()) * noise
        here, there = ([said(best + at * step) for at in places] for places in ((-1, 0, 1), (2, 3, 4)))
        for low, middle, high, *others in zip(*here, *there, strict=True):
            second, other = low + high - 2 * middle, others[0] + others[2] - 2 * others[1]
            scale = 1e-30 + max(float(part.abs().max()) for part in (low, middle, high, *others))
            tolerance = scale * (1e-4 if best.dtype == torch.float32 else 1e-9)
            linear = low.dim() > 0 and max(float(second.abs().max()), float(other.abs().max())) > tolerance
            if linear or bool(((second - other).abs() > tolerance).any()):
                names = ", ".join(shapes)
                problem = (
                    f"the story says of {names} what is not Normal, and closed forms need Normal means above u and v"
                )
                raise InputError(problem, "use inference.svi")


def _near(one: Tensor, other: Tensor) -> bool:
    tolerance = 1e-3 if one.dtype == torch.float32 else 1e-8
    return bool(((one - other).abs() <= tolerance * (1e-30 + other.abs().max())).all())


def evidence_above(model: FactorModel, q: AboveNormal, is_point: bool) -> float:
    """What the sites above add to the objective in nats: of points log p(h), otherwise E_q[...] + entropy.

    The rest of E_q[log p(U | h)] is in KL(q(u) || p(u | m)); by the quadratic form what is left over of it and of
    E_q[log p(h)] at the mean is -n / 2, and the entropy is n / 2 (1 + log 2 pi) + log det / 2.
    """
    with torch.no_grad():
        value = float(log_prior_above(model, q.values).double())
    if is_point:
        return value
    return value + 0.5 * len(q.loc) * math.log(2 * math.pi) + 0.5 * q.log_det
