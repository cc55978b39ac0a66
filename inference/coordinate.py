"""Closed-form coordinate ascent: ``python -m inference.coordinate --mode map|bayes``.

The algorithm, ``Coordinate``, is in :mod:`inference.algorithms.coordinate` and is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from inference.fit_command import run_fit

if TYPE_CHECKING:
    from inference.algorithms.coordinate import Coordinate

__all__ = ["Coordinate", "main"]


def main() -> int:
    """Fit by the options of the command line; returns the exit code."""
    return run_fit("coordinate")


def __getattr__(name: str) -> Any:
    if name == "Coordinate":
        from inference.algorithms.coordinate import Coordinate

        return Coordinate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    raise SystemExit(main())
