"""The same story with dense tensors at its observed sites, for Pyro's own tools, which follow tensors only."""

from __future__ import annotations

from typing import Any

from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger

from models.observations import DenseRows, PartRows, RatingColumns, SparseRows, TokenRows


class DenseSites(Messenger):
    """Dense distributions and values in the place of rows of content and columns of ratings.

    A rating that is missing has the value 0 and no density. Sequences of tokens, several contents at once, and words of
    which a training step draws some have no dense form: their log density is a factor, whose value is empty.
    """

    def _pyro_sample(self, msg: Any) -> None:
        fn, value = msg["fn"], msg["value"]
        if isinstance(value, RatingColumns) or (isinstance(value, SparseRows | DenseRows) and hasattr(fn, "dense")):
            given = value.dense(0.0)[0] if isinstance(value, RatingColumns) else value.dense()
            msg["fn"], msg["value"] = fn.dense(), given
        elif isinstance(value, SparseRows | DenseRows | TokenRows | PartRows):
            log_density = fn.log_prob(value)
            msg["fn"], msg["value"] = Unit(log_density), log_density.new_zeros(*log_density.shape, 0)
