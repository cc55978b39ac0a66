r"""The best q(u_i) of some users given q(V) and what each has chosen: a row of the fit's own half-step.

    N(Lambda_i^-1 h_i, Lambda_i^-1),    Lambda_i = lambda_u I + sum_j C_ij E[v_j v_j'],    h_i = sum_j C_ij R_ij E[v_j]

and lambda_u times the prior's mean in h_i (:mod:`inference.algorithms.half_steps`; paper, sections 2.2 and 2.3).
Weights and targets of the cells are those of the rating likelihood's Gaussian site. Under a Gaussian bound the update
is repeated with the bound's parameters of these users, as in the fit.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from inference.algorithms.cells import Cells
from inference.algorithms.half_steps import HalfStep
from inference.algorithms.sides import scores_of, update_users
from inference.fitting import Fit
from inference.recommending.updated import fitted_part, zero_weights
from models.base import FactorModel
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.priors import NormalPrior
from models.ratings import GaussianSite
from models.returns import prior_given
from pyro_cvae.data.interactions import Interactions

SWEEPS_OF_A_BOUND = 20


@dataclass(frozen=True, eq=False)
class Conditional:
    """What q(U) of some users given q(V) is made of.

    ``rows`` are their q, in the posterior's family; ``items`` is q(V), both as wide as the model. ``site`` has the
    precisions and shifts of the ``columns``, whose users are these; ``cells`` has the same user by user, less those of
    zeros, and ``order`` (n_stored,) the place in the columns of each of its cells. ``observed`` (n_items,) marks the
    items whose zeros count. ``few`` has site, cells, items and marks that give the same update from fewer items, if
    there.
    """

    model: FactorModel
    rows: Gaussians
    items: Gaussians
    columns: RatingColumns
    site: GaussianSite
    cells: Cells
    order: Tensor
    observed: Tensor
    prior: NormalPrior
    few: tuple[GaussianSite, Cells, Gaussians, Tensor] | None = None

    def full(self) -> HalfStep:
        """The same update with the whole of Lambda_i^-1, (n_users, width, width), whatever family the fit is of."""
        with torch.no_grad():
            given = self.few or (self.site, self.cells, self.items, self.observed)
            return update_users(self.model, *given, "full", prior=self.prior)


@torch.no_grad()
def prior_of(fit: Fit, asked: list[Any]) -> NormalPrior:
    """The prior of u of these users by id: the model's own where it knows them, or what it says of new ones."""
    model, base = fit.model, fitted_part(fit)
    prior = model.prior_of_users(above := base.above)
    if prior.loc.dim() == 1:
        return prior
    known = torch.from_numpy(base.dataset.user_rows(asked, unknown="prior"))
    new = [one for one, row in zip(asked, known.tolist(), strict=True) if row < 0]
    loc = prior.loc[known.clamp(min=0)]
    if new:
        theirs = prior_given(model, "prior_of_new_users", model.prior_of_new_users(new, above), len(new))
        loc[known < 0] = theirs.loc.expand(len(new), -1)
    return NormalPrior(loc, prior.precision)


def conditional_of_users(fit: Fit, pairs: Interactions, prior: NormalPrior) -> Conditional:
    """The best q(u_i) of users with these pairs given q(V), each as if alone.

    The background b is on the items that have a column in the fit; a listed item that has none gets, for that user, its
    one cell. Raises InputError where a rating is outside the likelihood's support.
    """
    posterior, base = fit.posterior, fitted_part(fit)
    observed = np.zeros(fit.dataset.n_items, bool)
    rated = np.bincount(base.split.train.items, minlength=base.dataset.n_items) > 0
    observed[: base.dataset.n_items] = rated | (base.options.model.unrated == "zeros")
    model, dtype, seen = fit.model, posterior.v.loc.dtype, torch.as_tensor(observed)
    unit, confidence = model.ratings.weight_unit, model.ratings.default_confidence
    columns = RatingColumns.from_interactions(pairs, confidence, "masked", dtype, unit)
    weights = zero_weights(fit)
    columns = replace(columns, observed=seen, zero_weights=None if weights is None else weights.to(dtype))
    met = seen.index_fill(0, columns.items, True)
    items = model.in_own("v", posterior.v).marginal(met)  # their covariances are shared, their spreads of z are not
    family = "point" if posterior.is_point else "diagonal" if posterior.u.variance is not None else "full"
    likelihood, bounded = model.ratings, not model.ratings.exact
    likelihood.check(columns)
    if bounded:  # its parameters are by user, and these are others
        likelihood = copy.deepcopy(model.ratings)
        likelihood.prepare(pairs.n_users)
        likelihood.to(dtype)
    order, second = torch.argsort(columns.users, stable=True), None
    with torch.no_grad():
        for _ in range(SWEEPS_OF_A_BOUND if bounded else 1):
            site = likelihood.site(columns, second)
            there = seen[columns.items].to(dtype)
            excess = site.precision - site.zeros_at(columns) * there
            targets = site.shift - site.zero_shift * there
            cells = Cells.of_users(columns, site).with_values(excess[order], targets[order])
            few = _of_few_items(fit, site, items, seen, cells) if family == "point" else None
            rows = update_users(model, *(few or (site, cells, items, seen)), family, prior=prior).rows
            if bounded:
                scores = scores_of(model, rows, items, columns)
                likelihood.after_sweep(columns, scores)
                second = scores.stored[1]
    return Conditional(model, rows, items, columns, site, cells, order, seen, prior, few)


_SQUARES: WeakKeyDictionary[Fit, Tensor] = WeakKeyDictionary()


def _of_few_items(
    fit: Fit, site: GaussianSite, items: Gaussians, seen: Tensor, cells: Cells
) -> tuple[GaussianSite, Cells, Gaussians, Tensor] | None:
    """Site, cells, items and ``seen`` of the same update with the listed items alone; ``None`` where there is none.

    The zeros of all items are in it by sum_j b_j v_j v_j' only, of which ``width`` rows stand for all: those of its
    root, which is kept for the next users of the fit.
    """
    plain = items.is_point and fit.model.mean is None and not site.zero_shift
    if not plain or isinstance(site.zero_precision, Tensor) or len(cells.others) + items.loc.shape[1] > len(items):
        return None
    base = fitted_part(fit)
    root = _SQUARES.get(base)
    if root is None:
        of_seen = items.loc[seen].double()
        if site.zero_weights is not None:
            of_seen = site.zero_weights[seen, None].double().sqrt() * of_seen
        values, axes = torch.linalg.eigh(of_seen.mT @ of_seen)
        root = _SQUARES[base] = (axes * values.clamp(min=0).sqrt()).mT.to(items.loc)
    listed, others = cells.others.unique(return_inverse=True)
    few = Gaussians(torch.cat([root, items.loc[listed]]))
    counted = torch.cat([torch.ones(len(root), dtype=torch.bool), torch.zeros(len(listed), dtype=torch.bool)])
    return replace(site, zero_weights=None), replace(cells, others=len(root) + others), few, counted
