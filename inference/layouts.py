"""What a table for people looks like: on a terminal with rules, into a pipe or a file in plain aligned columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TextIO

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inference.sheets import Sheet, one_line, speaks_unicode

LONGEST_TEXT = 120
"""Columns of the screen that a free text takes at most in a table; CSV and JSON have all of it."""
LEAST_TEXT = 16
"""Columns below which a text is not folded: the rows become blocks instead."""
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?%?|nan|-?inf|-", re.IGNORECASE).fullmatch


def show_sheet(sheet: Sheet, stream: TextIO) -> None:
    """Print a table; see :func:`inference.printing.show`."""
    console = Console(file=stream)
    dots = "…" if speaks_unicode(stream) else "..."
    sheet = _shown(sheet, dots)
    if not console.is_terminal:
        stream.write(_aligned(sheet))
        return
    slices = [_ruled(one, console.width, dots) for one in _sliced(sheet, console.width)]
    if None in slices:
        stream.write(_blocks(sheet))
    for made in slices if None not in slices else ():
        console.print(made)


def _shown(sheet: Sheet, dots: str) -> Sheet:
    """The same with every text as it may be printed, long free texts cut short."""

    def of(text: str, column: str) -> str:
        if column not in sheet.texts:
            return "\n".join(map(one_line, str(text).split("\n")))
        return one_line(text) if sheet.whole else _shortened(one_line(text), dots)

    rows = [[of(text, column) for text, column in zip(row, sheet.columns, strict=True)] for row in sheet.rows]
    return replace(sheet, columns=list(map(one_line, sheet.columns)), rows=rows, title=one_line(sheet.title))


def _shortened(text: str, dots: str, most: int = LONGEST_TEXT) -> str:
    return text if _width(text) <= most else set_cell_size(text, most - len(dots)).rstrip() + dots


def _width(text: str) -> int:
    """Columns of a screen that a text takes, the widest of its lines; Chinese takes two a character."""
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
