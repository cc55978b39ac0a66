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
        solve: Callable[[Any, Gaussians, Tensor], Gaussians],
    ) -> Gaussians:
        """Normals of all rows of ``cells``, of which these are this worker's.

        Parameters: ``right`` (n_rows, size) the right-hand sides over all workers; ``sums`` those over this worker's
        cells of some rows, (n, size, size); ``solve`` the Normals of rows from cells, the other side and right-hand
        sides, the last two covariances being those of rows without cells.
        """
        has, size = self.counts > 0, right.shape[1]
        rows, rest = has.nonzero().squeeze(-1), (~has).nonzero().squeeze(-1)
        without = solve(_one_cell(cells, rest, 0), Gaussians(right.new_zeros(0, size)), right[rest])
        found = _room(without, right, rows, rest)
        at_once = max(1, BYTES_AT_ONCE // (right.element_size() * size**2))
        parts = [part.split(at_once) for part in rows.tensor_split(self.workers.size)]
        triangle = tuple(torch.tril_indices(size, size, device=right.device))
        for turn in range(max(len(part) for part in parts)):
            turns = [part[turn] if turn < len(part) else rows[:0] for part in parts]
            matrices = right.new_empty(len(turns[self.workers.rank]), size, size)
            for worker, theirs in enumerate(turns):
                if len(theirs):
                    packed = self.workers.add_at(sums(theirs)[:, triangle[0], triangle[1]], worker)
                    if worker == self.workers.rank:
                        _unpack(matrices, slice(None), packed, triangle)
            own = turns[self.workers.rank]
            met = Gaussians(right.new_zeros(len(own), size), covariance=matrices)
            solved = solve(_one_cell(cells, own, 1), met, right[own]) if len(own) else None
            for worker, theirs in enumerate(turns):
                if len(theirs):
                    self._place(found, theirs, solved, worker, triangle)
        return found

    def _place(
        self, found: Gaussians, rows: Tensor, solved: Gaussians | None, sender: int, triangle: tuple[Tensor, ...]
    ) -> None:
        """Send one worker's rows to all, and put them in their places."""
        send, n, size = self.workers.sent, len(rows), found.loc.shape[1]
        mine = solved if sender == self.workers.rank else None
        found.loc[rows] = send(found.loc.new_empty(n, size) if mine is None else mine.loc, sender)
        if found.covariance is None or found.block is None or found.log_det is None:
            assert found.variance is not None
            variance = found.loc.new_empty(n, size) if mine is None or mine.variance is None else mine.variance
            found.variance[rows] = send(variance, sender)
            return
        if mine is None or mine.covariance is None or mine.log_det is None:
            packed, log_det = found.loc.new_empty(n, len(triangle[0])), found.loc.new_empty(n)
        else:
            packed, log_det = mine.covariance[:n][:, triangle[0], triangle[1]], mine.log_det[:n].clone()
        _unpack(found.covariance, found.block[rows], send(packed, sender), triangle)
        found.log_det[found.block[rows]] = send(log_det, sender)


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


def _unpack(matrices: Tensor, at: Any, packed: Tensor, triangle: tuple[Tensor, ...]) -> None:
    """Put symmetric matrices at some places of a table from their lower triangles."""
    whole = packed.new_empty(len(packed), *matrices.shape[1:])
    whole[:, triangle[0], triangle[1]] = packed
    whole[:, triangle[1], triangle[0]] = packed
    matrices[at] = whole
