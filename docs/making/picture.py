"""The picture of README: a user's list, how sure each of its scores is, and what the user chose in truth.

    python -m inference.coordinate --mode bayes --guide structured --factors 20 --out runs/first
    python -m docs.making.picture runs/first docs/list.png

The data are simulated. Test pairs are candidates, as in evaluation: the fit has not seen them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import inference
from inference.recommending import recommend

USER, TOP, LEVEL = "user-0001", 10, 0.9
COLOURS = {"hot": "#b5472f", "warm": "#b8860b", "cold": "#2f6db5"}
NAMES = {"hot": "often chosen", "warm": "seldom chosen", "cold": "chosen by nobody yet"}


def listed(fit: Any) -> pd.DataFrame:
    """The user's list with intervals and chances, and whether each item is in the user's test pairs: ``chosen``."""
    table = recommend(fit, [USER], TOP, interval=LEVEL, top_probability=TOP, keep_test=True)
    (row,) = fit.dataset.user_rows([USER])
    test = fit.split.test.items[fit.split.test.users == row]
    return table.assign(chosen=np.isin(fit.dataset.item_rows(table["item"]), test))


def draw(table: pd.DataFrame, path: Path) -> None:
    """Write the picture."""
    figure, axes = plt.subplots(figsize=(8, 3.7), layout="constrained")
    places, groups = range(len(table)), list(dict.fromkeys(table["group"]))
    for place, row in zip(places, table.itertuples(), strict=True):
        colour = COLOURS[row.group]
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=8, alpha=0.3, solid_capstyle="butt")
        axes.plot(row.score, place, "o", color=colour, markersize=7, markerfacecolor=colour if row.chosen else "white")
    axes.set_yticks(places, [f"{row.rank}. {row.title}" for row in table.itertuples()])
    axes.invert_yaxis()
    axes.set_xlabel(f"score for {USER}, with its {LEVEL:.0%} interval")
    chances = axes.secondary_yaxis("right")
    chances.set_yticks(places, [f"{chance:.0%}" for chance in table[f"p_top_{TOP}"]])
    chances.set_ylabel(f"chance to be among the {TOP} best")
    for one in (axes, chances):
        one.spines[:].set_visible(one is axes)
        one.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    marks = [plt.Line2D([], [], color=COLOURS[group], linewidth=8, alpha=0.4) for group in groups]
    marks += [plt.Line2D([], [], marker="o", color="#444", linestyle="", markerfacecolor=c) for c in ("#444", "white")]
    names = [*(NAMES[group] for group in groups), "chosen, unknown to the fit", "not chosen"]
    figure.legend(marks, names, loc="outside upper center", ncols=5, frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    run, out = sys.argv[1:]
    draw(listed(inference.load(run)), Path(out))
