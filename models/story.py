"""Is the Pyro program the one that the algorithms read? A fit asks before it begins, of all items.

The algorithms take the priors of u and v from ``prior_of_users`` and ``prior_of_items`` and the ratings from the
likelihood. A ``forward`` that says otherwise would be fitted as if it did not: it is refused by name instead.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NoReturn

import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from models.base import FactorModel
from models.observations import Batch, Observations, RatingColumns
from pyro_cvae.errors import InputError

_REMEDY = "the algorithms read priors from prior_of_users, prior_of_items and above: override these (docs/models.md)"
MOST_ITEMS = 2**15
"""Items that are looked at, at most."""
MOST_CELLS = 2**20
"""Ratings whose density is computed, at most, unless two items have more; one that is not stored counts an eighth."""
AT_ONCE, CELLS_AT_ONCE = 2**13, 2**19
"""Items of a trace, and stored ratings whose density is computed together, at most."""

Part = tuple[Tensor, bool]
"""Rows of items to be traced together, and whether the density of their ratings is looked at."""


@torch.no_grad()
def check_story(model: FactorModel, observations: Observations, remedy: str = _REMEDY) -> None:
    """InputError, naming the site, unless the program draws from what the model's methods say.

    Looked at: the plates and priors of u and v, that the mean of v moves one to one with m, the prior of z, the density
    of R, that no site is masked or weighted, that no other latent site is there than those of ``above``, and none that
    is observed but x and R. The density of x is not: the algorithms read
    it from the program.

    This is of all users, and of all items up to ``MOST_ITEMS``; of more items as many, evenly from the least to the
    most rated. The density of R is, where all cells are more than ``MOST_CELLS``, that of a sample of items, likewise.
    Each trace has items from all over the catalogue, as minibatches have, so that a story which takes the place of an
    item in the minibatch for its row is seen. No random number of the fit's is taken.
    """
    likelihood, device = model.ratings, observations.content.device
    parts = looked_at(observations.columns, likelihood.zeros and not likelihood.conjugate)
    training = model.training
    try:
        with model.sparse(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            model.eval()
            for items, with_ratings in parts:
                batch = observations.batch(items.to(device))
                story = _Story(model, poutine.trace(model).get_trace(batch), batch, remedy)
                story.check()
                if with_ratings:
                    story.ratings()
            story.parts_are_of_the_whole([items for items, _ in parts])
    finally:
        model.train(training)


def looked_at(columns: RatingColumns, dense: bool) -> list[Part]:
    """The parts of a catalogue that :func:`check_story` looks at, and all of it at once where it is a part in size.

    ``dense`` says that the density of a column asks for the cells that are not stored, one by one. Items are in order
    of their number of ratings, those of the same number as a fixed seed has it, and dealt to the parts in turn.
    """
    n_items, stored = len(columns), columns.indptr.diff().cpu()
    mixed = torch.randperm(n_items, generator=torch.Generator().manual_seed(0))
    order = _evenly(mixed[stored[mixed].argsort(stable=True)], MOST_ITEMS)
    n_stored = int(stored[order].sum())
    n_cells = n_stored + dense * len(order) * columns.n_users / 8
    if n_cells > MOST_CELLS:
        sample = _evenly(order, int(len(order) * MOST_CELLS / n_cells))
        rated = _dealt(sample, math.ceil(int(stored[sample].sum()) / CELLS_AT_ONCE))
        return [*((part, False) for part in _dealt(order, 2)), *((part, True) for part in rated)]
    parts = _dealt(order, max(2, math.ceil(n_stored / CELLS_AT_ONCE)))
    if n_items <= AT_ONCE and n_stored <= CELLS_AT_ONCE:
        parts.append(order)
    return [(part, True) for part in parts]


def _dealt(order: Tensor, least: int) -> list[Tensor]:
    """The items in so many parts, or in more where a part were too large."""
    n_parts = min(len(order), max(least, math.ceil(len(order) / AT_ONCE)))
    return [order[place::n_parts] for place in range(n_parts)]


def _evenly(order: Tensor, most: int) -> Tensor:
    """So many of them, two or more, at even steps."""
    n_chosen = min(len(order), max(2, most))
    return order[torch.linspace(0, len(order) - 1, n_chosen, dtype=torch.float64).round().long()]


class _Story:
    """A trace of the program on some items, held to the model's methods."""

    def __init__(self, model: FactorModel, trace: Any, batch: Batch, remedy: str) -> None:
        self.model, self.trace, self.batch, self.remedy = model, trace, batch, remedy
        self.above = {site: trace.nodes[site]["value"] for site in model.sites_above(trace)}

    def check(self) -> None:
        """All of it but :meth:`ratings`, from what others rely on."""
        model = self.model
        of_content = [model.item_prior.site] if model.item_prior.site else []
        needed = ["u", model.item_site, "R", *of_content]
        for site in needed:
            if site not in self.trace.nodes:
                self.refuse(f"has no site {site}")
        named = set(model.above()) if self.above else set()
        if lost := sorted(set(self.above) - named):
            self.refuse(f"draws {lost[0]} outside of above()")
        self.plate("u", "users", model.n_users, model.n_users)
        for site in (model.item_site, "R", *of_content):
            self.plate(site, "items", len(self.batch.items), model.n_items)
        self.nothing_else(of_content)
        self.whole({"u": 1.0, **dict.fromkeys((model.item_site, "R"), model.n_items / len(self.batch.items))})
        users = model.prior_of_users(self.above)
        self.precision("u", users, "lambda_u")
        self.prior("u", users, model.n_users)
        m = model.item_prior.of_items(self.batch.items, self.batch.inputs)[0]
        if of_content:
            drawn = self.trace.nodes[model.item_prior.site]
            if drawn["is_observed"] and not _close(drawn["value"], m):
                self.refuse(f"has another {model.item_prior.site} than of_items() of its item prior says")
            m = drawn["value"]
        items = model.prior_of_items(m, self.above, self.batch.items)
        self.precision("v", items, "lambda_v")
        if model.item_site == "v":
            self.prior("v", items, len(self.batch.items))
        else:
            self.prior("v_dagger", replace(items, loc=items.loc[:0].sum(0)), len(self.batch.items))
            if not _close(self.trace.nodes["v"]["value"], self.trace.nodes["v_dagger"]["value"] + items.loc):
                self.refuse("has another v than v_dagger around the mean of prior_of_items()")
        step = torch.randn_like(m)
        moved = model.prior_of_items(m + step, self.above, self.batch.items).loc
        step = step if items.slope is None else items.slope[:, None] * step
        if not _close(moved, items.loc + torch.nn.functional.pad(step, (0, model.width - model.n_factors))):
            self.refuse(
                "has a mean of v that does not move one to one with m, or as its slope says: closed forms need it"
            )
        if model.item_prior.latent:
            z = self.trace.nodes[model.item_prior.site]["fn"]
            nothing = torch.zeros_like(m)
            if not self.is_normal(z, nothing, torch.ones_like(m)):
                self.refuse("draws z from another prior than N(0, I)")

    def nothing_else(self, of_content: list[str]) -> None:
        """No site is observed, no factor and no parameter there that the algorithms would pass over."""
        model, nodes = self.model, self.trace.nodes
        known = {"u", "v", "v_dagger", "R", *of_content, *self.above, *(["x"] if model.item_prior.generates else [])}
        known |= set(poutine.trace(model.item_prior.weights).get_trace().nodes)
        learned = {name.removesuffix("_unconstrained") for name, _ in model.named_parameters(remove_duplicate=False)}
        for name, site in nodes.items():
            if site["type"] == "param" and name.replace("$$$", ".") not in learned:
                remedy = "make it an nn.Parameter in __init__, which inference.svi learns"
                self.refuse(f"has the parameter {name}, which is none of its module", remedy)
            deterministic = site["infer"].get("_deterministic") if site["type"] == "sample" else True
            if not (deterministic or name in known or site_is_subsample(site)):
                remedy = "leave it out, or let prior_of_users or prior_of_items take what it says"
                self.refuse(f"observes {name}, a site or factor that no algorithm reads", remedy)

    def whole(self, scales: dict[str, float]) -> None:
        """No site is masked, and those that the algorithms read row by row have these ``scales``."""
        for name, site in self.trace.nodes.items():
            if site["type"] == "sample" and site["mask"] is not None:
                self.refuse(f"masks {name}", "leave poutine.mask out: all rows count")
            if name in scales and not math.isclose(site["scale"], scales[name], rel_tol=1e-9):
                remedy = "leave poutine.scale out; a weight of pairs is the column weight"
                self.refuse(f"scales {name} by more than its plate does", remedy)

    def precision(self, site: str, stated: Any, own: str) -> None:
        """The precision of a prior is one number, the model's."""
        if not isinstance(stated.precision, int | float):
            remedy = f"all rows have one: give self.{own}, and let means differ"
            self.refuse(f"has a prior of {site} whose precision is no number", remedy)
        if stated.precision != getattr(self.model, own):
            self.refuse(f"has a prior of {site} whose precision is not the model's {own}")

    def prior(self, site: str, stated: Any, n_rows: int) -> None:
        """The site's distribution is the one stated."""
        loc = stated.loc.expand(n_rows, self.model.width)
        if not self.is_normal(self.trace.nodes[site]["fn"], loc, torch.full_like(loc, stated.precision**-0.5)):
            method = "prior_of_users" if site == "u" else "prior_of_items"
            self.refuse(f"draws {site} from another prior than {method}() says")

    def is_normal(self, fn: Any, loc: Tensor, scale: Tensor) -> bool:
        """Whether a distribution is the product of these Normals over its last dimension."""
        base = fn.base_dist if isinstance(fn, torch.distributions.Independent) else fn
        if not isinstance(base, torch.distributions.Normal) or fn.event_shape != loc.shape[1:]:
            return False
        return _close(base.loc.expand(loc.shape), loc) and _close(base.scale.expand(scale.shape), scale)

    def plate(self, site: str, plate: str, n_rows: int, of: int) -> None:
        """The site is in this plate, ``n_rows`` of its ``of`` rows, and in no other."""
        frames = {frame.name: frame for frame in self.trace.nodes[site]["cond_indep_stack"]}
        if set(frames) != {plate} or frames[plate].size != n_rows:
            self.refuse(f"draws {site} outside of the plate {plate}, or in others too")
        if frames[plate].full_size != of:
            self.refuse(f"has a plate {plate} of {frames[plate].full_size} rows, of which there are {of}")

    def ratings(self) -> None:
        """The density of R is the likelihood's at u.v and biases."""
        model, nodes = self.model, self.trace.nodes
        u, v = nodes["u"]["value"], nodes["v"]["value"]
        columns = self.batch.columns
        wanted = model.ratings.distribution(model.of_users(u), model.of_items(v), columns).log_prob(columns)
        if not _close(nodes["R"]["fn"].log_prob(columns), wanted):
            self.refuse("observes R from another distribution than its likelihood's at of_users(u), of_items(v)")

    def parts_are_of_the_whole(self, parts: list[Tensor]) -> None:
        """The prior of v of some items is what the prior of all says of them."""
        model = self.model
        like = self.trace.nodes["v"]["value"]
        m = torch.randn(model.n_items, model.n_factors, dtype=like.dtype, device=like.device)
        whole = model.prior_of_items(m, self.above).loc
        for part in parts:
            items = part.to(like.device).sort().values
            if not _close(model.prior_of_items(m[items], self.above, items).loc, whole[items]):
                self.refuse("has a prior_of_items() that says of some items what it does not say of them among all")

    def refuse(self, problem: str, remedy: str = "") -> NoReturn:
        """InputError that names the model."""
        raise InputError(f"the story of {type(self.model).__name__} {problem}", remedy or self.remedy)


def _close(one: Tensor, other: Tensor) -> bool:
    rtol = 1e-4 if one.dtype == torch.float32 else 1e-9
    other = other.to(one)
    return one.shape == other.shape and (torch.equal(one, other) or torch.allclose(one, other, rtol=rtol, atol=rtol))
