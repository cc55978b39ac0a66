"""Checks of options: one line that names the flag, its value and what it must be."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pyro_cvae.errors import InputError


def check(ok: bool, flag: str, value: object, must: str) -> None:
    """InputError unless it is so."""
    if not ok:
        raise InputError(f"--{flag.replace('_', '-')} is {value!r}, but it must be {must}")


def choice(flag: str, value: str, choices: Collection[str]) -> None:
    """InputError unless the value is one of these."""
    check(value in choices, flag, value, "one of " + ", ".join(choices))


def check_words(options: Any) -> None:
    """InputError where a field of a dataclass, by its type a ``Literal`` or several, has a value that is none of it."""
    for name, hint in get_type_hints(type(options)).items():
        value, kind = getattr(options, name), get_args(hint)[0] if get_origin(hint) is tuple else hint
        if get_origin(kind) is Literal:
            for one in value if isinstance(value, tuple) else (value,):
                choice(name, one, get_args(kind))


def check_least(options: object, least: Mapping[str, int]) -> None:
    """InputError for the first of some options that is below its least value; ``None`` is not given, and is right."""
    for name, bound in least.items():
        value = getattr(options, name)
        check(value is None or value >= bound, name, value, f"at least {bound}")


def check_seed(seed: int) -> None:
    """InputError unless numpy and torch take the seed, and the ones that follow from it."""
    check(0 <= seed < 2**62, "seed", seed, "0 or more and below 2^62")


def check_cutoffs(cutoffs: Collection[int]) -> None:
    """InputError unless these can be the M of recall@M."""
    given = " ".join(map(str, cutoffs))
    check(bool(cutoffs) and min(cutoffs) >= 1, "cutoffs", given, "one or more numbers of 1 or more")


def check_file(flag: str, path: str | None, *endings: str) -> None:
    """InputError where a file to be made, if any is, has another ending or is in a folder that does not exist."""
    if path is not None:
        if Path(path).suffix not in endings:
            name = flag.replace("_", "-")
            raise InputError(f"--{name} is {path!r}, but it must end in {' or '.join(endings)}")
        check_parent(flag, path)


def check_parent(flag: str, path: str) -> None:
    """InputError where the folder that a file or folder is to be made in does not exist."""
    if not Path(path).absolute().parent.is_dir():
        raise InputError(f"--{flag.replace('_', '-')}: no such folder", "make it first", path=Path(path).parent)


def check_new(path: Path, overwrite: bool) -> None:
    """InputError where what ``--out`` names exists and may not be replaced."""
    if path.exists() and not overwrite:
        raise InputError("exists already", "choose another --out, or replace it with --overwrite", path=path)
