"""What arrays of a file of ours must be: shapes, types and ranges, as :mod:`pyro_cvae.checks` is for JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pyro_cvae.checks import REMEDY
from pyro_cvae.errors import InputError

_BLOCK = 2**22


@dataclass(frozen=True)
class Array:
    """What an array must be.

    Parameters:
        shape: Sizes, ``None`` where any will do.
        kinds: Names of types that it may have.
        low, high: Least and largest value.
        finite: Whether all values are finite numbers.
    """

    shape: tuple[int | None, ...]
    kinds: tuple[str, ...] = ("float32", "float64")
    low: float = -math.inf
    high: float = math.inf
    finite: bool = True


def check_arrays(
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, Array],
    path: str | os.PathLike[str] | None,
    optional: Iterable[str] = (),
) -> None:
    """InputError naming the file and the first array that is missing, or not what ``expected`` says of its name."""
    for name, wanted in expected.items():
        if name not in arrays:
            if name not in optional:
                raise InputError(f"holds no {name}", REMEDY, path=path)
            continue
        problem = _problem(arrays[name], wanted)
        if problem:
            raise InputError(f"{name} {problem}", REMEDY, path=path)


def _problem(array: np.ndarray, wanted: Array) -> str:
    """What is wrong with an array, or nothing."""
    if array.dtype.name not in wanted.kinds:
        return f"is of type {array.dtype.name}, not {' or '.join(wanted.kinds)}"
    right = len(array.shape) == len(wanted.shape)
    if not right or any(size not in (None, found) for size, found in zip(wanted.shape, array.shape, strict=True)):
        sizes = ", ".join("any" if size is None else str(size) for size in wanted.shape)
        return f"has shape {tuple(array.shape)}, not ({sizes})"
    flat = array.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        part = flat[start : start + _BLOCK]
        if part.dtype.kind == "f" and wanted.finite and not np.isfinite(part).all():
            return "has a number that is not finite"
        if part.dtype.kind in "iuf" and ((part < wanted.low) | (part > wanted.high)).any():
            return f"has a number outside of {wanted.low:g} to {wanted.high:g}"
    return ""
