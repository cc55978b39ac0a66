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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from inference.kinds import Format
from pyro_cvae.text import visible, visible_lines

if TYPE_CHECKING:
    import pandas as pd

LONGEST_TEXT = 120
"""Columns of the screen that a free text takes at most in a table; CSV and JSON have all of it."""
LEAST_TEXT = 16
"""Columns below which a text is not folded: the rows become blocks instead."""
_FORMULA = re.compile(r"[\s\x00]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]").match
_BLANKS = re.compile(r"[\t\r\n]+")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?%?|nan|-?inf|-", re.IGNORECASE).fullmatch


@dataclass(frozen=True)
class Sheet:
    """One table for people.

    Parameters:
        columns: The heads.
        rows: Cells, a text each; a cell may have several lines.
        title: What stands above it.
        texts: Heads of the columns of free text, which may be folded, and cut short after ``LONGEST_TEXT``.
        whole: Cut no text short.
        rules: Rows (from 0) after which a rule is drawn on a terminal.
        styles: Of a cell that is just this text, a style of rich, such as "bold red".
    """

    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    title: str = ""
    texts: Sequence[str] = ()
    rules: list[int] = field(default_factory=list)
    styles: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False

    def add_row(self, *cells: str) -> None:
        """One more row, a text for each column."""
        self.rows.append(list(cells))

    def add_rule(self) -> None:
        """A rule after the rows that are there."""
        self.rules.append(len(self.rows) - 1)


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
        text = json.dumps(whole, ensure_ascii=not _speaks_unicode(sys.stdout), indent=1) + "\n"
    sys.stdout.write(visible_lines(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
    for note in notes:
        print(one_line(note), file=sys.stderr)


def csv_text(table: pd.DataFrame, safe: bool = False) -> str:
    """A table as CSV, numbers in full; with ``safe`` a spreadsheet takes no text in it for a formula.

    A text that begins as formulas do (= + - @ and blanks before them) then has an apostrophe in front. Source: OWASP,
    CSV Injection.
    """
    shown = _without_formulas(table) if safe else table
    returns = any(isinstance(value, str) and "\r" in value for name in shown for value in (name, *shown[name]))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL  # a bare \r would end the row for a reader
    return shown.to_csv(index=False, lineterminator="\n", quoting=quoting)


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    def shielded(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and _FORMULA(value) else value

    return table.rename(columns=shielded).map(shielded)


def write_frame(table: pd.DataFrame, path: str | Path, safe: bool = False) -> None:
    """Write CSV or Parquet by the suffix, under another name first: an older file is replaced whole or not at all.

    ``safe`` as in :func:`csv_text`.
    """
    from pyro_cvae.data.files import whole_file

    with whole_file(path) as new:
        if Path(path).suffix == ".parquet":
            table.to_parquet(new, index=False)
        else:
            new.write_text(csv_text(table, safe), encoding="utf-8", newline="")


def show(part: Sheet | str, stream: TextIO | None = None) -> None:
    """Print a table, or a line of text, for people: on a terminal with rules, otherwise in plain aligned columns."""
    from rich.console import Console

    console = Console(file=stream or sys.stdout)
    if isinstance(part, str):
        console.file.write(visible_lines(part) + "\n")
    else:
        dots = "…" if _speaks_unicode(console.file) else "..."
        sheet = _shown(part, dots)
        if not console.is_terminal:
            console.file.write(_aligned(sheet))
            console.file.flush()
            return
        slices = [_ruled(one, console.width, dots) for one in _sliced(sheet, console.width)]
        if None in slices:
            console.file.write(_blocks(sheet))
        for made in slices if None not in slices else ():
            console.print(made)
    console.file.flush()


def one_line(text: Any) -> str:
    """A text as it may stand in a line: tabs and line ends are spaces, other control characters are shown."""
    return visible(_BLANKS.sub(" ", str(text)))


def cell(value: Any, decimals: int = 3) -> str:
    """A value in a table: blank where it is missing, so many decimals of what is no whole number."""
    if value is None or value != value or type(value).__name__ == "NAType":
        return ""
    is_float = isinstance(value, float) or type(value).__name__.startswith("float")
    return f"{value:.{decimals}f}" if is_float else str(value)


def sheet_of(table: pd.DataFrame, title: str = "", texts: Sequence[str] = (), rules: Sequence[int] = ()) -> Sheet:
    """A frame as a table for people."""
    columns = [str(name) for name in table.columns]
    rows = [[cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
    return Sheet(columns, rows, title, texts, list(rules))


# --- layouts ---------------------------------------------------------------------------------------------------------


def _shown(sheet: Sheet, dots: str) -> Sheet:
    """The same with every text as it may be printed, long free texts cut short."""

    def of(text: str, column: str) -> str:
        if column not in sheet.texts:
            return "\n".join(map(one_line, str(text).split("\n")))
        return one_line(text) if sheet.whole else _shortened(one_line(text), dots)

    rows = [[of(text, column) for text, column in zip(row, sheet.columns, strict=True)] for row in sheet.rows]
    return replace(sheet, columns=list(map(one_line, sheet.columns)), rows=rows, title=one_line(sheet.title))


def _shortened(text: str, dots: str, most: int = LONGEST_TEXT) -> str:
    from rich.cells import set_cell_size

    return text if _width(text) <= most else set_cell_size(text, most - len(dots)).rstrip() + dots


def _width(text: str) -> int:
    """Columns of a screen that a text takes, the widest of its lines; Chinese takes two a character."""
    from rich.cells import cell_len

    return max(cell_len(line) for line in text.split("\n"))


def _widths(sheet: Sheet) -> list[int]:
    cells = zip(*sheet.rows, strict=True) if sheet.rows else [()] * len(sheet.columns)
    return [max(map(_width, (head, *column))) for head, column in zip(sheet.columns, cells, strict=True)]


def _numeric(sheet: Sheet) -> list[bool]:
    """Of each column, whether it is of numbers, which are aligned to the right."""
    cells = list(zip(*sheet.rows, strict=True)) or [()] * len(sheet.columns)
    firsts = [[text.split()[0] for text in column if text.strip()] for column in cells]
    return [bool(column) and all(_NUMBER(text) for text in column) for column in firsts]


def _aligned(sheet: Sheet) -> str:
    """Plain columns, two blanks apart; a cell of several lines takes several."""
    widths, right = _widths(sheet), _numeric(sheet)

    def line(cells: Sequence[str]) -> str:
        padded = []
        for text, width, is_number in zip(cells, widths, right, strict=True):
            blanks = " " * (width - _width(text))
            padded.append(blanks + text if is_number else text + blanks)
        return "  ".join(padded).rstrip() + "\n"

    lines = [sheet.title + "\n"] if sheet.title else []
    lines.append(line(sheet.columns))
    for row in sheet.rows:
        parts = [text.split("\n") for text in row]
        for number in range(max(map(len, parts))):
            lines.append(line([part[number] if number < len(part) else "" for part in parts]))
    return "".join(lines)


def _ruled(sheet: Sheet, width: int, dots: str) -> Any:
    """The table of rich, texts folded into at most three lines or so, without rules where these take too much space.

    ``None`` where ids and numbers do not fit into ``width``.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    widths, right = _widths(sheet), _numeric(sheet)
    folded = [column in sheet.texts for column in sheet.columns]
    fixed = sum(size for size, folds in zip(widths, folded, strict=True) if not folds)
    wanted = [size for size, folds in zip(widths, folded, strict=True) if folds]
    n = len(widths)
    shares, lines = _shared(wanted, width - fixed - 3 * n - 1), True
    if shares is None:
        shares, lines = _shared(wanted, width - fixed - 2 * n), False
    if shares is None:
        return None
    padding = (0, 1) if lines else (0, 2, 0, 0)
    title = Text(sheet.title) if sheet.title else None
    table = Table(title=title, title_justify="left", padding=padding, box=box.HEAVY_HEAD if lines else None)
    share, sizes = iter(shares), []
    for head, size, folds, is_number in zip(sheet.columns, widths, folded, right, strict=True):
        sizes.append(next(share) if folds else size)
        justify: Any = "right" if is_number else "left"
        table.add_column(Text(head), justify=justify, width=sizes[-1], overflow="fold")
    rules = set(sheet.rules)
    for number, row in enumerate(sheet.rows):
        cells = [
            Text(
                _shortened(text, dots, 3 * size) if folds and not sheet.whole else text,
                style=sheet.styles.get(text, ""),
            )
            for text, size, folds in zip(row, sizes, folded, strict=True)
        ]
        table.add_row(*cells, end_section=number in rules and number + 1 < len(sheet.rows))
    return table


def _sliced(sheet: Sheet, width: int) -> list[Sheet]:
    """A table of numbers in slices of columns that fit, the names in front of each; any other table as it is."""
    widths, right = _widths(sheet), _numeric(sheet)
    n = next((index for index, is_number in enumerate(right) if is_number), len(right))
    if sheet.texts or not 0 < n < len(right):
        return [sheet]
    keys = list(range(n))
    room = width - 1 - sum(3 + widths[index] for index in keys)
    slices: list[list[int]] = []
    left = 0
    for index in range(n, len(right)):
        left -= 3 + widths[index]
        if left < 0:
            slices.append([])
            left = room - 3 - widths[index]
        slices[-1].append(index)
    return [
        replace(
            sheet,
            columns=[sheet.columns[index] for index in keys + chosen],
            rows=[[row[index] for index in keys + chosen] for row in sheet.rows],
            title=sheet.title if not number else "",
        )
        for number, chosen in enumerate(slices)
    ]


def _shared(wanted: Sequence[int], left: int) -> list[int] | None:
    """Widths of the folded columns within ``left`` together, the narrow ones first; ``None`` if they get too little."""
    widths: dict[int, int] = {}
    for number, index in enumerate(sorted(range(len(wanted)), key=lambda index: wanted[index])):
        fair = left // (len(wanted) - number)
        widths[index] = min(wanted[index], fair)
        if widths[index] < min(wanted[index], LEAST_TEXT):
            return None
        left -= widths[index]
    return None if left < 0 else [widths[index] for index in range(len(wanted))]


def _blocks(sheet: Sheet) -> str:
    """A block of lines a row, each "head: value"; nothing is cut, the terminal breaks what is too long."""
    blocks = [
        "".join(
            f"{head}: {text.replace(chr(10), '; ')}\n" for head, text in zip(sheet.columns, row, strict=True) if text
        )
        for row in sheet.rows
    ]
    return (sheet.title + "\n\n" if sheet.title else "") + "\n".join(blocks)


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


def _speaks_unicode(stream: IO[str]) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
