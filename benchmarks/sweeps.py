"""Seconds of closed-form sweeps beside the ALS of ``implicit``: ``python -m benchmarks.sweeps``.

Five tables, all of one process: rows of one length by Woodbury's identity and by Cholesky, on which ``WOODBURY_UP_TO``
rests; sweeps by the bytes that a block of rows may take, on which ``BLOCK_BYTES`` rests; sweeps over U and V in the
families of ``inference.algorithms.half_steps`` and iterations of ``implicit``, by conjugate gradients and exactly; the
same sweeps by numba's kernels and by torch; sweeps with full covariances by one thread, by our pool of threads and by
torch's own. The first two and the last are of torch's way, the third of ``--kernel``. Variants take turns, and a ratio
is the median over the turns, so that other work on the machine slows both sides of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from statistics import median
from typing import Any, get_args
from unittest import mock

import torch
from threadpoolctl import threadpool_limits

from benchmarks.study.arguments import add_data, add_threads, as_command, command, compute_with, data_folder
from benchmarks.study.machine import Load
from benchmarks.study.tables import show_rows, verdict
from benchmarks.study.turns import clocked, in_turns, ratio
from inference.algorithms import half_steps
from inference.algorithms.cells import BLOCK_BYTES, Cells
from inference.algorithms.half_steps import half_step
from inference.algorithms.kernels import kernel, there
from inference.kinds import Kernel
from inference.threads import torch_threads
from models.gaussians import Gaussians
from models.observations import RatingColumns
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import from_file

A, B, LAMBDA_U, LAMBDA_V = 1.0, 0.01, 10.0, 1.0
FAMILIES = {"map": "point", "bayes, diagonal": "diagonal", "bayes, full": "full", "bayes, structured": "full"}
RIVALS = {"implicit, conjugate gradients": True, "implicit, exact": False}
TARGETS = {
    "map": ("implicit, conjugate gradients", 0.6),
    "bayes, full": ("implicit, exact", 3.0),
    "bayes, structured": ("implicit, exact", 6.0),
}
"""Ratio of seconds to a rival's, at most."""
LENGTHS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Stored cells a row, in units of n_factors."""
BLOCKS = tuple(2**power for power in (18, 20, 22, 24, 25, 26))
"""Bytes that a block of rows may take."""
SEED = 0

Timer = Callable[[], float]


def main(arguments: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Run the parts that are asked for, print their tables and return their rows."""
    parser, parts = command("sweeps", __doc__), ("lengths", "blocks", "sweeps", "kernels", "threads")
    add_data(parser, "citeulike-t")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="which tables")
    parser.add_argument("--turns", type=int, default=7, help="timed repetitions of each variant")
    parser.add_argument("--kernel", choices=get_args(Kernel), default="auto", help="of the table of sweeps")
    add_threads(parser, 2, " of sweeps and of implicit")
    options = parser.parse_args(arguments)
    compute_with(options.threads)
    machine, rows = Load(), {}
    if "lengths" in options.parts:
        with kernel("torch"):
            rows["lengths"] = [row for n_factors in (50, 300) for row in lengths(n_factors, options.turns)]
        show_rows(rows["lengths"], title="Points of rows of one length, microseconds a row, one thread")
    if set(options.parts) - {"lengths"}:
        columns = read(options.data)
    if "blocks" in options.parts:
        with kernel("torch"):
            rows["blocks"] = blocks(columns, options.turns)
        show_rows(rows["blocks"], title="Seconds of a sweep by bytes of a block, one thread")
    if "sweeps" in options.parts:
        with kernel(options.kernel):
            rows["sweeps"] = sweeps(columns, options.turns)
        show_rows(rows["sweeps"], title="Sweeps over U and V, citeulike-t, ten training items a user, K = 50")
        found = {row["variant"]: row for row in rows["sweeps"]}
        for name, (rival, most) in TARGETS.items():
            times = found[name][f"over {rival}"]
            verdict(times <= most, f"{name} over {rival}: {times:.2f} (at most {most:g})")
    if "kernels" in options.parts and there():
        rows["kernels"] = kernels(columns, options.turns)
        show_rows(rows["kernels"], title="Seconds of a sweep by what solves its rows")
    if "threads" in options.parts:
        with kernel("torch"):
            rows["threads"] = threads(columns, options.turns)
        show_rows(rows["threads"], title="A sweep with full covariances")
    print(f"{machine.told(torch.get_num_threads())}, {options.turns} turns")
    return rows


def read(data: str) -> RatingColumns:
    """The columns of citeulike-t's training pairs, ten items a user; ``data`` is its folder or its name."""
    folder = data_folder(data)
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


def kernels(columns: RatingColumns, turns: int, n_factors: int = 50) -> list[dict[str, Any]]:
    """Seconds of a sweep of each family by torch and by numba's kernels, and the seconds of the first with them."""

    def by(name: Kernel, sweep: Timer) -> float:
        with kernel(name):
            return sweep()

    began = time.perf_counter()
    for name in FAMILIES:
        by("numba", ours(columns, name, n_factors))
    print(f"{time.perf_counter() - began:.1f} seconds for the first sweep of each family, compiling included")
    rows = []
    for name in FAMILIES:
        ways = ("torch", "numba")
        laps = in_turns({way: partial(by, way, ours(columns, name, n_factors)) for way in ways}, turns)
        seconds = {way: median(laps[way]) for way in ways}
        rows.append({"variant": name, **seconds, "numba over torch": ratio(laps["numba"], laps["torch"])})
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
    generator = torch.Generator().manual_seed(SEED)
    other = Gaussians(torch.randn(n_others, n_factors, generator=generator))
    seen = torch.ones(n_others, dtype=torch.bool)
    rows = []
    for share in LENGTHS:
        length = max(1, round(share * n_factors))
        n_rows = max(1, n_cells // length, n_cells // (2 * n_factors))
        at, ones = torch.randint(n_others, (n_rows * length,), generator=generator), torch.ones(n_rows * length)
        indptr, observed = torch.arange(n_rows + 1) * length, torch.ones(n_rows, dtype=torch.bool)
        cells = Cells(indptr, at, (A - B) * ones, A * ones, observed)
        solve = partial(half_step, cells, other, seen, B, LAMBDA_V, torch.zeros(n_rows, n_factors))
        up_to = {"woodbury": float("inf"), "cholesky": 0.0}
        timers = {name: partial(clocked_up_to, most, solve) for name, most in up_to.items()}
        with torch_threads(1):
            laps = in_turns(timers, turns)
        row = {"K": n_factors, "cells a row": length, "cells a row / K": share}
        row |= {name: 1e6 * median(seconds) / n_rows for name, seconds in laps.items()}
        rows.append({**row, "woodbury over cholesky": ratio(laps["woodbury"], laps["cholesky"])})
    return rows


def blocks(columns: RatingColumns, turns: int, n_factors: int = 50) -> list[dict[str, Any]]:
    """Seconds of a sweep of the plain families by ``BLOCK_BYTES``, one thread.

    Large blocks lose by memory that is mapped anew for each of their temporaries.
    """

    def limited(sweep: Timer, size: int) -> float:
        with mock.patch.dict(BLOCK_BYTES, cpu=size):
            return sweep()

    families = [name for name in FAMILIES if name != "bayes, structured"]
    rows: list[dict[str, Any]] = [{"MiB": size / 2**20} for size in BLOCKS]
    for name in families:
        sweep = ours(columns, name, n_factors)
        with torch_threads(1):
            laps = in_turns({str(size): partial(limited, sweep, size) for size in BLOCKS}, turns)
        for row, seconds in zip(rows, laps.values(), strict=True):
            row[name] = median(seconds)
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


if __name__ == "__main__":
    as_command(main)
