"""Splits of one's own: training, validation and test pairs in files, by the user's own ids.

A file is a table with columns ``user`` and ``item`` (whatever ``--data`` reads: CSV, Parquet, RecBole's ``.inter``), or
rows in CiteULike's format, which speak of users and items by number. With ``--data`` the files only say which pairs go
where; without it, and with ``--items``, they are the data: users and items that stand in one of them alone are known.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_cvae.data import citeulike, files
from pyro_cvae.data.atomic import read_atomic
from pyro_cvae.data.cells import with_ids
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.delimited import ending_of
from pyro_cvae.data.frames import PAIRS, build, pairs_of, read_table
from pyro_cvae.data.readers import with_contents
from pyro_cvae.data.reading import Reading
from pyro_cvae.data.registry import check_stars, consent_to, load_dataset
from pyro_cvae.data.sources import parse_all
from pyro_cvae.data.table import Table
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Ratings
from pyro_cvae.text import counted

log = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
_TABLES = (".csv", ".tsv", ".tab", ".psv", ".parquet", ".pq", ".parq", ".inter")


@dataclass(frozen=True)
class JoinedTable(Table):
    """Tables one below the other; ``places`` has the file of each row, and its line or ``None``."""

    places: Sequence[tuple[Path | None, int | None]] = ()

    def error(self, problem: str, remedy: str, row: int | None = None) -> InputError:
        """An error at a row (from 0), in the file that it is from, or about all of them."""
        path, line = (None, None) if row is None else self.places[row]
        return InputError(problem if row is not None else f"{self.label}: {problem}", remedy, path=path, line=line)

    def place(self, row: int) -> str:
        """The file and line of a row (from 0)."""
        path, line = self.places[row]
        return f"{path}" if line is None else f"{path}, line {line}"

    def keep(self, rows: Sequence[int]) -> Table:
        """The table of these rows (from 0)."""
        return replace(super().keep(rows), places=[self.places[row] for row in rows])  # type: ignore[call-arg]


def given_files(options: Any) -> dict[str, str]:
    """The files of the parts of a split, by part, of options as in ``inference.options.DataOptions``."""
    named = {part: getattr(options, f"{part}_file", None) for part in PARTS}
    return {part: path for part, path in named.items() if path is not None}


def are_the_data(options: Any) -> bool:
    """Whether the files of the split are the data: there is a table of items and no other data were named."""
    return options.data == "simulated" and options.items is not None and bool(given_files(options))


def label_of(options: Any) -> str:
    """What the data are called: the name, or the file or folder without its ending."""
    path = next(iter(given_files(options).values())) if are_the_data(options) else options.data
    return Path(path).name.split(".")[0]


def load_data(options: Any, like: Dataset | None = None) -> Dataset:
    """The data set that options ask for: of ``--data``, or of the files of the split and ``--items`` alone.

    Words of tables are counted by the vocabularies of ``like``, if there is one.
    """
    reading = options.reading if like is None else replace(options.reading, like=like)
    if not are_the_data(options):
        return load_dataset(options.data, options.items, options.contents, ratings=_meant(options), reading=reading)
    sources, ratings = parse_all(options.contents), _meant(options)
    consent_to(reading)
    parts = [pairs_of(_table(path, reading), ratings) for path in given_files(options).values()]
    items = read_table(options.items, reading)
    dataset = build(_joined(parts), items, label_of(options), ratings, sources)
    if ratings == "stars":
        check_stars(dataset)
    return with_contents(dataset, sources, reading=reading) if sources else dataset


def masks_of(dataset: Dataset, options: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Masks of the data's pairs, bool (n_pairs,), by part, and the protocol of the split.

    Without a file of test pairs all that no file lists is test; without one of training pairs it trains; with both it
    is in no part, and counted in the log. Raises InputError, with file and line, for a malformed row, a pair that the
    data do not have, or one that two files list.
    """
    pairs, where = dataset.interactions, given_files(options)
    found = {part: _keys(dataset, path, options) for part, path in where.items()}
    for number, (keys, tables) in enumerate(found.values()):
        for other in list(found)[:number]:
            both = np.isin(keys, found[other][0])
            if both.any():
                row = int(np.argmax(both))
                user, item = divmod(int(keys[row]), pairs.n_items)
                names = f"user {dataset.user_ids[user]} with item {dataset.item_ids[item]}"
                problem = f"{counted(both.sum(), 'pair', 'are')} also in {where[other]}, {names} is the first"
                raise tables.error(problem, "list a pair in one file only", row)
    masks = {part: np.isin(pairs.keys, keys) for part, (keys, _) in found.items()}
    rest = ~np.logical_or.reduce(list(masks.values()))
    kind: dict[str, Any] = {"kind": "files", **{f"{part}_file": Path(path).name for part, path in where.items()}}
    if list(where) == ["train"]:
        kind = {"kind": "file", "file": Path(where["train"]).name}
    if "train" not in masks:
        masks["train"] = rest
    elif "test" not in masks:
        masks["test"] = rest & pairs.observed
        masks["train"] = masks["train"] | (rest & ~pairs.observed)  # missing cells, which no file need list
    elif left_out := int((rest & pairs.observed).sum()):
        told = counted(left_out, "pair", "are", of=len(pairs))
        log.warning("of the data %s in no file of the split and in no part of it", told)
        kind["left_out"] = left_out
    return masks, kind


def _keys(dataset: Dataset, path: str, options: Any) -> tuple[np.ndarray, Table]:
    """The pairs of a file as user * n_items + item, int64 (n_rows,), and the table to complain about them."""
    pairs = dataset.interactions
    if _is_rows(path):
        table, users, items = _rows(dataset, path)
    else:
        table = _table(path, getattr(options, "reading", None) or Reading())
        if _meant(options) == "stars":  # the data have the ratings
            table = with_ids(
                table.pick({name: PAIRS[name] for name in ("user", "item")}, ("user", "item")), "user", "item"
            )
        else:
            table = pairs_of(table, "clicks")
        users, items = _rows_of(dataset, table, "user"), _rows_of(dataset, table, "item")
    keys = users * pairs.n_items + items
    there = np.isin(keys, pairs.keys)
    if not there.all():
        row = int(np.argmin(there))
        user, item = dataset.user_ids[users[row]], dataset.item_ids[items[row]]
        raise table.error(f"user {user} has no item {item} in the data", "use the file of these data", row)
    if repeated := len(keys) - len(np.unique(keys)):
        told = counted(repeated, "pair", "are")
        table.tell("%s there more than once, which is no matter to the split", told)
    return keys, table


def _rows(dataset: Dataset, path: str) -> tuple[Table, np.ndarray, np.ndarray]:
    """The pairs of rows in CiteULike's format; InputError where the ids of the data are not 0, 1, 2, ..."""
    for ids in (dataset.user_ids, dataset.item_ids):
        if ids.dtype == object or not np.array_equal(ids, np.arange(len(ids))):
            problem = "a file of training rows needs data whose ids are 0, 1, 2, ..."
            raise InputError(problem, "give a table with columns user and item", path=path)
    starts, items = citeulike.read_lists(path, dataset.n_items, dataset.n_users)
    users = np.repeat(np.arange(dataset.n_users), np.diff(starts))
    columns = {"user": users.tolist(), "item": items.tolist()}
    return Table(columns, path=Path(path), lines=(users + 1).tolist(), typed=True), users, items


def _rows_of(dataset: Dataset, table: Table, kind: str) -> np.ndarray:
    """Rows of users or items of a table in the data; InputError with the line of one that the data do not have."""
    known = dataset.user_ids if kind == "user" else dataset.item_ids
    given = table.columns[kind] if known.dtype != object else [str(value).strip() for value in table.columns[kind]]
    rows = (dataset.user_rows if kind == "user" else dataset.item_rows)(given, unknown="prior")
    if (rows < 0).any():
        row = int(np.argmax(rows < 0))
        remedy = "give the pairs of --data; or leave --data out and add --items, so that the files are the data"
        raise table.error(f"no {kind} of the data has the id {given[row]!r}", remedy, row)
    return rows


def _meant(options: Any) -> Ratings:
    """What ratings mean, ``clicks`` or ``stars``."""
    return "stars" if getattr(options, "ratings", "") == "stars" else "clicks"


def _table(path: str, reading: Reading) -> Table:
    """The table in a file of pairs."""
    if _is_rows(path):
        raise InputError("holds rows by number, not a table", "give --data, or a table with columns user and item",
                         path=path)  # fmt: skip
    if ending_of(Path(path))[0] == ".inter":
        return read_atomic(Path(path), reading)[0]
    return read_table(path, reading)


def _is_rows(path: str) -> bool:
    """Whether a file has rows of numbers in CiteULike's format: no ending of a table, and no name in its first line."""
    ending, compression = ending_of(Path(path))
    if compression or ending in _TABLES:
        return False
    if not Path(path).exists():
        return True
    first = next(iter(files.read_lines(path)), "")
    return not re.search(r"[^\W\d_]", first)


def _joined(parts: Sequence[Table]) -> JoinedTable:
    """The tables one below the other, with the columns that all of them have."""
    names = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    typed = all(part.typed for part in parts)
    for part in parts:
        if lost := [name for name in part.columns if name not in names]:
            part.tell("columns left out, since not all files of the split have them: %s", ", ".join(lost))
    columns = {
        name: [value if typed or value is None else str(value) for part in parts for value in part.columns[name]]
        for name in names
    }
    places = [
        (part.path, None if part.lines is None else part.lines[row]) for part in parts for row in range(part.n_rows)
    ]
    reading = replace(parts[0].reading, columns={}, min_rating=None)
    label = ", ".join(part.name for part in parts)
    return JoinedTable(columns, label, typed=typed, reading=reading, places=places)
