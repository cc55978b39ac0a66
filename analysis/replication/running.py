"""All fits that are not there yet, in this process or in several of their own, with the time that is left."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

from analysis.replication.fits import is_listed, rows_of
from analysis.replication.jobs import Job, grouped
from analysis.replication.options import PaperOptions
from analysis.replication.store import Store
from analysis.replication.working import question
from inference.progress import progress
from pyro_cvae.data.dataset import Dataset

log = logging.getLogger("pyro_cvae")

ROOT = Path(__file__).parents[2]
WORK = "from analysis.replication.working import work; work()"


def run(options: PaperOptions, jobs: Sequence[Job], datasets: Mapping[str, Dataset], store: Store) -> list[str]:
    """Make the fits that the store has not, one group of the same pre-training after the other.

    ``datasets`` by ``--data``. Gives a line for each fit that failed.
    """
    done = finished(jobs, store)
    groups = grouped(jobs, done)
    left = {job.key: job for group in groups for job in group}
    n_jobs, failed = len(left) + len(done), []
    with progress(options.quiet) as on_step, _answers(options, groups, datasets, store) as answers:
        if groups:
            told = in_words(seconds_left(left.values(), store, options.jobs))
            on_step("fits", len(done), n_jobs, f"{len(left)} to be made{told}")
        for answer in answers:
            if "failed" in answer:
                failed.append(answer["failed"])
                log.warning("%s", answer["failed"])
                continue
            store.add(answer)
            job = left.pop(answer["key"])
            note = f"{job.method.name}, {answer['data']}, P = {job.per_user}, split {job.seed}"
            note += f": {answer['seconds']:.0f} s{in_words(seconds_left(left.values(), store, options.jobs))}"
            on_step("fits", n_jobs - len(left), n_jobs, note)
    return failed


def finished(jobs: Sequence[Job], store: Store) -> set[str]:
    """Keys of the jobs that need no fit: there is a row and, where table 1 needs them, there are lists."""
    lacking = {job.key for job in jobs if is_listed(job) and store.lists(job.key) is None}
    return {job.key for job in jobs if job.key in store.rows} - lacking


def seconds_left(jobs: Iterable[Job], store: Store, n_processes: int) -> float | None:
    """Seconds that these jobs may take, from finished ones of the same method and data, else of the method.

    A rival of which nothing is known counts for nothing, another method for the mean of all fits that are no rivals;
    ``None`` where there is none.
    """
    took: dict[tuple[str, ...], list[float]] = {}
    for row in store.rows.values():
        seconds, is_rival = row["seconds"] + row.get("seconds_measuring", 0.0), "rival" in row.get("options", {})
        for place in ((row["method"], row["fingerprint"]), (row["method"],), *([] if is_rival else [()])):
            took.setdefault(place, []).append(seconds)
    total = 0.0
    for job in jobs:
        known = took.get((job.method.name, job.fingerprint)) or took.get((job.method.name,))
        if known is None and job.method.preset:
            known = took.get(())
            if known is None:
                return None
        total += mean(known or [0.0])
    return total / n_processes


def in_words(seconds: float | None) -> str:
    """``; about 3 h left`` of seconds, nothing where they are not known or none."""
    if not seconds:
        return ""
    if seconds < 90:
        return f"; about {seconds:.0f} s left"
    return f"; about {seconds / 60:.0f} min left" if seconds < 5400 else f"; about {seconds / 3600:.1f} h left"


@contextmanager
def _answers(
    options: PaperOptions, groups: Sequence[list[Job]], datasets: Mapping[str, Dataset], store: Store
) -> Iterator[Iterator[dict[str, Any]]]:
    """Rows as they are made, and ``{"failed": why}`` of a fit that failed."""
    if options.jobs == 1 or len(groups) < 2:
        yield _here(options, groups, datasets, store)
        return
    found: queue.Queue[dict[str, Any] | None] = queue.Queue()
    processes: set[subprocess.Popen[str]] = set()
    pool = ThreadPoolExecutor(options.jobs)

    def wait(group: list[Job]) -> None:
        try:
            _elsewhere(group, options, store, found, processes)
        except (OSError, ValueError) as error:
            found.put({"failed": f"{group[0].method.name}, {group[0].data}: {error}"})
        finally:
            found.put(None)

    try:
        for group in groups:
            pool.submit(wait, group)
        yield _until(found, len(groups))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(processes):
            process.kill()
        pool.shutdown()


def _until(found: queue.Queue[dict[str, Any] | None], n_ends: int) -> Iterator[dict[str, Any]]:
    while n_ends:
        answer = found.get()
        if answer is None:
            n_ends -= 1
        else:
            yield answer


def _here(
    options: PaperOptions, groups: Sequence[list[Job]], datasets: Mapping[str, Dataset], store: Store
) -> Iterator[dict[str, Any]]:
    for group in groups:
        yield from rows_of(group, datasets[group[0].data], store, options.threads)


def _elsewhere(
    group: list[Job],
    options: PaperOptions,
    store: Store,
    found: queue.Queue[dict[str, Any] | None],
    processes: set[subprocess.Popen[str]],
) -> None:
    """The rows of a group, made by a process of its own, which is given the jobs and answers a line a row."""
    threads = {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", WORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | threads | {"PYTHONPATH": path},
    )
    processes.add(process)
    assert process.stdin is not None and process.stdout is not None
    with process:
        process.stdin.write(question(group, str(store.folder), options.threads))
        process.stdin.close()
        for line in process.stdout:
            found.put(json.loads(line))
    processes.discard(process)
    if process.returncode:
        names = ", ".join(dict.fromkeys(job.method.name for job in group))
        found.put({"failed": f"{names}, {group[0].data}: the process ended with code {process.returncode}"})
