"""Sweeps by several workers of one machine, and what their cost model says of more: ``python -m benchmarks.scale``.

Simulated ratings as in benchmarks.growth, ten a user unless told otherwise. Every number of workers has processes of
its own, one thread each, started by torchrun as a fit is. A sweep's time is the median over sweeps of U and V, after
one that is not counted, of the slowest worker; memory is the peak of the largest worker in sweeps, and what it gets are
the bytes of rows that others send it in one. CPU seconds are those of the busiest worker: other work on the machine
disturbs them less. One worker keeps free memory, as the command of a fit does. Constants of the cost model
(benchmarks/study/cost.py) are fitted to the sizes marked "fitted" and tried on the others. ``--apart`` says what the
machine's cores can do at most: as many jobs of one worker each, which share nothing, at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from benchmarks.study.arguments import as_command, command
from benchmarks.study.machine import Load
from benchmarks.study.tables import show, verdict
from inference.kinds import Gather

FAMILIES = ("point", "diagonal", "full")
NEAR = 0.25
"""Share of the measured seconds by which the cost model may be off."""
LARGE = ((1e8, 1e7, 1e9, 50, 64), (1e8, 1e7, 1e9, 50, 256), (1e7, 1e6, 1e8, 50, 16))
"""Users, items, ratings, factors and workers of which the model is asked."""


@dataclass(frozen=True)
class Case:
    """A size of data, and whether constants are fitted to it."""

    ratings: int
    per_user: int
    fitted: bool


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark, print its tables and return its rows, one a family, size and number of workers."""
    parser = command("scale", __doc__)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    number = lambda text: int(float(text))  # noqa: E731
    parser.add_argument("--ratings", type=number, default=10**7, help="of the size that the model is tried on")
    parser.add_argument("--per-user", type=int, default=10, help="ratings a user; a size that is fitted has five times")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes of one thread each")
    parser.add_argument("--gather", nargs="+", choices=get_args(Gather), default=["all"], help="users that one gets")
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--sweeps", type=int, default=3, help="that are timed")
    parser.add_argument("--apart", action="store_true", help="time also jobs of one worker each, at once")
    options = parser.parse_args(arguments)
    small = options.ratings // 10
    few = options.per_user
    cases = [Case(small, few, True), Case(small, 5 * few, True), Case(options.ratings, few, False)]
    machine, rows = Load(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            size = _simulated(Path(folder), case)
            for family in options.families:
                for workers, gather in _ways(options.workers, options.gather, family):
                    how = {"folder": folder, "family": family, "factors": options.factors, "sweeps": options.sweeps}
                    print(f"{family}, {case.ratings:,} ratings, {workers} worker(s)", file=sys.stderr, flush=True)
                    found = _swept(how | {"gather": gather}, workers)
                    rows.append({"family": family, "workers": workers, "gather": gather, **size, **found})
                    rows[-1]["fitted"] = case.fitted
                    if options.apart and workers > 1 and not case.fitted:
                        rows[-1]["apart"] = _apart(how | {"gather": gather}, workers)
    _report(rows, options.factors)
    print(f"K = {options.factors}, {machine.told(1)}")
    return rows


def _ways(workers: list[int], gather: list[str], family: str) -> list[tuple[int, str]]:
    """Numbers of workers and what they get, which is one thing alone where nobody gets users."""
    return [(n, how) for n in workers for how in (gather if n > 1 and family != "full" else gather[:1])]


def _simulated(folder: Path, case: Case) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from benchmarks.scale import simulate; simulate({str(folder)!r}, {case.ratings}, {case.per_user})",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def simulate(folder: str, ratings: int, per_user: int) -> None:
    """Write distinct random pairs as columns: ``indptr`` (n_items + 1,) and ``users`` (n_ratings,); tell their size."""
    import numpy as np

    from benchmarks.growth import PER_ITEM
    from benchmarks.study.sparse import distinct_pairs

    n_users, n_items = max(1, ratings // per_user), max(1, ratings // PER_ITEM)
    pairs = distinct_pairs(n_users, n_items, ratings).tocsc()
    np.save(Path(folder) / "indptr.npy", pairs.indptr.astype(np.int64))
    np.save(Path(folder) / "users.npy", pairs.indices.astype(np.int64))
    print(json.dumps({"users": n_users, "items": n_items, "ratings": ratings}))


def _swept(how: dict[str, Any], workers: int) -> dict[str, Any]:
    """What the slowest and the largest worker say of sweeps."""
    start = [sys.executable] if workers == 1 else _torchrun(workers)
    done = subprocess.run(
        [*start, "-m", "benchmarks.study.sweeps_of_workers", json.dumps(how)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"error: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _apart(how: dict[str, Any], jobs: int) -> float:
    """Seconds of a sweep of the slowest of ``jobs`` processes of one worker, each with all of the data to itself."""
    with ThreadPoolExecutor(jobs) as pool:
        return max(found["seconds"] for found in pool.map(lambda job: _swept(how, 1), range(jobs)))


def _torchrun(workers: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]


def _report(rows: list[dict[str, Any]], factors: int) -> None:
    from benchmarks.study.cost import Size, constants

    headings = ["family", "ratings", "users", "items", "workers", "get", "seconds", "by the model"]
    headings += ["MiB got", "by the model", "GiB each", "by the model"]
    texts = list[list[str]]()
    for family in dict.fromkeys(row["family"] for row in rows):
        cases = [row for row in rows if row["family"] == family]
        sizes = [
            Size(row["users"], row["items"], row["ratings"], factors, row["workers"], row["gather"]) for row in cases
        ]
        seen = [(size, row["seconds"]) for size, row in zip(sizes, cases, strict=True) if row["fitted"]]
        found = constants(seen, family)
        for size, row in zip(sizes, cases, strict=True):
            row["modelled"], row["modelled_received"] = found.seconds(size, family), size.counts(family)[2]
            row["modelled_gib"] = row["base_gib"] + size.memory(family) / 2**30
            texts.append(_line(family, size, row))
        texts.append([])
        for numbers in LARGE:
            for gather in dict.fromkeys(row["gather"] for row in cases):
                size = Size(*numbers, gather)
                asked = {"modelled": found.seconds(size, family), "modelled_received": size.counts(family)[2]}
                texts.append(_line(family, size, asked | {"modelled_gib": size.memory(family) / 2**30}))
        texts.append([])
        print(f"{family}: {found.cell:.3g} s a cell, {found.row:.3g} s a row, {found.byte:.3g} s a byte")
    show(headings, texts, width=170, title="A sweep over U and V by workers of one thread each")
    for row in rows:
        off, how = row["modelled"] / row["seconds"] - 1, f"{row['family']}, {row['workers']} worker(s), {row['gather']}"
        if not row["fitted"]:
            verdict(abs(off) <= NEAR, f"{how}: the model is off by {off:+.0%}")
            print(f"{how}: {row['reading_gib']:.3g} GiB each while the data are read")
    _compare(rows)


def _line(family: str, size: Any, row: dict[str, Any]) -> list[str]:
    """A row of the table: what was measured, where anything was, beside the model's."""
    counts = [f"{n:,.0f}" for n in (size.ratings, size.users, size.items, size.workers)]
    texts, measured = [family, *counts, size.gather], "seconds" in row
    for name, unit in (("seconds", 1), ("received", 2**20), ("gib", 1)):
        modelled = "modelled" if name == "seconds" else f"modelled_{name}"
        texts += [f"{row[name] / unit:.3g}" if measured else "", f"{row[modelled] / unit:.3g}"]
    texts[7] += " fitted" * (measured and row["fitted"])
    return texts


def _compare(rows: list[dict[str, Any]]) -> None:
    """Several workers beside one at the largest size."""
    largest = [row for row in rows if not row["fitted"]]
    for family in dict.fromkeys(row["family"] for row in largest):
        several = [row for row in largest if row["family"] == family and row["workers"] > 1]
        one = next((row for row in largest if row["family"] == family and row["workers"] == 1), None)
        for row in several if one is not None else []:
            faster, less = (one[name] / row[name] for name in ("seconds", "busy"))  # type: ignore[index]
            share = row["gib"] / one["gib"]  # type: ignore[index]
            how = f"{family}: {row['workers']} workers that get {row['gather']}"
            print(f"{how} are {faster:.2f} times as fast, with {share:.2f} of the memory each")
            print(f"{how} take {row['busy']:.3g} CPU seconds each at most, one {less:.2f} times as many")
            if "apart" in row:
                most = row["workers"] * one["seconds"] / row["apart"]  # type: ignore[index]
                print(f"{how} could be at most {most:.2f} times as fast: that is what jobs apart get done at once")


if __name__ == "__main__":
    as_command(main)
