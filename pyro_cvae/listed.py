"""The manifest of a folder of ours is the list of what may be read: nothing else is, whatever lies there.

A name leads to a plain file in the folder itself: links, pipes, devices and folders are refused, and so is a way out.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_cvae.checks import Natural, fits
from pyro_cvae.errors import InputError

SCHEMA = 1
"""Version of a run folder's layout; a folder with a higher one was written by a newer version and is refused."""
LARGEST_JSON, MOST_CONTAINERS = 2**27, 10**6
"""Bytes, and lists and objects, of a JSON file that is read: a run's take a thousandth of it."""
_ENTRY = {"sha256", "bytes"}


@dataclass(frozen=True)
class Listed:
    """A folder and the names that may be read in it, with ``/`` between parts; ``None``: there is no manifest."""

    folder: Path
    names: Collection[str] | None

    def file(self, name: str, remedy: str) -> Path:
        """The path of a plain file; InputError where it is not listed, missing, a link, or no file."""
        path = self.folder / name
        if self.names is None:
            return path
        if name not in self.names:
            raise InputError("is not in the manifest, and only what that lists is read", remedy, path=path)
        return plain_file(self.folder, name, remedy)

    def within(self, part: str) -> Listed:
        """The same of a folder in it."""
        start = part + "/"
        names = None if self.names is None else {n.removeprefix(start) for n in self.names if n.startswith(start)}
        return Listed(self.folder / part, names)


def plain_file(folder: Path, name: str, remedy: str) -> Path:
    """``folder / name`` if it is a file that is reached without following a link; InputError otherwise."""
    path, pieces = folder, name.split("/")
    for count, piece in enumerate(pieces, 1):
        path = path / piece
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            raise InputError("is missing", remedy, path=folder / name) from None
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", remedy, path=folder / name) from None
        if stat.S_ISLNK(mode):
            raise InputError("is a link, which is not followed", "put the file itself into the folder", path=path)
        if count == len(pieces) and not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise InputError(f"is missing: {what} is in its place", remedy, path=path)
        if count < len(pieces) and not stat.S_ISDIR(mode):
            raise InputError("is no folder", remedy, path=path)
    return path


def read_json(path: Path, remedy: str) -> Any:
    """The value of a JSON file of ours, which is ASCII; InputError where it is missing, damaged or far too large."""
    plain_file(path.parent, path.name, remedy)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise InputError("is larger than any such file of ours", remedy, path=path)
        raw = path.read_bytes()
        if raw.count(b"[") + raw.count(b"{") > MOST_CONTAINERS:
            raise InputError("has more lists and objects than any such file of ours", remedy, path=path)
        return json.loads(raw.decode("ascii"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", remedy, path=path) from error
    except (ValueError, RecursionError):
        raise InputError("is damaged: no JSON", remedy, path=path) from None


def dump_json(value: Any) -> str:
    """The text of a JSON file of ours."""
    return json.dumps(value, indent=1) + "\n"


def check_schema(content: Mapping[str, Any], path: Path, remedy: str) -> None:
    """InputError for a file of a newer version, or without a version."""
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise InputError(
            f"was written by a newer version (schema {schema}, this one reads up to {SCHEMA})",
            "update pyro-cvae",
            path=path,
        )
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise InputError("is damaged: no schema version", remedy, path=path)


def read_manifest(folder: Path, remedy: str) -> dict[str, dict[str, Any]]:
    """Name, SHA-256 and size of every file that ``manifest.json`` lists.

    InputError where it is damaged, or a name is none of a file in the folder.
    """
    path = folder / "manifest.json"
    manifest = read_json(path, remedy)
    damaged = InputError("is damaged: no manifest", remedy, path=path)
    if not isinstance(manifest, dict):
        raise damaged
    check_schema(manifest, path, remedy)
    if not isinstance(manifest.get("files"), dict) or path.read_text(encoding="ascii") != dump_json(manifest):
        raise damaged  # the second: flipped blanks, and a name that is there twice
    return check_files(manifest["files"], path, remedy)


def check_files(files: Any, path: Path, remedy: str) -> dict[str, dict[str, Any]]:
    """The same entries, each a digest and a size of a file in the folder; InputError naming ``path`` otherwise."""
    damaged = InputError("is damaged: no manifest", remedy, path=path)
    if not isinstance(files, dict):
        raise damaged
    seen: dict[str, str] = {}
    for name, entry in files.items():
        pieces = name.split("/")
        if name.startswith("/") or ".." in pieces or "\\" in name or ":" in name:
            raise InputError(f"names a file outside of the folder ({name})", "do not use this folder", path=path)
        if not all(pieces) or "." in pieces or not name.isprintable() or name == "manifest.json":
            raise InputError(
                f"lists {name!r}, which is no name of a file of a run", "do not use this folder", path=path
            )
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise InputError(f"lists {other} and {name}, which are one file on some disks", "rename one", path=path)
        if not isinstance(entry, dict) or set(entry) != _ENTRY:
            raise damaged
        if not fits(entry["bytes"], Natural) or not isinstance(entry["sha256"], str):
            raise damaged
    return files


def verify(folder: Path, files: Mapping[str, Mapping[str, Any]], remedy: str) -> None:
    """InputError naming the first file that is missing, no plain file, truncated or changed."""
    for name, entry in files.items():
        path = plain_file(folder, name, remedy)
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise InputError(f"has {size} bytes instead of {entry['bytes']}", remedy, path=path)
            with open(path, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", remedy, path=path) from error
        if digest != entry["sha256"]:
            raise InputError("is damaged: its SHA-256 is not the one in the manifest", remedy, path=path)
