"""The cards and tables of the page, as texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison.result import Comparison, rows_of
from analysis.comparison.shrinkage import shown_spread
from analysis.over_users import standard_error
from analysis.reliability import Reliability
from analysis.soundness.slopes import told_hits, told_slope
from inference.evaluation.rankings import Evaluation
from inference.evaluation.rating_rivals import RATING_RIVALS
from inference.liveness import NONE, POINT
from inference.numerals import largest, metric, plus_minus
from pyro_cvae.text import counted

RIVALS = ("popularity", "tfidf")
HISTORY = (0, 1, 2, 4, 8, 16, 32, 64)
"""Least number of ratings of each group of users."""
NAMES = {
    "rmse": "RMSE",
    "mae": "MAE",
    "log_density": "log density, nats",
    "coverage@50": "within 50 %",
    "coverage@90": "within 90 %",
    "squared_error": "squared error",
    "absolute_error": "absolute error",
}
"""What metrics of explicit ratings are called on the page."""


def cards(comparison: Comparison, about: dict[str, Any], name: str, headline: str) -> list[dict[str, str]]:
    """What is said of a run at the top of the page: ``what``, its ``value`` and ``more`` of each card."""
    recall = comparison.recall[comparison.recall["metric"] == headline].set_index("model")
    row, run = recall.loc[name], comparison.runs.set_index("model").loc[name]
    beside = [model for model in recall.index if model in (*RIVALS, *RATING_RIVALS)]
    rivals = ", ".join(f"{rival} {metric(headline, recall.loc[rival, 'mean'], 3)}" for rival in beside)
    said = [
        {
            "what": NAMES.get(headline, headline),
            "value": metric(headline, row["mean"], 3),
            "more": "95 %: {} to {}".format(*(metric(headline, row[end], 3, row["mean"]) for end in ("low", "high"))),
        },
        {"what": "Content", "value": about["content"]["state"], "more": _first_number(about["content"])},
    ]
    drawn = comparison.stability
    if about["is_point"]:
        said.append({"what": "Uncertainty", "value": "none", "more": "a point estimate; --mode bayes has it"})
    else:
        drawn = drawn[(drawn["first"] == name) & (drawn["second"] == "between its draws")].iloc[0]
        more = "of a list of 50 are the same in two posterior draws"
        said.append({"what": "Stability", "value": f"{drawn['overlap']:.0%}", "more": more})
    said.append({"what": "Fit", "value": f"{run['seconds']:,.0f} s", "more": counted(run["epochs"], "epoch")})
    if rivals:
        said[0]["more"] += f"; {rivals}"
    return said


def _first_number(content: dict[str, Any]) -> str:
    """How many units of the content are active, or why that cannot be said."""
    if content["state"] in (NONE, POINT):
        return "the model reads none" if content["state"] == NONE else "no posterior that could collapse"
    return f"active units: {content['numbers']['Active units (directions of the means)']}"


def recall_table(comparison: Comparison) -> dict[str, Any]:
    """The metrics of every model with their intervals."""
    metrics = list(comparison.recall["metric"].unique())
    rows = []
    for model, group in comparison.recall.groupby("model", sort=False):
        cells = []
        for row in rows_of(group):
            mean, low, high = (metric(row.metric, one, 3, row.mean_) for one in (row.mean_, row.low, row.high))
            cells.append({"value": mean, "more": f"{low} – {high}"})
        rows.append({"name": str(model), "cells": cells, "is_run": str(model) in set(comparison.runs["model"])})
    return {"head": [NAMES.get(metric, metric) for metric in metrics], "rows": rows}


def difference_table(comparison: Comparison, names: Sequence[str]) -> dict[str, Any] | None:
    """The second run less the first, ``None`` where there is one run."""
    if len(names) < 2:
        return None
    group = comparison.differences[comparison.differences["model"] == names[1]]
    cells = []
    for row in rows_of(group):
        values = row.mean_, row.low, row.high
        mean, low, high = (metric(row.metric, one, 4, largest(values), "+") for one in values)
        cells.append({"value": mean, "more": f"{low} to {high}", "shares": f"{row.better:.0%} / {row.worse:.0%}"})
    return {
        "head": [NAMES.get(metric, metric) for metric in group["metric"]],
        "cells": cells,
        "model": names[1],
        "reference": names[0],
    }


def group_table(comparison: Comparison, headline: str) -> dict[str, Any]:
    """The headline metric of hot, warm and cold items."""
    first = next(iter(comparison.evaluations.values())).groups
    groups = [name for name in ("hot", "warm", "cold") if name in first.index]
    rows = [
        {"name": name, "cells": [metric(headline, evaluation.groups.loc[group, headline], 3) for group in groups]}
        for name, evaluation in comparison.evaluations.items()
    ]
    sizes = ((first.loc[g, "n_items"], first.loc[g, "n_pairs"]) for g in groups)
    counts = [f"{counted(items, 'item')}, {counted(pairs, 'test pair')}" for items, pairs in sizes]
    return {"head": groups, "counts": counts, "rows": rows}


def slope_table(about: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """What a place in the list is worth by group of items, and the slope on the score; ``None`` where none is known."""
    tables = {name: one["slopes"] for name, one in about.items() if one["slopes"] is not None}
    if not tables:
        return None
    groups = list(next(iter(tables.values())).index)
    rows = []
    for name, table in tables.items():
        hits = [told_hits(table.loc[group]) for group in groups]
        ends = [told_slope(table.loc[group]) for group in groups]
        rows += [{"name": name, "what": "listed", "cells": hits}, {"name": name, "what": "slope", "cells": ends}]
        if (table["scale"] != 1).any():
            factors = [f"{table.loc[group, 'scale']:.2f}" for group in groups]
            rows.append({"name": name, "what": "content times", "cells": factors})
    return {"head": groups, "rows": rows}


def spread_table(comparison: Comparison) -> dict[str, Any] | None:
    """The posterior spread by the number of ratings, ``None`` where no run has any."""
    if not len(comparison.shrinkage):
        return None
    frame = comparison.shrinkage
    lows = sorted(frame["from"].unique())
    ends = frame.groupby("from")["to"].max()
    words = {"sd_v": "sd of v", "sd_score": "sd of u.v", "item_share": "item's share"}
    rows = []
    for model, group in frame.groupby("model", sort=False):
        artefact = bool(group["artefact"].any())
        for column, cells in shown_spread(group, lows).items():
            rows.append({"name": str(model), "what": words[column], "artefact": artefact, "cells": cells})
    counts = frame.groupby("from")["n_items"].max()
    head = ["0: content only" if low == 0 and comparison.reads else _range(low, int(ends[low])) for low in lows]
    return {"head": head, "counts": [counted(counts[low], "item") for low in lows], "rows": rows}


def reliability_table(results: Sequence[Reliability]) -> list[dict[str, Any]]:
    """How far each prediction of P(listed item is a held-out positive) comes true, a row a run and prediction."""
    rows = []
    for one in results:
        shown = ("recalibrated", "clipped score", "model's own", "popularity")
        for prediction in [name for name in shown if name in one.scores.index]:
            row = one.scores.loc[prediction]
            cells = [{"value": f"{row['mean']:.3f}", "more": f"truly {one.base_rate.value:.3f}"}]
            for column in ("calibration_error", "skill", "skill_over_popularity"):
                # no interval of a mean of absolute values: resampling adds noise to each, so that it lies above
                ends = "" if column == "calibration_error" or np.isnan(row[column]) else "{:.4f} to {:.4f}"
                more = ends.format(row[f"{column}_low"], row[f"{column}_high"])
                cells.append({"value": metric(column, row[column]), "more": more})
            rows.append({"name": one.name, "what": prediction, "cells": cells})
    return rows


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}–{high}"


def stability_lines(comparison: Comparison, names: Sequence[str]) -> list[str]:
    """How stable the lists of the runs are, a sentence each."""
    said = []
    for row in comparison.stability.to_dict("records"):
        share = (
            f"{row['overlap']:.0%} of the items in common, Kendall's tau of their order {metric('', row['kendall'], 2)}"
        )
        if row["first"] in names and row["second"] == "between its draws":
            said.append(f"{row['first']}: the lists of two posterior draws have {share}.")
        elif row["first"] in names and row["second"] in names:
            said.append(f"{row['first']} and {row['second']}: their lists have {share}.")
    return said


def by_history(evaluation: Evaluation, counts: np.ndarray, by_user: str) -> pd.DataFrame:
    """Mean of a metric over groups of headline users by a count of each user: n_users, mean, standard error ``se``.

    ``counts`` (n_users,) of all users; groups are those of :data:`HISTORY`, in the index as (least, most).
    """
    users = evaluation.per_user[~evaluation.per_user["tuning"]]
    mine = counts[users["user"].to_numpy()]
    group = np.searchsorted(HISTORY, mine, side="right") - 1
    rows = []
    for number in np.unique(group):
        values, in_group = users[by_user].to_numpy()[group == number], mine[group == number]
        row = {"least": in_group.min(), "most": in_group.max(), "n_users": len(in_group)}
        rows.append(row | {"mean": values.mean(), "se": float(standard_error(values))})
    return pd.DataFrame(rows).set_index(["least", "most"])


def history_table(comparison: Comparison, n_train: np.ndarray, by_user: str, by: str) -> dict[str, Any]:
    """A metric in groups of users ``by`` "n_train", (n_users,) training ratings, or "n_test", held-out ones."""
    what = {"n_train": "training ratings of the user", "n_test": "held-out ratings of the user"}[by]
    tables = {}
    for name, evaluation in comparison.evaluations.items():
        counts = np.zeros(len(n_train), np.int64)
        column = "n_test" if comparison.explicit else "n_relevant"
        counts[evaluation.per_user["user"].to_numpy()] = evaluation.per_user[column]
        tables[name] = by_history(evaluation, n_train if by == "n_train" else counts, by_user)
    first = next(iter(tables.values()))
    rows = [
        {"name": name, "cells": [_with_error(by_user, *pair) for pair in zip(table["mean"], table["se"], strict=True)]}
        for name, table in tables.items()
    ]
    head = [_range(*ends) for ends in first.index]
    return {"what": what, "head": head, "counts": [counted(n, "user") for n in first["n_users"]], "rows": rows}


def _with_error(name: str, mean: float, se: float) -> str:
    return plus_minus(metric(name, mean, 3), metric(name, se, 3, abs(mean)))
