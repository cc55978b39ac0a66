r"""The closed-form half-steps of workers that share users and items out.

A worker has the stored cells of its own users, contiguous rows of the matrix that cost as much as those of others, and
updates these users alone; it knows q of all items. q of the items is then updated in one of two ways:

- of points and diagonal Normals each worker updates items of its own from the cells of their columns. For these it gets
  all workers' users, (n_users, n_factors) numbers, or those alone that have a stored cell in these columns, and sums
  over all users, (n_factors, n_factors) numbers (:mod:`inference.algorithms.afar`);
- where users have full covariances, or cells a bound of their own, no user leaves its worker. Of every item j

      Lambda_j - P = sum over workers w of sum over users i of w with a stored cell of (c_ij - b) E[u_i u_i']

  is added up over the workers, n_items n_factors^2 / 2 numbers; each solves for a share of the items and sends these
  to all, as many numbers again (:mod:`inference.algorithms.summed`).

Alone, a worker has all cells and sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from inference.algorithms.afar import Afar
from inference.algorithms.cells import Cells, values_of
from inference.algorithms.half_steps import HalfStep
from inference.algorithms.sides import update_items, update_users
from inference.algorithms.summed import Elsewhere
from inference.algorithms.workers import Workers
from inference.kinds import Gather
from models.base import FactorModel
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.priors import Above, NormalPrior
from models.ratings import GaussianSite, RatingLikelihood

ROW, FULL_ROW = 0.2, 0.5
"""What a row costs by itself, in stored cells a factor: points and diagonal Normals, full covariances."""
SHARED = 2
"""Covariances at the end of a table that rows share: of rows without cells but zeros, and of rows without any."""


@dataclass(frozen=True, eq=False)
class Sites:
    """The ratings' Gaussian site of the cells of this worker's users and, where these are others, of its items."""

    users: GaussianSite
    user_cells: Cells
    items: GaussianSite
    item_cells: Cells


class Shard:
    """What one worker has of the ratings; see the module's docstring.

    ``users`` and ``items`` are its rows, ``n_users`` the number of all users; ``columns`` hold its users, numbered from
    0, and all items, of which ``observed`` are those that anybody has rated.
    """

    def __init__(
        self,
        columns: RatingColumns,
        ratings: RatingLikelihood,
        workers: Workers,
        full: bool,
        width: int,
        gather: Gather = "all",
    ) -> None:
        """Take this worker's part of all ``columns``; ``full`` says that users have full covariances.

        ``width`` is that of rows; ``gather`` are the users that a worker gets for its items where these are updated so.
        """
        self.workers, self.n_users = workers, columns.n_users
        counts = columns.indptr.diff()
        row = width * (FULL_ROW if full else ROW)
        self.user_spans = workers.spans(row + torch.bincount(columns.users, minlength=columns.n_users))
        self.item_spans = workers.spans(row + counts)
        self.users, self.items = self.user_spans[workers.rank], self.item_spans[workers.rank]
        alone = workers.size == 1
        self._gathers = not alone and not full and ratings.exact
        self.columns = columns if alone else of_users(columns, self.users)
        self._item_columns = of_items(columns, self.items) if self._gathers else self.columns
        self._afar: Afar | None = None
        if self._gathers and gather == "needed":
            self._afar = Afar(self._item_columns.users, self.user_spans, workers)
            n_met = len(self._afar.met)
            self._item_columns = replace(self._item_columns, users=self._afar.places, n_users=n_met)
        self._site = self._item_site = ratings.site(self.columns)
        if self._gathers:
            self._item_site = ratings.site(self._item_columns)
        self._user_cells = Cells.of_users(self.columns, self._site)
        self._item_cells = Cells.of_items(self._item_columns, self._item_site)
        self._item_cells = replace(self._item_cells, afar=self._afar)
        if not alone and not self._gathers:
            self._item_cells = replace(self._item_cells, elsewhere=Elsewhere(counts, workers))

    @cached_property
    def _order(self) -> Tensor:
        """The columns' cells in the order of users; wanted where sites change alone."""
        return torch.argsort(self.columns.users, stable=True)

    @property
    def observed(self) -> Tensor:
        """Items that have a column, (n_items,)."""
        return self.columns.observed

    def sites(self, ratings: RatingLikelihood, second: Tensor | None) -> Sites:
        """The Gaussian sites as they are now; ``second`` (n_stored,) as in :meth:`RatingLikelihood.site`."""
        site = ratings.site(self.columns, second)
        item_site = ratings.site(self._item_columns) if self._gathers else site
        if site.is_like(self._site) and item_site.is_like(self._item_site):
            return Sites(self._site, self._user_cells, self._item_site, self._item_cells)
        weights, targets = values_of(self.columns, site)
        users = self._user_cells.with_values(weights[self._order], targets[self._order])
        if self._gathers:
            weights, targets = values_of(self._item_columns, item_site)
        return Sites(site, users, item_site, self._item_cells.with_values(weights, targets))

    def prior_of_users(self, model: FactorModel, above: Above) -> NormalPrior:
        """The prior of this worker's users."""
        prior = model.prior_of_users(above)
        return prior if prior.loc.dim() == 1 else replace(prior, loc=prior.loc[self.users])

    def step_users(self, model: FactorModel, sites: Sites, items: Gaussians, family: str, above: Above) -> HalfStep:
        """Q of this worker's users given q(V)."""
        prior = self.prior_of_users(model, above)
        return update_users(model, sites.users, sites.user_cells, items, self.observed, family, above, prior)

    def step_items(
        self,
        model: FactorModel,
        sites: Sites,
        users: Gaussians,
        prior: NormalPrior,
        spread: Tensor | None,
        family: str,
    ) -> HalfStep:
        """Q of all items given ``users``, what :meth:`told_users` gives.

        Of points and diagonal Normals the ``shift`` is that of this worker's items alone.
        """
        if not self._gathers:
            seen = sites.user_cells.observed
            return update_items(model, sites.items, sites.item_cells, users, seen, prior, spread, family)
        own = self.items
        prior = replace(prior, loc=prior.loc[own], slope=None if prior.slope is None else prior.slope[own])
        seen = torch.ones(len(users), dtype=torch.bool, device=users.loc.device)
        step = update_items(model, sites.items, sites.item_cells, users, seen, prior, None, family)
        square, linear, offset = self.workers.total(
            torch.tensor([step.square, step.linear, step.offset], dtype=torch.float64)
        ).tolist()
        return HalfStep(gathered(step.rows, self.item_spans, self.workers), square, linear, step.shift, offset)

    def told_users(self, users: Gaussians) -> Gaussians:
        """Q of the users that this worker's items are updated from, of whom ``users`` are this one's.

        Where these are the users of all workers, nothing holds this one's twice once ``users`` are given up.
        """
        return self.all_users(users) if self._gathers and self._afar is None else users

    def untold_users(self, users: Gaussians) -> Gaussians:
        """The inverse of :meth:`told_users`."""
        if not self._gathers or self._afar is not None:
            return users
        return self.own_users(users).mapped(Tensor.clone, Tensor.clone)  # all others' are given up

    def all_users(self, users: Gaussians) -> Gaussians:
        """Q of the users of all workers."""
        return gathered(users, self.user_spans, self.workers)

    def known_users(self, users: Gaussians) -> Gaussians:
        """The same at the first worker; of full covariances the others know the diagonals.

        Where a worker gets those users alone that it needs, the others know nobody: one row of NaN stands for all.
        """
        if self._afar is not None:
            return self._at_first(users)
        if self.workers.size == 1 or users.covariance is None:
            return self.all_users(users)
        variance = self.workers.rows(users.variances(), self.user_spans)
        whole = gathered(users, self.user_spans, self.workers, at_first=True)
        return whole if self.workers.is_first else Gaussians(whole.loc, variance)

    def _at_first(self, users: Gaussians) -> Gaussians:
        """Q of all users at the first worker, of points or diagonal Normals, and a row of NaN at the others."""
        parts = [None if part is None else self._or_nan(part) for part in (users.loc, users.variance)]
        assert parts[0] is not None
        return Gaussians(parts[0], parts[1])

    def _or_nan(self, own: Tensor) -> Tensor:
        whole = self.workers.rows_at_first(own, self.user_spans)
        return own.new_full((1, *own.shape[1:]), torch.nan) if whole is None else whole

    def own_users(self, users: Gaussians) -> Gaussians:
        """The inverse of :meth:`all_users`."""
        if self.workers.size == 1:
            return users
        parts = {name: part[self.users] for name in ("loc", "variance") if (part := getattr(users, name)) is not None}
        if users.covariance is not None and users.block is not None:
            block = users.block[self.users]
            alone = block < len(users.covariance) - SHARED
            begin, n_alone = int(block[alone].min()) if bool(alone.any()) else 0, int(alone.sum())
            parts["block"] = torch.where(alone, block - begin, block - len(users.covariance) + SHARED + n_alone)
            for name in ("covariance", "log_det"):
                if (table := getattr(users, name)) is not None:
                    parts[name] = torch.cat([table[begin : begin + n_alone], table[-SHARED:]])
        return Gaussians(**parts)


def of_users(columns: RatingColumns, users: slice) -> RatingColumns:
    """The columns of some users alone, numbered from 0; every item that anybody has rated still has one."""
    there = (columns.users >= users.start) & (columns.users < users.stop)
    counts = torch.bincount(columns.items[there], minlength=len(columns))
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    cells = columns.users[there] - users.start, columns.ratings[there], columns.confidences[there]
    n_users, weights = users.stop - users.start, columns.zero_weights
    return RatingColumns(indptr, *cells, columns.observed, n_users, zero_weights=weights)


def of_items(columns: RatingColumns, items: slice) -> RatingColumns:
    """The columns of some items alone."""
    indptr = columns.indptr[items.start : items.stop + 1]
    cells = slice(int(indptr[0]), int(indptr[-1]))
    users, ratings, confidences = (
        part[cells].clone() for part in (columns.users, columns.ratings, columns.confidences)
    )
    observed, weights = columns.observed[items], None if columns.zero_weights is None else columns.zero_weights[items]
    own = indptr - indptr[0], users, ratings, confidences
    return RatingColumns(*own, observed, columns.n_users, zero_weights=weights)


def gathered(own: Gaussians, spans: list[slice], workers: Workers, at_first: bool = False) -> Gaussians:
    """Rows of all workers from each one's ``own``; blocks of covariances stay as many as they were in all.

    ``at_first`` sends covariances to the first worker alone, and what the others get has none of other workers' rows.
    """
    if workers.size == 1:
        return own
    found: dict[str, Any] = {
        name: workers.rows(part, spans)
        for name in ("loc", "variance", "spread")
        if (part := getattr(own, name)) is not None
    }
    if own.covariance is not None and own.block is not None:
        n_alone = len(own.covariance) - SHARED
        lengths = torch.zeros(workers.size, dtype=torch.int64)
        lengths[workers.rank] = n_alone
        ends = workers.add(lengths).cumsum(0).tolist()
        tables = [slice(begin, end) for begin, end in pairwise([0, *ends])]
        alone = torch.where(own.block < n_alone, own.block + tables[workers.rank].start, own.block - n_alone + ends[-1])
        found["block"] = workers.rows(alone, spans)
        send = workers.rows_at_first if at_first else workers.rows
        for name in ("covariance", "log_det"):
            if (table := getattr(own, name)) is not None:
                found[name] = send(table[:-SHARED], tables, table[-SHARED:])
    return replace(own, **found)
