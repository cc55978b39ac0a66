"""What the model is conditioned on: rows of content, sparse rating columns, and minibatches of items of both.

Nothing here is of size users x items or items x words: entries are stored, the rest is background.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.kinds import Unrated
from models.rows import AnyRows, DenseRows, Form, Forms, NumberRows, PartRows, SparseRows, TokenRows, segments
from pyro_cvae.data.interactions import Interactions

__all__ = [
    "AnyRows",
    "Batch",
    "DenseRows",
    "Form",
    "Forms",
    "NumberRows",
    "Observations",
    "PartRows",
    "RatingColumns",
    "SparseRows",
    "TokenRows",
]


@dataclass(frozen=True, eq=False)
class RatingColumns:
    """Ratings of items as whole columns over all users: stored cells (user, rating, confidence) on a background.

    A cell that is not stored is a zero with the background's precision ``b``; a stored confidence 0 says that the
    cell is missing and has no factor at all; an item with ``observed`` false has no column at all.
    ``zero_weights`` are factors of ``b`` by item; ``None`` is 1 for all.

    Shapes: ``indptr`` (n_items + 1,); ``users``, ``ratings``, ``confidences`` and, where the data have them, ``times``
    (n_stored,), NaN where not known; ``observed`` and ``zero_weights`` (n_items,). Times are of a fit's own columns
    alone: columns that are chosen of these have none.
    """

    indptr: Tensor
    users: Tensor
    ratings: Tensor
    confidences: Tensor
    observed: Tensor
    n_users: int
    times: Tensor | None = None
    zero_weights: Tensor | None = None

    @classmethod
    def from_interactions(
        cls,
        train: Interactions,
        a: float,
        unrated: Unrated = "masked",
        dtype: torch.dtype = torch.float32,
        unit: float | None = None,
    ) -> RatingColumns:
        """Columns of the training pairs; the confidence of a pair that states none, or the weight ``unit``, is ``a``.

        Without a ``unit`` the weights are confidences themselves; see :meth:`Interactions.precisions`.

        ``unrated``: "masked" gives items without any stored pair no column, "zeros" gives them ``n_users`` zeros.
        """
        order = np.lexsort((train.users, train.items))
        stored = np.bincount(train.items, minlength=train.n_items)
        confidences = train.precisions(a, unit)[order]
        return cls(
            torch.as_tensor(np.concatenate([[0], np.cumsum(stored)])),
            torch.as_tensor(train.users[order]),
            torch.as_tensor(train.ratings[order]).to(dtype),
            torch.as_tensor(confidences).to(dtype),
            torch.as_tensor(stored > 0) if unrated == "masked" else torch.ones(train.n_items, dtype=torch.bool),
            train.n_users,
            None if train.times is None else torch.as_tensor(train.times[order]),
        )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def shape(self) -> torch.Size:
        """(n_items, n_users), as Pyro's trace printers ask for it."""
        return torch.Size((len(self), self.n_users))

    @property
    def items(self) -> Tensor:
        """The item of each stored cell, (n_stored,)."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.indptr.device), self.indptr.diff())

    def select(self, items: Tensor) -> RatingColumns:
        """The columns of the chosen items, in the order given."""
        indptr, at = segments(self.indptr, items)
        cells = self.users[at], self.ratings[at], self.confidences[at]
        weights = None if self.zero_weights is None else self.zero_weights[items]
        return RatingColumns(indptr, *cells, self.observed[items], self.n_users, zero_weights=weights)

    def zeros(self, b: float) -> Tensor:
        """Precision that a zero of each item has, ``b`` times its weight, in float64, (n_items,)."""
        if self.zero_weights is None:
            return self.ratings.new_full((len(self),), b, dtype=torch.float64)
        return b * self.zero_weights.double()

    def dense(self, b: float) -> tuple[Tensor, Tensor]:
        """Ratings and confidences as dense blocks (n_items, n_users), 0 where missing: for tests and oracles."""
        ratings = self.ratings.new_zeros(len(self), self.n_users)
        confidences = self.zeros(b).to(ratings)[:, None].repeat(1, self.n_users)
        ratings[self.items, self.users] = self.ratings
        confidences[self.items, self.users] = self.confidences
        return ratings, confidences * self.observed[:, None]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> RatingColumns:
        """The same on another device or with ratings and confidences of another type."""
        ratings, confidences = self.ratings.to(device, dtype), self.confidences.to(device, dtype)
        indptr, users, observed = (part.to(device) for part in (self.indptr, self.users, self.observed))
        times = None if self.times is None else self.times.to(device)
        weights = None if self.zero_weights is None else self.zero_weights.to(device, dtype)
        return RatingColumns(indptr, users, ratings, confidences, observed, self.n_users, times, weights)


@dataclass(frozen=True, eq=False)
class Batch:
    """A minibatch of items: their rows in the catalogue (ascending), content, encoder inputs and rating columns."""

    items: Tensor
    content: AnyRows
    inputs: AnyRows
    columns: RatingColumns


@dataclass(frozen=True, eq=False)
class Observations:
    """All content and all ratings of a fit, and the minibatches of items cut from them.

    ``content`` is x, what the likelihood scores; ``inputs`` is what the encoder reads: the same, words perhaps weighted
    otherwise (q(z|x) may read any function of x).
    """

    content: AnyRows
    inputs: AnyRows
    columns: RatingColumns

    @property
    def n_items(self) -> int:
        """Number of items of the catalogue."""
        return len(self.content)

    def batch(self, items: Tensor) -> Batch:
        """The minibatch of the given items, in ascending order.

        Ascending, because a Pyro plate whose subsample is as long as the plate does not index parameters at all:
        a permutation of all items would pair rows with the wrong items.
        """
        items = items.sort().values
        return Batch(items, self.content.select(items), self.inputs.select(items), self.columns.select(items))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Observations:
        """The same on another device or in another floating-point type."""
        content, inputs = self.content.to(device, dtype), self.inputs.to(device, dtype)
        return Observations(content, inputs, self.columns.to(device, dtype))

    def partition(self, batch_size: int, shuffle: bool = True) -> Iterator[Batch]:
        """Minibatches that visit every item once, of equal size up to one item, from torch's random state."""
        order = torch.randperm(self.n_items) if shuffle else torch.arange(self.n_items)
        n_batches = max(1, -(-self.n_items // batch_size))
        for items in order.to(self.content.device).tensor_split(n_batches):
            yield self.batch(items)
