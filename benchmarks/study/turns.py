"""Variants that are timed in turns, so that other work on the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")


def clocked(work: Callable[[], Any]) -> float:
    """Seconds of ``work``."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(timers: Mapping[str, Callable[[], T]], turns: int, unrecorded: int = 1) -> dict[str, list[T]]:
    """What each timer measures, by name: all of them in turns, every other turn in the reverse order.

    The first ``unrecorded`` turns are not kept.
    """
    laps: dict[str, list[T]] = {name: [] for name in timers}
    for turn in range(-unrecorded, turns):
        for name in reversed(list(timers)) if turn % 2 else timers:
            lap = timers[name]()
            if turn >= 0:
                laps[name].append(lap)
    return laps


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over the turns of one's seconds over the other's: neighbours in time are compared."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))
