"""The names beside each other: ``<out>``, ``<out>.partial`` while it is written, an old run moved aside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from pyro_cvae.errors import InputError
from pyro_cvae.runs.disk import NO_ACCESS, lock, remove, remove_run, unlock, writing


def absolute(path: str | os.PathLike[str]) -> Path:
    """Absolute, so that a later ``os.chdir`` cannot move the end of a long fit elsewhere."""
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InputError(f"{text!r} is no name for a run", "give another folder")
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if not path.name:
        raise InputError("is no name for a run", "give another folder", path=path)
    return path


def partial_of(out: Path) -> Path:
    """The folder in which the run ``out`` is written."""
    return out.with_name(out.name + ".partial")


def aside_of(out: Path) -> Path:
    """The name under which this process moves an old run aside to put a new one in its place."""
    return out.with_name(f"{out.name}.old-pid{os.getpid()}")


def moved_aside(out: Path) -> list[Path]:
    """Old runs that a killed process had moved aside to put a new one in their place; the newest first."""
    pattern = re.compile(re.escape(out.name) + r"\.old-pid\d+")
    try:
        old_runs = [entry for entry in out.parent.iterdir() if pattern.fullmatch(entry.name)]
        return sorted(old_runs, key=lambda entry: entry.lstat().st_mtime_ns, reverse=True)
    except OSError:
        return []


def folder_of(path: str | os.PathLike[str]) -> Path:
    """The folder of a finished run, as far as names tell; InputError where there is none, or none that is finished."""
    path = _where_it_is(absolute(path))
    if not path.is_dir():
        raise InputError("is a file, no run folder", "give the folder that a fit command left", path=path)
    if not os.path.lexists(path / "manifest.json"):
        raise InputError(
            "is no run folder (no manifest.json)", "give the folder that a fit command left, all of it", path=path
        )
    return path


def check_runs(paths: Iterable[str | os.PathLike[str]]) -> None:
    """InputError for the first that is no finished run: what a command asks before it imports anything heavy."""
    for path in paths:
        folder_of(path)


def _where_it_is(path: Path) -> Path:
    """The path of a run, or where a killed process has left the whole old run; InputError where none is finished."""
    if path.name.endswith(".partial") and path.is_dir():
        out = path.with_name(path.name.removesuffix(".partial"))
        raise InputError("this run is not finished", f"go on with --resume --out {out}", path=path)
    if os.path.lexists(path):
        return path
    old_runs = [old for old in moved_aside(path) if (old / "manifest.json").is_file()]
    if old_runs:  # killed between the two renames of a swap: the old run is whole, beside its place
        return old_runs[0]
    if partial_of(path).is_dir():
        raise InputError("this run is not finished", f"go on with --resume --out {path}", path=partial_of(path))
    raise InputError("there is no such run folder", "check the path", path=path)


def settle(out: Path) -> None:
    """Undo a swap that was cut short: with nothing at ``out`` the old run goes back, else it was replaced and goes."""
    for old in moved_aside(out):
        if (old / "manifest.json").is_file() and not os.path.lexists(out):
            os.rename(old, out)
        else:
            remove_run(old)


def is_ours(folder: Path) -> bool:
    """Whether ``--overwrite`` may replace it: a run folder, whole or begun, or an empty folder; never anything else."""
    if not folder.is_dir():
        return False
    names = set(os.listdir(folder))
    return bool(names & {"manifest.json", "writer.json"}) or names <= {".writer.json.new"}


def make_room(out: Path, overwrite: bool) -> None:
    """Check that a run may begin at ``out``; remove the remains of earlier ones if they may go."""
    partial = partial_of(out)
    if re.search(r"\.partial$|\.old-pid\d+$", out.name):
        raise InputError("is no name for a run", "choose another --out", path=out)
    with writing(out):
        _make_parent(out)
        for folder in (out, partial):
            if os.path.lexists(folder) and not is_ours(folder):
                raise InputError("exists and is no run folder", "choose another --out", path=folder)
        if partial.exists():
            if not overwrite:
                raise InputError(
                    "an unfinished run is here", "go on with --resume, or start anew with --overwrite", path=partial
                )
            lock(partial)
            remove(partial, last="writer.json")  # by which it is known as ours, if this is cut short
            unlock(partial)
        settle(out)
        if out.exists() and not overwrite:
            raise InputError("exists", "give --overwrite to replace it, or another --out", path=out)


def _make_parent(out: Path) -> None:
    """Make the folder that ``out`` is to lie in; InputError where nothing can be written there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        wrong = next(parent for parent in (out.parent, *out.parents) if parent.exists())
        raise InputError("is a file, no folder", "choose another --out", path=wrong) from None
    except OSError as error:
        if error.errno in NO_ACCESS:
            raise InputError("cannot be made (no permission)", "choose another --out", path=out.parent) from None
        raise
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise InputError("is not writable", "check the permissions, or choose another --out", path=out.parent)
