"""What the commands print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(
    headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, width: int = 140, **titles: Any
) -> None:
    """Print rows of texts, the first ``left`` columns to the left and the others to the right.

    A row without cells ends a section. ``titles`` are rich's own, ``title`` and ``caption``.
    """
    table = Table(**titles)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < left else "right")
    for row in rows:
        if row:
            table.add_row(*row)
        else:
            table.add_section()
    Console(width=width).print(table)


def show_rows(rows: Sequence[Mapping[str, Any]], digits: str = ".4g", **titles: Any) -> None:
    """Print rows with their keys as headings, texts in the first columns before numbers."""
    left = sum(isinstance(cell, str) for cell in rows[0].values())
    texts = ([f"{cell:{digits}}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in rows)
    show(list(rows[0]), texts, left, **titles)


def verdict(met: bool, what: str) -> None:
    """Say whether a target is met."""
    print(f"{'met' if met else 'MISSED'}: {what}", flush=True)


def told(settings: Mapping[str, Any], digits: str = "g") -> str:
    """Names and numbers in a line, as ``lambda_u 10, factors 20``."""
    return ", ".join(f"{name} {value:{digits}}" for name, value in settings.items())
