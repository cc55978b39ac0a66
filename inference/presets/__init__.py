"""Settings that come with the package, one YAML file each: ``--preset NAME`` and ``inference.fit(..., preset=NAME)``.

A file says how to fit, not what: it holds options of the model and of the fit, those of one method alone among them
(the other method passes them over), and neither data, mode nor run folder. Its first line, a comment, is its line of
``--help``; the comments below say where the settings are from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pyro_cvae.errors import InputError

FOLDER = Path(__file__).parent
OF_RATINGS = ("a", "b", "lambda_u", "lambda_v", "user_shrinkage", "item_shrinkage", "tune")
"""Options that a preset states for one rating likelihood: the one that it names, or else the default."""
Entry = TypeVar("Entry")


def names() -> dict[str, str]:
    """Every preset's name and first comment line, in alphabetical order."""
    files = {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}
    return {name: file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, file in files.items()}


def path(name: str) -> Path:
    """The YAML file of a preset; InputError, with the names there are, for another one."""
    if name not in names():
        raise InputError(f"there is no preset {name!r}", "use one of " + ", ".join(names()))
    return FOLDER / f"{name}.yaml"


def fitting(entries: Mapping[str, Entry], own: object, chosen: object) -> dict[str, Entry]:
    """A preset's entries without those of the likelihood ``own`` where another is ``chosen``: stars are no clicks."""
    return {name: entry for name, entry in entries.items() if own == chosen or name not in OF_RATINGS}
