"""Items that are left out of one user's list alone: a table of pairs of user and item."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.frames import id_pairs
from pyro_cvae.text import counted

log = logging.getLogger("pyro_cvae")


@dataclass(frozen=True, eq=False)
class Exclusions:
    """Pairs that are not to be listed, by the rows of a data set.

    Shapes: ``matrix`` sparse (n_users + n_strangers, n_items) of ones. ``strangers`` are users that the data set does
    not know, each with its row behind the data set's own.
    """

    matrix: sp.csr_matrix
    strangers: dict[str, int]

    def of(self, rows: np.ndarray, users: Sequence[Any]) -> sp.csr_matrix:
        """What is excluded for some users, sparse (n_asked, n_items): their rows, -1 a stranger, and their ids."""
        at = np.array(rows, np.int64)
        for place in np.flatnonzero(at < 0).tolist():
            at[place] = self.strangers.get(str(users[place]), -1)
        found = self.matrix[np.maximum(at, 0)]
        return sp.diags_array((at >= 0).astype(found.dtype)) @ found if (at < 0).any() else found


def exclusions_in(table: Any, dataset: Dataset, asked: Sequence[Any] = ()) -> Exclusions:
    """Those of a table with columns ``user`` and ``item`` as :func:`pyro_cvae.data.frames.from_frames` takes it.

    Other columns are passed over. Raises InputError for what is no such table; see :func:`exclusions_of`.
    """
    return exclusions_of(dataset, *id_pairs(table, "exclude_pairs"), asked)


def exclusions_of(
    dataset: Dataset, users: Sequence[Any], items: Sequence[Any], asked: Sequence[Any] = ()
) -> Exclusions:
    """The exclusions of pairs, the user and the item of each by their ids.

    Users that the data set does not know count if they are ``asked`` for. Other pairs of an unknown user or item are
    left out and counted in one line of the log.
    """
    rows, columns = dataset.user_rows(users, unknown="prior"), dataset.item_rows(items, unknown="prior")
    known = dataset.user_rows(asked, unknown="prior")
    names = dict.fromkeys(str(user) for user, row in zip(asked, known, strict=True) if row < 0)
    strangers = {name: dataset.n_users + place for place, name in enumerate(names)}
    for place in np.flatnonzero(rows < 0).tolist() if strangers else ():
        rows[place] = strangers.get(str(users[place]), -1)
    kept = (rows >= 0) & (columns >= 0)
    if not kept.all():
        log.warning(
            "%s left out, as of unknown users (%d) or items (%d)",
            counted((~kept).sum(), "excluded pair", "were", of=len(kept)),
            *(int((rows < 0).sum()), int((columns < 0).sum())),
        )
    cells = rows[kept], columns[kept]
    shape = dataset.n_users + len(strangers), dataset.n_items
    matrix = sp.coo_matrix((np.ones(int(kept.sum()), np.float32), cells), shape=shape).tocsr()
    return Exclusions(matrix, strangers)
