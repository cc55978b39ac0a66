"""What networks are started from: means and matrices of contents."""

from __future__ import annotations

from typing import Any

import torch
from scipy import sparse
from torch import Tensor

from models.rows import DenseRows, NumberRows, SparseRows


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
