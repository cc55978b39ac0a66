"""The one way in for strangers' files: a regular file, at most so many bytes, opened once.

What is opened is looked at first: a pipe would wait for ever, a device has no end, and what a small file unpacks to can
be larger than the machine. Everything that is wrong is an :class:`InputError` that names the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pyro_cvae import limits
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

PathLike = str | os.PathLike[str]

LARGEST_UNPACKED = 2**29
"""Bytes above which a packed file must not unpack to more than ``LARGEST_RATIO`` times its own."""
LARGEST_RATIO = 8.0
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


@contextmanager
def readable(path: PathLike) -> Iterator[None]:
    """Turn what goes wrong while opening a file into an InputError: missing, a folder, unreadable."""
    try:
        yield
    except FileNotFoundError:
        raise InputError("no such file", "check the path", path=path) from None
    except (IsADirectoryError, NotADirectoryError):
        raise InputError("this is not a file", "give the path of a file", path=path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read ({reason})", "check that it is a readable file", path=path) from None


@contextmanager
def opened(path: PathLike, most: int | None = None) -> Iterator[BinaryIO]:
    """A regular file of at most ``most`` bytes, open for reading; by default at most what the memory holds.

    Raises InputError for anything else, at once, and MachineError for more than the memory that is free.
    """
    with readable(path):
        _check_regular(path, os.stat(path))  # opening a pipe or a device would be too late
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        _check_regular(path, status)
        if most is not None and status.st_size > most:
            problem = f"has {counted(status.st_size, 'byte')}, and at most {most:,} are read"
            raise InputError(problem, "check that it is the right file", path=path)
        yield stream


def read_bytes(path: PathLike, most: int | None = None) -> bytes:
    """The bytes of a regular file; see :func:`opened`."""
    with opened(path, most) as stream, readable(path):
        size = os.fstat(stream.fileno()).st_size
        limits.check_memory(size, f"reading {os.fspath(path)}", "use a smaller file")
        raw = stream.read(size + 1)
    if len(raw) != size:
        raise InputError("changed while it was read", "wait until it is written, then try again", path=path)
    return raw


def check_unpacked(path: PathLike, packed: int, unpacked: int, remedy: str) -> None:
    """InputError where ``packed`` bytes would become so many more that nobody's data are like that."""
    if unpacked > max(LARGEST_UNPACKED, LARGEST_RATIO * packed):
        problem = f"would unpack from {limits.in_words(packed)} to {limits.in_words(unpacked)}"
        raise InputError(problem, remedy, path=path)
    limits.check_memory(unpacked, f"unpacking {os.fspath(path)}", remedy)


def _check_regular(path: PathLike, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise InputError("this is not a file", "give the path of a file", path=path)
    if kind != stat.S_IFREG:
        raise InputError(f"is {_KINDS.get(kind, 'no file')}, not a regular file", "write it to a file first", path=path)
