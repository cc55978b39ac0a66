"""What commands print: tables for people, and the same numbers as CSV or JSON (``--format``).

On a terminal a table has rules, and free text is folded; ids and numbers are never cut: where they do not fit, a table
of numbers is printed in slices of columns, another as a block of lines a row. Into a pipe or a file go plain aligned
columns. All text passes through :func:`pyro_cvae.text.visible`.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args

from inference.kinds import Format
from inference.numerals import largest, number
from inference.options.checking import choice
from inference.sheets import Sheet, one_line, speaks_unicode
from pyro_cvae.text import visible_lines
from pyro_cvae.whole import whole_file

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"[\s\x00]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]").match


def emit(
    parts: Iterable[Sheet | str],
    tables: Mapping[str, pd.DataFrame],
    format: Format = "table",
    notes: Iterable[str] = (),
    safe: bool = False,
) -> None:
    """Print ``parts`` for people, or the same as ``tables`` in CSV or JSON.

    CSV has the tables one after the other, an empty line between. JSON is a list of objects where there is one table,
    otherwise an object of such lists by name. ``notes`` are lines for people, which go to stderr beside CSV and JSON.
    On a terminal both show control characters; into a pipe they are the data. ``safe`` as in :func:`csv_text`.
    """
    choice("format", format, get_args(Format))
    if format == "table":
        last: Sheet | str = ""
        for part in (*parts, *notes):
            if isinstance(part, Sheet) and isinstance(last, Sheet):
                show("")
            show(part)
            last = part
        return
    if format == "csv":
        text = "\n".join(csv_text(table, safe) for table in tables.values())
    else:
        values = {name: [_plain_values(row) for row in table.to_dict("records")] for name, table in tables.items()}
        whole: Any = values if len(values) > 1 else next(iter(values.values()), [])
        text = json.dumps(whole, ensure_ascii=not speaks_unicode(sys.stdout), indent=1) + "\n"
    sys.stdout.write(visible_lines(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
    for note in notes:
        print(one_line(note), file=sys.stderr)


def csv_text(table: pd.DataFrame, safe: bool = False, header: bool = True) -> str:
    """A table as CSV, numbers in full; with ``safe`` a spreadsheet takes no text in it for a formula.

    A text that begins as formulas do (= + - @ and blanks before them) then has an apostrophe in front. Source: OWASP,
    CSV Injection.
    """
    shown = _without_formulas(table) if safe else table
    returns = any(isinstance(value, str) and "\r" in value for name in shown for value in (name, *shown[name]))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL  # a bare \r would end the row for a reader
    return shown.to_csv(index=False, header=header, lineterminator="\n", quoting=quoting)


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    def shielded(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and _FORMULA(value) else value

    return table.rename(columns=shielded).map(shielded)


def write_frame(table: pd.DataFrame, path: str | Path, safe: bool = False) -> None:
    """Write CSV or Parquet by the suffix, under another name first: an older file is replaced whole or not at all.

    ``safe`` as in :func:`csv_text`.
    """
    with whole_file(path) as new:
        if Path(path).suffix == ".parquet":
            table.to_parquet(new, index=False)
        else:
            new.write_text(csv_text(table, safe), encoding="utf-8", newline="")


def show(part: Sheet | str, stream: TextIO | None = None) -> None:
    """Print a table, or a line of text, for people: on a terminal with rules, otherwise in plain aligned columns."""
    stream = stream or sys.stdout
    if isinstance(part, str):
        stream.write(visible_lines(part) + "\n")
    else:
        from inference.layouts import show_sheet

        show_sheet(part, stream)
    stream.flush()


def cell(value: Any, size: float | None = None) -> str:
    """A value in a table: blank where it is missing, three decimals of what is no whole number.

    ``size`` as of :func:`inference.numerals.number`.
    """
    if value is None or value != value or type(value).__name__ == "NAType":
        return ""
    return number(value, 3, size) if _is_float(value) else str(value)


def _is_float(value: Any) -> bool:
    return isinstance(value, float) or type(value).__name__.startswith("float")


def sheet_of(table: pd.DataFrame, title: str = "", texts: Sequence[str] = (), rules: Sequence[int] = ()) -> Sheet:
    """A frame as a table for people."""
    columns = [str(name) for name in table.columns]
    sizes = [largest(filter(_is_float, table.iloc[:, place])) for place in range(len(columns))]
    rows = [list(map(cell, row, sizes)) for row in table.itertuples(index=False, name=None)]
    return Sheet(columns, rows, title, texts, list(rules))


# --- values ----------------------------------------------------------------------------------------------------------


def _plain_values(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """A value of a frame as JSON has it; what is missing or not finite is null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return (
        value
        if value is None or isinstance(value, str | int | float | bool)
        else None
        if value != value
        else str(value)
    )
