"""Guides: q(z|x) by the encoder; q(u) and q(v) as points, mean-field Normals, or the structured q(v|z).

A guide is a Pyro ``AutoGuideList`` over the model, whose parts share one pair of plates, so that rows and minibatches
always belong together. Parameters live in the modules, never in Pyro's global store.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoGuideList, AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from pyro.nn.module import PyroParam
from torch import Tensor
from torch.distributions import biject_to, constraints

from models.base import FactorModel, own_parameters
from models.gaussians import Gaussians
from models.observations import Batch, Observations
from models.ratings.confidence_normal import gaussian_factors
from pyro_cvae.errors import InputError

N_NODES = 32
"""Nodes of the quadrature over a site that is not real."""
ITEM_SITES = ("v", "v_dagger")
KINDS = ("point", "mean-field", "structured")


class Guides(AutoGuideList):
    """An ``AutoGuideList`` whose parameters are its own, whatever Pyro's settings are outside."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with own_parameters():
            super().__init__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the sites of all parts."""
        with own_parameters():
            return super().__call__(*args, **kwargs)


class NormalRows(AutoGuide):
    """q(site) = prod over rows of N(loc, diag(scale^2)): mean field, with a row for every user or item.

    Shapes: ``loc``, ``scale`` (n_rows, n_factors). Of a minibatch only its rows are used.
    """

    def __init__(self, model: FactorModel, site: str, plate: str, loc: Tensor, scale: float) -> None:
        super().__init__(model)
        self.site, self.plate = site, plate
        self.loc = PyroParam(loc.clone(), constraints.real, 1)
        self.scale = PyroParam(torch.full_like(loc, scale), constraints.positive, 1)

    @property
    def q(self) -> Gaussians:
        """All rows."""
        return Gaussians(self.loc, self.scale.square())

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Draw the rows of the minibatch."""
        with self._create_plates(batch)[self.plate]:
            return {self.site: pyro.sample(self.site, dist.Normal(self.loc, self.scale).to_event(1))}


class ContentGuide(AutoGuide):
    """q of the latent site of the contents, as the item prior says: of a CVAE q(z_j | x_j) by its encoder."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Draw the site of the minibatch, with the model's factor lambda_r on its terms."""
        item_prior = self.model.item_prior
        with self._create_plates(batch)["items"], poutine.scale(scale=item_prior.lambda_r):
            return {item_prior.site: pyro.sample(item_prior.site, item_prior.guide(batch))}


class StructuredItems(AutoGuide):
    """q(z|x) q(v|z) with the optimal conditional of v given z, in closed form.

        v_j | z_j ~ N(Lambda_j^-1 (E[U] C_j R_j + lambda_v z_j), Lambda_j^-1),    Lambda_j = E[U C_j U'] + lambda_v I

    Given q(u) this q(v|z) maximises the ELBO, so its own dependence on q(u) has no gradient there and is detached.
    Unlike plain mean field, the spread of v then contains what the content leaves open.
    """

    def __init__(self, model: FactorModel, users: NormalRows) -> None:
        super().__init__(model)
        self._users = (users,)  # a tuple, so that torch does not register the user's part twice

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Draw z and v of the minibatch."""
        model, users = self.model, self._users[0]
        loc, scale = model.item_prior.encode(batch.inputs)
        with torch.no_grad():
            tril, shift = item_conditional(model, users.q, batch)
        with self._create_plates(batch)["items"]:
            with poutine.scale(scale=model.item_prior.lambda_r):
                z = pyro.sample("z", dist.Normal(loc, scale).to_event(1))
            prior = model.prior_of_items(z, items=batch.items)
            mean = torch.cholesky_solve((shift + prior.precision * prior.loc)[..., None], tril).squeeze(-1)
            v = pyro.sample("v", dist.MultivariateNormal(mean, precision_matrix=tril @ tril.mT))
        return {"z": z, "v": v}


def item_conditional(model: FactorModel, users: Gaussians, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cholesky factor of Lambda_j, and E[U] C_j R_j, of the conditional of v_j given z_j (paper, section 2.3).

    Shapes: (n_items, width, width) and (n_items, width).
    """
    site = model.ratings.site(batch.columns)
    precision, shift = gaussian_factors(site, model.in_scores("u", users), batch.columns)
    if model.mean is not None:  # users are (u, b, kappa_v) and items (v, kappa_u, c): kappa_u is given
        shift = shift - model.kappa_u * precision[..., -2]
        free = [*range(model.n_factors), model.n_factors + 1]
        precision, shift = precision[:, free][:, :, free], shift[:, free]
    precision.diagonal(dim1=-2, dim2=-1).add_(model.lambda_v)
    return torch.linalg.cholesky(precision), shift


def make_guide(
    model: FactorModel, kind: str, observations: Observations, u_loc: Tensor, v_loc: Tensor, scale: float = 0.4
) -> AutoGuideList:
    """The guide of a kind, q(u) and the items' site started at the given means.

    ``kind``: "point" (AutoDelta on u and v), "mean-field" (Normals), "structured" (Normals on u, q(v|z)); ``scale``:
    standard deviations at the start, in those of the prior.
    Shapes: ``u_loc`` (n_users, width), ``v_loc`` (n_items, width), the latter of the site that the model draws.
    Raises InputError for a kind that the model does not allow (:func:`check_guide`).
    """
    check_guide(model, kind)
    first = observations.batch(torch.arange(min(2, observations.n_items)))
    guide = Guides(
        model,
        create_plates=lambda batch: [
            pyro.plate("users", model.n_users),
            pyro.plate("items", model.n_items, subsample=batch.items),
        ],
    )
    site, sites_above = model.item_site, names_above(model)
    content = [ContentGuide(model)] if model.item_prior.drawn else []
    if kind == "point":
        parts = [_points(model, "u", u_loc, len(u_loc)), *content, _points(model, site, v_loc, 2)]
    else:
        users = NormalRows(model, "u", "users", u_loc, scale * prior_sd(model, "u"))
        items = [NormalRows(model, site, "items", v_loc, scale * prior_sd(model, site))]
        parts = [users, StructuredItems(model, users)] if kind == "structured" else [users, *content, *items]
    if sites_above:
        automatic = AutoDelta if kind == "point" else AutoNormal
        parts.append(automatic(poutine.block(model, expose=list(sites_above))))
    for part in parts:
        guide.append(part)
    guide(first)
    if kind == "point":  # the prototype ran on two items, repeated over the catalogue; now every row gets its own
        points = next(part for part in guide if hasattr(part, site))
        with torch.no_grad():
            getattr(points, site).copy_(v_loc)
    return guide


def check_guide(model: FactorModel, kind: str) -> None:
    """InputError where the model does not allow a guide of that kind."""
    if kind != "structured":
        return
    if not (model.parametrization == "centred" and model.ratings.conjugate):
        raise InputError("the structured guide needs the centred model and a conjugate ratings likelihood")
    if not model.ratings.exact:
        problem = f"under the bound of {type(model.ratings).__name__} q(v|z) is not the best, which the guide relies on"
        raise InputError(problem, "use inference.coordinate --guide structured, or leave --guide out")
    if not model.item_prior.latent:
        raise InputError("the structured guide is q(v|z), and the model has no z", "leave --guide out")
    if sites_above := names_above(model):
        problem = f"the structured guide does not know the sites above u and v, {', '.join(sites_above)}"
        raise InputError(problem, "use inference.coordinate --guide structured, or leave --guide out")


def _points(model: FactorModel, site: str, loc: Tensor, n_rows: int) -> AutoDelta:
    """A point for every row of a site, of which the prototype's trace sees ``n_rows``."""
    with own_parameters():
        start = init_to_value(values={site: loc[:n_rows]})
        return AutoDelta(poutine.block(model, expose=[site]), init_loc_fn=start)


def names_above(model: FactorModel) -> tuple[str, ...]:
    """Names of the sites above u and v that the story draws."""
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        trace = poutine.trace(model.above).get_trace()
    return model.sites_above(trace)


def prior_sd(model: FactorModel, site: str) -> float:
    """Prior standard deviation of each coordinate of "u", "v" (z integrated out) or "v_dagger"."""
    content = 1 if model.item_prior.latent else 0
    variance = {"u": 1 / model.lambda_u, "v": content + 1 / model.lambda_v, "v_dagger": 1 / model.lambda_v}
    return float(variance[site]) ** 0.5


def rows_of(guide: AutoGuideList, site: str) -> Gaussians:
    """All rows of u or of the items' site, as the guide has them; a structured one has no rows of items."""
    for part in guide:
        if isinstance(part, NormalRows) and part.site == site:
            return part.q
        if isinstance(part, AutoDelta) and hasattr(part, site):
            return Gaussians(getattr(part, site))
    raise KeyError(site)


def above_of(guide: AutoGuideList, model: FactorModel, batch: Batch) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Means and standard deviations of the sites above u and v (``None`` for points), by name, each as the site is."""
    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    if not (names := names_above(model)):
        return found
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        trace = poutine.trace(guide).get_trace(batch)
    for name in names:
        auxiliary = trace.nodes.get(f"{name}_unconstrained")
        if auxiliary is None:
            found[name] = trace.nodes[name]["value"], None
            continue
        transform = biject_to(trace.nodes[name]["fn"].support)
        nodes = torch.as_tensor(np.stack(np.polynomial.hermite_e.hermegauss(N_NODES))).to(auxiliary["value"])
        fn, weights = auxiliary["fn"], nodes[1] / nodes[1].sum()
        values = torch.stack([transform(fn.mean + node * fn.variance.sqrt()) for node in nodes[0]], -1)
        mean = (values * weights).sum(-1)
        found[name] = mean, ((values - mean[..., None]).square() * weights).sum(-1).sqrt()
    return found
