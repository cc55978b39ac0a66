"""Which items are ranked when a fit is evaluated: all, or those of a file, for everybody or for each user."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.delimited import read_lines
from pyro_cvae.data.frames import PAIRS, read_table
from pyro_cvae.data.splits import Split
from pyro_cvae.data.table import Table
from pyro_cvae.errors import InputError
from pyro_cvae.metrics import Positions, rank_positions
from pyro_cvae.protocol import Protocol
from pyro_cvae.text import counted

TABLES = (".csv", ".tsv", ".parquet")
"""Endings of files of candidates that are tables; others hold an item a line."""


@dataclass(frozen=True, eq=False)
class CandidateSet:
    """The items that are ranked: some for everybody, or some for each user.

    Parameters:
        items: True for the items that anybody's ranking has, bool (n_items,).
        pairs: Of a file of users and items the candidates of each user, sparse (n_users, n_items).
        name: What messages call it.
    """

    items: np.ndarray
    pairs: csr_matrix | None = None
    name: str = "all items"

    def told(self, split: Split) -> str:
        """The candidates and how many of the test pairs are among them, in a line."""
        test = split.test.select(split.test.positive)
        inside = self.items[test.items]
        if self.pairs is not None:
            inside = np.asarray(self.pairs[test.users, test.items]).ravel() > 0
        n = counted(self.items.sum(), "item")
        if self.pairs is not None:
            users = counted((np.diff(self.pairs.indptr) > 0).sum(), "user")
            n = f"{counted(self.pairs.nnz, 'pair')} of {users} and {n}"
        return (
            f"Candidates: {n} ({self.name}); {counted(inside.sum(), 'test pair', 'are', of=len(test))} among them, the"
            " others count for nothing."
        )


def read_candidates(path: str, dataset: Dataset) -> CandidateSet:
    """The candidates of a file: a table with a column item, and if there user; or lines of item ids.

    With users they are each user's own, and a user who is not named has none. Raises InputError, with the line, for an
    id that the data do not have.
    """
    if any(ending in TABLES for ending in map(str.lower, Path(path).suffixes)):
        wanted = {name: PAIRS[name] for name in ("user", "item")}
        table = read_table(path).pick(wanted, ("item",))
    else:
        kept = [(line, text.strip()) for line, text in enumerate(read_lines(path), 1) if text.strip()]
        if not kept:
            raise InputError("holds no id", "write one id a line", path=path)
        lines, ids = zip(*kept, strict=True)
        table = Table({"item": ids}, path=Path(path), lines=lines, typed=False)
    rows: dict[str, np.ndarray] = {}
    for kind, known in (("user", dataset.user_ids), ("item", dataset.item_ids)):
        if kind not in table.columns:
            continue
        given = table.columns[kind]
        rows[kind] = (dataset.user_rows if kind == "user" else dataset.item_rows)(given, unknown="prior")
        if (rows[kind] < 0).any():
            row = int(np.argmax(rows[kind] < 0))
            raise table.error(
                f"no {kind} has the id {given[row]!r}", f"ids of {kind}s look like {known[:1].tolist()[0]!r}", row
            )
    items = np.zeros(dataset.n_items, bool)
    items[rows["item"]] = True
    if "user" not in rows:
        return CandidateSet(items, None, path)
    pairs = csr_matrix(
        (np.ones(len(rows["item"]), np.float32), (rows["user"], rows["item"])), (dataset.n_users, dataset.n_items)
    )
    pairs.sum_duplicates()
    return CandidateSet(items, pairs, path)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The known and the test pairs of a ranking of some items alone.

    Parameters: ``known`` and ``test`` sparse (n_users, n_items); ``items`` bool (n_items,), the items that are ranked;
    ``pairs`` the candidates of each user, sparse (n_users, n_items), or ``None``.
    """

    known: csr_matrix
    test: csr_matrix
    items: np.ndarray
    pairs: csr_matrix | None = None

    @cached_property
    def columns(self) -> np.ndarray:
        """The items that are ranked, (n_ranked,)."""
        return np.flatnonzero(self.items)

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        """Known, test and allowed pairs of the ranked items alone, sparse (n_users, n_ranked)."""
        known, test, pairs = (self._of(part) for part in (self.known, self.test, self.pairs))
        if pairs is None:
            return known, test, None
        return (*(part.multiply(pairs > 0).tocsr() for part in (known, test)), pairs)

    def _of(self, matrix: csr_matrix | None) -> Any:
        return matrix if matrix is None or self.items.all() else matrix[:, self.columns]

    def relevant(self, protocol: Protocol) -> csr_matrix:
        """The pairs that a ranking is to find, sparse (n_users, n_ranked)."""
        known, test, _ = self._parts
        return (known + test).tocsr() if protocol == "paper" else test

    def positions(self, scores: torch.Tensor, users: np.ndarray, depth: int, protocol: Protocol) -> Positions:
        """Where the relevant items of a block of users stand; ``scores`` (n_block, n_items), items of the data."""
        known, test, pairs = (None if part is None else part[users] for part in self._parts)
        if not self.items.all():
            scores = scores[:, torch.from_numpy(self.columns)]
        positions = rank_positions(scores, known, test, depth, protocol, pairs)
        if self.items.all():
            return positions
        return positions._replace(item=torch.from_numpy(self.columns)[positions.item])
