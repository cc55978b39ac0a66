"""What a run folder says of how the fit went: the history of its epochs, and the metrics at its end."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_cvae.checks import REMEDY, Natural, Positive, check_json
from pyro_cvae.errors import InputError

METRICS = {
    "best_epoch": Natural,
    "content": dict[str, float],
    "precisions": dict[str, Positive],
    "recovery": dict[str, float],
    "convergence": dict[str, dict[str, float]],
    "groups": dict[str, dict[str, float]],
    "protocol": str,
    "tuning": list[dict[str, float | str]],
}
"""Types of the entries of metrics.json; all others are numbers, texts, or objects of such."""
_OTHERS = float | str | bool | None | list[float] | dict[str, Any]
LONGEST_HISTORY = 2**27
"""Bytes of a history.csv that is read."""


def checked_metrics(metrics: Any, path: Path) -> dict[str, Any]:
    """The same metrics; InputError where an entry is of another type than a fit writes."""
    check_json(metrics, METRICS, path, optional=METRICS)
    check_json(metrics, dict.fromkeys(metrics.keys() - METRICS, _OTHERS), path)
    return metrics


def read_history(path: Path) -> pd.DataFrame:
    """A row an epoch, a column each of what was logged; InputError where it is no table."""
    if path.stat().st_size > LONGEST_HISTORY:
        raise InputError("is larger than any history of ours", REMEDY, path=path)
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            header, *rows = list(csv.reader(stream)) or [[]]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
        table = {name: _numbers(column) for name, column in zip(header, columns, strict=True)}
    except (ValueError, csv.Error):
        raise InputError("is damaged: no table", REMEDY, path=path) from None
    if len(table) < len(header):
        raise InputError("has two columns of one name", REMEDY, path=path)
    return pd.DataFrame(table)


def check_history(table: pd.DataFrame, path: Path) -> None:
    """InputError unless ``epoch`` counts from 1, ``phase`` is a text, and all other columns are numbers."""
    for name in table:
        if name != "phase" and table[name].dtype.kind not in "if":
            raise InputError(f"has a column {name} that is not of numbers", REMEDY, path=path)
    if len(table) and ("phase" not in table or "epoch" not in table):
        raise InputError("has no column epoch, or none called phase", REMEDY, path=path)
    if len(table) and table["epoch"].tolist() != list(range(1, len(table) + 1)):
        raise InputError("has epochs that do not count from 1", REMEDY, path=path)


def _numbers(texts: Sequence[str]) -> list[Any]:
    """A column of a CSV file as ints, else as floats with blanks as NaN, else as it is."""
    try:
        return [int(text) for text in texts]
    except ValueError:
        pass
    try:
        return [float(text or "nan") for text in texts]
    except ValueError:
        return list(texts)
