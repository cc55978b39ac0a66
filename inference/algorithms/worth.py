r"""What hidden pairs are worth to a short fit: how high it ranks them.

A pair of rank r, among all items that the user has not chosen yet, is worth

    w(r) = log(M / r) / log(M / L) between 0 and 1,    L = 20 and M = 500, for few items n less: M <= n/2, L <= M/10,

the mean recall over lists of L to M items whose length is uniform on the log scale. It is computed at many scales c of
the contents of unrated items at once: their order among themselves does not depend on c.

Source: the recall over many lengths at once is an area under the recall curve, as in Cremonesi, Koren and Turrin,
RecSys 2010, on a log scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.algorithms.kernels import compiled_for
from models.base import FactorModel
from models.observations import RatingColumns

SURE = 2.0
"""Standard errors by which a step has to be better: of so many steps one is so by chance by a single one."""
SHORT, LONG = 20, 500
"""Lengths of lists between which recalls are averaged, where there are many items."""
USERS_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Training cells without hidden ones, and the hidden ones of the users that are looked at.

    Shapes: ``looked`` (n_looked,) users; ``users``, places among these, and ``items`` of hidden pairs (n_pairs,), by
    user; ``seen_users``, ``seen_items`` likewise of what these users have left.
    """

    known: RatingColumns
    looked: Tensor
    users: Tensor
    items: Tensor
    seen_users: Tensor
    seen_items: Tensor


@dataclass(frozen=True, eq=False)
class Worth:
    """What the hidden pairs are worth, the mean of each user, at every one of the ``scales``, (n_users, n_scales)."""

    of_users: Tensor
    scales: tuple[float, ...]

    @property
    def best(self) -> int:
        """The scale that is best, as an index; 1 unless another is better by more than a standard error."""
        best = int(self.of_users.mean(0).argmax())
        if 1.0 not in self.scales:
            return best
        one = self.scales.index(1.0)
        return best if _better(self.of_users[:, best], self.of_users[:, one]) else one

    @property
    def scale(self) -> float:
        """C where it is best."""
        return self.scales[self.best]

    @property
    def value(self) -> float:
        """The mean over users there."""
        return float(self.of_users[:, self.best].mean())

    def better_than(self, other: Worth) -> bool:
        """Whether it is, by more than :data:`SURE` standard errors of the difference."""
        return _better(self.of_users[:, self.best], other.of_users[:, other.best], SURE)


def _better(one: Tensor, other: Tensor, sure: float = 1.0) -> bool:
    away = one - other
    return float(away.mean()) > sure * float(away.std()) / len(away) ** 0.5


def worth_of(
    model: FactorModel,
    users: Tensor,
    items: Tensor,
    unrated: Tensor,
    held_out: HeldOut,
    tried: tuple[float, ...],
) -> Tensor:
    """What hidden pairs are worth at every scale, the mean of each user, (n_looked, n_scales)."""
    n = model.n_factors
    scales = torch.tensor(tried, dtype=items.dtype, device=items.device)
    long = max(2, min(LONG, len(items) // 2))
    short = max(1, min(SHORT, long // 10))
    own, others = torch.where(unrated)[0], torch.where(~unrated)[0]
    contents, rated_items = items[own, :n], model.of_items(items)[others]
    place = torch.where(unrated, unrated.long().cumsum(0), (~unrated).long().cumsum(0)) - 1  # among those of its kind
    sums = torch.zeros(len(held_out.looked), len(tried), dtype=torch.float64, device=items.device)
    counts = torch.bincount(held_out.users, minlength=len(sums))
    bounds, seen_bounds = (_bounds(one, len(sums)) for one in (held_out.users, held_out.seen_users))
    for start in range(0, len(sums), USERS_AT_ONCE):
        stop = min(start + USERS_AT_ONCE, len(sums))
        pairs, seen = slice(bounds[start], bounds[stop]), slice(seen_bounds[start], seen_bounds[stop])
        at, of = held_out.users[pairs] - start, held_out.items[pairs]
        rows = users[held_out.looked[start:stop]]
        scores = model.of_users(rows) @ rated_items.mT
        of_content = rows[:, :n] @ contents.mT
        alone = _biases(model, rows, items[own[:1]])
        hides = unrated[of]
        target = scores.new_empty(len(at), len(scales))
        target[~hides] = scores[at[~hides], place[of[~hides]]][:, None]
        own_content = of_content[at[hides], place[of[hides]]][:, None]
        target[hides] = own_content * scales + alone[at[hides], None]
        among_unrated = (target - alone[at, None]) / scales
        among_unrated[hides] = own_content.expand(-1, len(scales))  # to the last bit: an item is not above itself
        scores[held_out.seen_users[seen] - start, place[held_out.seen_items[seen]]] = -torch.inf
        above = count_above(scores, at, target)
        above += count_above(of_content, at, among_unrated)
        rank = 1.0 + above.double()
        worth = ((long / rank).log() / np.log(long / short)).clamp(0, 1)
        sums[start:stop].index_add_(0, at, worth)
    return sums / counts[:, None]


def _biases(model: FactorModel, users: Tensor, unrated: Tensor) -> Tensor:
    """What scores of unrated items have besides contents, the same for all of them, (n_users,)."""
    if model.mean is None or not len(unrated):
        return users.new_zeros(len(users))
    n = model.n_factors
    return (model.of_users(users)[:, n:] @ model.of_items(unrated)[:, n:].mT).squeeze(-1)


def count_above(scores: Tensor, at: Tensor, target: Tensor) -> Tensor:
    """How many scores of row ``at`` (n_pairs,) are above the targets (n_pairs, n_scales), of the same shape."""
    if not scores.shape[1]:
        return torch.zeros_like(target, dtype=torch.int64)
    n_rows = len(scores)
    counts = torch.bincount(at, minlength=n_rows)
    place = torch.arange(len(at), device=at.device) - (counts.cumsum(0) - counts)[at]
    asked = target.new_full((n_rows, int(counts.max()), target.shape[1]), torch.inf)
    asked[at, place] = target
    asked, order = asked.flatten(1).sort(1)
    width = asked.shape[1] + 1
    if (compiled := compiled_for(scores, asked)) is not None:
        tally = torch.zeros(n_rows, width, dtype=torch.int64)
        compiled.tally(scores.numpy(), asked.numpy(), tally.numpy())
    else:
        tally = _tally(scores, asked)
    above = tally[:, 1:].flip(1).cumsum(1).flip(1)
    return torch.empty_like(above).scatter_(1, order, above).view(n_rows, -1, target.shape[1])[at, place]


def _tally(scores: Tensor, asked: Tensor) -> Tensor:
    """How many scores of a row are above so many of its ascending targets, which are few, (n_rows, n_targets + 1)."""
    n_rows, width = len(asked), asked.shape[1] + 1
    below = torch.searchsorted(asked, scores)
    below += width * torch.arange(n_rows, device=asked.device)[:, None]
    return torch.bincount(below.flatten(), minlength=n_rows * width).view(n_rows, width)


def _bounds(users: Tensor, n_users: int) -> list[int]:
    """Where the pairs of each user begin, and the end of all; the pairs are in order of their users."""
    counts = torch.bincount(users, minlength=n_users)
    return [0, *counts.cumsum(0).tolist()]
