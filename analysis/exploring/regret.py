"""Regret of the policies: as a table, and as curves."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pandas as pd
from scipy.stats import t

from analysis.exploring.options import BASELINE, POLICIES
from analysis.over_users import standard_error
from analysis.plots import figure, save


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Regret after the last round, mean over replications, and the paired difference from greedy.

    One row for each setting and policy: ``regret``, ``more`` (regret less greedy's; below 0 is better than
    greedy), and half the 95 % t interval of each, ``regret_half`` and ``more_half``.
    """
    last = found[found["round"] == found["round"].max()]
    keys, rows = ["content", "shows", "slate"], []
    for setting, part in last.groupby(keys, sort=False):
        table = part.pivot(index="replication", columns="policy", values="regret")
        for policy in POLICIES:
            regret, more = table[policy], table[policy] - table[BASELINE]
            row = {"policy": policy, "regret": regret.mean(), "regret_half": _half_interval(regret)}
            row |= {"more": more.mean(), "more_half": _half_interval(more)}
            rows.append(dict(zip(keys, setting, strict=True)) | row)
    return pd.DataFrame(rows)


def _half_interval(values: pd.Series) -> float:
    return float(t.ppf(0.975, len(values) - 1) * standard_error(values.to_numpy()))


def draw(found: pd.DataFrame, path: str) -> Path:
    """The curves of cumulative regret with 95 % intervals, a panel a setting; random showing is left out."""
    contents, shows, slates = (found[name].unique() for name in ("content", "shows", "slate"))
    drawn, axes = figure(len(shows) * len(slates), len(contents), width=3.5, height=2.9)
    for (row, content), (column, (how, slate)) in product(enumerate(contents), enumerate(product(shows, slates))):
        panel = axes[row, column]
        part = found[(found["content"] == content) & (found["shows"] == how) & (found["slate"] == slate)]
        for policy in POLICIES[1:]:
            rounds = part[part["policy"] == policy].groupby("round")["regret"]
            mean, half = rounds.mean(), rounds.agg(_half_interval)
            (line,) = panel.plot(mean.index, mean, label=policy)
            panel.fill_between(mean.index, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
        items = "an item" if slate == 1 else f"{slate} items"
        panel.set_title(f"text tells {content:.0%}; {items} a round, {how}", fontsize=9)
        panel.set_xlabel("round")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(bottom=0)
    for panel in axes[:, 0]:
        panel.set_ylabel("cumulative regret a user")
    axes[0, 0].legend()
    return save(drawn, path)
