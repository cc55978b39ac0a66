"""Means over splits or seeds, and models compared on the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from analysis.over_users import LEVEL, standard_error

__all__ = ["difference", "paired_interval", "standard_error"]


def difference(mine: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean of the differences of two models on the same splits, (n_splits,) each, and its standard error."""
    away = np.asarray(mine) - np.asarray(theirs)
    return float(away.mean()), float(standard_error(away))


def paired_interval(mine: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean of the differences of two models on the same splits, and half its 95 % t-interval; NaN of one split."""
    away, error = difference(mine, theirs)
    return away, float(t.ppf(0.5 + LEVEL / 2, len(mine) - 1) * error) if len(mine) > 1 else float("nan")
