"""What a file of ours must hold: types of JSON values, and shapes, types and ranges of arrays, checked in one place.

A run folder may come from anybody. A manifest says that its files are those that were written, not that they make
sense; these checks do, before anything is computed with them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pyro_cvae.errors import InputError

REMEDY = "the file is damaged or was made by another program: fit again or copy the folder again"

Natural = Annotated[int, (0, 2**53)]
"""A whole number, 0 or more."""
Positive = Annotated[float, (math.ulp(0), math.nextafter(math.inf, 0))]
"""A finite number above 0."""


def fits(value: Any, hint: Any) -> bool:
    """Whether a value that JSON has read is of a type: a plain one, a union, ``list[...]``, ``dict[str, ...]``, ...

    A list is taken for a tuple, a whole number for a float, a bool for nothing but a bool.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is None or hint is NoneType:
        return value is None
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if origin is Annotated:
        kind, (low, high) = arguments
        return fits(value, kind) and low <= value <= high
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and all(fits(one, arguments[0]) for one in value)
    if origin is dict or hint is dict:
        of = arguments[1] if arguments else Any
        return isinstance(value, dict) and all(isinstance(k, str) and fits(v, of) for k, v in value.items())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def check_json(
    value: Any, hints: Mapping[str, Any], path: str | os.PathLike[str], optional: Iterable[str] = ()
) -> None:
    """InputError naming the file and the first entry of a JSON object that is missing or of another type.

    ``hints`` are types by key, ``optional`` keys that may be missing; other keys are left alone.
    """
    if not isinstance(value, dict):
        raise InputError(f"is {_named(value)}, but it must be an object with {', '.join(hints)}", REMEDY, path=path)
    for key, hint in hints.items():
        if key not in value:
            if key not in optional:
                raise InputError(f"has no {key}", REMEDY, path=path)
        elif not fits(value[key], hint):
            raise InputError(f"{key} is {_named(value[key])}, which it cannot be", REMEDY, path=path)


def _named(value: Any) -> str:
    """A short word for a value: itself where it is short, else its kind."""
    kinds: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    text = repr(value) if not isinstance(value, dict | list) else ""
    return text if 0 < len(text) <= 40 else kinds.get(type(value), f"a {type(value).__name__}")
