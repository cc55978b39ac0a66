"""Options as a command line sees them: one field of a dataclass is one flag, one key of a file, one line of help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser

from models.catalogue import PLUGINS
from pyro_cvae.errors import InputError
from pyro_cvae.text import visible

BY_FLAG_ALONE = ("trust",)
"""Fields that no file can set: whose code may run is for the person at the keyboard to say."""


@dataclass(frozen=True)
class Option:
    """One field of one option class.

    Parameters:
        name: Of the field.
        hint: Its type.
        default: Its value where none is given; ``dataclasses.MISSING`` where one must be.
        help: What the class's docstring says of it.
        owner: The class.
    """

    name: str
    hint: Any
    default: Any
    help: str
    owner: type

    @property
    def flag(self) -> str:
        """``--train-per-user`` of ``train_per_user``."""
        return flag_of(self.name)

    @property
    def required(self) -> bool:
        """True if there is no default."""
        return self.default is MISSING

    @property
    def is_number(self) -> bool:
        """True if its values are numbers; ``None`` may be one more."""
        return alternatives(self.hint) in ((int,), (float,))

    @property
    def element(self) -> Any:
        """The type of the elements of a tuple field (or ``tuple[...] | None``), otherwise ``None``."""
        return next((get_args(kind)[0] for kind in alternatives(self.hint) if get_origin(kind) is tuple), None)

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        kind = self.element or self.hint
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if choices:
            return "{" + ",".join(map(str, choices)) + "}"
        last = self.name.rsplit("_", 1)[-1].upper()
        if self.element is not None:
            return last.removesuffix("S")
        return {int: "N", float: "X"}.get(alternatives(kind)[0], last)

    def help_line(self, default: Any) -> str:
        """Its help, with the default that holds where no flag is given."""
        text = self.help
        if self.name in PLUGINS:
            text += f" {self.flag}.ARG VALUE gives its constructor an argument."
        return text if default in (MISSING, None, (), "") else f"{text} (default: {visible(_in_words(default))})"


def flag_of(name: str) -> str:
    """The flag of the field ``name``."""
    return "--" + name.replace("_", "-")


def option_table(option_classes: Iterable[type]) -> dict[str, Option]:
    """The fields of all classes by name; TypeError where two classes have a field of the same name."""
    options: dict[str, Option] = {}
    for cls in option_classes:
        style = docstring_parser.DocstringStyle.GOOGLE
        texts = {p.arg_name: p.description for p in docstring_parser.parse(cls.__doc__ or "", style=style).params}
        hints = get_type_hints(cls)
        for field in fields(cls):
            if field.name in options:
                raise TypeError(f"{cls.__name__}.{field.name} is an option of {options[field.name].owner.__name__} too")
            text = " ".join((texts.get(field.name) or "").replace("`", "").split())
            options[field.name] = Option(field.name, hints[field.name], _default(field), text, cls)
    return options


def option_of(option_classes: tuple[type, ...], name: str) -> Option:
    """The option called ``name``: its type is ``hint``, its flag ``flag``; InputError with the nearest for another."""
    options = option_table(option_classes)
    if name not in options:
        near = difflib.get_close_matches(name, options, 1)
        raise InputError(f"unknown option {name!r}", f"did you mean {near[0]!r}?" if near else "see --help")
    return options[name]


def names_of(option_classes: Iterable[type]) -> set[str]:
    """The names of the fields of all classes."""
    return {field.name for cls in option_classes for field in fields(cls)}


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a field may have, ``None`` left out."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(kind for kind in get_args(hint) if kind is not NoneType)
    return (hint,)


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
