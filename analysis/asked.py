"""What the options of several commands must be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyro_cvae.errors import InputError


def check_least(options: object, least: Mapping[str, int]) -> None:
    """InputError for the first of some options that is below its least value; ``None`` is not given, and is right."""
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and value < bound:
            raise InputError(f"--{name.replace('_', '-')} is {value}, but it must be at least {bound}")


def check_parent(flag: str, path: str) -> None:
    """InputError where the folder that a file or folder is to be made in does not exist."""
    if not Path(path).absolute().parent.is_dir():
        raise InputError(f"--{flag}: no such folder", "make it first", path=Path(path).parent)
