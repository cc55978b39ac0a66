"""Stochastic variational inference over the Pyro model: ``python -m inference.svi --mode map|bayes``.

The algorithm, ``SVI``, is in :mod:`inference.algorithms.svi` and is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from inference.fit_command import run_fit

if TYPE_CHECKING:
    from inference.algorithms.svi import SVI

__all__ = ["SVI", "main"]


def main() -> int:
    """Fit by the options of the command line; returns the exit code."""
    return run_fit("svi")


def __getattr__(name: str) -> Any:
    if name == "SVI":
        from inference.algorithms.svi import SVI

        return SVI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    raise SystemExit(main())
