"""Memory of the workers of a fit from its table to its end: ``python -m benchmarks.reading``.

A Parquet table of random pairs, and a fit of points without contents by several workers of this machine. A process's
own memory is what no other one has: pages of mapped files are not in it. It is looked at ten times a second, on Linux.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.study.arguments import as_command, command
from benchmarks.study.machine import Load
from benchmarks.study.tables import show

ROOT = Path(__file__).parents[1]
FIT = ["-m", "inference.coordinate", "--mode", "map", "--model", "pmf", "--split", "none", "--tune", "0", "--quiet"]
EVERY = 0.1
"""Seconds between two looks."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark, print its table and return its rows, one a worker."""
    parser = command("reading", __doc__)
    number = lambda text: int(float(text))  # noqa: E731
    parser.add_argument("--ratings", type=number, default=10**7)
    parser.add_argument("--per-user", type=int, default=10, help="ratings a user")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes of one thread each")
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--sweeps", type=int, default=1)
    options = parser.parse_args(arguments)
    machine, rows = Load(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        made = f"from benchmarks.reading import make; make({folder!r}, {options.ratings}, {options.per_user})"
        subprocess.run([sys.executable, "-c", made], check=True, cwd=ROOT)
        for workers in options.workers:
            how = [*FIT, "--factors", str(options.factors), "--sweeps", str(options.sweeps), "--threads", "1"]
            how += ["--data", f"{folder}/pairs.parquet", "--out", f"{folder}/run-{workers}"]
            rows += watched(how, workers)
    texts = [[str(row["workers"]), str(row["worker"]), *(f"{row[k]:.3g}" for k in ("own", "seconds"))] for row in rows]
    show(["workers", "worker", "GiB of its own", "seconds"], texts, title=f"{options.ratings:,} pairs in a table")
    print(f"K = {options.factors}, {options.sweeps} sweep(s), {machine.told(1)}")
    return rows


def make(folder: str, ratings: int, per_user: int) -> None:
    """Write a table of distinct random pairs, users and items as whole numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmarks.growth import PER_ITEM
    from benchmarks.study.sparse import distinct_pairs

    pairs = distinct_pairs(max(1, ratings // per_user), max(1, ratings // PER_ITEM), ratings).tocoo()
    pq.write_table(pa.table({"user": pairs.row, "item": pairs.col}), Path(folder) / "pairs.parquet")


def watched(how: list[str], workers: int) -> list[dict[str, Any]]:
    """Run a fit, and tell the most GiB that each of its workers had for itself, and the seconds of all."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)] if workers > 1 else []
    began, most = time.monotonic(), dict[int, float]()
    with tempfile.TemporaryFile("w+") as said:
        job = subprocess.Popen(
            [sys.executable, *several, *how],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        while job.poll() is None:
            for process in _below(job.pid) if several else [job.pid]:
                most[process] = max(most.get(process, 0.0), _own(process))
            time.sleep(EVERY)
        said.seek(0)
        if job.returncode:
            raise SystemExit(f"error: the fit ended with {job.returncode}: {said.read().strip()[-500:]}")
    seconds = time.monotonic() - began
    found = sorted(sorted(most, key=lambda process: most[process])[-workers:])  # torchrun has short-lived others too
    return [
        {"workers": workers, "worker": n, "own": most[process], "seconds": seconds} for n, process in enumerate(found)
    ]


def _below(process: int) -> list[int]:
    """Processes that one has started."""
    try:
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _own(process: int) -> float:
    """GiB of a process that are of no file; 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("RssAnon:")[1].split()[0]) / 2**20 if "RssAnon:" in status else 0.0


if __name__ == "__main__":
    as_command(main)
