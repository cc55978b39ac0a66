r"""Does a score mean the same for an item that has no training rating as for one that has many?

Over the cells of users with test pairs that are neither training nor validation, the held-out rating R_ij (1 of a test
pair, otherwise 0) is regressed on the score s_ij = u_i . v_j, a line through 0 for the items of each group:

    slope = sum_ij s_ij R_ij / sum_ij s_ij^2.

Where scores of two groups mean the same, their slopes are equal. A test pair is of what training has left, so that
their common size says nothing. The sums need no product of users with items: sum_j s_ij^2 = u_i' (sum_j v_j v_j') u_i,
less the cells that are known.

The slope is of all cells, most of which nobody looks at. What a list shows is the other half of the table: of the
``top`` items of each user, how many are of the group and what share of these are test pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from analysis.over_users import counted_pairs
from analysis.reliability import test_and_known, top_lists
from inference.average import parts_of
from inference.fitting import Fit
from pyro_cvae.data.splits import GROUPS, item_groups

if TYPE_CHECKING:
    from pyro_cvae.data.interactions import Interactions

COLUMNS = ("group", "n_items", "n_pairs", "slope", "standard_error", "scale", "listed", "hit")
TOP = 50
"""Length of the lists."""
USERS_AT_ONCE = 1024


@torch.no_grad()
def slopes(fit: Fit, top: int = TOP) -> pd.DataFrame | None:
    """One row for each of hot, warm and cold items that there are; ``None`` where there is nothing to ask.

    ``n_items``; ``n_pairs`` test pairs; ``slope`` with its ``standard_error`` over users; ``scale``, the mean factor c
    of contents in it, by which scores of cold items were multiplied (so that without it the slope was c times as
    large); ``listed``, the share of the group in the ``top`` items of each user; ``hit``, the share of test pairs among
    these. A group without test pairs has no slope and no hits, one user no standard error. Users are those with test
    pairs on which no setting was chosen. Explicit ratings have no lists to hit.
    """
    if fit.model.ratings.explicit:
        return None
    test, known = test_and_known(fit)
    users = np.unique(test.users)
    tuning = fit.split.tuning_users
    users = users if tuning is None else users[~tuning[users]]
    if not len(users):
        return None
    group_of = item_groups(counted_pairs(fit))
    scale = getattr(fit.posterior, "content_scale", None)
    listed = top_lists(fit, users, top)
    rows = []
    for index, name in enumerate(GROUPS):
        own = group_of == index
        pairs = own[test.items] & np.isin(test.users, users)
        if not own.any():
            continue
        products, squares = _sums(fit, users, own, test.select(pairs), known)
        slope = float(products.sum() / squares.sum()) if pairs.any() and squares.sum() > 0 else np.nan
        away = products - slope * squares
        error = float(np.sqrt((away**2).sum()) / squares.sum()) if (squares > 0).sum() > 1 else np.nan
        shown = own[listed.items] & listed.there
        factor = 1.0 if scale is None else float(torch.as_tensor(scale)[: len(own)][torch.from_numpy(own)].mean())
        share = float(listed.relevant[shown].mean()) if pairs.any() and shown.any() else np.nan
        numbers = (int(own.sum()), int(pairs.sum()), slope, error, factor, shown.sum() / listed.there.sum(), share)
        rows.append((name, *numbers))
    return pd.DataFrame(rows, columns=list(COLUMNS)).set_index("group")


def told_slope(row: pd.Series) -> str:
    """A slope with its standard error; "-" without test pairs or where all scores are 0."""
    if np.isnan(row["slope"]):
        return "-"
    error = row["standard_error"]
    return f"{row['slope']:.3g}" if np.isnan(error) else f"{row['slope']:.3g} ± {error:.1g}"


def told_hits(row: pd.Series) -> str:
    """Which share of the listed items of a group are hits, and of how much of the lists; "-" without such pairs."""
    return "-" if np.isnan(row["hit"]) else f"{row['hit']:.1%} of {row['listed']:.0%}"


def _sums(
    fit: Fit, users: np.ndarray, own: np.ndarray, test: Interactions, known: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The two sums of each user, (n_users,), over the items of a group, ``own`` (n_items,)."""
    place = np.full(fit.dataset.n_users, -1)
    place[users] = np.arange(len(users))
    products, squares = np.zeros(len(users)), np.zeros(len(users))
    cells = known[users].tocoo()
    seen = own[cells.col]
    for at, posterior, rows in parts_of(fit.posterior, fit.split.train, users):
        row_of = np.full(len(users), -1)
        row_of[at] = rows
        v = posterior.v.loc[torch.from_numpy(own)].double()
        gram = v.mT @ v
        for part in np.array_split(at, -(-len(at) // USERS_AT_ONCE)):
            u = posterior.u.loc[torch.from_numpy(row_of[part])].double()
            squares[part] = ((u @ gram) * u).sum(1).numpy()
        for user, item in ((place[test.users], test.items), (cells.row[seen], cells.col[seen])):
            there = row_of[user] >= 0
            score = posterior.mean_score(row_of[user[there]], item[there]).double().numpy()
            if item is test.items:
                products += np.bincount(user[there], score, len(users))
            else:
                squares -= np.bincount(user[there], score**2, len(users))
    return products, squares
