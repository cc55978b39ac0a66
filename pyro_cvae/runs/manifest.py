"""The JSON files of a run folder, among them the manifest, which is written last."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pyro_cvae.listed import SCHEMA, dump_json
from pyro_cvae.runs.disk import write_file, writing


def plain(value: Any, where: str) -> Any:
    """``value`` as JSON has it (tuples are lists, numpy scalars numbers); TypeError for what would not come back."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: the key {key!r} is not a string, and JSON has no other keys")
        return {key: plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, where) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{where}: JSON cannot hold a {type(value).__name__}")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file of ours, which is ASCII; TypeError for what JSON cannot hold."""
    text = dump_json(plain(value, path.stem))
    write_file(path, lambda temporary: temporary.write_text(text, encoding="ascii"))


def digests(folder: Path, files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """``{relative name: {"sha256", "bytes"}}``; every file is synced to disk on the way."""
    entries = {}
    for file in sorted(files):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            entries[file.relative_to(folder).as_posix()] = {"sha256": digest, "bytes": stream.tell()}
    return entries


def write_manifest(folder: Path, files: Iterable[Path]) -> None:
    """Write ``manifest.json`` with SHA-256 and size of these files of the folder."""
    with writing(folder / "manifest.json"):
        entries = digests(folder, files)
    write_json(folder / "manifest.json", {"schema": SCHEMA, "files": entries})
