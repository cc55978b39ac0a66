"""The users that are asked for: their posterior, what they are known to have chosen, and who is known at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
import torch

from inference.average import average_user, lacking_users
from inference.draws import Draws
from inference.fitting import Fit
from inference.posterior import Posterior
from inference.recommending.updated import fitted_part, folded_in
from models.gaussians import Gaussians
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.splits import GROUPS, item_groups


def posterior_of(fit: Fit, rows: np.ndarray, average: Callable[[], Posterior] | None = None) -> Posterior:
    """The posterior of some rows of users in that order, -1 a stranger; the average user's where there are no pairs.

    ``average`` gives :func:`average_of` the fit where that is there already.
    """
    lacking = lacks_pairs(fit, rows)
    posterior = fit.posterior.select(users=np.where(lacking, 0, rows))
    if not lacking.any():
        return posterior
    somebody, at = average_of(fit) if average is None else average(), torch.from_numpy(lacking)
    if isinstance(posterior, Draws) and isinstance(somebody, Draws):
        u = torch.where(at[:, None], somebody.u_draws, posterior.u_draws)
        return replace(posterior, u=Gaussians(u.mean(0)), u_draws=u)
    n = len(posterior.u)
    return replace(posterior, u=posterior.u.joined(somebody.u).select(torch.arange(n).masked_fill(at, n)))


def average_of(fit: Fit) -> Posterior:
    """The average of the users of the fit before any update: it does not depend on who is folded in beside."""
    base = fitted_part(fit)
    return average_user(base.posterior, base.split.train)


def lacks_pairs(fit: Fit, rows: np.ndarray) -> np.ndarray:
    """True where a row of a user is -1, a stranger, or nothing is known of the user, bool (n_rows,)."""
    return (rows < 0) | lacking_users(fit.posterior, fit.split.train)[rows]


def origins_of(fit: Fit, rows: np.ndarray) -> np.ndarray:
    """Where the lists of some users (rows, -1 a stranger) are from: "fit", "folded in" or "average", (n_rows,)."""
    origin = np.where(folded_in(fit)[rows], "folded in", "fit")
    return np.where(lacks_pairs(fit, rows), "average", origin).astype(object)


_GROUPS: WeakKeyDictionary[Fit, np.ndarray] = WeakKeyDictionary()


def groups_of(fit: Fit) -> np.ndarray:
    """Hot, warm or cold of each item by its training ratings, or new of one added since, (n_items,)."""
    base = fitted_part(fit)
    trained = _GROUPS.get(base)
    if trained is None:
        trained = _GROUPS[base] = np.array(GROUPS, dtype=object)[item_groups(base.split.train)]
    more = fit.dataset.n_items - len(trained)
    return np.concatenate([trained, np.full(more, "new", object)]) if more else trained


def known_pairs(fit: Fit, rows: np.ndarray, keep_test: bool = False) -> sp.csr_matrix:
    """What some users (rows, -1 a stranger) are known to have chosen, sparse (n_rows, n_items), in any part of a split.

    With ``keep_test`` less the pairs of the test part. Of explicit ratings it is what they have rated, unless every
    cell is a rating: then, too, what they rated above 0.
    """
    pairs, test = fit.dataset.interactions, fit.split.test
    place, at = pairs.of_users(rows)
    chosen = np.ones(len(at), bool) if pairs.confidences is None else pairs.confidences[at] != 0
    if pairs.complete or not fit.model.ratings.explicit:
        chosen &= pairs.ratings[at] > 0
    if keep_test:
        chosen &= ~np.isin(_keys(pairs, at), _keys(test, test.of_users(rows)[1]))
    cells = place[chosen], pairs.items[at][chosen]
    return sp.csr_matrix((np.ones(len(cells[0]), np.float32), cells), (len(rows), pairs.n_items))


def _keys(pairs: Interactions, at: np.ndarray) -> np.ndarray:
    """The keys of some pairs, (n_some,)."""
    return pairs.users[at] * pairs.n_items + pairs.items[at]
