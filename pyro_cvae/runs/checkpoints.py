"""Checkpoints of a fit in progress, ``checkpoint/epoch-<number>/``: the newest and the one before it are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_cvae.checks import Natural, check_json
from pyro_cvae.errors import InputError
from pyro_cvae.listed import Listed, read_json, read_manifest, verify
from pyro_cvae.runs.config import ANEW
from pyro_cvae.runs.disk import remove, sync, writing
from pyro_cvae.runs.manifest import write_json, write_manifest
from pyro_cvae.runs.tensors import read_tensors, write_tensors

TENSORS, META = "tensors.safetensors", "meta.json"


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write ``folder/epoch-<meta["epoch"]>/``, whole or not at all; this and the one before are kept.

    Raises ValueError where a checkpoint of a later epoch is there, MachineError when the disk is full.
    """
    epoch = meta["epoch"]
    target = folder / f"epoch-{epoch:06d}"
    existing = _checkpoints(folder)
    if existing and _epoch(existing[0]) > epoch:
        raise ValueError(f"epoch {epoch} comes after a checkpoint of epoch {_epoch(existing[0])}")
    new = folder / ".new"
    with writing(target):
        folder.mkdir(exist_ok=True)
        remove(new)
        try:
            new.mkdir()
            files = write_tensors(new / TENSORS, tensors)
            write_json(new / META, meta)
            write_manifest(new, [*files, new / META])
            if target.exists():
                os.rename(target, target.with_name(target.name + ".before"))
            os.rename(new, target)
        except BaseException:
            remove(new)
            raise
        sync(folder)
    for old in _checkpoints(folder)[2:]:
        remove(old)


def newest_checkpoint(folder: Path) -> tuple[tuple[dict[str, Tensor], dict[str, Any]] | None, list[InputError]]:
    """Tensors and meta of the newest whole checkpoint, and what is wrong with newer ones that were passed over.

    ``None`` in place of the first where there is no whole one.
    """
    damages: list[InputError] = []
    for checkpoint in _checkpoints(folder):
        try:
            return _read(checkpoint), damages
        except InputError as error:
            damages.append(error)
    return None, damages


def _read(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    files = read_manifest(checkpoint, ANEW)
    verify(checkpoint, files, ANEW)
    listed = Listed(checkpoint, files)
    listed.file(META, ANEW)
    tensors = read_tensors(listed, TENSORS, ANEW)
    meta = read_json(checkpoint / META, ANEW)
    check_json(meta, {"epoch": Natural}, checkpoint / META)
    return tensors, meta


def _checkpoints(folder: Path) -> list[Path]:
    """Folders of checkpoints that were renamed to their final names, the newest first."""
    if not folder.is_dir():
        return []
    folders = [entry for entry in folder.iterdir() if re.fullmatch(r"epoch-\d{6,}(\.before)?", entry.name)]
    return sorted(folders, key=lambda entry: (_epoch(entry), not entry.name.endswith(".before")), reverse=True)


def _epoch(checkpoint: Path) -> int:
    return int(checkpoint.name.removesuffix(".before").removeprefix("epoch-"))
