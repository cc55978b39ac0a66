"""Tables: (user, item[, rating, weight, time]) and (item, text[, title]) from pandas, polars, Arrow, CSV or Parquet.

A rating is R_ij where ``ratings="stars"`` asks for it; otherwise every listed pair counts as chosen, R_ij = 1.
A weight is how much a pair counts beside others; 0 says that the cell is missing. Ids keep their type, number or text.
CSV has no types, so a column of ids is whole numbers if every one of them, in both tables, is written as one.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from pyro_cvae.data import files
from pyro_cvae.data.content import Content, TextVectorizer
from pyro_cvae.data.contents import AnyContent, of_texts
from pyro_cvae.data.dataset import Dataset, spells_integer, typed_ids
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.sources import Source
from pyro_cvae.errors import InputError

log = logging.getLogger(__name__)

# The columns we read, by the names they may have.
PAIRS = {"user": ("user", "user_id"), "item": ("item", "item_id"), "weight": ("weight",), "time": ("time", "timestamp")}
STARS = PAIRS | {"rating": ("rating",)}
ITEMS = {"item": ("item", "item_id"), "text": ("text",), "title": ("title",)}
_A_WEIGHT = "a number of 0 or more"


@dataclass(frozen=True)
class Table:
    """Columns of equal length, and where each row comes from.

    Parameters:
        columns: Values by column name.
        label: What to call the table in messages, where there is no file.
        path: Its file, or ``None``.
        lines: The 1-based line of each row, or ``None``: then rows are counted from 1.
        typed: False for text files, whose values are all str.
    """

    columns: Mapping[str, Sequence[Any]]
    label: str = "the table"
    path: Path | None = None
    lines: Sequence[int] | None = None
    typed: bool = True

    def error(self, problem: str, remedy: str, row: int | None = None) -> InputError:
        """An error at a row (from 0), or about the whole table."""
        if row is not None and self.lines is not None:
            return InputError(problem, remedy, path=self.path, line=self.lines[row])
        place = "" if row is None else f"row {row + 1}: "
        return InputError(place + problem if self.path else f"{self.label}: {place}{problem}", remedy, path=self.path)

    def pick(self, wanted: Mapping[str, Sequence[str]], required: Sequence[str]) -> Table:
        """The wanted columns under our names; others are left out and named in the log."""
        picked: dict[str, Sequence[Any]] = {}
        used = set()
        for name, spellings in wanted.items():
            there = [spelling for spelling in spellings if spelling in self.columns]
            if len(there) > 1:
                raise self.error(f"has both a column {there[0]} and a column {there[1]}", "keep one of them")
            if there:
                picked[name] = self.columns[there[0]]
                used.add(there[0])
            elif name in required:
                has = ", ".join(map(str, self.columns)) or "none"
                raise self.error(f"has no column {name} (its columns: {has})", f"name one of them {name}")
        if ignored := [str(name) for name in self.columns if name not in used]:
            known = ", ".join(wanted)
            log.warning("%s: columns left out: %s (read: %s)", self.path or self.label, ", ".join(ignored), known)
        if not len(next(iter(picked.values()))):
            raise self.error("has no rows", "give at least one")
        return Table(picked, self.label, self.path, self.lines, self.typed)


def from_frames(
    interactions: Any,
    items: Any,
    *,
    name: str = "table",
    n_words: int = 8000,
    unknown: str = "error",
    ratings: str = "clicks",
) -> Dataset:
    """A data set from two tables: pandas or polars frames, Arrow tables, or mappings of column name to values.

    Parameters:
        interactions: Columns ``user``, ``item`` and, if there, ``rating``, ``weight`` (how much a pair counts
            beside others) and ``time`` (numbers, or dates: seconds since 1970, UTC where no zone is given).
        items: Columns ``item``, ``text`` and, if there, ``title``; one row an item. As in the paper, the words of title
            and text are counted together.
        name: Label of the data set.
        n_words: Size of the vocabulary (:class:`~pyro_cvae.data.content.TextVectorizer`).
        unknown: What to do with pairs whose item is not in ``items``: ``"error"``, or ``"drop"`` and count in the log.
        ratings: ``"clicks"``: every pair is a 1, a column ``rating`` is left out; ``"stars"``: that column is R_ij.

    Users are in the order of their ids, items in that of their table. Repeated pairs are merged, the last row kept, and
    counted in the log. Raises InputError, naming the row, for anything that cannot be used: missing or mixed ids,
    repeated items, weights that are negative, NaN or infinite, ratings that are missing or not finite.
    """
    return build(_as_table(interactions, "interactions"), _as_table(items, "items"), name, n_words, unknown, ratings)


def load_tables(
    path: files.PathLike,
    items: files.PathLike | None = None,
    *,
    n_words: int = 8000,
    unknown: str = "error",
    ratings: str = "clicks",
    contents: Sequence[Source] = (),
) -> Dataset:
    """A data set from files of the two tables of :func:`from_frames`, each ``.csv`` or ``.parquet``.

    Of ``contents`` those without a path that are columns of the items become further contents. Where there are any
    contents, the items need no column ``text``.
    """
    pairs = read_table(path)
    if items is None:
        raise InputError("a table of interactions needs a table of items", "add --items FILE", path=path)
    return build(pairs, read_table(items), Path(path).stem, n_words, unknown, ratings, contents)


def read_table(path: files.PathLike) -> Table:
    """The table in a ``.csv`` (comma separated, with a header) or ``.parquet`` file; raises InputError for others."""
    path = Path(path)
    if path.suffix == ".csv":
        return _read_csv(path)
    raw = files.read_bytes(path)
    if path.suffix != ".parquet":
        raise InputError("is neither .csv nor .parquet", "convert it to one of them", path=path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(raw))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"is not a readable Parquet file ({error})", "write it again", path=path) from None
    return Table(_arrow_columns(table), path=path)


def read_pairs(
    path: files.PathLike, *, ratings: str = "clicks"
) -> tuple[list[Any], list[Any], np.ndarray | None, np.ndarray | None]:
    """Users, items and, if there, weights and ratings of a file of pairs as :func:`load_tables` takes it.

    With ``ratings`` "stars" there must be a column ``rating``, otherwise none is read. Raises InputError.
    """
    stars = ratings == "stars"
    required = ("user", "item", "rating") if stars else ("user", "item")
    table = read_table(path).pick(STARS if stars else PAIRS, required)
    ((users,), (items,)) = ids_of("user", table), ids_of("item", table)
    weights = numbers_of(table, "weight", _weight, _A_WEIGHT)
    return users, items, weights, numbers_of(table, "rating", plain_number, "a finite number")


def build(
    pairs: Table,
    items: Table,
    name: str,
    n_words: int,
    unknown: str,
    ratings: str = "clicks",
    contents: Sequence[Source] = (),
) -> Dataset:
    """The data set of two tables; see :func:`from_frames` and :func:`load_tables`."""
    if unknown not in ("error", "drop"):
        raise InputError(f"unknown policy {unknown!r} for pairs of unknown items", "use error or drop")
    if ratings not in ("clicks", "stars"):
        raise InputError(f"ratings cannot be read as {ratings!r}", "use clicks or stars")
    if ratings == "stars":
        pairs = pairs.pick(STARS, ("user", "item", "rating"))
    else:
        pairs = pairs.pick(PAIRS, ("user", "item"))
    own = [source for source in contents if source.path is None and source.name in items.columns]
    items = items.pick(
        {**{source.name: (source.name,) for source in own}, **ITEMS}, ("item",) if contents else ("item", "text")
    )
    given_items, item_ids = ids_of("item", pairs, items)
    (given_users,) = ids_of("user", pairs)
    row_of: dict[Any, int] = {}
    for row, key in enumerate(item_ids):
        if row_of.setdefault(key, row) != row:
            raise items.error(f"item {key!r} is there more than once", "give each item one row", row)
    item_rows = np.array([row_of.get(key, -1) for key in given_items], np.int64)
    weights = numbers_of(pairs, "weight", _weight, _A_WEIGHT)
    times = numbers_of(pairs, "time", _seconds, "a number or a date like 2026-11-23T09:30:00")
    stars = numbers_of(pairs, "rating", plain_number, "a finite number")
    known = item_rows >= 0
    if not known.all() and unknown == "error":
        row = int(np.argmin(known))
        raise pairs.error(f"item {given_items[row]!r} is not in the table of items", "add it there", row)
    if not known.any():
        raise pairs.error("no pair has an item of the table of items", "check that both use the same ids")
    if not known.all():
        log.warning("%s: %d pairs of unknown items dropped", pairs.path or pairs.label, int((~known).sum()))
    kept_users = [user for user, keep in zip(given_users, known, strict=True) if keep]
    user_ids = sorted(set(kept_users))
    user_of = {key: row for row, key in enumerate(user_ids)}
    interactions = Interactions.from_arrays(
        [user_of[user] for user in kept_users],
        item_rows[known],
        n_users=len(user_ids),
        n_items=len(item_ids),
        ratings=None if stars is None else stars[known],
        confidences=None if weights is None else weights[known],
        times=None if times is None else times[known],
    )
    titles = texts_of(items, "title") if "title" in items.columns else None
    return Dataset(
        name,
        interactions,
        _text(items, titles, n_words),
        typed_ids(user_ids, "user_ids"),
        typed_ids(item_ids, "item_ids"),
        None if titles is None else np.array(titles, object),
        others={source.name: column_of(items, source) for source in own},
    )


def _text(items: Table, titles: list[str] | None, n_words: int) -> Content:
    """Counts of the words of title and text together; none at all where there is no column of texts."""
    if "text" not in items.columns:
        return Content(sp.csr_matrix((len(items.columns["item"]), 0)))
    texts = texts_of(items, "text")
    documents = texts if titles is None else [f"{title}\n{text}" for title, text in zip(titles, texts, strict=True)]
    try:
        vectorizer = TextVectorizer.fit(documents, n_words)
    except InputError as error:
        raise items.error(error.problem, error.remedy) from None
    return Content(vectorizer.counts(documents), vectorizer.vocabulary, vectorizer)


def column_of(items: Table, source: Source, like: AnyContent | None = None) -> AnyContent:
    """A column of the table of items as a content; an item whose cell is blank lacks it."""
    try:
        return of_texts(source.kind or "words", texts_of(items, source.name), like)
    except InputError as error:
        raise InputError(f"{source.name}: {error.problem}", error.remedy, path=error.path or items.path) from None


def _as_table(frame: Any, label: str) -> Table:
    """A pandas frame (``iloc``), anything that speaks Arrow (polars, pyarrow), or a mapping, as a table."""
    if hasattr(frame, "iloc"):
        if not frame.columns.is_unique:
            raise InputError(f"{label}: has two columns of one name", "rename one of them")
        return Table({str(column): frame[column].tolist() for column in frame.columns}, label)
    if hasattr(frame, "__arrow_c_stream__"):
        import pyarrow as pa

        return Table(_arrow_columns(pa.table(frame)), label)
    if isinstance(frame, Mapping):
        columns = {str(k): v.tolist() if isinstance(v, np.ndarray) else list(v) for k, v in frame.items()}
        if len({len(values) for values in columns.values()}) > 1:
            raise InputError(f"{label}: columns differ in length", "give as many values in each")
        return Table(columns, label)
    raise InputError(f"{label}: {type(frame).__name__} is no table", "give a pandas or polars frame, or a mapping")


def _arrow_columns(table: Any) -> dict[str, list[Any]]:
    return {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}


def _read_csv(path: Path) -> Table:
    reader = csv.reader(io.StringIO(files.read_text(path, strict=False), newline=""), strict=True)
    header: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for row in reader:
            if header is None:
                header = row
                if len(set(header)) != len(header) or "" in header:
                    raise InputError("a column has no name, or two have the same", "name them", path=path, line=line)
            elif row:  # a blank line is none
                if len(row) != len(header):
                    problem = f"has {len(row)} values, the header {len(header)}"
                    raise InputError(problem, "quote values that hold commas", path=path, line=line)
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1  # quoted values may hold line ends: a row starts after the last one's end
    except csv.Error as error:
        raise InputError(f"is not valid CSV ({error})", "quote values that hold quotes", path=path, line=line) from None
    columns = zip(*rows, strict=True) if rows else ((),) * len(header or ())
    return Table(dict(zip(header or (), columns, strict=True)), path=path, lines=lines, typed=False)


def missing(value: Any) -> bool:
    """Whether a cell is empty: ``None``, NaN, pandas' NA and NaT, or an empty text."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return value == "" if isinstance(value, str) else isinstance(value, float | np.floating) and math.isnan(value)


def ids_of(column: str, *tables: Table) -> list[list[Any]]:
    """One column of ids of one or two tables, all whole numbers or all text."""
    kinds = set()
    for table in tables:
        values = table.columns[column]
        for row, value in enumerate(values):
            if missing(value):
                raise table.error(f"the {column} has no id", "give one, or delete the row", row)
        if not table.typed:
            continue
        for row, value in enumerate(values):
            kind = str if isinstance(value, str) else int if _is_integer(value) else None
            if kind is None:
                problem = f"{column} id {value!r} is of type {type(value).__name__}"
                raise table.error(problem, "give whole numbers only or text only", row)
            kinds.add(kind)
            if len(kinds) > 1:
                raise table.error(
                    f"{column} id {value!r}: ids are of mixed types", "make all text, or all numbers", row
                )
    untyped = [table for table in tables if not table.typed]
    if not kinds:
        spelled = all(spells_integer(value) for table in untyped for value in table.columns[column])
        kinds = {int if spelled else str}
    elif int in kinds:
        for table in untyped:
            for row, value in enumerate(table.columns[column]):
                if not spells_integer(value):
                    problem = f"{column} id {value!r} is no whole number, as it is in the other table"
                    raise table.error(problem, "make all text, or all numbers", row)
    (kind,) = kinds
    return [[kind(value) for value in table.columns[column]] for table in tables]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)


def numbers_of(table: Table, column: str, parse: Callable[[Any], float | None], expected: str) -> np.ndarray | None:
    """A column of finite numbers, float64, or ``None`` where there is no such column; InputError naming the row."""
    if column not in table.columns:
        return None
    numbers = []
    for row, value in enumerate(table.columns[column]):
        number = None if missing(value) else parse(value)
        if number is None or not math.isfinite(number):
            shown = "is missing" if missing(value) else f"{value!r} cannot be used"
            raise table.error(f"the {column} {shown}", f"give {expected}", row)
        numbers.append(number)
    return np.array(numbers, np.float64)


def _weight(value: Any) -> float | None:
    number = plain_number(value)
    return None if number is None or number < 0 else number


def plain_number(value: Any) -> float | None:
    """A cell as a number, or ``None``."""
    if isinstance(value, str) and "_" in value:  # float() takes 1_000
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds(value: Any) -> float | None:
    number = plain_number(value)
    if number is not None:
        return number
    try:
        moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if isinstance(moment, dt.date) and not isinstance(moment, dt.datetime):
        moment = dt.datetime(moment.year, moment.month, moment.day)
    if not isinstance(moment, dt.datetime):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def texts_of(table: Table, column: str) -> list[str]:
    """A column of texts; a missing one is empty."""
    texts = []
    for row, value in enumerate(table.columns[column]):
        if missing(value):
            texts.append("")
        elif isinstance(value, str):
            texts.append(value)
        else:
            raise table.error(f"the {column} is of type {type(value).__name__}", "give text", row)
    return texts
