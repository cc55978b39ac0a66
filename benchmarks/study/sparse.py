"""Random cells of a sparse matrix for measurements of time, of which some columns are far more popular than others."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def distinct_pairs(n_rows: int, n_columns: int, n_pairs: int, seed: int = 0) -> sparse.csr_matrix:
    """Counts (n_rows, n_columns) with ``n_pairs`` distinct cells, columns as popular as 1 / (10 + rank)."""
    random = np.random.default_rng(seed)
    popularity = np.cumsum(1 / (10 + np.arange(n_columns)))
    cells = np.zeros(0, np.int64)
    while len(np.unique(cells)) < n_pairs:
        columns = np.searchsorted(popularity, random.uniform(0, popularity[-1], n_pairs))
        cells = np.concatenate([cells, random.integers(n_rows, size=n_pairs) * n_columns + columns])
    found, counts = np.unique(cells, return_counts=True)
    kept = random.permutation(len(found))[:n_pairs]
    rows, columns = np.divmod(found[kept], n_columns)
    return sparse.csr_matrix((counts[kept].astype(float), (rows, columns)), shape=(n_rows, n_columns))
