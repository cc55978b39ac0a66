"""A comparison as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from analysis.comparison.result import Comparison, recalls, rows_of
from analysis.comparison.runs import marks, objective_label
from analysis.comparison.shrinkage import ARTEFACT, RATINGS, shown_spread
from inference.numerals import largest, metric, plus_minus
from inference.printing import Sheet


def tables(comparison: Comparison) -> list[Sheet | str]:
    """What the command prints: tables, and lines of text."""
    shown: list[Sheet | str] = [comparison.title, _fits(comparison), _means(comparison)]
    if len(comparison.differences):
        shown.append(_differences(comparison))
    if len(comparison.shrinkage):
        shown.append(_spread(comparison))
        shown.append("item's share: of the variance of u.v, what would go if v were known; the rest is the user's.")
        if comparison.shrinkage["artefact"].any():
            shown.append(f"* {ARTEFACT}.")
    lists = _lists(comparison)
    if lists.rows:
        shown.append(lists)
    return [*shown, *comparison.notes]


def _fits(comparison: Comparison) -> Sheet:
    """How each run was fitted, with a column for each objective."""
    objectives = list(comparison.runs["objective"].unique())
    heads = ["run", "method", "posterior", "factors", "epochs", "seconds", *map(objective_label, objectives)]
    sheet = Sheet(heads, title="Fits")
    for row in comparison.runs.to_dict("records"):
        value = f"{row['value']:,.0f}{marks(row)}"
        cells = [value if row["objective"] == name else "" for name in objectives]
        facts = (row["model"], row["method"], row["posterior"], row["factors"], row["epochs"], f"{row['seconds']:,.1f}")
        sheet.add_row(*map(str, (*facts, *cells)))
    return sheet


def _means(comparison: Comparison) -> Sheet:
    """The metrics of every model with their intervals."""
    title = f"Mean over {'ratings' if comparison.explicit else 'users'}, bootstrap interval"
    sheet = Sheet(["model", *comparison.recall["metric"].unique()], title=title)
    for model, group in comparison.recall.groupby("model", sort=False):
        sheet.add_row(str(model), *map(_mean, rows_of(group)))
    return sheet


def _differences(comparison: Comparison) -> Sheet:
    """The differences to the first run, user by user."""
    reference = comparison.differences["reference"].iloc[0]
    compared = comparison.differences if comparison.explicit else recalls(comparison.differences)
    about = "user by user: mean ± standard error, bootstrap interval, users better / worse"
    sheet = Sheet(["model", *compared["metric"].unique()], title=f"Difference to {reference}, {about}")
    for model, group in compared.groupby("model", sort=False):
        sheet.add_row(str(model), *map(_difference, rows_of(group)))
    return sheet


def _mean(row: Any) -> str:
    """A metric with its interval, one below the other."""
    mean, low, high = (metric(row.metric, value, size=row.mean_) for value in (row.mean_, row.low, row.high))
    return f"{mean}\n{low} to {high}"


def _difference(row: Any) -> str:
    """A difference with its standard error, its interval, and the shares of users who are better and worse."""
    size = largest((row.mean_, row.se, row.low, row.high))
    mean, low, high = (metric(row.metric, value, size=size, sign="+") for value in (row.mean_, row.low, row.high))
    told = plus_minus(mean, metric(row.metric, row.se, size=size))
    return f"{told}\n[{low}, {high}]\n{row.better:.0%} / {row.worse:.0%}"


def _spread(comparison: Comparison) -> Sheet:
    """The posterior spread by the number of ratings; an artefact has a star."""
    lows = sorted(comparison.shrinkage["from"].unique())
    title = "Posterior sd, median, by the item's training ratings"
    sheet = Sheet(["run", "sd of", *_bin_labels(lows, comparison.reads)], title=title)
    for model, group in comparison.shrinkage.groupby("model", sort=False):
        mark = " *" if group["artefact"].any() else ""
        words = {"sd_v": f"v{mark}", "sd_score": f"u.v{mark}", "item_share": "item's share"}
        for column, cells in shown_spread(group, lows).items():
            sheet.add_row(str(model), words[column], *cells)
    return sheet


def _lists(comparison: Comparison) -> Sheet:
    """How alike two lists are; of the rivals only their likeness to the first run, the CSV file has all."""
    heads = ["list", "and list", "common items", "Kendall's tau of these", "users"]
    sheet = Sheet(heads, title="Top lists of the same users")
    runs = comparison.runs["model"]
    rivals = set(comparison.recall["model"]) - set(runs)
    for row in comparison.stability.to_dict("records"):
        if row["second"] in rivals and row["first"] != runs.iloc[0]:
            continue
        overlap, error, kendall = (metric("", row[name], 3) for name in ("overlap", "overlap_se", "kendall"))
        sheet.add_row(row["first"], row["second"], plus_minus(overlap, error), kendall, str(row["n_users"]))
    return sheet


def _bin_labels(lows: Iterable[int], reads: bool) -> list[str]:
    """What the bins of :data:`analysis.comparison.shrinkage.RATINGS` that begin at ``lows`` are called.

    ``reads`` as :attr:`Comparison.reads`.
    """
    highest = dict(zip(RATINGS, (low - 1 for low in RATINGS[1:]), strict=False))
    labels = {low: f"{low}" if low == high else f"{low}-{high}" for low, high in highest.items()}
    labels |= {0: "0: content only" if reads else "0", RATINGS[-1]: f"{RATINGS[-1]}+"}
    return [labels[low] for low in lows]
