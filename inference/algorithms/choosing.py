r"""Settings of clicks that are found within the fit: ``--tune N``.

Once networks are trained, a fifth of each user's training pairs is hidden, and u and v are fitted to the rest by as
many sweeps as the fit will have (at most :data:`MOST`), of which all trials share the first. Fewer would take settings
that rank well only as long as they have not converged. What is looked for is what ranks the hidden pairs best.

First the networks as they are, as they were after half and after a quarter of the epochs, and as they started, with
``--start svd`` at an SVD of the contents: of few or short texts they learn by heart what the rest says no more of. The
best of these is taken. Then the precision b of zeros and the shrinkages of users and items
(:mod:`inference.algorithms.precisions`), by steps of 4 and then of 2 in one of them at a time, then in b and the users'
shrinkage together, which turns zeros up and leaves how far they whiten u (``b V'V + lambda_u I``) as it was: where
pairs are dense, neither of the two alone is better. Where later pairs are hidden (below) the power of popularity that
zeros go with (``--b-power``) is looked for too, by steps of 1/2 and then of 1/4: many of an item's users were there
before it, and its few ratings hide that. Such a step is taken where the mean over users is better by more
than two of its standard errors. One of 2 is left out where it is no better by the parabola through steps of 4 either
way (:func:`_promises`). The short fits are of points in ``bayes`` too: what ranks best does so by its means, and
covariances of many factors would take minutes each.

What hidden pairs are worth, :mod:`inference.algorithms.worth` says.

What is hidden rehearses what is to come. With ``--hide latest`` the latest fifth of all training pairs is hidden
instead, as where a split by time holds the latest out. Among the users of hidden pairs are then some who have no other.
They are ranked by the list that strangers get (:mod:`inference.average`). With ``--hide last`` the latest fifth of each
user's pairs is, as where a split holds out the last of each user. With ``--hide items`` all pairs of some items
are hidden and no others, as where a split holds items out: what is to come is of new items alone.

**Items without ratings.** Their v is c z and not z where that ranks hidden pairs better. Without it their scores are
too small to be compared with those of rated items, whose v has grown towards their users. There are two kinds. An
*unchosen* item was there and nobody took it: hidden pairs make such items. A *new* one could not have been chosen:
hiding all pairs of some items makes those, as many as a fit has without ratings; too few leave c that of the others.
``--cold`` says of which kind the items without ratings are; items that are added to a fit are new. Where they are new,
all that is looked for is looked for with such items among the hidden pairs. Their c is larger with ``--hide items``,
where lists need no rated item.

Source: block coordinate ascent by :mod:`inference.algorithms.half_steps`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.algorithms.precisions import default_shrinkages, set_relative, short_fit
from inference.algorithms.standard_scale import rated
from inference.algorithms.worth import HeldOut, Worth, worth_of
from inference.kinds import Hide
from inference.mixing import last_times, weights_of_counts
from inference.options import CoordinateOptions, Options
from models.base import FactorModel
from models.kinds import Cold
from models.observations import RatingColumns
from pyro_cvae.data.splits import share_of_each_user
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

HIDDEN = 0.2
"""Share of each user's training pairs that is hidden."""
FEWEST = 50
"""Hidden pairs below which nothing is chosen."""
MOST_USERS = 1000
"""Users, drawn at random, whose hidden pairs are ranked."""
SWEEPS, MOST = 5, 10
"""Sweeps of a short fit behind the one that all share, where the fit has none of its own; of those it has, the most."""
STEPS = (4.0, 2.0)
SCALES = (*(2.0 ** (k / 4) for k in range(-4, 9)), *(2.0 ** (k / 2) for k in range(5, 13)))
"""Values of c that are tried, 1/2 to 4 and then less densely to 64."""
LEAST = 1e-6
"""A given c below it ranks unrated items as this one does."""
LEAST_NEW, MOST_NEW = 0.05, 0.3
"""Shares of the rated items that are hidden whole, to make new items."""

log = logging.getLogger("pyro_cvae")


@dataclass(frozen=True)
class Settings:
    """What a trial is of: epochs of the networks, the precision of zeros and its power, and the shrinkages."""

    epochs: int
    b: float
    user_shrinkage: float
    item_shrinkage: float
    b_power: float = 0.0

    def times(self, names: Sequence[str], factor: float) -> Settings:
        """The same with these of them ``factor`` times as large; the power of b has log2(factor)/4 more, from 0 on."""
        if tuple(names) == ("b_power",):
            return replace(self, b_power=max(0.0, self.b_power + math.log2(factor) / 4))
        return replace(self, **{name: factor * getattr(self, name) for name in names})


@torch.no_grad()
def choose(
    model: FactorModel, columns: RatingColumns, contents: Mapping[int, Tensor], options: Options
) -> tuple[int, list[dict[str, Any]]]:
    """Set b, lambda_u, lambda_v and c of a model, and return how long its networks are trained best and what was tried.

    ``contents`` are content means (n_items, n_factors) after so many epochs; the most epochs are the model's as it is.
    A row is a trial; see the module's docstring. Nothing is chosen, and a line in the log says so, where fewer than
    :data:`FEWEST` pairs can be hidden: of users with one training pair none can. Raises InputError where the latest are
    to be hidden of pairs without times.
    """
    rng = np.random.default_rng(options.fit.seed)
    hide = options.fit.hide
    hidden = latest_pairs(columns) if hide == "latest" else hidden_pairs(columns, rng, hide == "last")
    if _too_few(int(hidden.sum())):
        return max(contents), []
    trials = _Trials(model, columns, contents, options)
    scaled, cold = scales_contents(model, options), options.model.cold
    items_alone = hide == "items" and model.item_prior.knows_content
    held_out = {"unchosen": trials.hiding(hidden, rng)}
    kind: Cold = "new" if items_alone or cold == "new" else "unchosen"
    if scaled or kind == "new":
        pairs = np.zeros_like(hidden) if items_alone else hidden
        held_out["new"] = trials.hiding(hidden_items(columns, pairs, rng), rng)
    if kind == "new" and _too_few(len(held_out["new"].items)):
        return max(contents), []
    trials.start = _networks(trials, held_out[kind], kind)
    at, scale = _best(trials, held_out[kind], options.fit.tune, kind)
    of_new = scale
    if scaled and len(held_out["new"].items) >= FEWEST:
        of_new = trials.worth(at, held_out["new"], "new").scale
    if scaled and kind != cold:
        scale = trials.worth(at, held_out["unchosen"], "unchosen").scale
    for row in trials.rows:
        row["taken"] = "yes" if all(row[name] == value for name, value in vars(at).items()) else "no"
    if scaled:
        model.scale_contents(~columns.observed, scale, of_new)
    trials.set(at)
    return at.epochs, trials.rows


def _too_few(n_pairs: int) -> bool:
    if n_pairs < FEWEST:
        told = counted(n_pairs, "training pair")
        log.info("--tune chooses nothing: %s can be hidden, but %d are needed", told, FEWEST)
    return n_pairs < FEWEST


def _networks(trials: _Trials, held_out: HeldOut, kind: str) -> Settings:
    """The settings to start from, with the networks that rank hidden pairs best, of the ``kind`` of unrated items."""
    at = trials.start
    for epochs in trials.earlier:
        ahead = replace(at, epochs=epochs)
        if len(trials.rows) < trials.options.fit.tune - 1:
            found, other = (trials.worth(one, held_out, kind) for one in (at, ahead))
            at = ahead if other.value > found.value else at
    return at


def _best(trials: _Trials, held_out: HeldOut, most: int, kind: str = "unchosen") -> tuple[Settings, float]:
    """The best settings of at most ``most`` trials, none of them twice, and c there."""
    at = trials.start
    found = trials.worth(at, held_out, kind)
    for step in STEPS:
        for names in trials.moving:
            for factor in (step, 1 / step):
                moved = False
                while len(trials.rows) < most and _promises(trials, at, names, factor, kind):
                    ahead = at.times(names, factor)
                    worth = trials.worth(ahead, held_out, kind)
                    if not worth.better_than(found):
                        break
                    at, found, moved = ahead, worth, True
                if moved:
                    break
    return at, found.scale


def _promises(trials: _Trials, at: Settings, names: Sequence[str], factor: float, kind: str) -> bool:
    """Whether a step may be better, by the parabola over log settings through the worth of steps twice as long.

    With f(0), f(2) and f(-2) known, f(1) - f(0) = (3 (f(2) - f(0)) - (f(-2) - f(0))) / 8. What is not known promises.
    """
    here, ahead, behind = (trials.tried.get((at.times(names, factor**power), kind)) for power in (0, 2, -2))
    if here is None or ahead is None or behind is None:
        return True
    return 3 * (ahead.value - here.value) > behind.value - here.value


def scales_contents(model: FactorModel, options: Options) -> bool:
    """Whether items without ratings may have a c of their own, which the fit is to find.

    They have none where they are fitted to zeros, where q(v|z) takes v to move one to one with z, where contents say
    nothing before ratings are seen, and where a subclass has a prior of v of its own.
    """
    if options.model.cold_scale is not None or options.kind in ("structured", "draws"):
        return False
    own = type(model).prior_of_items is FactorModel.prior_of_items
    return own and model.item_prior.knows_content and options.model.unrated == "masked"


def hidden_pairs(columns: RatingColumns, rng: np.random.Generator, last: bool = False) -> np.ndarray:
    """A fifth of the positive cells of each user, any or the ``last``; one or more stay. Bool (n_stored,)."""
    able, users = _positive(columns), columns.users.cpu().numpy()
    times = _times(columns, "last")[able] if last else None
    hidden = np.zeros_like(able)
    hidden[able] = share_of_each_user(users[able], columns.n_users, HIDDEN, rng, times)
    return hidden


def latest_pairs(columns: RatingColumns) -> np.ndarray:
    """The latest fifth of the positive cells, those of one moment together; the earliest stay. Bool (n_stored,)."""
    times = _times(columns, "latest")
    able = _positive(columns) & ~np.isnan(times)
    if not able.any():
        return able
    cut = np.sort(times[able])[min(int(np.ceil((1 - HIDDEN) * able.sum())), int(able.sum()) - 1)]
    return able & (times >= cut) & (times > times[able].min())


def _positive(columns: RatingColumns) -> np.ndarray:
    """Which cells are choices, bool (n_stored,)."""
    return ((columns.ratings > 0) & (columns.confidences > 0)).cpu().numpy()


def _times(columns: RatingColumns, hide: Hide) -> np.ndarray:
    """When cells came, (n_stored,); InputError where there are no times."""
    if columns.times is None:
        raise InputError(f"--hide {hide} is of pairs with times, and these have none", "use --hide random")
    return columns.times.cpu().numpy()


def hidden_items(columns: RatingColumns, hidden: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same pairs and all of some rated items, as many as the share of items without ratings. Bool (n_stored,)."""
    counts = columns.indptr.diff().cpu().numpy()
    share = min(max(float((counts == 0).mean()), LEAST_NEW), MOST_NEW)
    held = (rng.random(len(counts)) < share) & (counts > 0)
    return hidden | held[columns.items.cpu().numpy()]


class _Trials:
    """Short fits of what is left of the training pairs; ``rows`` tells what each was worth."""

    def __init__(
        self, model: FactorModel, columns: RatingColumns, contents: Mapping[int, Tensor], options: Options
    ) -> None:
        self.model, self.columns, self.contents, self.options = model, columns, contents, options
        self.rows: list[dict[str, Any]] = []
        self.tried: dict[tuple[Settings, str], Worth] = {}
        self.begun: _Begun | None = None
        self.mean = None if model.mean is None else model.mean.detach().clone()
        method = options.method
        self.sweeps = max(1, min(method.sweeps, MOST) - 1) if isinstance(method, CoordinateOptions) else SWEEPS
        given = options.model.cold_scale
        self.scales = SCALES if scales_contents(model, options) else (1.0 if given is None else max(given, LEAST),)
        latest, *self.earlier = sorted(contents, reverse=True)
        power = model.ratings.b_power
        self.start = Settings(
            latest, model.ratings.background, *default_shrinkages(model, options), 0.0 if power is None else power
        )
        free = {"user_shrinkage": "lambda_u", "item_shrinkage": "lambda_v"}
        alone = ["b"] if model.ratings.weighs_zeros and model.ratings.background > 0 else []
        alone += ["b_power"] if alone and power is not None and options.fit.hide in ("latest", "last") else []
        alone += [name for name, precision in free.items() if precision in model.to_find]
        self.moving: list[tuple[str, ...]] = [(name,) for name in alone]
        if {"b", "user_shrinkage"} <= set(alone):
            self.moving.append(("b", "user_shrinkage"))

    def hiding(self, hidden: np.ndarray, rng: np.random.Generator) -> HeldOut:
        """What is left without these cells, bool (n_stored,), and at most :data:`MOST_USERS` users to look at."""
        columns, left = self.columns, torch.as_tensor(~hidden, device=self.columns.users.device)
        known = rated(columns, left)
        if self.options.model.unrated == "zeros":
            known = replace(known, observed=columns.observed)
        positive = (columns.ratings > 0) & (columns.confidences > 0)
        gone, kept = (torch.bincount(columns.users[one], minlength=columns.n_users) for one in (~left & positive, left))
        strangers = self.options.fit.hide == "latest"
        able = ((gone > 0) & ((kept > 0) | strangers)).nonzero().squeeze(-1).cpu().numpy()
        looked = torch.as_tensor(np.sort(rng.permutation(able)[:MOST_USERS]), device=left.device)
        place = torch.full((columns.n_users,), -1, device=left.device)
        place[looked] = torch.arange(len(looked), device=left.device)
        pairs = []
        for chosen in (~left & positive, left):
            cells = (chosen & (place[columns.users] >= 0)).nonzero().squeeze(-1)
            cells = cells[place[columns.users[cells]].argsort(stable=True)]
            pairs += [place[columns.users[cells]], columns.items[cells]]
        return HeldOut(known, looked, *pairs)

    def set(self, settings: Settings) -> None:
        """Let the model have these."""
        if self.model.ratings.weighs_zeros:
            power = {} if self.model.ratings.b_power is None else {"b_power": settings.b_power}
            self.model.ratings.weigh_zeros(settings.b, **power)
        shrinkage = (settings.user_shrinkage, settings.item_shrinkage)
        z_loc = self.contents[settings.epochs]
        set_relative(self.model, self.columns, z_loc, shrinkage, self.options.model.rating_facts.lambda_b)

    def worth(self, settings: Settings, held_out: HeldOut, kind: str = "unchosen") -> Worth:
        """The same as :meth:`at`, but of the same settings once alone."""
        if (known := self.tried.get((settings, kind))) is None:
            known = self.tried[settings, kind] = self.at(settings, held_out, kind)
        return known

    def at(self, settings: Settings, held_out: HeldOut, kind: str = "unchosen") -> Worth:
        """Fit what is left with these settings, and rank what is hidden."""
        model, z_loc = self.model, self.contents[settings.epochs]
        begun = self._begin(settings.epochs, held_out)
        self.set(settings)
        begun.take(model)
        known = model.ratings.weighed(held_out.known)
        users, items, observed = short_fit(model, known, z_loc, "point", self.sweeps, begun.items)
        if self.options.fit.hide == "latest":
            counts = torch.bincount(held_out.known.users, minlength=len(users))
            last = last_times(held_out.known.users, held_out.known.times, len(users))
            average = weights_of_counts(counts, last=last) @ users.double()
            users = torch.where((counts > 0)[:, None], users, average.to(users))
        worth = Worth(worth_of(model, users, items, ~observed, held_out, self.scales), self.scales)
        self._reset_mean()
        told = {"cold": kind, "taken": "yes", **vars(settings), "cold_scale": worth.scale, "worth": worth.value}
        self.rows.append(told)
        power = f" n^{settings.b_power:g}" if settings.b_power else ""
        which = f"b {settings.b:g}{power}, shrinkages {settings.user_shrinkage:.3g} and {settings.item_shrinkage:.3g}"
        trained = f"{counted(settings.epochs, 'epoch')}, " if self.earlier else ""
        log.info("short fit %d, %s%s: worth %.4f, c %.2f", len(self.rows), trained, which, worth.value, worth.scale)
        return worth

    def _begin(self, epochs: int, held_out: HeldOut) -> _Begun:
        """The sweep that all trials of these networks share."""
        if self.begun is None or (self.begun.epochs, self.begun.held_out) != (epochs, held_out):
            self.set(replace(self.start, epochs=epochs))
            known = self.model.ratings.weighed(held_out.known)
            items = short_fit(self.model, known, self.contents[epochs], "point", 1)[1]
            mean = None if self.model.mean is None else self.model.mean.clone()
            self.begun = _Begun(epochs, held_out, items, mean)
            self._reset_mean()
        return self.begun

    def _reset_mean(self) -> None:
        """The global mean where a fit begins."""
        if self.model.mean is not None and self.mean is not None:
            self.model.mean.copy_(self.mean)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A sweep of networks of so many epochs: means of v (n_items, width), and the global mean where there is one."""

    epochs: int
    held_out: HeldOut
    items: Tensor
    mean: Tensor | None

    def take(self, model: FactorModel) -> None:
        """Let the model have this mean."""
        if model.mean is not None and self.mean is not None:
            model.mean.copy_(self.mean)
