"""Values of a file, a flag or a keyword in the types that option dataclasses name."""

from __future__ import annotations

import argparse
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentParser

from inference.commands.options import Option, alternatives, option_of
from pyro_cvae.errors import InputError, shown


def typed(option: Option, value: Any, path: str | None = None, line: int | None = None) -> Any:
    """A value of a file, a flag or a keyword in the field's type, by jsonargparse's rules (``1e-3`` is a number).

    Raises InputError, with the place, for a value of another type.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=option.hint)
    try:
        parsed = parser.parse_object({"value": value}).value
        elements = parsed if isinstance(parsed, list | tuple) else [parsed]
        if None in elements and NoneType not in get_args(option.hint):  # jsonargparse takes null for anything
            raise ValueError("null")
        return parsed
    except (argparse.ArgumentError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        must = must_be(option.hint)
        quote = " in quotes" if must == "a text" and not isinstance(value, list | dict | NoneType) else ""
        raise InputError(
            f"{option.name} is {shown(value)}, but it must be {must}{quote}", path=path, line=line
        ) from None


def read_value(option_classes: tuple[type, ...], name: str, text: str) -> Any:
    """The value of an option from the text that stands after its flag; InputError for a wrong name or type."""
    option = option_of(option_classes, name)
    words: Any = text.split() if option.element is not None else text
    return typed(option, words)


def must_be(hint: Any) -> str:
    """A type in words: ``a whole number``."""
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if len(kinds := alternatives(hint)) > 1 or kinds[0] is not hint:
        return " or ".join(must_be(kind) for kind in kinds)
    if origin is tuple:
        return "a list, each " + must_be(get_args(hint)[0])
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "a mapping"}
    return words.get(origin or hint, f"a {getattr(hint, '__name__', hint)}")
