"""Sweeps by several workers of one machine, and what their cost model says of more: ``python -m benchmarks.scale``.

Simulated ratings as in benchmarks.growth, ten a user unless told otherwise. Every number of workers has processes of
its own, one thread each, started by torchrun as a fit is. A sweep's time is the median over sweeps of U and V, after
one that is not counted, of the slowest worker; memory is the peak of the largest worker. Constants of the cost model
(benchmarks/study/cost.py) are fitted to the sizes marked "fitted" and tried on the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.arguments import command
from benchmarks.study.machine import Load
from benchmarks.study.tables import show, verdict

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
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes of one thread each")
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--sweeps", type=int, default=3, help="that are timed")
    options = parser.parse_args(arguments)
    small = options.ratings // 10
    cases = [Case(small, 10, True), Case(small, 50, True), Case(options.ratings, 10, False)]
    machine, rows = Load(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            size = _simulated(Path(folder), case)
            for family in options.families:
                for workers in options.workers:
                    how = {"folder": folder, "family": family, "factors": options.factors, "sweeps": options.sweeps}
                    print(f"{family}, {case.ratings:,} ratings, {workers} worker(s)", file=sys.stderr, flush=True)
                    rows.append({"family": family, "workers": workers, **size, **_swept(how, workers)})
                    rows[-1]["fitted"] = case.fitted
    _report(rows, options.factors)
    print(f"K = {options.factors}, {machine.told(1)}")
    return rows


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


def _torchrun(workers: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]


def _report(rows: list[dict[str, Any]], factors: int) -> None:
    from benchmarks.study.cost import Size, constants

    headings = ("family", "ratings", "users", "items", "workers", "seconds", "by the model", "GiB each", "by the model")
    texts = list[list[str]]()
    for family in dict.fromkeys(row["family"] for row in rows):
        cases = [row for row in rows if row["family"] == family]
        sizes = [Size(row["users"], row["items"], row["ratings"], factors, row["workers"]) for row in cases]
        seen = [(size, row["seconds"]) for size, row in zip(sizes, cases, strict=True) if row["fitted"]]
        found = constants(seen, family)
        for size, row in zip(sizes, cases, strict=True):
            row["modelled"], row["modelled_gib"] = (
                found.seconds(size, family),
                row["base_gib"] + size.memory(family) / 2**30,
            )
            counts = [f"{row[name]:,}" for name in ("ratings", "users", "items", "workers")]
            texts.append(
                [family, *counts, f"{row['seconds']:.3g}", f"{row['modelled']:.3g}" + " fitted" * row["fitted"]]
            )
            texts[-1] += [f"{row['gib']:.3g}", f"{row['modelled_gib']:.3g}"]
        texts.append([])
        for numbers in LARGE:
            size = Size(*numbers)
            took, memory = found.seconds(size, family), size.memory(family) / 2**30
            texts.append(
                [
                    family,
                    *(f"{n:,.0f}" for n in (size.ratings, size.users, size.items, size.workers)),
                    "",
                    f"{took:.3g}",
                ]
            )
            texts[-1] += ["", f"{memory:.3g}"]
        texts.append([])
        print(f"{family}: {found.cell:.3g} s a cell, {found.row:.3g} s a row, {found.byte:.3g} s a byte")
    show(headings, texts, title="A sweep over U and V by workers of one thread each")
    for row in rows:
        off = row["modelled"] / row["seconds"] - 1
        if not row["fitted"]:
            verdict(abs(off) <= NEAR, f"{row['family']}, {row['workers']} worker(s): the model is off by {off:+.0%}")
    _compare(rows)


def _compare(rows: list[dict[str, Any]]) -> None:
    """Several workers beside one at the largest size."""
    largest = [row for row in rows if not row["fitted"]]
    for family in dict.fromkeys(row["family"] for row in largest):
        by_number = {row["workers"]: row for row in largest if row["family"] == family}
        if (one := by_number.get(1)) is None:
            continue
        for number, row in by_number.items():
            if number > 1:
                faster, share = one["seconds"] / row["seconds"], row["gib"] / one["gib"]
                print(f"{family}: {number} workers are {faster:.2f} times as fast, with {share:.2f} of the memory each")


if __name__ == "__main__":
    main()
