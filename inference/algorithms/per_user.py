"""What a ratings likelihood has of every user, such as a bound's parameter, shared out among workers with the users."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor

from inference.algorithms.shards import Shard
from models.ratings import RatingLikelihood
from models.state import kept


class PerUser:
    """Tensors of a likelihood with a row for every user, of which a worker has its own users' alone."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._shard: Shard | None = None

    def take(self, ratings: RatingLikelihood, shard: Shard) -> None:
        """Keep the rows of this worker's users."""
        if shard.workers.size == 1:
            return
        self._shard, one_more = shard, deepcopy(ratings)
        one_more.prepare(shard.n_users + 1)
        before, shapes = kept(ratings), {name: one.shape for name, one in kept(one_more).items()}
        self._names = tuple(name for name, tensor in before.items() if tensor.shape != shapes[name])
        self._fill(ratings, {name: before[name][shard.users].clone() for name in self._names})

    def give(self, ratings: RatingLikelihood) -> None:
        """Let the likelihood have the rows of all users, in place; alone it has them."""
        if self._names:
            own = kept(ratings)
            self._fill(ratings, self.whole({name: own[name] for name in self._names}))

    def whole(self, tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
        """The same tensors with the rows of all users in those that have rows of users, named with a ``prefix``."""
        found = dict(tensors)
        for name in (prefix + own for own in self._names):
            assert self._shard is not None
            found[name] = self._shard.workers.rows(tensors[name], self._shard.user_spans)
        return found

    def own(self, tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
        """The inverse of :meth:`whole`."""
        found = dict(tensors)
        for name in (prefix + own for own in self._names):
            assert self._shard is not None
            found[name] = tensors[name][self._shard.users]
        return found

    @staticmethod
    @torch.no_grad()
    def _fill(ratings: RatingLikelihood, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors of as many users as there are rows of them."""
        if not tensors:
            return
        others = {name: one.clone() for name, one in kept(ratings).items() if name not in tensors}
        ratings.prepare(len(next(iter(tensors.values()))))
        made = dict(ratings.named_parameters()) | dict(ratings.named_buffers())
        for name, tensor in (others | dict(tensors)).items():
            made[name].data = tensor  # of any type and device, whatever the default is
