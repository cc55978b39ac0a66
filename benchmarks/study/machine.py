"""What else the machine did meanwhile, and what a process took of it; nothing heavy is imported here."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


class Load:
    """The load average since this was made, as the text under a table of times."""

    def __init__(self) -> None:
        self.began = os.getloadavg()[0]

    def told(self, threads: int) -> str:
        """Threads, cores, and the load average at the start and now."""
        load = f"load average {self.began:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"
        return f"{threads or os.cpu_count()} thread(s) on {os.cpu_count()} cores, {load}"


def forget_peak() -> None:
    """Let :func:`peak_since_mib` begin anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_since_mib() -> float:
    """Peak memory of this process in MiB since :func:`forget_peak`, or ever, where the system cannot begin anew."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return peak_mib()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_mib() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
