"""The closed-form half-steps over a model: biases, and sites whose zeros differ by user, put into plain half-steps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from inference.algorithms.half_steps import Background, Cells, HalfStep, Offset, half_step
from inference.algorithms.rows import Rows
from models.base import FactorModel
from models.observations import RatingColumns
from models.priors import NOTHING, Above, NormalPrior
from models.ratings import GaussianSite, Moments, SweepScores

FLOATS_AT_ONCE = 2**24


def update_users(
    model: FactorModel,
    site: GaussianSite,
    cells: Cells,
    items: Rows,
    observed: Tensor,
    family: str,
    above: Above = NOTHING,
    prior: NormalPrior | None = None,
) -> HalfStep:
    """q(U) given q(V); ``observed`` (n_items,) are the items that have a column. Widths are those of the model.

    The ``prior`` of u is the model's given the sites ``above`` where it is not told.
    """
    rows, offset = _design(items, model.kappa_u, model.kappa_v) if model.mean is not None else (items, None)
    zero = site.zero_precision
    prior = model.prior_of_users(above) if prior is None else prior
    zeros = Background(by_row=zero) if isinstance(zero, Tensor) else Background(zero)
    background = replace(zeros, shift=site.zero_shift, offset=offset)
    return half_step(cells, rows, observed, background, prior.precision, prior.rows(len(cells)), family=family)


def update_items(
    model: FactorModel,
    site: GaussianSite,
    cells: Cells,
    users: Rows,
    observed: Tensor,
    prior: NormalPrior,
    spread: Tensor | None,
    family: str,
) -> HalfStep:
    """q(V) given q(U) and the ``prior`` of v, and variances ``spread`` of its mean where q(v|z) is structured.

    Shapes: ``observed`` (n_users,); ``spread`` (n_items, n_factors).
    """
    rows, offset = _design(users, model.kappa_v, model.kappa_u) if model.mean is not None else (users, None)
    zero = site.zero_precision
    zeros = Background(by_other=zero) if isinstance(zero, Tensor) else Background(zero)
    background = replace(zeros, shift=site.zero_shift, offset=offset)
    if spread is not None:
        spread = torch.nn.functional.pad(spread, (0, model.width - model.n_factors))
    return half_step(cells, rows, observed, background, prior.precision, prior.loc, spread, family)


def start_of_items(model: FactorModel, prior: NormalPrior) -> Rows:
    """Points at which sweeps begin: the prior means, or draws around them where these tell no items apart.

    At v = 0 every u_i is at its prior's mean too, and sweeps would stay there.
    """
    loc = prior.loc.clone()
    if not model.item_prior.latent:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(loc.shape, generator=generator, dtype=torch.float64).to(loc)
        loc[:, : model.n_factors] += prior.precision**-0.5 * noise[:, : model.n_factors]
    return Rows(loc)


def _design(rows: Rows, constant: float, kappa: float) -> tuple[Rows, Offset]:
    """What the other side's rows are multiplied by, and what these rows add to scores by themselves.

    Rows (w, bias / kappa) become (w, ``constant``), which the other side's (w', bias' / constant) meets, and an offset.
    """
    loc, bias = rows.loc.clone(), rows.loc[:, -1]
    loc[:, -1] = constant
    mean = kappa * bias
    if rows.is_point:
        return Rows(loc), Offset(mean, mean.square())
    if rows.variance is not None:
        variance = rows.variance.clone()
        variance[:, -1] = 0.0
        return Rows(loc, variance), Offset(mean, mean.square() + kappa**2 * rows.variance[:, -1])
    assert rows.covariance is not None and rows.block is not None
    own = rows.covariance[:, -1][rows.block]
    if rows.spread is not None:
        through = rows.slope**2 * rows.spread * own
        parts = torch.arange(len(loc)).split(max(1, FLOATS_AT_ONCE // loc.shape[1] ** 2))
        carried = [(rows.covariance[rows.block[part]] @ through[part, :, None]).squeeze(-1) for part in parts]
        own = own + torch.cat(carried)
    second = mean.square() + kappa**2 * own[:, -1]
    covariance, own = rows.covariance.clone(), kappa * own
    covariance[:, -1], covariance[:, :, -1], own[:, -1] = 0.0, 0.0, 0.0
    return replace(rows, loc=loc, covariance=covariance), Offset(mean, second, own)


def scores_of(model: FactorModel, users: Rows, items: Rows, columns: RatingColumns, form: float = 0.0) -> SweepScores:
    """What a likelihood of ratings may ask of the scores under q(U) q(V); ``form`` as in :class:`SweepScores`."""
    return SweepScores(
        form,
        lambda: moments_of_rows(model, users, items, columns),
        lambda: stored_scores(model, users, items, columns),
        lambda stored: zero_scores(model, users, items, columns, stored),
    )


def moments_of_rows(model: FactorModel, users: Rows, items: Rows, columns: RatingColumns) -> Moments:
    """q(U) q(V) as a likelihood of ratings reads it: rows whose products are scores, biases included."""
    u_var, u_block = _covariances(users, torch.ones_like(users.loc[:, 0], dtype=torch.bool))
    v_var, v_block = _covariances(items, columns.observed)
    return Moments(
        model.of_users(users.loc),
        None if u_var is None else model.of_users(u_var, 0.0),
        model.of_items(items.loc),
        None if v_var is None else model.of_items(v_var, 0.0),
        u_block,
        v_block,
    )


def _covariances(rows: Rows, counted: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Variances or covariances, and each row's block; where prior means are Normal, the ``counted`` rows own theirs."""
    if rows.covariance is None or rows.block is None:
        return rows.variance, None
    table, block = rows.own_covariances(), rows.block
    if rows.spread is None:
        return table, block
    sharing = (counted & (block >= len(table) - 2)).nonzero().squeeze(-1)
    if not len(sharing):
        return table, block
    given = rows.covariance[block[sharing]]
    own = given + rows.slope**2 * (given * rows.spread[sharing][:, None, :]) @ given
    block = block.clone()
    block[sharing] = len(table) + torch.arange(len(sharing), device=block.device)
    return torch.cat([table, own]), block


def stored_scores(model: FactorModel, users: Rows, items: Rows, columns: RatingColumns) -> tuple[Tensor, Tensor]:
    """E[s] and E[s^2] of the stored cells, (n_stored,) each, biases included.

    var(s) = x' S_u x + y' S_v y + tr(S_u S_v) with x the mean of what meets u and y the mean of what meets v.
    """
    n, biased = model.n_factors, model.mean is not None
    at_once = max(1, FLOATS_AT_ONCE // (2 * model.width**2))
    tables = [None if rows.covariance is None else rows.own_covariances() for rows in (users, items)]
    means, seconds = [], []
    for at in torch.arange(len(columns.users)).split(at_once):
        u, v = users.loc[columns.users[at]], items.loc[columns.items[at]]
        x, y = v.clone(), u.clone()
        if biased:
            x[:, -1], y[:, -1] = model.kappa_u, model.kappa_v
        mean = (u * x).sum(-1) + (model.kappa_v * v[:, -1] if biased else 0.0)
        variance = torch.zeros_like(mean)
        blocks = []
        for rows, table, which, met in ((users, tables[0], columns.users, x), (items, tables[1], columns.items, y)):
            if rows.variance is not None:
                own = rows.variance[which[at]]
                variance = variance + (own * met.square()).sum(-1)
                blocks.append(own[:, :n])
            elif table is not None and rows.block is not None:
                own = table[rows.block[which[at]]]
                variance = variance + ((own @ met[..., None]).squeeze(-1) * met).sum(-1)
                blocks.append(own[:, :n, :n].flatten(1))
        if blocks:
            variance = variance + (blocks[0] * blocks[1]).sum(-1)
        means.append(mean)
        seconds.append(mean.square() + variance)
    return torch.cat(means), torch.cat(seconds)


def zero_scores(
    model: FactorModel, users: Rows, items: Rows, columns: RatingColumns, stored: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of E[s] and E[s^2] over each user's zeros, and their number, (n_users,) each; ``stored`` as above."""
    rows, offset = _design(items, model.kappa_u, model.kappa_v) if model.mean is not None else (items, None)
    seen = columns.observed.to(rows.loc.dtype)
    gram, total = rows.second_moment(seen), seen @ rows.loc
    score, second = users.loc @ total, ((users.loc @ gram) * users.loc).sum(-1)
    if users.variance is not None:
        second = second + users.variance @ gram.diagonal()
    elif users.covariance is not None:
        second = second + (users.covariance * gram).sum((-1, -2))[users.block]
    if offset is not None:
        met = (seen * offset.mean) @ rows.loc
        met = met if offset.covariance is None else met + seen @ offset.covariance
        score = score + seen @ offset.mean
        second = second + 2 * (users.loc @ met) + seen @ offset.second
    inside = seen[columns.items]
    count = torch.full_like(score, float(seen.sum())).index_add(0, columns.users, -inside)
    score = score.index_add(0, columns.users, -inside * stored[0])
    return score, second.index_add(0, columns.users, -inside * stored[1]).clamp(min=0), count
