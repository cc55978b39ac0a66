"""What is told: tables by name, figures, recalibrations, and the tables that are printed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.coverage import LEVELS, Coverage, draw_coverage
from analysis.error_correlation import ErrorCorrelation
from analysis.over_users import Interval
from analysis.plots import save
from analysis.reliability import Reliability, draw_reliability
from inference.printing import Sheet, write_frame
from pyro_cvae.text import counted
from pyro_cvae.whole import whole_file


def frames(
    covered: list[Coverage], reliable: list[Reliability], correlated: list[ErrorCorrelation]
) -> dict[str, pd.DataFrame]:
    """Every table by name, the frames of several runs in one, each row with its run and kind."""
    tables: dict[str, pd.DataFrame] = {}

    def table(name: str, own: list[tuple[Any, pd.DataFrame]]) -> None:
        parts = [
            frame.assign(run=result.name, kind=result.kind)
            if len(frame)
            else pd.DataFrame({"run": [result.name], "kind": [result.kind]})
            for result, frame in own
        ]
        if parts:
            whole = pd.concat(parts, ignore_index=True)
            tables[name] = whole[["run", "kind", *(column for column in whole if column not in ("run", "kind"))]]

    table("coverage", [(one, one.table) for one in covered])
    table("reliability", [(one, one.scores.reset_index()) for one in reliable])
    table("reliability-bins", [(one, one.bins) for one in reliable])
    table("reliability-groups", [(one, one.groups) for one in reliable])
    table("candidates", [(one, one.candidates) for one in reliable])
    table("error-correlation", [(one, one.table) for one in correlated])
    return tables


def write(out: Path, covered: list[Coverage], reliable: list[Reliability], correlated: list[ErrorCorrelation]) -> None:
    """Every table, figure and recalibration, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    for name, table in frames(covered, reliable, correlated).items():
        write_frame(table, out / f"{name}.csv")
    for one in reliable:
        text = json.dumps(one.recalibration.to_json(), indent=1)
        name = re.sub(r"[^\w.-]+", "_", one.name)
        with whole_file(out / f"recalibration-{name}.json") as new:
            new.write_text(text + "\n")
    if covered:
        save(draw_coverage(covered), out / "coverage.png")
    if reliable:
        save(draw_reliability(reliable), out / "reliability.png")


def sheets(
    covered: list[Coverage], reliable: list[Reliability], correlated: list[ErrorCorrelation]
) -> list[Sheet | str]:
    """What is printed: a table for each question that was asked, with notes."""
    shown: list[Sheet | str] = []
    for title, head, rows, notes in (_coverage_rows(covered), _reliability_rows(reliable), _error_rows(correlated)):
        if rows:
            ends = [index for index, row in enumerate(rows[:-1]) if rows[index + 1][0] != row[0]]
            shown += [Sheet(head, [list(row) for row in rows], title, rules=ends), *notes, ""]
    return shown


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
        users = f"{counted(one.n_users, 'user')} reported, {one.n_reserved:,} reserved"
        chosen = f"{one.recalibration.method} in {', '.join(one.recalibration.inputs)}"
        note = f"{one.name}: {users}; base rate {_text(one.base_rate)}; recalibrated by {chosen}"
        gain = ""
        if one.with_sd is not None:
            gain = (
                f"; sd besides adds {_text(one.sd_gain)} to the skill (coefficient {one.with_sd.coefficients[-1]:.2f})"
            )
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
    return _text(Interval(*(row[name + end] for end in ("", "_low", "_high"))), digits)


def _text(one: Interval, digits: int = 4) -> str:
    """An estimate with its interval, "-" where it cannot be asked."""
    value, low, high = (f"{number:.{digits}f}" for number in (one.value, one.low, one.high))
    return "-" if one.value != one.value else f"{value} [{low}, {high}]"
