"""Lists for everybody: ``python -m benchmarks.lists``.

Seconds and peak memory (``ru_maxrss``) of ``python -m inference.recommend RUN --everybody --out FILE``, in a process of
its own, on a run folder with random factors and ten pairs a user. With ``--evaluate`` half of the pairs are held out,
those of ``--tested`` users, and ``python -m inference.evaluate RUN`` is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Nothing heavy is imported here, because a child's ru_maxrss begins at its parent's size.
from benchmarks.study.arguments import add_threads, as_command, command
from benchmarks.study.machine import Load
from benchmarks.study.tables import show
from benchmarks.study.workers import ROOT

MOST_GIB = 4.0


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the benchmark, print its table and return seconds and GiB."""
    parser = command("lists", __doc__)
    parser.add_argument("--users", type=lambda text: int(float(text)), default=1_000_000)
    parser.add_argument("--items", type=lambda text: int(float(text)), default=200_000)
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--mode", choices=("map", "bayes"), default="map", help="bayes: of diagonal covariances")
    parser.add_argument("--suffix", choices=(".parquet", ".csv"), default=".parquet", help="ending of the file")
    parser.add_argument("--evaluate", action="store_true", help="measure inference.evaluate instead")
    parser.add_argument("--tested", type=lambda text: int(float(text)), help="users with test pairs; all by default")
    parser.add_argument("--folder", type=Path, help="keep the run there, and take the one that is there already")
    parser.add_argument("--more", nargs="*", default=[], help="further arguments of the command, as index=faiss")
    add_threads(parser, 1)
    options = parser.parse_args(arguments)
    machine = Load()
    with tempfile.TemporaryDirectory() as scratch:
        run = (options.folder or Path(scratch)) / f"run-{options.users}-{options.items}-{options.mode}"
        tested = (options.tested or options.users) if options.evaluate else 0
        run = run.with_name(f"{run.name}-{tested}-tested") if tested else run
        if not run.is_dir():
            run.parent.mkdir(parents=True, exist_ok=True)
            _write(run, options.users, options.items, options.factors, options.mode, tested)
        more = [word for one in options.more for word in ("--" + one).split("=", 1)]
        out = Path(scratch) / f"lists{options.suffix}"
        if options.evaluate:
            asked = ["-m", "inference.evaluate", str(run), "--threads", str(options.threads)]
        else:
            asked = ["-m", "inference.recommend", str(run), "--everybody", "--top", str(options.top), "--out", str(out)]
        found = measured([*asked, *more], options.threads)
        found["out_mib"] = out.stat().st_size / 2**20 if out.exists() else 0.0
    headings = ("users", "items", "K", "top", "seconds", "CPU seconds", "peak, GiB", "file, MiB")
    numbers = [f"{options.users:,}", f"{options.items:,}", str(options.factors), str(options.top)]
    measures = [
        f"{found['seconds']:.0f}",
        f"{found['cpu_seconds']:.0f}",
        f"{found['gib']:.2f}",
        f"{found['out_mib']:.0f}",
    ]
    show(headings, [[*numbers, *measures]], 0, title=" ".join(word for word in asked[:2]) + f", {options.mode}")
    print(f"{'met' if found['gib'] <= MOST_GIB else 'MISSED'}: at most {MOST_GIB:g} GiB")
    print(machine.told(options.threads))
    return found


def measured(asked: list[str], threads: int) -> dict[str, float]:
    """Seconds, processor seconds and peak GiB of a Python process of its own; SystemExit where it fails."""
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *asked], cwd=ROOT, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # which Popen no longer finds out
    if status:
        raise SystemExit(f"error: {' '.join(asked)} ended with {process.returncode}")
    gib = used.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "gib": gib,
    }


def _write(out: Path, *how: object) -> None:
    """Write the run folder in a process of its own."""
    told = ", ".join([repr(str(out)), *map(repr, how)])
    measured(["-c", f"from benchmarks.study.sized_run import write_run; write_run({told})"], 1)


if __name__ == "__main__":
    as_command(main)
