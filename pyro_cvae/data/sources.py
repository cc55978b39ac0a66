"""Where a further content of the items comes from: ``NAME[=[KIND:]PATH]``, read without any heavy import."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

from pyro_cvae.errors import InputError
from pyro_cvae.kinds import SourceKind, TextKind

_NAME = re.compile("[A-Za-z][A-Za-z0-9_-]*").fullmatch
_KIND = re.compile("([A-Za-z][A-Za-z0-9_-]+):(.*)", re.DOTALL).fullmatch  # a single letter is a drive


@dataclass(frozen=True)
class Source:
    """One further content.

    Parameters:
        name: What it is called.
        kind: How it is read, or ``None``: told from the path.
        path: Its file or folder, or ``None``: the data set itself has it (a column of a table, titles, tags).
    """

    name: str
    kind: SourceKind | None = None
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """From ``NAME``, ``NAME=PATH``, ``NAME=KIND:PATH`` or ``NAME=KIND:``; InputError for anything else."""
        name, given, rest = text.partition("=")
        check_name(name)
        found = _KIND(rest)
        kind: Any  # checked below
        kind, path = found.groups() if found else (None, rest)
        if kind is not None and kind not in get_args(SourceKind):
            raise InputError(
                f"--contents {text}: there is no kind {kind!r}",
                f"use one of {', '.join(get_args(SourceKind))}, which a path with a colon needs in front",
            )
        if given and not path and kind is None:
            raise InputError(f"--contents {text}: the path is missing", f"write {name}=PATH, or {name} alone")
        if not path and kind not in (None, *get_args(TextKind)):
            raise InputError(f"--contents {text}: {kind} need a path", f"write {name}={kind}:PATH")
        return cls(name, kind, path or None)


def parse_all(texts: Iterable[str]) -> tuple[Source, ...]:
    """All of ``--contents``; InputError for a name that is there twice."""
    sources = tuple(Source.parse(text) for text in texts)
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--contents has {name} twice", "give each content its own name")
    return sources


def check_name(name: str) -> None:
    """Raise InputError unless a content may be called so: letters, digits, ``_``, ``-``, and not ``text``."""
    if name == "text" or not (isinstance(name, str) and _NAME(name)):
        remedy = "use letters, digits, _ and -, a letter first; text is the items' own"
        raise InputError(f"a content cannot be called {name!r}", remedy)
