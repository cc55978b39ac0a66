"""The folder of a comparison's files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from analysis.comparison.figures import draw
from analysis.comparison.result import FIGURE, Comparison
from analysis.plots import save
from inference.options.checking import check_parent
from pyro_cvae.errors import InputError


@contextmanager
def new_folder(out: str | os.PathLike[str], overwrite: bool, ours: Sequence[str]) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` at the end, whole or not at all.

    Raises InputError, before anything is done, where ``out`` exists, and with ``overwrite`` where it holds anything but
    the files named in ``ours``.
    """
    target = Path(os.path.abspath(os.path.expanduser(os.fspath(out))))
    if os.path.lexists(target):
        if not overwrite:
            raise InputError("exists already", "choose another --out, or replace it with --overwrite", path=out)
        if not target.is_dir() or target.is_symlink() or {entry.name for entry in target.iterdir()} - set(ours):
            raise InputError("is not a folder of this command", "choose another --out", path=out)
    check_parent("out", os.fspath(target))
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


def write(comparison: Comparison, folder: Path) -> None:
    """Write the frames as CSV files and the figure into a folder that exists."""
    for name, file in comparison.files.items():
        getattr(comparison, name).to_csv(folder / f"{file}.csv", index=False)
    save(draw(comparison), folder / FIGURE)
