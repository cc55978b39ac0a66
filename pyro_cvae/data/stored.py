"""The files of a saved data set or split, each held to what it must be before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from pyro_cvae.arrays import Array, check_arrays
from pyro_cvae.checks import Natural
from pyro_cvae.data import files
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.errors import InputError
from pyro_cvae.listed import Listed

AGAIN = "make the folder again"
DATASET = {
    "schema": int,
    "name": str,
    "n_users": Natural,
    "n_items": Natural,
    "n_features": Natural,
    "fingerprint": str,
    "truth": bool,
    "vectorizer": dict[str, Any] | None,
    "vocabulary": list[str] | None,
    "others": dict[str, dict[str, Any]],
}
"""Types of the entries of dataset.json."""
SPLIT = {
    "schema": int,
    "n_users": Natural,
    "n_items": Natural,
    "fingerprint": str,
    "parts": list[str],
    "tuning_users": list[Natural] | None,
    "protocol": dict[str, Any],
}
"""Types of the entries of split.json."""
_WHOLE = ("int64", "int32")
_FLOAT = ("float64", "float32")


def every_file(folder: files.PathLike | Listed) -> Listed:
    """What may be read of a folder: what its manifest lists, or of one without a manifest everything."""
    return folder if isinstance(folder, Listed) else Listed(files.need_folder(folder), None)


def load_json(listed: Listed, name: str, *schemas: int) -> dict[str, Any]:
    """A JSON object with one of these ``schema`` numbers."""
    return files.read_json(listed.file(name, AGAIN), *schemas)


def load_arrays(listed: Listed, name: str) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    return files.read_arrays(listed.file(name, AGAIN))


def load_ids(listed: Listed, name: str, n: int) -> dict[str, np.ndarray]:
    """Columns ``id`` and, where there is one, ``title`` of ``n`` users or items; titles are texts or missing."""
    path = listed.file(name, AGAIN)
    columns = files.read_table(path)
    check_arrays(columns, {"id": Array((n,), ("object", *_WHOLE))}, path)
    check_arrays(columns, {"title": Array((n,), ("object",))}, path, optional=("title",))
    if not all(title is None or isinstance(title, str) for title in columns.get("title", ())):
        raise InputError("has a title that is no text", AGAIN, path=path)
    return columns


def load_interactions(listed: Listed, name: str, n_users: int, n_items: int) -> Interactions:
    """The pairs of a Parquet file that :meth:`Interactions.columns` gave, within so many users and items."""
    path = listed.file(name, AGAIN)
    columns = files.read_table(path)
    n = len(next(iter(columns.values()), ()))
    optional = ("confidences", "times")
    check_arrays(
        columns,
        {
            "users": Array((n,), _WHOLE, 0, n_users - 1),
            "items": Array((n,), _WHOLE, 0, n_items - 1),
            "ratings": Array((n,), _FLOAT),
            "confidences": Array((n,), _FLOAT, finite=False),
            "times": Array((n,), _FLOAT, finite=False),
        },
        path,
        optional,
    )
    confidences, times = (columns.get(name) for name in optional)
    try:
        users, items, ratings = (columns[name] for name in ("users", "items", "ratings"))
        return Interactions(users, items, ratings, confidences, times, n_users, n_items)
    except InputError as error:
        raise InputError(error.problem, AGAIN, path=path) from None


def csr_of(arrays: Mapping[str, Any], shape: tuple[int, int], path: Path | None = None) -> sp.csr_matrix:
    """The sparse matrix of ``data``, ``indices`` and ``indptr``, all of which are looked at: scipy trusts them."""
    n = len(arrays["indices"])
    expected = {
        "data": Array((n,), _FLOAT),
        "indices": Array((n,), _WHOLE, 0, shape[1] - 1),
        "indptr": Array((shape[0] + 1,), _WHOLE, 0, n),
    }
    check_arrays(arrays, expected, path)
    indptr = arrays["indptr"]
    if indptr[0] != 0 or indptr[-1] != n or (np.diff(indptr) < 0).any():
        raise InputError("the starts of the rows do not fit their entries", AGAIN, path=path)
    return sp.csr_matrix(tuple(arrays[name] for name in ("data", "indices", "indptr")), shape=shape)


def load_truth(listed: Listed, n_users: int, n_items: int) -> dict[str, np.ndarray]:
    """What a simulator drew: numbers, of which scores, u, v and z have a row for each user or item."""
    path = listed.file("truth.safetensors", AGAIN)
    arrays = files.read_arrays(path)
    rows = {"scores": (n_users, n_items), "u": (n_users, None), "v": (n_items, None), "z": (n_items, None)}
    shapes = {name: rows.get(name, array.shape) for name, array in arrays.items()}
    check_arrays(arrays, {name: Array(shape, (*_FLOAT, *_WHOLE, "bool")) for name, shape in shapes.items()}, path)
    return arrays
