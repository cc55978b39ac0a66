"""Safe writing: no file under its final name is ever half written, and what goes wrong is told in one line."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from pyro_cvae.errors import InputError, MachineError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors of a full disk."""
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Numbers of errors of missing permissions."""
_locks: dict[Path, int] = {}  # open descriptors of the folders that this process writes


@contextmanager
def writing(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn what goes wrong while writing ``path`` into one line: a :class:`MachineError` that names it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None:  # safetensors and pyarrow give the number in their text only
            in_text = re.search(r"(?:os error|Errno) (\d+)", str(error))
            number = int(in_text[1]) if in_text else 0
        if number in NO_SPACE:
            remedy = "free some space; a run that was begun goes on with --resume"
        elif number in NO_ACCESS:
            remedy = "check the permissions, or choose another --out"
        reason = os.strerror(number) if number else str(error)
        raise MachineError(f"cannot be written ({reason})", remedy, path=path) from error


def sync(path: Path) -> None:
    """Have the operating system put a file or folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, save: Callable[[Path], object]) -> None:
    """Have ``save`` write a file under a temporary name, sync it to disk and rename it to ``path``."""
    temporary = path.with_name(f".{path.name}.new")
    with writing(path):
        try:
            save(temporary)
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


def files_in(folder: Path) -> list[Path]:
    """All files below a folder."""
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names]


def remove(path: Path, last: str = "") -> None:
    """Delete what is waste, as far as that can be done; of a folder, the file ``last`` goes last."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return
    if last:
        for entry in path.iterdir():
            if entry.name != last:
                remove(entry)
    shutil.rmtree(path, ignore_errors=True)


def remove_run(folder: Path) -> None:
    """Delete a run; if that is cut short, what is left is no run."""
    if not folder.is_symlink():
        remove(folder / "manifest.json")
    remove(folder)


def lock(folder: Path) -> None:
    """Hold the folder until this process ends, however it ends; no lock where the file system knows none.

    Raises InputError where another process holds it.
    """
    import fcntl

    unlock(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            "another process is writing this run", "wait until it ends, or choose another --out", path=folder
        ) from None
    except OSError:
        pass
    _locks[folder] = descriptor


def unlock(folder: Path) -> None:
    """Let go of a folder that :func:`lock` holds; nothing where it holds none."""
    descriptor = _locks.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)
