"""The figures: recall over M (4 and 5), and recall over lambda_r (6) or K (7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kinds import Part
from analysis.plots import CYCLE, RIVAL, figure, save
from analysis.replication.methods import METHODS, TRAINED, Method

ENDS = (50, 300)
"""The M of the panels of figures 6 and 7."""
AXIS = {"fig6": "lambda_r", "fig7": "number of factors K"}
PROTOCOL = {
    "corrected": "corrected protocol: training items are left out",
    "paper": "paper protocol: training items count as hits",
}
COLORS = {
    **dict(zip(("CVAE", "CDL", "CTR", "DeepMusic"), (*CYCLE[:3], CYCLE[5]), strict=True)),
    **{"SVD as prior of v": CYCLE[3], "TF-IDF cosine": CYCLE[7], "SVD cosine": CYCLE[4]},
    **{"ALS": "#e08a00", "popularity": RIVAL},
    **dict(zip(TRAINED, CYCLE, strict=False)),
    **dict(zip(("CVAE, the paper's networks, alive", "CVAE, validated"), CYCLE, strict=False)),
}
"""A colour a family."""
LEGEND = 2.8
"""Inches that a legend takes beside the panels."""
MARKERS = {"-": "o", "--": "s", "-.": "D", ":": "^"}


def draw(part: Part, table: pd.DataFrame, folder: Path) -> list[Path]:
    """All figures of a part from its table (``summary.table_of``): a file for each protocol, of 6 and 7 also by data.

    Error bars are standard errors over splits.
    """
    paths = []
    for protocol, rows in table.groupby("protocol", sort=False):
        if part in AXIS:
            for data, own in rows.groupby("data", sort=False):
                path = folder / f"{part}-{data}-{protocol}.png"
                paths.append(_over_settings(part, own, f"{data}, {PROTOCOL[str(protocol)]}", path))
        else:
            paths.append(_over_cutoffs(part, rows, PROTOCOL[str(protocol)], folder / f"{part}-{protocol}.png"))
    return paths


def _over_cutoffs(part: Part, rows: pd.DataFrame, told: str, path: Path) -> Path:
    """recall@M over M, a panel a data set, the methods in the order of the last panel's right end."""
    names = rows["data"].unique()
    drawn, axes = figure(len(names), 1, width=3.6 + LEGEND / len(names), height=4.2)
    methods = [method for method in METHODS[part] if method.name in set(rows["method"])]
    for panel, data in zip(axes[0], names, strict=True):
        own = rows[rows["data"] == data]
        for method in methods:
            line = own[own["method"] == method.name]
            panel.errorbar(line["cutoff"], line["recall"], line["se"].fillna(0), label=method.label,
                           **_style(method))  # fmt: skip
        panel.set_title(f"{data}, P = {own['per_user'].iloc[0]}", fontsize=10)
        panel.set_xlabel("M")
        _mark(panel, sorted(own["cutoff"].unique()))
        panel.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("recall@M")
    return _finished(drawn, axes[0, -1], rows, told, path)


def _over_settings(part: Part, rows: pd.DataFrame, told: str, path: Path) -> Path:
    """recall@50 and recall@300 over a setting, a column a P, a line a family."""
    placed = rows[rows["at"].notna()]
    sizes = sorted(placed["per_user"].unique())
    drawn, axes = figure(len(sizes), len(ENDS), width=4.2, height=3.0)
    methods = {method.family: method for method in reversed(METHODS[part]) if method.at is not None}
    families = [one for one in dict.fromkeys(method.family for method in METHODS[part]) if one in set(placed["family"])]
    for row, cutoff in enumerate(ENDS):
        for column, per_user in enumerate(sizes):
            panel = axes[row, column]
            own = placed[(placed["cutoff"] == cutoff) & (placed["per_user"] == per_user)]
            for family in families:
                line = own[own["family"] == family].sort_values("at")
                panel.errorbar(line["at"], line["recall"], line["se"].fillna(0), label=family,
                               **_style(methods[family]))  # fmt: skip
            panel.set_xscale("log")
            panel.set_title(f"P = {per_user}", fontsize=10)
            panel.set_ylabel(f"recall@{cutoff}")
            _mark(panel, sorted(placed["at"].unique()))
            panel.set_xlabel(AXIS[part] if row == len(ENDS) - 1 else "")
    return _finished(drawn, axes[0, -1], rows, told, path)


def _mark(panel: Any, places: list[float]) -> None:
    """Ticks at the places that there are."""
    panel.set_xticks(places, [f"{place:g}" for place in places], fontsize=8)
    panel.minorticks_off()


def _style(method: Method) -> dict[str, Any]:
    own = {"color": COLORS[method.family], "linestyle": method.line, "marker": MARKERS[method.line]}
    return own | {"markersize": 4, "linewidth": 1.4, "capsize": 2, "elinewidth": 1}


def _finished(drawn: Any, panel: Any, rows: pd.DataFrame, told: str, path: Path) -> Path:
    """One legend beside the panels, what was measured above them, and the file."""
    handles, labels = panel.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    splits = sorted(rows["splits"].unique())
    n = f"{splits[0]} split" if len(splits) == 1 else f"{splits[0]} to {splits[-1]} split"
    drawn.suptitle(f"{told}\nmean and standard error over {n}{'' if splits[-1] == 1 else 's'}", fontsize=9)
    return save(drawn, path)
