"""The users that are asked for: their posterior, what they are known to have chosen, and who is known at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch

from inference.average import average_user, without_pairs
from inference.draws import Draws
from inference.fitting import Fit
from inference.posterior import Posterior
from inference.recommending.updated import fitted_part, folded_in
from models.gaussians import Gaussians
from pyro_cvae.data.interactions import pairs_matrix
from pyro_cvae.data.splits import GROUPS, item_groups


def posterior_of(fit: Fit, rows: np.ndarray) -> Posterior:
    """The posterior of some rows of users in that order, -1 a stranger; the average user's where there are no pairs.

    The average is of the users of the fit before any update: it does not depend on who is folded in beside.
    """
    lacking = lacks_pairs(fit, rows)
    posterior = fit.posterior.select(users=np.where(lacking, 0, rows))
    if not lacking.any():
        return posterior
    base, at = fitted_part(fit), torch.from_numpy(lacking)
    average = average_user(base.posterior, base.split.train)
    if isinstance(posterior, Draws) and isinstance(average, Draws):
        u = torch.where(at[:, None], average.u_draws, posterior.u_draws)
        return replace(posterior, u=Gaussians(u.mean(0)), u_draws=u)
    n = len(posterior.u)
    return replace(posterior, u=posterior.u.joined(average.u).select(torch.arange(n).masked_fill(at, n)))


def lacks_pairs(fit: Fit, rows: np.ndarray) -> np.ndarray:
    """True where a row of a user is -1, a stranger, or the user has no training pair, bool (n_rows,)."""
    return (rows < 0) | without_pairs(fit.split.train)[rows]


def origins_of(fit: Fit, rows: np.ndarray) -> np.ndarray:
    """Where the lists of some users (rows, -1 a stranger) are from: "fit", "folded in" or "average", (n_rows,)."""
    origin = np.where(folded_in(fit)[rows], "folded in", "fit")
    return np.where(lacks_pairs(fit, rows), "average", origin).astype(object)


def groups_of(fit: Fit) -> np.ndarray:
    """Hot, warm or cold of each item by its training ratings, or new of one added since, (n_items,)."""
    groups = np.full(fit.dataset.n_items, len(GROUPS))
    trained = item_groups(fitted_part(fit).split.train)
    groups[: len(trained)] = trained
    return np.array([*GROUPS, "new"], dtype=object)[groups]


def known_pairs(fit: Fit, rows: np.ndarray, keep_test: bool = False) -> sp.csr_matrix:
    """What some users (rows, -1 a stranger) are known to have chosen, sparse (n_rows, n_items), in any part of a split.

    With ``keep_test`` less the pairs of the test part. Of explicit ratings it is what they have rated, unless every
    cell is a rating: then, too, what they rated above 0.
    """
    pairs, test = fit.dataset.interactions, fit.split.test
    rated = fit.model.ratings.explicit and not pairs.complete
    chosen = pairs.observed if rated else pairs.positive
    if keep_test:
        chosen = chosen & ~np.isin(pairs.keys, test.keys, assume_unique=True)
    known = pairs_matrix(pairs.select(chosen))[np.maximum(rows, 0)]
    return sp.diags_array((rows >= 0).astype(known.dtype)) @ known if (rows < 0).any() else known
