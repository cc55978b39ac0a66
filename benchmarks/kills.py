"""Workers that are killed at random moments: ``python -m benchmarks.kills``.

A small fit in float64 by two workers, under torchrun with restarts; in each of ``--kills`` turns a random worker gets
SIGKILL at a random moment after the fit has begun. Every run folder is compared with that of one worker: the largest
difference of any number of the posterior, in units of 1 + its size.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.study.arguments import as_command, command
from benchmarks.study.machine import Load
from benchmarks.study.tables import show, verdict

ROOT = Path(__file__).parents[1]
FIT = ["-m", "inference.coordinate", "--mode", "bayes", "--factors", "4", "--hidden", "8", "--pretrain-epochs", "2"]
FIT += [
    *("--dtype", "float64", "--threads", "1", "--checkpoint-seconds", "0", "--sweeps", "10", "--epochs", "6"),
    "--quiet",
]
MOST = 1e-9
"""Largest difference that is the same number."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Kill workers, print the table and return its rows, one a kill."""
    parser = command("kills", __doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of who is killed")
    options = parser.parse_args(arguments)
    chance, machine, rows = random.Random(options.seed), Load(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone"
        began = time.monotonic()
        subprocess.run([sys.executable, *FIT, "--out", str(alone)], cwd=ROOT, check=True, capture_output=True)
        length = time.monotonic() - began
        for number in range(options.kills):
            out = Path(folder) / f"run{number}"
            rows.append(killed(out, options.workers, chance, length))
            rows[-1]["away"] = furthest(posterior(alone), posterior(out)) if rows[-1]["code"] == 0 else float("inf")
            print(f"kill {number + 1}: {rows[-1]}", file=sys.stderr, flush=True)
    texts = [[str(n + 1), *(str(row[name]) for name in ("who", "epoch", "code"))] for n, row in enumerate(rows)]
    for text, row in zip(texts, rows, strict=True):
        text += [f"{row['seconds']:.1f}", f"{row['away']:.1e}"]
    headings = ("kill", "worker", "last checkpoint, epoch", "exit code", "seconds from kill to end", "difference")
    show(headings, texts, title=f"{options.workers} workers, one killed, started again")
    real = [row for row in rows if row["who"] != "none"]
    same = bool(real) and all(row["away"] < MOST for row in rows)
    verdict(same, f"{len(real)} kills of {len(rows)} tries: the same numbers to {MOST:g}")
    print(machine.told(1))
    return rows


def killed(out: Path, workers: int, chance: random.Random, length: float) -> dict[str, Any]:
    """Start a job, kill one of its workers once it writes its run, and wait for the end."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers), "--max-restarts", "3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        [sys.executable, *torchrun, *FIT, "--out", str(out)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    partial = out.with_name(f"{out.name}.partial")
    while not (partial / "writer.json").exists() and job.poll() is None:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, length / 2))
    below = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    who = chance.randrange(workers)
    epochs = sorted(entry.name for entry in partial.glob("checkpoint/epoch-*"))
    if who < len(below):
        os.kill(int(below[who]), signal.SIGKILL)
    began = time.monotonic()
    code = job.wait()
    last = int(epochs[-1].split("-")[1].split(".")[0]) if epochs else 0
    return {
        "who": who if who < len(below) else "none",
        "epoch": last,
        "code": code,
        "seconds": time.monotonic() - began,
    }


def posterior(run: Path) -> Path:
    """The file of a run's posterior."""
    return run / "posterior.safetensors"


def furthest(one: Path, other: Path) -> float:
    """Largest difference of two files of tensors, in units of 1 + size; infinite where they hold others."""
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    if not first or {n: t.shape for n, t in first.items()} != {n: t.shape for n, t in second.items()}:
        return float("inf")
    away = [((first[name] - second[name]).abs() / (1 + first[name].abs())).flatten() for name in first]
    return max(float(part.max()) for part in away if len(part))


if __name__ == "__main__":
    as_command(main)
