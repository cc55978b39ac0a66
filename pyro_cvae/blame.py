"""Whose code raised an error: the package's own, or a plug-in's that the package has called."""

from __future__ import annotations

import os
import sysconfig
from functools import cache
from pathlib import Path
from traceback import walk_tb

_OWN = ("pyro_cvae", "models", "inference", "analysis", "benchmarks")
"""Packages of this project, which lie side by side."""
_DOOR = "pyro_cvae.errors"
"""Whose :func:`~pyro_cvae.errors.run_command` is around a command, and calls no plug-in."""
_plugins: set[str] = set()


def note_plugin(module: str) -> None:
    """Remember the module of a plug-in, which may be installed beside libraries."""
    _plugins.add(module.partition(".")[0])


def plugin_failure(error: BaseException) -> str | None:
    """``module.Class.method failed: Type: message`` where a plug-in's code raised it, or what that called; else None.

    The innermost call that is none of a library decides. If it is the package's own, the error is the package's. What
    the package has not called, such as a program around it, is no plug-in, and none is there before one was imported.
    """
    if not _plugins or not isinstance(error, Exception):
        return None
    error = without_shapes(error)
    method, called = None, False
    for frame, _ in walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", ""))
        if name == _DOOR:
            continue
        whose = _whose(frame.f_code.co_filename, name.partition(".")[0] in _plugins)
        if whose == "own":
            method, called = None, True
        elif whose == "plug-in" and called and method is None:
            method = f"{name}.{frame.f_code.co_qualname}"
    if method is None:
        return None
    said = next(iter(str(error).strip().splitlines()), "")
    return f"{method} failed: {type(error).__name__}" + (f": {said}" if said else "")


def without_shapes(error: BaseException) -> BaseException:
    """The error itself where Pyro has raised it again with the shapes of a trace."""
    while error.__cause__ is not None and type(error.__cause__) is type(error) and "Trace Shapes:" in str(error):
        error = error.__cause__
    return error


@cache
def _whose(file: str, is_named: bool) -> str:
    """The owner of a file: "own", "plug-in" or "library"."""
    folder = Path(__file__).absolute().parents[1]
    if any(_lies_in(file, folder / name) for name in _OWN):
        return "own"
    if is_named:
        return "plug-in"
    paths = sysconfig.get_paths()
    libraries = (paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
    return "library" if file.startswith("<") or any(_lies_in(file, place) for place in libraries) else "plug-in"


def _lies_in(file: str, folder: str | Path) -> bool:
    """Whether a file is in a folder, by their names or by where these lead."""
    pairs = (os.path.abspath(file), os.path.abspath(folder)), (os.path.realpath(file), os.path.realpath(folder))
    return any(one.startswith(place + os.sep) for one, place in pairs)
