"""Threads of a process take turns at what it has one of.

Pyro's stack of handlers, torch's seed, floating-point type and kernels are the process's, not a thread's. Two fits at
once in two threads would write into one trace.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TURN = threading.RLock()


@contextmanager
def in_turn() -> Iterator[None]:
    """One thread alone is within, here and in every other such block; it may enter again. Also a decorator."""
    with _TURN:
        yield
