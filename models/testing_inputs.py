"""What the conformance kit tries a likelihood on: contents and ratings that it makes itself.

A likelihood that supplied its own test inputs would choose what it is asked: one that draws texts of one word where
nine were wanted would be asked of texts of one word alone. So rows and ratings of every kind are made here, and those
that the likelihood's support and ``check`` let in are used.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from models.ratings import cells

LENGTHS = (9, 1, 40, 0, 3, 150, 2)
"""Words of the kit's texts: none, one, few and many."""
ASKED = (9, 1, 4)
"""Words of the texts that are drawn by the thousand."""


def texts(lengths: tuple[int, ...], n_features: int) -> Tensor:
    """Counts of random words, (n_texts, n_features)."""
    rows = torch.zeros(len(lengths), n_features)
    for row, length in enumerate(lengths):
        rows[row].index_add_(0, torch.randint(n_features, (length,)), torch.ones(length))
    return rows


def candidate_rows(n_features: int) -> dict[str, Tensor]:
    """Rows of every kind that contents have, by what they are, (n_rows, n_features) each."""
    one = torch.eye(n_features)
    heights = torch.tensor([2.0, 7.0, 40.0, 1000.0])
    spread = torch.randn(4, n_features)
    return {
        "an empty row": torch.zeros(1, n_features),
        "a row with a single 1": one,
        "a text": texts(LENGTHS, n_features),
        "one word many times": heights[:, None] * one[torch.arange(4) % n_features],
        "a row with several ones": torch.cat([(torch.rand(5, n_features) < 0.6).double(), torch.ones(1, n_features)]),
        "a row of signs": torch.where(torch.rand(4, n_features) < 0.5, -1.0, 1.0),
        "a row of shares": torch.rand(4, n_features),
        "shares that sum to one": torch.distributions.Dirichlet(torch.ones(n_features)).sample((4,)),
        "a row of real numbers": torch.cat([spread, 12 * spread, -0.01 * spread]),
        "a row of positive numbers": torch.cat([spread.abs(), 20 * spread.abs()]),
    }


def compositions(total: int, n_features: int) -> Tensor:
    """All counts of ``n_features`` words that sum to ``total``, (n_counts, n_features)."""
    places = range(total + n_features - 1)
    rows = []
    for bars in itertools.combinations(places, n_features - 1):
        ends = (-1, *bars, total + n_features - 1)
        rows.append([after - before - 1 for before, after in itertools.pairwise(ends)])
    return torch.tensor(rows, dtype=torch.get_default_dtype())


def ratings_to_try(cell: Distribution) -> Tensor:
    """Ratings over the whole support of the cells, near and far, (n_ratings,), float64. Raises InputError."""
    if cells.is_discrete(cell):
        values = cells.points(cell, up_to=400.0)
        kept = [at for at in (0, 1, 2, 3, 5, 9, 20, 60, 150, 400) if at < len(values)]
        return values[sorted({*kept, len(values) - 1})]
    low, high = (float(end.double().mean()) for end in cells.bounds(cell))
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) * torch.tensor([1e-3, 0.05, 0.3, 0.5, 0.8, 0.97, 0.999], dtype=torch.float64)
    away = torch.tensor([1e-2, 0.2, 1.0, 3.0, 8.0, 30.0], dtype=torch.float64)
    if math.isfinite(low):
        return low + away
    if math.isfinite(high):
        return high - away
    return torch.cat([-away, torch.zeros(1, dtype=torch.float64), away])
