"""Guides: q(z|x) by the encoder; q(u) and q(v) as points, mean-field Normals, or the structured q(v|z).

A guide is a Pyro ``AutoGuideList`` over the model, whose parts share one pair of plates, so that rows and minibatches
always belong together. Parameters live in the modules, never in Pyro's global store.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoGuideList
from pyro.infer.autoguide.initialization import init_to_value
from pyro.nn.module import PyroParam
from torch import Tensor
from torch.distributions import constraints

from models.cvae import CVAE
from models.observations import Batch, Observations
from models.ratings.confidence_normal import gaussian_factors
from pyro_cvae.errors import InputError

KINDS = ("point", "mean-field", "structured")


class NormalRows(AutoGuide):
    """q(site) = prod over rows of N(loc, diag(scale^2)): mean field, with a row for every user or item.

    Shapes: ``loc``, ``scale`` (n_rows, n_factors). Of a minibatch only its rows are used.
    """

    def __init__(self, model: CVAE, site: str, plate: str, loc: Tensor, scale: float) -> None:
        super().__init__(model)
        self.site, self.plate = site, plate
        self.loc = PyroParam(loc.clone(), constraints.real, 1)
        self.scale = PyroParam(torch.full_like(loc, scale), constraints.positive, 1)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Draw the rows of the minibatch."""
        with self._create_plates(batch)[self.plate]:
            return {self.site: pyro.sample(self.site, dist.Normal(self.loc, self.scale).to_event(1))}


class AmortizedContent(AutoGuide):
    """q(z_j | x_j) = N(mu(x_j), diag(sigma(x_j)^2)) by the model's encoder (paper, section 2.1)."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Draw z of the minibatch, with the model's factor lambda_r on its terms."""
        loc, scale = self.model.encoder(batch.inputs)
        with self._create_plates(batch)["items"], poutine.scale(scale=self.model.lambda_r):
            return {"z": pyro.sample("z", dist.Normal(loc, scale).to_event(1))}


class StructuredItems(AutoGuide):
    """q(z|x) q(v|z) with the optimal conditional of v given z, in closed form.

        v_j | z_j ~ N(Lambda_j^-1 (E[U] C_j R_j + lambda_v z_j), Lambda_j^-1),    Lambda_j = E[U C_j U'] + lambda_v I

    Given q(u) this q(v|z) maximises the ELBO, so its own dependence on q(u) has no gradient there and is detached.
    Unlike plain mean field, the spread of v then contains what the content leaves open.
    """

    def __init__(self, model: CVAE, users: NormalRows) -> None:
        super().__init__(model)
        self._users = (users,)  # a tuple, so that torch does not register the user's part twice

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Draw z and v of the minibatch."""
        model, users = self.model, self._users[0]
        loc, scale = model.encoder(batch.inputs)
        with torch.no_grad():
            tril, shift = item_conditional(model, users.loc, users.scale.square(), batch)
        with self._create_plates(batch)["items"]:
            with poutine.scale(scale=model.lambda_r):
                z = pyro.sample("z", dist.Normal(loc, scale).to_event(1))
            around = model.prior_of_items(z)
            mean = torch.cholesky_solve((shift + model.lambda_v * around)[..., None], tril).squeeze(-1)
            v = pyro.sample("v", dist.MultivariateNormal(mean, precision_matrix=tril @ tril.mT))
        return {"z": z, "v": v}


def item_conditional(model: CVAE, u: Tensor, u_var: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cholesky factor of Lambda_j, and E[U] C_j R_j, of the conditional of v_j given z_j (paper, section 2.3).

    Shapes: (n_items, width, width) and (n_items, width).
    """
    site = model.ratings.site(batch.columns)
    u, u_var = model.of_users(u), None if u_var is None else model.of_users(u_var, 0.0)
    precision, shift = gaussian_factors(site, u, u_var, batch.columns)
    if model.mean is not None:  # users are (u, b, kappa_v) and items (v, kappa_u, c): kappa_u is given
        shift = shift - model.kappa_u * precision[..., -2]
        free = [*range(model.n_factors), model.n_factors + 1]
        precision, shift = precision[:, free][:, :, free], shift[:, free]
    precision.diagonal(dim1=-2, dim2=-1).add_(model.lambda_v)
    return torch.linalg.cholesky(precision), shift


def make_guide(
    model: CVAE, kind: str, observations: Observations, u_loc: Tensor, v_loc: Tensor, scale: float = 0.4
) -> AutoGuideList:
    """The guide of a kind, q(u) and the items' site started at the given means.

    ``kind``: "point" (AutoDelta on u and v), "mean-field" (Normals), "structured" (Normals on u, q(v|z)); ``scale``:
    standard deviations at the start, in those of the prior.
    Shapes: ``u_loc`` (n_users, width), ``v_loc`` (n_items, width), the latter of the site that the model draws.
    Raises InputError for a kind that the model does not allow.
    """
    if kind == "structured" and not (model.parametrization == "centred" and model.ratings.conjugate):
        raise InputError("the structured guide needs the centred model and a conjugate ratings likelihood")
    if kind == "structured" and not model.ratings.exact:
        problem = f"under the bound of {type(model.ratings).__name__} q(v|z) is not the best, which the guide relies on"
        raise InputError(problem, "use inference.coordinate --guide structured, or leave --guide out")
    first = observations.batch(torch.arange(min(2, observations.n_items)))
    guide = AutoGuideList(
        model,
        create_plates=lambda batch: [
            pyro.plate("users", model.n_users),
            pyro.plate("items", model.n_items, subsample=batch.items),
        ],
    )
    site = model.item_site
    if kind == "point":
        for name, value in (("u", u_loc), (site, v_loc)):
            if name == site:
                guide.append(AmortizedContent(model))
            start = init_to_value(values={name: value[: 2 if name == site else None]})
            guide.append(AutoDelta(poutine.block(model, expose=[name]), init_loc_fn=start))
    else:
        users = NormalRows(model, "u", "users", u_loc, scale * prior_sd(model, "u"))
        guide.append(users)
        if kind == "structured":
            guide.append(StructuredItems(model, users))
        else:
            guide.append(AmortizedContent(model))
            guide.append(NormalRows(model, site, "items", v_loc, scale * prior_sd(model, site)))
    guide(first)
    if kind == "point":  # the prototype ran on two items, repeated over the catalogue; now every row gets its own
        with torch.no_grad():
            getattr(guide[2], site).copy_(v_loc)
    return guide


def prior_sd(model: CVAE, site: str) -> float:
    """Prior standard deviation of each coordinate of "u", "v" (z integrated out) or "v_dagger"."""
    variance = {"u": 1 / model.lambda_u, "v": 1 + 1 / model.lambda_v, "v_dagger": 1 / model.lambda_v}
    return float(variance[site]) ** 0.5


def moments_of(guide: AutoGuideList, model: CVAE) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Means and variances of q(u) and of the items' site over all rows (variance ``None`` for points).

    Shapes: (n_users, n_factors) and (n_items, n_factors). A structured guide has no rows of items.
    """
    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    for part in guide:
        if isinstance(part, NormalRows):
            found[part.site] = part.loc, part.scale.square()
        elif isinstance(part, AutoDelta):
            name = "u" if hasattr(part, "u") else model.item_site
            found[name] = getattr(part, name), None
    return found
