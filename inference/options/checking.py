"""Checks of options: one line that names the flag, its value and what it must be."""

from __future__ import annotations

from pyro_cvae.errors import InputError


def check(ok: bool, flag: str, value: object, must: str) -> None:
    """InputError unless it is so."""
    if not ok:
        raise InputError(f"--{flag.replace('_', '-')} is {value!r}, but it must be {must}")


def choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    """InputError unless the value is one of these."""
    check(value in choices, flag, value, "one of " + ", ".join(choices))
