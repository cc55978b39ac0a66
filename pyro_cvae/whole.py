"""A file, or a folder, that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_cvae.errors import InputError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name of the same ending to write to; at the end it becomes ``path``, which so appears whole or not at all."""
    path = Path(path)
    new = path.with_name(f".new-{path.name}")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def whole_folder(out: str | os.PathLike[str], overwrite: bool, ours: Collection[str]) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` at the end, whole or not at all.

    Raises InputError, before anything is done, where ``out`` cannot be made there or exists, and with ``overwrite``
    where it holds anything but the files named in ``ours``.
    """
    target = Path(os.path.abspath(os.path.expanduser(os.fspath(out))))
    if os.path.lexists(target):
        if not overwrite:
            raise InputError("exists already", "choose another --out, or replace it with --overwrite", path=out)
        if not target.is_dir() or target.is_symlink() or {entry.name for entry in target.iterdir()} - set(ours):
            raise InputError("is not a folder of this command", "choose another --out", path=out)
    if not target.parent.is_dir():
        raise InputError("--out: no such folder", "make it first", path=target.parent)
    new, old = (target.with_name(f".{target.name}.{word}-pid{os.getpid()}") for word in ("new", "old"))
    new.mkdir()
    try:
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
