"""How time and memory of closed-form sweeps grow: ``python -m benchmarks.growth`` (draws docs/growth.png).

Simulated ratings, ten a user, items as popular as 1 / (10 + rank), so that the most popular has a hundredth of all
ratings. Each size and family has a process of its own: its time is the median over sweeps of U and V, after one that is
not counted, its memory the peak (ru_maxrss) above what Python, torch and this package take before any data. A size is
left out where the size before it says that it would need more than ``--limit`` GiB.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

# Nothing heavy is imported here, because a child's ru_maxrss begins at its parent's size.
from benchmarks.study.arguments import add_threads, as_command, command
from benchmarks.study.machine import Load, peak_mib
from benchmarks.study.tables import show, verdict
from benchmarks.study.workers import ask, worker

FAMILIES = {"map": "point", "bayes, diagonal": "diagonal", "bayes, full": "full"}
PER_USER, PER_ITEM = 10, 50
SMALLEST = 1_000
STEEPEST = 1.1
"""Slope, at most, of log seconds and of log bytes over log ratings."""
PLOT = Path(__file__).parents[1] / "docs" / "growth.png"
SEED = 0


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark, print its table, draw its plot and return its rows, one a family and size."""
    parser = command("growth", __doc__)
    sizes = [10**4, 10**5, 10**6, 10**7]
    parser.add_argument("--ratings", type=lambda text: int(float(text)), nargs="+", default=sizes, help="ascending")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--factors", type=int, default=50)
    add_threads(parser, 2, " of a sweep")
    parser.add_argument("--seconds", type=float, default=5.0, help="sweeps are repeated for so long, at most 5 times")
    parser.add_argument("--limit", type=float, default=16.0, help="GiB that a process may need")
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args(arguments)
    if min(options.ratings) < SMALLEST:
        parser.error(f"--ratings: below {SMALLEST:,} there are too few pairs of a user and an item to draw from")
    machine, rows = Load(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        how = {name: getattr(options, name) for name in ("factors", "threads", "seconds")}
        for n_ratings in options.ratings:
            families = [family for family in options.families if fits(rows, family, n_ratings, options.limit)]
            size = _child({"task": "simulate", "folder": folder, "ratings": n_ratings}) if families else {}
            for family in families:
                found = _child({"task": "sweep", "folder": folder, "family": family, **how})
                rows.append({"family": family, **size, **found})
    _report(rows, options.limit)
    print(f"K = {options.factors}, {machine.told(options.threads)}")
    draw(rows, options.plot)
    return rows


def fits(rows: list[dict[str, Any]], family: str, n_ratings: int, limit: float) -> bool:
    """False, with a line that says so, where the family's last size, scaled up, needs more than ``limit`` GiB."""
    before = [row for row in rows if row["family"] == family]
    if not before or before[-1]["above_gib"] * n_ratings / before[-1]["ratings"] <= limit:
        return True
    print(f"{family}: {n_ratings:,} ratings would need more than {limit:g} GiB: left out")
    return False


def slope(rows: list[dict[str, Any]], name: str) -> float:
    """Least-squares slope of the log of a column over log ratings."""
    x, y = [math.log(row["ratings"]) for row in rows], [math.log(row[name]) for row in rows]
    middle, height = sum(x) / len(x), sum(y) / len(y)
    across = sum((at - middle) ** 2 for at in x)
    return sum((at - middle) * (value - height) for at, value in zip(x, y, strict=True)) / across


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds of a sweep and GiB over ratings, both axes logarithmic, a line a family."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    labels = {"seconds": "seconds a sweep over U and V", "above_gib": "peak memory above the interpreter's, GiB"}
    for axes, (name, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        for (family, cases), marker in zip(_by_family(rows).items(), "os^", strict=False):
            axes.loglog([r["ratings"] for r in cases], [r[name] for r in cases], marker=marker, label=family)
        ends = min(r["ratings"] for r in rows), max(r["ratings"] for r in rows)
        start = min(r[name] for r in rows if r["ratings"] == ends[0])
        axes.loglog(ends, [start, start * ends[1] / ends[0]], color="grey", linestyle=":", label="slope 1")
        axes.set(xlabel="ratings (ten a user)", ylabel=label)
        axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    print(path)


def _by_family(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    families = dict.fromkeys(row["family"] for row in rows)
    return {family: [row for row in rows if row["family"] == family] for family in families}


def _report(rows: list[dict[str, Any]], limit: float) -> None:
    headings = ("family", "ratings", "users", "items", "longest row", "seconds", "above, GiB", "peak, GiB")
    texts: list[list[str]] = []
    for family, cases in _by_family(rows).items():
        for row in cases:
            counts = (f"{row[name]:,}" for name in ("ratings", "users", "items", "longest"))
            measured = (f"{row[name]:.3g}" for name in ("seconds", "above_gib", "gib"))
            texts.append([family, *counts, *measured])
        texts.append([])
    show(headings, texts, title="A sweep over U and V")
    for family, cases in _by_family(rows).items():
        if len(cases) > 1:
            for name, label in (("seconds", "time"), ("above_gib", "memory")):
                steep, last = slope(cases, name), slope(cases[-2:], name)
                measured = f"slope {steep:.2f} (at most {STEEPEST}), of the last step {last:.2f}"
                verdict(steep <= STEEPEST, f"{family}, {label}: {measured}")
        fits = [row for row in cases if row["gib"] <= limit]
        if fits:
            row = fits[-1]
            size = f"{row['ratings']:,} ratings of {row['users']:,} users and {row['items']:,} items"
            cost = f"{row['seconds']:.3g} seconds a sweep, {row['gib']:.3g} GiB"
            print(f"{family}: the largest that fits in {limit:g} GiB: {size}, {cost}")


# --- what runs in a process of its own -------------------------------------------------------------------------------


def _child(task: dict[str, Any]) -> dict[str, Any]:
    with worker("benchmarks.growth", task.get("threads", 1)) as process:
        found: dict[str, Any] = ask(process, task)
    return found


def work() -> None:
    """Answer the one question on stdin."""
    task = json.loads(sys.stdin.readline())
    print(json.dumps(simulate(**task) if task.pop("task") == "simulate" else sweep(**task)))


def simulate(folder: str, ratings: int) -> dict[str, int]:
    """Write distinct random pairs as columns: ``indptr`` (n_items + 1,), ``users`` (n_ratings,)."""
    import numpy as np

    from benchmarks.study.sparse import distinct_pairs

    n_users, n_items = max(1, ratings // PER_USER), max(1, ratings // PER_ITEM)
    pairs = distinct_pairs(n_users, n_items, ratings).tocsc()
    np.savez(Path(folder) / "columns.npz", indptr=pairs.indptr, users=pairs.indices, n_users=n_users)
    longest = int(np.diff(pairs.indptr).max())
    return {"ratings": ratings, "users": n_users, "items": n_items, "longest": longest}


def sweep(folder: str, family: str, factors: int, threads: int, seconds: float) -> dict[str, float]:
    """Median seconds of a sweep of one family, peak GiB, and GiB above what there was before any data."""
    import numpy as np
    import torch

    from benchmarks.study.arguments import compute_with
    from inference.algorithms.cells import Cells
    from inference.algorithms.half_steps import half_step
    from models.gaussians import Gaussians
    from models.observations import RatingColumns

    compute_with(threads)
    before = _peak_gib()
    with np.load(Path(folder) / "columns.npz") as arrays:
        indptr, at, n_users = (torch.as_tensor(arrays[name]).long() for name in ("indptr", "users", "n_users"))
    ones, n_items = torch.ones(len(at)), len(indptr) - 1
    columns = RatingColumns(indptr, at, ones, ones, indptr.diff() > 0, int(n_users))
    users, items = Cells.of_users(columns, 0.01), Cells.of_items(columns, 0.01)
    z_loc = torch.randn(n_items, factors, generator=torch.Generator().manual_seed(SEED))
    kind, laps = FAMILIES[family], list[float]()
    u: Gaussians | None = None
    v: Gaussians | None = Gaussians(z_loc)
    while len(laps) < 2 or (len(laps) < 6 and sum(laps[1:]) < seconds):
        began = time.perf_counter()
        u = None  # the last q(U) and then the last q(V) are given back before the next is made
        assert v is not None
        u = half_step(users, v, items.observed, 0.01, 10.0, family=kind).rows
        v = None
        v = half_step(items, u, users.observed, 0.01, 1.0, z_loc, family=kind).rows
        laps.append(time.perf_counter() - began)
    above = max(2**-10, _peak_gib() - before)  # at least 1 MiB: the imports' own peak hides less
    return {"seconds": median(laps[1:]), "gib": _peak_gib(), "above_gib": above}


def _peak_gib() -> float:
    return peak_mib() / 1024


if __name__ == "__main__":
    as_command(main)
