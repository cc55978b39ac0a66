r"""The rival that a learned encoder has to be better than: vectors of the contents held as m, without any network.

For each user i and item j

    u_i ~ N(0, lambda_u^-1 I),    v_j ~ N(c_j x_j, lambda_v^-1 I),    R_ij ~ N(u_i.v_j, 1 / C_ij),

x_j the unit vectors of a truncated SVD of the contents, C_ij = 1 where the pair was chosen and b elsewhere. It is
fitted by the sweeps of ``inference.coordinate --mode map``. b, the shrinkages and c are looked for as ``--tune`` looks
for them (:mod:`inference.algorithms.choosing`), on training pairs that rehearse what the split holds out. Where nothing
can be hidden they are those that a validation part of the training ratings of citeulike-t chose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.algorithms.choosing import choose
from inference.algorithms.precisions import set_relative, short_fit
from inference.options import Options
from models.item_prior import ItemPrior
from models.observations import Batch, RatingColumns
from models.pmf import PMF
from models.ratings import RatingLikelihood
from models.ratings.confidence_normal import ConfidenceNormal
from pyro_cvae.data.splits import Split
from pyro_cvae.text import counted

TRIALS = 19
"""Short fits, as many as ``--preset best`` has."""
A, B, ITEM_SHRINKAGE = 1.0, 0.01, 1.0
USER_SHRINKAGES = 30.0, 10.0
"""Where the search begins, where users have one training pair and where they have more."""


class Held(ItemPrior):
    """m_j = x_j, (n_items, n_factors), which is given and not learned."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors: Tensor
        self.register_buffer("vectors", vectors, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """The vectors of the minibatch."""
        return self.vectors[batch.items]

    def encode(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """The rows of ``inputs`` are vectors themselves, known for certain."""
        return inputs, torch.zeros_like(inputs)


class HeldVectors(PMF):
    """The story of the :class:`~models.pmf.PMF` with items around ``vectors`` (n_items, n_factors)."""

    has_content = True
    reads_by = Held

    def __init__(self, n_users: int, vectors: Tensor, ratings: RatingLikelihood, **precisions: float) -> None:
        n_items, n_factors = vectors.shape
        super().__init__(n_users, n_items, n_factors, ratings, **precisions)
        self.item_prior = Held(vectors)


@dataclass(frozen=True, eq=False)
class HeldFit:
    """Means of u (n_users, n_factors) and v (n_items, n_factors), and the ``settings`` in words."""

    u: Tensor
    v: Tensor
    settings: str


@torch.no_grad()
def fit_held(vectors: Tensor, split: Split, sweeps: int = 10, trials: int = TRIALS) -> HeldFit:
    """Fit u and v to the positive training pairs around ``vectors`` (n_items, n_factors), with settings found.

    With no ``trials`` the settings are those where the search begins.
    """
    train = split.train.select(split.train.positive)
    columns = RatingColumns.from_interactions(train, A, unit=split.train.weight_unit)
    shrinkage = USER_SHRINKAGES[int(np.median(split.train.user_counts) > 1)], ITEM_SHRINKAGE
    kind = str(split.protocol.get("kind"))
    rehearsed = kind == "items" or (kind in ("time", "last") and train.times is not None)
    held_out = {"split": kind} if rehearsed else {}  # what options make of it is what the search hides
    own = {"a": A, "b": B, "user_shrinkage": shrinkage[0], "item_shrinkage": shrinkage[1]}
    options = Options.of("coordinate", mode="map", factors=vectors.shape[1], tune=trials, **own, **held_out)
    model = HeldVectors(split.train.n_users, vectors, ConfidenceNormal(A, B))
    model.to_find = ("lambda_u", "lambda_v")
    set_relative(model, columns, vectors, shrinkage, 1.0)
    rows = choose(model, columns, {0: vectors}, options)[1] if trials else []
    taken = [row for row in rows if row["taken"] == "yes"]
    told = "fixed, since too few training pairs can be hidden to choose them on" if trials else "fixed"
    if taken:
        scales = ", ".join(f"c {row['cold_scale']:.3g} ({row['cold']})" for row in taken)
        told = f"{scales}: the best of {counted(len(rows), 'trial')} on training pairs that were hidden"
    power = f" n^{model.ratings.b_power:.3g}" if model.ratings.b_power else ""
    found = f"b {model.ratings.background:.3g}{power}, lambda_u {model.lambda_u:.3g}, lambda_v {model.lambda_v:.3g}"
    u, v, _ = short_fit(model, model.ratings.weighed(columns), vectors, "point", sweeps)
    return HeldFit(u, v, f"{found}, {told}")
