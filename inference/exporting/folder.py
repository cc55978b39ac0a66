"""A folder of exported factors: Parquet tables, an npz file or an index of faiss, and ``export.json``, which tells all.

Parquet has a table for users, items and the pairs that lists leave out, in ids. The npz file has the same arrays by
name, with these pairs in rows of ``users`` and ``items``. The index of faiss holds the items' vectors, in the order of
the table of items beside it. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from inference.exporting.factors import Factors, factors_of
from inference.fitting import Fit
from inference.kinds import Export
from inference.options.checking import choice
from inference.recommending.updated import fitted_part
from pyro_cvae.data.files import write_json
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.runs.disk import sync, writing
from pyro_cvae.whole import whole_folder

SCHEMA = 1
MANIFEST = "export.json"
USERS, ITEMS, SEEN, ARRAYS, INDEX = "users.parquet", "items.parquet", "seen.parquet", "factors.npz", "items.faiss"
OURS = (MANIFEST, USERS, ITEMS, SEEN, ARRAYS, INDEX)
"""All files that such a folder may have, of whatever format."""
VECTOR = "vector"
Parts = dict[str, dict[str, np.ndarray]]
"""Arrays by file and name."""


def export_factors(
    fit: Fit, out: str | os.PathLike[str], format: Export = "parquet", *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the factors of a fit into a new folder ``out``, whole or not at all; returns what ``export.json`` says.

    ``format`` is "parquet", "npz" or "faiss" (:mod:`inference.exporting.folder`); ``overwrite`` replaces an earlier
    export. Raises InputError where ``out`` exists or the ids cannot stand in the format, MachineError where the disk is
    full, memory is short, or the package faiss is not installed.
    """
    check_format(format)
    with writing(Path(out)), whole_folder(out, overwrite, OURS) as folder:
        factors = factors_of(fit)
        parts = parts_of(factors, format)
        for name, arrays in parts.items():
            _WRITERS[Path(name).suffix](folder / name, arrays)
            sync(folder / name)
        manifest = manifest_of(fit, factors, parts, format)
        write_json(folder / MANIFEST, manifest)
        sync(folder / MANIFEST)
    return manifest


def check_format(format: str) -> None:
    """InputError for an unknown format, MachineError for faiss where it is not installed."""
    choice("format", format, get_args(Export))
    if format == "faiss":
        _faiss()


def parts_of(factors: Factors, format: Export) -> Parts:
    """The arrays by file and name, as they are written in that format; InputError for ids that it cannot hold."""
    f = factors
    if format == "npz":
        arrays = {"user_ids": _text(f.user_ids, "users"), "item_ids": _text(f.item_ids, "items")}
        arrays |= {"users": f.users, "items": f.items, "average_user": f.average_user}
        arrays |= {"user_origins": f.origins.astype(str), "item_groups": f.groups.astype(str)}
        arrays |= {"seen": f.seen, "held_out": f.held_out}
        optional = {"user_variances": f.user_variances, "item_variances": f.item_variances, "z": f.content}
        optional["titles"] = None if f.titles is None else f.titles.astype(str)
        return {ARRAYS: arrays | {name: array for name, array in optional.items() if array is not None}}
    users = {"id": f.user_ids, "origin": f.origins, VECTOR: f.users, "variance": f.user_variances}
    items = {"id": f.item_ids, "title": f.titles, "group": f.groups, VECTOR: f.items, "variance": f.item_variances}
    items["z"] = f.content
    seen = {"user": f.user_ids[f.seen[:, 0]], "item": f.item_ids[f.seen[:, 1]], "held_out": f.held_out}
    tables: dict[str, dict[str, Any]] = {USERS: users, ITEMS: items, SEEN: seen}
    if format == "faiss":
        tables[INDEX] = {VECTOR: items.pop(VECTOR)}
    return {file: {name: c for name, c in table.items() if c is not None} for file, table in tables.items()}


def manifest_of(fit: Fit, factors: Factors, parts: Parts, format: Export) -> dict[str, Any]:
    """What ``export.json`` says: of which fit it is, what the columns are, and shape and type of every array."""
    first, columns = 0, []
    for n, of_users, of_items in factors.columns:
        columns.append({"first": first, "number": n, "users": of_users, "items": of_items})
        first += n
    options = fit.options
    fitted = {"data": fit.dataset.name, "method": options.method_name, "mode": options.fit.mode}
    fitted |= {"model": options.model.model, "posterior": fit.posterior.kind}
    split = fitted_part(fit).split
    fingerprints = {"run": _of_run(fit), "data": fit.dataset.fingerprint(), "split": split.fingerprint()}
    return {
        "schema": SCHEMA,
        "format": format,
        "version": metadata.version("pyro-cvae"),
        "fit": fitted,
        "fingerprints": fingerprints,
        "users": len(factors.users),
        "items": len(factors.items),
        "width": factors.width,
        "dtype": "float32",
        "score": "inner product of a user's and an item's vector",
        "columns": columns,
        "average_user": factors.average_user.tolist(),
        "files": {
            file: {name: {"shape": list(a.shape), "dtype": _dtype(a)} for name, a in arrays.items()}
            for file, arrays in parts.items()
        },
    }


def _of_run(fit: Fit) -> str | None:
    """SHA-256 of the manifest of the fit's run folder, which has those of all its files; ``None`` without a folder."""
    if fit.path is None:
        return None
    return hashlib.sha256((fit.path / "manifest.json").read_bytes()).hexdigest()


def _dtype(array: np.ndarray) -> str:
    return "text" if array.dtype.kind in "OU" else str(array.dtype)


def _text(ids: np.ndarray, whose: str) -> np.ndarray:
    """Ids as an array without objects; InputError where that would change one."""
    if ids.dtype != object:
        return ids
    fixed = ids.astype(str)
    if (fixed.astype(object) != ids).any():  # numpy takes a NUL at the end for padding
        raise InputError(f"ids of {whose} end in a NUL character, which npz cannot hold", "take --format parquet")
    return fixed


def _write_parquet(path: Path, columns: dict[str, np.ndarray]) -> None:
    pq.write_table(pa.table({name: _arrow(column) for name, column in columns.items()}), path)


def _arrow(column: np.ndarray) -> pa.Array:
    """A column; rows of numbers become lists of fixed size."""
    if column.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1])
    return pa.array(column, pa.string() if column.dtype == object else None)


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def _write_faiss(path: Path, arrays: dict[str, np.ndarray]) -> None:
    faiss, vectors = _faiss(), arrays[VECTOR]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    path.write_bytes(faiss.serialize_index(index).tobytes())


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MachineError(
            "--format faiss needs the package faiss-cpu", "install it with: pip install faiss-cpu"
        ) from None
    return faiss


_WRITERS: dict[str, Callable[[Path, dict[str, np.ndarray]], None]] = {
    ".parquet": _write_parquet,
    ".npz": _write_npz,
    ".faiss": _write_faiss,
}
