r"""Users folded into a fit, in closed form, from their whole lists of items.

A user with a list of items has the best q(u_i) given q(V), which is a row of the fit's own half-step
(:mod:`inference.algorithms.half_steps`; paper, sections 2.2 and 2.3):

    N(Lambda_i^-1 h_i, Lambda_i^-1),    Lambda_i = lambda_u I + sum_j C_ij E[v_j v_j'],    h_i = sum_j C_ij R_ij E[v_j].

Under a Gaussian bound of the ratings this is repeated with the bound's parameters of the user, as in the fit.

**The whole list is needed**: every other item counts as one that the user did not choose, with confidence b. A list of
the latest choices alone is a user who has chosen nothing else. The fit itself stays as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from inference.fitting import Fit
from inference.recommending.conditional import conditional_of_users, prior_of
from inference.recommending.updated import UpdatedFit, extended, folded_in, refuse_draws, unused_id, updated
from models.gaussians import Gaussians
from pyro_cvae.data.dataset import spells_integer
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Unknown
from pyro_cvae.text import counted

log = logging.getLogger("pyro_cvae")


def fold_in(
    fit: Fit,
    users: Iterable[Any],
    items: Iterable[Any],
    *,
    ratings: Sequence[float] | np.ndarray | None = None,
    confidences: Sequence[float] | np.ndarray | None = None,
    unknown: Unknown = "error",
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
    _need_closed_form(fit)
    dataset, whole = fit.dataset, fit.dataset.user_ids.dtype.kind == "i"
    given = [int(one) if whole and isinstance(one, str) and spells_integer(one) else one for one in users]
    asked = list(dict.fromkeys(given))
    if not asked:
        raise InputError("nobody is to be folded in", "give at least one pair of a user and an item")
    listed = dataset.item_rows(items, unknown="error" if unknown == "error" else "prior")
    if len(listed) != len(given):
        raise InputError(
            f"{counted(len(given), 'user')} and {counted(len(listed), 'item')} are no pairs",
            "give one item for each user",
        )
    row_of = {user: row for row, user in enumerate(asked)}
    kept = listed >= 0
    if not kept.all():
        told = counted((~kept).sum(), "pair")
        log.warning("%s of unknown items left out of the lists of folded-in users", told)
    pairs = Interactions.from_arrays(
        np.array([row_of[user] for user in given])[kept],
        listed[kept],
        n_users=len(asked),
        n_items=dataset.n_items,
        ratings=None if ratings is None else np.asarray(ratings, np.float64)[kept],
        confidences=None if confidences is None else np.asarray(confidences, np.float64)[kept],
    )
    rows = conditional_of_users(fit, pairs, prior_of(fit, asked)).rows
    known = dataset.user_rows(asked, unknown="prior")
    at = np.where(known >= 0, known, dataset.n_users + np.cumsum(known < 0) - 1)  # where each one goes
    return _with_users(fit, asked, at, pairs, rows)


def without_users(fit: Fit) -> UpdatedFit:
    """The fit without its users: who is folded into it is answered alike, and nothing of the others is copied.

    Their ids are free in it. Where one of them may be meant, take the fit itself.
    """
    dataset, split = fit.dataset, fit.split

    def nobody(part: Interactions) -> Interactions:
        return replace(part.select(np.zeros(len(part), bool)), n_users=0)

    return updated(
        fit,
        posterior=fit.posterior.select(users=np.zeros(0, np.int64)),
        dataset=replace(dataset, interactions=nobody(dataset.interactions), user_ids=dataset.user_ids[:0], truth=None),
        split=replace(
            split,
            train=nobody(split.train),
            test=nobody(split.test),
            validation=None if split.validation is None else nobody(split.validation),
            tuning_users=None if split.tuning_users is None else split.tuning_users[:0],
        ),
        folded_in=np.zeros(0, bool),
    )


def posterior_of_lists(fit: Fit, pairs: Interactions) -> Gaussians:
    """The best q(u) of users given q(V) and their whole lists, ``pairs`` of them and the items of the fit.

    What :func:`fold_in` gives a new user, in scores' coordinates, without a new fit. Raises InputError as that does.
    """
    _need_closed_form(fit)
    nobody = [unused_id(fit.dataset.user_ids, "new user")] * pairs.n_users
    return fit.model.in_scores("u", conditional_of_users(fit, pairs, prior_of(fit, nobody)).rows)


def _need_closed_form(fit: Fit) -> None:
    if not fit.model.ratings.conjugate:
        raise InputError(f"{fit.model.ratings.refuse('folding in').problem}", "fit again with these users")
    refuse_draws(fit)


def _with_users(fit: Fit, asked: list[Any], at: np.ndarray, pairs: Interactions, rows: Gaussians) -> UpdatedFit:
    """The fit with the users ``asked`` in the rows ``at``, which may be theirs already."""
    dataset, split, posterior = fit.dataset, fit.split, fit.posterior
    n_users = max(dataset.n_users, int(at.max()) + 1)
    fresh = [user for user, row in zip(asked, at.tolist(), strict=True) if row >= dataset.n_users]
    source = np.arange(n_users)
    source[at] = dataset.n_users + np.arange(len(asked))
    users = posterior.u.joined(fit.model.in_scores("u", rows))
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
    return updated(
        fit,
        posterior=replace(posterior, u=users.select(torch.from_numpy(source))),
        dataset=replace(
            dataset,
            interactions=interactions,
            user_ids=extended(dataset.user_ids, fresh, "user"),
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
