"""Whose code may run: the one place where a name that somebody wrote becomes an import.

A class path that the caller gives (a flag, a keyword, a file named by ``--config``) is imported. One that is read from
a run folder, or from a data set's, is imported only if the caller names it too (``--trust``, ``trust=``). Nothing is
ever imported out of a run folder. See docs/security.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_cvae import run_folder_above
from pyro_cvae.blame import note_plugin
from pyro_cvae.errors import InputError

Trust = str | Iterable[str]


@dataclass(frozen=True)
class _Opening:
    """What is being read, the innermost folder last, and the class paths that its caller has named."""

    folders: tuple[Path, ...]
    trusted: frozenset[str]


_opening: ContextVar[_Opening | None] = ContextVar("opening", default=None)


def as_paths(trust: Trust) -> tuple[str, ...]:
    """Class paths with dots (``my_module:Mine`` is ``my_module.Mine``); InputError for what is no class path."""
    paths = tuple(str(path).replace(":", ".") for path in ([trust] if isinstance(trust, str) else trust))
    for path in paths:
        if len(pieces := path.split(".")) < 2 or not all(pieces):
            raise InputError(f"--trust is {path!r}, but it must be class paths", "for instance my_module.MyLikelihood")
    return paths


@contextmanager
def only_trusted(folder: str | os.PathLike[str], trust: Trust | None = None) -> Iterator[None]:
    """While ``folder`` is read, import the class paths of ``trust`` alone, and nothing that lies in that folder.

    With ``None`` those of an enclosing call are meant, otherwise none.
    """
    outer = _opening.get() or _Opening((), frozenset())
    trusted = outer.trusted if trust is None else frozenset(as_paths(trust))
    token = _opening.set(_Opening((*outer.folders, Path(folder)), trusted))
    try:
        yield
    finally:
        _opening.reset(token)


def is_path(name: object) -> bool:
    """True for the path of a class or function, False for a name of the package's own."""
    return isinstance(name, str) and bool({".", ":"} & set(name))


def import_named(path: str, own: Iterable[str] = ()) -> Any:
    """The class, or other object, that ``module.Class`` or ``module:Class`` names.

    ``own`` are paths of the package, of which nobody is asked. Raises InputError where another was read from a folder
    and the caller does not trust it, or where its module lies in a run folder; and what the import raises (ImportError,
    AttributeError, ...).
    """
    path = path.replace(":", ".")
    module, _, name = path.rpartition(".")
    if path in (one.replace(":", ".") for one in own):
        return getattr(importlib.import_module(module), name)
    opening = _opening.get()
    if opening is not None and path not in opening.trusted:
        raise InputError(f"the run asks for {path}", f"if you trust it, add --trust {path}", path=opening.folders[-1])
    note_plugin(module)
    return getattr(_module(module, opening.folders if opening else ()), name)


def _module(name: str, folders: tuple[Path, ...]) -> Any:
    """A module, imported package by package, each after a look at where it lies."""
    pieces = name.split(".")
    for count in range(1, len(pieces) + 1):
        part = ".".join(pieces[:count])
        if not all(pieces[:count]):
            raise ModuleNotFoundError(f"No module named {part!r}", name=part)
        loaded = sys.modules.get(part)
        if loaded is None:
            spec = importlib.util.find_spec(part)
            if spec is None:
                raise ModuleNotFoundError(f"No module named {part!r}", name=part)
            places = [spec.origin, *(spec.submodule_search_locations or ())]
        else:
            places = [getattr(loaded, "__file__", None), *getattr(loaded, "__path__", ())]
        for place in places:
            run = None if place is None or part == "__main__" else run_folder_of(place, folders)
            if run is not None:
                remedy = "move the module elsewhere, once you have read it"
                raise InputError(f"{name} lies in a run folder, and no code is taken from one", remedy, path=run)
        importlib.import_module(part)
    return sys.modules[name]


def run_folder_of(place: str | os.PathLike[str], folders: Iterable[str | os.PathLike[str]] = ()) -> Path | None:
    """The run folder, finished or not, that a file lies in, by its name or by where its links lead; or ``None``.

    ``folders`` count as such whatever is in them.
    """
    known = {path for folder in folders for path in (os.path.abspath(folder), os.path.realpath(folder))}
    for path in (os.path.abspath(place), os.path.realpath(place)):
        for folder in (path, *map(str, Path(path).parents)):
            if folder in known:
                return Path(folder)
    found = run_folder_above(os.fspath(place))
    return None if found is None else Path(found)
