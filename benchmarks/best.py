"""Seconds, memory and recall of ``--preset best`` here and at another commit: ``python -m benchmarks.best``.

Each fit is a command of its own, ``python -m inference.coordinate --preset best --mode map`` on citeulike-t's split of
ten training items a user. The two checkouts take turns, so that other work on the machine slows both, and a ratio is
the median over the turns. ``--profile`` makes one more fit of each under ``cProfile`` and says in which parts the
seconds go. Numbers of one seed are the same in every turn; ``--seeds`` gives the turns seeds of their own.
"""

from __future__ import annotations

import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.study.arguments import add_data, add_threads, as_command, command, data_folder
from benchmarks.study.machine import Load
from benchmarks.study.tables import show_rows, verdict
from benchmarks.study.turns import in_turns, ratio

ROOT = Path(__file__).parents[1]
HERE = "this checkout"
MOST, APART = 0.5, 0.002
"""CPU seconds over those of the other commit, and how far recall may be apart."""
RECALLS = ("recall@50", "recall@300")
PARTS = {
    "data": ("load_dataset", "make_split", "observe"),
    "start of the networks": ("start_alive",),
    "epochs on the texts": ("epoch",),
    "report over the whole vocabulary": ("held_content", "_held_content"),
    "state of the contents": ("content_diagnostics",),
    "precisions and short fits": ("start_ratings",),
    "sweeps": ("sweep",),
    "metrics of the test part": ("evaluate",),
    "run folder": ("_written",),
}
"""Functions whose seconds, with all that they call, are a part's; none of them calls another."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark, print its tables and return the rows of the first."""
    parser = command("best", __doc__)
    add_data(parser, "citeulike-t")
    parser.add_argument("--commit", default="3a1bb09", help="the commit that this checkout is compared with")
    parser.add_argument("--turns", type=int, default=2, help="timed fits of each")
    parser.add_argument("--seeds", action="store_true", help="a seed of its own for each turn, from 0")
    parser.add_argument("--profile", action="store_true", help="one more fit of each, with seconds by part")
    parser.add_argument("--options", default="", help="further options of the fits, in one string")
    add_threads(parser, 1, " of each fit")
    options = parser.parse_args(arguments)
    folder, machine = data_folder(options.data).resolve(), Load()
    given = ["--preset", "best", "--mode", "map", "--data", str(folder), "--threads", str(options.threads)]
    given += ["--train-file", str(folder / "cf-train-10-users.dat"), *options.options.split()]
    with _checkout(options.commit) as other, tempfile.TemporaryDirectory() as out:
        fits = {HERE: _Fits(ROOT, given, Path(out), options), options.commit: _Fits(other, given, Path(out), options)}
        laps = in_turns({name: one.timed for name, one in fits.items()}, options.turns, unrecorded=0)
        rows = _rows(laps)
        show_rows(rows, title="--preset best --mode map, citeulike-t, ten training items a user")
        _verdicts(rows)
        if options.profile:
            parts = {name: one.profiled() for name, one in fits.items()}
            table = [{"part": part} | {name: found[part] for name, found in parts.items()} for part in parts[HERE]]
            show_rows(table, title="Seconds by part, under cProfile")
    print(f"{machine.told(options.threads)}, {options.turns} turns")
    return rows


@contextmanager
def _checkout(commit: str) -> Iterator[Path]:
    """The files of a commit in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


class _Fits:
    """Fits of one checkout, each a process."""

    def __init__(self, root: Path, given: list[str], out: Path, options: Any) -> None:
        self.root, self.given, self.out, self.options = root, given, out, options
        self.made = 0

    def timed(self) -> dict[str, float]:
        """Wall and CPU seconds of the next fit, its peak memory and its recall."""
        seed = self.made if self.options.seeds else 0
        self.made += 1
        run = self.out / f"{self.root.name}-{self.made}"
        command = [sys.executable, "-m", "inference.coordinate", *self.given, "--seed", str(seed), "--out", str(run)]
        began = time.perf_counter()
        usage = self._run(command)
        wall, cpu = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
        metrics = json.loads((run / "metrics.json").read_text())
        peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
        return {"seconds": wall, "CPU seconds": cpu, "peak MiB": peak} | {name: metrics[name] for name in RECALLS}

    def profiled(self) -> dict[str, float]:
        """Seconds of one more fit by part, and what is left of all."""
        run, stats = self.out / f"{self.root.name}-profiled", self.out / f"{self.root.name}.stats"
        command = [sys.executable, "-m", "cProfile", "-o", str(stats), "-m", "inference.coordinate", *self.given]
        self._run([*command, "--out", str(run)])
        told: dict[Any, Any] = pstats.Stats(str(stats)).stats  # type: ignore[attr-defined]
        ours = {
            name: sum(row[3] for (file, _, function), row in told.items() if function in names and self._owns(file))
            for name, names in PARTS.items()
        }
        whole = sum(row[2] for row in told.values())
        return ours | {"the rest, imports among it": whole - sum(ours.values()), "all": whole}

    def _owns(self, file: str) -> bool:
        return file.startswith(str(self.root)) and "site-packages" not in file

    def _run(self, command: list[str]) -> Any:
        """Resources of a process that has ended; SystemExit where it failed."""
        settings = {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": str(self.options.threads or os.cpu_count())}
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(command, cwd=self.root, env=os.environ | settings, stdout=said, stderr=said)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                said.seek(0)
                raise SystemExit(f"error: {' '.join(command)} failed in {self.root}:\n{said.read()[-2000:]}")
        return usage


def _rows(laps: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row a checkout: medians over the turns, and ratios of times to those of the other commit."""
    other = list(laps)[-1]
    rows = []
    for name, found in laps.items():
        row: dict[str, Any] = {"checkout": name, **{key: median(lap[key] for lap in found) for key in found[0]}}
        for key in ("seconds", "CPU seconds"):
            row[f"{key}, ratio"] = ratio([lap[key] for lap in found], [lap[key] for lap in laps[other]])
        rows.append(row)
    for key in RECALLS:
        pairs = zip(laps[HERE], laps[other], strict=True)
        rows[0][f"{key}, apart"] = max((one[key] - two[key] for one, two in pairs), key=abs)
        rows[1][f"{key}, apart"] = 0.0
    return rows


def _verdicts(rows: list[dict[str, Any]]) -> None:
    times = rows[0]["CPU seconds, ratio"]
    verdict(times <= MOST, f"{HERE} over {rows[1]['checkout']}: {times:.2f} of its CPU seconds (at most {MOST:g})")
    for key in RECALLS:
        away = rows[0][f"{key}, apart"]
        verdict(away >= -APART, f"{key}: {away:+.4f} where it is most apart (at least {-APART:g})")


if __name__ == "__main__":
    as_command(main)
