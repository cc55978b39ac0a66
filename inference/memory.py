"""What the C library does with memory that is free again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's ``mallopt``."""


def keep_free_memory() -> bool:
    """Free memory stays with this process, and no block is mapped anew; whether the C library could be told so.

    A step of a fit takes and frees blocks of tens of MiB. By default glibc maps each of these anew, and the kernel
    clears it page by page as it is first written: a third of a training step of ``--preset best``
    (``docs/benchmarks.md``). It is glibc alone that is told, under Linux. This is for commands, which own their
    process, not for a library in somebody else's. Source: mallopt(3).
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
