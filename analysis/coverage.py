"""Interval coverage and PIT values where the truth is known, data drawn from the model itself, and of stars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from analysis.draws.ratings import draw_ratings
from analysis.over_users import LEVEL, cell_groups, confidences, predicts_ratings, told_posterior, weight_of_zeros
from analysis.plots import colors, figure
from models.ratings.confidence_normal import ConfidenceNormal
from pyro_cvae.errors import InputError

if TYPE_CHECKING:
    from inference.fitting import Fit

LEVELS = (0.5, 0.8, 0.9)
"""Levels of the central intervals in tables."""
PIT_BINS = 200
"""PIT values are kept as counts in this many bins, so that intervals of 1, 2, ... 99 % end on their edges."""
GRID = np.arange(1, PIT_BINS) / PIT_BINS
CURVE_LEVELS = np.arange(1, 100) / 100


@dataclass(frozen=True, eq=False)
class Pit:
    """Where the truth stands among the posterior's draws, over some cells.

    Parameters:
        ecdf: Share of cells whose PIT value is below each of ``GRID``, (199,).
        band: Half the width of the simultaneous 95 % band around ``GRID``, (199,).
        p_value: Of the hypothesis that the truth is one more draw of this posterior.
        covered: Share of cells within their central interval of each of ``CURVE_LEVELS``, (99,).
        low: 2.5 % quantile of the same share for draws in place of the truth, (99,).
        high: 97.5 % quantile, (99,).
    """

    ecdf: np.ndarray
    band: np.ndarray
    p_value: float
    covered: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class Coverage:
    """Interval coverage of one fit on held-out cells of data that were drawn from the model, or of explicit ratings.

    Parameters:
        name: The run.
        kind: The posterior's kind; a "point" has no uncertainty, an empty ``table`` and no ``pits``.
        n_cells: Held-out cells looked at.
        n_draws: Draws of each score.
        pits: By target, "true score", where it is known, and "held-out rating".
        table: One row for each target and group of cells: ``target``, ``by`` (all, items, popularity, history),
            ``group``, ``n_cells``, then for each level ``covered@90``, ``low@90`` and ``high@90`` (what 95 % of fits
            with a right posterior would show), ``normal@90`` (the score's mean and sd, read as a Normal's, and the
            likelihood's own predictive of them, in place of quantiles of draws), last
            ``p_value``.
    """

    name: str
    kind: str
    n_cells: int
    n_draws: int
    pits: dict[str, Pit]
    table: pd.DataFrame


def pit_bins(truth: np.ndarray, draws: np.ndarray, seed: int, discrete: bool = False) -> np.ndarray:
    """Bins of the PIT values of the truth and of each draw, uint8 (n_draws + 1, n_cells), the truth's first.

    The PIT value of a number is (rank + U) / (n_draws + 1), with its rank among the truth and all draws of the cell,
    counted from 0, and U uniform on (0, 1). If the truth is one more draw, every row has the same distribution, and
    each value is exactly uniform; equal numbers, which ``discrete`` ones are, rank in random order. Shapes: ``truth``
    (n_cells,), ``draws`` (n_draws, n_cells). Source: Dawid, JRSS A 1984; Talts et al., arXiv 1804.06788, for ranks.
    """
    rng = np.random.default_rng(seed)
    n = len(draws) + 1
    parts = []
    for start in range(0, len(truth), 2048):
        block = slice(start, start + 2048)
        values = np.concatenate([truth[None, block].astype(draws.dtype), draws[:, block]])
        order = np.lexsort((rng.random(values.shape), values), axis=0) if discrete else values.argsort(0)
        ranks = order.argsort(0)
        parts.append((PIT_BINS * (ranks + rng.random(ranks.shape)) / n).astype(np.uint8))
    return np.concatenate(parts, 1)


def pit_summary(bins: np.ndarray) -> Pit:
    """ECDF and coverage of the truth's row of :func:`pit_bins`, judged by the rows of the draws.

    Cells share users and items, so that their PIT values depend on each other and a band for independent ones is too
    narrow. Here each draw takes the truth's place once: the band holds 95 % of their curves as a whole, in multiples
    of the standard deviation at each point, and the p-value is the truth's rank among them (a Monte Carlo test, which
    is exact: Besag and Clifford, Biometrika 1989).
    """
    n_rows, n_cells = bins.shape
    row = np.arange(n_rows)[:, None] * PIT_BINS
    counts = np.bincount((row + bins).ravel(), minlength=n_rows * PIT_BINS).reshape(n_rows, PIT_BINS)
    ecdf = counts.cumsum(1)[:, :-1] / n_cells
    spread = ecdf.std(0)
    largest = (np.abs(ecdf - GRID) / np.maximum(spread, 1e-12)).max(1)
    middle, half = PIT_BINS // 2, np.arange(1, 100)
    covered = ecdf[:, middle + half - 1] - ecdf[:, middle - half - 1]
    low, high = np.quantile(covered[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    p_value = float((largest >= largest[0]).mean())
    return Pit(ecdf[0], np.quantile(largest[1:], LEVEL) * spread, p_value, covered[0], low, high)


def coverage(fit: Fit, name: str = "", *, draws: int = 1000, max_cells: int = 20_000, seed: int = 0) -> Coverage:
    """Coverage of central intervals of u.v and of held-out ratings, and PIT values, on data drawn from the model.

    Intervals are quantiles of ``draws`` draws of u.v; those of a rating draw it, given the score, by the fit's own
    likelihood; discrete ratings have randomised PIT values. Ratings are looked at where their precision is above the
    background's b, whose noise would cover anything. More than ``max_cells`` held-out cells are thinned to a seeded
    sample. Of a point estimate nothing is asked. Explicit ratings need no known truth: all held-out ones are looked at.
    Raises InputError where other data hold no truth, or clicks that are no draws of the model.
    """
    truth, test, explicit = fit.dataset.truth, fit.split.test, predicts_ratings(fit)
    if explicit:
        test = test.select(test.observed)
        truth = None if truth is None or "a" not in truth else truth
    elif truth is None or "a" not in truth:
        problem = (
            "the truth behind these data is not known" if truth is None else "these clicks are no draws of the model"
        )
        raise InputError(problem, "ask for coverage on the data simulated-gaussian")
    if not len(test):
        raise InputError("no cell is held out", "choose a split that leaves some cells over")
    rng = np.random.default_rng(seed)
    cells = np.sort(rng.permutation(len(test))[:max_cells])
    users, items = test.users[cells], test.items[cells]
    if fit.posterior.is_point:
        return Coverage(name, fit.posterior.kind, len(cells), 0, {}, pd.DataFrame())
    given = confidences(fit, test)[cells]
    own = fit.options.model
    likelihood = ConfidenceNormal(own.a, own.b) if fit.model is None else fit.model.ratings
    exposed = np.ones(len(cells), bool) if explicit else given > weight_of_zeros(fit)
    posterior, place = told_posterior(fit, users)
    mean, sd = (tensor.double().numpy() for tensor in posterior.score(place, items))
    sampled = posterior.score_draws(place, items, draws, seed).numpy()
    groups = cell_groups(fit, users, items)
    rows, pits = [], {}
    for target in ("true score", "held-out rating")[truth is None :]:
        discrete = False
        if truth is not None and target == "true score":
            true = truth["scores"][users, items]
            pit = norm.cdf((true - mean) / sd)
        else:
            true = test.ratings[cells]
            score = torch.as_tensor(mean), torch.as_tensor(sd).square(), torch.as_tensor(given)
            distribution = likelihood.predictive(*score)
            pit, discrete = distribution.pit(torch.as_tensor(true), seed).numpy(), distribution.discrete
            sampled = draw_ratings(likelihood, sampled, given, seed)
        bins = pit_bins(true, sampled, seed, discrete)
        distance = 2 * np.abs(pit - 0.5)
        for by, group, chosen in groups:
            if target == "held-out rating":
                chosen = chosen & exposed
                if not chosen.any():
                    continue
            found = pit_summary(bins[:, chosen])
            row: dict[str, Any] = {"target": target, "by": by, "group": group, "n_cells": int(chosen.sum())}
            for level in LEVELS:
                at, percent = round(100 * level) - 1, f"@{100 * level:.0f}"
                row |= {f"covered{percent}": found.covered[at], f"low{percent}": found.low[at]}
                row |= {f"high{percent}": found.high[at], f"normal{percent}": float((distance[chosen] <= level).mean())}
            rows.append(row | {"p_value": found.p_value})
            if by == "all":
                pits[target] = found
    return Coverage(name, fit.posterior.kind, len(cells), draws, pits, pd.DataFrame(rows))


def draw_coverage(results: Sequence[Coverage]) -> Any:
    """One figure for all fits: coverage less level, PIT ECDFs with their bands, and 50, 80 and 90 % fit by fit.

    Rows are the true score, if it is known, and the held-out rating. A fit without uncertainty is named and has no
    marks. Returns a matplotlib figure.
    """
    targets = [one for one in ("true score", "held-out rating") if any(one in result.pits for result in results)]
    targets = targets or ["true score", "held-out rating"]
    drawn, axes = figure(3, len(targets), width=4.8, height=3.6)
    for (curve, ecdf, dots), target in zip(axes, targets, strict=True):
        for level in LEVELS:
            dots.axhline(100 * level, color="#222222", linewidth=0.8, linestyle=":")
        for index, (result, color) in enumerate(zip(results, colors([one.name for one in results]), strict=True)):
            if target not in result.pits:
                said = "no uncertainty" if result.kind == "point" else "truth not known"
                dots.text(index, 65, said, rotation=90, ha="center", va="center", fontsize="small")
                continue
            pit = result.pits[target]
            percent, shade = 100 * CURVE_LEVELS, {"color": color, "alpha": 0.08, "linewidth": 0}
            curve.plot(percent, 100 * (pit.covered - CURVE_LEVELS), color=color, label=result.name)
            curve.fill_between(percent, 100 * (pit.low - CURVE_LEVELS), 100 * (pit.high - CURVE_LEVELS), **shade)
            ecdf.plot(GRID, pit.ecdf - GRID, color=color)
            ecdf.fill_between(GRID, -pit.band, pit.band, **shade)
            for level, marker in zip(LEVELS, "osD", strict=True):
                at = round(100 * level) - 1
                dots.plot(index, 100 * pit.covered[at], marker, color=color, markersize=5)
                dots.vlines(index, 100 * pit.low[at], 100 * pit.high[at], color="#cccccc", linewidth=6, zorder=1)
        for flat in (curve, ecdf):
            flat.axhline(0, color="#222222", linewidth=0.8)
        curve.set(xlabel="level of the interval, %", ylabel="covered less level, points", title=f"{target}: coverage")
        ecdf.set(xlabel="PIT value", ylabel="ECDF less uniform", title=f"{target}: PIT")
        dots.set(ylabel="covered, %", title=f"{target}: 50, 80 and 90 % intervals", ylim=(25, 100))
        dots.set_xticks(range(len(results)), [result.name for result in results], rotation=25, ha="right")
        dots.set_xlim(-0.6, len(results) - 0.4)
        dots.grid(axis="x", visible=False)
    if any(result.pits for result in results):
        axes[0, 0].legend(fontsize="small")
    drawn.supxlabel("Shading and grey bars: where 95 % of right posteriors would lie.", fontsize="small")
    return drawn
