r"""A score as a sum over what its user has chosen.

E[u_i] given q(V) is linear in what user i has chosen (:mod:`inference.recommending.conditional`). With the rating
likelihood's precision C_ij and shift t_ij of a cell (C_ij R_ij of Normal ratings), the item's bias f_j,
x_j = (E[v_j], kappa_u) in a model with biases and E[v_j] in one without,

    u_i = Lambda_i^-1 (sum_j g_ij + zeros + lambda_u m_i),    g_ij = (t_ij - C_ij E[f_j]) x_j - C_ij cov(f_j, v_j),

so that with w_t = (E[v_t], 0) the score is

    s_it = sum_j share_j + unchosen + prior + user bias + item bias + rest,    share_j = g_ij' Lambda_i^-1 w_t.

``rest`` is (E[u_i] - u_i)'w_t: the stored q(u_i) was made with factors of an earlier sweep, or by gradient steps.

Both ends of a share are sums of what the content says and of what ratings have added, E[v] = c z + d. Of g_ij only the
factors of the item in front of its weight are split, g_ij = (t_ij - C_ij E[f_j]) (c_j z_j, 0) + d_ij:

    content = (t_ij - C_ij E[f_j]) c_j z_j' Lambda_i^-1 c_t z_t,    ratings = d_ij' Lambda_i^-1 d_t,

and mixed is the other two products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inference.algorithms.sides import design
from inference.fitting import Fit
from inference.posterior import Posterior
from inference.recommending.conditional import Conditional, conditional_of_users, prior_of
from models.rows import segments
from pyro_cvae.data.interactions import Interactions

PARTS = ("chosen", "unchosen", "prior", "user_bias", "item_bias", "rest")
"""What a score is the sum of; ``chosen`` is the sum of the shares."""


@dataclass(frozen=True, eq=False)
class Shares:
    """Scores of pairs of a user and an item, and the shares of what the user has chosen.

    Shapes: ``scores`` and each of the ``parts``, by the names of :data:`PARTS`, (n_pairs,); ``pairs`` the pair,
    ``items`` the row of the chosen item, ``share`` and its split ``content``, ``mixed``, ``ratings`` (n_shares,), pair
    by pair. All numbers are float64.
    """

    scores: Tensor
    parts: dict[str, Tensor]
    pairs: Tensor
    items: Tensor
    share: Tensor
    content: Tensor
    mixed: Tensor
    ratings: Tensor


@torch.no_grad()
def shares_of(fit: Fit, users: np.ndarray, at: np.ndarray, items: np.ndarray) -> Shares:
    """The shares of the pairs of users ``users[at]`` and ``items``.

    Shapes: ``users`` rows of different users, each with a training pair, (n_users,); ``at`` and ``items`` rows,
    (n_pairs,).
    """
    row = np.full(fit.dataset.n_users, -1)
    row[users] = np.arange(len(users))
    train = fit.split.train
    chosen = train.select(row[train.users] >= 0)
    pairs = Interactions.from_arrays(
        row[chosen.users],
        chosen.items,
        n_users=len(users),
        n_items=fit.dataset.n_items,
        ratings=chosen.ratings,
        confidences=chosen.confidences,
    )
    ids = fit.dataset.user_ids[users].tolist()
    given = conditional_of_users(fit, pairs, prior_of(fit, ids))
    return _shares(given, fit.posterior, torch.as_tensor(users), torch.as_tensor(at), torch.as_tensor(items))


def _shares(given: Conditional, posterior: Posterior, users: Tensor, at: Tensor, items: Tensor) -> Shares:
    model, n = given.model, given.model.n_factors
    step, biased = given.full(), model.mean is not None
    own = 1.0 if not biased else model.kappa_u, 1.0 if not biased else model.kappa_v
    u = model.own("u", posterior.u.loc[users]).double()
    v, contents = given.items.loc[items].double(), _of_content(posterior, items)
    wide = F.pad(v[:, :n], (0, model.width - n))
    inverse = step.rows.given().double()[at]
    through, through_content = ((inverse @ part[..., None]).squeeze(-1) for part in (wide, contents))
    weight, gained = _gained(given)
    pair, cell = _cells_of(given, at)
    said, chosen = _of_content(posterior, given.cells.others), given.cells.others[cell]
    said = weight[:, None] * said
    share = (gained[cell] * through[pair]).sum(-1)
    content = (said[cell] * through_content[pair]).sum(-1)
    ratings = ((gained - said)[cell] * (through - through_content)[pair]).sum(-1)
    nothing = torch.zeros(len(at), dtype=torch.float64)
    of_users = torch.zeros(len(users), model.width, dtype=torch.float64)
    zeros = step.shift.double() - of_users.index_add(0, _rows_of(given), gained)
    prior = given.prior.rows(len(users))
    pull = torch.zeros_like(of_users) if prior is None else given.prior.precision * prior.double()
    best = ((step.shift.double() + pull)[at] * through).sum(-1)  # of u given V, by the same inverse as the shares
    parts = {
        "chosen": nothing.index_add(0, pair, share),
        "unchosen": (zeros[at] * through).sum(-1),
        "prior": (pull[at] * through).sum(-1),
        "user_bias": own[0] * u[at, -1] if biased else nothing,
        "item_bias": own[1] * v[:, -1] if biased else nothing,
        "rest": (u[at] * wide).sum(-1) - best,
    }
    scores = (u[at, :n] * v[:, :n]).sum(-1) + parts["user_bias"] + parts["item_bias"]
    return Shares(scores, parts, pair, chosen, share, content, share - content - ratings, ratings)


def _gained(given: Conditional) -> tuple[Tensor, Tensor]:
    """What each cell has in front of its item, t - C E[f], (n_stored,), and its g, (n_stored, width), user by user."""
    model, others = given.model, given.cells.others
    precision, weight = given.site.precision[given.order].double(), given.site.shift[given.order].double()
    if model.mean is None:
        return weight, weight[:, None] * given.items.loc[others].double()
    rows, offset = design(given.items, model.kappa_u, model.kappa_v)
    weight = weight - precision * offset.mean[others].double()
    gained = weight[:, None] * rows.loc[others].double()
    if offset.covariance is not None:
        gained = gained - precision[:, None] * offset.covariance[others].double()
    return weight, gained


def _rows_of(given: Conditional) -> Tensor:
    """The user of each cell, (n_stored,)."""
    return torch.repeat_interleave(torch.arange(len(given.cells)), given.cells.lengths)


def _cells_of(given: Conditional, at: Tensor) -> tuple[Tensor, Tensor]:
    """For each pair all cells of its user that are not missing: the pair and the cell, (n_shares,), pair by pair."""
    indptr, cell = segments(given.cells.indptr, at)
    pair = torch.repeat_interleave(torch.arange(len(at)), indptr.diff())
    there = given.site.precision[given.order][cell] > 0
    return pair[there], cell[there]


def _of_content(posterior: Posterior, items: Tensor) -> Tensor:
    """C z of some items as wide as the model, biases 0, (n_items, width)."""
    z = posterior.z.loc[items].double()
    if posterior.content_scale is not None:
        z = posterior.content_scale[items].double()[:, None] * z
    return F.pad(z, (0, int(posterior.v_pad is not None)))
