"""Finished fits: a line of JSON each, in one file that a killed command leaves readable."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyro_cvae.data import files
from pyro_cvae.text import counted
from pyro_cvae.whole import whole_file

log = logging.getLogger("pyro_cvae")

NEEDED = {"key", "data", "fingerprint", "per_user", "seed", "method", "seconds", "corrected", "paper"}


class Store:
    """The rows of a folder's ``results.jsonl`` by key, and lists of recommended items beside it.

    A line that holds no row, such as the last one of a command that was killed, is passed over and its fit made again.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "results.jsonl"
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            lines = self.path.read_bytes().split(b"\n")
            rows = [_row(line) for line in lines if line.strip()]
            self.rows = {row["key"]: row for row in rows if row is not None}
            if bad := rows.count(None):
                log.warning("%s: %s without a finished fit passed over", self.path, counted(bad, "line"))

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, on the disk too: one line is written at once, after the end of what stands there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(row).encode() + b"\n"
        with open(self.path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.rows[row["key"]] = dict(row)

    def lists_path(self, key: str) -> Path:
        """Where the best items of a fit are."""
        return self.folder / "lists" / f"{key[:20]}.safetensors"

    def add_lists(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the best items of a fit."""
        path = self.lists_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as new:
            files.write_arrays(new, arrays)

    def lists(self, key: str) -> dict[str, np.ndarray] | None:
        """The best items of a fit, or ``None`` where they were not kept."""
        path = self.lists_path(key)
        return files.read_arrays(path) if path.exists() else None


def _row(line: bytes) -> dict[str, Any] | None:
    """The row of a line, or ``None``."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and row.keys() >= NEEDED else None
