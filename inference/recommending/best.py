"""The best of very many values, exactly: values of rows come in blocks of columns, and the rows' best are kept.

Of each block only the values that reach a row's threshold are kept, which is the least of its best so far. Where each
block is a sample of all columns, these are about ``top`` ln(n_columns / n_block) a row. They are sorted when there are
as many as the best themselves. Equal values are in the order of their columns, whatever the blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Best:
    """The ``top`` largest values of each row and their columns; see the module.

    ``values`` and ``columns`` (n_rows, top) are those so far, in order; values are -inf, columns 0 where there are no
    more. Values are float32 or float64; of NaN and -inf nothing is kept.
    """

    def __init__(self, n_rows: int, top: int, dtype: Any) -> None:
        self.values = np.full((n_rows, top), -np.inf, dtype)
        self.columns = np.zeros((n_rows, top), np.int64)
        self._least = np.finfo(self.values.dtype).min
        self._threshold: np.ndarray | None = None
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, values: np.ndarray, columns: np.ndarray) -> None:
        """Look at a block: ``values`` (n_rows, n_block) in the order of C, of the ``columns`` (n_block,), ascending."""
        n_rows, top = self.values.shape
        n_block = len(columns)
        if self._threshold is None:
            self._threshold = self._least_of(values)
        at = np.flatnonzero(values >= self._threshold)
        rows, places = np.divmod(at, n_block)
        self._waiting.append((rows, columns[places], values.reshape(-1)[at]))
        if sum(len(part) for part, _, _ in self._waiting) > n_rows * top:
            self.settle()

    def _least_of(self, values: np.ndarray) -> np.ndarray:
        """The smallest of the first block's best, (n_rows, 1), which no value of the best of all is below."""
        top, n_block = self.values.shape[1], values.shape[1]
        if n_block < top:
            return np.full((len(values), 1), self._least, values.dtype)
        least = np.partition(values, n_block - top, axis=1)[:, n_block - top, None]
        return np.fmax(least, self._least)

    def settle(self) -> None:
        """Take what is waiting into ``values`` and ``columns``."""
        if not self._waiting:
            return
        n_rows, top = self.values.shape
        rows, columns, values = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        order = np.argsort(rows.astype(np.uint16) if n_rows <= 2**16 else rows, kind="stable")
        counts = np.bincount(rows, minlength=n_rows)
        place = top + np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        all_values = np.full((n_rows, top + int(counts.max(initial=0))), -np.inf, self.values.dtype)
        all_columns = np.zeros(all_values.shape, np.int64)
        all_values[:, :top], all_columns[:, :top] = self.values, self.columns
        all_values[rows[order], place], all_columns[rows[order], place] = values[order], columns[order]
        self.values, self.columns = first(all_values, all_columns, top)
        self._threshold = np.fmax(self.values[:, -1:], self._least)


def first(values: np.ndarray, columns: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``top`` largest values of each row and their columns, equal values in the order of columns.

    Shapes (n_rows, n) to (n_rows, top). Columns are from 0 to 2^32 - 1.
    """
    if values.dtype != np.float32:
        order = np.lexsort((columns, -values), axis=-1)[:, :top]
        return np.take_along_axis(values, order, 1), np.take_along_axis(columns, order, 1)
    # One whole number a value and column, in the same order: numpy sorts these many times as fast as pairs.
    bits = (values + np.float32(0)).view(np.int32)  # of -0 makes 0
    keys = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32 | (0xFFFFFFFF - columns)
    best = np.sort(keys, axis=1)[:, : -top - 1 : -1]
    found = (best >> 32).astype(np.int32)
    found ^= found >> 31 & 0x7FFFFFFF
    return np.ascontiguousarray(found).view(np.float32), 0xFFFFFFFF - (best & 0xFFFFFFFF)
