"""One predictive check: a discrepancy of the data beside that of drawn data, and how checks are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.plots import CYCLE, panels


@dataclass(frozen=True, eq=False)
class Check:
    """A discrepancy T of the data beside that of drawn data.

    Parameters:
        name: What T is.
        meaning: How to read it, one sentence.
        observed: T of the data in each draw, (n_draws,), the same number where T does not depend on the parameters.
        replicated: T of the data drawn in each draw, (n_draws,).
    """

    name: str
    meaning: str
    observed: np.ndarray
    replicated: np.ndarray

    def __str__(self) -> str:
        drawn = self.replicated
        return f"{self.observed.mean():.4g}, drawn {drawn.mean():.4g} (sd {drawn.std():.2g}), p = {self.p:.3f}"

    @property
    def p(self) -> float:
        """Predictive p-value P(T_drawn > T) + 1/2 P(T_drawn = T): near 0 or 1 the model does not give such data."""
        return float((self.replicated > self.observed).mean() + 0.5 * (self.replicated == self.observed).mean())


def plot_checks(checks: Sequence[Check], title: str = "") -> Any:
    """A figure of all checks: drawn data as a histogram, the data as a line, or both as points where both vary."""
    drawn, axes = panels(len(checks), min(3, max(1, len(checks))), width=3.9, height=2.9)
    for panel, check in zip(axes.flat, checks, strict=False):
        ends = np.concatenate([check.observed, check.replicated])
        panel.hist(check.replicated, bins=30, color=CYCLE[-2], label="drawn")
        if np.ptp(check.observed) > 1e-9 * np.abs(ends).max():
            panel.hist(check.observed, bins=30, color=CYCLE[0], alpha=0.6, label="data, by draw")
        else:
            panel.axvline(check.observed[0], color=CYCLE[0], linewidth=2, label="data")
        panel.set_title(f"{check.name}: p = {check.p:.3f}", fontsize=10)
        panel.set_yticks([])
        panel.grid(False)
    axes.flat[0].legend(fontsize=8)
    if title:
        drawn.suptitle(title, fontsize=11)
    return drawn
