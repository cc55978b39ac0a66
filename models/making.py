"""Plug-ins by name or class path: models, networks, likelihoods of contents and of ratings."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any, Self

from pyro_cvae.errors import InputError
from pyro_cvae.trust import import_named


class Remembered:
    """Remembers its constructor's arguments, by which a run folder makes the same again."""

    made_with: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """The instance, with the arguments by name."""
        made = super().__new__(cls)
        made.__dict__["made_with"] = _bound(cls, args, kwargs)
        return made


def _bound(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a constructor by name, those of ``**`` among them."""
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    try:
        found = dict(signature.bind(None, *args, **kwargs).arguments)
    except TypeError:  # the constructor says it better; a copy comes by here without arguments
        return {}
    found.pop(next(iter(signature.parameters)), None)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= found.pop(name, {})
    return found


def path_of(names: Mapping[str, str], cls: type[Any], base: type[Any], what: str) -> str:
    """The package's own name of a class, or its path; the inverse of :func:`class_of`.

    Raises InputError for a class that is no ``base``, or that no path names.
    """
    if not issubclass(cls, base):
        raise InputError(
            f"{cls.__name__} is no {base.__name__}",
            f"derive it from {base.__module__.removesuffix('.base')}.{base.__name__}",
        )
    if "<locals>" in cls.__qualname__:
        raise InputError(f"the class {cls.__name__} is defined inside a function", "define it in a module")
    path = f"{cls.__module__}.{cls.__qualname__}"
    return next((own for own, where in names.items() if where.replace(":", ".") == path), path)


def class_of(names: Mapping[str, str], name: str, base: type[Any], what: str) -> type[Any]:
    """The package's own class of that name in the table ``names``, or that of a path ``module.Class``.

    Raises InputError where there is none, it is no ``base``, or it was read from a run folder and is not trusted
    (:mod:`pyro_cvae.trust`); ``what`` ("content likelihood", "model") is for the message.
    """
    path = names.get(name, name)
    module, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        if module == "__main__" and not hasattr(sys.modules[module], attribute):
            raise AttributeError(attribute)
        found = import_named(path, names.values())
    except InputError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        if module == "__main__":
            problem = f"the {what} {attribute} was defined in a notebook or a program that is not at hand"
            raise InputError(problem, "move the class into a module, and fit again") from error
        problem = f"unknown {what} {name!r} ({error})"
        raise InputError(problem, "use a class path or " + ", ".join(names)) from error
    except Exception as error:  # whatever a module of somebody's own does when it is imported
        raise InputError(f"importing {module} failed: {type(error).__name__}: {error}", "mend that module") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            f"{name} is no {base.__name__}", f"derive it from {base.__module__.removesuffix('.base')}.{base.__name__}"
        )
    return found


def _public(base: type[Any]) -> str:
    """Where a base class is to be imported from."""
    return f"{base.__module__.removesuffix('.base')}.{base.__name__}"


def made(names: Mapping[str, str], name: str, arguments: Mapping[str, Any], base: type[Any], what: str) -> Any:
    """An instance of :func:`class_of`, made with these arguments; InputError where it does not take them."""
    cls = class_of(names, name, base, what)
    try:
        return cls(**arguments)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"{name}: {error}", "give the arguments that its constructor takes") from error
