"""Means over splits or seeds, and models compared on the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def standard_error(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the first axis; NaN of one value."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(0, ddof=1) / len(values) ** 0.5)


def difference(mine: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean of the differences of two models on the same splits, (n_splits,) each, and its standard error."""
    away = np.asarray(mine) - np.asarray(theirs)
    return float(away.mean()), float(standard_error(away))
