"""Sparse matrices of users and items, as ``scipy`` and ``implicit`` have them, and Arrow tables, to and from data sets.

A matrix has no ids and its entries do not say what they are. Both are told here, and nothing is guessed.
"""

from __future__ import annotations

import logging
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from pyro_cvae.data.dataset import Dataset, typed_ids
from pyro_cvae.data.frames import items_like, no_text
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.reading import Reading
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Entries
from pyro_cvae.text import counted

log = logging.getLogger(__name__)


def from_csr(
    matrix: Any,
    user_ids: Any = None,
    item_ids: Any = None,
    items: Any = None,
    *,
    entries: Entries = "choices",
    name: str = "matrix",
    n_words: int = 8000,
    reading: Reading | None = None,
) -> Dataset:
    """A data set from a sparse matrix (n_users, n_items) of any format of ``scipy``.

    Parameters:
        matrix: Its stored entries are the pairs; what is not stored is not chosen.
        user_ids: The user of each row, whole numbers or texts; by default the row's number.
        item_ids: The item of each column, the same.
        items: A table of the items (``item``, ``text``, ``title``) as :func:`pyro_cvae.data.frames.from_frames` takes
            it, in any order. Every column's item must be in it. Items that it has beside become items without users,
            behind the columns. Without it the data have no content.
        entries: What an entry is: ``"choices"``: above 0 it says that the user chose the item, and no more;
            ``"weights"``: the weight of a choice, 0 for a missing cell, as ``implicit`` has confidences; ``"stars"``:
            the rating R_ij.
        name: Label of the data set.
        n_words: Size of the vocabulary.
        reading: How the table of items is read.

    Rows and columns keep their order. Entries of one cell are added up, as ``scipy`` does. Raises InputError for what
    is no sparse matrix, ids that do not fit its shape (which are told with its orientation), and entries that are not
    finite.
    """
    _check(entries)
    if not sp.issparse(matrix) or matrix.ndim != 2:
        raise InputError(f"matrix is a {type(matrix).__name__}", "give a sparse matrix of scipy, (n_users, n_items)")
    cells = matrix.tocsr().copy()
    cells.sum_duplicates()
    n_users, n_items = cells.shape
    users, things = (
        np.arange(n) if ids is None else typed_ids(ids, f"{side}_ids")
        for n, ids, side in ((n_users, user_ids, "user"), (n_items, item_ids, "item"))
    )
    for side, ids, n in (("user", users, n_users), ("item", things, n_items)):
        if ids.shape != (n,):
            turned = (len(users), len(things)) == (n_items, n_users)
            problem = f"the matrix is {n_users} x {n_items}, users x items, but there are {len(ids)} {side}_ids"
            raise InputError(problem, "give its transpose, matrix.T" if turned else "give one id for each")
    values = np.asarray(cells.data, np.float64)
    if not np.isfinite(values).all():
        raise InputError("the matrix has an entry that is no finite number", "leave the cell out")
    rows, columns = np.repeat(np.arange(n_users), np.diff(cells.indptr)), cells.indices
    if entries == "choices" and not (values > 0).all():
        told = counted((values <= 0).sum(), "entry", "are", of=len(values))
        log.warning("%s 0 or less, which is no choice and left out", told)
        rows, columns, values = rows[values > 0], columns[values > 0], values[values > 0]
    content, titles = no_text(n_items), None
    if items is not None:
        things, content, titles = items_like(items, things, n_words, reading)
    pairs = Interactions.from_arrays(
        rows,
        columns,
        n_users=n_users,
        n_items=len(things),
        ratings=values if entries == "stars" else None,
        confidences=values if entries == "weights" else None,
    )
    return Dataset(name, pairs, content, users, things, titles)


def to_csr(pairs: Interactions, entries: Entries = "choices") -> sp.csr_matrix:
    """The observed pairs of a data set or a part of a split as a matrix (n_users, n_items), float32.

    ``entries`` as in :func:`from_csr`: ones; the weights, where a pair states none the usual one
    (:attr:`~pyro_cvae.data.interactions.Interactions.weight_unit`); or the ratings. ``implicit`` takes the matrix in
    its ``fit(user_items)``. Rows and columns are those of the data set's ``user_ids`` and ``item_ids``.
    """
    _check(entries)
    matrix = pairs.csr().astype(np.float32)
    if entries == "stars":
        return matrix
    seen = pairs.observed
    values = np.ones(int(seen.sum())) if entries == "choices" or pairs.confidences is None else pairs.confidences[seen]
    matrix.data[:] = np.where(np.isnan(values), pairs.weight_unit, values)
    return matrix


def to_arrow(dataset: Dataset, pairs: Interactions | None = None) -> pa.Table:
    """The pairs of a data set, or of a part of its split, as an Arrow table by external ids.

    Columns ``user``, ``item``, ``rating`` and, if known, ``weight`` and ``time``: what
    :func:`pyro_cvae.data.frames.from_frames` reads. A weight or a time that a pair has not is null.
    ``polars.from_arrow`` makes it a polars frame.
    """
    pairs = dataset.interactions if pairs is None else pairs
    columns = {"user": dataset.user_ids[pairs.users], "item": dataset.item_ids[pairs.items], "rating": pairs.ratings}
    columns |= {} if pairs.confidences is None else {"weight": pairs.confidences}
    columns |= {} if pairs.times is None else {"time": pairs.times}
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})


def _check(entries: str) -> None:
    if entries not in get_args(Entries):
        raise InputError(f"entries is {entries!r}", f"use {' or '.join(get_args(Entries))}")
