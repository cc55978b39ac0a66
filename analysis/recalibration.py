"""From scores to probabilities: recalibrations that are stored as JSON, how they are fitted, chosen and judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from analysis.over_users import standard_error
from pyro_cvae.errors import InputError

INPUTS = ("score", "log score", "rank", "popularity", "sd", "cold")
_COLUMN = {"log score": "score", "cold": "popularity"}
FEWEST = 10
"""Listed items of each outcome, with and without training ratings, from which on these have intercepts of their own."""
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
class Recalibration:
    """P(a listed item is relevant) from its score and what else is known of it.

        P = f(intercept + sum_k coefficient_k (x_k - centre_k) / scale_k),

    f the logistic function, or where there are ``knots`` the piecewise linear one through (x, P) at them (isotonic
    regression of the same sum). Parameters: ``inputs`` names of ``INPUTS`` in the order of
    ``centre``, ``scale`` and ``coefficients``; "log score" and "sd" are logarithms, "rank" that of the place in the
    list from 1, "popularity" log(1 + training ratings of the item), "cold" 1 where it has none. Source: Platt
    1999; Zadrozny and Elkan, KDD 2002.
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
        given = {"score": score, "rank": rank, "popularity": popularity, "sd": sd}
        total = np.asarray(self.intercept)
        for name, centre, scale, coefficient in zip(
            self.inputs, self.centre, self.scale, self.coefficients, strict=True
        ):
            if (values := given[column := _COLUMN.get(name, name)]) is None:
                raise InputError(
                    f"this recalibration needs the {column} of every item", "give it, or recalibrate without"
                )
            total = total + coefficient * (_transformed(name, values) - centre) / scale
        if self.knots:
            x, p = np.array(self.knots).T
            return np.interp(total, x, p)
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
    if name == "cold":
        return (values == 0).astype(np.float64)
    return values if name == "score" else np.log(np.maximum(values, 1e-3))


def fit_recalibration(
    method: str, inputs: Sequence[str], columns: dict[str, np.ndarray], rows: np.ndarray | slice = slice(None)
) -> Recalibration:
    """Logistic regression without a penalty, or an isotonic one of its linear predictor, by scikit-learn.

    ``columns`` hold the inputs by name and ``y``, (n_pairs,). Raises InputError where all outcomes are the same.
    """
    y = columns["y"][rows]
    if y.min() == y.max():
        raise InputError(
            f"{'every' if y.min() else 'no'} listed item of the reserved users is a held-out positive",
            "give a larger --reserve or --top",
        )
    x = np.stack([_transformed(name, columns[_COLUMN.get(name, name)][rows]) for name in inputs], 1)
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
    names = {_COLUMN.get(name, name) for name in recalibration.inputs} | {"score"}
    return recalibration(**{name: columns[name][rows] for name in names})


def candidates_for(columns: dict[str, np.ndarray]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """:data:`CANDIDATES`, with an intercept of their own for items without training ratings where enough are listed.

    What a score of theirs is worth is another matter than it is of items that have been chosen before. Enough are
    :data:`FEWEST` of either kind that are held-out positives, and as many that are none.
    """
    cold, y = columns["popularity"] == 0, columns["y"] > 0
    least = min(int((group & outcome).sum()) for group in (cold, ~cold) for outcome in (y, ~y))
    if least < FEWEST:
        return CANDIDATES
    return tuple((method, (inputs[0], "cold", *inputs[1:])) for method, inputs in CANDIDATES)


def choose_recalibration(
    columns: dict[str, np.ndarray], candidates: Sequence[tuple[str, tuple[str, ...]]] = CANDIDATES, folds: int = 5
) -> tuple[Recalibration, pd.DataFrame]:
    """The simplest candidate with a Brier score within one standard error of the best, by cross-validation over users.

    The standard error is that of the mean difference to the best, over users (Breiman et al., *Classification and
    regression trees*, 1984, 3.4.3, paired). A candidate that falls with its first input, the score, is passed over
    unless all do. Returns it, fitted on all of ``columns``, and a row for each candidate: method, inputs, brier,
    calibration_error, difference, standard_error, chosen.
    """
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
    rising = np.array([one.coefficients[0] > 0 for one in fitted])
    able = rising if rising.any() else ~rising
    best = min(np.flatnonzero(able), key=lambda index: rows[index]["brier"])
    holds = np.zeros(len(rows), bool)
    for index, (row, loss) in enumerate(zip(rows, losses, strict=True)):
        difference = loss - losses[best]
        error = float(standard_error(difference))
        row |= {"difference": float(difference.mean()), "standard_error": error}
        holds[index] = able[index] and row["difference"] <= error
    chosen = int(holds.argmax())
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


def raw_probability(score: np.ndarray, sd: np.ndarray | None, a: float, b: float | np.ndarray) -> np.ndarray:
    """P(R = 1) as the fit itself has it, the weights of its confidences undone.

    With confidence a on ones and b on zeros, the best s for cells that are one with probability p minimises
    a p (1 - s)^2 + b (1 - p) s^2: s = a p / (a p + b (1 - p)), hence p = s / (s + a/b (1 - s)), s within [0, 1]. The
    mean is taken over s ~ N(score, sd^2), by Gauss-Hermite quadrature. Where b = 0 no zero has been seen and p = s.
    """
    b = np.asarray(b, np.float64)
    ratio = np.where(b > 0, a / np.where(b > 0, b, 1.0), 1.0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    total = np.zeros_like(score)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        s = np.clip(score if sd is None else score + node * sd, 0.0, 1.0)
        total += weight * s / (s + ratio * (1 - s))
    return np.clip(total, 0.0, 1.0)
