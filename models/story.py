"""Is the Pyro program the one that the algorithms read? A fit asks before it begins, on two items.

The algorithms take the priors of u and v from ``prior_of_users`` and ``prior_of_items`` and the ratings from the
likelihood. A ``forward`` that says otherwise would be fitted as if it did not: it is refused by name instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from models.base import FactorModel
from models.observations import Batch, Observations
from pyro_cvae.errors import InputError

_REMEDY = "the algorithms read priors from prior_of_users, prior_of_items and above: override these (docs/models.md)"


@torch.no_grad()
def check_story(model: FactorModel, observations: Observations, remedy: str = _REMEDY) -> None:
    """InputError, naming the site, unless the program draws from what the model's methods say.

    Looked at: the plates and priors of u and v, that the mean of v moves one to one with m, the prior of z, the density
    of R, and that no other latent site is there than those of ``above``.
    """
    name = type(model).__name__
    batch = observations.batch(torch.arange(min(2, observations.n_items), device=observations.content.device))
    training = model.training
    state = torch.get_rng_state()
    try:
        with model.sparse():
            trace = poutine.trace(model.eval()).get_trace(batch)
            _Story(model, name, trace, batch, remedy).check()
    finally:
        model.train(training)
        torch.set_rng_state(state)


class _Story:
    """A trace of the program on a few items, held to the model's methods."""

    def __init__(self, model: FactorModel, name: str, trace: Any, batch: Batch, remedy: str) -> None:
        self.model, self.name, self.trace, self.batch, self.remedy = model, name, trace, batch, remedy
        self.above = {site: trace.nodes[site]["value"] for site in model.sites_above(trace)}

    def check(self) -> None:
        """All of it, from what others rely on."""
        model = self.model
        needed = ["u", model.item_site, "R", *(["z"] if model.item_prior.latent else [])]
        for site in needed:
            if site not in self.trace.nodes:
                self.refuse(f"has no site {site}")
        named = set(model.above()) if self.above else set()
        if lost := sorted(set(self.above) - named):
            self.refuse(f"draws {lost[0]} outside of above()")
        self.plate("u", "users", model.n_users)
        for site in (model.item_site, "R", *(["z"] if model.item_prior.latent else [])):
            self.plate(site, "items", len(self.batch.items))
        users = model.prior_of_users(self.above)
        self.prior("u", users, model.n_users)
        m = self.trace.nodes["z"]["value"] if model.item_prior.latent else model.item_prior.encode(self.batch.inputs)[0]
        items = model.prior_of_items(m, self.above, self.batch.items)
        if model.item_site == "v":
            self.prior("v", items, len(self.batch.items))
        else:
            self.prior("v_dagger", replace(items, loc=items.loc[:0].sum(0)), len(self.batch.items))
            if not _close(self.trace.nodes["v"]["value"], self.trace.nodes["v_dagger"]["value"] + items.loc):
                self.refuse("has another v than v_dagger around the mean of prior_of_items()")
        for site, stated, own in (("u", users, "lambda_u"), ("v", items, "lambda_v")):
            if stated.precision != getattr(model, own):
                self.refuse(f"has a prior of {site} whose precision is not the model's {own}")
        step = torch.randn_like(m)
        moved = model.prior_of_items(m + step, self.above, self.batch.items).loc - items.loc
        if not _close(moved, torch.nn.functional.pad(step, (0, model.width - model.n_factors))):
            self.refuse("has a mean of v that does not move one to one with m, which q(v|z) and the closed form need")
        if model.item_prior.latent:
            z = self.trace.nodes["z"]["fn"]
            nothing = torch.zeros_like(m)
            if not self.is_normal(z, nothing, torch.ones_like(m)):
                self.refuse("draws z from another prior than N(0, I)")
        self.ratings()

    def prior(self, site: str, stated: Any, n_rows: int) -> None:
        """The site's distribution is the one stated."""
        loc = stated.loc.expand(n_rows, self.model.width)
        if not self.is_normal(self.trace.nodes[site]["fn"], loc, torch.full_like(loc, stated.precision**-0.5)):
            method = "prior_of_users" if site == "u" else "prior_of_items"
            self.refuse(f"draws {site} from another prior than {method}() says")

    def is_normal(self, fn: Any, loc: Tensor, scale: Tensor) -> bool:
        """Whether a distribution is the product of these Normals over its last dimension."""
        while isinstance(fn, dist.MaskedDistribution):
            fn = fn.base_dist
        base = fn.base_dist if isinstance(fn, torch.distributions.Independent) else fn
        if not isinstance(base, torch.distributions.Normal) or fn.event_shape != loc.shape[1:]:
            return False
        return _close(base.loc.expand(loc.shape), loc) and _close(base.scale.expand(scale.shape), scale)

    def plate(self, site: str, plate: str, n_rows: int) -> None:
        """The site is in this plate, and in no other."""
        frames = {frame.name: frame for frame in self.trace.nodes[site]["cond_indep_stack"]}
        if set(frames) != {plate} or frames[plate].size != n_rows:
            self.refuse(f"draws {site} outside of the plate {plate}, or in others too")

    def ratings(self) -> None:
        """The density of R is the likelihood's at u.v and biases."""
        model, nodes = self.model, self.trace.nodes
        u, v = nodes["u"]["value"], nodes["v"]["value"]
        columns = self.batch.columns
        wanted = model.ratings.distribution(model.of_users(u), model.of_items(v), columns).log_prob(columns)
        if not _close(nodes["R"]["fn"].log_prob(columns), wanted):
            self.refuse("observes R from another distribution than its likelihood's at of_users(u), of_items(v)")

    def refuse(self, problem: str) -> NoReturn:
        """InputError that names the model."""
        raise InputError(f"the story of {self.name} {problem}", self.remedy)


def _close(one: Tensor, other: Tensor) -> bool:
    rtol = 1e-4 if one.dtype == torch.float32 else 1e-9
    return one.shape == other.shape and torch.allclose(one, other.to(one), rtol=rtol, atol=rtol)
