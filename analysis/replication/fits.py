"""One fit after the other, each measured by both protocols."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.replication.contents import label_of
from analysis.replication.jobs import Job, identity, options_for
from analysis.replication.memory import peak_mib, reset_peak
from analysis.replication.methods import methods_of
from analysis.replication.store import Store
from inference.average import ScoreBlock, list_scores
from inference.evaluation.rankings import recalls
from inference.evaluation.rivals import rival, settings_of
from inference.fitting import fit_with
from inference.pretrained import Pretrained
from inference.threads import torch_threads
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import pairs_matrix
from pyro_cvae.data.splits import Split, per_user
from pyro_cvae.errors import as_known
from pyro_cvae.protocol import CUTOFFS, Protocol

TOP = 10
"""Length of the lists of table 1."""
PROTOCOLS: tuple[Protocol, ...] = ("corrected", "paper")
BLOCK = 256


def rows_of(jobs: Sequence[Job], dataset: Dataset, store: Store, threads: int = 1) -> Iterator[dict[str, Any]]:
    """Fit jobs of one group, one after the other, and give the row of each; networks are pre-trained once.

    Of a fit that a person or the machine can mend the row is ``{"failed": why}``.
    """
    pretrained, fresh = Pretrained(), True
    with torch_threads(threads):
        for job in jobs:
            try:
                yield _row(job, dataset, store, pretrained, threads) | {"pretrained_here": fresh}
                fresh = False
            except Exception as error:
                if (known := as_known(error)) is None:
                    raise
                yield {"failed": f"{job.method.name}, {job.data}, P = {job.per_user}, split {job.seed}: {known}"}


def _row(job: Job, dataset: Dataset, store: Store, pretrained: Pretrained, threads: int) -> dict[str, Any]:
    """Fit and measure; the lists of table 1 are kept on the way."""
    split = per_user(dataset, job.per_user, job.seed)
    reset_peak()
    began, worked = time.perf_counter(), time.process_time()
    scores, about = _scores(job, dataset, split, pretrained, threads)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    measured = {protocol: _measured(scores, split, protocol) for protocol in PROTOCOLS}
    if is_listed(job):
        store.add_lists(job.key, best_lists(scores, split, measured["corrected"]))
    return {
        "key": job.key,
        "data": label_of(dataset),
        "fingerprint": job.fingerprint,
        "per_user": job.per_user,
        "seed": job.seed,
        "method": job.method.name,
        "options": identity(job.method),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "seconds_measuring": round(time.perf_counter() - began - seconds, 2),
        "peak_mib": round(peak_mib(), 1),
        "n_users": {name: len(found) for name, found in measured.items()},
        "precision": float(precision(measured["corrected"]).mean()),
        **{name: _recalls(found) for name, found in measured.items()},
        **about,
    }


def is_listed(job: Job) -> bool:
    """Whether the best items of every user are kept: it is a fit of table 1, by whatever name."""
    if job.per_user != 1 or job.seed != 0:
        return False
    return any(replace(job, method=method).key == job.key for method in methods_of("table1"))


def _scores(
    job: Job, dataset: Dataset, split: Split, pretrained: Pretrained, threads: int
) -> tuple[ScoreBlock, dict[str, Any]]:
    """The scores of a fit, and what else its row says."""
    if not job.method.preset:
        scores = rival(job.method.name)(dataset, split)
        return scores, {"settings": settings_of(scores)}
    unseen = replace(split, test=split.test.select(np.zeros(len(split.test), bool)))  # it is measured here
    fitted = fit_with(dataset, unseen, options_for(job.method, threads), pretrained=pretrained)
    last = fitted.history[-1] if fitted.history else {}
    numbers = {name: value for name, value in last.items() if isinstance(value, int | float)}
    return list_scores(fitted.posterior, split.train), {"last": numbers}


def _measured(scores: ScoreBlock, split: Split, protocol: Protocol) -> pd.DataFrame:
    return recalls(scores, split, cutoffs=(TOP, *CUTOFFS), protocol=protocol, block_size=BLOCK)


def _recalls(found: pd.DataFrame) -> dict[str, float]:
    return {str(cutoff): float(found[f"recall@{cutoff}"].mean()) for cutoff in CUTOFFS}


def precision(table: pd.DataFrame) -> np.ndarray:
    """Share of the first ten items of each user that are test items, (n_users,)."""
    return (table[f"recall@{TOP}"] * table["n_relevant"] / TOP).to_numpy()


def best_lists(scores: ScoreBlock, split: Split, found: pd.DataFrame) -> dict[str, np.ndarray]:
    """The ten best items of every user with test items, training items left out.

    ``users`` (n,) and ``items`` (n, 10) are rows; ``precision`` (n,) and ``n_test`` (n,) are of each user.
    """
    known = pairs_matrix(split.train.select(split.train.observed))
    rows = found["user"].to_numpy(copy=True)
    best = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        value = scores(block).clone()
        user, item = known[block].nonzero()
        value[torch.from_numpy(user.astype(np.int64)), torch.from_numpy(item.astype(np.int64))] = -torch.inf
        best.append(value.topk(min(TOP, value.shape[1])).indices.numpy())
    n_test = found["n_relevant"].to_numpy()
    return {"users": rows, "items": np.concatenate(best), "precision": precision(found), "n_test": n_test}
