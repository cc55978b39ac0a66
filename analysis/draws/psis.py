"""Pareto-smoothed importance sampling, as ArviZ computes it."""

from __future__ import annotations

import numpy as np
from arviz_stats.base import array_stats


def psis(log_ratios: np.ndarray) -> np.ndarray:
    """Pareto k of importance ratios, by Pareto-smoothed importance sampling: (n_draws, n) to (n,).

    Below 0.7 an estimate by these ratios can be trusted, above it q is too far from its target. Ratios that do not
    vary have no tail: their k is -inf. Source: Vehtari et al., Pareto smoothed importance sampling, JMLR 2024.
    """
    k = np.full(log_ratios.shape[1], -np.inf)
    varies = np.ptp(log_ratios, axis=0) > 1e-9
    if varies.any():  # ArviZ takes log-likelihoods, whose negatives are the log ratios of leaving one out
        k[varies] = array_stats.psislw(-log_ratios[:, varies], axis=0)[1]
    return k
