"""What networks are started from: means, matrices and leading directions of contents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_range_finder
from torch import Tensor

from models.rows import DenseRows, NumberRows, SparseRows

OVERSAMPLED = 10
"""Random vectors more than directions that are wanted."""


def feature_means(rows: NumberRows, at_once: int = 4096) -> Tensor:
    """Mean of each feature over the items, each word given a tenth of a count more, (n_features,)."""
    if isinstance(rows, SparseRows):
        total = rows.values.new_full((rows.n_columns,), 0.1).index_add(0, rows.columns, rows.values)
        return total / len(rows)
    parts = torch.arange(len(rows)).split(at_once)
    return torch.stack([rows.select(part).dense().sum(0) for part in parts]).sum(0) / len(rows)


def matrix_of(rows: NumberRows) -> Any:
    """The rows as numpy's dense matrix, or scipy's sparse one, in float64."""
    if isinstance(rows, DenseRows):
        return rows.dense().cpu().double().numpy()
    parts = (rows.values.cpu().double().numpy(), rows.columns.cpu().numpy(), rows.indptr.cpu().numpy())
    return sparse.csr_matrix(parts, shape=tuple(rows.shape))


def leading_directions(matrix: Any, n: int, n_iter: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The leading singular values (n,) and right singular vectors (n, n_features) of a matrix (n_rows, n_features).

    A is nearly Q B, with Q an orthonormal basis of what it makes of random vectors, and B = Q'A. B is wide, so that the
    eigenvectors of B B' take less time than its singular vectors. The sign of a vector is that for which the largest
    entry of its left one is positive. A wide A is transposed first. Source: Halko, Martinsson and Tropp, SIAM Review
    2011, algorithms 4.4 and 5.1.
    """
    tall = matrix.shape[0] >= matrix.shape[1]
    whole = matrix if tall else matrix.T
    basis = randomized_range_finder(whole, size=n + OVERSAMPLED, n_iter=n_iter, random_state=seed)
    small = torch.from_numpy(np.ascontiguousarray((whole.T @ basis).T)).double()
    values, vectors = torch.linalg.eigh(small @ small.mT)
    singular, vectors = values.flip(0)[:n].clamp(min=0).sqrt(), vectors.flip(1)[:, :n]
    outer = (torch.from_numpy(basis).double() @ vectors).numpy()
    inner = (vectors.mT @ small / singular.clamp(min=torch.finfo(singular.dtype).tiny)[:, None]).numpy()
    left, right = (outer, inner) if tall else (inner.T, outer.T)
    largest = left[np.abs(left).argmax(0), np.arange(len(right))]
    return singular.numpy(), right * np.where(largest < 0, -1.0, 1.0)[:, None]
