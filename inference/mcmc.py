"""Markov chain Monte Carlo, the yardstick on small data: ``python -m inference.mcmc``.

The algorithm, ``MCMC``, is in :mod:`inference.algorithms.mcmc` and is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from inference.fit_command import run_fit

if TYPE_CHECKING:
    from inference.algorithms.mcmc import MCMC

__all__ = ["MCMC", "main"]


def main() -> int:
    """Fit by the options of the command line; returns the exit code."""
    return run_fit("mcmc")


def __getattr__(name: str) -> Any:
    if name == "MCMC":
        from inference.algorithms.mcmc import MCMC

        return MCMC
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    raise SystemExit(main())
