"""Workers that get those rows of others alone that their own cells meet: threads, each of which is one worker."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from inference.algorithms.afar import Afar
from inference.algorithms.shards import Shard
from inference.algorithms.workers import ALONE, Workers
from models.base import FactorModel, NoContent
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.priors import NOTHING, NormalPrior
from models.ratings.confidence_normal import ConfidenceNormal

N_USERS, N_ITEMS, N_FACTORS = 41, 23, 3


class Thread(Workers):
    """One of the workers of a process, who read what the others have said."""

    def __init__(self, rank: int, said: list[Any], all_here: Barrier) -> None:
        self.rank, self.size, self._said, self._all_here, self.received = rank, len(said), said, all_here, 0

    def _all(self, own: Any) -> list[Any]:
        self._said[self.rank] = own
        self._all_here.wait(60)
        found = list(self._said)
        self._all_here.wait(60)
        return found

    def add(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(torch.stack(self._all(tensor.clone())).sum(0))

    def total(self, value: Any) -> Any:
        return torch.stack(self._all(value)).sum(0)

    def rows(self, own: Tensor, spans: list[slice], last: Tensor | None = None) -> Tensor:
        assert last is None
        return torch.cat(self._all(own))

    def rows_at_first(self, own: Tensor, spans: list[slice], last: Tensor | None = None) -> Tensor | None:
        whole = self.rows(own, spans, last)
        return whole if self.is_first else None

    def exchanged(self, rows: Tensor, give: list[int], get: list[int]) -> Tensor:
        parts = [given.split(counts)[self.rank] for given, counts in self._all((rows, give))]
        assert [len(part) for part in parts] == get
        self.received += sum(get) - get[self.rank]
        return torch.cat(parts)


def by_workers(size: int, work: Callable[[Thread], Any]) -> list[Any]:
    """What each of so many workers makes of it."""
    said: list[Any] = [None] * size
    barrier = Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(Thread(rank, said, barrier)), range(size)))


def columns() -> RatingColumns:
    """Some cells, with items that nobody has rated and users without a rating."""
    generator = torch.Generator().manual_seed(0)
    there = torch.rand(N_ITEMS, N_USERS, generator=generator) < 0.08
    there[3], there[:, 5] = False, False
    items, users = there.nonzero().T
    counts = torch.bincount(items, minlength=N_ITEMS)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    ones = torch.ones(len(users), dtype=torch.float64)
    return RatingColumns(indptr, users, ones, 1 + users % 3, counts > 0, N_USERS)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_worker_gets_the_rows_that_it_meets_from_those_who_have_them(size: int) -> None:
    numbers = torch.arange(2.0 * N_USERS).view(N_USERS, 2)
    spans = ALONE.__class__.spans(Thread(0, [None] * size, Barrier(size)), torch.zeros(N_USERS))
    others = [torch.tensor([[3, 30, 3, 40], [], [0, 40]][rank % 3], dtype=torch.int64) for rank in range(size)]

    def work(worker: Thread) -> tuple[Afar, Tensor]:
        afar = Afar(others[worker.rank], spans, worker)
        return afar, afar.numbers(numbers[spans[worker.rank]])

    for (afar, found), met in zip(by_workers(size, work), others, strict=True):
        assert afar.met.tolist() == sorted(set(met.tolist()))
        assert torch.equal(found, numbers[afar.met]) and torch.equal(found[afar.places], numbers[met])


@pytest.mark.parametrize("family", ["point", "diagonal"])
@pytest.mark.parametrize("size", [2, 3, 7, 30])
def test_items_are_those_of_one_worker_and_fewer_users_are_received(size: int, family: str) -> None:
    ratings, whole = ConfidenceNormal(1.0, 0.05), columns()
    model = FactorModel(N_USERS, N_ITEMS, N_FACTORS, NoContent(N_FACTORS), ratings, lambda_u=2.0).double()
    generator = torch.Generator().manual_seed(1)
    z_loc = torch.randn(N_ITEMS, N_FACTORS, generator=generator, dtype=torch.float64)

    def sweep(worker: Workers, gather: Any = "needed") -> tuple[Any, ...]:
        shard = Shard(whole, ratings, worker, False, model.width, gather)
        before = getattr(worker, "received", 0)
        sites = shard.sites(ratings, None)
        users = shard.step_users(model, sites, Gaussians(z_loc), family, NOTHING).rows
        step = shard.step_items(model, sites, shard.told_users(users), NormalPrior(z_loc, 1.5), None, family)
        return step, getattr(worker, "received", 0) - before, shard.known_users(users), shard

    alone, _, users, _ = sweep(ALONE)
    found = by_workers(size, sweep)
    for rank, (step, received, known, shard) in enumerate(found):
        torch.testing.assert_close(step.rows.loc, alone.rows.loc, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(step.form, alone.form, rtol=1e-12, atol=1e-12)
        own = whole.users[whole.indptr[shard.items.start] : whole.indptr[shard.items.stop]].unique()
        away = (own < shard.users.start) | (own >= shard.users.stop)
        assert received == int(away.sum()) * (2 if family == "diagonal" else 1)
        assert received < (N_USERS - (shard.users.stop - shard.users.start)) * (2 if family == "diagonal" else 1)
        if rank == 0:
            torch.testing.assert_close(known.loc, users.loc, rtol=1e-12, atol=1e-12)
        else:
            assert len(known) == 1 and bool(known.loc.isnan().all())
        if family == "diagonal":
            torch.testing.assert_close(step.rows.variance, alone.rows.variance, rtol=1e-12, atol=1e-12)
