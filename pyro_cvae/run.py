"""The run folder: what a fit leaves behind, and what everything else reads.

A fit in progress lives in ``<out>.partial/``; ``<out>/`` appears only when it is complete::

    config.json             schema version, every option, package versions, commit, fingerprints of data and split
    data/dataset, data/split    the data themselves, so that the folder needs nothing else
    posterior.safetensors   and other tensors by name
    history.csv             a row an epoch
    metrics.json            and other JSON by name
    manifest.json           SHA-256 and size of every file above; written last
    writer.json, checkpoint/    while the fit is in progress only

Three rules make it safe. A file is written under a temporary name, synced to disk and renamed: no file under its
final name is ever half written. ``<out>.partial`` becomes ``<out>`` by a rename, so that a process killed at any moment
leaves the old run or the new one, never a mixture. Nothing is pickled: tensors are safetensors, images and vectors of
the items plain ``.npy`` arrays, the rest JSON, CSV and Parquet, so that opening a run cannot execute anything.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_cvae.checks import Natural, check_json
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.history import checked_metrics, read_history
from pyro_cvae.listed import SCHEMA, Listed, check_files
from pyro_cvae.listed import check_schema as _check_schema
from pyro_cvae.listed import dump_json as _dump
from pyro_cvae.listed import read_json as _read_json
from pyro_cvae.listed import read_manifest as _read_manifest
from pyro_cvae.listed import verify as _verify
from pyro_cvae.trust import Trust, as_paths, only_trusted

if TYPE_CHECKING:
    import pandas as pd
    import torch

FREE_OPTIONS = ("out", "resume", "overwrite", "quiet", "progress", "checkpoint_seconds", "format")
"""Options that do not change the numbers of a fit, and may differ when it is resumed."""

_PACKAGES = ("pyro-cvae", "torch", "pyro-ppl", "numpy", "scipy", "pandas", "safetensors")
_RESERVED = ("config", "manifest", "writer")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
_locks: dict[Path, int] = {}  # open descriptors of the folders that this process writes


# --- config ----------------------------------------------------------------------------------------------------------


def run_config(
    command: str,
    options: Mapping[str, Any],
    *,
    objective: str | None = None,
    tempered: bool = False,
    dataset: Any = None,
    split: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """The content of ``config.json``: ``options`` and where they came from.

    Parameters:
        command: Name of the command, e.g. ``svi``.
        options: Every option, resolved, flat.
        objective: ``elbo`` or ``map_objective``.
        tempered: Whether the objective is no bound (lambda_r or a KL weight other than 1).
        dataset, split: Their ``fingerprint()`` is recorded.
        more: Further JSON entries.
    """
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    fingerprints = {
        name: part.fingerprint() for name, part in (("data", dataset), ("split", split)) if part is not None
    }
    return {
        "schema": SCHEMA,
        "command": command,
        "options": _plain(dict(options), "options"),
        "objective": objective,
        "tempered": tempered,
        "versions": versions,
        "commit": _commit(),
        "fingerprints": fingerprints,
        **_plain(more, "config"),
    }


def _commit() -> str | None:
    """The commit of the checkout that this package lies in, or ``None`` where it lies in none."""
    root = Path(__file__).resolve().parent.parent
    try:
        command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return answer[1] if len(answer) == 2 and Path(answer[0]).resolve() == root else None


# --- the disk --------------------------------------------------------------------------------------------------------


@contextmanager
def _disk(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn what goes wrong while writing ``path`` into one line: a :class:`MachineError` that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None:  # safetensors and pyarrow give the number in their text only
            found = re.search(r"(?:os error|Errno) (\d+)", str(error))
            number = int(found[1]) if found else 0
        if number in _NO_SPACE:
            remedy = "free some space; a run that was begun goes on with --resume"
        elif number in _NO_ACCESS:
            remedy = "check the permissions, or choose another --out"
        reason = os.strerror(number) if number else str(error)
        raise MachineError(f"cannot be written ({reason})", remedy, path=path) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, save: Callable[[Path], object]) -> None:
    """Have ``save`` write a file under a temporary name, sync it to disk and rename it to ``path``."""
    temporary = path.with_name(f".{path.name}.new")
    with _disk(path):
        try:
            save(temporary)
            _sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


def _remove(path: Path, last: str = "") -> None:
    """Delete what is waste, as far as that can be done; of a folder, the file ``last`` goes last."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return
    if last:
        for entry in path.iterdir():
            if entry.name != last:
                _remove(entry)
    shutil.rmtree(path, ignore_errors=True)


def _remove_old(old: Path) -> None:
    """Delete a run; if that is cut short, what is left is no run."""
    if not old.is_symlink():
        _remove(old / "manifest.json")
    _remove(old)


def _lock(folder: Path) -> None:
    """Hold the folder until this process ends, however it ends; no lock where the file system knows none."""
    import fcntl

    _unlock(folder)
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


def _unlock(folder: Path) -> None:
    descriptor = _locks.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)


# --- JSON, tensors, manifests ----------------------------------------------------------------------------------------


def _plain(value: Any, where: str) -> Any:
    """``value`` as JSON has it (tuples are lists, numpy scalars numbers); TypeError for what would not come back."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: the key {key!r} is not a string, and JSON has no other keys")
        return {key: _plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, where) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{where}: JSON cannot hold a {type(value).__name__}")


def _write_json(path: Path, value: Any) -> None:
    text = _dump(_plain(value, path.stem))
    _write(path, lambda temporary: temporary.write_text(text, encoding="ascii"))


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors of any dtype and shape; those that share memory (tied weights) are written twice."""
    from safetensors.torch import save_file

    ready: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        ready[name] = tensor
    _write(path, lambda temporary: save_file(ready, temporary))


def _read_tensors(path: Path, remedy: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError("is damaged: no safetensors file", remedy, path=path) from error


def _digests(folder: Path, files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """``{relative name: {"sha256", "bytes"}}``; every file is synced to disk on the way."""
    found = {}
    for file in sorted(files):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            found[file.relative_to(folder).as_posix()] = {"sha256": digest, "bytes": stream.tell()}
    return found


def _files_in(folder: Path) -> list[Path]:
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names]


def _write_manifest(folder: Path, files: Iterable[Path]) -> None:
    with _disk(folder / "manifest.json"):
        digests = _digests(folder, files)
    _write_json(folder / "manifest.json", {"schema": SCHEMA, "files": digests})


# --- names beside each other -----------------------------------------------------------------------------------------


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Absolute, so that a later ``os.chdir`` cannot move the end of a long fit elsewhere."""
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InputError(f"{text!r} is no name for a run", "give another folder")
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if not path.name:
        raise InputError("is no name for a run", "give another folder", path=path)
    return path


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _replaced(out: Path) -> list[Path]:
    """Old runs that a killed process had moved aside to put a new one in their place; the newest first."""
    pattern = re.compile(re.escape(out.name) + r"\.old-pid\d+")
    try:
        found = [entry for entry in out.parent.iterdir() if pattern.fullmatch(entry.name)]
        return sorted(found, key=lambda entry: entry.lstat().st_mtime_ns, reverse=True)
    except OSError:
        return []


def _settle(out: Path) -> None:
    """Undo a swap that was cut short: with nothing at ``out`` the old run goes back, else it was replaced and goes."""
    for old in _replaced(out):
        if (old / "manifest.json").is_file() and not os.path.lexists(out):
            os.rename(old, out)
        else:
            _remove_old(old)


def _is_ours(folder: Path) -> bool:
    """Whether ``--overwrite`` may replace it: a run folder, whole or begun, or an empty folder; never anything else."""
    if not folder.is_dir():
        return False
    names = set(os.listdir(folder))
    return bool(names & {"manifest.json", "writer.json"}) or names <= {".writer.json.new"}


# --- writing ---------------------------------------------------------------------------------------------------------


class RunWriter:
    """Writes one run: made by :meth:`start` or :meth:`resume`, ended by :meth:`finish`.

    ``out`` is the folder to be, ``path`` the ``<out>.partial`` that is written meanwhile, ``config`` the content of
    ``config.json``, ``notes`` what a person should be told (a damaged checkpoint passed over, other versions).
    """

    def __init__(self, out: Path, config: dict[str, Any], *, overwrite: bool) -> None:
        self.out, self.path, self.config, self.overwrite = out, _partial(out), config, overwrite
        self.notes: list[str] = []

    @classmethod
    def start(
        cls,
        out: str | os.PathLike[str],
        config: Mapping[str, Any],
        dataset: Any = None,
        split: Any = None,
        *,
        overwrite: bool = False,
    ) -> RunWriter:
        """Begin a run: make ``<out>.partial`` with the config and the data in it.

        Parameters:
            out: The run folder to be; its parents are made.
            config: See :func:`run_config`.
            dataset, split: Objects with ``save(folder)``; they go to ``data/dataset`` and ``data/split``.
            overwrite: Replace the run at ``out``, but only when the new one is complete, and begin anew where an
                unfinished one lies.

        Raises:
            InputError: ``out`` or its ``.partial`` exists, or ``out`` cannot be made there.
            MachineError: The disk is full.
        """
        out = _absolute(out)
        partial = _partial(out)
        config = {"schema": SCHEMA, **_plain(dict(config), "config")}
        _make_room(out, overwrite)
        with _disk(partial):
            try:
                partial.mkdir()
            except FileExistsError:
                raise InputError(
                    "another process has just begun this run", "choose another --out", path=partial
                ) from None
            _lock(partial)
        try:
            state = {"schema": SCHEMA, "overwrite": overwrite, "files": None}
            _write_json(partial / "writer.json", state)
            (partial / "data").mkdir()
            with _disk(partial / "data"):
                for name, part in (("dataset", dataset), ("split", split)):
                    if part is not None:
                        (partial / "data" / name).mkdir()
                        part.save(partial / "data" / name)
            _write_json(partial / "config.json", config)
            with _disk(partial):
                files = _digests(partial, [partial / "config.json", *_files_in(partial / "data")])
                for root, _, _ in os.walk(partial):
                    _sync(Path(root))
            _write_json(partial / "writer.json", state | {"files": files})
        except BaseException:
            _remove(partial)
            _unlock(partial)
            raise
        return cls(out, config, overwrite=overwrite)

    @classmethod
    def resume(
        cls, out: str | os.PathLike[str], config: Mapping[str, Any], *, free: Sequence[str] = FREE_OPTIONS
    ) -> RunWriter:
        """Go on with ``<out>.partial``, if it was begun with the same command, options, data and split.

        Parameters:
            out: As given to :meth:`start`.
            config: As given to :meth:`start`.
            free: Options that may differ, because they do not change the numbers.

        Raises:
            InputError: Nothing to resume, the run is finished, a file is damaged, or an option differs.
        """
        out = _absolute(out)
        partial = _partial(out)
        anew = "start anew with --overwrite"
        if not partial.is_dir():
            if (out / "manifest.json").is_file():
                raise InputError("the run is finished", "there is nothing to resume; --overwrite fits again", path=out)
            raise InputError("there is no unfinished run", "start it without --resume", path=partial)
        with _disk(partial):
            _lock(partial)
            _settle(out)
        try:
            state = _read_json(partial / "writer.json", anew)
            if not isinstance(state, dict):
                raise InputError("is damaged", anew, path=partial / "writer.json")
            _check_schema(state, partial / "writer.json", anew)
            if state.get("files") is None:
                raise InputError("the run was stopped before its first epoch", anew, path=partial)
            files = check_files(state["files"], partial / "writer.json", anew)
            if "config.json" not in files:
                raise InputError("is damaged: config.json is not in it", anew, path=partial / "writer.json")
            _verify(partial, files, anew)
            stored = _read_json(partial / "config.json", anew)
            _compare(stored, {"schema": SCHEMA, **_plain(dict(config), "config")}, free, partial / "config.json")
        except BaseException:
            _unlock(partial)
            raise
        writer = cls(out, stored, overwrite=bool(state.get("overwrite")))
        before, now = stored.get("versions") or {}, config.get("versions") or {}
        for name in sorted(before.keys() & now.keys()):
            if before[name] != now[name]:
                writer.notes.append(
                    f"the run was begun with {name} {before[name]} and goes on with {now[name]}: the numbers may differ"
                )
        return writer

    def dataset(self) -> Any:
        """The data that the run was begun with."""
        return _load_dataset(self.path / "data" / "dataset")

    def split(self) -> Any:
        """The split that the run was begun with."""
        return _load_split(self.path / "data" / "split")

    def save_tensors(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write ``<name>.safetensors``; MachineError when the disk is full."""
        _write_tensors(self.path / f"{_checked(name)}.safetensors", tensors)

    def save_json(self, name: str, value: Any) -> None:
        """Write ``<name>.json``; TypeError for what JSON cannot hold, MachineError when the disk is full."""
        _write_json(self.path / f"{_checked(name)}.json", value)

    def save_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``history.csv``, the whole of it: a row an epoch, a column for every key of any row, exact floats."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        plain = [_plain(row, "history") for row in rows]

        def save(path: Path) -> None:
            with open(path, "w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(plain)

        _write(self.path / "history.csv", save)

    def checkpoint(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """Write ``checkpoint/epoch-<meta["epoch"]>/``; this and the one before are kept, older ones go.

        Parameters:
            tensors: All state that is tensors: parameters, optimiser moments, random states.
            meta: The rest, as JSON has it; ``meta["epoch"]`` must grow from one checkpoint to the next (the same
                epoch again replaces its checkpoint).

        Raises:
            MachineError: The disk is full; the checkpoint before is intact.
        """
        epoch = meta["epoch"]
        folder = self.path / "checkpoint"
        target = folder / f"epoch-{epoch:06d}"
        existing = _checkpoints(folder)
        if existing and _epoch(existing[0]) > epoch:
            raise ValueError(f"epoch {epoch} comes after a checkpoint of epoch {_epoch(existing[0])}")
        new = folder / ".new"
        with _disk(target):
            folder.mkdir(exist_ok=True)
            _remove(new)
            try:
                new.mkdir()
                _write_tensors(new / "tensors.safetensors", tensors)
                _write_json(new / "meta.json", meta)
                _write_manifest(new, [new / "tensors.safetensors", new / "meta.json"])
                if target.exists():
                    os.rename(target, target.with_name(target.name + ".before"))
                os.rename(new, target)
            except BaseException:
                _remove(new)
                raise
            _sync(folder)
        for old in _checkpoints(folder)[2:]:
            _remove(old)

    def latest_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and meta of the newest complete checkpoint, ``None`` where there is none yet.

        A damaged one is passed over, with a line in ``notes``; InputError naming the newest when all are damaged.
        """
        first: InputError | None = None
        for folder in _checkpoints(self.path / "checkpoint"):
            try:
                files = _read_manifest(folder, "start anew with --overwrite")
                _verify(folder, files, "start anew with --overwrite")
                for name in ("tensors.safetensors", "meta.json"):
                    Listed(folder, files).file(name, "start anew with --overwrite")
                tensors = _read_tensors(folder / "tensors.safetensors", "start anew with --overwrite")
                meta = _read_json(folder / "meta.json", "start anew with --overwrite")
                check_json(meta, {"epoch": Natural}, folder / "meta.json")
                return tensors, meta
            except InputError as error:
                self.notes.append(f"{error.path}: {error.problem}; going on from an older checkpoint")
                first = first or error
        if first is not None:
            raise InputError(f"{first.problem}, and no older checkpoint is whole", first.remedy, path=first.path)
        return None

    def finish(self) -> Path:
        """Write the manifest and rename ``<out>.partial`` to ``<out>``; returns ``out``.

        With ``overwrite`` the run that was there is moved aside, and deleted only after the new one has taken its
        name. MachineError when the disk is full, InputError when something else has taken the name meanwhile.
        """
        for left in self.path.glob(".*.new"):
            _remove(left)
        inside = [entry for entry in self.path.iterdir() if entry.name not in ("checkpoint", "writer.json")]
        files = [file for entry in inside for file in ([entry] if entry.is_file() else _files_in(entry))]
        _write_manifest(self.path, [file for file in files if file != self.path / "manifest.json"])
        with _disk(self.out, "the complete run is in the .partial folder; go on with --resume"):
            old: Path | None = None
            if os.path.lexists(self.out):
                if not (self.overwrite and _is_ours(self.out)):
                    raise InputError(
                        "something has been put here during the fit", "move it away, then --resume", path=self.out
                    )
                old = self.out.with_name(f"{self.out.name}.old-pid{os.getpid()}")
                _remove_old(old)
                os.rename(self.out, old)
            try:
                os.rename(self.path, self.out)
            except OSError:
                if old is not None:
                    os.rename(old, self.out)
                raise
            _sync(self.out.parent)
        self.close()
        _remove(self.out / "checkpoint")
        _remove(self.out / "writer.json")
        if old is not None:
            _remove_old(old)
        return self.out

    def close(self) -> None:
        """Let go of the folder, so that another process may resume the run; :meth:`finish` does it too."""
        _unlock(self.path)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _make_room(out: Path, overwrite: bool) -> None:
    """Check that a run may begin at ``out``; remove the remains of earlier ones if they may go."""
    partial = _partial(out)
    if re.search(r"\.partial$|\.old-pid\d+$", out.name):
        raise InputError("is no name for a run", "choose another --out", path=out)
    with _disk(out):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            wrong = next(parent for parent in (out.parent, *out.parents) if parent.exists())
            raise InputError("is a file, no folder", "choose another --out", path=wrong) from None
        except OSError as error:
            if error.errno in _NO_ACCESS:
                raise InputError("cannot be made (no permission)", "choose another --out", path=out.parent) from None
            raise
        if not os.access(out.parent, os.W_OK | os.X_OK):
            raise InputError("is not writable", "check the permissions, or choose another --out", path=out.parent)
        for folder in (out, partial):
            if os.path.lexists(folder) and not _is_ours(folder):
                raise InputError("exists and is no run folder", "choose another --out", path=folder)
        if partial.exists():
            if not overwrite:
                raise InputError(
                    "an unfinished run is here", "go on with --resume, or start anew with --overwrite", path=partial
                )
            _lock(partial)
            _remove(partial, last="writer.json")  # by which it is known as ours, if this is cut short
            _unlock(partial)
        _settle(out)
        if out.exists() and not overwrite:
            raise InputError("exists", "give --overwrite to replace it, or another --out", path=out)


def _compare(stored: Any, given: Mapping[str, Any], free: Sequence[str], path: Path) -> None:
    """InputError naming the first thing that differs between the config of a begun run and the one given now."""
    again = "start anew with --overwrite"
    if not isinstance(stored, dict) or not isinstance(stored.get("options"), dict):
        raise InputError("is damaged: no options", again, path=path)
    if stored.get("command") != given.get("command"):
        raise InputError(
            f"the run was begun by {stored.get('command')!r}, not {given.get('command')!r}", again, path=path
        )
    before, now = stored["options"], given.get("options", {})
    for name in sorted((before.keys() | now.keys()) - set(free)):
        was, is_ = (json.dumps(side[name]) if name in side else "not known" for side in (before, now))
        if was != is_ and before.get(name, was) != now.get(name, is_):  # 10 and 10.0 are the same
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{flag} is {is_}, but the run was begun with {was}",
                f"give {flag} its old value, or {again}",
                path=path,
            )
    before, now = stored.get("fingerprints") or {}, given.get("fingerprints") or {}
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            what = "data have" if name == "data" else f"{name} has"
            raise InputError(f"the {what} changed since the run was begun", f"restore what was, or {again}", path=path)


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or name in _RESERVED:
        raise ValueError(f"{name!r} cannot be the name of a file of a run")
    return name


def _checkpoints(folder: Path) -> list[Path]:
    """Folders of checkpoints that were renamed to their final names, the newest first."""
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if re.fullmatch(r"epoch-\d{6,}(\.before)?", entry.name)]
    return sorted(found, key=lambda entry: (_epoch(entry), not entry.name.endswith(".before")), reverse=True)


def _epoch(checkpoint: Path) -> int:
    return int(checkpoint.name.removesuffix(".before").removeprefix("epoch-"))


# --- reading ---------------------------------------------------------------------------------------------------------

_AGAIN = "fit again or copy the folder again"
_CONFIG = {
    "schema": int,
    "command": str,
    "options": dict[str, Any],
    "objective": str | None,
    "tempered": bool,
    "versions": dict[str, str | None],
    "commit": str | None,
    "fingerprints": dict[str, str],
    "without_users": bool,
}
"""Types of the entries of config.json that :func:`run_config` writes."""


class Run:
    """A run folder whose files have been verified; made by :func:`open_run`.

    ``files`` are the entries of its manifest, and all that is read; ``trust`` the class paths that it may import.
    """

    def __init__(
        self, path: Path, config: dict[str, Any], files: Mapping[str, Mapping[str, Any]], trust: Trust = ()
    ) -> None:
        self.path, self.config, self.files = path, config, files
        self.trust = as_paths(trust)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def reading(self) -> AbstractContextManager[None]:
        """While its names are made into classes: those of ``trust`` alone are imported."""
        return only_trusted(self.path, self.trust)

    def _file(self, name: str) -> Path:
        if name not in self.files:
            kind = Path(name).suffix
            others = ", ".join(file for file in self.files if file.endswith(kind) and "/" not in file) or "none"
            raise InputError(f"the run has no {name}", f"of that kind it has: {others}", path=self.path)
        return Listed(self.path, self.files).file(name, _AGAIN)

    def tensors(self, name: str = "posterior") -> dict[str, torch.Tensor]:
        """The tensors of ``<name>.safetensors``, on the CPU; InputError where the run has none of that name."""
        return _read_tensors(self._file(f"{name}.safetensors"), _AGAIN)

    def json(self, name: str) -> Any:
        """The content of ``<name>.json``; InputError where the run has none of that name."""
        return _read_json(self._file(f"{name}.json"), _AGAIN)

    def metrics(self) -> dict[str, Any]:
        """The metrics that were computed at the end of the fit; InputError where they are none."""
        return checked_metrics(self.json("metrics"), self.path / "metrics.json")

    def history(self) -> pd.DataFrame:
        """The history of the fit: a row an epoch; InputError where it is no such table."""
        return read_history(self._file("history.csv"))

    def dataset(self) -> Any:
        """The data that were fitted; InputError where the run was exported without users."""
        with self.reading():
            return _load_dataset(self._part("dataset"))

    def split(self) -> Any:
        """The split that was fitted; InputError where the run was exported without users."""
        return _load_split(self._part("split"))

    def items(self) -> Any:
        """Ids, titles and content of the items, as a data set without users; it is there in every run with data."""
        with self.reading():
            return _without_users(_load_dataset(self._part("dataset", of_users=False)))

    def _part(self, name: str, of_users: bool = True) -> Listed:
        if of_users and self.config.get("without_users"):
            raise InputError(
                "the run was exported without users: it holds no user vectors, user ids, ratings or split",
                "use the run that it was exported from",
                path=self.path,
            )
        if not any(file.startswith(f"data/{name}/") for file in self.files):
            raise InputError(f"the run holds no {name}", "fit it with its data", path=self.path)
        return Listed(self.path, self.files).within(f"data/{name}")


def _load_dataset(folder: Path | Listed) -> Any:
    from pyro_cvae.data.dataset import Dataset

    return Dataset.load(folder)


def _load_split(folder: Path | Listed) -> Any:
    from pyro_cvae.data.splits import Split

    return Split.load(folder)


def _without_users(dataset: Any) -> Any:
    """The items of a data set, with no users, no ratings, and no truth (which has users in it)."""
    import dataclasses

    from pyro_cvae.data.interactions import Interactions

    nothing = Interactions.from_arrays([], [], n_users=0, n_items=dataset.n_items)
    return dataclasses.replace(dataset, interactions=nothing, user_ids=[], truth=None)


def open_run(path: str | os.PathLike[str], trust: Trust = ()) -> Run:
    """Open a finished run folder, with every file compared to the manifest (size and SHA-256).

    Files that the manifest does not list are never read. ``trust`` are the paths of classes outside of the package that
    the run may import (docs/security.md); here nothing is imported yet.

    Raises:
        InputError: No run there, not finished, written by a newer version, or a file missing, truncated or changed.
    """
    path, trust = _absolute(path), as_paths(trust)
    if path.name.endswith(".partial") and path.is_dir():
        out = path.with_name(path.name.removesuffix(".partial"))
        raise InputError("this run is not finished", f"go on with --resume --out {out}", path=path)
    if not os.path.lexists(path):
        old = [old for old in _replaced(path) if (old / "manifest.json").is_file()]
        if old:  # killed between the two renames of a swap: the old run is whole, beside its place
            path = old[0]
        elif _partial(path).is_dir():
            raise InputError("this run is not finished", f"go on with --resume --out {path}", path=_partial(path))
        else:
            raise InputError("there is no such run folder", "check the path", path=path)
    if not path.is_dir():
        raise InputError("is a file, no run folder", "give the folder that a fit command left", path=path)
    if not os.path.lexists(path / "manifest.json"):
        raise InputError(
            "is no run folder (no manifest.json)", "give the folder that a fit command left, all of it", path=path
        )
    files = _read_manifest(path, _AGAIN)
    if "config.json" not in files:
        raise InputError("is damaged: config.json is not in it", _AGAIN, path=path / "manifest.json")
    _verify(path, files, _AGAIN)
    config = _read_json(path / "config.json", _AGAIN)
    if not isinstance(config, dict):
        raise InputError("is damaged: no config", _AGAIN, path=path / "config.json")
    _check_schema(config, path / "config.json", _AGAIN)
    check_json(config, _CONFIG, path / "config.json", optional=_CONFIG)
    return Run(path, config, files, trust)


def export_without_users(run: Run | str | os.PathLike[str], out: str | os.PathLike[str]) -> Run:
    """Copy a run without anything about single users: no ``u_*`` tensors, user ids, ratings or test pairs.

    What stays: config (with ``without_users``), posterior of items and networks, history, metrics, and ids, titles and
    content of the items (:meth:`Run.items`).

    Raises:
        InputError: ``run`` cannot be opened, or ``out`` exists.
        MachineError: The disk is full.
    """
    if not isinstance(run, Run):
        run = open_run(run)
    items = run.items() if any(file.startswith("data/dataset/") for file in run.files) else None
    writer = RunWriter.start(out, run.config | {"without_users": True}, items)
    try:
        tensors = {name: tensor for name, tensor in run.tensors().items() if not name.startswith("u_")}
        writer.save_tensors("posterior", tensors)
        for name in ("history.csv", "metrics.json"):
            if name in run.files:
                _write(writer.path / name, lambda temporary, name=name: shutil.copyfile(run.path / name, temporary))  # type: ignore[misc]
        return open_run(writer.finish())
    except BaseException:
        _remove(writer.path)
        _unlock(writer.path)
        raise
