"""Means over users with bootstrap intervals, and differences user by user."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from inference.evaluation.ratings import RatingEvaluation


def bootstrap(
    values: np.ndarray, n: int = 2000, level: float = 0.95, seed: int = 0, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the bootstrap percentile interval of the mean over users, one for each column.

    With ``weights`` (n_users,), the numbers of pairs of each user, it is the mean over pairs.

    Users are drawn with replacement, ``n`` times; all columns see the same draws, so that a difference of columns is
    paired. Shapes: ``values`` (n_users, n_columns), result (n_columns,) each. Source: Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13.
    """
    rng, n_users = np.random.default_rng(seed), len(values)
    means = []
    for start in range(0, n, 256):
        size = min(256, n - start)
        drawn = rng.integers(n_users, size=(size, n_users)) + n_users * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n_users).reshape(size, n_users)
        means.append(
            times @ values / n_users if weights is None else times * weights @ values / (times @ weights)[:, None]
        )
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def intervals(
    evaluations: dict[str, Any], n: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means with bootstrap intervals, and differences to the first model, over headline users: two frames.

    The standard error of a difference is that of a mean of paired differences, sd / sqrt(n_users). Of explicit ratings
    means are over pairs, users still being what is drawn; the standard error is that of the ratio of sums
    (linearised: Cochran, Sampling Techniques, 1977, section 6.3).
    """
    first, *others = evaluations
    explicit = isinstance(evaluations[first], RatingEvaluation)
    values, weights = {}, None
    for name, evaluation in evaluations.items():
        headline = evaluation.per_user[~evaluation.per_user["tuning"]]
        values[name] = headline[list(evaluation.metrics)].to_numpy(float)
        if explicit:
            weights = headline["n_test"].to_numpy(float)
    metrics = evaluations[first].metrics
    n_users, width = values[first].shape
    differences = {name: values[name] - values[first] for name in others}
    low, high = bootstrap(np.hstack([*values.values(), *differences.values()]), n, level, seed, weights)
    ends = iter(zip(low.reshape(-1, width), high.reshape(-1, width), strict=True))
    means, paired = [], []
    for name, one in values.items():
        protocol = evaluations[name].protocol
        mean = np.average(one, axis=0, weights=weights)
        columns = {"model": name, "metric": metrics, "mean": mean, "protocol": protocol, "n_users": n_users}
        means.append(pd.DataFrame(columns | dict(zip(("low", "high"), next(ends), strict=True))))
    for name, one in differences.items():
        mean = np.average(one, axis=0, weights=weights)
        columns = {"model": name, "reference": first, "metric": metrics, "mean": mean}
        away = one - mean if weights is None else (one - mean) * weights[:, None] / weights.mean()
        spread = {"se": (away**2).sum(0) ** 0.5 / ((n_users - 1) * n_users) ** 0.5 if n_users > 1 else np.nan}
        sign = np.array([-1 if str(metric).endswith("error") else 1 for metric in metrics])
        shares = {"better": (sign * one > 0).mean(0), "worse": (sign * one < 0).mean(0), "n_users": n_users}
        paired.append(pd.DataFrame(columns | spread | dict(zip(("low", "high"), next(ends), strict=True)) | shares))
    averages = pd.concat(means, ignore_index=True)
    compared = pd.concat(paired, ignore_index=True) if paired else pd.DataFrame()
    if explicit:
        squares = averages["metric"] == "squared_error"
        averages.loc[squares, ["mean", "low", "high"]] **= 0.5
        averages["metric"] = averages["metric"].replace({"squared_error": "rmse", "absolute_error": "mae"})
        if paired:
            compared = compared[~compared["metric"].str.startswith("coverage")].reset_index(drop=True)
    return averages, compared
