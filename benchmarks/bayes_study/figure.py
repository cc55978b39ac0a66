"""The forest plot: differences of ``bayes`` and ``map`` with 95 % intervals, a panel a metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from analysis.plots import CYCLE, panels, save
from benchmarks.bayes_study.store import Store
from benchmarks.bayes_study.summary import BAYES, LESS_IS_BETTER, PLAIN, TUNED, UNTOLD, cases, less

FEW = "map, 5 factors"
REFERENCES = {UNTOLD: ("less map with defaults", CYCLE[0]), TUNED: ("less map, tuned", CYCLE[1])}


@dataclass(frozen=True)
class Row:
    """A row in plain words, and what it is of; ``references`` are the models that are taken away."""

    label: str
    part: str
    case: str
    model: str = BAYES
    references: tuple[str, ...] = (UNTOLD, TUNED)


@dataclass(frozen=True)
class Panel:
    """A panel: its title, the metric in words and as it is called in the rows, and its rows from above."""

    title: str
    words: str
    metric: str
    rows: tuple[Row, ...]


def _clicks() -> tuple[Row, ...]:
    rows = []
    for n in (1, 10):
        items = "1 item" if n == 1 else f"{n} items"
        rows.append(Row(f"{items} a user", "clicks", f"P = {n}"))
        rows.append(Row(f"{items} a user, bayes tuned", "clicks", f"P = {n}", "bayes, tuned", (TUNED,)))
    new = [Row(f"new user, {n} item{'s' * (n > 1)}", "new users", f"clicks, {n}") for n in (1, 3, 10)]
    return (*rows, *new)


def _stars() -> tuple[Row, ...]:
    numbers = (5, 10, 20, 40, 80)
    rows = [Row(f"{n} ratings a user", "stars", f"{n} ratings") for n in numbers]
    few = [Row(f"{n} ratings, 5 factors", "stars", f"{n} ratings", "bayes, 5 factors", (FEW, TUNED)) for n in numbers]
    new = [Row(f"new user, {n} rating{'s' * (n > 1)}", "new users", f"stars, {n}") for n in (1, 3, 10)]
    return (*rows, *few, *new)


def _gaussian() -> tuple[Row, ...]:
    names = {
        "bayes, defaults": "bayes",
        "bayes, precisions learned": "precisions learned",
        "bayes, tuned": "bayes tuned",
        "mcmc": "Monte Carlo",
    }
    every = [(case, model, words) for case in ("few ratings", "many ratings") for model, words in names.items()]
    both = (UNTOLD, TUNED)
    return tuple(
        Row(f"{case}, {words}", "gaussian", case, model, (TUNED,) if "tuned" in model else both)
        for case, model, words in every
    )


def chosen(store: Store) -> list[Panel]:
    """The panels of which there are rows."""
    bandit = [Row(case, "exploring", case, "bayes, greedy", (PLAIN,)) for case in sorted(cases(store, "exploring"))]
    every = [
        Panel("Clicks (citeulike-t)", "recall@50", "recall@50", _clicks()),
        Panel("Stars (MovieLens-100k)", "RMSE", "rmse", _stars()),
        Panel("Stars (MovieLens-100k)", "log score, nats a rating", "log_score", _stars()),
        Panel("Exploring: posterior mean", "regret a user", "regret", tuple(bandit)),
        Panel("Simulated ratings", "RMSE of scores", "rmse", _gaussian()),
        Panel("Simulated ratings", "log score, nats a rating", "log_score", _gaussian()),
    ]
    return [panel for panel in every if any(_marks(store, row, panel.metric) for row in panel.rows)]


def _marks(store: Store, row: Row, metric: str) -> list[tuple[str, Any]]:
    found = [(name, less(store, (row.part, row.case), metric, row.model, name)) for name in row.references]
    return [(name, one) for name, one in found if one is not None]


def draw(store: Store, path: Path) -> Path:
    """Draw the panels; where less is better the axis is turned round, so that right of 0 ``bayes`` is better."""
    shown = chosen(store)
    drawn, axes = panels(len(shown), 3, width=5.6, height=3.6)
    for axis, panel in zip(axes.flat, shown, strict=False):
        rows = [row for row in panel.rows if _marks(store, row, panel.metric)]
        for place, row in enumerate(rows):
            marks = _marks(store, row, panel.metric)
            for number, (name, one) in enumerate(marks):
                color = REFERENCES[TUNED if name == TUNED else UNTOLD][1]
                away = 0.0 if len(marks) == 1 else (number - 0.5) * 0.36
                half = 0.0 if np.isnan(one.half) else one.half
                axis.errorbar(one.mean, place + away, xerr=half, fmt="o", color=color, markersize=4, capsize=2.5)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_title(f"{panel.title}: {panel.words}", fontsize=9)
        axis.set_xlabel("bayes less map; to the right bayes is better", fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(6))
        if panel.metric in LESS_IS_BETTER:
            axis.invert_xaxis()
    handles = [axes.flat[0].errorbar([], [], fmt="o", color=color, label=words) for words, color in REFERENCES.values()]
    drawn.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    return save(drawn, path)
