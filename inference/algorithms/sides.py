"""The closed-form half-steps over a model: biases, and sites whose zeros differ by user, put into plain half-steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from inference.algorithms.cells import Cells
from inference.algorithms.half_steps import Background, HalfStep, Offset, half_step
from models.base import FactorModel
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.priors import NOTHING, Above, NormalPrior
from models.ratings import GaussianSite, SweepScores

FLOATS_AT_ONCE = 2**24
SILENT = 1e-3
"""Mean square of content means, in units of the prior's variance around them, below which they say nothing."""
MOST_ITEMS = 4096
"""Items about which are asked in which directions contents vary."""


def update_users(
    model: FactorModel,
    site: GaussianSite,
    cells: Cells,
    items: Gaussians,
    observed: Tensor,
    family: str,
    above: Above = NOTHING,
    prior: NormalPrior | None = None,
) -> HalfStep:
    """q(U) given q(V); ``observed`` (n_items,) are the items that have a column. Widths are those of the model.

    The ``prior`` of u is the model's given the sites ``above`` where it is not told.
    """
    rows, offset = design(items, model.kappa_u, model.kappa_v) if model.mean is not None else (items, None)
    prior = model.prior_of_users(above) if prior is None else prior
    background = background_of(site, True, offset)
    return half_step(cells, rows, observed, background, prior.precision, prior.rows(len(cells)), family=family)


def update_items(
    model: FactorModel,
    site: GaussianSite,
    cells: Cells,
    users: Gaussians,
    observed: Tensor,
    prior: NormalPrior,
    spread: Tensor | None,
    family: str,
) -> HalfStep:
    """q(V) given q(U) and the ``prior`` of v, and variances ``spread`` of its mean where q(v|z) is structured.

    Shapes: ``observed`` (n_users,); ``spread`` (n_items, n_factors).
    """
    rows, offset = design(users, model.kappa_v, model.kappa_u) if model.mean is not None else (users, None)
    background = background_of(site, False, offset)
    if spread is not None:
        spread = torch.nn.functional.pad(spread, (0, model.width - model.n_factors))
    return half_step(cells, rows, observed, background, prior.precision, prior.loc, spread, family)


def background_of(site: GaussianSite, of_users: bool, offset: Offset | None = None) -> Background:
    """What a site says of the zeros of rows that are users, or items; its precisions may differ by user and by item."""
    zero = site.zero_precision
    by_user, b = (zero, 1.0) if isinstance(zero, Tensor) else (None, zero)
    by_item = None if site.zero_weights is None else site.zero_weights.to(site.precision)
    by_row, by_other = (by_user, by_item) if of_users else (by_item, by_user)
    return Background(b, by_row, by_other, site.zero_shift, offset)


def start_of_items(model: FactorModel, prior: NormalPrior) -> Gaussians:
    """Points at which sweeps begin: the prior means, and draws around them in directions of which these say nothing.

    Half-steps never leave the span of the rows that they begin at. From v = 0 they would stay there, and from contents
    of few directions, as a handful of genres, ratings could use no other. Where contents speak of all nothing is drawn.
    """
    loc, n = prior.loc.clone(), model.n_factors
    silent = silent_directions(loc[:, :n], prior.precision) if model.item_prior.knows_content else None
    if silent is None or silent.shape[1]:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(loc.shape, generator=generator, dtype=torch.float64).to(loc)[:, :n]
        loc[:, :n] += prior.precision**-0.5 * (noise if silent is None else noise @ silent @ silent.mT)
    return Gaussians(loc)


def silent_directions(means: Tensor, precision: float) -> Tensor:
    """Orthonormal directions, (n_factors, n_silent), in which content means (n_items, n_factors) are all but 0.

    Their mean square is there below :data:`SILENT` prior variances of v around it. Of many items some are looked at.
    """
    step = max(1, len(means) // MOST_ITEMS)
    some = means[::step].double()
    square, directions = torch.linalg.eigh(some.mT @ some / max(1, len(some)))
    return directions[:, square < SILENT / precision].to(means)


def design(rows: Gaussians, constant: float, kappa: float) -> tuple[Gaussians, Offset]:
    """What the other side's rows are multiplied by, and what these rows add to scores by themselves.

    Rows (w, bias / kappa) become (w, ``constant``), which the other side's (w', bias' / constant) meets, and an offset.
    ``rows`` are of a model with biases; ``constant`` is its kappa of the other side, ``kappa`` that of this one.
    """
    mean = kappa * rows.loc[:, -1]
    design = rows.mapped(partial(_with_last, value=constant), partial(_with_last, value=0.0))
    if rows.is_point:
        return design, Offset(mean, mean.square())
    if rows.variance is not None:
        return design, Offset(mean, mean.square() + kappa**2 * rows.variance[:, -1])
    assert rows.covariance is not None and rows.block is not None
    own = rows.covariance[:, -1][rows.block]
    if rows.spread is not None:
        through = rows.slope**2 * rows.spread * own
        parts = torch.arange(len(rows)).split(max(1, FLOATS_AT_ONCE // rows.loc.shape[1] ** 2))
        own = own + torch.cat([(rows.given(part) @ through[part, :, None]).squeeze(-1) for part in parts])
    return design, Offset(mean, mean.square() + kappa**2 * own[:, -1], kappa * _with_last(own, 0.0))


def _with_last(rows: Tensor, value: float) -> Tensor:
    """A copy whose last coordinate is ``value``, in each dimension but the first."""
    rows = rows.clone()
    for dim in range(1, rows.dim()):
        rows.select(dim, -1).fill_(value)
    return rows


def scores_of(
    model: FactorModel,
    users: Gaussians,
    items: Gaussians,
    columns: RatingColumns,
    form: float = 0.0,
    total: Callable[[Tensor], Tensor] = lambda value: value,
) -> SweepScores:
    """What a likelihood of ratings may ask of the scores under q(U) q(V), the rest as in :class:`SweepScores`."""
    return SweepScores(form, columns, lambda: (model.in_scores("u", users), model.in_scores("v", items)), total)
