"""What this machine has, and the refusal of what would take more, before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import psutil

from pyro_cvae.errors import MachineError

_CGROUP = Path("/sys/fs/cgroup")
_STATEMENTS = Path("/proc/self/statm")


def available_memory() -> tuple[float, float]:
    """(free, all) memory in bytes: of the machine, or what its container or the process's own limit leaves."""
    memory = psutil.virtual_memory()
    free, total = float(memory.available), float(memory.total)
    for limit, used in [*_of_container(), *_of_process()]:
        total = min(total, limit)
        free = min(free, limit - used)
    return max(free, 0.0), total


def check_memory(needed: float, what: str, remedy: str, *, free: float | None = None) -> None:
    """MachineError where ``needed`` bytes are more than are free; ``what`` would take them, ``remedy`` avoids it.

    ``free`` is by default what :func:`available_memory` says; give that of a GPU.
    """
    if needed < 2**20 and free is None:  # not worth a look
        return
    if free is None:
        free = available_memory()[0]
    if needed > free:
        raise MachineError(f"{what} would take {in_words(needed)}, and {in_words(free)} of memory are free", remedy)


def in_words(n_bytes: float) -> str:
    """A number of bytes for people: ``12 KiB``, ``3.1 GiB``."""
    size = float(n_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.0f} PiB" if size < 1e6 else "more than any machine has"


def _of_container() -> list[tuple[float, float]]:
    """(limit, used) of every control group that this process is in, of both versions."""
    found = []
    folders = {_CGROUP, _CGROUP / "memory"}
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            base = _CGROUP / "memory" if "memory" in controllers.split(",") else _CGROUP
            group = base / name.strip("/")
            folders |= {group, *(parent for parent in group.parents if base in (parent, *parent.parents))}
    except (OSError, ValueError):
        pass
    for folder in folders:
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            try:
                words = (folder / limit).read_text().strip(), (folder / used).read_text().strip()
                cache = _inactive_file(folder)
                found.append((float(words[0]), max(float(words[1]) - cache, 0.0)))
            except (OSError, ValueError):  # not there, or "max"
                continue
    return found


def _inactive_file(folder: Path) -> float:
    """Bytes of files that the kernel gives back when they are wanted; they count as used."""
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return float(value)
    return 0.0


def _of_process() -> list[tuple[float, float]]:
    """(limit, used) of the address space, where there is a limit (``ulimit -v``)."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return []
    try:
        used = int(_STATEMENTS.read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        used = 0
    return [(float(limit), float(used))]
