"""The same story with dense tensors at its observed sites, for Pyro's own tools, which follow tensors only."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger

from models.observations import DenseRows, RatingColumns, SparseRows


class DenseSites(Messenger):
    """Dense distributions and values in the place of rows of content and columns of ratings.

    A rating that is missing has the value 0 and the precision 1e-12. Sequences of tokens and several contents at once
    have no dense form: their site is left out, as one that is observed and tells nothing more.
    """

    def _pyro_sample(self, msg: Any) -> None:
        value = msg["value"]
        if isinstance(value, SparseRows | DenseRows) and hasattr(msg["fn"], "dense"):
            msg["fn"], msg["value"] = msg["fn"].dense(), value.dense()
        elif isinstance(value, RatingColumns):
            msg["fn"], msg["value"] = msg["fn"].dense(), value.dense(0.0)[0]
