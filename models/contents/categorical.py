"""Categorical content: which one of the features is it?"""

from __future__ import annotations

from typing import ClassVar

import torch
from pyro import distributions as dist
from torch import Tensor

from models.contents.base import of_scaling
from models.contents.multinomial import Multinomial
from models.rows import NumberRows, SparseRows
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Scaling


class Categorical(Multinomial):
    """x_j ~ Categorical(softmax(l_j)): one feature is 1, the others are 0 (paper, section 2.1).

    log p(x | l) = l_w - logsumexp(l) of the feature w present: the multinomial of length 1. An item without a category
    is missing and says nothing: log p = 0, and a draw leaves it without one.
    """

    default_scaling: ClassVar[Scaling] = "binary"

    def check(self, obs: NumberRows) -> None:
        """Every item must have a single 1, or nothing."""
        present = obs.values != 0
        counts = torch.bincount(obs.rows[present], minlength=len(obs))
        if not bool((obs.values[present] == 1).all()) or bool((counts > 1).any()):
            words = "use --scaling binary if only values differ, or --content-likelihood multinomial or bernoulli"
            remedy = of_scaling(obs, words, "normal")
            raise InputError("categorical content must be one feature an item, with the value 1", remedy)

    def sample(self, params: dict[str, Tensor], like: NumberRows) -> SparseRows:
        """A category for each item that has one in ``like``."""
        drawn = dist.OneHotCategorical(logits=params["logits"]).sample() * (like.totals > 0)[:, None]
        return SparseRows.from_dense(drawn)
