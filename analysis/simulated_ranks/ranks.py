"""Ranks of true quantities among draws, the band that they stay in, and a figure of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binom

from analysis.plots import colors, figure, save

LEVEL = 0.99


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of true quantities among the draws, (n_simulations, n_quantities), each from 0 to ``n_draws``.

    ``ess`` is each quantity's mean effective sample size over the simulations.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    n_draws: int
    ess: np.ndarray

    def differences(self) -> np.ndarray:
        """ECDF minus the uniform one at 1 / (L + 1), ..., L / (L + 1), (n_draws, n_quantities)."""
        below = np.arange(1, self.n_draws + 1)
        ecdf = (self.ranks[None] < below[:, None, None]).mean(1)
        return ecdf - (below / (self.n_draws + 1))[:, None]

    def band(self, level: float = LEVEL) -> np.ndarray:
        """Where the differences of all quantities are at once, with this probability or more, (n_draws, 2).

        A simultaneous band of each at level 1 - (1 - level) / n_quantities: however they depend on one another.
        """
        return ecdf_band(len(self.ranks), self.n_draws, 1 - (1 - level) / len(self.names))

    def outside(self, level: float = LEVEL) -> list[str]:
        """Quantities whose ECDF leaves the band."""
        band, found = self.band(level), self.differences()
        left = ((found < band[:, :1] - 1e-12) | (found > band[:, 1:] + 1e-12)).any(0)
        return [self.names[index] for index in np.flatnonzero(left)]


def ecdf_band(n: int, n_draws: int, level: float) -> np.ndarray:
    """Simultaneous band of ECDF minus uniform of ``n`` ranks that are uniform on 0, ..., n_draws, (n_draws, 2).

    At x = k / (n_draws + 1) the count below is Binomial(n, x). The band is made of these binomials' central intervals
    at one common level, the smallest at which all counts are inside with probability ``level`` or more; that
    probability is exact, by recursion over k. Source: Säilynoja, Bürkner and Vehtari (2022), section 2.2.
    """
    counts, x = np.arange(n + 1), np.arange(1, n_draws + 1) / (n_draws + 1)
    steps = 1 / (n_draws + 1 - np.arange(n_draws))  # chance of being below the next point, if not below this one
    more = counts[None, :] - counts[:, None]
    moves = np.stack([binom.pmf(more, n - counts[:, None], step) for step in steps])

    def interval(tail: float) -> tuple[np.ndarray, np.ndarray]:
        return binom.ppf(tail, n, x), binom.isf(tail, n, x)

    def inside(tail: float) -> float:
        lower, upper = interval(tail)
        chance = (counts == 0).astype(float)
        for move, low, high in zip(moves, lower, upper, strict=True):
            chance = (chance @ move) * ((counts >= low) & (counts <= high))
        return float(chance.sum())

    low, high = 0.0, (1 - level) / 2  # the wider band is at the smaller tail
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) >= level else (low, middle)
    return np.stack(interval(low), -1) / n - x[:, None]


def plot(found: dict[str, Ranks], path: str, level: float = LEVEL) -> Path:
    """ECDF differences of all quantities with their band, an axes for each of ``found`` by its title."""
    drawn, axes = figure(len(found), width=6.0, height=4.2)
    for index, (ax, (title, ranks)) in enumerate(zip(axes[0], found.items(), strict=True)):
        x = np.arange(1, ranks.n_draws + 1) / (ranks.n_draws + 1)
        band = ranks.band(level)
        ax.fill_between(x, band[:, 0], band[:, 1], color="#dddddd", step="mid", label=f"{level:.0%} of all at once")
        lines = list(zip(ranks.names, ranks.differences().T, colors(ranks.names), strict=True))
        for number, (name, difference, color) in enumerate(lines):
            style = "-" if number < len(lines) - 5 else "--"
            ax.step(x, difference, where="mid", color=color, linestyle=style, linewidth=1.2, label=name)
        ax.set(title=title, xlabel="rank of the truth / (draws + 1)", xlim=(0, 1))
        if index == 0:
            ax.set_ylabel("ECDF - uniform")
            ax.legend(fontsize=7, ncols=3, loc="lower center")
            ax.set_ylim(-0.24, 0.16)
    return save(drawn, path)
