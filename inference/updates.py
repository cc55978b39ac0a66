r"""What a fit says of users and items that were not in it, in closed form: users folded in, items added.

A user with a list of items has the best q(u_i) given q(V), which is a row of the fit's own half-step
(:mod:`inference.half_steps`; paper, sections 2.2 and 2.3):

    N(Lambda_i^-1 h_i, Lambda_i^-1),    Lambda_i = lambda_u I + sum_j C_ij E[v_j v_j'],    h_i = sum_j C_ij R_ij E[v_j].

Under a Gaussian bound of the ratings this is repeated with the bound's parameters of the user, as in the fit.

**The whole list is needed**: every other item counts as one that the user did not choose, with confidence b. A list of
the latest choices alone is a user who has chosen nothing else.

An item with contents x_j has, as long as nobody has rated it, v_j ~ N(mu(x_j), sigma(x_j)^2 + 1/lambda_v), with mu and
sigma from the encoder: what a fit with ``--guide structured`` and ``--unrated masked`` says of an item without a
training rating. The other families leave out sigma^2 for items of the fit, never for added ones.

Both give a new :class:`UpdatedFit`, which everything that ranks takes like a fit; the fit itself stays as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from inference.draws import Draws
from inference.fitting import Fit
from inference.half_steps import Cells, Rows
from inference.posterior import Posterior
from inference.sides import stored_scores, update_users, zero_scores
from models.build import contents_of
from models.observations import RatingColumns
from models.ratings.bernoulli import BernoulliBound
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import AnyContent
from pyro_cvae.data.dataset import Dataset, spells_integer, typed_ids
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.errors import InputError

log = logging.getLogger("pyro_cvae")
ROWS_AT_ONCE = 1024
SWEEPS_OF_A_BOUND = 20


@dataclass(eq=False, repr=False)
class UpdatedFit(Fit):
    """A fit with users folded in and items added; ``model``, ``history`` and ``metrics`` are those of the fit.

    ``fitted`` is the fit before any update; ``folded_in``, bool (n_users,), marks the users whose posterior is the
    closed form given the items'. Added items are the rows from ``fitted.dataset.n_items`` on.
    """

    fitted: Fit | None = None
    folded_in: np.ndarray | None = None

    def encode_content(self, content: Any) -> tuple[Tensor, Tensor]:
        """As of the fit before any update, whose contents say what form new ones must have."""
        return fitted_part(self).encode_content(content) if self.fitted is not None else super().encode_content(content)


def fitted_part(fit: Fit) -> Fit:
    """The fit before any update."""
    return fit if not isinstance(fit, UpdatedFit) or fit.fitted is None else fit.fitted


def folded_in(fit: Fit) -> np.ndarray:
    """True for the users that were folded in, bool (n_users,)."""
    mask = fit.folded_in if isinstance(fit, UpdatedFit) else None
    return np.zeros(fit.dataset.n_users, bool) if mask is None else mask


def fold_in(
    fit: Fit,
    users: Iterable[Any],
    items: Iterable[Any],
    *,
    ratings: Sequence[float] | np.ndarray | None = None,
    confidences: Sequence[float] | np.ndarray | None = None,
    unknown: str = "error",
) -> UpdatedFit:
    """The fit with users folded in from their whole lists, one pair (user, item) of external ids a place.

    Parameters: ``ratings`` R_ij, 1 by default; ``confidences`` weights in the unit of the training pairs', whose usual
    one is the default (NaN too), 0 for a cell that is missing; ``unknown`` what to do with an item that the fit does
    not know: "error" raises InputError, "drop" leaves the pair out and counts it in the log (a user of whom nothing is
    left is still there: one who chose nothing).

    Every user is folded in alone, whoever else is in the call. A user that the fit knows is replaced: the list is all
    that counts. Posterior family and precisions (learned ones too) are those of the fit. Raises InputError for ids of
    the wrong type, for a likelihood of ratings without a closed form, and for the stored draws of inference.mcmc.
    """
    if not fit.model.ratings.conjugate:
        raise InputError(f"{fit.model.ratings.refuse('folding in').problem}", "fit again with these users")
    _refuse_draws(fit)
    dataset, whole = fit.dataset, fit.dataset.user_ids.dtype.kind == "i"
    given = [int(one) if whole and isinstance(one, str) and spells_integer(one) else one for one in users]
    asked = list(dict.fromkeys(given))
    if not asked:
        raise InputError("nobody is to be folded in", "give at least one pair of a user and an item")
    listed = dataset.item_rows(items, unknown="error" if unknown == "error" else "prior")
    if len(listed) != len(given):
        raise InputError(f"{len(given)} users and {len(listed)} items are no pairs", "give one item for each user")
    row_of = {user: row for row, user in enumerate(asked)}
    kept = listed >= 0
    if not kept.all():
        log.warning("%d pairs of unknown items left out of the lists of folded-in users", int((~kept).sum()))
    pairs = Interactions.from_arrays(
        np.array([row_of[user] for user in given])[kept],
        listed[kept],
        n_users=len(asked),
        n_items=dataset.n_items,
        ratings=None if ratings is None else np.asarray(ratings, np.float64)[kept],
        confidences=None if confidences is None else np.asarray(confidences, np.float64)[kept],
    )
    rows = _user_rows(fit, pairs)
    known = dataset.user_rows(asked, unknown="prior")
    at = np.where(known >= 0, known, dataset.n_users + np.cumsum(known < 0) - 1)  # where each one goes
    return _with_users(fit, asked, at, pairs, rows)


def add_items(
    fit: Fit,
    ids: Iterable[Any],
    texts: Sequence[str] | None = None,
    *,
    counts: Any = None,
    contents: dict[str, AnyContent] | None = None,
    titles: Sequence[str | None] | np.ndarray | None = None,
) -> UpdatedFit:
    """The fit with items added after its own, from their texts, word counts or other contents.

    Parameters: ``ids`` external ids that the fit does not have; ``texts`` are counted by the fit's vocabulary (with
    ``titles``, whose words count too, as in a fit from tables); ``counts`` (n_new, n_features) in their place;
    ``contents`` contents by name, a row an item, of the forms that the fit's have. Of those that the fit is of,
    one that is left out is one that none of the items has. The data set of the result has texts alone. Raises
    InputError where an id is taken or of the wrong type, where there is no content that the fit is of, where it has no
    vocabulary and ``counts`` are needed, and for the stored draws of inference.mcmc.
    """
    _refuse_draws(fit)
    dataset, base, new = fit.dataset, fitted_part(fit), list(ids)
    chosen, _, several = contents_of(base.dataset, fit.model.content, fit.options.model.content)
    given: dict[str, AnyContent] = dict(contents or {})
    if (texts is not None) + (counts is not None) + ("text" in given) > 1:
        raise InputError("new items need either texts or word counts", "give one of them")
    if texts is not None:
        documents = texts if titles is None else [f"{t}\n{text}" for t, text in zip(titles, texts, strict=True)]
        given["text"] = dataset.content.of(documents)
    elif counts is not None:
        given["text"] = Content(counts)
    encoded = {name: one for name, one in given.items() if name != "text" or name in chosen}
    if not encoded:
        able = "texts or word counts" if list(chosen) == ["text"] else ", ".join(chosen)
        raise InputError(f"new items need {able}, which the fit is of", "give them")
    item_ids = _extended(dataset.item_ids, new, "item")
    taken = dataset.item_rows(new, unknown="prior")
    if (taken >= 0).any() or len(set(new)) < len(new):
        again = next(one for place, one in enumerate(new) if taken[place] >= 0 or one in new[:place])
        raise InputError(f"item {again!r} is there more than once", "add items under ids of their own")
    for name, one in given.items():
        if one.n_items != len(new):
            raise InputError(f"{len(new)} new items have {one.n_items} rows of {name}", "give a row for each item")
    loc, scale = base.encode_content(encoded)
    text = given.get(
        "text", Content(sp.csr_matrix((len(new), dataset.content.n_features)), given=np.zeros(len(new), bool))
    )
    assert isinstance(text, Content)
    if "text" in encoded and text.empty.any():
        log.warning("%d of %d new items have no word of the vocabulary", int(text.empty.sum()), len(new))
    old_titles = dataset.titles
    if old_titles is None and titles is not None:
        old_titles = np.full(dataset.n_items, None, object)
    more_titles = np.array([None] * len(new) if titles is None else list(titles), object)
    content = dataset.content
    whole = content.given is None and not several
    extended = Dataset(
        dataset.name,
        _resized(dataset.interactions, n_items=len(item_ids)),
        Content(
            sp.vstack([content.counts, text.counts], "csr"),
            content.vocabulary,
            content.vectorizer,
            None if whole else np.concatenate([content.present, text.present]),
        ),
        dataset.user_ids,
        item_ids,
        None if old_titles is None else np.concatenate([old_titles, more_titles]),
    )
    split = fit.split
    parts: dict[str, Any] = {
        name: None if part is None else _resized(part, n_items=len(item_ids))
        for name, part in (("train", split.train), ("test", split.test), ("validation", split.validation))
    }
    return _updated(
        fit,
        posterior=_with_items(fit.posterior, loc, scale),
        dataset=extended,
        split=replace(split, **parts),
        folded_in=folded_in(fit),
    )


# --- users -----------------------------------------------------------------------------------------------------------


def _user_rows(fit: Fit, pairs: Interactions) -> Rows:
    """The best q(u_i) of users with these pairs given q(V), each as if alone.

    The background b is on the items that have a column in the fit; a listed item that has none gets, for that user, its
    one cell.
    """
    posterior, base = fit.posterior, fitted_part(fit)
    observed = np.zeros(fit.dataset.n_items, bool)
    rated = np.bincount(base.split.train.items, minlength=base.dataset.n_items) > 0
    observed[: base.dataset.n_items] = rated | (base.options.model.unrated == "zeros")
    model, dtype = fit.model, posterior.v_loc.dtype
    seen, items = torch.as_tensor(observed), _item_rows(fit)
    own = model.ratings.default_confidence, "masked", dtype, model.ratings.weight_unit
    columns = RatingColumns.from_interactions(pairs, *own)
    columns = replace(columns, observed=seen)
    family = "point" if posterior.is_point else "diagonal" if posterior.u_scale is not None else "full"
    likelihood, bounded = model.ratings, isinstance(model.ratings, BernoulliBound)
    likelihood.check(columns)
    if bounded:
        likelihood = BernoulliBound(model.ratings.zeros)
        likelihood.prepare(pairs.n_users)
        likelihood.to(dtype)
    order, second = torch.argsort(columns.users, stable=True), None
    with torch.no_grad():
        for _ in range(SWEEPS_OF_A_BOUND if bounded else 1):
            site = likelihood.site(columns, second)
            there = seen[columns.items].to(dtype)
            weights = site.precision - site.zeros_at(columns.users) * there
            targets = site.shift - site.zero_shift * there
            cells = Cells.of_users(columns, site).with_values(weights[order], targets[order])
            rows = update_users(model, site, cells, items, seen, family).rows
            if bounded:
                stored = stored_scores(model, rows, items, columns)
                _, zeros, count = zero_scores(model, rows, items, columns, stored)
                likelihood.learn(zeros / count.clamp(min=1))
                second = stored[1]
    return rows


def _item_rows(fit: Fit) -> Rows:
    """q(V) as the half-step reads it; a structured one has the items' own covariances, with the spread of z."""
    posterior, model = fit.posterior, fit.model
    loc = model.own("v", posterior.v_loc)
    if posterior.is_point:
        return Rows(loc)
    if posterior.v_scale is not None:
        return Rows(loc, model.own("v", posterior.v_scale).square())
    assert posterior.v_covariance is not None
    if posterior.kind != "structured":
        return Rows(loc, covariance=model.own("v", posterior.v_covariance), block=posterior.v_block)
    rows = torch.arange(len(loc))  # blocks are shared by items without a rating, their spreads of z are not
    own = torch.cat([model.own("v", posterior.covariance("v", part)) for part in rows.split(ROWS_AT_ONCE)])
    return Rows(loc, covariance=own, block=rows)


def _with_users(fit: Fit, asked: list[Any], at: np.ndarray, pairs: Interactions, rows: Rows) -> UpdatedFit:
    """The fit with the users ``asked`` in the rows ``at``, which may be theirs already."""
    dataset, split, posterior = fit.dataset, fit.split, fit.posterior
    n_users = max(dataset.n_users, int(at.max()) + 1)
    fresh = [user for user, row in zip(asked, at.tolist(), strict=True) if row >= dataset.n_users]
    source = np.arange(n_users)
    source[at] = dataset.n_users + np.arange(len(asked))
    wider = fit.model.of_users
    changes: dict[str, Any] = {"u_loc": torch.cat([posterior.u_loc, wider(rows.loc)])}
    if posterior.u_scale is not None:
        assert rows.variance is not None
        changes["u_scale"] = torch.cat([posterior.u_scale, wider(rows.variance.sqrt(), 0.0)])
    if posterior.u_covariance is not None:
        assert rows.covariance is not None and rows.block is not None and posterior.u_block is not None
        changes["u_covariance"] = torch.cat([posterior.u_covariance, wider(rows.covariance, 0.0)])
        changes["u_block"] = torch.cat([posterior.u_block, rows.block + len(posterior.u_covariance)])
    mask = np.concatenate([folded_in(fit), np.ones(n_users - dataset.n_users, bool)])
    mask[at] = True
    replaced = np.zeros(n_users, bool)
    replaced[at] = True
    pairs = Interactions.from_arrays(
        at[pairs.users],
        pairs.items,
        n_users=n_users,
        n_items=pairs.n_items,
        ratings=pairs.ratings,
        confidences=pairs.confidences,
    )
    train, interactions = (_joined(part, replaced, pairs) for part in (split.train, dataset.interactions))
    nothing = pairs.select(np.zeros(len(pairs), bool))
    validation = None if split.validation is None else _joined(split.validation, replaced, nothing)
    tuning = split.tuning_users
    if tuning is not None:
        tuning = np.concatenate([tuning, np.zeros(n_users - len(tuning), bool)])
    return _updated(
        fit,
        posterior=replace(posterior, **changes).select(users=source),
        dataset=replace(
            dataset,
            interactions=interactions,
            user_ids=_extended(dataset.user_ids, fresh, "user"),
            truth=None,
        ),
        split=replace(
            split,
            train=train,
            test=_joined(split.test, replaced, nothing),
            validation=validation,
            tuning_users=tuning,
        ),
        folded_in=mask,
    )


def _joined(part: Interactions, replaced: np.ndarray, more: Interactions) -> Interactions:
    """The pairs of a part without those of the users ``replaced``, and ``more``."""
    kept = part.select(~replaced[part.users])

    def column(name: str, missing: float) -> np.ndarray | None:
        old, new = getattr(kept, name), getattr(more, name)
        if old is None and new is None:
            return None
        filled = [np.full(len(of), missing) if c is None else c for of, c in ((kept, old), (more, new))]
        return np.concatenate(filled)

    return Interactions.from_arrays(
        np.concatenate([kept.users, more.users]),
        np.concatenate([kept.items, more.items]),
        n_users=more.n_users,
        n_items=part.n_items,
        ratings=column("ratings", 1.0),
        confidences=column("confidences", np.nan),
        times=kept.times if not len(more) else None,
    )


# --- items -----------------------------------------------------------------------------------------------------------


def _with_items(posterior: Posterior, loc: Tensor, scale: Tensor) -> Posterior:
    """The posterior with items added after its own, v ~ N(loc, scale^2 + 1/lambda_v), biases at their prior."""
    around = posterior.around(loc)
    changes: dict[str, Any] = {"v_loc": torch.cat([posterior.v_loc, around])}
    changes |= {"z_loc": torch.cat([posterior.z_loc, loc]), "z_scale": torch.cat([posterior.z_scale, scale])}
    own = torch.full_like(around[0], 1 / posterior.lambda_v)
    if posterior.v_pad is not None:
        own[-2] = 0.0  # what meets the users' biases is given
    variance = torch.nn.functional.pad(scale.square(), (0, len(own) - loc.shape[1])) + own
    if posterior.v_scale is not None:
        changes["v_scale"] = torch.cat([posterior.v_scale, variance.sqrt()])
    if posterior.v_covariance is not None:
        assert posterior.v_block is not None
        n_blocks = len(posterior.v_covariance)
        if posterior.kind == "structured":  # given z; the posterior adds the spread of z itself
            covariance = torch.diag(own)[None]
            block = posterior.v_block.new_full((len(loc),), n_blocks)
        else:
            covariance, block = torch.diag_embed(variance), n_blocks + torch.arange(len(loc))
        changes["v_covariance"] = torch.cat([posterior.v_covariance, covariance])
        changes["v_block"] = torch.cat([posterior.v_block, block])
    return replace(posterior, **changes)


# --- both ------------------------------------------------------------------------------------------------------------


def _refuse_draws(fit: Fit) -> None:
    if isinstance(fit.posterior, Draws):
        problem = "stored draws of inference.mcmc have no closed form for users or items that were not in the fit"
        raise InputError(problem, "fit again with them, or with inference.coordinate")


def _updated(fit: Fit, **changes: Any) -> UpdatedFit:
    return UpdatedFit(**vars(fit) | {"fitted": fitted_part(fit)} | changes)


def _resized(part: Interactions, n_items: int) -> Interactions:
    return replace(part, n_items=n_items)


def _extended(known: np.ndarray, new: Sequence[Any], kind: str) -> np.ndarray:
    """The ids with new ones behind, all of one type; InputError where they are not."""
    whole = known.dtype.kind == "i"
    for one in new:
        is_integer = isinstance(one, int | np.integer) and not isinstance(one, bool)
        if is_integer != whole or not (is_integer or isinstance(one, str)):
            must = "a whole number" if whole else "text"
            raise InputError(f"{kind} id {one!r} is not {must}, as the ids of the fit are", "rename it")
    return np.concatenate([known, typed_ids(list(new), f"{kind}_ids")]) if len(new) else known
