"""Which items may be ranked for a user: not those that the user is known to have chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from inference.fitting import Fit


def known_pairs(fit: Fit, rows: np.ndarray, keep_test: bool = False) -> csr_matrix:
    """What some users (rows, -1 a stranger) are known to have chosen, sparse (n_rows, n_items), in any part of a split.

    With ``keep_test`` less the pairs of the test part. Of explicit ratings it is what they have rated, unless every
    cell is a rating: then, too, what they rated above 0.
    """
    import scipy.sparse as sp

    from inference.evaluate import pairs_matrix

    pairs, test = fit.dataset.interactions, fit.split.test
    rated = fit.model.ratings.explicit and not pairs.complete
    chosen = pairs.observed if rated else pairs.positive
    if keep_test:
        chosen = chosen & ~np.isin(pairs.keys, test.keys, assume_unique=True)
    known = pairs_matrix(pairs.select(chosen))[np.maximum(rows, 0)]
    return sp.diags_array((rows >= 0).astype(known.dtype)) @ known if (rows < 0).any() else known
