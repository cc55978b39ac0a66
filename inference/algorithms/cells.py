"""The stored cells of one side of the matrix, row by row, and blocks of rows of like length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from inference.algorithms import kernels
from inference.algorithms.afar import Afar
from inference.algorithms.summed import Elsewhere
from models.observations import RatingColumns
from models.ratings import GaussianSite

BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**28}
"""Bytes that a block of rows may take at once: what a cache holds, or what keeps a GPU busy."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The stored cells of one side, row by row.

    Shapes: ``indptr`` (n_rows + 1,); ``others`` the other side's row, ``weights`` c - b, ``targets`` c r, all
    (n_stored,); ``observed`` (n_rows,), false for rows that have no cells at all, not even zeros. Of any Gaussian site
    the weights are its precisions less those of zeros, the targets its shifts less those of zeros. With ``elsewhere``
    these are the cells of one worker, whose half-step gives the rows that all workers' cells have. With rows ``afar`` a
    half-step is told this worker's rows of the other side, and ``others`` are places among those that are met.
    """

    indptr: Tensor
    others: Tensor
    weights: Tensor
    targets: Tensor
    observed: Tensor
    elsewhere: Elsewhere | None = None
    afar: Afar | None = None

    @classmethod
    def of_items(cls, columns: RatingColumns, site: float | GaussianSite) -> Cells:
        """Rows are items, others are users; ``site`` is the ratings' Gaussian site, or their background b."""
        return cls(columns.indptr, columns.users, *values_of(columns, site), columns.observed)

    @classmethod
    def of_users(cls, columns: RatingColumns, site: float | GaussianSite) -> Cells:
        """Rows are users, others are items."""
        order = torch.argsort(columns.users, stable=True)
        counts = torch.bincount(columns.users, minlength=columns.n_users)
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        weights, targets = (value[order] for value in values_of(columns, site))
        return cls(indptr, columns.items[order], weights, targets, torch.ones_like(counts, dtype=torch.bool))

    def with_values(self, weights: Tensor, targets: Tensor) -> Cells:
        """The same cells with other weights and targets."""
        other = replace(self, weights=weights, targets=targets)
        for name in ("_buckets", "needed", "unobserved"):
            vars(other)[name] = getattr(self, name)
        return other

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> Tensor:
        """Stored cells of each row, (n_rows,)."""
        return self.indptr.diff()

    @property
    def counts(self) -> Tensor:
        """Stored cells of each row in all, those elsewhere among them, (n_rows,)."""
        return self.lengths if self.elsewhere is None else self.elsewhere.counts

    def over_cells(self, tensor: Tensor) -> Tensor:
        """A sum over cells, with those elsewhere; it may be changed in place."""
        return tensor if self.elsewhere is None else self.elsewhere.workers.add(tensor)

    def over_others(self, tensor: Tensor) -> Tensor:
        """A sum over the other side's rows, with those of other workers; it may be changed in place."""
        return self.over_cells(tensor) if self.afar is None else self.afar.workers.add(tensor)

    def shift(self, other: Tensor) -> Tensor:
        """Sum over each row's stored cells of c r times the other side's row, (n_rows, n_factors)."""
        return kernels.shift(self, other)

    @cached_property
    def needed(self) -> Tensor:
        """Rows that have cells or are observed."""
        return (self.observed | (self.lengths > 0)).nonzero().squeeze(-1)

    @cached_property
    def unobserved(self) -> Tensor:
        """Rows that are not observed."""
        return (~self.observed).nonzero().squeeze(-1)

    @cached_property
    def _buckets(self) -> list[tuple[int, Tensor]]:
        """Rows with cells by like length: the longest length and the rows, exact up to 8, then within a quarter."""
        lengths, order = self.lengths.sort(stable=True)
        longest, buckets, begin = int(lengths[-1:].sum()), list[tuple[int, Tensor]](), int((lengths == 0).sum())
        while begin < len(order):
            length = int(lengths[begin])
            length = length if length <= 8 else min(longest, length + length // 4)
            end = int(torch.searchsorted(lengths, length, right=True))
            buckets.append((length, order[begin:end]))
            begin = end
        return buckets

    def blocks(self, floats: Callable[[int], int], among: Tensor | None = None) -> list[Tensor]:
        """Rows with cells in blocks of like length; ``floats`` is what a row of a length needs at once.

        ``among`` are the rows that are wanted where it is not all.
        """
        bound, buckets = block_bytes(self.weights) // self.weights.element_size(), self._buckets
        if among is not None:
            wanted = torch.zeros(len(self), dtype=torch.bool, device=among.device)
            wanted[among] = True
            buckets = [(length, rows[wanted[rows]]) for length, rows in buckets] if len(among) else []
        parts = [rows.split(max(1, bound // floats(length))) for length, rows in buckets if len(rows)]
        return [block for part in parts for block in part]

    def padded(self, rows: Tensor) -> Padded:
        """The cells of some rows as a rectangle; what is beyond a row's end has weight and target 0."""
        lengths = self.lengths[rows]
        place = torch.arange(int(lengths.max()), device=rows.device)
        real = place < lengths[:, None]
        at = torch.where(real, self.indptr[rows, None] + place, 0)
        weights, targets = self.weights[at], self.targets[at]
        full = bool(real.all())
        if not full:
            weights, targets = weights * real, targets * real
        return Padded(self.others[at], weights, targets, real, full)


def values_of(columns: RatingColumns, site: float | GaussianSite) -> tuple[Tensor, Tensor]:
    """Weights and targets of the stored cells, in the order of the columns, (n_stored,) each."""
    c = columns.confidences
    if isinstance(site, int | float):
        return c - site, c * columns.ratings
    targets = site.shift - site.zero_shift if site.zero_shift else site.shift
    return site.precision - site.zeros_at(columns), targets


@dataclass(frozen=True, eq=False)
class Padded:
    """Cells of rows of like length, (n_rows, length) each; ``real`` marks what is no padding, ``full`` that all is."""

    others: Tensor
    weights: Tensor
    targets: Tensor
    real: Tensor
    full: bool


def block_bytes(tensor: Tensor) -> int:
    """Bytes of a block on the device of a tensor."""
    return BLOCK_BYTES.get(tensor.device.type, BLOCK_BYTES["cpu"])
