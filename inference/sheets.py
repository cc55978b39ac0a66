"""A table for people: what stands in it, whatever it looks like (:mod:`inference.layouts`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from pyro_cvae.text import visible

_BLANKS = re.compile(r"[\t\r\n]+")


@dataclass(frozen=True)
class Sheet:
    """One table for people.

    Parameters:
        columns: The heads.
        rows: Cells, a text each; a cell may have several lines.
        title: What stands above it.
        texts: Heads of the columns of free text, which may be folded, and cut short where they are
            long.
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


def one_line(text: Any) -> str:
    """A text as it may stand in a line: tabs and line ends are spaces, other control characters are shown."""
    return visible(_BLANKS.sub(" ", str(text)))


def speaks_unicode(stream: IO[str]) -> bool:
    """Whether any character can be written there."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
