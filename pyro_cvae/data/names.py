"""Data sets that have a name, and whether there is what another one is called; no heavy import here."""

from __future__ import annotations

import os
from pathlib import Path

from pyro_cvae.errors import InputError

NAMES = ("simulated", "simulated-gaussian", "simulated-stars", "citeulike-t", "citeulike-a")
"""The names that :func:`pyro_cvae.data.registry.load_dataset` takes, besides paths."""


def check_there(data: str | os.PathLike[str], items: str | os.PathLike[str] | None = None) -> None:
    """InputError where ``data`` is neither a name nor a path of what exists, or where there is no file ``items``."""
    path = Path(data)
    if os.fspath(data) not in NAMES and not path.exists():
        if path.suffix:
            raise InputError("no such file", "check the path", path=path)
        remedy = f"use one of {', '.join(NAMES)}, or the path of a folder or file"
        raise InputError("no such data set", remedy, path=path)
    if items is not None and not Path(items).exists():
        raise InputError("no such file", "check the path", path=items)
