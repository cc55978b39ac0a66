"""Reading files: everything that can be wrong with one is an :class:`InputError` naming file, line and remedy."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from pyro_cvae.data.gate import PathLike, opened, read_bytes
from pyro_cvae.data.parquet import read_parquet
from pyro_cvae.errors import InputError
from pyro_cvae.listed import LARGEST_JSON, MOST_CONTAINERS
from pyro_cvae.whole import whole_file


def read_text(path: PathLike, *, strict: bool = True) -> str:
    r"""The text of a UTF-8 file; raises InputError for an empty one, NUL bytes or bytes that are not UTF-8.

    A byte order mark and carriage returns, which CSV files often have, are errors too if ``strict``; else the mark is
    dropped.
    """
    raw = read_bytes(path)
    if strict and raw.startswith(b"\xef\xbb\xbf"):
        raise InputError("starts with a byte order mark", "save it as UTF-8 without one", path=path, line=1)
    for bad, problem, remedy in (
        (b"\r", "has a carriage return", r"convert its line ends to \n (dos2unix)"),
        (b"\0", "has a NUL byte", "restore the file from its source"),
    ):
        if bad in raw and (strict or bad == b"\0"):
            raise InputError(problem, remedy, path=path, line=raw.count(b"\n", 0, raw.index(bad)) + 1)
    try:
        text = raw.decode("utf-8" if strict else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError("is not valid UTF-8", "convert it to UTF-8 (iconv)", path=path, line=line) from None
    if not text:
        raise InputError("the file is empty", "restore it from its source", path=path)
    return text


def read_lines(path: PathLike) -> list[str]:
    r"""The lines of :func:`read_text`, split on ``\n`` only and not stripped; a newline after the last is optional."""
    lines = read_text(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def need_folder(path: PathLike) -> Path:
    """The folder at ``path``; raises InputError if there is none."""
    folder = Path(path)
    if not folder.exists():
        raise InputError("no such folder", "check the path", path=folder)
    if not folder.is_dir():
        raise InputError("this is not a folder", "give the path of a folder", path=folder)
    return folder


# Folders of our own (Dataset.save, Split.save): Parquet, JSON and safetensors, nothing that can run code on loading.

_MAPPED_BYTES = 2**26
_RESTORE = "the folder is damaged or incomplete: make it again or restore it"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as UTF-8 JSON, lone surrogates as escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    lone = re.compile("[\ud800-\udfff]").sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    path.write_text(lone, encoding="utf-8")


def read_json(path: Path, *schemas: int) -> dict[str, Any]:
    """Read a JSON object written with one of these ``schema`` numbers; raises InputError for anything else."""
    raw = read_bytes(path)
    if len(raw) > LARGEST_JSON or raw.count(b"[") + raw.count(b"{") > MOST_CONTAINERS:
        raise InputError("is larger than any such file of ours", _RESTORE, path=path)
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid JSON ({error})", _RESTORE, path=path) from None
    if not isinstance(value, dict) or value.get("schema") not in schemas:
        found = value.get("schema") if isinstance(value, dict) else None
        known = " and ".join(map(str, schemas))
        raise InputError(f"has schema {found!r}, this version reads {known}", "make the folder again", path=path)
    return value


def write_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns as Parquet; arrays of dtype object hold strings."""
    arrays = {name: pa.array(c, pa.string() if c.dtype == object else None) for name, c in columns.items()}
    pq.write_table(pa.table(arrays), path)


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_table` wrote, types and NaN kept; raises InputError if the file is damaged."""
    table = read_parquet(path, _RESTORE)
    try:
        return {name: table.column(name).to_numpy() for name in table.column_names}
    except (pa.ArrowException, ValueError) as error:  # ValueError: text that is no UTF-8
        raise InputError(f"is not a readable Parquet file ({error})", _RESTORE, path=path) from None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write numeric arrays as safetensors."""
    path.write_bytes(safetensors.save({name: np.asarray(a, order="C") for name, a in arrays.items()}))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote; raises InputError if the file is damaged."""
    try:
        return safetensors.load(read_bytes(path))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"is not a readable safetensors file ({error})", _RESTORE, path=path) from None


def write_npy(path: Path, values: np.ndarray) -> None:
    """Write one array of numbers as ``.npy``, in place of a file that may be mapped; a mapped array is not copied."""
    values = np.asarray(values, order="C")
    with whole_file(path) as new, open(new, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(values))
        stream.write(_bytes(values))


def read_npy(path: PathLike, remedy: str = _RESTORE) -> np.ndarray:
    """The array of numbers in a ``.npy`` file, mapped and read-only where it is larger than 64 MiB; nothing unpickled.

    Raises InputError if the file is missing, damaged, cut short, or holds anything but plain numbers.
    """
    path = Path(path)
    with opened(path) as stream:
        shape, fortran, dtype = npy_header(stream, path, remedy)
        begin, found = stream.tell(), os.fstat(stream.fileno()).st_size
        if dtype.kind not in "biuf":
            raise InputError(f"holds values of type {dtype}, not numbers", "save an array of numbers", path=path)
        wanted = begin + math.prod(shape) * dtype.itemsize
        if found != wanted:
            raise InputError(f"has {found} bytes instead of {wanted}: it is damaged or cut short", remedy, path=path)
        if 0 in shape:
            return np.zeros(shape, dtype)
        values = np.memmap(stream, dtype, "r", begin, shape, "F" if fortran else "C")
        return values if wanted > _MAPPED_BYTES else np.array(values, dtype)


def npy_header(stream: BinaryIO, path: PathLike, remedy: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type that a ``.npy`` file says it has; InputError for what no array can be."""
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except Exception:  # a damaged header is parsed as Python's literals are, and can fail in every way
        raise InputError("is not a readable .npy file", remedy, path=path) from None
    if min(shape, default=0) < 0 or max(shape, default=0) >= 2**62:
        raise InputError(f"says that its shape is {shape}: it is damaged", remedy, path=path)
    if not shape:
        raise InputError("holds a single value, not rows of them", "save an array of numbers", path=path)
    return shape, fortran, dtype


def _bytes(values: np.ndarray) -> memoryview:
    """The bytes of an array in C order, not copied."""
    return values.reshape(-1).view(np.uint8).data


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of named arrays, strings, sequences of strings and ``None``, types and shapes included."""
    sha = hashlib.sha256()
    for name, part in parts.items():
        if isinstance(part, np.ndarray) and part.dtype != object:
            kind, body = f"{part.dtype.str}{part.shape}", _bytes(np.asarray(part, order="C"))
        else:
            text = json.dumps(part.tolist() if isinstance(part, np.ndarray) else part)
            kind, body = "json", memoryview(text.encode())
        sha.update(f"{name}:{kind}:{len(body)}:".encode())
        sha.update(body)
    return sha.hexdigest()
