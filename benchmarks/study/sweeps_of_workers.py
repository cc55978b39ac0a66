"""Sweeps by the workers of a job, timed: what benchmarks.scale starts, by torchrun or alone."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.study.machine import forget_peak, peak_mib, peak_since_mib
from inference.algorithms.shards import Shard
from inference.algorithms.workers import Group, Workers, here, leave
from inference.kinds import Gather
from inference.memory import keep_free_memory
from models.base import FactorModel, NoContent
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.priors import NOTHING, NormalPrior
from models.ratings.confidence_normal import ConfidenceNormal

B = 0.01


class Counting(Group):
    """A worker that counts the bytes of rows and matrices that it gets of others."""

    received = 0

    def rows(self, own: Tensor, spans: list[slice], last: Tensor | None = None) -> Tensor:
        """All but its own are got."""
        found = super().rows(own, spans, last)
        self.received += found.nbytes - own.nbytes
        return found

    def exchanged(self, rows: Tensor, give: list[int], get: list[int]) -> Tensor:
        """All but what it gives itself."""
        found = super().exchanged(rows, give, get)
        self.received += found.nbytes * (sum(get) - get[self.rank]) // max(1, sum(get))
        return found

    def add_at(self, tensor: Tensor, worker: int) -> Tensor:
        """As many numbers as a sum has, at the one that has it."""
        self.received += tensor.nbytes if worker == self.rank else 0
        return super().add_at(tensor, worker)

    def sent(self, tensor: Tensor, sender: int) -> Tensor:
        """What another one sends."""
        self.received += tensor.nbytes if sender != self.rank else 0
        return super().sent(tensor, sender)


def main() -> None:
    """Sweep as the one argument says, and print what the slowest and the largest worker took."""
    how = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    workers = here()
    workers = workers if workers.size == 1 else Counting()
    if workers.size == 1:  # as the command of a fit does
        keep_free_memory()
    found = sweeps(workers, **how)
    if workers.is_first:
        print(json.dumps(found))
    leave()


def sweeps(
    workers: Workers, folder: str, family: str, factors: int, sweeps: int, gather: Gather = "all"
) -> dict[str, Any]:
    """Median seconds of a sweep and CPU seconds, bytes got in it, and GiB, each of the worker with most.

    GiB are the peak of sweeps, that of reading the data before, and what there was before any data.
    """
    base = peak_mib() / 1024
    indptr, at = (torch.from_numpy(np.load(Path(folder) / f"{name}.npy")) for name in ("indptr", "users"))
    ones, n_items, n_users = torch.ones(len(at)), len(indptr) - 1, int(at.max()) + 1
    columns = RatingColumns(indptr, at, ones, ones, indptr.diff() > 0, n_users)
    model = FactorModel(n_users, n_items, factors, NoContent(factors), ConfidenceNormal(1.0, B), lambda_u=10.0)
    shard = Shard(columns, model.ratings, workers, family == "full", factors, gather)
    del columns, ones, at, indptr
    reading = peak_mib() / 1024
    forget_peak()
    z_loc = torch.randn(n_items, factors, generator=torch.Generator().manual_seed(0))
    prior = NormalPrior(z_loc, 1.0)
    items, laps, busy = Gaussians(z_loc), list[float](), list[float]()
    with torch.no_grad():
        for _ in range(sweeps + 1):
            workers.wait()
            before = getattr(workers, "received", 0)
            began, worked = time.perf_counter(), time.process_time()
            sites = shard.sites(model.ratings, None)
            users = shard.told_users(shard.step_users(model, sites, items, family, NOTHING).rows)
            items = Gaussians(z_loc)  # the last q(V) is given back before the next is made
            items = shard.step_items(model, sites, users, prior, None, family).rows
            users = shard.untold_users(users)
            del users
            busy.append(time.process_time() - worked)
            workers.wait()
            laps.append(time.perf_counter() - began)
    received = getattr(workers, "received", 0) - before
    mine = torch.zeros(workers.size, 6, dtype=torch.float64)
    numbers = [median(laps[1:]), median(busy[1:]), received, peak_since_mib() / 1024, reading, base]
    mine[workers.rank] = torch.tensor(numbers, dtype=torch.float64)
    most = workers.total(mine).max(0).values.tolist()
    return dict(zip(("seconds", "busy", "received", "gib", "reading_gib", "base_gib"), most, strict=True))


if __name__ == "__main__":
    main()
