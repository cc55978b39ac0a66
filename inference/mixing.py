"""How much each user counts in what strangers are shown (:mod:`inference.average`)."""

from __future__ import annotations

import torch
from torch import Tensor

POWER = -0.5
"""The weight of a user is this power of the number of training pairs, where these are choices."""


def weights_of_counts(counts: Tensor, power: float = POWER) -> Tensor:
    """Weights n_i^power of users with n_i pairs, (n_users,), which add up to 1, float64; 0 of users with none.

    Where nobody has a pair, they are the same of everybody.
    """
    known = counts > 0
    if not bool(known.any()):
        return torch.full(counts.shape, 1.0 / max(1, len(counts)), dtype=torch.float64)
    weights = torch.where(known, counts.clamp(min=1).double() ** power, 0.0)
    return weights / weights.sum()
