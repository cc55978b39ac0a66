"""How much each user counts in what strangers are shown (:mod:`inference.average`)."""

from __future__ import annotations

import torch
from scipy.stats import rankdata
from torch import Tensor

POWER = -0.5
"""The weight of a user is this power of the number of training pairs, where these are choices."""
LATER, FEWEST = 0.125, 100
"""Users who came later, as a share of all and in number at least, by whom a user's weight falls by e."""


def weights_of_counts(counts: Tensor, power: float = POWER, last: Tensor | None = None) -> Tensor:
    """Weights n_i^power of users with n_i pairs, (n_users,), which add up to 1, float64; 0 of users with none.

    With the time of each user's ``last`` pair, (n_users,), they are n_i^power exp(-l_i / L): l_i users were there later
    than i, of those at the same time one half, and L is :data:`LATER` of all users, :data:`FEWEST` at least. One
    without a time counts as the earliest. Where nobody has a pair, weights are the same of everybody.
    """
    known = counts > 0
    if not bool(known.any()):
        return torch.full(counts.shape, 1.0 / max(1, len(counts)), dtype=torch.float64)
    weights = torch.where(known, counts.clamp(min=1).double() ** power, 0.0)
    if last is not None:
        times = last[known].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        later = torch.from_numpy(rankdata(-times.cpu().numpy())).to(weights) - 0.5
        weights[known] *= torch.exp(-later / max(LATER * len(later), FEWEST))
    return weights / weights.sum()


def last_times(users: Tensor, times: Tensor | None, n_users: int) -> Tensor | None:
    """The time of each user's last pair, (n_users,), NaN of those without any; ``None`` where pairs have no times."""
    if times is None:
        return None
    last = times.new_full((n_users,), -torch.inf)
    last.scatter_reduce_(0, users, times.nan_to_num(nan=-torch.inf), "amax")
    return torch.where(last.isneginf(), torch.nan, last)
