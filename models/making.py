"""Plug-ins by name or class path: models, networks, likelihoods of contents and of ratings."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any, Self

from models.catalogue import PLUGINS
from models.signatures import check_methods
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


def path_of(field: str, cls: type[Any]) -> str:
    """The package's own name of a class, or its path; the inverse of :func:`class_of`.

    Raises InputError for a class that is none of this kind, or that no path names.
    """
    if not issubclass(cls, base_of(field)):
        raise _no_kind(cls.__name__, field)
    check_methods(cls, base_of(field))
    if "<locals>" in cls.__qualname__:
        raise InputError(f"the class {cls.__name__} is defined inside a function", "define it in a module")
    path = f"{cls.__module__}.{cls.__qualname__}"
    return next((own for own, facts in PLUGINS[field].own.items() if facts.path.replace(":", ".") == path), path)


def class_of(field: str, name: str) -> type[Any]:
    """The package's own class of that name, or that of a path ``module.Class``, for a field of the catalogue's PLUGINS.

    Raises InputError where there is none, it is of another kind, a method does not take what it is called with, or it
    was read from a run folder and is not trusted (:mod:`pyro_cvae.trust`).
    """
    own, what = PLUGINS[field].own, field.replace("_", " ")
    path = own[name].path if name in own else name
    module, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        if module == "__main__" and not hasattr(sys.modules[module], attribute):
            raise AttributeError(attribute)
        found = import_named(path, (facts.path for facts in own.values()))
    except InputError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        if module == "__main__":
            problem = f"the {what} {attribute} was defined in a notebook or a program that is not at hand"
            raise InputError(problem, "move the class into a module, and fit again") from error
        problem = f"unknown {what} {name!r} ({error})"
        raise InputError(problem, "use a class path or " + ", ".join(own)) from error
    except Exception as error:  # whatever a module of somebody's own does when it is imported
        raise InputError(f"importing {module} failed: {type(error).__name__}: {error}", "mend that module") from error
    if not (isinstance(found, type) and issubclass(found, base_of(field))):
        raise _no_kind(name, field)
    check_methods(found, base_of(field))
    return found


def base_of(field: str) -> type[Any]:
    """The class that all plug-ins of a field derive from."""
    base = PLUGINS[field].base
    return import_named(base, [base])


def _no_kind(name: str, field: str) -> InputError:
    base = PLUGINS[field].base.replace(":", ".")
    return InputError(f"{name} is no {base.rpartition('.')[2]}", f"derive it from {base}")


def made(field: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """An instance of :func:`class_of`, made with these arguments; InputError where it does not take them."""
    cls = class_of(field, name)
    try:
        return cls(**arguments)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"{name}: {error}", "give the arguments that its constructor takes") from error
