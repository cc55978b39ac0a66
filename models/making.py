"""Plug-ins by name or class path: likelihoods of contents and of ratings."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pyro_cvae.errors import InputError


def class_of(names: Mapping[str, str], name: str, base: type[Any], what: str) -> type[Any]:
    """The package's own class of that name in the table ``names``, or that of a path ``module.Class``.

    Raises InputError where there is none or it is no ``base``; ``what`` ("content", "rating") is for the message.
    """
    module, _, attribute = names.get(name, name.replace(":", ".")).replace(":", ".").rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        if module == "__main__":
            problem = f"the {what} likelihood {attribute} was defined in a notebook or a program that is not at hand"
            raise InputError(problem, "move the class into a module, and fit again") from error
        problem = f"unknown {what} likelihood {name!r} ({error})"
        raise InputError(problem, "use a class path or " + ", ".join(names)) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{name} is no {base.__name__}", f"derive it from models.{what}s.{base.__name__}")
    return found


def made(names: Mapping[str, str], name: str, arguments: Mapping[str, Any], base: type[Any], what: str) -> Any:
    """An instance of :func:`class_of`, made with these arguments; InputError where it does not take them."""
    cls = class_of(names, name, base, what)
    try:
        return cls(**arguments)
    except TypeError as error:
        raise InputError(f"{name}: {error}", "give the arguments that its constructor takes") from error
