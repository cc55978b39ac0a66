"""A fit for Pyro's own tools: its story as a plain dense program of no arguments, and its posterior as a guide.

    model, guide = fit.pyro_model(), fit.guide
    Predictive(model, guide=guide, num_samples=100)()
    MCMC(NUTS(model), num_samples=200).run()

Sites are those of the story: u, v (or v_dagger), z, x and R, and what is above them. R is (n_items, n_users), x
(n_items, n_features). Networks and precisions are held at what the fit has found. Nothing is sparse: for small data,
or some items of large ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from inference.draws import Draws
from models.base import FactorModel
from models.build import content_likelihood_of, observe
from models.priors import NOTHING, Above
from pyro_cvae.limits import check_memory
from pyro_cvae.text import counted

if TYPE_CHECKING:
    from inference.fitted import Fit
    from inference.posterior import Posterior

HIDDEN = ("theta",)
"""Sites that depend on nothing but what is held."""


def plain_model(fit: Fit, items: Iterable[Any] | None = None) -> Callable[[], None]:
    """The story of a fit as a Pyro program of no arguments, over all items or those of these external ids.

    x and R are observed at the training data; ``poutine.uncondition`` draws them. Raises MachineError where the dense
    data would not fit into memory, InputError for an unknown id.
    """
    rows = _rows(fit, items)
    n_numbers = len(rows) * (fit.dataset.n_users + sum(one.n_features for one in fit.dataset.contents.values()))
    what = f"dense ratings and contents of {counted(len(rows), 'item')} and {counted(fit.dataset.n_users, 'user')}"
    check_memory(64.0 * n_numbers, what, "name some of the items")
    model = copy.deepcopy(fit.model).requires_grad_(False).eval()
    model.plain = True
    o = fit.options.model
    given = (fit.dataset, fit.split, content_likelihood_of(o), o, fit.options.data.scaling)
    observations, _ = observe(*given, fit.scalings)
    batch = observations.to(dtype=fit.posterior.u_loc.dtype).batch(rows)

    def story() -> None:
        """The generative story of the fit, its networks held."""
        with poutine.block(hide=list(HIDDEN), hide_types=["param"]):
            model(batch)

    return story


class PosteriorGuide:
    """The posterior of a fit as a guide of :func:`plain_model`: sites u, z, v or v_dagger, and those above them.

    ``rows`` are the items; ``above`` posterior means of the sites above u and v, around whose v v_dagger is. Of stored
    draws every call takes one of them, the same for all sites, as points.
    """

    def __init__(self, posterior: Posterior, model: FactorModel, rows: Tensor, above: Above = NOTHING) -> None:
        self.posterior, self.model = posterior, model
        self.rows, self.items = posterior.select(items=rows), rows
        with torch.no_grad():
            self.around = model.prior_of_items(posterior.z.loc, above).loc[rows]

    def __call__(self, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        """Draw all latent sites; arguments are those of the model and are not looked at."""
        values = self._above()
        model = self.model
        draw = None
        if isinstance(self.rows, Draws):
            draw = int(torch.randint(len(self.rows), ()))
            values = self._above(draw)
        with pyro.plate("users", model.n_users):
            values["u"] = pyro.sample("u", self._of("u", draw))
        with pyro.plate("items", model.n_items, subsample=self.items):
            prior = model.item_prior
            if prior.drawn:
                values[prior.site] = pyro.sample(prior.site, self._of("z", draw))
            z = values[prior.site] if prior.latent else None
            values[model.item_site] = pyro.sample(model.item_site, self._of_items(z, draw))
        return values

    def _of(self, name: str, draw: int | None) -> dist.TorchDistribution:
        """The distribution of the rows of "u", "v" or "z"."""
        q = self.rows
        if isinstance(q, Draws):
            return dist.Delta(getattr(q, f"{name}_draws")[draw], event_dim=1)
        rows = getattr(q, name) if name == "z" else self.model.in_own(name, getattr(q, name))
        if rows.is_point or (name == "z" and not self.model.item_prior.latent):
            return dist.Delta(rows.loc, event_dim=1)
        if (scale := rows.scale) is not None:
            return dist.Normal(rows.loc, scale).to_event(1)
        return dist.MultivariateNormal(rows.loc, rows.covariances())

    def _of_items(self, z: Tensor | None, draw: int | None) -> dist.TorchDistribution:
        """The distribution of v given z where it is structured, or of v_dagger where that is the site."""
        q, model = self.rows, self.model
        if isinstance(q, Draws):
            return self._of("v", draw)
        rows, variance = model.in_own("v", q.v), q.own_variance()
        if model.item_site == "v_dagger":
            loc = rows.loc - self.around
            if variance is None:
                return dist.Delta(loc, event_dim=1)
            return dist.Normal(loc, model.own("v", variance).sqrt()).to_event(1)
        if rows.spread is None or z is None:
            return self._of("v", draw)
        return dist.MultivariateNormal(rows.loc + rows.along(z - q.z.loc), rows.given())

    def _above(self, draw: int | None = None) -> dict[str, Tensor]:
        """Draw the sites above u and v, each in the plates of the story."""
        with torch.no_grad(), torch.random.fork_rng(devices=()), poutine.block():
            trace = poutine.trace(self.model.above).get_trace()
        values: dict[str, Tensor] = {}
        for name in self.model.sites_above(trace):
            site, stored = trace.nodes[name], self.posterior.above
            loc = stored[f"{name}_loc"] if draw is None else stored[f"{name}_draws"][draw]
            scale, event_dim = stored.get(f"{name}_scale"), site["fn"].event_dim
            fn: Any = dist.Delta(loc, event_dim=event_dim)
            if scale is not None:
                fn = dist.Normal(loc, scale).to_event(event_dim)
            with ExitStack() as plates:
                for frame in site["cond_indep_stack"]:
                    plates.enter_context(pyro.plate(frame.name, frame.size, dim=frame.dim))
                values[name] = pyro.sample(name, fn)
        return values


def plain_guide(fit: Fit, items: Iterable[Any] | None = None) -> PosteriorGuide:
    """The posterior of a fit as a guide of its :func:`plain_model` over the same items."""
    return PosteriorGuide(fit.posterior, fit.model, _rows(fit, items), fit.above)


def _rows(fit: Fit, items: Iterable[Any] | None) -> Tensor:
    rows = range(fit.dataset.n_items) if items is None else sorted(fit.dataset.item_rows(items).tolist())
    return torch.tensor(list(rows), dtype=torch.int64)
