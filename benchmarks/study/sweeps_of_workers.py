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

from benchmarks.study.machine import peak_mib
from inference.algorithms.shards import Shard
from inference.algorithms.workers import Workers, here, leave
from models.base import FactorModel, NoContent
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.priors import NOTHING, NormalPrior
from models.ratings.confidence_normal import ConfidenceNormal

B = 0.01


def main() -> None:
    """Sweep as the one argument says, and print what the slowest and the largest worker took."""
    how = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    workers = here()
    found = sweeps(workers, **how)
    if workers.is_first:
        print(json.dumps(found))
    leave()


def sweeps(workers: Workers, folder: str, family: str, factors: int, sweeps: int) -> dict[str, Any]:
    """Median seconds of a sweep, peak GiB, and GiB before any data, each of the worker with most."""
    base = peak_mib() / 1024
    indptr, at = (torch.from_numpy(np.load(Path(folder) / f"{name}.npy")) for name in ("indptr", "users"))
    ones, n_items, n_users = torch.ones(len(at)), len(indptr) - 1, int(at.max()) + 1
    columns = RatingColumns(indptr, at, ones, ones, indptr.diff() > 0, n_users)
    model = FactorModel(n_users, n_items, factors, NoContent(factors), ConfidenceNormal(1.0, B), lambda_u=10.0)
    shard = Shard(columns, model.ratings, workers, family == "full")
    del columns, ones, at, indptr
    z_loc = torch.randn(n_items, factors, generator=torch.Generator().manual_seed(0))
    prior = NormalPrior(z_loc, 1.0)
    items, laps = Gaussians(z_loc), list[float]()
    with torch.no_grad():
        for _ in range(sweeps + 1):
            workers.wait()
            began = time.perf_counter()
            sites = shard.sites(model.ratings, None)
            users = shard.step_users(model, sites, items, family, NOTHING).rows
            items = Gaussians(z_loc)  # the last q(V) is given back before the next is made
            items = shard.step_items(model, sites, users, prior, None, family).rows
            del users
            workers.wait()
            laps.append(time.perf_counter() - began)
    mine = torch.zeros(workers.size, 3, dtype=torch.float64)
    mine[workers.rank] = torch.tensor([median(laps[1:]), peak_mib() / 1024, base], dtype=torch.float64)
    most = workers.total(mine).max(0).values.tolist()
    return dict(zip(("seconds", "gib", "base_gib"), most, strict=True))


if __name__ == "__main__":
    main()
