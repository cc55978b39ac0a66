r"""The objective, as named parts: Pyro traces give the sites, Gaussian expectations replace samples where they exist.

    elbo = E_q[log p(R|U,V)] + E_q[log p(X|Z)] - KL(q(U)||p(U)) - E_q KL(q(V)||p(V|Z)) - KL(q(Z|X)||p(Z)) + log p(theta)

Of these only E_q[log p(x|z)] needs samples (paper, section 2.3; PAPER errata: the coupling's derivative in mu is
lambda_v (E[v] - mu), not Lambda_v). For MAP, q(U) and q(V) are points: the parts ``kl_u`` and ``kl_v`` become
``log_p_u`` and ``log_p_v`` and the sum is the MAP objective (paper, eq. 1), another number than an ELBO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor
from torch.nn.functional import pad

from models.base import FactorModel
from models.gaussians import Gaussians
from models.observations import Batch, Observations
from models.ratings import Moments

Coupling = Callable[[Tensor, Tensor], Tensor]

SIGNS = dict.fromkeys(
    ("ratings", "content", "log_p_u", "log_p_v", "log_p_m", "log_p_above", "weights", "penalty", "precisions"), 1
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
        u, v = gaussians(q["u"]["fn"]), gaussians(q[model.item_site]["fn"])
        mu, var = _of_content(model, sites, q, batch)
        scale = sites["R"]["scale"]
        above = {name: sites[name]["value"] for name in model.sites_above(model_trace)}

        users, items = model.prior_of_users(above), model.prior_of_items(mu, above, batch.items)
        around, precision = items.loc, items.precision
        wider = (0, model.width - model.n_factors)
        if v.covariance is not None:  # q(v|z), with its mean at the draw of z
            v = replace(v, spread=pad(var, wider), slope=precision)
            v = replace(v, loc=v.loc - v.along(sites[model.item_prior.site]["value"] - mu))
            kl_v = v.kl(precision, around)
        elif model.item_site == "v":
            kl_v = v.kl(precision, around) + 0.5 * precision * items.of_content(var).sum(-1)
        else:
            kl_v, of_z = v.kl(precision), pad(items.of_content(var), wider)
            v = Gaussians(v.loc + around, of_z if v.variance is None else v.variance + of_z)
        kl_u, kl_v = u.kl(users.precision, users.loc).sum(), kl_v.sum() * scale
        prior = {"log_p_u": -kl_u, "log_p_v": -kl_v} if u.is_point else {"kl_u": kl_u, "kl_v": kl_v}
        if above:
            drawn = model.sites_above(guide_trace)  # an automatic guide has auxiliary sites besides
            kl_above = sum(_log_prob(q[name]) for name in drawn) - sum(_log_prob(sites[name]) for name in above)
            prior |= {"log_p_above": -kl_above} if u.is_point else {"kl_above": kl_above}
        return {
            "ratings": self._ratings(model, sites["R"], u, v),
            **prior,
            **self._content_terms(model, sites, q),
        }

    def content_terms(
        self, model: FactorModel, guide: Any, batch: Batch, coupling: Coupling | None = None
    ) -> dict[str, Tensor]:
        """The named parts of the content alone: the guide needs to draw its site only.

        ``coupling(mu, var)`` (n_items,), where it is given, is what a q(V) that is held adds, as ``kl_v``.
        """
        model_trace, guide_trace = self._get_trace(model.content_only, guide, (batch,), {})
        sites = model_trace.nodes
        terms = self._content_terms(model, sites, guide_trace.nodes)
        if coupling is not None:
            moments = _of_content(model, sites, guide_trace.nodes, batch)
            terms["kl_v"] = coupling(*moments).double().sum() * model.n_items / len(batch.items)
        return terms

    def _content_terms(self, model: FactorModel, sites: Any, guide_sites: Any) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        if "x" in sites:
            parts["content"] = sites["x"]["fn"].log_prob(sites["x"]["value"]).double().sum() * sites["x"]["scale"]
        site = model.item_prior.site
        if model.item_prior.latent:
            z = guide_sites[site]["fn"]
            parts["kl_z"] = Gaussians(z.mean, z.variance).kl(1.0).sum() * sites[site]["scale"]
        elif site in guide_sites:  # at a point
            parts["log_p_m"] = _log_prob(sites[site])
        return parts | (model.item_prior.weight_terms() if "theta" in sites else {})

    def _ratings(self, model: FactorModel, site: Any, u: Gaussians, v: Gaussians) -> Tensor:
        moments = Moments(model.in_scores("u", u), model.in_scores("v", v.marginal()))
        expected = model.ratings.expected_log_prob(moments, site["value"])
        if expected is None:  # at the draws of u and v
            expected = site["fn"].log_prob(site["value"]) - model.ratings.constant(site["value"]).to(u.loc)
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


def _of_content(model: FactorModel, sites: Any, guide_sites: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Means and variances of q(m) of the minibatch, (n_items, n_factors) each."""
    site = model.item_prior.site
    if site in guide_sites:
        return guide_sites[site]["fn"].mean, guide_sites[site]["fn"].variance
    loc = sites[site]["value"] if site else model.item_prior.encode(batch.inputs)[0]
    return loc, torch.zeros_like(loc)


def _log_prob(site: Any) -> Tensor:
    """Log density of a site's value under its distribution, scaled, in nats, ()."""
    return site["fn"].log_prob(site["value"]).double().sum() * site["scale"]


def total(terms: dict[str, float]) -> float:
    """The untempered objective in nats, without the encoder's penalty: the ELBO, or the MAP objective."""
    return sum(SIGNS[name] * value for name, value in terms.items() if name != "penalty")


def constant(model: FactorModel, observations: Observations) -> float:
    """What of log p(R) depends on nothing that is fitted, such as a normaliser, in nats."""
    return float(model.ratings.constant(observations.columns).sum())


def gaussians(fn: Any) -> Gaussians:
    """The rows of a guide's distribution: points, diagonal or full."""
    if isinstance(fn, dist.Delta):
        return Gaussians(fn.v)
    if isinstance(fn, dist.Independent):
        return Gaussians(fn.mean, fn.variance)
    return Gaussians(fn.mean, covariance=fn.covariance_matrix)
