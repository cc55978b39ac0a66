"""The share of seeds that pass each floor of ``benchmarks/floors.py``: ``python -m benchmarks.seeds [--only WORD]``.

A line a floor: how many of the seeds pass, and of each figure its bound, the least and the median over seeds. What was
measured is kept in a file of JSON lines, so that a run that was stopped goes on.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.floors import FLOORS, Floor
from benchmarks.study.arguments import as_command, command, compute_with

LEAST_SHARE = 0.95


def line_of(name: str, floor: Floor, found: list[dict[str, float]]) -> str:
    """The floor's row of the table, in Markdown."""
    passed = sum(floor.passes(one) for one in found)
    figures = []
    for figure, bound in floor.least.items():
        values = [one[figure] for one in found]
        figures.append(f"{figure} {min(values):.3g} / {np.median(values):.3g} (at least {bound:.3g})")
    for figure, bound in floor.most.items():
        if np.isfinite(bound):
            figures.append(f"{figure} at most {max(one[figure] for one in found):.3g} (at most {bound:.3g})")
    return f"| {name} | {passed} of {len(found)} | {'; '.join(figures)} |"


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, float]]]:
    """Measure every floor at every seed and print the table; exit code 1 where fewer than 19 of 20 seeds pass."""
    parser = command("seeds", __doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=[], help="words, one of which is in the name of a floor")
    parser.add_argument("--kept", type=Path, default=Path("runs/seeds.jsonl"), help="what is measured goes here")
    arguments = parser.parse_args(argv)
    compute_with(1)
    logging.getLogger("pyro_cvae").setLevel(logging.ERROR)  # collapsed contents are what is counted here
    arguments.kept.parent.mkdir(parents=True, exist_ok=True)
    known: dict[tuple[str, int], Any] = {}
    if arguments.kept.exists():
        rows = [json.loads(line) for line in arguments.kept.read_text().splitlines()]
        known = {(row["floor"], row["seed"]): row["figures"] for row in rows}
    chosen = {
        name: floor for name, floor in FLOORS.items() if not arguments.only or any(w in name for w in arguments.only)
    }
    table: dict[str, list[dict[str, float]]] = {}
    print("| floor | seeds that pass | least / median over seeds |\n| --- | --- | --- |", flush=True)
    began = time.perf_counter()
    for name, floor in chosen.items():
        for seed in range(arguments.seeds):
            if (name, seed) not in known:
                known[name, seed] = floor.measure(seed)
                with arguments.kept.open("a") as file:
                    file.write(json.dumps({"floor": name, "seed": seed, "figures": known[name, seed]}) + "\n")
        table[name] = [known[name, seed] for seed in range(arguments.seeds)]
        print(line_of(name, floor, table[name]), flush=True)
    print(f"\n{time.perf_counter() - began:.0f} seconds, torch {torch.__version__}", flush=True)
    weak = [
        name for name, found in table.items()
        if sum(chosen[name].passes(one) for one in found) < LEAST_SHARE * len(found)
    ]  # fmt: skip
    if weak:
        raise SystemExit("fewer than 19 of 20 seeds pass: " + ", ".join(weak))
    return table


if __name__ == "__main__":
    as_command(main)
