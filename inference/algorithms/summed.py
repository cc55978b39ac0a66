"""Normals of rows whose cells lie with several workers: sums of matrices are added up, rows are shared out.

A row's precision is what all rows share and the sum over its cells of (c - b) E[w w'], w the other side's row. Each
worker has some of the cells. In turns of so many rows of every worker all make their parts of the sums, which are added
up at the worker whose row it is; each solves its rows; and each sends these to all. A symmetric matrix travels as its
lower triangle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from inference.algorithms.workers import Workers
from models.gaussians import Gaussians

BYTES_AT_ONCE = 2**24
"""Bytes of matrices of each worker's rows that are summed in a turn."""


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """That other ``workers`` have further cells of the same rows, ``counts`` (n_rows,) in all."""

    counts: Tensor
    workers: Workers

    def normals(
        self,
        cells: Any,
        right: Tensor,
        sums: Callable[[Tensor], Tensor],
        solve: Callable[[Tensor, Any, Gaussians, Tensor], Gaussians],
    ) -> Gaussians:
        """Normals of all rows of ``cells``, of which these are this worker's.

        Parameters: ``right`` (n_rows, size) the right-hand sides over all workers; ``sums`` those over this worker's
        cells of some rows, (n, size, size); ``solve`` the Normals of rows from their numbers, cells, the other side and
        right-hand sides, the last two covariances being those of rows without cells.
        """
        has, size = self.counts > 0, right.shape[1]
        rows, rest = has.nonzero().squeeze(-1), (~has).nonzero().squeeze(-1)
        without = solve(rest, _one_cell(cells, rest, 0), Gaussians(right.new_zeros(0, size)), right[rest])
        found, triangle = _room(without, right, rows, rest), Triangle.of(size, right.device)
        at_once = max(1, BYTES_AT_ONCE // (right.element_size() * size**2))
        shares = [range(len(rows))[part] for part in self.workers.spans(torch.zeros(len(rows)))]
        for turn in range(0, max(len(share) for share in shares), at_once):
            turns = [share[turn : turn + at_once] for share in shares]
            parts = [slice(turn.start, turn.stop) for turn in turns]
            mine = parts[self.workers.rank]
            matrices = right.new_empty(mine.stop - mine.start, size, size)
            for worker, part in enumerate(parts):
                if part.stop > part.start:
                    packed = self.workers.add_at(triangle.packed(sums(rows[part])), worker)
                    if worker == self.workers.rank:
                        triangle.unpack(packed, matrices)
            met = Gaussians(right.new_zeros(len(matrices), size), covariance=matrices)
            own = rows[mine]
            solved = solve(own, _one_cell(cells, own, 1), met, right[own]) if len(own) else None
            for worker, part in enumerate(parts):
                if part.stop > part.start:
                    self._place(found, rows[part], part, solved if worker == self.workers.rank else None, worker)
        return found

    def _place(self, found: Gaussians, rows: Tensor, part: slice, mine: Gaussians | None, sender: int) -> None:
        """Send one worker's rows to all, and put them in their places; their covariances are ``part`` of the table."""
        send, n, size = self.workers.sent, len(rows), found.loc.shape[1]
        found.loc[rows] = send(found.loc.new_empty(n, size) if mine is None else mine.loc, sender)
        if found.covariance is None or found.log_det is None:
            assert found.variance is not None
            variance = found.loc.new_empty(n, size) if mine is None or mine.variance is None else mine.variance
            found.variance[rows] = send(variance, sender)
            return
        triangle = Triangle.of(size, rows.device)
        if mine is None or mine.covariance is None or mine.log_det is None:
            packed, log_det = found.loc.new_empty(n, len(triangle.places)), found.loc.new_empty(n)
        else:
            packed, log_det = triangle.packed(mine.covariance[:n]), mine.log_det[:n].clone()
        triangle.unpack(send(packed, sender), found.covariance[part])
        found.log_det[part] = send(log_det, sender)


@dataclass(frozen=True, eq=False)
class Triangle:
    """Symmetric matrices as their lower triangles, one row of numbers each.

    Shapes: ``places`` of these numbers in a flat matrix, (n_numbers,), and ``sources``, from which of them each number
    of a flat matrix comes, (size^2,).
    """

    places: Tensor
    sources: Tensor

    @classmethod
    def of(cls, size: int, device: torch.device) -> Triangle:
        """That of matrices (size, size)."""
        row, column = torch.tril_indices(size, size, device=device)
        sources = torch.empty(size**2, dtype=torch.int64, device=device)
        numbers = torch.arange(len(row), device=device)
        sources[row * size + column], sources[column * size + row] = numbers, numbers
        return cls(row * size + column, sources)

    def packed(self, matrices: Tensor) -> Tensor:
        """The triangles of matrices (n, size, size), (n, n_numbers)."""
        return matrices.flatten(1).index_select(1, self.places)

    def unpack(self, packed: Tensor, into: Tensor) -> None:
        """Put the matrices of triangles into (n, size, size), contiguous."""
        torch.index_select(packed, 1, self.sources, out=into.view(len(into), -1))


def _one_cell(cells: Any, rows: Tensor, n: int) -> Any:
    """Rows that have ``n`` cells each, none or one of weight 1 with a row of its own of the other side."""
    count = n * len(rows)
    ones, places = cells.weights.new_ones(count), torch.arange(count, device=rows.device)
    indptr = n * torch.arange(len(rows) + 1, device=rows.device)
    return replace(
        cells,
        indptr=indptr,
        others=places,
        weights=ones,
        targets=torch.zeros_like(ones),
        observed=cells.observed[rows],
        elsewhere=None,
    )


def _room(without: Gaussians, right: Tensor, rows: Tensor, rest: Tensor) -> Gaussians:
    """Room for all rows, those ``without`` cells in it; the covariances that these share are the last."""
    loc = torch.empty_like(right)
    loc[rest] = without.loc
    if without.variance is not None:
        variance = torch.empty_like(right)
        variance[rest] = without.variance
        return Gaussians(loc, variance=variance)
    assert without.covariance is not None and without.log_det is not None and without.block is not None
    block = torch.empty(len(right), dtype=torch.int64, device=right.device)
    block[rows], block[rest] = torch.arange(len(rows), device=right.device), len(rows) + without.block
    covariance, log_det = (
        torch.cat([table.new_empty(len(rows), *table.shape[1:]), table])
        for table in (without.covariance, without.log_det)
    )
    return Gaussians(loc, covariance=covariance, block=block, log_det=log_det)
