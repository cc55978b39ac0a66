"""Rows that are kept as they are made, so that a study that was stopped goes on where it was."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pyro_cvae.errors import InputError

METRICS = ("recall@50", "recall@300", "rmse", "log_score", "coverage", "coverage_scores", "regret")
COLUMNS = ("part", "case", "split", "model", "settings", "seconds", *METRICS)
FILE, ASKED = "rows.csv", "asked.json"


class Key(NamedTuple):
    """What a row is of: a part of the study, a case within it, the number of a split, and a model."""

    part: str
    case: str
    split: int
    model: str


class Store:
    """The rows of a folder: ``rows.csv``, one line a finished (part, case, split, model).

    Parameters: ``folder`` is made where it is not there; ``asked`` is what the rows depend on. A folder that was asked
    something else raises InputError. A line that was cut off when the study was stopped is dropped.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, note = folder / FILE, folder / ASKED
        if note.exists() and json.loads(note.read_text()) != dict(asked):
            raise InputError("has rows of other data", "give another folder with --out", path=folder)
        note.write_text(json.dumps(dict(asked)) + "\n")
        whole = self._whole_lines()
        self.rows: dict[Key, dict[str, Any]] = {}
        for row in csv.DictReader(io.StringIO(whole)):
            self._take(row)
        self.path.write_text(whole or ",".join(COLUMNS) + "\n")

    def _whole_lines(self) -> str:
        """What the file holds up to its last end of a line."""
        text = self.path.read_text() if self.path.exists() else ""
        return text[: text.rfind("\n") + 1]

    def _take(self, row: Mapping[str, str]) -> None:
        key = Key(row["part"], row["case"], int(row["split"]), row["model"])
        numbers = {name: float(row[name]) for name in ("seconds", *METRICS) if row[name]}
        self.rows[key] = {"settings": json.loads(row["settings"]), **numbers}

    def measured(self, key: Key, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The row of a key; ``measure`` makes it where it is not there yet, and it is written at once.

        ``measure`` gives metrics by name, and ``settings`` and ``seconds`` if they are not none and its own time.
        Seconds are those of the CPU, so that other work on the machine does not count.
        """
        if key not in self.rows:
            began = time.process_time()
            found = dict(measure())
            row = {"settings": {}, "seconds": time.process_time() - began} | found
            self._append(key, row)
            self.rows[key] = row
            told = ", ".join(f"{name} {row[name]:.4f}" for name in METRICS if name in row)
            print(f"{', '.join(map(str, key))}: {told} [{row['seconds']:.1f} s]", file=sys.stderr, flush=True)
        return self.rows[key]

    def _append(self, key: Key, row: Mapping[str, Any]) -> None:
        line = io.StringIO()
        texts = {name: f"{row[name]:.8g}" for name in ("seconds", *METRICS) if name in row}
        full = key._asdict() | {"settings": json.dumps(row["settings"])} | texts
        csv.DictWriter(line, COLUMNS, lineterminator="\n").writerow(full)
        with self.path.open("a") as file:
            file.write(line.getvalue())

    def of(self, part: str, case: str, model: str, metric: str) -> dict[int, float]:
        """A metric of a model by split; empty where it was not measured."""
        kept = (key for key in self.rows if (key.part, key.case, key.model) == (part, case, model))
        return {key.split: self.rows[key][metric] for key in kept if metric in self.rows[key]}
