"""Numbers in the units of the data as texts: whatever scale these have, no digit that says something is lost."""

from __future__ import annotations

from collections.abc import Iterable

IN_UNITS = frozenset({"rmse", "mae", "squared_error", "absolute_error"})
"""Metrics in the units of the ratings, or in their squares."""
LARGE = 1e12


def largest(values: Iterable[float | None]) -> float:
    """The largest size among numbers, those that are missing left out; 0 of none."""
    return max((abs(value) for value in values if value is not None and value == value), default=0.0)


def number(value: float, decimals: int = 3, size: float | None = None, sign: str = "") -> str:
    """A number with so many decimals, or with a power of ten where these would show less than two digits of ``size``.

    ``size`` is that of the largest number that stands beside it, by default its own; ``sign`` "+" shows the sign of
    all. What is no number is "-".
    """
    if value != value:
        return "-"
    size = abs(value) if size is None else size
    powers = 0 < size < 10.0 ** (1 - decimals) or LARGE <= size < float("inf")
    return f"{value:{sign}.3e}" if powers else f"{value:{sign}.{decimals}f}"


def plus_minus(value: str, error: str) -> str:
    """A value with its standard error, without one that is not known."""
    return value if error == "-" else f"{value} ± {error}"


def metric(name: str, value: float, decimals: int = 4, size: float | None = None, sign: str = "") -> str:
    """A metric as :func:`number` has it where it is one of :data:`IN_UNITS`, else with so many decimals."""
    return number(value, decimals, (size if name.lower() in IN_UNITS else 1.0), sign)
