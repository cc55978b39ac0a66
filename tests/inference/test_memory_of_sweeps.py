"""What a sweep holds at once, in bytes of tensors, and that workers' shares of it cost alike."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import inference
from inference.algorithms import kernels
from inference.algorithms.cells import BLOCK_BYTES, Cells
from inference.algorithms.half_steps import HalfStep, half_step
from inference.algorithms.kernels import kernel
from inference.algorithms.shards import Shard
from inference.algorithms.workers import ALONE, Workers
from models.base import FactorModel, NoContent
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.priors import NOTHING
from models.ratings.confidence_normal import ConfidenceNormal
from pyro_cvae.data.simulated import simulated
from tests.inference.fits_by_workers import SIZE, SMALL
from tests.inference.test_afar import by_workers
from tests.inference.test_half_steps import KERNELS

N_USERS, N_ITEMS, N_FACTORS = 4000, 200, 8


class Alive(TorchDispatchMode):
    """The bytes of all tensors made inside that are alive, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.peak, self._known = 0, 0, dict[int, int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._add((args, kwargs), made=False)
        found = func(*args, **(kwargs or {}))
        self._add(found, made=True)
        return found

    def _add(self, tensors: Any, made: bool) -> None:
        storages = (tensor.untyped_storage() for tensor in tree_iter(tensors) if isinstance(tensor, Tensor))
        for storage in storages:
            key = storage._cdata
            if key in self._known:
                continue
            self._known[key] = storage.nbytes() if made else 0
            self.bytes += self._known[key]
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.bytes -= self._known.pop(key)


def columns(n_cells: int = 2000, popular: float = 1.0, n_items: int = N_ITEMS) -> RatingColumns:
    """So many distinct cells, of items in the order of how popular they are."""
    generator = torch.Generator().manual_seed(0)
    items = (n_items * torch.rand(4 * n_cells, generator=generator) ** popular).long()
    users = torch.randint(N_USERS, (4 * n_cells,), generator=generator)
    places = (items * N_USERS + users).unique()
    places = places[torch.randperm(len(places), generator=generator)[:n_cells]].sort().values
    counts = torch.bincount(places // N_USERS, minlength=n_items)
    indptr, ones = torch.cat([counts.new_zeros(1), counts.cumsum(0)]), torch.ones(n_cells, dtype=torch.float64)
    return RatingColumns(indptr, places % N_USERS, ones, ones, counts > 0, N_USERS)


def rows(n_rows: int, width: int = N_FACTORS) -> Tensor:
    return torch.randn(n_rows, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("prior", [None, 0.3])
@pytest.mark.parametrize("name", KERNELS)
def test_points_of_few_cells_take_no_copy_of_the_other_side(
    name: str, prior: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the rows' own numbers do: three tensors, each an eighth of the other side."""
    monkeypatch.setattr(kernels, "MOMENTS_AT_ONCE", 1000)
    monkeypatch.setattr(kernels, "ROWS_AT_ONCE", 50)
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 2**17)
    cells, users = Cells.of_items(columns(6000, n_items=500), 0.01), Gaussians(rows(N_USERS, 40))
    loc = None if prior is None else torch.full((500, 40), prior, dtype=torch.float64)
    seen = torch.ones(N_USERS, dtype=torch.bool)
    with kernel(name), Alive() as alive:  # type: ignore[arg-type]
        half_step(cells, users, seen, 0.01, 1.0, loc)
    assert alive.peak < users.loc.nbytes


def shard_of(worker: Workers, cells: RatingColumns) -> Shard:
    return Shard(cells, ConfidenceNormal(1.0, 0.01), worker, False, N_FACTORS)


def test_sites_that_stay_are_made_once() -> None:
    shard, ratings = shard_of(ALONE, columns()), ConfidenceNormal(1.0, 0.01)
    one, other = shard.sites(ratings, None), shard.sites(ratings, None)
    assert one.users is other.users and one.items is other.items and one.user_cells is other.user_cells


def test_a_worker_holds_its_users_once_beside_those_of_others() -> None:
    everybody = rows(N_USERS)

    def work(worker: Workers) -> tuple[Tensor, Tensor, Tensor]:
        shard = shard_of(worker, columns())
        own = Gaussians(everybody[shard.users].clone())
        told = shard.told_users(own)
        return own.loc, told.loc, shard.untold_users(told).loc

    for own, told, again in by_workers(3, work):
        assert torch.equal(told, everybody) and torch.equal(again, own)
        assert again.untyped_storage().nbytes() == own.nbytes


def test_what_is_alone_is_told_as_it_is() -> None:
    users, shard = Gaussians(rows(N_USERS)), shard_of(ALONE, columns())
    assert shard.told_users(users) is users and shard.untold_users(users) is users


@pytest.mark.parametrize(("full", "row"), [(False, 40.0), (True, 100.0)])
def test_shares_cost_alike_where_popular_items_stand_first(full: bool, row: float) -> None:
    cells, ratings = columns(popular=3.0), ConfidenceNormal(1.0, 0.01)
    shards = by_workers(3, lambda worker: Shard(cells, ratings, worker, full, 200))
    counts = cells.indptr.diff()
    costs = [float((row + counts[shard.items]).sum()) for shard in shards]
    assert max(costs) - min(costs) < 2 * (row + int(counts.max()))


def test_numbers_of_users_half_step_are_given_up_before_that_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its right-hand sides are as large as all users."""
    made, alive, users, items = list[weakref.ref[Tensor]](), list[bool](), Shard.step_users, Shard.step_items

    def step_users(self: Shard, *given: Any) -> HalfStep:
        step = users(self, *given)
        made.append(weakref.ref(step.shift))
        return step

    def step_items(self: Shard, *given: Any) -> HalfStep:
        alive.append(made[-1]() is not None)
        return items(self, *given)

    monkeypatch.setattr(Shard, "step_users", step_users)
    monkeypatch.setattr(Shard, "step_items", step_items)
    inference.fit(simulated(**SIZE), **SMALL, method="coordinate", mode="map")
    assert alive and not any(alive)


def test_the_order_of_users_is_kept_where_sites_change_alone() -> None:
    model = FactorModel(N_USERS, N_ITEMS, N_FACTORS, NoContent(N_FACTORS), ConfidenceNormal(1.0, 0.01)).double()
    shard = shard_of(ALONE, columns())
    sites = shard.sites(model.ratings, None)
    shard.step_users(model, sites, Gaussians(rows(N_ITEMS)), "point", NOTHING)
    assert "_order" not in vars(shard)
