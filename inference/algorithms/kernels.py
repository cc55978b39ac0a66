"""Which code does the half-steps' rows: kernels that numba compiles (the extra ``fast``), or torch.

Both give the same numbers to the rounding of the floating-point type. Torch's way is the one that is always there, that
takes any device, and that the kernels are tested against. Compiled code is kept beside the source or, where that folder
cannot be written, in the user's cache; ``NUMBA_CACHE_DIR`` names another folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inference.kinds import Kernel
from models.gaussians import Gaussians
from models.rows import segments
from pyro_cvae.errors import MachineError

if TYPE_CHECKING:
    from inference.algorithms.cells import Cells

SMALL = 128
"""Factors up to which kernels take rows of any length; with more, long rows are torch's, which has matrix products."""
FEW = 64
"""Cells of a row up to which a kernel takes it where there are more factors than that."""
WOODBURY_UP_TO = 0.4
"""Cells a factor up to which a kernel solves a point by Woodbury's identity where there are few factors."""
TABLE_FROM = 2
"""Cells for each of the other side's rows from which all of these are whitened at once, not as cells ask for them."""
ROWS_AT_ONCE = 1024
"""Rows of points that a thread takes at once."""
MOMENTS_AT_ONCE = 4096
"""Rows of points of which a thread takes the second moment at once."""
BLOCKS_AT_ONCE = 512
"""Covariances that a thread adds up at once."""
NORMALS_AT_ONCE = 128
"""Rows of Normals that a thread takes at once."""
BLOCKS = 4
"""Blocks of columns of a triangular matrix that rows are multiplied by."""
Shape = Literal["whole", "lower", "upper"]
TYPES = (torch.float32, torch.float64)

_chosen: ContextVar[Kernel] = ContextVar("kernel", default="auto")


@contextmanager
def kernel(name: Kernel) -> Iterator[None]:
    """Half-steps inside are made by ``name``: numba's kernels, torch, or by auto numba's where numba is installed.

    Raises MachineError for numba where it is not installed.
    """
    if name == "numba" and not there():
        raise MachineError(
            "--kernel numba needs numba, which is not installed", "pip install -e '.[fast]', or use --kernel torch"
        )
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


@cache
def there() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


def compiled_for(*tensors: Tensor) -> Any:
    """The module of kernels where these tensors are to go through it, else ``None``: torch's own way.

    Kernels take tensors of the CPU, without gradients.
    """
    if _chosen.get() == "torch" or not there():
        return None
    if any(t.device.type != "cpu" or t.dtype not in TYPES or t.requires_grad for t in tensors):
        return None
    return _compiled()


@cache
def _compiled() -> Any:
    from inference.algorithms import compiled

    return compiled


def most_cells(size: int, short: float) -> int:
    """Cells of a row up to which :class:`Points` solves it, where rows of ``short`` may be; 0: it solves none."""
    most = FEW if size > SMALL else max(1.0, WOODBURY_UP_TO * size)
    return int(min(short, most))


@dataclass(frozen=True, eq=False)
class Whitened:
    """The other side's rows x in coordinates where the rows' common precision P = L L' is I, L^-1 x.

    All of them are there at once, ``table`` (n_others, size), or of few cells they are made as these ask for them:
    that takes no memory, and kernels then read one row after the other. Shapes: ``other`` (n_others, size) the rows
    themselves; ``root`` L^-1 (size, size).
    """

    other: Tensor
    root: Tensor
    table: Tensor | None

    @classmethod
    def of(cls, other: Tensor, root: Tensor, n_asked: int, workers: int) -> Whitened:
        """The rows for ``n_asked`` cells in all."""
        few = n_asked < TABLE_FROM * len(other)
        return cls(other, root, None if few else times(other, root.mT, workers, "upper"))

    def at(self, others: Tensor) -> Tensor:
        """The rows of cells of any shape, (..., size)."""
        if self.table is not None:
            return F.embedding(others, self.table)
        rows = self.other.index_select(0, others.flatten())
        return product(rows, self.root.mT, "upper").view(*others.shape, len(self.root))


@dataclass(frozen=True, eq=False)
class Points:
    """What the points of rows are made of, whose common precision is P = L L'.

    ``whitened`` are the other side's rows; ``pull`` is h_i of a row without cells, (n_rows, size), or ``None`` for 0.
    """

    cells: Cells
    whitened: Whitened
    pull: Tensor | None

    def solved(self, compiled: Any, most: int, workers: int) -> tuple[Tensor, Tensor]:
        """Points of all rows that are needed but of those that are left, and the latter's numbers.

        Rows of at most ``most`` cells are solved by Woodbury's identity:

            L^-T (start + X' (W^-1 + X X')^-1 (W^-1 y - X start)),    start = L^-1 h

        Left are other rows and those with a weight that is not positive. Raises MachineError where a row's system is
        not positive definite.
        """
        cells, pull, root = self.cells, self.pull, self.whitened.root
        found, is_short = root.new_empty(len(cells), len(root)), cells.lengths[cells.needed] <= most
        rows = cells.needed[is_short]
        state, into = np.empty(len(rows), np.int8), found.numpy()

        def solve(part: slice) -> None:
            mine = rows[part]
            if pull is None:
                loc = root.new_zeros(len(mine), len(root))
            else:
                loc = product(pull.index_select(0, mine), root.mT, "upper")
            table, whitened, places = self._of(mine)
            compiled.points(table, whitened, most, places, pull is not None, loc.numpy(), state[part])
            compiled.put(mine.numpy(), product(loc, root, "lower").numpy(), into)

        in_parallel(solve, _slices(len(rows), ROWS_AT_ONCE), workers)
        if (state == compiled.INDEFINITE).any():
            raise indefinite()
        is_left = ~is_short
        is_left[is_short] = torch.from_numpy(state == compiled.LEFT)
        return found, cells.needed[is_left]

    def _of(self, rows: Tensor) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
        """Cells, the whitened rows that these number, and where ``rows`` stand among the cells' rows."""
        cells, table = self.cells, self.whitened.table
        if table is not None:
            return _arrays(cells.indptr, cells.others, cells.weights, cells.targets), table.numpy(), rows.numpy()
        indptr, at = segments(cells.indptr, rows)
        own = _arrays(indptr, torch.arange(len(at)), cells.weights[at], cells.targets[at])
        return own, self.whitened.at(cells.others[at]).numpy(), np.arange(len(rows))


def inner(one: Tensor, other: Tensor) -> Tensor:
    """Inner products of rows, (n_rows,)."""
    if (compiled := compiled_for(one, other)) is None:
        return (one * other).sum(-1)
    found = one.new_zeros(len(one))
    compiled.inner(*_arrays(one, other, found))
    return found


def shift(cells: Cells, other: Tensor) -> Tensor:
    """Sum over each row's stored cells of c r times the other side's row, (n_rows, n_factors)."""
    if (compiled := compiled_for(other, cells.targets)) is None:
        others, first = cells.others, cells.indptr[:-1]
        return F.embedding_bag(others, other, first, mode="sum", per_sample_weights=cells.targets)
    found = other.new_empty(len(cells), other.shape[1])
    compiled.shift(*_arrays(cells.indptr, cells.others, cells.targets, other, found))
    return found


def second_moment(other: Gaussians, weights: Tensor, workers: int) -> Tensor:
    """Sum over rows of weight times E[w w'], (size, size): partial sums of a number of rows, one after the other."""
    if other.spread is not None:
        return _second_moment_of_parents(other, weights, workers)
    if not other.is_point:
        return other.second_moment(weights)
    counted = weights.nonzero().squeeze(-1).split(MOMENTS_AT_ONCE)
    sums = other.loc.new_zeros(len(counted), *2 * other.loc.shape[1:])

    symmetric = compiled_for(other.loc, weights) is not None and bool((weights >= 0).all())

    def add(k: int) -> None:
        rows, weight = other.loc.index_select(0, counted[k]), weights[counted[k], None]
        if symmetric:  # of a matrix and its own transpose numpy computes one half
            half = (rows * weight.sqrt()).numpy()
            np.matmul(half.T, half, out=sums[k].numpy())
        else:
            torch.mm(rows.mT, rows * weight, out=sums[k])

    in_parallel(add, list(range(len(counted))), workers)
    return sums.sum(0)


def _second_moment_of_parents(other: Gaussians, weights: Tensor, workers: int) -> Tensor:
    """The same of rows with parents: that given these, and slope^2 times the sum of S diag(spread) S."""
    assert other.covariance is not None and other.block is not None and other.spread is not None
    size, given = other.loc.shape[1], replace(other, spread=None)
    spread = other.loc.new_zeros(len(other.covariance), size)
    spread.index_add_(0, other.block, other.spread * weights[:, None])
    parts = _slices(len(spread), BLOCKS_AT_ONCE)
    sums = other.loc.new_zeros(len(parts), size, size)

    def add(k: int) -> None:
        rows = other.covariance[parts[k]].flatten(0, 1)  # type: ignore[index]
        torch.mm(rows.mT, rows * spread[parts[k]].flatten()[:, None], out=sums[k])

    in_parallel(add, list(range(len(parts))), workers)
    return given.second_moment(weights) + other.slope**2 * sums.sum(0)


def marginal(other: Gaussians, workers: int) -> Gaussians:
    """The same without parents, as :meth:`models.gaussians.Gaussians.marginal` with nothing told apart."""
    if other.spread is None:
        return other
    assert other.covariance is not None and other.block is not None
    alone = torch.bincount(other.block, minlength=len(other.covariance)) == 1
    spread = torch.zeros_like(other.covariance[:, 0]).index_add_(0, other.block, other.spread) * alone[:, None]
    table = torch.empty_like(other.covariance)

    def add(part: slice) -> None:
        s = other.covariance[part]  # type: ignore[index]
        torch.baddbmm(s, s * spread[part, None], s, alpha=other.slope**2, out=table[part])

    in_parallel(add, _slices(len(table), NORMALS_AT_ONCE), workers)
    return Gaussians(other.loc, covariance=table, block=other.block)


def sums(compiled: Any, cells: Cells, other: Gaussians, rows: Tensor) -> Tensor:
    """Sum over the cells of some rows of (c - b) E[w w'], (n, size, size)."""
    size = other.loc.shape[1]
    found = other.loc.new_empty(len(rows), size, size)
    table = _arrays(cells.indptr, cells.others, cells.weights)
    compiled.sums(table, _parts(other), rows.contiguous().numpy(), found.numpy())
    return found


def normals(
    compiled: Any,
    cells: Cells,
    other: Gaussians,
    base: tuple[Tensor, float, Tensor | None],
    right: Tensor,
    rows: Tensor,
    found: Gaussians,
    workers: int,
) -> None:
    """Normals of ``rows``, written into ``found``: the precision of a row is gram by_row + precision I + its cells'.

    ``base`` are gram, precision and by_row (n_rows,) or ``None`` for 1. Raises MachineError where a precision is not
    positive definite.
    """
    gram, precision, by_row = base
    nothing = right.new_empty(0)
    means, variances, covariances, block = _parts(found)
    log_dets = _arrays(nothing if found.log_det is None else found.log_det)[0]
    given = (*_arrays(gram), gram.numpy().dtype.type(precision), *_arrays(nothing if by_row is None else by_row))
    arrays = _arrays(cells.indptr, cells.others, cells.weights), _parts(other), given, *_arrays(right)
    state = np.empty(len(rows), np.int8)

    def solve(part: slice) -> None:
        mine = rows[part].numpy()
        compiled.normals(*arrays, mine, (means, variances, covariances, log_dets, block), state[part])

    in_parallel(solve, _slices(len(rows), NORMALS_AT_ONCE), workers)
    if (state == compiled.INDEFINITE).any():
        raise indefinite()


def _parts(rows: Gaussians) -> tuple[np.ndarray, ...]:
    """Means, variances, covariances and the block of each row; empty is what there is not."""
    has, empty = rows.covariance is not None, rows.loc.new_empty
    variance = empty(0, 0) if rows.variance is None else rows.variance
    block = rows.block if has else torch.empty(0, dtype=torch.int64)
    return _arrays(rows.loc, variance, rows.covariance if has else empty(0, 0, 0), block)


def indefinite() -> MachineError:
    """A row's precision has no Cholesky factor."""
    return MachineError(
        "a precision of the closed form is not positive definite in this floating-point type",
        "use --dtype float64, or larger --lambda-u and --lambda-v",
    )


def in_parallel(solve: Callable[[Any], None], parts: list[Any], workers: int) -> None:
    """Each part by one of so many Python threads; what a part computes does not depend on their number."""
    if workers == 1 or len(parts) <= 1:
        for part in parts:
            solve(part)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(solve, parts))


def _slices(n: int, at_once: int) -> list[slice]:
    return [slice(start, min(start + at_once, n)) for start in range(0, n, at_once)]


def times(rows: Tensor, matrix: Tensor, workers: int, shape: Shape = "whole") -> Tensor:
    """Rows times a matrix, in parts of a size that does not depend on the number of workers."""
    found = rows.new_empty(len(rows), matrix.shape[1])

    def multiply(part: slice) -> None:
        product(rows[part], matrix, shape, found[part])

    in_parallel(multiply, _slices(len(rows), 2 * ROWS_AT_ONCE), workers)
    return found


def product(rows: Tensor, matrix: Tensor, shape: Shape = "whole", out: Tensor | None = None) -> Tensor:
    """Rows times a matrix, of which one triangle is zeros where its ``shape`` is the other.

    With kernels it is numpy's, whose library of linear algebra is the faster one on AMD's processors, and of a triangle
    that is wide enough :data:`BLOCKS` blocks of columns, each without most of its zeros.
    """
    found = rows.new_empty(len(rows), matrix.shape[1]) if out is None else out
    if compiled_for(rows, matrix) is None:
        return torch.mm(rows, matrix, out=found)
    left, right, into, size = rows.numpy(), matrix.numpy(), found.numpy(), len(matrix)
    n_blocks = BLOCKS if shape != "whole" and size >= SMALL else 1
    for block in range(n_blocks):
        first, last = size * block // n_blocks, size * (block + 1) // n_blocks
        some = {"whole": slice(None), "lower": slice(first, None), "upper": slice(0, last)}[shape]
        np.matmul(left[:, some], right[some, first:last], out=into[:, first:last])
    return found


def _arrays(*tensors: Tensor | None) -> tuple[np.ndarray, ...]:
    """The tensors' own memory, in rows."""
    return tuple(tensor.contiguous().numpy() for tensor in tensors if tensor is not None)
