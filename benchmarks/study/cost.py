r"""A model of what a sweep costs each of W workers, in seconds, bytes of memory and bytes received.

With R ratings, U users, I items and K factors, of points and diagonal Normals

    seconds = 2 alpha R / W + beta (U + I) / W + gamma bytes,    bytes = 4 K n (p U + I) (W - 1) / W,

n = 1 of points and 2 of diagonal Normals. p is the share of the users that a worker gets: all, 1, or with ``needed``
those with a cell among the worker's items, where a cell is any worker's alike

    p = 1 - (1 - 1 / W)^(R / U).

Of full covariances the same with matrices of items that are added up and
sent as triangles,

    bytes = 4 I K (K + 1) / 2 * 2 (W - 1) / W.

alpha is the cost of a stored cell, beta of a row, gamma of a byte; alpha and beta are of one K and family. A worker
holds its cells twice, rows of all users and items, or those needed and its own, and of full covariances those of its
users and of all items:

    memory = base + 2 * 40 R / W + 4 K n (U + U / W + 3 I),       of all,
    memory = base + 2 * 40 R / W + 4 K n (2 p U + U / W + 3 I),   of those needed,
    memory = base + 2 * 40 R / W + 4 K^2 (U / W + I) * delta,     of full covariances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from inference.kinds import Gather


@dataclass(frozen=True)
class Size:
    """Users, items, ratings, factors and workers, and which users these get."""

    users: float
    items: float
    ratings: float
    factors: int
    workers: int
    gather: Gather = "all"

    @property
    def got(self) -> float:
        """Users that a worker has or gets for its items."""
        everybody = self.gather == "all" or self.workers == 1
        return self.users * (1.0 if everybody else 1 - (1 - 1 / self.workers) ** (self.ratings / self.users))

    def counts(self, family: str) -> tuple[float, float, float]:
        """Cells, rows and received bytes of one worker in a sweep."""
        share, away = 1 / self.workers, (self.workers - 1) / self.workers
        cells = 2 * self.ratings * share
        if family == "full":
            packed = self.factors * (self.factors + 1) / 2
            return cells, (self.users + self.items) * share, 8 * self.items * packed * away
        numbers = self.factors * (2 if family == "diagonal" else 1)
        return cells, (self.users + self.items) * share, 4 * numbers * (self.got + self.items) * away

    def memory(self, family: str) -> float:
        """Bytes of one worker above what it takes before any data."""
        cells = 2 * 40 * self.ratings / self.workers
        if family == "full":
            return cells + 4 * self.factors**2 * (self.users / self.workers + self.items) * COPIES_OF_COVARIANCES
        numbers = self.factors * (2 if family == "diagonal" else 1)
        if self.gather == "needed":
            own = self.users / self.workers
            return cells + 4 * numbers * (COPIES_OF_NEEDED * self.got + own + self.items * COPIES_OF_MEANS)
        return cells + 4 * numbers * (self.users * (1 + 1 / self.workers) + self.items * COPIES_OF_MEANS)


COPIES_OF_MEANS = 3.0
"""Rows of items that are there at once: those before and after a half-step, and their right-hand sides."""
COPIES_OF_NEEDED = 2.0
"""The users that are got, and what is sent to others for theirs or is made of them."""
COPIES_OF_COVARIANCES = 1.1


@dataclass(frozen=True)
class Constants:
    """Seconds a cell, a row and a byte."""

    cell: float
    row: float
    byte: float

    def seconds(self, size: Size, family: str) -> float:
        """A sweep of one worker."""
        cells, rows, received = size.counts(family)
        return self.cell * cells + self.row * rows + self.byte * received


def constants(measured: list[tuple[Size, float]], family: str) -> Constants:
    """Those that fit measured seconds best, relative to them; none is below 0."""
    counts = np.array([size.counts(family) for size, _ in measured])
    seconds = np.array([took for _, took in measured])
    scale = counts.max(0).clip(min=1.0)
    found, _ = nnls(counts / scale / seconds[:, None], np.ones(len(seconds)))
    return Constants(*(found / scale).tolist())
