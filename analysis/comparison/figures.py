"""A comparison as figures, each function a panel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison.result import Comparison, recalls, rows_of
from analysis.comparison.runs import marks, objective_label
from analysis.plots import RIVAL, colors, panels


def draw(comparison: Comparison) -> Any:
    """The figure: recall, differences, objectives (a panel for each name), spread, stability."""
    paints: list[Callable[..., None]] = [draw_errors if comparison.explicit else draw_recall]
    if len(comparison.differences):
        paints.append(draw_error_differences if comparison.explicit else draw_differences)
    for objective in comparison.runs["objective"].unique():
        paints.append(partial(draw_objective, objective=objective))
    if len(comparison.shrinkage):
        paints.append(partial(draw_shrinkage, column="sd_v", what="of v (root mean square over factors)"))
        paints.append(partial(draw_shrinkage, column="sd_score", what="of u.v"))
    if len(comparison.stability):
        paints.append(draw_stability)
    drawn, axes = panels(len(paints), 2, width=6.2, height=4.0)
    for paint, panel in zip(paints, axes.flat, strict=False):
        paint(panel, comparison)
    drawn.suptitle(comparison.title, parse_math=False)
    return drawn


def _style(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Colour and line of each model: runs by the cycle, rivals grey and dashed."""
    runs = list(comparison.runs["model"])
    coloured = {name: {"color": color} for name, color in zip(runs, colors(runs), strict=True)}
    rivals = [name for name in comparison.recall["model"].unique() if name not in coloured]
    lines = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3)), (0, (8, 3)))
    grey = {name: {"color": RIVAL, "linestyle": lines[k % len(lines)]} for k, name in enumerate(rivals)}
    return coloured | grey


def draw_recall(axes: Any, comparison: Comparison) -> None:
    """Recall of every model, with bands."""
    style = _style(comparison)
    for model, group in recalls(comparison.recall).groupby("model", sort=False):
        axes.fill_between(group["cutoff"], group["low"], group["high"], color=style[model]["color"], alpha=0.2, lw=0)
        axes.plot(group["cutoff"], group["mean"], marker=".", label=_plain(model), **style[model])
    axes.set(
        xlabel="M", ylabel="recall@M (corrected protocol)", title="Mean over users, bootstrap band", ylim=(0, None)
    )
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # many names would hide curves
    axes.legend(fontsize="small", **beside if comparison.recall["model"].nunique() > 5 else {})


def draw_differences(axes: Any, comparison: Comparison) -> None:
    """Differences to the first run, with intervals."""
    style = _style(comparison)
    frame, runs = recalls(comparison.differences), list(comparison.runs["model"])
    if len(runs) > 1:  # rivals are so far away that nothing would be seen of the runs
        frame = frame[frame["model"].isin(runs)]
    models = list(frame["model"].unique())
    step = np.diff(np.unique(frame["cutoff"])).min() if frame["cutoff"].nunique() > 1 else 1.0
    for number, (model, group) in enumerate(frame.groupby("model", sort=False)):
        at = group["cutoff"] + 0.6 * step * (number - (len(models) - 1) / 2) / len(models)
        ends = np.abs([group["mean"] - group["low"], group["high"] - group["mean"]])
        axes.errorbar(at, group["mean"], ends, fmt="o", ms=4, color=style[model]["color"], label=_plain(model))
    reference = _plain(comparison.differences["reference"].iloc[0])
    axes.axhline(0, color="#222222", lw=1)
    axes.set(xlabel="M", ylabel=f"recall@M less that of {reference}", title="Paired differences, bootstrap intervals")
    axes.legend(fontsize="small")


def draw_errors(axes: Any, comparison: Comparison) -> None:
    """RMSE of every model of explicit ratings, with intervals."""
    _intervals(axes, comparison, comparison.recall[comparison.recall["metric"] == "rmse"])
    axes.set(xlabel="RMSE of test ratings", title="Over ratings, bootstrap intervals over users")


def draw_error_differences(axes: Any, comparison: Comparison) -> None:
    """Differences of squared errors to the first run, with intervals."""
    frame = comparison.differences[comparison.differences["metric"] == "squared_error"]
    runs = list(comparison.runs["model"])
    _intervals(axes, comparison, frame[frame["model"].isin(runs)] if len(runs) > 1 else frame)
    axes.axvline(0, color="#222222", lw=1)
    reference = _plain(comparison.differences["reference"].iloc[0])
    axes.set(xlabel=f"squared error less that of {reference}", title="Paired differences, bootstrap intervals")


def _intervals(axes: Any, comparison: Comparison, frame: pd.DataFrame) -> None:
    """A line for each model, from above: mean and interval."""
    style = _style(comparison)
    for place, row in enumerate(rows_of(frame)):
        ends = [[row.mean_ - row.low], [row.high - row.mean_]]
        axes.errorbar(row.mean_, -place, xerr=ends, fmt="o", ms=5, color=style[row.model]["color"])
    axes.set_yticks(range(0, -len(frame), -1), [_plain(model) for model in frame["model"]])
    axes.set_ylim(0.5 - len(frame), 0.5)


def draw_objective(axes: Any, comparison: Comparison, objective: str) -> None:
    """The objective of this name, of the runs that maximised it, by the seconds of the fit."""
    style = _style(comparison)
    for row in comparison.runs[comparison.runs["objective"] == objective].to_dict("records"):
        history = comparison.histories[row["model"]]
        if objective not in history:
            continue
        label = row["model"] + marks(row)
        axes.plot(history["elapsed"], history[objective], marker=".", label=_plain(label), **style[row["model"]])
    label = objective_label(objective)
    axes.set(xlabel="seconds of the fit", ylabel=label, title=f"{label}: since ratings are seen")
    axes.legend(fontsize="small")


def draw_shrinkage(axes: Any, comparison: Comparison, column: str, what: str) -> None:
    """``column`` of :func:`shrinkage` by the number of ratings; an artefact of mean field is dashed and named so."""
    style = _style(comparison)
    for model, group in comparison.shrinkage.groupby("model", sort=False):
        color, artefact = style[model]["color"], bool(group["artefact"].any())
        label = _plain(f"{model}: artefact of mean field" if artefact else str(model))
        axes.fill_between(
            group["ratings"], group[f"{column}_q10"], group[f"{column}_q90"], color=color, alpha=0.15, lw=0
        )
        axes.plot(group["ratings"], group[column], "--" if artefact else "-", marker=".", color=color, label=label)
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = [tick for tick in (0, 1, 10, 100, 1000) if tick <= 2 * comparison.shrinkage["ratings"].max()]
    axes.set_xticks(ticks, ["0\n(content)" if comparison.reads else "0", *map(str, ticks[1:])])
    axes.set(xlabel="training ratings of the item", ylabel=f"posterior sd {what}", ylim=(0, None))
    axes.set_title("Spread by ratings: median, 10 to 90 % of items")
    axes.legend(fontsize="small")


def draw_stability(axes: Any, comparison: Comparison) -> None:
    """Overlap of the lists of every two models; on the diagonal that of a model's own posterior draws."""
    listed = {*comparison.stability["first"], *comparison.stability["second"]}
    models = [name for name in comparison.recall["model"].unique() if name in listed]
    grid = np.full((len(models), len(models)), np.nan)
    for row in comparison.stability.to_dict("records"):
        i = models.index(row["first"])
        if row["second"] == "between its draws":
            grid[i, i] = row["overlap"]
        elif row["second"] in models:
            j = models.index(row["second"])
            grid[i, j] = grid[j, i] = row["overlap"]
    axes.imshow(grid, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (i, j), value in np.ndenumerate(grid):
        text = "–" if np.isnan(value) else f"{value:.2f}"
        axes.text(j, i, text, ha="center", va="center", fontsize="small", color="white" if value > 0.6 else "#222222")
    labels = [_plain(model) for model in models]
    axes.set_xticks(range(len(models)), labels, rotation=25, ha="right", fontsize="small")
    axes.set_yticks(range(len(models)), labels, fontsize="small")
    axes.grid(False)
    axes.set_title("Common items of two top lists; diagonal: of two posterior draws", fontsize="medium")


def _plain(text: object) -> str:
    """Text in which matplotlib sees no mathematics; a label must not begin with an underscore, or it is not shown."""
    plain = str(text).replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain
