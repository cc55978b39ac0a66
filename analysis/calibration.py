r"""Are the uncertainties right? ``python -m analysis.calibration RUN [RUN ...] --out FOLDER``.

Three questions, each a function of a fit with a frozen result:

- :func:`coverage`, where the truth is known (data drawn from the model): how often do intervals of u.v and of held-out
  ratings hold the truth, and are the truth's places among the posterior's draws uniform?
- :func:`reliability`, on clicks: is P(an item of the top list is a held-out positive) what happens? Scores become
  probabilities by a :class:`Recalibration` that is fitted on users who are then left out of every figure.
- :func:`error_correlation`: are errors larger where the posterior standard deviation is, beyond what score and
  popularity tell?

Only what any posterior answers is asked (scores with their sd, draws of scores), so draws of MCMC serve as well.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_cvae.errors import InputError, run_command

if TYPE_CHECKING:
    import pandas as pd

    from inference.fitting import Fit
    from pyro_cvae.data.interactions import Interactions

LEVELS = (0.5, 0.8, 0.9)
"""Levels of the central intervals in tables."""
PIT_BINS = 200
"""PIT values are kept as counts in this many bins, so that intervals of 1, 2, ... 99 % end on their edges."""
GRID = np.arange(1, PIT_BINS) / PIT_BINS
CURVE_LEVELS = np.arange(1, 100) / 100
BAND = 0.95
"""Simultaneous level of the ECDF bands, and level of all intervals."""
INPUTS = ("score", "log score", "rank", "popularity", "sd")
CANDIDATES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("logistic", ("score",)),
    ("logistic", ("log score",)),
    ("isotonic", ("score",)),
    ("logistic", ("score", "rank", "popularity")),
    ("logistic", ("log score", "rank", "popularity")),
    ("isotonic", ("score", "rank", "popularity")),
)
"""Recalibrations that are compared, the simplest first."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval over users; NaN where it cannot be asked."""

    value: float
    low: float
    high: float


# --- coverage and PIT, where the truth is known ----------------------------------------------------------------------


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
    """Interval coverage of one fit on held-out cells of data that were drawn from the model.

    Parameters:
        name: The run.
        kind: The posterior's kind; a "point" has no uncertainty, an empty ``table`` and no ``pits``.
        n_cells: Held-out cells looked at.
        n_draws: Draws of each score.
        pits: By target, "true score" and "held-out rating".
        table: One row for each target and group of cells: ``target``, ``by`` (all, items, popularity, history),
            ``group``, ``n_cells``, then for each level ``covered@90``, ``low@90`` and ``high@90`` (what 95 % of fits
            with a right posterior would show), ``normal@90`` (by mean and sd in place of quantiles of draws), last
            ``p_value``.
    """

    name: str
    kind: str
    n_cells: int
    n_draws: int
    pits: dict[str, Pit]
    table: pd.DataFrame


def pit_bins(truth: np.ndarray, draws: np.ndarray, seed: int) -> np.ndarray:
    """Bins of the PIT values of the truth and of each draw, uint8 (n_draws + 1, n_cells), the truth's first.

    The PIT value of a number is (rank + U) / (n_draws + 1), with its rank among the truth and all draws of the cell,
    counted from 0, and U uniform on (0, 1). If the truth is one more draw, every row has the same distribution, and
    each value is exactly uniform. Shapes: ``truth`` (n_cells,), ``draws`` (n_draws, n_cells). Source: Dawid, JRSS A
    1984; Talts et al., arXiv 1804.06788, for ranks.
    """
    rng = np.random.default_rng(seed)
    n = len(draws) + 1
    parts = []
    for start in range(0, len(truth), 2048):
        block = slice(start, start + 2048)
        values = np.concatenate([truth[None, block].astype(draws.dtype), draws[:, block]])
        ranks = values.argsort(0).argsort(0)
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
    low, high = np.quantile(covered[1:], [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
    p_value = float((largest >= largest[0]).mean())
    return Pit(ecdf[0], np.quantile(largest[1:], BAND) * spread, p_value, covered[0], low, high)


def coverage(fit: Fit, name: str = "", *, draws: int = 1000, max_cells: int = 20_000, seed: int = 0) -> Coverage:
    """Coverage of central intervals of u.v and of held-out ratings, and PIT values, on data drawn from the model.

    Intervals are quantiles of ``draws`` draws of u.v; those of a rating add a draw of the noise N(0, 1 / C_ij). Ratings
    are looked at where their precision is above the background's b, whose noise would cover anything. More than
    ``max_cells`` held-out cells are thinned to a seeded sample. Of a point estimate nothing is asked. Raises
    InputError where the data hold no truth, or clicks that are no draws of the model.
    """
    import pandas as pd
    from scipy.stats import norm

    truth, test = fit.dataset.truth, fit.split.test
    if truth is None or "a" not in truth:
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
    confidences = np.full(len(test), np.nan) if test.confidences is None else test.confidences
    precision = np.where(np.isnan(confidences), fit.options.model.a, confidences)[cells]
    exposed, noise_sd = precision > fit.options.model.b, 1 / np.sqrt(precision)
    mean, sd = (tensor.double().numpy() for tensor in fit.posterior.score(users, items))
    sampled = fit.posterior.score_draws(users, items, draws, seed).numpy()
    groups = _cell_groups(fit, users, items)
    rows, pits = [], {}
    for target in ("true score", "held-out rating"):
        true, total_sd = truth["scores"][users, items], sd
        if target == "held-out rating":
            true, total_sd = test.ratings[cells], np.hypot(sd, noise_sd)
            sampled = sampled + noise_sd.astype(sampled.dtype) * rng.standard_normal(sampled.shape, sampled.dtype)
        bins = pit_bins(true, sampled, seed)
        distance = 2 * np.abs(norm.cdf((true - mean) / total_sd) - 0.5)
        for by, group, chosen in groups:
            if target == "held-out rating":
                chosen = chosen & exposed
                if not chosen.any():
                    continue
            pit = pit_summary(bins[:, chosen])
            row: dict[str, Any] = {"target": target, "by": by, "group": group, "n_cells": int(chosen.sum())}
            for level in LEVELS:
                at, percent = round(100 * level) - 1, f"@{100 * level:.0f}"
                row |= {f"covered{percent}": pit.covered[at], f"low{percent}": pit.low[at]}
                row |= {f"high{percent}": pit.high[at], f"normal{percent}": float((distance[chosen] <= level).mean())}
            rows.append(row | {"p_value": pit.p_value})
            if by == "all":
                pits[target] = pit
    return Coverage(name, fit.posterior.kind, len(cells), draws, pits, pd.DataFrame(rows))


def _counted(fit: Fit) -> Interactions:
    """Training pairs that count as ratings, each with rating 1: positives; in complete data, precisions above b."""
    train = fit.split.train
    counted = train.positive
    if fit.dataset.interactions.complete and train.confidences is not None:
        counted = train.observed & ~(train.confidences <= fit.options.model.b)
    chosen = train.select(counted)
    return dataclasses.replace(chosen, ratings=np.ones(len(chosen)))


def _cell_groups(fit: Fit, users: np.ndarray, items: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """(by, group, bool (n_cells,)): all cells, then by hot, warm and cold items, items' ratings and users' ratings.

    A group that is empty or holds all cells is left out.
    """
    from inference.evaluate import GROUPS, item_groups

    counted = _counted(fit)
    groups = [("all", "all", np.ones(len(users), bool))]
    group_of = item_groups(counted)[items]
    groups += [("items", name, group_of == index) for index, name in enumerate(GROUPS)]
    for by, counts in (("popularity", counted.item_counts[items]), ("history", counted.user_counts[users])):
        edges = np.unique(np.quantile(counts, [0, 0.25, 0.5, 0.75], method="lower"))
        place = np.searchsorted(edges, counts, side="right") - 1
        for index in range(len(edges)):
            chosen = place == index
            low, high = counts[chosen].min(), counts[chosen].max()
            groups.append((by, f"{low}" if low == high else f"{low}-{high}", chosen))
    return [group for group in groups if group[0] == "all" or (group[2].any() and not group[2].all())]


# --- probabilities of listed items -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recalibration:
    """P(a listed item is relevant) from its score and what else is known of it.

        P = f(intercept + sum_k coefficient_k (x_k - centre_k) / scale_k),

    f the logistic function, or where there are ``knots`` the piecewise linear one through (x, P) at them (isotonic
    regression of the same sum). Parameters: ``inputs`` names of ``INPUTS`` in the order of
    ``centre``, ``scale`` and ``coefficients``; "log score" and "sd" are logarithms, "rank" that of the place in the
    list from 1, "popularity" log(1 + training ratings of the item). Source: Platt 1999; Zadrozny and Elkan, KDD 2002.
    """

    inputs: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        numbers = (
            *self.centre,
            *self.scale,
            *self.coefficients,
            self.intercept,
            *(x for knot in self.knots for x in knot),
        )
        sizes = {len(self.inputs), len(self.centre), len(self.scale), len(self.coefficients)}
        fits = len(sizes) == 1 and set(self.inputs) <= set(INPUTS) and all(len(knot) == 2 for knot in self.knots)
        if not (fits and np.isfinite(numbers).all() and min(self.scale, default=0) > 0):
            raise InputError("this is no recalibration", "make it again with analysis.calibration")

    @property
    def method(self) -> str:
        """The function f: "logistic" or "isotonic"."""
        return "isotonic" if self.knots else "logistic"

    def __call__(self, score: Any, rank: Any = None, popularity: Any = None, sd: Any = None) -> np.ndarray:
        """Probabilities in the shape of the inputs, which broadcast; InputError where one that is needed is missing."""
        given = {"score": score, "log score": score, "rank": rank, "popularity": popularity, "sd": sd}
        total = np.asarray(self.intercept)
        for name, centre, scale, coefficient in zip(
            self.inputs, self.centre, self.scale, self.coefficients, strict=True
        ):
            if given[name] is None:
                raise InputError(
                    f"this recalibration needs the {name} of every item", "give it, or recalibrate without"
                )
            total = total + coefficient * (_transformed(name, given[name]) - centre) / scale
        if self.knots:
            x, p = np.array(self.knots).T
            return np.interp(total, x, p)
        from scipy.special import expit

        return expit(total)

    def to_json(self) -> dict[str, Any]:
        """What is stored."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: Any) -> Recalibration:
        """The inverse of :meth:`to_json`; InputError for anything else."""
        try:
            plain = {name: tuple(stored[name]) for name in ("inputs", "centre", "scale", "coefficients")}
            knots = tuple((float(x), float(p)) for x, p in stored["knots"])
            return cls(**plain, intercept=float(stored["intercept"]), knots=knots)
        except (KeyError, TypeError, ValueError):
            raise InputError("this is no recalibration", "make it again with analysis.calibration") from None


def _transformed(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if name == "popularity":
        return np.log1p(values)
    return values if name == "score" else np.log(np.maximum(values, 1e-3))


@dataclass(frozen=True, eq=False)
class Listed:
    """The top lists of some users, (n_users, top) each; missing places of short lists are left out by ``there``."""

    users: np.ndarray
    items: np.ndarray
    score: np.ndarray
    sd: np.ndarray | None
    popularity: np.ndarray
    relevant: np.ndarray
    there: np.ndarray

    @property
    def rank(self) -> np.ndarray:
        """Place in the list, from 1."""
        return np.broadcast_to(np.arange(1, self.items.shape[1] + 1), self.items.shape)

    def flat(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of recalibrations, with ``user`` (row among the chosen), ``item`` and ``y``, of some users."""
        there = self.there[chosen]
        columns = {"score": self.score, "rank": self.rank, "popularity": self.popularity}
        if self.sd is not None:
            columns["sd"] = self.sd
        columns |= {"item": self.items, "y": self.relevant}
        flat = {name: column[chosen][there] for name, column in columns.items()}
        return flat | {"user": there.nonzero()[0]}


def top_lists(fit: Fit, users: np.ndarray, top: int) -> Listed:
    """The first ``top`` candidates of each user by posterior mean score, and whether they are test positives.

    Candidates are all items but the pairs known from training and validation, as in ``inference.evaluate``.
    """
    import torch

    from inference.evaluate import pairs_matrix

    test, known = _test_and_known(fit)
    counts = _counted(fit).item_counts
    items, scores = [], []
    for block in _blocks(users, 256):
        block_scores = fit.posterior.score_block(block).clone()
        at = known[block].tocoo()
        block_scores[torch.as_tensor(at.row).long(), torch.as_tensor(at.col).long()] = -torch.inf
        best = block_scores.topk(min(top, fit.dataset.n_items))
        items.append(best.indices.numpy())
        scores.append(best.values.double().numpy())
    item, score = np.concatenate(items), np.concatenate(scores)
    sd = None
    if not fit.posterior.is_point:
        sd = fit.posterior.score(users[:, None], item)[1].double().numpy()
    positive = pairs_matrix(test)
    relevant = np.asarray(positive[np.repeat(users, item.shape[1]), item.ravel()]).reshape(item.shape)
    return Listed(users, item, score, sd, counts[item], relevant.astype(np.float64), np.isfinite(score))


def _test_and_known(fit: Fit) -> tuple[Interactions, Any]:
    """Test positives, and the CSR matrix of pairs that are no candidates; a pair of both, as at P = 1, is test."""
    from inference.evaluate import pairs_matrix

    split = fit.split
    test = split.test.select(split.test.positive)
    parts = [split.train] if split.validation is None else [split.train, split.validation]
    known = pairs_matrix(*(part.select(part.observed) for part in parts))
    known = known - known.multiply(pairs_matrix(test))
    known.eliminate_zeros()
    return test, known


def reserved_users(fit: Fit, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Users with test positives, as rows: those that recalibrations are fitted on, and those that are reported.

    The first are the split's tuning users if it has any, otherwise a seeded ``share`` of all. Raises InputError where
    one of the two is left without users.
    """
    test = fit.split.test
    able = np.unique(test.users[test.positive])
    tuning = fit.split.tuning_users
    if tuning is not None and tuning[able].any():
        reserved = able[tuning[able]]
    else:
        reserved = np.random.default_rng(seed).permutation(able)[: max(2, round(share * len(able)))]
    reported = np.setdiff1d(able, reserved)
    if len(reserved) < 2 or len(reported) < 2:
        raise InputError(
            f"only {len(able)} users have held-out positives", "choose a split that leaves more, or another --reserve"
        )
    return np.sort(reserved), reported


def fit_recalibration(
    method: str, inputs: Sequence[str], columns: dict[str, np.ndarray], rows: np.ndarray | slice = slice(None)
) -> Recalibration:
    """Logistic regression without a penalty, or an isotonic one of its linear predictor, by scikit-learn.

    ``columns`` hold the inputs by name and ``y``, (n_pairs,). Raises InputError where all outcomes are the same.
    """
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    y = columns["y"][rows]
    if y.min() == y.max():
        raise InputError(
            f"{'every' if y.min() else 'no'} listed item of the reserved users is a held-out positive",
            "give a larger --reserve or --top",
        )
    x = np.stack([_transformed(name, columns[name.removeprefix("log ")][rows]) for name in inputs], 1)
    centre, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit((x - centre) / scale, y)
    coefficients, intercept = model.coef_[0], float(model.intercept_[0])
    knots: tuple[tuple[float, float], ...] = ()
    if method == "isotonic":
        steps = IsotonicRegression().fit(intercept + (x - centre) / scale @ coefficients, y)
        knots = tuple(zip(steps.X_thresholds_.tolist(), steps.y_thresholds_.tolist(), strict=True))
    sums = {"centre": centre, "scale": scale, "coefficients": coefficients}
    numbers: dict[str, Any] = {name: tuple(values.tolist()) for name, values in sums.items()}
    return Recalibration(tuple(inputs), intercept=intercept, knots=knots, **numbers)


def predict(recalibration: Recalibration, columns: dict[str, np.ndarray], rows: Any = slice(None)) -> np.ndarray:
    """The probabilities of the pairs that ``columns`` hold, (n_pairs,)."""
    names = {name.removeprefix("log ") for name in recalibration.inputs} | {"score"}
    return recalibration(**{name: columns[name][rows] for name in names})


def choose_recalibration(
    columns: dict[str, np.ndarray], candidates: Sequence[tuple[str, tuple[str, ...]]] = CANDIDATES, folds: int = 5
) -> tuple[Recalibration, pd.DataFrame]:
    """The simplest candidate with a Brier score within one standard error of the best, by cross-validation over users.

    The standard error is that of the mean difference to the best, over users (Breiman et al., *Classification and
    regression trees*, 1984, 3.4.3, paired). A candidate that falls with the score is not eligible unless all do.
    Returns it, fitted on all of ``columns``, and a row for each candidate: method, inputs, brier, calibration_error,
    difference, standard_error, chosen.
    """
    import pandas as pd
    from sklearn.model_selection import GroupKFold

    y, user = columns["y"], columns["user"]
    n_users = len(np.unique(user))
    parts = list(GroupKFold(min(folds, n_users)).split(user, groups=user))
    losses, rows, fitted = [], [], []
    for method, inputs in candidates:
        p = np.empty(len(y))
        for train, test in parts:
            p[test] = predict(fit_recalibration(method, inputs, columns, train), columns, test)
        losses.append(np.bincount(user, (p - y) ** 2) / len(y) * n_users)
        fitted.append(fit_recalibration(method, inputs, columns))
        row = {"method": method, "inputs": ", ".join(inputs), "brier": np.mean((p - y) ** 2)}
        rows.append(row | {"calibration_error": calibration_error(p, y)})
    best = min(range(len(rows)), key=lambda index: rows[index]["brier"])
    eligible = []
    for row, loss, one in zip(rows, losses, fitted, strict=True):
        difference = loss - losses[best]
        error = float(difference.std(ddof=1) / len(difference) ** 0.5)
        row |= {"difference": float(difference.mean()), "standard_error": error}
        eligible.append(row["difference"] <= error and one.coefficients[0] > 0)
    chosen = eligible.index(True) if any(eligible) else best
    table = pd.DataFrame(rows)
    table["chosen"] = np.arange(len(rows)) == chosen
    return fitted[chosen], table


def equal_mass_bins(p: np.ndarray, n_bins: int = 15) -> np.ndarray:
    """The bin of each prediction, (n,): quantiles part them, and equal predictions share a bin."""
    edges = np.unique(np.quantile(p, np.arange(1, n_bins) / n_bins, method="inverted_cdf"))
    return np.unique(np.searchsorted(edges, p), return_inverse=True)[1]


def calibration_error(p: np.ndarray, y: np.ndarray, n_bins: int = 15) -> float:
    """Expected calibration error, sum over equal-mass bins of n_b / n |mean p - mean y| (Naeini et al., AAAI 2015)."""
    return float(np.abs(np.bincount(equal_mass_bins(p, n_bins), p - y)).sum() / len(p))


def raw_probability(score: np.ndarray, sd: np.ndarray | None, a: float, b: float) -> np.ndarray:
    """P(R = 1) as the fit itself has it, the weights of its confidences undone.

    With confidence a on ones and b on zeros, the best s for cells that are one with probability p minimises
    a p (1 - s)^2 + b (1 - p) s^2: s = a p / (a p + b (1 - p)), hence p = s / (s + a/b (1 - s)), s within [0, 1]. The
    mean is taken over s ~ N(score, sd^2), by Gauss-Hermite quadrature. Where b = 0 no zero has been seen and p = s.
    """
    ratio = a / b if b > 0 else 1.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    total = np.zeros_like(score)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        s = np.clip(score if sd is None else score + node * sd, 0.0, 1.0)
        total += weight * s / (s + ratio * (1 - s))
    return total


@dataclass(frozen=True, eq=False)
class Reliability:
    """Does P(listed item is a held-out positive) come true, for the top lists of the reported users?

    Parameters:
        name: The run.
        kind: The posterior's kind.
        top: Length of the lists.
        n_users: Reported users.
        n_reserved: Users that recalibrations were fitted on.
        base_rate: Share of listed items that are held-out positives, with its interval.
        scores: One row a prediction (clipped score, weights undone, recalibrated, recalibrated with sd, popularity):
            ``mean``, ``calibration_error``, ``brier``, ``skill`` (1 - Brier / that of the base rate) and
            ``skill_over_popularity``, each but the first with ``_low`` and ``_high``.
        sd_gain: Brier skill of the recalibration with sd among its inputs less that without; NaN for a point.
        bins: Curve of each prediction: ``prediction``, ``bin``, ``n``, ``mean``, ``share``, ``low``, ``high``.
        groups: The recalibrated prediction by group: ``by``, ``group``, ``n``, ``mean``, ``share``, ``low``, ``high``,
            ``calibration_error``.
        histogram: Counts of recalibrated predictions between ``edges``.
        edges: Edges of the histogram.
        recalibration: The chosen one.
        candidates: What it was chosen from, see :func:`choose_recalibration`.
    """

    name: str
    kind: str
    top: int
    n_users: int
    n_reserved: int
    base_rate: Interval
    scores: pd.DataFrame
    sd_gain: Interval
    bins: pd.DataFrame
    groups: pd.DataFrame
    histogram: np.ndarray
    edges: np.ndarray
    recalibration: Recalibration
    candidates: pd.DataFrame


def reliability(
    fit: Fit,
    name: str = "",
    *,
    top: int = 50,
    reserve: float = 0.1,
    n_bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> Reliability:
    """P(listed item is a held-out positive) over the ``top`` items of each user with test positives.

    The recalibration is chosen and fitted on reserved users (:func:`reserved_users`), whose pairs appear in no figure;
    all else is on the others. Intervals are percentiles of a bootstrap over users. Raises InputError where too few
    users have test positives.
    """
    import pandas as pd

    reserved, reported = reserved_users(fit, reserve, seed)
    learn = top_lists(fit, reserved, top).flat(np.ones(len(reserved), bool))
    recalibration, candidates = choose_recalibration(learn)
    chosen = recalibration.method, recalibration.inputs
    popularity, _ = choose_recalibration(learn, (("logistic", ("popularity",)), ("isotonic", ("popularity",))))

    found = top_lists(fit, reported, top).flat(np.ones(len(reported), bool))
    y, user, sd = found["y"], found["user"], found.get("sd")
    model = fit.options.model
    predictions = {
        "clipped score": np.clip(found["score"], 0.0, 1.0),
        "weights undone": raw_probability(found["score"], sd, model.a, model.b),
        "popularity": predict(popularity, found),
        "recalibrated": predict(recalibration, found),
    }
    if sd is not None:
        with_sd = fit_recalibration(chosen[0], (*chosen[1], "sd"), learn)
        predictions["recalibrated with sd"] = predict(with_sd, found)
    weights, n_users = user_weights(len(reported), resamples, seed), len(reported)
    n, positives = (weights @ _sums(user, values, n_users) for values in (np.ones(len(y)), y))
    base = positives / n
    losses = {prediction: weights @ _sums(user, (p - y) ** 2, n_users) for prediction, p in predictions.items()}
    skills = {prediction: 1 - loss / (n * base * (1 - base)) for prediction, loss in losses.items()}
    rows, bins = [], []
    for prediction, p in predictions.items():
        place = equal_mass_bins(p, n_bins)
        excess = weights @ _sums(user, p - y, n_users, place)
        values = {
            "calibration_error": np.abs(excess).sum(1) / n,
            "brier": losses[prediction] / n,
            "skill": skills[prediction],
            "skill_over_popularity": 1 - losses[prediction] / losses["popularity"],
        }
        row: dict[str, Any] = {"prediction": prediction, "mean": p.mean()}
        for statistic, value in values.items():
            row |= _named(statistic, interval(value))
        rows.append(row)
        frame = _shares(user, y, p, place, weights).rename(columns={"place": "bin"})
        frame.insert(0, "prediction", prediction)
        bins.append(frame)
    gain = Interval(np.nan, np.nan, np.nan)
    if sd is not None:
        gain = interval(skills["recalibrated with sd"] - skills["recalibrated"])
    p = predictions["recalibrated"]
    counts, edges = np.histogram(p, bins=100, range=(0, p.max()))
    return Reliability(
        name=name,
        kind=fit.posterior.kind,
        top=top,
        n_users=len(reported),
        n_reserved=len(reserved),
        base_rate=interval(base),
        scores=pd.DataFrame(rows).set_index("prediction"),
        sd_gain=gain,
        bins=pd.concat(bins, ignore_index=True),
        groups=_reliability_groups(fit, found, reported, p, weights, n_bins),
        histogram=counts,
        edges=edges,
        recalibration=recalibration,
        candidates=candidates,
    )


def _reliability_groups(
    fit: Fit, found: dict[str, np.ndarray], users: np.ndarray, p: np.ndarray, weights: np.ndarray, n_bins: int
) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for by, group, chosen in _cell_groups(fit, users[found["user"]], found["item"]):
        user, y, place = found["user"][chosen], found["y"][chosen], np.zeros(chosen.sum(), np.int64)
        frame = _shares(user, y, p[chosen], place, weights).drop(columns="place")
        frame.insert(0, "by", by)
        frame.insert(1, "group", group)
        frames.append(frame.assign(calibration_error=calibration_error(p[chosen], y, n_bins)))
    return pd.concat(frames, ignore_index=True)


def _shares(user: np.ndarray, y: np.ndarray, p: np.ndarray, place: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
    """Of each bin the mean prediction and the share of positives: place, n, mean, share, low, high."""
    import pandas as pd

    n_users, total = weights.shape[1], np.bincount(place)
    n, positives = (weights @ _sums(user, values, n_users, place) for values in (np.ones(len(y)), y))
    shares = positives / np.maximum(n, 1)
    low, high = np.quantile(shares[1:], [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
    columns = {"place": np.arange(len(total)), "n": total, "mean": np.bincount(place, p) / total}
    return pd.DataFrame(columns | {"share": shares[0], "low": low, "high": high})


# --- does the standard deviation tell anything? ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ErrorCorrelation:
    """Rank correlation of squared errors with the posterior sd, alone and given score and popularity.

    Parameters:
        name: The run.
        kind: The posterior's kind.
        outcome: What the error is of: "true score", or "matched" held-out positives and zeros.
        n_pairs: Pairs looked at.
        n_unmatched: Positives left out because no zero could be found for them.
        table: One row for all pairs and each group: ``by``, ``group``, ``n``, ``spearman`` and ``partial``, each with
            ``_low`` and ``_high``; empty for a point.
    """

    name: str
    kind: str
    outcome: str
    n_pairs: int
    n_unmatched: int
    table: pd.DataFrame


def popularity_bins(counts: np.ndarray) -> np.ndarray:
    """Bins of training ratings by powers of two: 0, 1, 2-3, 4-7, 8-15, ..."""
    return np.ceil(np.log2(np.asarray(counts) + 1)).astype(np.int64)


def matched_zeros(
    users: np.ndarray, items: np.ndarray, taken: np.ndarray, counts: np.ndarray, seed: int, rounds: int = 100
) -> np.ndarray:
    """For each positive pair an item of the same popularity bin that its user has nowhere in the data, -1 if none.

    Items are drawn uniformly from the bin until they are new to the user, and no item twice for one user. Shapes:
    ``users``, ``items`` (n_pairs,) rows; ``taken`` keys user * n_items + item of all pairs that are known, the
    positives among them; ``counts`` (n_items,) training ratings.
    """
    rng = np.random.default_rng(seed)
    n_items, bins = len(counts), popularity_bins(counts)
    order = np.argsort(bins, kind="stable")
    start = np.searchsorted(bins[order], np.arange(bins.max() + 2))
    zeros = np.full(len(users), -1, np.int64)
    taken, open_ = np.unique(taken), np.arange(len(users))
    for _ in range(rounds):
        if not len(open_):
            break
        wanted = bins[items[open_]]
        drawn = order[rng.integers(start[wanted], start[wanted + 1])]
        keys = users[open_] * n_items + drawn
        first = np.zeros(len(keys), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        new = first & ~np.isin(keys, taken)
        zeros[open_[new]] = drawn[new]
        taken, open_ = np.union1d(taken, keys[new]), open_[~new]
    return zeros


def error_correlation(
    fit: Fit, name: str = "", *, reserve: float = 0.1, resamples: int = 1000, seed: int = 0
) -> ErrorCorrelation:
    """Spearman correlation of squared error with sd, and the partial one given score and popularity.

    On clicks the pairs are all test positives of the reported users (R = 1) and as many matched zeros
    (:func:`matched_zeros`, R = 0); the error is R - E[u.v]. On data drawn from the model they are the held-out cells,
    and the error is that of the true score. "Given" means: the ranks of error and of sd, less their least-squares fit
    on a cubic spline of the score's rank in each popularity bin and on log(1 + popularity). Intervals are percentiles
    of a bootstrap over users, the ranks held. Of a point nothing is asked. Raises InputError as :func:`reliability`.

    With R in {0, 1} the error given the score is a function of R, so that the partial correlation asks whether sd
    tells ones from zeros beyond score and popularity; it can have either sign however good the intervals are.
    """
    import pandas as pd

    truth, test, n_unmatched = fit.dataset.truth, fit.split.test, 0
    counts, kind = _counted(fit).item_counts, fit.posterior.kind
    if truth is not None and "a" in truth:
        outcome, users, items = "true score", test.users.copy(), test.items.copy()
        r = truth["scores"][users, items]
    else:
        outcome = "matched"
        _, reported = reserved_users(fit, reserve, seed)
        positive = test.select(test.positive & np.isin(test.users, reported))
        parts = (fit.split.train, test, *([] if fit.split.validation is None else [fit.split.validation]))
        taken = np.concatenate([part.keys for part in parts])
        zeros = matched_zeros(positive.users, positive.items, taken, counts, seed)
        matched = zeros >= 0
        n_unmatched = int((~matched).sum())
        users, items = np.tile(positive.users[matched], 2), np.concatenate([positive.items[matched], zeros[matched]])
        r = np.repeat([1.0, 0.0], matched.sum())
    if fit.posterior.is_point:
        return ErrorCorrelation(name, kind, outcome, len(users), n_unmatched, pd.DataFrame())
    mean, sd = (tensor.double().numpy() for tensor in fit.posterior.score(users, items))
    rows = []
    for by, group, chosen in _cell_groups(fit, users, items):
        error, given = (r - mean)[chosen] ** 2, (mean[chosen], counts[items[chosen]])
        plain, partial = _rank_correlations(error, sd[chosen], *given, users[chosen], resamples, seed)
        row = {"by": by, "group": group, "n": int(chosen.sum())}
        rows.append(row | _named("spearman", plain) | _named("partial", partial))
    return ErrorCorrelation(name, kind, outcome, len(users), n_unmatched, pd.DataFrame(rows))


def _rank_correlations(
    error: np.ndarray,
    sd: np.ndarray,
    score: np.ndarray,
    popularity: np.ndarray,
    users: np.ndarray,
    resamples: int,
    seed: int,
) -> tuple[Interval, Interval]:
    """Spearman's and the partial one of :func:`error_correlation`, from each user's sums of squares and products."""
    from scipy.stats import rankdata
    from sklearn.preprocessing import SplineTransformer

    n = len(error)
    spline = SplineTransformer(n_knots=5, degree=3).fit_transform(rankdata(score)[:, None] / n)
    in_bin = np.unique(popularity_bins(popularity), return_inverse=True)[1]
    basis = np.zeros((n, in_bin.max() + 1, spline.shape[1]))
    basis[np.arange(n), in_bin] = spline
    ranks = np.stack([rankdata(error), rankdata(sd)], 1) / n - 0.5
    columns = np.concatenate([ranks, basis.reshape(n, -1), np.log1p(popularity)[:, None]], 1)
    row = np.unique(users, return_inverse=True)[1]
    n_users, width = row.max() + 1, columns.shape[1]
    columns, row = columns[np.argsort(row, kind="stable")], np.sort(row)
    grams = np.zeros((n_users, width, width))
    for start in range(0, n, 4096):
        part, at = columns[start : start + 4096], row[start : start + 4096]
        first = np.flatnonzero(np.r_[True, np.diff(at) > 0])
        grams[at[first]] += np.add.reduceat(part[:, :, None] * part[:, None, :], first, axis=0)
    gram = (user_weights(n_users, resamples, seed) @ grams.reshape(n_users, -1)).reshape(-1, width, width)
    sums, count = gram[:, :2, 2:-1].sum(-1), gram[:, 2:-1, 2:-1].sum((-1, -2))  # the splines of all bins add up to one
    alone = gram[:, :2, :2] - sums[:, :, None] * sums[:, None, :] / count[:, None, None]
    across, inner = gram[:, :2, 2:], np.linalg.pinv(gram[:, 2:, 2:], rcond=1e-10, hermitian=True)
    given = gram[:, :2, :2] - across @ inner @ across.mT
    plain, partial = (interval(m[:, 0, 1] / np.sqrt(m[:, 0, 0] * m[:, 1, 1])) for m in (alone, given))
    return plain, partial


# --- bootstrap over users --------------------------------------------------------------------------------------------


def user_weights(n_users: int, resamples: int, seed: int) -> np.ndarray:
    """How often each user counts, (1 + resamples, n_users): once in the first row, then as drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_users, np.full(n_users, 1 / n_users), resamples)
    return np.concatenate([np.ones((1, n_users)), drawn])


def interval(values: np.ndarray) -> Interval:
    """From a statistic at each row of :func:`user_weights`, (1 + resamples,): its value and its percentiles."""
    low, high = np.quantile(values[1:], [(1 - BAND) / 2, (1 + BAND) / 2])
    return Interval(float(values[0]), float(low), float(high))


def _sums(user: np.ndarray, values: np.ndarray, n_users: int, place: np.ndarray | None = None) -> np.ndarray:
    """Sums of the values of each user, (n_users,), or of each user and place, (n_users, n_places)."""
    if place is None:
        return np.bincount(user, values, minlength=n_users)
    n = int(place.max()) + 1
    return np.bincount(user * n + place, values, minlength=n_users * n).reshape(n_users, n)


def _named(name: str, one: Interval) -> dict[str, float]:
    return {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}


def _blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


# --- figures ---------------------------------------------------------------------------------------------------------


def draw_coverage(results: Sequence[Coverage]) -> Any:
    """One figure for all fits: coverage less level, PIT ECDFs with their bands, and 50, 80 and 90 % fit by fit.

    Rows are the true score and the held-out rating. A fit without uncertainty is named and has no marks. Returns a
    matplotlib figure.
    """
    from analysis.plots import colors, figure

    drawn, axes = figure(3, 2, width=4.8, height=3.6)
    for (curve, ecdf, dots), target in zip(axes, ("true score", "held-out rating"), strict=True):
        for level in LEVELS:
            dots.axhline(100 * level, color="#222222", linewidth=0.8, linestyle=":")
        for index, (result, color) in enumerate(zip(results, colors([one.name for one in results]), strict=True)):
            if target not in result.pits:
                dots.text(index, 65, "no uncertainty", rotation=90, ha="center", va="center", fontsize="small")
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
                dots.vlines(index, 100 * pit.low[at], 100 * pit.high[at], color="#222222", linewidth=4, alpha=0.25)
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


def draw_reliability(results: Sequence[Reliability]) -> Any:
    """For each fit the share of held-out positives by prediction, raw and recalibrated, above a histogram.

    Points are equal-mass bins with 95 % intervals; four fits stand side by side. Returns a matplotlib figure.
    """
    from analysis.plots import CYCLE, figure

    wide = min(len(results), 4)
    drawn, axes = figure(wide, 2 * -(-len(results) // wide), width=3.9, height=2.8)
    shown = {"recalibrated": ("recalibrated", CYCLE[1], "o"), "weights undone": ("raw: weights undone", CYCLE[6], "s")}
    shown["popularity"] = ("by popularity alone", CYCLE[0], "^")
    for place in range(axes.size // 2):
        curve, histogram = axes[2 * (place // wide), place % wide], axes[2 * (place // wide) + 1, place % wide]
        if place >= len(results):
            curve.set_axis_off()
            histogram.set_axis_off()
            continue
        result, top = results[place], 0.0
        for prediction, (label, color, marker) in shown.items():
            bins = result.bins[result.bins["prediction"] == prediction]
            ends = np.abs(bins[["low", "high"]].to_numpy().T - bins["share"].to_numpy())
            style: dict[str, Any] = {"fmt": marker, "color": color, "markersize": 4, "linewidth": 1}
            curve.errorbar(bins["mean"], bins["share"], ends, label=label, **style)
            top = max(top, bins["mean"].max(), bins["high"].max())
        curve.axline((0, 0), slope=1, color="#222222", linewidth=0.8)
        row = result.scores.loc["recalibrated"]
        curve.set(xlim=(0, 1.05 * top), ylim=(0, 1.05 * top), ylabel="share of held-out positives")
        title = f"{result.name}\ncalibration error {row['calibration_error']:.4f}, Brier skill {row['skill']:.4f}"
        curve.set_title(title, fontsize="medium")
        histogram.stairs(result.histogram, result.edges, fill=True, color=CYCLE[1], alpha=0.7)
        histogram.set(xlim=(0, 1.05 * top), yscale="log", ylabel="listed items")
        histogram.set_xlabel("P(listed item is a held-out positive)")
    axes[0, 0].legend(fontsize="small", loc="upper left")
    return drawn


# --- the command -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CalibrationOptions:
    """What is asked of fitted models, and where the answers go.

    Parameters:
        runs: Run folders, as the fit commands leave them.
        out: Folder of the tables (CSV), figures (PNG) and recalibrations (JSON); made if need be.
        top: Length of the lists whose items are looked at.
        reserve: Share of the users on whom recalibrations are fitted, where the split has no tuning users.
        bins: Equal-mass bins of the calibration error.
        draws: Draws of each score for interval coverage.
        resamples: Resamples of the bootstrap over users.
        seed: Of all that is drawn.
        threads: Number of threads; all that torch takes by itself if not given.
    """

    runs: tuple[str, ...]
    out: str
    top: int = 50
    reserve: float = 0.1
    bins: int = 15
    draws: int = 1000
    resamples: int = 1000
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("top", 1), ("bins", 2), ("draws", 20), ("resamples", 20), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} is {getattr(self, name)}, but it must be at least {least}")
        if not 0 < self.reserve < 1:
            raise InputError(f"--reserve is {self.reserve:g}, but it must be between 0 and 1")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads is {self.threads}, but it must be at least 1")
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise InputError("--out is a file", "name a folder", path=self.out)


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m analysis.calibration``."""
    from inference.commands import parse

    (options,) = parse(
        "python -m analysis.calibration",
        "Interval coverage where the truth is known; on clicks, whether P(listed item is a held-out positive) comes "
        "true and whether errors follow the posterior sd.",
        (CalibrationOptions,),
        argv,
        positionals=("runs",),
        examples=(
            ("python -m analysis.calibration runs/simulated-gaussian-bayes --out calibration", "interval coverage"),
            ("python -m analysis.calibration runs/map runs/bayes --out calibration", "two fits of clicks"),
        ),
    )
    import torch
    from rich.progress import Progress

    import inference

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    covered: list[Coverage] = []
    reliable: list[Reliability] = []
    correlated: list[ErrorCorrelation] = []
    seeds: dict[str, Any] = {"seed": options.seed}
    boot = seeds | {"reserve": options.reserve, "resamples": options.resamples}
    with _stderr_progress(Progress) as progress:
        for name, path in progress.track(_names(options.runs), description="runs"):
            fit = inference.load(path)
            known = fit.dataset.truth is not None and "a" in fit.dataset.truth
            try:
                if known:
                    covered.append(coverage(fit, name, draws=options.draws, **seeds))
                else:
                    reliable.append(reliability(fit, name, top=options.top, n_bins=options.bins, **boot))
                correlated.append(error_correlation(fit, name, **boot))
            except InputError as error:
                raise InputError(error.problem, error.remedy, path=path) from None
    _save(Path(options.out), covered, reliable, correlated)
    _print(covered, reliable, correlated)
    print(f"tables, figures and recalibrations: {options.out}")


def _stderr_progress(progress: Any) -> Any:
    from rich.console import Console

    console = Console(stderr=True)
    return progress(console=console, transient=True, disable=not console.is_terminal)


def _names(runs: Sequence[str]) -> list[tuple[str, str]]:
    """A short name for each run: its folder's, or the whole path where two are alike."""
    short = [Path(run).absolute().name for run in runs]
    return [(name if short.count(name) == 1 else run, run) for name, run in zip(short, runs, strict=True)]


def _save(out: Path, covered: list[Coverage], reliable: list[Reliability], correlated: list[ErrorCorrelation]) -> None:
    """Every table, figure and recalibration, each whole or not at all."""
    import pandas as pd

    from analysis.plots import save

    out.mkdir(parents=True, exist_ok=True)

    def table(name: str, frames: list[tuple[Any, pd.DataFrame]]) -> None:
        """One CSV file of the frames of several runs, each row with its run and kind."""
        parts = [
            frame.assign(run=result.name, kind=result.kind)
            if len(frame)
            else pd.DataFrame({"run": [result.name], "kind": [result.kind]})
            for result, frame in frames
        ]
        if parts:
            whole = pd.concat(parts, ignore_index=True)
            whole = whole[["run", "kind", *(column for column in whole if column not in ("run", "kind"))]]
            _whole(out / f"{name}.csv", lambda path: whole.to_csv(path, index=False))

    table("coverage", [(one, one.table) for one in covered])
    table("reliability", [(one, one.scores.reset_index()) for one in reliable])
    table("reliability-bins", [(one, one.bins) for one in reliable])
    table("reliability-groups", [(one, one.groups) for one in reliable])
    table("candidates", [(one, one.candidates) for one in reliable])
    table("error-correlation", [(one, one.table) for one in correlated])
    for one in reliable:
        text = json.dumps(one.recalibration.to_json(), indent=1)
        name = re.sub(r"[^\w.-]+", "_", one.name)
        _whole(out / f"recalibration-{name}.json", partial(Path.write_text, data=text + "\n"))
    if covered:
        save(draw_coverage(covered), out / "coverage.png")
    if reliable:
        save(draw_reliability(reliable), out / "reliability.png")


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _print(covered: list[Coverage], reliable: list[Reliability], correlated: list[ErrorCorrelation]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    wide = Console()
    console = wide if wide.is_terminal else Console(width=160)
    for title, head, rows, notes in (_coverage_rows(covered), _reliability_rows(reliable), _error_rows(correlated)):
        if not rows:
            continue
        table = Table(title=title, title_justify="left")
        for index, name in enumerate(head):
            table.add_column(name, justify="left" if index < 2 else "right", overflow="fold")
        for index, row in enumerate(rows):
            ends = index + 1 < len(rows) and rows[index + 1][0] != row[0]
            table.add_row(*(Text(cell) for cell in row), end_section=ends)
        console.print(table)
        for note in notes:
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        console.print()


Printed = tuple[str, Sequence[str], list[Sequence[str]], Sequence[str]]
"""Title, head and rows of a table, and lines below it."""


def _coverage_rows(covered: list[Coverage]) -> Printed:
    percents = [f"{100 * level:.0f}" for level in LEVELS]
    rows: list[Sequence[str]] = []
    for one in covered:
        if one.table.empty:
            rows.append([one.name, "no uncertainty", f"{one.n_cells:,}", *["-"] * (2 * len(percents) + 1)])
        for row in one.table.to_dict("records"):
            if row["by"] in ("all", "items"):
                where = row["target"] if row["by"] == "all" else f"  {row['group']} items"
                cells = [one.name, where, f"{row['n_cells']:,}"]
                for percent in percents:
                    low, high = 100 * row[f"low@{percent}"], 100 * row[f"high@{percent}"]
                    cells.append(f"{100 * row[f'covered@{percent}']:.1f} [{low:.1f}, {high:.1f}]")
                    cells.append(f"{100 * row[f'normal@{percent}']:.1f}")
                rows.append([*cells, f"{row['p_value']:.3f}"])
    head = ["run", "of", "cells", *(x for percent in percents for x in (f"{percent} % holds", "Normal")), "PIT p"]
    notes = (
        "Quantiles of draws; in brackets where 95 % of right posteriors would be. Normal: mean and sd instead.",
        "PIT p: of the hypothesis that the truth is one more draw of the posterior.",
    )
    return "Coverage of central intervals, % of held-out cells", head, rows, notes


def _reliability_rows(reliable: list[Reliability]) -> Printed:
    rows: list[Sequence[str]] = []
    notes = ["In brackets 95 % bootstrap intervals over users."]
    for one in reliable:
        for row in one.scores.reset_index().to_dict("records"):
            skills = (_with(row, name, 4) for name in ("skill", "skill_over_popularity"))
            cells = [one.name, row["prediction"], f"{row['mean']:.4f}", _with(row, "calibration_error", 4)]
            rows.append([*cells, f"{row['brier']:.5f}", *skills])
        users = f"{one.n_users:,} users reported, {one.n_reserved:,} reserved"
        chosen = f"{one.recalibration.method} in {', '.join(one.recalibration.inputs)}"
        note = f"{one.name}: {users}; base rate {_text(one.base_rate)}; recalibrated by {chosen}"
        gain = "" if np.isnan(one.sd_gain.value) else f"; sd besides adds {_text(one.sd_gain)} to the skill"
        notes.append(note + gain)
    title = f"P(listed item is a held-out positive), top {reliable[0].top}" if reliable else ""
    head = ("run", "prediction", "mean", "calibration error", "Brier", "skill over base rate", "over popularity")
    return title, head, rows, notes


def _error_rows(correlated: list[ErrorCorrelation]) -> Printed:
    rows: list[Sequence[str]] = []
    for one in correlated:
        if one.table.empty:
            rows.append([one.name, "no uncertainty", f"{one.n_pairs:,}", "-", "-"])
        for row in one.table.to_dict("records"):
            if row["by"] in ("all", "items"):
                where = f"{row['group']} items" if row["by"] == "items" else f"all ({one.outcome})"
                rows.append([one.name, where, f"{row['n']:,}", *(_with(row, x, 3) for x in ("spearman", "partial"))])
    head = ("run", "pairs", "n", "alone", "given score and popularity")
    notes = ("In brackets 95 % bootstrap intervals over users.",)
    return "Rank correlation of squared error with posterior sd", head, rows, notes


def _with(row: dict[Any, Any], name: str, digits: int) -> str:
    value, low, high = (f"{row[name + end]:.{digits}f}" for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def _text(one: Interval) -> str:
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


if __name__ == "__main__":
    raise SystemExit(run_command(main))
