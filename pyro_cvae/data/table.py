"""A table in memory: columns of equal length, and where each row comes from."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyro_cvae.data.reading import Reading
from pyro_cvae.errors import InputError

log = logging.getLogger(__name__)

_SHOWN = 20


@dataclass(frozen=True)
class Table:
    """Columns of equal length, and where each row comes from.

    Parameters:
        columns: Values by column name.
        label: What to call the table in messages, where there is no file.
        path: Its file, or ``None``.
        lines: The 1-based line of each row, or ``None``: then rows are counted from 1.
        typed: False for text files, whose values are all str.
        reading: How it is read.
        repeated: Names that more than one of its columns has.
    """

    columns: Mapping[str, Sequence[Any]]
    label: str = "the table"
    path: Path | None = None
    lines: Sequence[int] | None = None
    typed: bool = True
    reading: Reading = field(default_factory=Reading)
    repeated: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.label if self.path is None else str(self.path)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def error(self, problem: str, remedy: str, row: int | None = None) -> InputError:
        """An error at a row (from 0), or about the whole table."""
        if row is not None and self.lines is not None:
            return InputError(problem, remedy, path=self.path, line=self.lines[row])
        place = "" if row is None else f"row {row + 1}: "
        return InputError(place + problem if self.path else f"{self.label}: {place}{problem}", remedy, path=self.path)

    def place(self, row: int) -> str:
        """Where a row (from 0) is: ``line 7`` or ``row 6``."""
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"

    def tell(self, message: str, *arguments: Any) -> None:
        """One line in the log about what was made of this table."""
        log.warning(f"%s: {message}", self.name, *arguments)

    def keep(self, rows: Sequence[int]) -> Table:
        """The table of these rows (from 0)."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return replace(self, columns=columns, lines=None if self.lines is None else [self.lines[row] for row in rows])

    def pick(self, wanted: Mapping[str, Sequence[str]], required: Sequence[str]) -> Table:
        """The wanted columns under our names; others are left out and named in the log.

        A column is found by the name that ``reading`` gives it, or by one of its usual spellings, or by one of these
        in capitals, with blanks or without ``_`` (``User ID``, ``userId``).
        """
        picked: dict[str, Sequence[Any]] = {}
        used = set()
        for name, spellings in wanted.items():
            there = self._called(name, spellings, name in required)
            if len(there) > 1:
                remedy = f"keep one of them, or name it with --columns {name}=COLUMN"
                raise self.error(f"has both a column {there[0]} and a column {there[1]}", remedy)
            if there:
                if there[0] in self.repeated:
                    raise InputError(f"has two columns called {there[0]}", "rename one of them", path=self.path, line=1)
                picked[name] = self.columns[there[0]]
                used.add(there[0])
                if there[0] not in spellings:
                    log.info("%s: the column %s is read as %s", self.name, there[0], name)
            elif name in required:
                lacking = [one for one in required if one not in picked and not self._called(one, wanted[one], True)]
                problem = f"has no column {' and no column '.join(lacking)} (its columns: {self._names()})"
                raise self.error(problem, self._remedy(lacking))
        if ignored := [str(name) for name in self.columns if name not in used]:
            more = f" and {len(ignored) - _SHOWN} more" if len(ignored) > _SHOWN else ""
            self.tell("columns left out: %s (read: %s)", ", ".join(ignored[:_SHOWN]) + more, ", ".join(wanted))
        if not len(next(iter(picked.values()))):
            raise self.error("has no rows", "give at least one")
        return replace(self, columns=picked, repeated=frozenset())

    def usually(self, name: str, spellings: Sequence[str]) -> Table:
        """The table without the name that ``reading`` gives a column, where it has one of the usual spellings alone."""
        given = self.reading.columns.get(name)
        if given is None or self._alike([given]) or not self._alike(spellings):
            return self
        columns = {key: column for key, column in self.reading.columns.items() if key != name}
        return replace(self, reading=replace(self.reading, columns=columns))

    def _called(self, name: str, spellings: Sequence[str], required: bool) -> list[str]:
        """The columns that may be the one that we call ``name``."""
        given = self.reading.columns.get(name)
        if given is not None:
            if exact := [column for column in self.columns if column == given] or self._alike([given]):
                return exact
            if not self.reading.lenient and (required or name != "item"):
                problem = f"has no column {given}, which --columns calls {name} (its columns: {self._names()})"
                raise self.error(problem, "check the name")
        found = [spelling for spelling in spellings if spelling in self.columns] or self._alike(spellings)
        return [column for column in found if key_of(column) != "id"] or found  # a number beside the item's own name

    def _alike(self, spellings: Sequence[str]) -> list[str]:
        keys = set(map(key_of, spellings))
        return [column for column in self.columns if key_of(column) in keys]

    def _names(self) -> str:
        return listed(list(map(str, self.columns)))

    def _remedy(self, lacking: Sequence[str]) -> str:
        if not self.typed and all(re.fullmatch(r"[-\d.,:]*", column) for column in self.columns):
            return "write a first line with the names of the columns"
        if not self.typed and len(self.columns) == 1:
            return f"name a column {lacking[0]}, or give --separator"
        given, named = " ".join(f"{name}=COLUMN" for name in lacking), " and ".join(lacking)
        if len(lacking) == 1:
            return f"name one of them {named}, or give --columns {given}"
        return f"name columns {named}{'' if self.typed else ' in the first line'}, or give --columns {given}"


def listed(names: Sequence[str]) -> str:
    """The first of these names in a line, or ``none``."""
    return (", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)) or "none"


def key_of(name: str) -> str:
    """A name without capitals, blanks, ``_`` and ``-``."""
    return re.sub(r"[\W_]+", "", name).casefold()
