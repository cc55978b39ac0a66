r"""The objective, as named parts: Pyro traces give the sites, Gaussian expectations replace samples where they exist.

    elbo = E_q[log p(R|U,V)] + E_q[log p(X|Z)] - KL(q(U)||p(U)) - E_q KL(q(V)||p(V|Z)) - KL(q(Z|X)||p(Z)) + log p(theta)

Of these only E_q[log p(x|z)] needs samples (paper, section 2.3; PAPER errata: the coupling's derivative in mu is
lambda_v (E[v] - mu), not Lambda_v). For MAP, q(U) and q(V) are points: the parts ``kl_u`` and ``kl_v`` become
``log_p_u`` and ``log_p_v`` and the sum is the MAP objective (paper, eq. 1), another number than an ELBO.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from models.base import FactorModel
from models.observations import Batch, Observations
from models.ratings import Moments

Coupling = Callable[[Tensor, Tensor], Tensor]

SIGNS = dict.fromkeys(
    ("ratings", "content", "log_p_u", "log_p_v", "log_p_above", "weights", "penalty", "precisions"), 1
)
SIGNS |= dict.fromkeys(("kl_u", "kl_v", "kl_z", "kl_above"), -1)


class NamedELBO(ELBO):
    """The objective of the module's docstring, with ``kl_weight`` on KL(q(Z|X)||p(Z)).

    With a ``kl_weight`` or a ``lambda_r`` other than 1 it is tempered: no evidence bound.
    """

    def __init__(self, kl_weight: float = 1.0) -> None:
        super().__init__()
        self.kl_weight = kl_weight

    def _get_trace(self, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        return poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs), guide_trace

    def terms(self, model: FactorModel, guide: Any, batch: Batch) -> dict[str, Tensor]:
        """Named parts in nats, scaled from the minibatch to all items; signs as in ``SIGNS``.

        ``ratings`` is without log p(R)'s normaliser, which depends on no parameter: :func:`constant` gives it.
        """
        model_trace, guide_trace = self._get_trace(model, guide, (batch,), {})
        sites, q = model_trace.nodes, guide_trace.nodes
        u, u_var = moments(q["u"]["fn"])
        v, v_var = moments(q[model.item_site]["fn"])
        if model.item_prior.latent:
            mu, var = q["z"]["fn"].mean, q["z"]["fn"].variance
        else:
            mu, var = model.item_prior.encode(batch.inputs)
        scale = sites["R"]["scale"]
        above = {name: sites[name]["value"] for name in model.sites_above(model_trace)}

        users, items = model.prior_of_users(above), model.prior_of_items(mu, above, batch.items)
        kl_u = normal_kl(u, u_var, users.loc, users.precision).double().sum()
        around, precision = items.loc, items.precision
        if v_var is not None and v_var.dim() == 3:  # q(v|z) = N(v + A (z - mu), v_var), A = lambda_v v_var
            slope = precision * v_var[..., : model.n_factors]
            v = v - (slope @ (sites["z"]["value"] - mu)[..., None]).squeeze(-1)
            spread = (slope - torch.eye(*slope.shape[1:]).to(slope)).square() @ var[..., None]
            kl_v = normal_kl(v, v_var, around, precision) + 0.5 * precision * spread.sum((-1, -2))
            v_var = v_var + (slope * var[:, None, :]) @ slope.mT
        elif model.item_site == "v":
            kl_v = normal_kl(v, v_var, around, precision) + 0.5 * precision * var.sum(-1)
        else:
            kl_v = normal_kl(v, v_var, torch.zeros_like(v), precision)
            of_z = torch.nn.functional.pad(var, (0, model.width - model.n_factors))
            v, v_var = v + around, of_z if v_var is None else v_var + of_z
        kl_v = kl_v.double().sum() * scale
        prior = {"log_p_u": -kl_u, "log_p_v": -kl_v} if u_var is None else {"kl_u": kl_u, "kl_v": kl_v}
        if above:
            drawn = model.sites_above(guide_trace)  # an automatic guide has auxiliary sites besides
            kl_above = sum(_log_prob(q[name]) for name in drawn) - sum(_log_prob(sites[name]) for name in above)
            prior |= {"log_p_above": -kl_above} if u_var is None else {"kl_above": kl_above}
        return {
            "ratings": self._ratings(model, sites["R"], u, u_var, v, v_var),
            **prior,
            **self._content_terms(model, sites, q),
        }

    def content_terms(
        self, model: FactorModel, guide: Any, batch: Batch, coupling: Coupling | None = None
    ) -> dict[str, Tensor]:
        """The named parts of the content alone: the guide needs to draw z only.

        ``coupling(mu, var)`` (n_items,), where it is given, is what a q(V) that is held adds, as ``kl_v``.
        """
        model_trace, guide_trace = self._get_trace(model.content_only, guide, (batch,), {})
        sites, q = model_trace.nodes, guide_trace.nodes["z"]["fn"]
        terms = self._content_terms(model, sites, guide_trace.nodes)
        if coupling is not None:
            scale = sites["z"]["scale"] / model.item_prior.lambda_r
            terms["kl_v"] = coupling(q.mean, q.variance).double().sum() * scale
        return terms

    def _content_terms(self, model: FactorModel, sites: Any, guide_sites: Any) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        if "x" in sites:
            parts["content"] = sites["x"]["fn"].log_prob(sites["x"]["value"]).double().sum() * sites["x"]["scale"]
        if model.item_prior.latent:
            z = guide_sites["z"]["fn"]
            kl_z = normal_kl(z.mean, z.variance, torch.zeros_like(z.mean), 1.0)
            parts["kl_z"] = kl_z.double().sum() * sites["z"]["scale"]
        return parts | (model.item_prior.weight_terms() if "theta" in sites else {})

    def _ratings(
        self, model: FactorModel, site: Any, u: Tensor, u_var: Tensor | None, v: Tensor, v_var: Tensor | None
    ) -> Tensor:
        u_var = None if u_var is None else model.of_users(u_var, 0.0)
        v_var = None if v_var is None else model.of_items(v_var, 0.0)
        moments = Moments(model.of_users(u), u_var, model.of_items(v), v_var)
        expected = model.ratings.expected_log_prob(moments, site["value"])
        if expected is None:  # at the draws of u and v
            expected = site["fn"].log_prob(site["value"]) - model.ratings.constant(site["value"]).to(u)
        return expected.double().sum() * site["scale"]

    def objective(self, terms: dict[str, Any]) -> Any:
        """What is maximised: the signed sum of the parts, the KL of z weighted."""
        return sum(SIGNS[n] * t * (self.kl_weight if n == "kl_z" else 1.0) for n, t in terms.items())

    def differentiable_loss(self, model: FactorModel, guide: Any, batch: Batch) -> Tensor:
        """Minus the objective per item: what an optimiser's step sees."""
        return -self.objective(self.terms(model, guide, batch)) / model.n_items

    def loss(self, model: FactorModel, guide: Any, batch: Batch) -> float:
        """The same as a number."""
        return self.differentiable_loss(model, guide, batch).item()

    def loss_and_grads(self, model: FactorModel, guide: Any, batch: Batch) -> float:
        """The same, with gradients added to the parameters: what ``pyro.infer.SVI`` calls."""
        loss = self.differentiable_loss(model, guide, batch)
        loss.backward()
        return loss.item()


def _log_prob(site: Any) -> Tensor:
    """Log density of a site's value under its distribution, scaled, in nats, ()."""
    return site["fn"].log_prob(site["value"]).double().sum() * site["scale"]


def total(terms: dict[str, float]) -> float:
    """The untempered objective in nats, without the encoder's penalty: the ELBO, or the MAP objective."""
    return sum(SIGNS[name] * value for name, value in terms.items() if name != "penalty")


def constant(model: FactorModel, observations: Observations) -> float:
    """What of log p(R) depends on nothing that is fitted, such as a normaliser, in nats."""
    return float(model.ratings.constant(observations.columns).sum())


def moments(fn: Any) -> tuple[Tensor, Tensor | None]:
    """Mean and (co)variance of a guide's distribution: ``None`` for a point, else diagonal or full."""
    if isinstance(fn, dist.Delta):
        return fn.v, None
    if isinstance(fn, dist.Independent):
        return fn.mean, fn.variance
    return fn.mean, fn.covariance_matrix


def normal_kl(mean: Tensor, var: Tensor | None, prior_mean: Tensor, precision: float) -> Tensor:
    """KL(N(mean, var) || N(prior_mean, I / precision)) per row in nats; for a point (no ``var``) minus its log density.

    ``mean`` (n_rows, n_factors); ``var`` diagonal (n_rows, n_factors) or full (n_rows, n_factors, n_factors).
    """
    square = precision * (mean - prior_mean).square()
    if var is None:
        return 0.5 * (square - math.log(precision / (2 * math.pi))).sum(-1)
    if var.dim() == 2:
        return 0.5 * (square + precision * var - 1 - math.log(precision) - var.log()).sum(-1)
    log_det = torch.linalg.cholesky(var).diagonal(dim1=-2, dim2=-1).log().sum(-1) * 2
    trace = precision * var.diagonal(dim1=-2, dim2=-1).sum(-1)
    return 0.5 * (square.sum(-1) + trace - log_det) - 0.5 * mean.shape[-1] * (1 + math.log(precision))
