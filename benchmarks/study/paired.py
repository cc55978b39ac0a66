"""Means over splits or seeds, and models compared on the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.over_users import standard_error

__all__ = ["difference", "standard_error"]


def difference(mine: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean of the differences of two models on the same splits, (n_splits,) each, and its standard error."""
    away = np.asarray(mine) - np.asarray(theirs)
    return float(away.mean()), float(standard_error(away))
