"""The factors of a fit as plain arrays, whose inner products are the scores that its lists rank by.

A score is E[u_i].E[v_j], so that a row of ``users`` and a row of ``items`` are posterior means. With biases they have
two columns more, (u, b, 1) and (v, 1, c): b is the user's bias and c the item's with the global mean in it. Users
without training pairs have the average user's row (:mod:`inference.average`), as in the lists.

Of the stored draws of :mod:`inference.mcmc` a score is E[u.v], which is no product of means. It is the inner product of
all draws side by side, over their number,

    E[u_i.v_j] = sum_d u_i^d.v_j^d / n_draws,

and where users or items are fewer than these columns, all are turned into the space of the fewer, which changes no
inner product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inference.average import average_user
from inference.draws import Draws
from inference.fitting import Fit
from inference.posterior import Posterior
from inference.recommending.asked import groups_of, known_pairs, lacks_pairs, origins_of
from inference.recommending.updated import fitted_part
from pyro_cvae.limits import check_memory
from pyro_cvae.text import counted

Columns = tuple[tuple[int, str, str], ...]
"""What runs of columns are: how many, what they are of users, what they are of items."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Users, items and what lists need of them; the scores of all pairs are ``users @ items.T``.

    Shapes: ``user_ids`` (n_users,) and ``item_ids`` (n_items,) int64, or object holding str; ``users`` (n_users,
    width), ``items`` (n_items, width) and ``average_user`` (width,) float32, whose ``columns`` are told in order;
    ``origins`` (n_users,) "fit", "folded in" or "average" as in lists; ``groups`` (n_items,) "hot", "warm", "cold" or
    "new". ``seen`` int64 (n_pairs, 2) are rows of users and of items that their lists leave out, ``held_out`` bool
    (n_pairs,) those of them in the test part. ``user_variances`` (n_users, width) and ``item_variances`` (n_items,
    width) are diagonals of posterior covariances, ``None`` of points and stored draws. ``content`` (n_items,
    n_factors) are the means of z, ``None`` of a model that reads no content; ``titles`` (n_items,) object, or ``None``.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    users: np.ndarray
    items: np.ndarray
    average_user: np.ndarray
    columns: Columns
    origins: np.ndarray
    groups: np.ndarray
    seen: np.ndarray
    held_out: np.ndarray
    user_variances: np.ndarray | None = None
    item_variances: np.ndarray | None = None
    content: np.ndarray | None = None
    titles: np.ndarray | None = None

    @property
    def width(self) -> int:
        """Columns of a user's and of an item's row."""
        return self.items.shape[1]


def factors_of(fit: Fit) -> Factors:
    """The factors of a fit, of users folded in and items added too.

    Raises MachineError where the stored draws side by side would take more memory than there is.
    """
    dataset, posterior, base = fit.dataset, fit.posterior, fitted_part(fit)
    rows = np.arange(dataset.n_users)
    average = average_user(base.posterior, base.split.train)
    lacking = torch.from_numpy(lacks_pairs(fit, rows))[:, None]
    seen = known_pairs(fit, rows).tocoo()
    open_to_test = known_pairs(fit, rows, keep_test=True).tocoo()
    keys, kept = (one.row.astype(np.int64) * dataset.n_items + one.col for one in (seen, open_to_test))
    users, items, somebody, columns = _of_draws(posterior, average) or _of_means(posterior, average)
    user_variances, item_variances = _variances(posterior, average, lacking)
    return Factors(
        user_ids=dataset.user_ids,
        item_ids=dataset.item_ids,
        users=_array(torch.where(lacking, somebody, users)),
        items=_array(items),
        average_user=_array(somebody[0]),
        columns=columns,
        origins=origins_of(fit, rows),
        groups=groups_of(fit),
        seen=np.stack([seen.row, seen.col], 1).astype(np.int64),
        held_out=~np.isin(keys, kept),
        user_variances=user_variances,
        item_variances=item_variances,
        content=_array(posterior.z_loc) if posterior.has_content else None,
        titles=dataset.titles,
    )


def _of_means(posterior: Posterior, average: Posterior) -> tuple[Tensor, Tensor, Tensor, Columns]:
    """Means of users, items and the average user, (n_rows, width) each, and what the columns are."""
    users, items, somebody = posterior.u_loc, posterior.v_loc, average.u_loc
    factors = (posterior.n_factors, "mean of u", "mean of v")
    if posterior.v_pad is None:
        return users, items, somebody, ((items.shape[1], *factors[1:]),)
    of_users, of_items = (posterior.biases()[side][0][:, None] for side in ("user", "item"))
    users = torch.cat([users[:, :-2], of_users, torch.ones_like(of_users)], 1)
    of_users = average.biases()["user"][0][:, None]
    somebody = torch.cat([somebody[:, :-2], of_users, torch.ones_like(of_users)], 1)
    items = torch.cat([items[:, :-2], torch.ones_like(of_items), of_items], 1)
    return users, items, somebody, (factors, (1, "bias", "1"), (1, "1", "bias and global mean"))


def _of_draws(posterior: Posterior, average: Posterior) -> tuple[Tensor, Tensor, Tensor, Columns] | None:
    """The same of stored draws, all side by side or turned into fewer columns; ``None`` of another posterior."""
    if not isinstance(posterior, Draws) or not isinstance(average, Draws):
        return None
    n_draws, n_users, n_factors = posterior.u_draws.shape
    width, n_rows = n_draws * n_factors, n_users + 1 + posterior.v_draws.shape[1]
    check_memory(24.0 * width * n_rows, f"{counted(n_draws, 'draw')} side by side", "fit with fewer --draws")
    people = torch.cat([posterior.u_draws, average.u_draws], 1)
    sides = [draws.transpose(0, 1).flatten(1).double() / math.sqrt(n_draws) for draws in (people, posterior.v_draws)]
    draws = f"{counted(n_draws, 'draw')} / sqrt({n_draws})"
    what = f"u of {draws}", f"v of {draws}"
    few = min(sides, key=len)
    if len(few) < width:
        axes, _ = torch.linalg.qr(few.mT)
        sides, what = [side @ axes for side in sides], (f"turned: {what[0]}", f"turned: {what[1]}")
    users, items = sides
    return users[:-1], items, users[-1:], ((items.shape[1], *what),)


def _variances(
    posterior: Posterior, average: Posterior, lacking: Tensor
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Variances of all columns, of users (n_users, width) and items (n_items, width); ``None`` where there are none."""
    if posterior.is_point or isinstance(posterior, Draws):
        return None, None
    users = torch.where(lacking, average.u.variances(), posterior.u.variances())
    items = posterior.v.variances()
    if posterior.v_pad is not None:
        kappa_u, kappa_v = float(posterior.v_pad[0]), float(posterior.u_loc[0, -1])
        users = F.pad(torch.cat([users[:, :-2], kappa_u**2 * users[:, -2:-1]], 1), (0, 1))
        items = torch.cat([items[:, :-2], torch.zeros_like(items[:, -1:]), kappa_v**2 * items[:, -1:]], 1)
    return _array(users), _array(items)


def _array(values: Tensor) -> np.ndarray:
    """As float32 in rows one after the other."""
    return np.ascontiguousarray(values.detach().cpu().numpy(), np.float32)
