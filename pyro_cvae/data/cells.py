"""Cells of a table as ids, numbers, times and texts: what can be mended is, and counted in one line of the log."""

from __future__ import annotations

import datetime as dt
import math
import re
import warnings
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from pyro_cvae.data.dataset import spells_integer
from pyro_cvae.data.html import without_tags
from pyro_cvae.data.table import Table
from pyro_cvae.text import counted, encodable

A_TIME = "a number or a date like 2026-11-23T09:30:00"
_ABSENT = ("na", "n/a", "nan", "null", "none", "nil", "-", "?", "\\n")
"""What stands in columns of numbers and times where there is none; ids and texts may be called so."""
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+").fullmatch
_TRAILING_ZERO = re.compile(r"-?\d+\.0+").fullmatch
_SLASHED = re.compile(r"\s*(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?:[\sT,]+(.*\S))?\s*").fullmatch
_YEAR_FIRST = re.compile(r"^(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)").sub
_UNITS = ((1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds"))
"""From which median on a time since 1970 is no number of seconds: 1e11 s is the year 5138, 1e11 ms is 1973."""


def missing(value: Any) -> bool:
    """Whether a cell is empty: ``None``, NaN, pandas' NA and NaT, or an empty text."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return value == "" if isinstance(value, str) else isinstance(value, float | np.floating) and math.isnan(value)


def absent(value: Any) -> bool:
    """Whether a cell has no number: missing, blank, or ``NA``, ``null`` and the like."""
    return missing(value) or (isinstance(value, str) and (not value.strip() or value.strip().lower() in _ABSENT))


# --- ids -------------------------------------------------------------------------------------------------------------


def with_ids(table: Table, *names: str) -> Table:
    """The rows in which none of these ids is missing; the others are counted in the log. InputError if none is left."""
    kept: Sequence[int] = range(table.n_rows)
    for name in names:
        values = table.columns[name]
        if table.typed:
            there = [row for row in kept if not missing(values[row]) and str(values[row]).strip()]
        else:
            there = [row for row in kept if values[row].strip()]
        if len(there) < len(kept):
            first = min(set(kept) - set(there))
            n = len(kept) - len(there)
            if not there:
                raise table.error(f"no row has an id of the {name}", "give one to each row", first)
            told = counted(n, "row"), name, table.place(first)
            table.tell("%s without an id of the %s left out (the first: %s)", *told)
        kept = there if len(there) < len(kept) else kept
    return table if len(kept) == table.n_rows else table.keep(kept)


def ids_of(column: str, *tables: Table) -> list[list[Any]]:
    """One column of ids of one or two tables, all whole numbers or all text; none may be missing.

    Blanks around ids of text tables, and ``.0`` after whole numbers, are taken off; characters that no file can hold
    (lone surrogates) are written as escapes. InputError for other types, or mixed ones.
    """
    columns = [_tidy(table, column) for table in tables]
    kinds = set()
    for table, values in zip(tables, columns, strict=True):
        for row, value in enumerate(values if table.typed else ()):
            kind = str if isinstance(value, str) else int if is_integer(value) else None
            if kind is None:
                problem = f"{column} id {value!r} is of type {type(value).__name__}"
                raise table.error(problem, "give whole numbers only or text only", row)
            kinds.add(kind)
            if len(kinds) > 1:
                raise table.error(
                    f"{column} id {value!r}: ids are of mixed types", "make all text, or all numbers", row
                )
    untyped = [(table, values) for table, values in zip(tables, columns, strict=True) if not table.typed]
    if not kinds:
        spelled = all(spells_integer(value) for _, values in untyped for value in values)
        kinds = {int if spelled else str}
    elif int in kinds:
        for table, values in untyped:
            for row, value in enumerate(values):
                if not spells_integer(value):
                    problem = f"{column} id {value!r} is no whole number, as it is in the other table"
                    raise table.error(problem, "make all text, or all numbers", row)
    (kind,) = kinds
    return [[kind(value) for value in values] for values in columns]


def _tidy(table: Table, column: str) -> list[Any]:
    """The ids of one table, what surrounds them taken off."""
    values = list(table.columns[column])
    if not table.typed:
        values = [value.strip() for value in values]
    for row, value in enumerate(values):
        if missing(value):
            raise table.error(f"the {column} has no id", "give one, or delete the row", row)
    if not table.typed:
        if values and _TRAILING_ZERO(values[0]) and all(map(_TRAILING_ZERO, values)):
            values = [value.partition(".")[0] for value in values]
            table.tell("the ids in the column %s are written with .0 and read as whole numbers", column)
        return values
    if _of_whole_floats(values):
        values = [int(value) for value in values]
        table.tell("the ids in the column %s are of type float and read as whole numbers", column)
    escaped = [encodable(value) if isinstance(value, str) else value for value in values]
    if n := sum(old is not new for old, new in zip(values, escaped, strict=True)):
        told = counted(n, "id", "have")
        table.tell("the column %s: %s undecodable characters, which are written as escapes", column, told)
    return escaped


def _of_whole_floats(values: Sequence[Any]) -> bool:
    """Whether all are numbers with a point and nothing after it; pandas makes ids so where one is missing."""
    kinds = (float, np.floating, Decimal)
    return all(isinstance(value, kinds) and math.isfinite(value) and value == int(value) for value in values)


def is_integer(value: Any) -> bool:
    """Whether a cell is a whole number, True and False apart."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)


# --- numbers ---------------------------------------------------------------------------------------------------------


def numbers_of(
    table: Table, column: str, parse: Callable[[Any], float | None], expected: str, blanks: bool = False
) -> np.ndarray | None:
    """A column of finite numbers, float64, or ``None`` where there is no such column; InputError naming the row.

    With ``blanks`` a cell without a number is NaN.
    """
    if column not in table.columns:
        return None
    numbers = []
    for row, value in enumerate(with_points(table, column)):
        if blanks and absent(value):
            numbers.append(math.nan)
            continue
        number = None if absent(value) else parse(value)
        if number is None or not math.isfinite(number):
            shown = "is missing" if absent(value) else f"{table.columns[column][row]!r} cannot be used"
            raise table.error(f"the {column} {shown}", f"give {expected}", row)
        numbers.append(number)
    return np.array(numbers, np.float64)


def with_points(table: Table, column: str) -> Sequence[Any]:
    """The cells of a column of numbers with decimal commas as points; InputError where a comma may be either."""
    values = table.columns[column]
    commas = [row for row, value in enumerate(values) if isinstance(value, str) and "," in value]
    if not commas:
        return values
    plain = [row for row in commas if "." not in values[row]]
    if plain and all(_THOUSANDS(values[row].strip()) for row in plain):
        problem = f"the {column} {values[plain[0]]!r} may be a number of thousands or one with a decimal comma"
        raise table.error(problem, "write it without a comma", plain[0])
    mended = list(values)
    for row in commas:
        cell = values[row]
        last = max(cell.rfind(","), cell.rfind("."))
        whole = cell[:last].replace(",", "").replace(".", "")
        mended[row] = f"{whole}.{cell[last + 1 :]}"
    told = counted(len(plain) or len(commas), "number", "are")
    table.tell("the column %s: %s read with a decimal comma", column, told)
    return mended


def plain_number(value: Any) -> float | None:
    """A cell as a number, or ``None``."""
    if isinstance(value, str) and "_" in value:  # float() takes 1_000
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


# --- times -----------------------------------------------------------------------------------------------------------


def times_of(table: Table) -> np.ndarray | None:
    """Seconds since 1970 of the column ``time``, NaN where there is none; ``None`` without any time.

    Numbers are seconds, or milli-, micro- or nanoseconds by their size; dates without a zone are in UTC. What is
    missing or cannot be read is counted in the log, or an InputError with its row where the reading needs all times.
    """
    if "time" not in table.columns:
        return None
    values = table.columns["time"]
    day_first = _day_first(table)
    seconds = np.full(len(values), np.nan)
    numeric = np.zeros(len(values), bool)
    for row, value in enumerate(values):
        number = None if absent(value) else plain_number(value)
        numeric[row] = number is not None
        found = number if number is not None else None if absent(value) else _moment(value, day_first)
        seconds[row] = np.nan if found is None or not math.isfinite(found) else found
    numeric &= ~np.isnan(seconds)
    if numeric.any():
        size = float(np.median(np.abs(seconds[numeric])))
        for least, divisor, unit in _UNITS:
            if size >= least:
                seconds[numeric] /= divisor
                table.tell("the numbers of the column time are read as %s since 1970", unit)
                break
    bad = np.isnan(seconds)
    if bad.any():
        row = int(np.argmax(bad))
        shown = "is missing" if absent(values[row]) else f"{values[row]!r} cannot be used"
        if table.reading.need_time:
            raise table.error(f"the time {shown}", f"give {A_TIME}; other splits than time need none", row)
        n = int(bad.sum())
        what = f"{counted(n, 'time', 'are', of=len(bad))} missing or cannot be read"
        table.tell("%s, which a split by time would refuse (the first: %s, %s)", what, table.place(row), shown)
    return None if bad.all() else seconds


def _moment(value: Any, day_first: bool) -> float | None:
    """Seconds since 1970 of a date or a text, or ``None``."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    moment = _parsed(value.strip(), day_first) if isinstance(value, str) else value
    if isinstance(moment, dt.date) and not isinstance(moment, dt.datetime):
        moment = dt.datetime(moment.year, moment.month, moment.day)
    if not isinstance(moment, dt.datetime):
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _parsed(text: str, day_first: bool) -> dt.datetime | None:
    """A moment from ISO 8601, with or without ``UTC``; from day, month and year; else what pandas makes of it."""
    iso = re.sub(r"\s*(UTC|GMT|Z)$", "", text, flags=re.IGNORECASE)  # a date without a zone is in UTC anyway
    if found := _SLASHED(iso):
        first, _, second, year, rest = found.groups()
        day, month = (first, second) if day_first else (second, first)
        iso = f"{year}-{int(month):02d}-{int(day):02d}" + (f" {rest}" if rest else "")
    else:
        iso = _YEAR_FIRST(lambda f: f"{f[1]}-{f[2]:0>2}-{f[3]:0>2}", iso)
    try:
        return dt.datetime.fromisoformat(re.sub(r"(?<=\d)\s+(?=[+-]\d\d:?\d\d$)", "", iso))
    except ValueError:
        return _by_pandas(iso) if re.search(r"\b\d{4}\b", iso) and re.search("[A-Za-z]{2}", iso) else None


def _by_pandas(text: str) -> dt.datetime | None:
    """A moment with a month's name, or with AM and PM."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it guesses what it warns about
        try:
            moment = pd.to_datetime(text, utc=True)
        except (ValueError, OverflowError, Warning):
            return None
    return None if pd.isna(moment) else moment.to_pydatetime()


def _day_first(table: Table) -> bool:
    """Whether the day comes before the month in dates such as 13/05/2024; told in the log."""
    values = table.columns["time"]
    dates = [found for value in values if isinstance(value, str) and (found := _SLASHED(value))]
    if not dates:
        return False
    firsts, seconds = (max(int(found[index]) for found in dates) for index in (1, 3))
    day_first = firsts > 12 or (seconds <= 12 and dates[0][2] == ".")
    order = "day, month, year" if day_first else "month, day, year"
    table.tell("dates such as %s are read as %s", dates[0][0].strip(), order)
    return day_first


# --- texts -----------------------------------------------------------------------------------------------------------


def texts_of(table: Table, column: str) -> list[str]:
    """A column of texts; a missing one is empty, other things than text become text, tags and entities are taken out.

    Characters that no file can hold are replaced (U+FFFD), NUL is left out; each repair is counted in the log.
    InputError for what is no text, number, date or list of texts.
    """
    texts: list[str] = []
    turned = undecodable = tagged = 0
    for row, value in enumerate(table.columns[column]):
        if missing(value):
            texts.append("")
            continue
        text = value if isinstance(value, str) else _as_text(value)
        if text is None:
            raise table.error(f"the {column} is of type {type(value).__name__}", "give text", row)
        turned += not isinstance(value, str)
        whole = encodable(text, "replace").replace("\0", "")
        undecodable += whole != text
        plain = without_tags(whole) if table.reading.html == "strip" else whole
        tagged += plain != whole
        texts.append(str(plain))
    if turned:
        table.tell("the column %s: %s made text of another type", column, counted(turned, "cell", "were"))
    if undecodable:
        told = counted(undecodable, "text", "have")
        table.tell("the column %s: %s undecodable characters, which were replaced", column, told)
    if tagged:
        told = counted(tagged, "text")
        table.tell("the column %s: HTML was taken out of %s (--html keep leaves it)", column, told)
    return texts


def _as_text(value: Any) -> str | None:
    """A number, a date or a list of texts as text; ``None`` for anything else."""
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))  # pandas makes 1984 a float where a cell is missing
    if isinstance(value, int | float | np.generic | Decimal | dt.date | dt.time | dt.timedelta):
        return str(value)
    if isinstance(value, list | tuple | set | np.ndarray):
        parts = [one if isinstance(one, str) else _as_text(one) for one in value if not _is_nothing(one)]
        return None if None in parts else " ".join(part for part in parts if part)
    return None


def _is_nothing(value: Any) -> bool:
    return not isinstance(value, list | tuple | set | np.ndarray) and missing(value)
