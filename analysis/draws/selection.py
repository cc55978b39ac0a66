"""The users, items and pairs whose draws are exported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.draws.pairs import Cells, held_out_cells, pairs_by_kind, places_in, seen_cells, spread_rows
from inference.fitting import Fit
from pyro_cvae.data.cells import ids_of, with_ids
from pyro_cvae.data.frames import PAIRS, read_table
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

PAIRS_OF_A_KIND = 10


@dataclass(frozen=True)
class Export:
    """How much of a fit is exported.

    Parameters:
        draws: Joint draws in all; of MCMC of the stored ones, a multiple of its chains.
        seed: Of the draws.
        n_users: Users where none is named, evenly over their numbers of ratings; 0 takes all.
        n_items: Items where none is named, evenly over their numbers of training ratings; 0 takes all.
        user_log_likelihood: log p(R_i | u_i, V) too, for which v of every item with a column is drawn, and dropped.
        prior: Draws of the prior too.
        max_memory: GiB that the arrays may take.
    """

    draws: int = 1000
    seed: int = 0
    n_users: int = 20
    n_items: int = 20
    user_log_likelihood: bool = False
    prior: bool = True
    max_memory: float = 1.0


@dataclass(frozen=True, eq=False)
class Selection:
    """What is exported, by row.

    Shapes: ``users`` (n_users,), ``items`` (n_items,), ``pair_users`` and ``pair_items`` (n_pairs,).
    """

    fit: Fit
    users: np.ndarray
    items: np.ndarray
    pair_users: np.ndarray
    pair_items: np.ndarray

    @cached_property
    def seen(self) -> Cells:
        """The pairs that the fit saw."""
        return seen_cells(self.fit, self.pair_users, self.pair_items)

    @cached_property
    def held_out(self) -> Cells:
        """The pairs of the test part."""
        return held_out_cells(self.fit, self.pair_users, self.pair_items)

    def pair_of(self, cells: Cells) -> np.ndarray:
        """The place of each cell among the pairs, (n_cells,)."""
        n_items = self.fit.dataset.n_items
        pairs = self.pair_users * n_items + self.pair_items
        order = np.argsort(pairs, kind="stable")
        return order[np.searchsorted(pairs[order], cells.users * n_items + cells.items)]

    def need_memory(self, export: Export) -> None:
        """Raise InputError, naming the size, where the arrays would take more than ``export.max_memory`` GiB."""
        loc = self.fit.posterior.u_loc
        n_factors, biases = self.fit.posterior.n_factors, int(self.fit.model.mean is not None)
        latent = (n_factors + biases) * len(self.users) + (3 * n_factors + biases) * len(self.items)
        drawn = (latent + len(self.pair_users) + len(self.seen)) * (2 if export.prior else 1) + len(self.held_out)
        doubles = len(self.seen) + (len(self.users) if export.user_log_likelihood else 0)
        needed = export.draws * (drawn * loc.element_size() + doubles * 8) / 2**30
        if needed > export.max_memory:
            users, items = counted(len(self.users), "user"), counted(len(self.items), "item")
            what = f"{users}, {items} and {counted(len(self.pair_users), 'pair')}"
            takes = f"{counted(export.draws, 'draw')} of {what} take {needed:.1f} GiB"
            problem = f"{takes}, above --max-memory {export.max_memory:g}"
            raise InputError(problem, "ask for fewer draws, users, items or pairs, or for more --max-memory")

    def coordinates(self) -> dict[str, np.ndarray]:
        """The ids of users and items, numbers of factors, and both ids of pairs and cells, by dimension."""
        dataset = self.fit.dataset
        coords = {"user": plain_texts(dataset.user_ids[self.users]), "item": plain_texts(dataset.item_ids[self.items])}
        coords |= {"factor": np.arange(self.fit.posterior.n_factors)}
        for dim, users, items in self._places():
            ids = zip(dataset.user_ids[users].tolist(), dataset.item_ids[items].tolist(), strict=True)
            coords[dim] = np.array([f"{user}, {item}" for user, item in ids], np.str_)
        return coords

    def ends(self, *dims: str) -> dict[str, np.ndarray]:
        """The ids of the users and items of pairs, one variable each, as ``pair_user``."""
        ids = {}
        for dim, users, items in self._places():
            if dim in dims and len(users):
                ids[f"{dim}_user"] = plain_texts(self.fit.dataset.user_ids[users])
                ids[f"{dim}_item"] = plain_texts(self.fit.dataset.item_ids[items])
        return ids

    def _places(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """The dimensions of pairs, with the rows of users and items of each."""
        seen, held_out = self.seen, self.held_out
        pairs = ("pair", self.pair_users, self.pair_items)
        return [pairs, ("cell", seen.users, seen.items), ("held_out", held_out.users, held_out.items)]

    def kinds_of_pairs(self) -> np.ndarray:
        """The kind of each pair, "train", "test" or "neither", (n_pairs,)."""
        split = self.fit.split
        in_train, in_test = (
            places_in(stored, self.pair_users, self.pair_items)[1] for stored in (split.train, split.test)
        )
        return np.where(in_test, "test", np.where(in_train, "train", "neither"))


def select(
    fit: Fit,
    users: Iterable[Any] | None,
    items: Iterable[Any] | None,
    pairs: Iterable[tuple[Any, Any]] | None,
    export: Export,
) -> Selection:
    """The rows of external ids, and of what is not named a choice, as :func:`analysis.draws.datatree.to_datatree` says.

    Raises InputError for an unknown id.
    """
    dataset, both = fit.dataset, users is not None and items is not None
    if users is None:
        user_rows = spread_rows(dataset.interactions.user_counts, export.n_users)
    else:
        user_rows = _unique(dataset.user_rows(users))
    if items is None:
        item_rows = spread_rows(fit.split.train.item_counts, export.n_items)
    else:
        item_rows = _unique(dataset.item_rows(items))
    if pairs is not None:
        listed = list(pairs)
        pair_users = dataset.user_rows([pair[0] for pair in listed])
        pair_items = dataset.item_rows([pair[1] for pair in listed])
    elif both:
        pair_users, pair_items = np.repeat(user_rows, len(item_rows)), np.tile(item_rows, len(user_rows))
    else:
        kinds = pairs_by_kind(fit, user_rows, PAIRS_OF_A_KIND, export.seed).values()
        pair_users, pair_items = (np.concatenate(rows) for rows in zip(*kinds, strict=True))
    return Selection(fit, user_rows, item_rows, pair_users, pair_items)


def _unique(rows: np.ndarray) -> np.ndarray:
    """Rows in the order given, each once."""
    return rows[np.sort(np.unique(rows, return_index=True)[1])]


def read_pairs(path: str) -> list[tuple[Any, Any]]:
    """Pairs of ids from a table with columns user and item (:mod:`pyro_cvae.data.frames`). Raises InputError."""
    columns = {name: PAIRS[name] for name in ("user", "item")}
    table = with_ids(read_table(path).pick(columns, ("user", "item")), "user", "item")
    ((users,), (items,)) = ids_of("user", table), ids_of("item", table)
    return list(zip(users, items, strict=True))


def plain_texts(values: np.ndarray) -> np.ndarray:
    """Texts as numpy's own strings, which NetCDF knows; numbers as they are."""
    return np.array([str(value) for value in values.tolist()], dtype=np.str_) if values.dtype == object else values
