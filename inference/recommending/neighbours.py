"""Users that are like a user, and the nearest rows by cosine that they and similar items are found by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from inference.average import without_pairs
from inference.fitting import Fit
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import UnknownId

SCORES_AT_ONCE = 2**24


def similar_users(
    fit: Fit, users: Iterable[Any], top: int = 10, *, exclude: Iterable[Any] = (), unknown: UnknownId = "error"
) -> pd.DataFrame:
    """The ``top`` users nearest by cosine of the means of u: columns to, rank, user, score, pairs.

    ``pairs`` counts the training pairs of the user that is found. Users without any are no neighbours: nothing is known
    of them but the prior. Nor have they neighbours: ``unknown`` "error" raises InputError for them as for users whom
    the fit does not know, anything else leaves both out. Biases are no part of the cosine. As of similar items there is
    no standard deviation. ``exclude`` are users that are not to be found.
    """
    dataset, strict = fit.dataset, unknown == "error"
    rows = dataset.user_rows(dict.fromkeys(users), unknown="error" if strict else "drop")
    lacking = without_pairs(fit.split.train)
    if strict and lacking[rows].any():
        user = dataset.user_ids[rows[lacking[rows]][0]]
        raise InputError(f"the user {user!r} has no training pair, so nobody is like them", "leave them out")
    rows = rows[~lacking[rows]]
    allowed = ~lacking
    allowed[dataset.user_rows(exclude)] = False
    values, found = nearest(fit.posterior.u_loc[:, : fit.posterior.n_factors], rows, allowed, top)
    n, length = found.shape
    chosen = found.numpy().ravel()
    columns = {
        "to": np.repeat(dataset.user_ids[rows], length),
        "rank": np.tile(np.arange(1, length + 1), n),
        "user": dataset.user_ids[chosen],
        "score": values.numpy().ravel(),
        "pairs": fit.split.train.user_counts[chosen],
    }
    return pd.DataFrame(columns)[np.isfinite(columns["score"])].reset_index(drop=True)


def nearest(vectors: Tensor, rows: np.ndarray, allowed: np.ndarray, top: int) -> tuple[Tensor, Tensor]:
    """For some rows the ``top`` others by cosine, (n_asked, n_found) each, as (cosines, rows).

    Shapes: ``vectors`` (n_rows, n_factors), ``rows`` (n_asked,), ``allowed`` bool (n_rows,) says what may be found. A
    cosine is -inf behind the last of these. The cosines with all rows are made in blocks.
    """
    lengths, barred = vectors.norm(dim=-1).clamp(min=torch.finfo(vectors.dtype).tiny), torch.as_tensor(~allowed)
    asked, top = torch.as_tensor(rows), min(top, len(vectors))
    found = [(vectors.new_zeros(0, top), asked.new_zeros(0, top))]
    for block in asked.split(max(1, SCORES_AT_ONCE // len(vectors))):
        unit = vectors[block] / lengths[block, None]
        cosines = (unit @ vectors.mT).div_(lengths).masked_fill_(barred, -torch.inf)
        cosines[torch.arange(len(block)), block] = -torch.inf
        best = cosines.topk(top)
        found.append((best.values.where(best.values.isinf(), best.values.clamp(-1, 1)), best.indices))
    return torch.cat([values for values, _ in found]), torch.cat([places for _, places in found])
