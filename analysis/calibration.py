r"""Are the uncertainties right? ``python -m analysis.calibration RUN [RUN ...] [--out FOLDER]``.

Three questions, each a function of a fit with a frozen result:

- :func:`coverage`, where the truth is known (data drawn from the model): how often do intervals of u.v and of held-out
  ratings hold the truth, and are the truth's places among the posterior's draws uniform? Of explicit ratings the same
  of the held-out ones, without a known truth.
- :func:`reliability`, on clicks: is P(an item of the top list is a held-out positive) what happens? Scores become
  probabilities by a :class:`Recalibration` that is fitted on users who are then left out of every figure.
- :func:`error_correlation`: are errors larger where the posterior standard deviation is, beyond what score and
  popularity tell?

Only what any posterior answers is asked (scores with their sd, draws of scores), so draws of MCMC serve as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.coverage import LEVELS, Coverage, coverage, draw_coverage
from analysis.error_correlation import ErrorCorrelation, error_correlation
from analysis.over_users import Interval, predicts_ratings
from analysis.recalibration import Recalibration
from analysis.reliability import Reliability, draw_reliability, reliability
from inference.options.checking import check, check_least
from inference.printing import Sheet, check_format, emit, write_frame
from inference.progress import track
from inference.threads import torch_threads
from pyro_cvae.data import files
from pyro_cvae.errors import InputError, about_file, run_command

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Coverage",
    "ErrorCorrelation",
    "Interval",
    "Recalibration",
    "Reliability",
    "coverage",
    "draw_coverage",
    "draw_reliability",
    "error_correlation",
    "reliability",
]


@dataclass(frozen=True)
class CalibrationOptions:
    """What is asked of fitted models, and where the answers go.

    Parameters:
        runs: Run folders, as the fit commands leave them.
        out: Folder of the tables (CSV), figures (PNG) and recalibrations (JSON), made if need be; without it the tables
            are only printed.
        top: Length of the lists whose items are looked at.
        reserve: Share of the users on whom recalibrations are fitted, where the split has no tuning users.
        bins: Equal-mass bins of the calibration error.
        draws: Draws of each score for interval coverage.
        resamples: Resamples of the bootstrap over users.
        seed: Of all that is drawn.
        threads: Number of threads; all that torch takes by itself if not given.
        format: How the tables are printed (table, csv, json).
        trust: Class paths outside of the package that the runs may import; see docs/security.md.
    """

    runs: tuple[str, ...]
    out: str | None = None
    top: int = 50
    reserve: float = 0.1
    bins: int = 15
    draws: int = 1000
    resamples: int = 1000
    seed: int = 0
    threads: int | None = None
    format: str = "table"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_format(self.format)
        check_least(self, {"top": 1, "bins": 2, "draws": 20, "resamples": 20, "seed": 0, "threads": 1})
        check(0 < self.reserve < 1, "reserve", self.reserve, "between 0 and 1")
        if self.out and Path(self.out).exists() and not Path(self.out).is_dir():
            raise InputError("--out is a file", "name a folder", path=self.out)


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m analysis.calibration``."""
    from inference.commands import parse

    (options,) = parse(
        "python -m analysis.calibration",
        "Interval coverage where the truth is known, and of explicit ratings; on clicks, whether P(listed item is a "
        "held-out positive) comes true; whether errors follow the posterior sd.",
        (CalibrationOptions,),
        argv,
        positionals=("runs",),
        examples=(
            ("python -m analysis.calibration runs/simulated-gaussian-bayes --out calibration", "interval coverage"),
            ("python -m analysis.calibration runs/map runs/bayes --out calibration", "two fits of clicks"),
        ),
    )
    with torch_threads(options.threads):
        covered, reliable, correlated = calibrate(options)
    notes = []
    if options.out is not None:
        _save(Path(options.out), covered, reliable, correlated)
        notes = [f"tables, figures and recalibrations: {options.out}"]
    emit(_sheets(covered, reliable, correlated), _frames(covered, reliable, correlated), options.format, notes)


def calibrate(options: CalibrationOptions) -> tuple[list[Coverage], list[Reliability], list[ErrorCorrelation]]:
    """What there is to say of each run: coverage of what is known, reliability of clicks, and correlated errors."""
    import inference

    covered: list[Coverage] = []
    reliable: list[Reliability] = []
    correlated: list[ErrorCorrelation] = []
    seeds: dict[str, Any] = {"seed": options.seed}
    boot = seeds | {"reserve": options.reserve, "resamples": options.resamples}
    for name, path in track(_names(options.runs), "runs"):
        fit = inference.load(path, trust=options.trust)
        known = predicts_ratings(fit) or (fit.dataset.truth is not None and "a" in fit.dataset.truth)
        with about_file(path):
            if known:
                covered.append(coverage(fit, name, draws=options.draws, **seeds))
            else:
                reliable.append(reliability(fit, name, top=options.top, n_bins=options.bins, **boot))
            correlated.append(error_correlation(fit, name, **boot))
    return covered, reliable, correlated


def _names(runs: Sequence[str]) -> list[tuple[str, str]]:
    """A short name for each run: its folder's, or the whole path where two are alike."""
    short = [Path(run).absolute().name for run in runs]
    return [(name if short.count(name) == 1 else run, run) for name, run in zip(short, runs, strict=True)]


def _frames(
    covered: list[Coverage], reliable: list[Reliability], correlated: list[ErrorCorrelation]
) -> dict[str, pd.DataFrame]:
    """Every table by name, the frames of several runs in one, each row with its run and kind."""
    import pandas as pd

    tables: dict[str, pd.DataFrame] = {}

    def table(name: str, frames: list[tuple[Any, pd.DataFrame]]) -> None:
        parts = [
            frame.assign(run=result.name, kind=result.kind)
            if len(frame)
            else pd.DataFrame({"run": [result.name], "kind": [result.kind]})
            for result, frame in frames
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


def _save(out: Path, covered: list[Coverage], reliable: list[Reliability], correlated: list[ErrorCorrelation]) -> None:
    """Every table, figure and recalibration, each whole or not at all."""
    from analysis.plots import save

    out.mkdir(parents=True, exist_ok=True)
    for name, table in _frames(covered, reliable, correlated).items():
        write_frame(table, out / f"{name}.csv")
    for one in reliable:
        text = json.dumps(one.recalibration.to_json(), indent=1)
        name = re.sub(r"[^\w.-]+", "_", one.name)
        with files.whole_file(out / f"recalibration-{name}.json") as new:
            new.write_text(text + "\n")
    if covered:
        save(draw_coverage(covered), out / "coverage.png")
    if reliable:
        save(draw_reliability(reliable), out / "reliability.png")


def _sheets(
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
        users = f"{one.n_users:,} users reported, {one.n_reserved:,} reserved"
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
    value, low, high = (f"{row[name + end]:.{digits}f}" for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def _text(one: Interval) -> str:
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


if __name__ == "__main__":
    raise SystemExit(run_command(main))
