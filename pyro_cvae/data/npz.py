"""Archives of arrays, ``.npz``: what each member says that it holds is looked at before any of it is unpacked."""

from __future__ import annotations

import io
import math
import zipfile
from typing import BinaryIO, cast

import numpy as np

from pyro_cvae.data import gate
from pyro_cvae.data.files import npy_header
from pyro_cvae.errors import InputError, PyroCvaeError


def read_npz(path: gate.PathLike, names: tuple[str, ...], remedy: str) -> list[np.ndarray]:
    """The arrays of these names, numbers or text; InputError where one is missing, damaged, or would be too large."""
    raw = gate.read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            there = {info.filename: info for info in archive.infolist()}
            if any(f"{name}.npy" not in there for name in names):
                raise InputError(f"does not hold {' and '.join(sorted(names))}", remedy, path=path)
            return [_read_member(path, archive, there[f"{name}.npy"], remedy) for name in names]
    except (PyroCvaeError, MemoryError):
        raise
    except Exception:  # what a damaged archive is taken for, and fails as, has no end
        raise InputError("is damaged, or no .npz file", remedy, path=path) from None


def _read_member(path: gate.PathLike, archive: zipfile.ZipFile, info: zipfile.ZipInfo, remedy: str) -> np.ndarray:
    if info.flag_bits & 1:
        raise InputError("is protected by a password", remedy, path=path)
    with archive.open(info) as stream:
        shape, fortran, dtype = npy_header(cast(BinaryIO, stream), path, remedy)
        if dtype.kind not in "biufU":
            problem = f"is damaged, or holds objects, not numbers and text ({info.filename}: {dtype})"
            raise InputError(problem, "save ids as text: np.array(ids, str)", path=path)
        wanted = math.prod(shape) * dtype.itemsize
        gate.check_unpacked(path, info.compress_size, wanted, "save it as .npy, which is mapped, or make it smaller")
        if stream.tell() + wanted != info.file_size:
            problem = f"is damaged: {info.filename} has {info.file_size} bytes and says {stream.tell() + wanted}"
            raise InputError(problem, remedy, path=path)
        body = stream.read(wanted + 1)
    if len(body) != wanted:
        raise InputError(f"is damaged: {info.filename} is cut short", remedy, path=path)
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
