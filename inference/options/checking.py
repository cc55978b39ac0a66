"""Checks of options: one line that names the flag, its value and what it must be."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

from pyro_cvae.errors import InputError


def check(ok: bool, flag: str, value: object, must: str) -> None:
    """InputError unless it is so."""
    if not ok:
        raise InputError(f"--{flag.replace('_', '-')} is {value!r}, but it must be {must}")


def choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    """InputError unless the value is one of these."""
    check(value in choices, flag, value, "one of " + ", ".join(choices))


def check_words(options: Any) -> None:
    """InputError where a field of a dataclass, by its type a ``Literal`` or several, has a value that is none of it."""
    for name, hint in get_type_hints(type(options)).items():
        value, kind = getattr(options, name), get_args(hint)[0] if get_origin(hint) is tuple else hint
        if get_origin(kind) is Literal:
            for one in value if isinstance(value, tuple) else (value,):
                choice(name, one, get_args(kind))
