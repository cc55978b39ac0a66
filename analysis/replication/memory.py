"""Peak memory of one fit among many in a process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

_PROCESS = Path("/proc/self")


def reset_peak() -> None:
    """Begin to look for the peak anew, where the system lets one (Linux)."""
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_mib() -> float:
    """Peak memory in MiB since :func:`reset_peak`; what the process takes now, where the system keeps no peak."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return psutil.Process().memory_info().rss / 2**20
