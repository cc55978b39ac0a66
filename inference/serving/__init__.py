"""A fit as a service: lists, similar items, new users and items, and reasons, by HTTP and as one small page.

Importing the package is light. Its name ``create_app`` brings torch and the packages of the extra ``serve``.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pyro_cvae.errors import MachineError

if TYPE_CHECKING:
    from inference.serving.app import create_app

__all__ = ["check_installed", "create_app"]

NEEDED = ("fastapi", "uvicorn")


def check_installed() -> None:
    """MachineError with the line for pip where a package of the extra ``serve`` is not installed."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        problem = f"inference.serve needs the package{'s' * (len(missing) > 1)} {' and '.join(missing)}"
        raise MachineError(problem, f"install with: pip install {' '.join(missing)}")


def __getattr__(name: str) -> Any:
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_installed()
    from inference.serving.app import create_app

    return create_app
