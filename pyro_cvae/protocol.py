"""How rankings are measured, as options say it; see :mod:`pyro_cvae.metrics`. No heavy import here."""

from collections.abc import Iterable
from typing import Literal

Protocol = Literal["corrected", "paper"]
"""Training items are left out of the ranking, or stay in it and count as hits."""
CUTOFFS = (50, 100, 150, 200, 250, 300)
"""The M of recall@M."""


def telling(cutoffs: Iterable[int], n_items: int) -> tuple[int, ...]:
    """The M at which a recall says something, ascending: M = n_items // 2 in place of those that are all items.

    recall@M is 1 of every ranking where M is the number of items.
    """
    return tuple(sorted({m if m < n_items else max(1, n_items // 2) for m in cutoffs}))


def choosing(cutoffs: Iterable[int], n_items: int) -> tuple[int, ...]:
    """The M by which settings are chosen, ascending: at most half of the items, beyond which rankings hardly differ."""
    return tuple(sorted({min(m, max(1, n_items // 2)) for m in cutoffs}))
