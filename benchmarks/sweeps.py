"""Seconds of closed-form sweeps beside the ALS of ``implicit``: ``python -m benchmarks.sweeps``.

Four tables, all of one process: rows of one length by Woodbury's identity and by Cholesky, on which ``WOODBURY_UP_TO``
rests; sweeps by the bytes that a block of rows may take, on which ``BLOCK_BYTES`` rests; sweeps over U and V in the
families of ``inference.algorithms.half_steps`` and iterations of ``implicit``, by conjugate gradients and exactly;
sweeps with full covariances by one thread, by our pool of threads and by torch's own. Variants take turns, and a ratio
is the median over the turns, so that other work on the machine slows both sides of it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from threadpoolctl import threadpool_limits

from inference.algorithms import half_steps
from inference.algorithms.half_steps import Cells, half_step
from inference.threads import torch_threads
from models.gaussians import Gaussians
from models.observations import RatingColumns

A, B, LAMBDA_U, LAMBDA_V = 1.0, 0.01, 10.0, 1.0
FAMILIES = {"map": "point", "bayes, diagonal": "diagonal", "bayes, full": "full", "bayes, structured": "full"}
RIVALS = {"implicit, conjugate gradients": True, "implicit, exact": False}
TARGETS = {"map": ("implicit, conjugate gradients", 1.0), "bayes, full": ("implicit, exact", 5.0)}
"""Ratio of seconds to a rival's, at most."""
LENGTHS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Stored cells a row, in units of n_factors."""
BLOCKS = tuple(2**power for power in (18, 20, 22, 24, 25, 26))
"""Bytes that a block of rows may take."""
SEED = 0

Timer = Callable[[], float]


def main(arguments: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Run the parts that are asked for, print their tables and return their rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    folder, parts = os.environ.get("PYRO_CVAE_DATA"), ("lengths", "blocks", "sweeps", "threads")
    default = str(Path(folder) / "citeulike-t") if folder else "citeulike-t"
    parser.add_argument(
        "--data", default=default, help="the folder citeulike-t (default: under $PYRO_CVAE_DATA, or the cache)"
    )
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="which tables")
    parser.add_argument("--turns", type=int, default=7, help="timed repetitions of each variant")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of sweeps and of implicit")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    began, rows = os.getloadavg()[0], {}
    if "lengths" in options.parts:
        rows["lengths"] = [row for n_factors in (50, 300) for row in lengths(n_factors, options.turns)]
        _print("Points of rows of one length, microseconds a row, one thread", rows["lengths"])
    if set(options.parts) - {"lengths"}:
        columns = read(options.data)
    if "blocks" in options.parts:
        rows["blocks"] = blocks(columns, options.turns)
        _print("Seconds of a sweep by bytes of a block, one thread", rows["blocks"])
    if "sweeps" in options.parts:
        rows["sweeps"] = sweeps(columns, options.turns)
        _print("Sweeps over U and V, citeulike-t, ten training items a user, K = 50", rows["sweeps"])
        found = {row["variant"]: row for row in rows["sweeps"]}
        for name, (rival, most) in TARGETS.items():
            times = found[name][f"over {rival}"]
            print(f"{'met' if times <= most else 'MISSED'}: {name} over {rival}: {times:.2f} (at most {most:g})")
    if "threads" in options.parts:
        rows["threads"] = threads(columns, options.turns)
        _print("A sweep with full covariances", rows["threads"])
    load = f"load average {began:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"
    print(f"{options.threads} thread(s) on {os.cpu_count()} cores, {load}, {options.turns} turns")
    return rows


def read(data: str) -> RatingColumns:
    """The columns of citeulike-t's training pairs, ten items a user; ``data`` is its folder or its name."""
    from pyro_cvae.data.registry import fetch, load_dataset
    from pyro_cvae.data.splits import from_file

    folder = Path(data) if Path(data).exists() else fetch(data)
    train = from_file(load_dataset(folder), folder / "cf-train-10-users.dat").train
    return RatingColumns.from_interactions(train, A)


def sweeps(columns: RatingColumns, turns: int, n_factors: int = 50) -> list[dict[str, Any]]:
    """Seconds of a sweep of each family and of an iteration of each rival, and ratios to the rivals."""
    timers = {name: ours(columns, name, n_factors) for name in FAMILIES}
    timers |= {name: implicit(columns, use_cg, n_factors) for name, use_cg in RIVALS.items()}
    laps = in_turns(timers, turns)
    rows = []
    for name, seconds in laps.items():
        ratios = {f"over {rival}": ratio(seconds, laps[rival]) for rival in RIVALS}
        rows.append({"variant": name, "seconds": median(seconds), **ratios})
    return rows


def clocked_up_to(most: float, solve: Callable[[], object]) -> float:
    """Seconds of ``solve`` where rows of at most so many cells a factor are solved by Woodbury's identity."""
    with mock.patch.object(half_steps, "WOODBURY_UP_TO", most):
        return clocked(solve)


def lengths(n_factors: int, turns: int, n_cells: int = 20_000, n_others: int = 2_000) -> list[dict[str, Any]]:
    """Microseconds a row of points where all rows have one length, by Woodbury's identity and by Cholesky.

    One thread, as each thread of a sweep works. Both include what a row of any length costs: its share of the common
    factor, the sum of c r v, the prior's pull.
    """
    generator, n_threads = torch.Generator().manual_seed(SEED), torch.get_num_threads()
    other = Gaussians(torch.randn(n_others, n_factors, generator=generator))
    seen = torch.ones(n_others, dtype=torch.bool)
    rows = []
    torch.set_num_threads(1)
    for share in LENGTHS:
        length = max(1, round(share * n_factors))
        n_rows = max(1, n_cells // length, n_cells // (2 * n_factors))
        at, ones = torch.randint(n_others, (n_rows * length,), generator=generator), torch.ones(n_rows * length)
        indptr, observed = torch.arange(n_rows + 1) * length, torch.ones(n_rows, dtype=torch.bool)
        cells = Cells(indptr, at, (A - B) * ones, A * ones, observed)
        solve = partial(half_step, cells, other, seen, B, LAMBDA_V, torch.zeros(n_rows, n_factors))
        up_to = {"woodbury": float("inf"), "cholesky": 0.0}
        laps = in_turns({name: partial(clocked_up_to, most, solve) for name, most in up_to.items()}, turns)
        row = {"K": n_factors, "cells a row": length, "cells a row / K": share}
        row |= {name: 1e6 * median(seconds) / n_rows for name, seconds in laps.items()}
        rows.append({**row, "woodbury over cholesky": ratio(laps["woodbury"], laps["cholesky"])})
    torch.set_num_threads(n_threads)
    return rows


def blocks(columns: RatingColumns, turns: int, n_factors: int = 50) -> list[dict[str, Any]]:
    """Seconds of a sweep of the plain families by ``BLOCK_BYTES``, one thread.

    Large blocks lose by memory that is mapped anew for each of their temporaries.
    """

    def limited(sweep: Timer, size: int) -> float:
        with mock.patch.object(half_steps, "BLOCK_BYTES", size):
            return sweep()

    families = [name for name in FAMILIES if name != "bayes, structured"]
    rows: list[dict[str, Any]] = [{"MiB": size / 2**20} for size in BLOCKS]
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in families:
        sweep = ours(columns, name, n_factors)
        laps = in_turns({str(size): partial(limited, sweep, size) for size in BLOCKS}, turns)
        for row, seconds in zip(rows, laps.values(), strict=True):
            row[name] = median(seconds)
    torch.set_num_threads(n_threads)
    return rows


def threads(columns: RatingColumns, turns: int, n_factors: int = 50) -> list[dict[str, Any]]:
    """Seconds of a full-covariance sweep by one thread, by our pool of threads, and once by torch's own threads."""
    n_threads, sweep = torch.get_num_threads(), ours(columns, "bayes, full", n_factors)

    def alone() -> float:
        with torch_threads(1):
            return sweep()

    laps = in_turns({"one thread": alone, f"{n_threads} threads of our pool": sweep}, turns)
    with mock.patch.object(half_steps, "torch_threads", lambda count: nullcontext(1)):
        laps[f"{n_threads} threads of torch's own, one turn"] = [sweep()]
    one = median(laps["one thread"])
    return [{"variant": name, "seconds": median(s), "over one thread": median(s) / one} for name, s in laps.items()]


def ours(columns: RatingColumns, name: str, n_factors: int) -> Timer:
    """A function that makes the next sweep, from where the one before ended, and returns its seconds."""
    users, items = Cells.of_users(columns, B), Cells.of_items(columns, B)
    generator = torch.Generator().manual_seed(SEED)
    z_loc = torch.randn(len(columns), n_factors, generator=generator)
    spread = torch.full_like(z_loc, 0.5) if name == "bayes, structured" else None
    state, family = [Gaussians(z_loc)], FAMILIES[name]

    def sweep() -> None:
        u = half_step(users, state[0], items.observed, B, LAMBDA_U, family=family)
        v = half_step(items, u.rows, users.observed, B, LAMBDA_V, z_loc, spread, family=family)
        state[0] = v.rows

    return partial(clocked, sweep)


def implicit(columns: RatingColumns, use_cg: bool, n_factors: int) -> Timer:
    """A function that makes the next iteration of ``implicit`` and returns the seconds that it reports itself."""
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy import sparse

    cells = (columns.ratings.numpy(), (columns.users.numpy(), columns.items.numpy()))
    pairs = sparse.csr_matrix(cells, shape=(columns.n_users, len(columns)))
    laps: list[float] = []

    with threadpool_limits(1, "blas"):  # two pools of threads are slow; the constructor warns of them
        model = AlternatingLeastSquares(
            factors=n_factors,
            alpha=A / B,
            regularization=0.1 / B,
            iterations=1,
            use_cg=use_cg,
            num_threads=torch.get_num_threads(),
            random_state=SEED,
        )

    def iteration() -> float:
        with threadpool_limits(1, "blas"):
            model.fit(pairs, show_progress=False, callback=lambda iteration, elapsed, loss: laps.append(elapsed))
        return laps[-1]

    return iteration


def clocked(work: Callable[[], Any]) -> float:
    """Seconds of ``work``."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(timers: dict[str, Timer], turns: int) -> dict[str, list[float]]:
    """Seconds by name: each timer once unrecorded, then all in turns, every other turn in the reverse order."""
    laps: dict[str, list[float]] = {name: [] for name in timers}
    for turn in range(turns + 1):
        for name in timers if turn % 2 else reversed(timers):
            seconds = timers[name]()
            if turn:
                laps[name].append(seconds)
    return laps


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over the turns of one's seconds over the other's: neighbours in time are compared."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for heading in rows[0]:
        table.add_column(heading, justify="left" if isinstance(rows[0][heading], str) else "right")
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
