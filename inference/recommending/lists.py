"""Lists of items for users, the chance that one item is above another, and items that are similar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from inference.fitting import Fit
from inference.posterior import Posterior
from inference.predicted import predicted, score_moments
from inference.recommending.asked import average_of, groups_of, known_pairs, origins_of, posterior_of
from inference.recommending.exclusions import Exclusions, exclusions_in
from inference.recommending.indexed import Indexed, recall
from inference.recommending.neighbours import nearest
from inference.recommending.options import PAIR_DRAWS, ListOptions
from inference.recommending.ranking import (
    Candidates,
    above_probabilities,
    best_items,
    credible_interval,
    seeds_of,
    top_probabilities,
)
from pyro_cvae.data.dataset import Dataset, spells_integer
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import UnknownId

ROWS_AT_ONCE = 2**17
"""Rows of lists that are made at once, about."""
RECALL_USERS = 1000
"""Users on whom the recall of an index is measured."""
COLUMNS = ("rank", "item", "title", "score", "sd", "group")


def recommend(
    fit: Fit,
    users: Iterable[Any],
    top: int = 10,
    *,
    candidates: Iterable[Any] | None = None,
    exclude: Iterable[Any] = (),
    exclude_pairs: Any = None,
    **wanted: Any,
) -> pd.DataFrame:
    """The ``top`` items for each user: user, rank, item, title, score, sd, group, origin, and what is asked for.

    ``score`` is E[u].E[v], ``sd`` the posterior standard deviation of u.v (missing for a point estimate), ``group``
    hot, warm or cold by the item's training ratings, or new for an added item. ``origin`` says where the user's list is
    from: "fit", "folded in" (:func:`inference.recommending.fold_in`), or "average" where nothing is known of the user,
    who then gets the average user's list (:mod:`inference.average`).

    ``wanted`` are the fields of :class:`inference.recommending.options.ListOptions` by name. With

    - explicit ratings: ``rating`` and ``rating_sd``, mean and standard deviation of a new rating, noise included;
    - ``interval``, a probability: ``low`` and ``high`` (:func:`inference.recommending.ranking.credible_interval`), of
      the score, or of a new rating where ratings are explicit;
    - ``top_probability``, a number M: ``p_top_M``, the probability to be among the user's M best candidates, by
      ``draws`` joint draws (:func:`inference.recommending.ranking.top_probabilities`);
    - ``ranking`` "thompson" or "ucb": lists in the order of one posterior draw a user, or of score + ``kappa`` sd, in a
      column of that name;
    - ``index`` "faiss": lists of the items that an approximate index finds (:mod:`inference.recommending.indexed`).

    Candidates are the items that a user is not known to have chosen, in whatever part of the split; with ``keep_test``
    those of the test part are candidates too, as in evaluation, with ``keep_seen`` all are. ``exclude`` are items that
    nobody is to get, ``exclude_pairs`` a table with columns ``user`` and ``item`` of what one user is not to get
    (:func:`inference.recommending.exclusions.exclusions_in`, whose answer is taken too). ``unknown`` users raise
    InputError ("error"), are left out ("drop") or get the average user's list ("prior"), after the known ones. Raises
    InputError for unknown item ids, and for a point estimate that is asked for uncertainty.
    """
    which: dict[str, Any] = {"candidates": candidates, "exclude": exclude, "exclude_pairs": exclude_pairs}
    parts = lists_in_parts(fit, users, top, **which, at_once=None, **wanted)
    return next(iter(parts))


def lists_in_parts(
    fit: Fit,
    users: Iterable[Any] | None,
    top: int = 10,
    *,
    candidates: Iterable[Any] | None = None,
    exclude: Iterable[Any] = (),
    exclude_pairs: Any = None,
    at_once: int | None = ROWS_AT_ONCE,
    **wanted: Any,
) -> Lists:
    """The lists of :func:`recommend` for very many users, or with ``None`` for all of the fit, part by part.

    A part has about ``at_once`` rows; ``None`` takes one part. Parameters and errors are those of :func:`recommend`.
    Each part has random numbers of its own.
    """
    options, dataset = ListOptions(**wanted), fit.dataset
    if fit.posterior.is_point and options.needs_uncertainty:
        raise InputError("a MAP fit is a point and has no uncertainty", "fit with --mode bayes")
    asked = [] if users is None else list(dict.fromkeys(users))
    if users is None:
        rows, ids = np.arange(dataset.n_users), dataset.user_ids
    else:
        rows = dataset.user_rows(asked, unknown="error" if options.unknown == "error" else "prior")
        order = [*np.flatnonzero(rows >= 0), *(np.flatnonzero(rows < 0) if options.unknown == "prior" else ())]
        rows, ids = rows[order], _as_ids([asked[at] for at in order], dataset.user_ids)
    block = options.block_size
    n_at_once = len(rows) if at_once is None else max(1, at_once // (top * block)) * block
    allowed = np.zeros(0, bool) if not len(rows) else _allowed(dataset, candidates, exclude)
    barred = exclude_pairs
    if barred is not None and not isinstance(barred, Exclusions):
        barred = exclusions_in(barred, dataset, asked)
    return Lists(fit, options, top, torch.as_tensor(allowed), rows, ids, max(1, n_at_once), barred)


@dataclass(frozen=True, eq=False)
class Lists:
    """Lists of users that are made part by part, as one asks for them: frames as of :func:`recommend`, one at least.

    ``rows`` and ``ids`` (n_asked,) are the users, a row of -1 a stranger; of them ``at_once`` are in a part. Lists are
    of ``top`` of the items ``allowed``, bool (n_items,), less the pairs that are ``barred``.
    """

    fit: Fit
    options: ListOptions
    top: int
    allowed: Tensor
    rows: np.ndarray
    ids: np.ndarray
    at_once: int
    barred: Exclusions | None = None

    def __len__(self) -> int:
        return max(1, -(-len(self.rows) // self.at_once))

    def __iter__(self) -> Iterator[pd.DataFrame]:
        if not len(self.rows):
            yield pd.DataFrame(columns=["user", *COLUMNS, "origin"])
            return
        seeds = [self.options.seed, *seeds_of(self.options.seed, len(self) - 1)]
        for number, seed in enumerate(seeds):
            part = slice(number * self.at_once, (number + 1) * self.at_once)
            yield self._of(self.rows[part], self.ids[part], seed)

    def recall(self, n_users: int = RECALL_USERS) -> float:
        """The share of exact lists that ``index`` finds, of so many users spread over all; 1 where it is exact."""
        if self._index is None or not len(self.rows):
            return 1.0
        at = np.linspace(0, len(self.rows) - 1, min(n_users, len(self.rows))).astype(np.int64)
        rows = self.rows[at]
        posterior, among = posterior_of(self.fit, rows, lambda: self._average), self._among(rows, self.ids[at])
        exact = best_items(posterior, np.arange(len(rows)), self.top, among)
        return recall(exact, self._index.best(posterior, self.top, among))

    @cached_property
    def _groups(self) -> np.ndarray:
        return groups_of(self.fit)

    @cached_property
    def _average(self) -> Posterior:
        return average_of(self.fit)

    @cached_property
    def _index(self) -> Indexed | None:
        faiss = self.options.index == "faiss"
        return Indexed(self.fit.posterior, self.allowed, self.options.probes) if faiss else None

    def _among(self, rows: np.ndarray, ids: np.ndarray) -> Candidates:
        seen = None if self.options.keep_seen else known_pairs(self.fit, rows, self.options.keep_test)
        if self.barred is not None:
            barred = self.barred.of(rows, ids.tolist())
            seen = barred if seen is None else seen + barred
        return Candidates(self.allowed, seen)

    def _of(self, rows: np.ndarray, ids: np.ndarray, seed: int) -> pd.DataFrame:
        """The lists of some users."""
        fit, options, among = self.fit, self.options, self._among(rows, ids)
        posterior, place = posterior_of(fit, rows, lambda: self._average), np.arange(len(rows))
        ranking, block = options.ranking, options.block_size
        if self._index is not None:
            values, items = self._index.best(posterior, self.top, among)
        else:
            values, items = best_items(posterior, place, self.top, among, ranking, options.kappa, seed, block)
        columns: dict[str, Tensor | None] = {"score": values, "sd": None}
        if ranking != "mean":
            columns |= {"score": posterior.mean_score(place[:, None], items), ranking: values}
        columns |= _uncertainty(fit, posterior, items, options.interval)
        if options.top_probability is not None:
            chances = top_probabilities(posterior, place, items, options.top_probability, among, options.draws, seed)
            columns[f"p_top_{options.top_probability}"] = chances
        return _table(fit, ids, items, columns, torch.isfinite(values), self._groups, origins_of(fit, rows))


def _uncertainty(fit: Fit, posterior: Posterior, items: Tensor, interval: float | None) -> dict[str, Tensor | None]:
    """Columns that say how sure the lists ``items`` (n_asked, n_listed) are, (n_asked, n_listed) each."""
    place = np.arange(len(items))[:, None]
    columns: dict[str, Tensor | None] = {}
    if not posterior.is_point:
        mean, sd = posterior.score(place, items)
        columns["sd"] = sd
    if fit.model.ratings.explicit:
        rating = predicted(fit.model.ratings, *score_moments(posterior, place, items), fit.split.train)
        columns |= {"rating": rating.mean, "rating_sd": rating.sd}
        if interval is not None:
            ends = rating.distribution.interval(interval)
            columns["low"], columns["high"] = (end.view_as(rating.mean) for end in ends)
    elif interval is not None:
        columns["low"], columns["high"] = credible_interval(mean, sd, interval)
    return columns


def compare_items(
    fit: Fit,
    users: Iterable[Any],
    pairs: Iterable[tuple[Any, Any]],
    *,
    draws: int = PAIR_DRAWS,
    seed: int = 0,
    unknown: UnknownId = "error",
) -> pd.DataFrame:
    """For each user the probability that one item scores above another: columns user, item, other, p_above.

    The share of ``draws`` joint draws in which u.v is larger for ``item`` than for ``other``; of users without a
    training pair, for the average user. ``unknown`` users and items raise InputError ("error") or leave their rows out
    ("drop"); with "prior" such users are the average user, too. Raises InputError for a point estimate.
    """
    dataset, strict = fit.dataset, unknown == "error"
    asked = list(dict.fromkeys(users))
    rows = dataset.user_rows(asked, unknown="error" if strict else "prior")
    kept = np.flatnonzero(np.full(len(rows), True) if unknown == "prior" else rows >= 0)
    names, posterior = _as_ids([asked[at] for at in kept], dataset.user_ids), posterior_of(fit, rows[kept])
    ids, tables = dataset.item_ids, [pd.DataFrame(columns=["user", "item", "other", "p_above"])]
    for pair in pairs:
        first, second = dataset.item_rows(pair, unknown="error" if strict else "prior")
        if min(first, second) < 0:
            continue
        chances = above_probabilities(posterior, np.arange(len(kept)), int(first), int(second), draws, seed)
        columns = {"user": names, "item": ids[first], "other": ids[second]}
        tables.append(pd.DataFrame(columns | {"p_above": chances.numpy().astype(np.float64)}))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def similar_items(
    fit: Fit,
    items: Iterable[Any],
    top: int = 10,
    *,
    candidates: Iterable[Any] | None = None,
    exclude: Iterable[Any] = (),
    unknown: UnknownId = "error",
) -> pd.DataFrame:
    """The ``top`` items nearest by cosine of the means of v: columns to, rank, item, title, score, group."""
    dataset = fit.dataset
    rows = dataset.item_rows(dict.fromkeys(items), unknown="error" if unknown == "error" else "drop")
    allowed = _allowed(dataset, candidates, exclude)
    values, found = nearest(fit.posterior.v_loc[:, : fit.posterior.n_factors], rows, allowed, top)
    return _table(
        fit, dataset.item_ids[rows], found, {"score": values, "sd": None}, torch.isfinite(values), groups_of(fit)
    )


def _allowed(dataset: Dataset, candidates: Iterable[Any] | None, exclude: Iterable[Any]) -> np.ndarray:
    """True for the items that may be ranked, bool (n_items,); InputError if there is none."""
    allowed = np.full(dataset.n_items, candidates is None)
    if candidates is not None:
        allowed[dataset.item_rows(candidates)] = True
    allowed[dataset.item_rows(exclude)] = False
    if not allowed.any():
        raise InputError("no item is left to be ranked", "give more candidates or fewer exclusions")
    return allowed


def _table(
    fit: Fit,
    ids: np.ndarray,
    items: Tensor,
    columns: dict[str, Tensor | None],
    kept: Tensor,
    groups: np.ndarray,
    origin: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rows of lists; ``items``, ``kept`` and each of the columns (n_ids, n_listed), a column ``None`` is missing.

    ``groups`` (n_items,) are those of the items, ``origin`` (n_ids,) of lists of users.
    """
    n, length = items.shape
    chosen = items.numpy().ravel()
    titles = None if fit.dataset.titles is None else fit.dataset.titles[chosen]
    shown = {
        "to" if origin is None else "user": np.repeat(ids, length),
        "rank": np.tile(np.arange(1, length + 1), n),
        "item": fit.dataset.item_ids[chosen],
        "title": titles,
    }
    shown |= {name: np.nan if column is None else column.numpy().ravel() for name, column in columns.items()}
    shown["group"] = groups[chosen]
    if origin is not None:
        shown["origin"] = np.repeat(origin, length)
    return pd.DataFrame(shown)[kept.numpy().ravel()].reset_index(drop=True)


def _as_ids(asked: Sequence[Any], known: np.ndarray) -> np.ndarray:
    """Ids in the type of the data's own, or as text where a stranger's is of another type."""
    whole = known.dtype.kind == "i" and all(spells_integer(str(one)) for one in asked)
    return np.array(list(map(int, asked)), np.int64) if whole else np.array(list(map(str, asked)), object)
