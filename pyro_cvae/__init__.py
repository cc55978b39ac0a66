"""What everybody speaks of: data sets, splits, metrics, errors and run folders."""

import os as _os
import sys as _sys
from importlib import util as _util


def run_folder_above(place: str) -> str | None:
    """The run folder, finished or not, that a file or folder lies in or is, by its name or where its links lead."""
    for path in (_os.path.abspath(place), _os.path.realpath(place)):
        while True:
            if any(_begins_like_ours(_os.path.join(path, name)) for name in ("manifest.json", "writer.json")):
                return path
            path, before = _os.path.dirname(path), path
            if path == before:
                break
    return None


def _begins_like_ours(file: str) -> bool:
    if not _os.path.isfile(file):
        return False
    try:
        with open(file, "rb") as stream:
            head = stream.read(2**16)
    except OSError:
        return True
    return b'"sha256"' in head or b'"overwrite"' in head


# Python looks for modules in the current folder too: where that lies in a run folder, nothing is imported from it. What
# came before this line is only what Python itself loads when it starts.
_sys.path[:] = [place for place in _sys.path if run_folder_above(place or _os.curdir) is None]


OURS = ("models", "inference", "analysis")
"""Packages beside this one, whose names others have too."""


def _hiding(name: str, ours: str) -> str | None:
    """The file or folder of somebody else that hides a package of ours, or ``None``."""
    module = _sys.modules.get(name)
    spec = _util.find_spec(name) if module is None else module.__spec__
    if spec is None:
        return None if module is None else str(getattr(module, "__file__", module))
    places = list(spec.submodule_search_locations or [])
    if any(_os.path.realpath(place) == _os.path.realpath(ours) for place in places):
        return None
    return places[0] if places else str(spec.origin)


def _find_ours() -> None:
    """Packages of ours whose names are common: a folder ``models`` in the current one may hide them.

    A command takes ours. A program may want its own, so that it is told: ImportError.
    """
    root = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))
    for name in OURS:
        ours = _os.path.join(root, name)
        hiding = _hiding(name, ours)
        if hiding is None:
            continue
        if name in _sys.modules or _sys.argv[:1] != ["-m"]:
            problem = f"{hiding} hides pyro-cvae's package {name}"
            raise ImportError(f"{problem}: give it another name, or start Python in another folder")
        spec = _util.spec_from_file_location(name, _os.path.join(ours, "__init__.py"))
        assert spec is not None and spec.loader is not None
        _sys.modules[name] = module = _util.module_from_spec(spec)
        spec.loader.exec_module(module)


_find_ours()
