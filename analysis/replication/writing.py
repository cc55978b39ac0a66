"""What the command prints and writes: tables of 80 columns, CSV, figures, the table of two users, and verdicts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd

from analysis.kinds import Part
from analysis.over_users import Interval
from analysis.replication.figures import ENDS
from analysis.replication.verdicts import RULE, Verdict
from inference.printing import Sheet
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.protocol import CUTOFFS
from pyro_cvae.text import counted
from pyro_cvae.whole import whole_file

WIDTH = 80
PROTOCOLS_TOLD = (
    "corrected: training items are left out of the ranking, users without test items are skipped.",
    "paper: training items stay in the ranking and count as hits.",
)
SETTINGS_TOLD = {"paper": "the paper's settings", "validated": "validated settings"}


def protocol_lines(datasets: Iterable[tuple[Dataset, str]], n_splits: dict[Part, int]) -> list[str]:
    """What was measured on which data, a line each."""
    lines = [
        f"{one.name}: {counted(one.n_users, 'user')}, {counted(one.n_items, 'item')}, "
        f"{counted(one.n_features, 'feature')}; {words}."
        for one, words in datasets
    ]
    told = ", ".join(f"{part} {n}" for part, n in n_splits.items())
    lines.append(f"Random splits of P training items a user, with seeds from 0: {told}.")
    return [*lines, *PROTOCOLS_TOLD]


def folded(lines: Iterable[str]) -> list[str]:
    """Lines of at most 80 columns."""
    return [line for text in lines for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ") or [""]]


def sheets(part: Part, table: pd.DataFrame) -> list[Sheet | str]:
    """The means of a part for people: a table for each data set, P and protocol."""
    parts: list[Sheet | str] = []
    for (data, per_user, protocol), rows in table.groupby(["data", "per_user", "protocol"], sort=False):
        largest = rows["se"].max()
        error = "" if largest != largest else f"; se up to {largest:.4f}"
        parts.append(f"\n{part}, {data}, P = {per_user}, {protocol}; {_splits(rows)}{error}")
        shown = Sheet(["recall@M", *map(str, CUTOFFS)])
        for label, own in rows.groupby("label", sort=False):
            recalls = own.set_index("cutoff")["recall"]
            shown.add_row(str(label), *(f"{recalls[cutoff]:.3f}" for cutoff in CUTOFFS))
        parts.append(shown)
    return parts


def difference_sheets(part: Part, table: pd.DataFrame) -> list[Sheet | str]:
    """Paired differences at the least and the largest M by the corrected protocol; the CSV has all others."""
    parts: list[Sheet | str] = []
    if table.empty:
        return parts
    chosen = table[(table["protocol"] == "corrected") & table["cutoff"].isin(ENDS)]
    for (data, per_user, family), rows in chosen.groupby(["data", "per_user", _other(part)], sort=False):
        parts.append(f"\n{part}, {data}, P = {per_user}, corrected: less {family}")
        shown = Sheet(["difference, 95 % interval", *(f"@{cutoff}" for cutoff in ENDS)])
        for label, own in rows.groupby("label", sort=False):
            by_cutoff = own.set_index("cutoff")
            shown.add_row(str(label), *(_with_half(by_cutoff.loc[cutoff]) for cutoff in ENDS))
        parts.append(shown)
    return parts


def _other(part: Part) -> str:
    """What a table of differences is about: a control of figure 6 has one at every lambda_r."""
    return "beside_family" if part == "fig6" else "beside_label"


def _with_half(row: pd.Series) -> str:
    """``+0.0123 ± 0.0023``; of one split without an interval."""
    half = "" if row["high"] != row["high"] else f" ± {row['high'] - row['difference']:.4f}"
    return f"{row['difference']:+.4f}{half}"


def _splits(rows: pd.DataFrame) -> str:
    """How many splits the means of a table are over, in words."""
    least, most = rows["splits"].min(), rows["splits"].max()
    if least < most:
        return f"{least} to {most} splits"
    return counted(most, "split")


def verdict_sheet(verdicts: Sequence[Verdict]) -> Sheet:
    """One line a claim and kind of settings: what both protocols say."""
    shown = Sheet(["claim", "settings", "corrected", "paper"])
    for (claim, settings), own in groupby(verdicts, lambda one: (one.claim, one.settings)):
        said = {one.protocol: one.judgement for one in own}
        shown.add_row(claim.name, settings, said.get("corrected", "-"), said.get("paper", "-"))
    return shown


def verdicts_page(verdicts: Sequence[Verdict], about: Sequence[str]) -> str:
    """``verdicts.md``: the rule, a table of all verdicts, and every sentence with its numbers."""
    lines = [
        "# The paper's sentences, measured",
        "",
        *(f"- {one}" for one in about),
        "",
        "## The rule",
        "",
        RULE,
        "## Verdicts",
        "",
    ]
    lines += ["| claim | settings | corrected | paper |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in verdict_sheet(verdicts).rows]
    for claim, own in groupby(verdicts, lambda one: one.claim):
        lines += ["", f"## {claim.name[:1].upper()}{claim.name[1:]}", ""]
        lines += [f"Section {claim.section}: {claim.sentence}", "", f"Claimed: {claim.claimed}. {claim.note}".rstrip()]
        by_settings = [list(verdicts) for _, verdicts in groupby(own, lambda one: one.settings)]
        measured = [one for one in by_settings if any(verdict.judgement != "not measured" for verdict in one)]
        for one in measured:
            told = SETTINGS_TOLD[one[0].settings]
            said = [
                f"{v.protocol} protocol: **{v.judgement}**" if claim.by_protocol else f"**{v.judgement}**" for v in one
            ]
            lines += ["", f"{told[:1].upper()}{told[1:]}; {'; '.join(said)}.", "", *_numbers(one)]
        lines += [] if measured else ["", "**not measured**"]
    return "\n".join(lines) + "\n"


def _numbers(verdicts: Sequence[Verdict]) -> list[str]:
    """A row for each contrast on each data set, what was found by each protocol in columns."""
    claim = verdicts[0].claim
    heads = ["data", "contrast", *([v.protocol for v in verdicts] if claim.by_protocol else ["mean, 95 % interval"])]
    heads += ["claimed"] * (claim.claimed == "at least")
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for same in zip(*(verdict.found for verdict in verdicts), strict=True):
        first = same[0]
        if all(one.interval is None for one in same):
            continue
        data = "both" if any(term.data for term in first.contrast.terms) else first.data
        cells = [data, first.contrast.what, *(in_words(one.interval) for one in same)]
        cells += [f"{first.contrast.least:.3f}"] * (claim.claimed == "at least")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def in_words(interval: Interval | None) -> str:
    """``+0.0123 [+0.0100, +0.0146]``; without an interval where there is one split."""
    if interval is None:
        return "-"
    if interval.low != interval.low:
        return f"{interval.value:+.4f} (one split)"
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def write_text(path: Path, text: str) -> Path:
    """Write a text, whole or not at all."""
    with whole_file(path) as new:
        new.write_text(text, encoding="utf-8")
    return path
