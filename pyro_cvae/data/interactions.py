"""Interactions: the stored (user, item) pairs of a rating matrix, with their ratings, confidences and times."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

log = logging.getLogger(__name__)
LARGEST_SPREAD = 1e6
"""How many times the usual weight a weight may be, or how small a part of it, for float32 to tell pairs apart."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Stored pairs sorted by (user, item), each at most once; every other cell is rating 0 with confidence ``b``.

    Parameters:
        users: Row of the user, int64 (n_pairs,).
        items: Row of the item, int64 (n_pairs,).
        ratings: R_ij, float64 (n_pairs,); 1 for implicit data.
        confidences: Weights of the pairs, float64 (n_pairs,), of which C_ij is made (:meth:`precisions`); ``None`` or
            NaN is the model's ``a``; 0 means that the cell is missing, that is, it has no factor in the likelihood.
        times: When, float64 (n_pairs,), in seconds since 1970 where the source has dates; ``None`` or NaN if unknown.
        n_users: Number of rows of the matrix.
        n_items: Number of its columns.

    Raises InputError if the pairs are unsorted, repeated or out of range, or a number is not what it must be.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    confidences: np.ndarray | None
    times: np.ndarray | None
    n_users: int
    n_items: int

    def __post_init__(self) -> None:
        n = len(self.users)
        for name in ("items", "ratings", "confidences", "times"):
            column = getattr(self, name)
            if column is not None and column.shape != (n,):
                raise InputError(f"{name} has shape {column.shape}, users has ({n},)", "give one value for each pair")
        for name, column, size in (("user", self.users, self.n_users), ("item", self.items, self.n_items)):
            if n and (column.min() < 0 or column.max() >= size):
                raise InputError(f"{name} rows run from {column.min()} to {column.max()}", f"use 0 to {size - 1}")
        if np.any(np.diff(self.keys) <= 0):
            raise InputError("pairs are not sorted and unique", "build them with Interactions.from_arrays")
        if not np.isfinite(self.ratings).all():
            raise InputError("a rating is not a finite number", "leave the pair out or give it confidence 0")
        if self.confidences is not None and (np.isinf(self.confidences).any() or (self.confidences < 0).any()):
            raise InputError("a confidence is negative or infinite", "use 0 for a missing cell, NaN for the usual one")
        if self.times is not None and np.isinf(self.times).any():
            raise InputError("a time is infinite", "use NaN for a pair without a time")

    @classmethod
    def from_arrays(
        cls,
        users: Any,
        items: Any,
        *,
        n_users: int,
        n_items: int,
        ratings: Any = None,
        confidences: Any = None,
        times: Any = None,
        duplicates: Literal["last", "error"] = "last",
    ) -> Interactions:
        """Sort pairs given in any order and settle repeated ones.

        ``duplicates="last"`` keeps the last row of each pair (its rating, confidence and time) and logs a warning with
        the number of rows left out; ``"error"`` raises InputError.
        """
        users, items = np.asarray(users, np.int64), np.asarray(items, np.int64)
        # Stable: of equal pairs the one given last comes last, and is the one kept.
        sorted_already = bool((np.diff(users) >= 0).all() and (np.diff(items)[np.diff(users) == 0] > 0).all())
        order = np.arange(len(users)) if sorted_already else np.lexsort((items, users))
        last = np.ones(len(order), bool)
        sorted_users, sorted_items = users[order], items[order]
        last[:-1] = (sorted_users[1:] != sorted_users[:-1]) | (sorted_items[1:] != sorted_items[:-1])
        repeated = int(len(last) - last.sum())
        if repeated and duplicates == "error":
            raise InputError(
                f"{counted(repeated, 'pair', 'are')} there more than once", "list each pair of user and item once"
            )
        if repeated:
            told = counted(repeated, "repeated pair")
            log.warning("%s of user and item merged: the last row of each is kept", told)
        rows = order[last]

        def column(values: Any) -> np.ndarray | None:
            return None if values is None else np.asarray(values, np.float64)[rows]

        ones = np.ones(len(rows)) if ratings is None else np.asarray(ratings, np.float64)[rows]
        return cls(users[rows], items[rows], ones, column(confidences), column(times), int(n_users), int(n_items))

    def __repr__(self) -> str:
        pairs, users, items = counted(len(self), "pair"), counted(self.n_users, "user"), counted(self.n_items, "item")
        return f"Interactions({pairs} of {users} and {items})"

    def __len__(self) -> int:
        return len(self.users)

    @property
    def keys(self) -> np.ndarray:
        """One number for each pair, user * n_items + item, int64 (n_pairs,), ascending."""
        return self.users * self.n_items + self.items

    @property
    def observed(self) -> np.ndarray:
        """True where the pair is observed, False where it is missing (confidence 0), bool (n_pairs,)."""
        return np.ones(len(self), bool) if self.confidences is None else self.confidences != 0

    @property
    def weight_unit(self) -> float:
        """The usual weight, which stands for the model's ``a``: the lower median of those stated above 0, else 1."""
        given = np.zeros(0) if self.confidences is None else self.confidences[self.confidences > 0]
        middle = (len(given) - 1) // 2
        return float(np.partition(given, middle)[middle]) if len(given) else 1.0

    def precisions(self, a: float, unit: float | None) -> np.ndarray:
        """C_ij = a w_ij / ``unit`` of each pair, ``a`` where it states no weight w_ij, float64 (n_pairs,).

        Without a ``unit`` the weights are the precisions themselves. Raises InputError where a weight above 0 and the
        unit are more than :data:`LARGEST_SPREAD` apart.
        """
        if self.confidences is None:
            return np.full(len(self), float(a))
        stated = np.where(np.isnan(self.confidences), a if unit is None else unit, self.confidences)
        if unit is None:
            return stated
        with np.errstate(over="ignore"):
            relative = stated / unit
        far = (relative > 0) & ((relative > LARGEST_SPREAD) | (relative < 1 / LARGEST_SPREAD))
        if far.any():
            problem = f"a weight is {stated[far][0]:g} where the usual one is {unit:g}"
            raise InputError(
                f"{problem}: weights that differ more than {LARGEST_SPREAD:,.0f} times are no weights",
                "give their logarithms, or cut them off",
            )
        return a * relative

    @property
    def positive(self) -> np.ndarray:
        """True where the pair is observed with a rating above 0, bool (n_pairs,)."""
        return self.observed & (self.ratings > 0)

    @cached_property
    def user_counts(self) -> np.ndarray:
        """Observed pairs of each user, int64 (n_users,)."""
        return np.bincount(self.users[self.observed], minlength=self.n_users)

    @cached_property
    def item_counts(self) -> np.ndarray:
        """Observed pairs of each item, int64 (n_items,)."""
        return np.bincount(self.items[self.observed], minlength=self.n_items)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each user's pairs begin, and at the end their number, int64 (n_users + 1,)."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.users, minlength=self.n_users))])

    def of_users(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of some users, rows (n_asked,) of which those below 0 have none: places in ``rows``, and pairs.

        Both (n_found,); the pairs of a user are in their order.
        """
        known = np.maximum(rows, 0)
        begins = self.starts[known]
        counts = np.where(rows >= 0, self.starts[known + 1] - begins, 0) if self.n_users else np.zeros(len(rows), int)
        place = np.repeat(np.arange(len(rows)), counts)
        return place, np.arange(len(place)) + np.repeat(begins - np.cumsum(counts) + counts, counts)

    @property
    def complete(self) -> bool:
        """Whether every cell of the matrix is stored."""
        return len(self) == self.n_users * self.n_items

    def select(self, mask: Any) -> Interactions:
        """The pairs where ``mask``, bool (n_pairs,), is true."""
        mask = np.asarray(mask, bool)

        def column(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[mask]

        return replace(
            self,
            users=self.users[mask],
            items=self.items[mask],
            ratings=self.ratings[mask],
            confidences=column(self.confidences),
            times=column(self.times),
        )

    def as_missing(self, mask: Any) -> Interactions:
        """The same pairs, those where ``mask`` is true marked missing: confidence 0, and rating 0 so nothing leaks."""
        confidences = np.full(len(self), np.nan) if self.confidences is None else self.confidences
        return replace(self, ratings=np.where(mask, 0.0, self.ratings), confidences=np.where(mask, 0.0, confidences))

    def csr(self) -> sp.csr_matrix:
        """The ratings of the observed pairs as a sparse matrix (n_users, n_items); missing pairs are left out."""
        seen = self.observed
        indptr = np.concatenate([[0], np.cumsum(self.user_counts)])
        shape = (self.n_users, self.n_items)
        return sp.csr_matrix((self.ratings[seen], self.items[seen], indptr), shape=shape)

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name, those that are ``None`` left out: what is saved and fingerprinted."""
        names = ("users", "items", "ratings", "confidences", "times")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def pairs_matrix(*parts: Interactions) -> Any:
    """CSR matrix (n_users, n_items) of float32 ones at every pair of the parts, in order, a pair of two parts once."""
    cells = np.concatenate([part.users for part in parts]), np.concatenate([part.items for part in parts])
    shape = parts[0].n_users, parts[0].n_items
    matrix = sp.coo_matrix((np.ones(len(cells[0]), np.float32), cells), shape=shape).tocsr()
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix
