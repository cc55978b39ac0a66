"""Do the methods of a plug-in take what the package calls them with?"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pyro_cvae.errors import InputError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_methods(cls: type[Any], base: type[Any]) -> None:
    """InputError for the first public method of ``base`` that ``cls`` has with parameters which do not fit a call.

    A call has all positional parameters of the base's method, or those without a default alone. Constructors and what
    ``base`` has from torch and Pyro are not looked at.
    """
    package = __name__.partition(".")[0]
    for name, theirs in inspect.getmembers(base, inspect.isfunction):
        own = getattr(cls, name)
        if name.startswith("_") or own is theirs or theirs.__module__.partition(".")[0] != package:
            continue
        bound = not isinstance(inspect.getattr_static(base, name), staticmethod)
        called = [p for p in inspect.signature(theirs).parameters.values() if p.kind in _POSITIONAL][bound:]
        given = [p.name for p in called if p.default is p.empty]
        itself = bound and not isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod)
        if not any(_takes(own, itself + len(names)) for names in (called, given)):
            problem = (
                f"{cls.__name__}.{name} does not take what it is called with, ({', '.join(p.name for p in called)})"
            )
            raise InputError(problem, f"give it the parameters of {base.__name__}.{name}")


def _takes(method: Callable[..., Any], n: int) -> bool:
    """Whether a call with so many arguments fits; of what has no signature nothing is known, and it does."""
    try:
        inspect.signature(method).bind(*[None] * n)
    except TypeError:
        return not callable(method)
    except ValueError:
        return True
    return True
