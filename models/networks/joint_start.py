"""Perceptrons of several contents, started from the singular vectors of all of them side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from models.networks.base import Decoder, Encoder, Start
from models.networks.of_data import leading_directions, matrix_of
from models.networks.spread import rank
from models.rows import DenseRows, PartRows

LOC = 0.5
"""Standard deviation at which the sum of the experts' means starts, by the mean over factors."""
MOST_NUMBERS = 25_000_000
"""Numbers of vectors and images that are held at once, 0.3 GB as a sparse matrix."""


@torch.no_grad()
def start_together(experts: Mapping[str, Encoder], decoders: Mapping[str, Decoder], start: Start) -> None:
    """Start these experts and their decoders in axes that they share, in place.

    X = [X_1 / c_1, ..., X_M / c_M] has the contents side by side, zeros where an item lacks one, and c_m is the root
    mean square length of the rows that are there: no content counts for more because its numbers are larger. With
    X = U S V', the mean of expert m starts as X_m V_m / c_m up to a factor that all have in common, so that together
    they give the truncated SVD U S of everything that an item has. Where dense contents have more than
    :data:`MOST_NUMBERS`, the SVD is of a sample of the items.
    """
    rows: Any = start.inputs
    dense = sum(part.form.n_features for part in rows.parts.values() if isinstance(part, DenseRows))
    if dense * len(rows) > MOST_NUMBERS:
        rows = rows.select(start.some(max(start.sample, MOST_NUMBERS // dense)))
    blocks = {name: _block(rows, name) for name in experts}
    width = min(expert.directions for expert in experts.values())
    asked = min(width, min(len(rows), sum(block.shape[1] for block in blocks.values())) - 1)
    if asked < 1:
        return
    seed = int(torch.randint(2**31 - 1, ()))
    joined = sparse.hstack(list(blocks.values()), "csr")
    singular, right = leading_directions(joined, asked, 1, seed)
    right = right[: rank(singular)]
    edge, wanted = 0, {}
    for name, block in blocks.items():
        own = right[:, edge : edge + block.shape[1]]
        edge += block.shape[1]
        expert: Any = experts[name]
        expert.start(decoders[name], replace(start.part(name), directions=own))
        wanted[name] = float(np.sqrt(((block @ own.T) ** 2).sum() / max(len(rows.items(name)), 1)))
    _weigh(experts, wanted, start)


def _block(rows: PartRows, name: str) -> Any:
    """The rows of one content over its root mean square length, of all items, sparse (n_items, n_features)."""
    numbers: Any = rows.parts[name]
    own = sparse.csr_matrix(matrix_of(numbers))
    length = float(np.sqrt(own.multiply(own).sum() / max(own.shape[0], 1)))
    own = own / length if length else own
    spread = sparse.csr_matrix((np.ones(own.shape[0]), (rows.items(name).cpu().numpy(), np.arange(own.shape[0]))),
                               shape=(len(rows), own.shape[0]))  # fmt: skip
    return spread @ own


def _weigh(experts: Mapping[str, Encoder], wanted: Mapping[str, float], start: Start) -> None:
    """Scale the experts' means to root mean square lengths in the ratios ``wanted``, and their sum to :data:`LOC`."""
    sampled: Any = start.inputs.select(start.some())
    total: Tensor | None = None
    for name, expert in experts.items():
        own: Any = expert
        if not len(sampled.parts[name]):
            continue
        loc = own(sampled.parts[name])[0]
        length = loc.square().sum(1).mean().sqrt().clamp(min=1e-30)
        scale = float(wanted[name] / length)
        own.loc.weight.mul_(scale)
        own.loc.bias.mul_(scale)
        part = loc.new_zeros(len(sampled), loc.shape[1]).index_copy(0, sampled.items(name), scale * loc)
        total = part if total is None else total + part
    if total is None or len(total) < 2:
        return
    wide = total.var(0).mean().sqrt()
    for expert in experts.values() if float(wide) > 0 else ():
        own = expert
        own.loc.weight.mul_(LOC / wide)
        own.loc.bias.mul_(LOC / wide)
