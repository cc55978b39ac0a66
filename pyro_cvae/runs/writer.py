"""Writing a run: begun, gone on with, and given its name when it is complete."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError
from pyro_cvae.listed import SCHEMA, check_files, check_schema, read_json, verify
from pyro_cvae.runs.checkpoints import newest_checkpoint, write_checkpoint
from pyro_cvae.runs.config import ANEW, FREE_OPTIONS, changed_versions, check_same, with_schema
from pyro_cvae.runs.disk import files_in, lock, remove, remove_run, sync, unlock, write_file, writing
from pyro_cvae.runs.folders import absolute, aside_of, is_ours, make_room, partial_of, settle
from pyro_cvae.runs.manifest import digests, plain, write_json, write_manifest
from pyro_cvae.runs.tensors import write_tensors

_RESERVED = ("config", "manifest", "writer")


class RunWriter:
    """Writes one run: made by :meth:`start` or :meth:`resume`, ended by :meth:`finish`.

    ``out`` is the folder to be, ``path`` the ``<out>.partial`` that is written meanwhile, ``config`` the content of
    ``config.json``, ``notes`` what a person should be told (a damaged checkpoint passed over, other versions).
    """

    def __init__(self, out: Path, config: dict[str, Any], *, overwrite: bool) -> None:
        self.out, self.path, self.config, self.overwrite = out, partial_of(out), config, overwrite
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
        job: str = "",
    ) -> RunWriter:
        """Begin a run: make ``<out>.partial`` with the config and the data in it.

        Parameters:
            out: The run folder to be; its parents are made.
            config: See :func:`pyro_cvae.runs.run_config`.
            dataset, split: Objects with ``save(folder)``; they go to ``data/dataset`` and ``data/split``.
            overwrite: Replace the run at ``out``, but only when the new one is complete, and begin anew where an
                unfinished one lies.
            job: What starts this process again if it dies; see :meth:`begun_by`.

        Raises:
            InputError: ``out`` or its ``.partial`` exists, or ``out`` cannot be made there.
            MachineError: The disk is full.
        """
        out = absolute(out)
        partial = partial_of(out)
        config = with_schema(config)
        make_room(out, overwrite)
        with writing(partial):
            try:
                partial.mkdir()
            except FileExistsError:
                raise InputError(
                    "another process has just begun this run", "choose another --out", path=partial
                ) from None
            lock(partial)
        try:
            _begin(partial, config, {"dataset": dataset, "split": split}, {"overwrite": overwrite, "job": job})
        except BaseException:
            remove(partial)
            unlock(partial)
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
        out = absolute(out)
        partial = partial_of(out)
        if not partial.is_dir():
            if (out / "manifest.json").is_file():
                raise InputError("the run is finished", "there is nothing to resume; --overwrite fits again", path=out)
            raise InputError("there is no unfinished run", "start it without --resume", path=partial)
        with writing(partial):
            lock(partial)
            settle(out)
        try:
            stored, overwrite = _begun(partial)
            check_same(stored, with_schema(config), free, partial / "config.json")
        except BaseException:
            unlock(partial)
            raise
        writer = cls(out, stored, overwrite=overwrite)
        writer.notes += changed_versions(stored, config)
        return writer

    @staticmethod
    def begun_by(out: str | os.PathLike[str], job: str) -> str:
        """What a job that is started again does at ``out``: "resume", or "overwrite" what it had just begun, or ""."""
        path = partial_of(absolute(out)) / "writer.json"
        if not job or not path.is_file():
            return ""
        state = read_json(path, ANEW)
        if not isinstance(state, dict) or state.get("job") != job:
            return ""
        return "overwrite" if state.get("files") is None else "resume"

    def dataset(self) -> Dataset:
        """The data that the run was begun with."""
        return Dataset.load(self.path / "data" / "dataset")

    def split(self) -> Split:
        """The split that the run was begun with."""
        return Split.load(self.path / "data" / "split")

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write ``<name>.safetensors``; MachineError when the disk is full."""
        write_tensors(self.path / f"{_checked(name)}.safetensors", tensors)

    def save_json(self, name: str, value: Any) -> None:
        """Write ``<name>.json``; TypeError for what JSON cannot hold, MachineError when the disk is full."""
        write_json(self.path / f"{_checked(name)}.json", value)

    def save_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``history.csv``, the whole of it: a row an epoch, a column for every key of any row, exact floats."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        plain_rows = [plain(row, "history") for row in rows]

        def save(path: Path) -> None:
            with open(path, "w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(plain_rows)

        write_file(self.path / "history.csv", save)

    def checkpoint(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Write ``checkpoint/epoch-<meta["epoch"]>/``; this and the one before are kept, older ones go.

        Parameters:
            tensors: All state that is tensors: parameters, optimiser moments, random states.
            meta: The rest, as JSON has it; ``meta["epoch"]`` must grow from one checkpoint to the next (the same
                epoch again replaces its checkpoint).

        Raises:
            MachineError: The disk is full; the checkpoint before is intact.
        """
        write_checkpoint(self.path / "checkpoint", tensors, meta)

    def latest_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and meta of the newest complete checkpoint, ``None`` where there is none yet.

        A damaged one is passed over, with a line in ``notes``; InputError naming the newest when all are damaged.
        """
        newest, damages = newest_checkpoint(self.path / "checkpoint")
        self.notes += [f"{error.path}: {error.problem}; going on from an older checkpoint" for error in damages]
        if newest is None and damages:
            first = damages[0]
            raise InputError(f"{first.problem}, and no older checkpoint is whole", first.remedy, path=first.path)
        return newest

    def finish(self) -> Path:
        """Write the manifest and rename ``<out>.partial`` to ``<out>``; returns ``out``.

        With ``overwrite`` the run that was there is moved aside, and deleted only after the new one has taken its
        name. MachineError when the disk is full, InputError when something else has taken the name meanwhile.
        """
        for left in self.path.glob(".*.new"):
            remove(left)
        inside = [entry for entry in self.path.iterdir() if entry.name not in ("checkpoint", "writer.json")]
        files = [file for entry in inside for file in ([entry] if entry.is_file() else files_in(entry))]
        write_manifest(self.path, [file for file in files if file != self.path / "manifest.json"])
        with writing(self.out, "the complete run is in the .partial folder; go on with --resume"):
            old = self._move_aside()
            try:
                os.rename(self.path, self.out)
            except OSError:
                if old is not None:
                    os.rename(old, self.out)
                raise
            sync(self.out.parent)
        self.close()
        remove(self.out / "checkpoint")
        remove(self.out / "writer.json")
        if old is not None:
            remove_run(old)
        return self.out

    def _move_aside(self) -> Path | None:
        """Rename the run that is to be replaced; its new name, ``None`` where there is none."""
        if not os.path.lexists(self.out):
            return None
        if not (self.overwrite and is_ours(self.out)):
            raise InputError("something has been put here during the fit", "move it away, then --resume", path=self.out)
        old = aside_of(self.out)
        remove_run(old)
        os.rename(self.out, old)
        return old

    def close(self) -> None:
        """Let go of the folder, so that another process may resume the run; :meth:`finish` does it too."""
        unlock(self.path)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _begin(partial: Path, config: Mapping[str, Any], data: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Fill a new folder with config and data; ``writer.json``, which tells what it is ``about``, names them last."""
    state = {"schema": SCHEMA, **about, "files": None}
    write_json(partial / "writer.json", state)
    (partial / "data").mkdir()
    with writing(partial / "data"):
        for name, content in data.items():
            if content is not None:
                (partial / "data" / name).mkdir()
                content.save(partial / "data" / name)
    write_json(partial / "config.json", config)
    with writing(partial):
        files = digests(partial, [partial / "config.json", *files_in(partial / "data")])
        for root, _, _ in os.walk(partial):
            sync(Path(root))
    write_json(partial / "writer.json", state | {"files": files})


def _begun(partial: Path) -> tuple[Any, bool]:
    """The config of a begun run, and whether it is to replace another; InputError where a file is damaged."""
    state = read_json(partial / "writer.json", ANEW)
    if not isinstance(state, dict):
        raise InputError("is damaged", ANEW, path=partial / "writer.json")
    check_schema(state, partial / "writer.json", ANEW)
    if state.get("files") is None:
        raise InputError("the run was stopped before its first epoch", ANEW, path=partial)
    files = check_files(state["files"], partial / "writer.json", ANEW)
    if "config.json" not in files:
        raise InputError("is damaged: config.json is not in it", ANEW, path=partial / "writer.json")
    verify(partial, files, ANEW)
    return read_json(partial / "config.json", ANEW), bool(state.get("overwrite"))


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or name in _RESERVED:
        raise ValueError(f"{name!r} cannot be the name of a file of a run")
    return name
