"""What a ranking asks of a posterior: scores' spread over all items, intervals, chances to be listed, bandit rankings.

Nothing of size users x items outlives a block of users, and draws come in parts; so memory does not grow with the
number of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inference.draws import Draws
from inference.kinds import Ranking
from inference.progress import Lines, progress
from inference.recommending.best import Best
from inference.threads import torch_threads
from models.ratings.predictive import normal_half_width
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from inference.posterior import Posterior

FLOATS_AT_ONCE = 2**26
SCORES_AT_ONCE = 2**23
CELLS_AT_ONCE = 2**18
"""Scores that are looked at for the best at once: so many stay in a core's cache."""
FEW_USERS = 8


@dataclass(frozen=True, eq=False)
class Candidates:
    """The items that may be ranked, for each of the users that are asked for.

    Shapes: ``allowed`` bool (n_items,); ``seen`` sparse (n_asked, n_items) with the items that a user has chosen
    already, ``None`` where these are ranked too.
    """

    allowed: Tensor
    seen: csr_matrix | None = None

    def mask(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Scores (n_rows, n_items) of these of the users asked for, -inf where an item is no candidate."""
        scores = scores.masked_fill(~self.allowed, -torch.inf)
        if self.seen is not None:
            seen = self.seen[rows.numpy()]
            users = torch.repeat_interleave(torch.arange(len(rows)), torch.as_tensor(np.diff(seen.indptr)).long())
            scores[users, torch.as_tensor(seen.indices).long()] = -torch.inf
        return scores

    def parts(self, columns: Tensor, rows: Tensor, n_parts: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The items ``columns`` (n_columns,), ascending, in parts, each with the cells in it that a user has seen.

        A part is every ``n_parts``-th item, so that each is like all; the cells are rows of the users ``rows`` and
        places in the part.
        """
        nothing = np.zeros(0, np.int64)
        users, places, part = nothing, nothing, nothing
        if self.seen is not None:
            seen = self.seen[rows.numpy()]
            users = np.repeat(np.arange(len(rows)), np.diff(seen.indptr))
            at = np.searchsorted(columns.numpy(), seen.indices) if len(columns) < seen.shape[1] else seen.indices
            there = at < len(columns)
            there[there] = columns.numpy()[at[there]] == seen.indices[there]
            users, (places, part) = users[there], np.divmod(at[there], n_parts)
            order = np.argsort(part, kind="stable")
            users, places, part = users[order], places[order].astype(np.int64), part[order]
        ends = np.searchsorted(part, np.arange(n_parts + 1))
        for number, (start, end) in enumerate(pairwise(ends.tolist())):
            cells = torch.from_numpy(users[start:end]), torch.from_numpy(places[start:end])
            yield columns[number::n_parts], *cells


def best_items(
    posterior: Posterior,
    users: Any,
    top: int,
    candidates: Candidates,
    ranking: Ranking = "mean",
    kappa: float = 1.0,
    seed: int = 0,
    block_size: int = 1024,
) -> tuple[Tensor, Tensor]:
    """The ``top`` candidates of each user and the values that rank them, (n_users, top) each, as (values, items).

    The values are E[u].E[v] ("mean"), one posterior draw of u.v ("thompson", :func:`thompson_scores`) or mean +
    ``kappa`` sd ("ucb"); -inf behind the last candidate. Items of the same value are in the order of the data. Blocks
    of users are ranked side by side, each in blocks of items (:mod:`inference.recommending.best`), so that no more than
    :data:`CELLS_AT_ONCE` scores a thread exist.
    """
    users, top = torch.as_tensor(users), min(top, len(posterior.v_loc))
    blocks = torch.arange(len(users)).split(block_size)
    columns = candidates.allowed.nonzero().squeeze(-1)
    dtype = posterior.v_loc.dtype
    values = torch.empty(len(users), top, dtype=dtype)
    items = torch.empty(len(users), top, dtype=torch.int64)

    def rank(block: Tensor, own_seed: int) -> None:
        scores = _scores_of_items(posterior, users[block], ranking, kappa, own_seed)
        best = Best(len(block), top, values.numpy().dtype)
        n_parts = -(-len(columns) * len(block) // CELLS_AT_ONCE)
        for part, rows, places in candidates.parts(columns, block, max(1, n_parts)):
            found = scores(part)
            found[rows, places] = -torch.inf
            best.add(found.numpy(), part.numpy())
        best.settle()
        values[block], items[block] = torch.from_numpy(best.values), torch.from_numpy(best.columns)

    _side_by_side(rank, blocks, seeds_of(seed, len(blocks)))
    return values, items


def _side_by_side(work: Callable[..., None], *of_each: Iterable[Any]) -> None:
    """Do ``work`` on each, in as many Python threads as torch has, each with one of torch's."""
    parts = list(zip(*of_each, strict=True))
    workers = min(len(parts), torch.get_num_threads())
    if workers < 2:
        for part in parts:
            work(*part)
        return
    with torch_threads(1), ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda part: _without_gradients(work, part), parts))


def _without_gradients(work: Callable[..., None], part: tuple[Any, ...]) -> None:
    with torch.no_grad():  # of this thread
        work(*part)


def _scores_of_items(
    posterior: Posterior, users: Tensor, ranking: Ranking, kappa: float, seed: int
) -> Callable[[Tensor], Tensor]:
    """What gives the values that rank some items for a block of users: rows of items (n,) to (n_block, n).

    Each item is asked for once, since "thompson" draws anew.
    """
    everyone, n_items = torch.arange(len(users)), len(posterior.v_loc)

    def part_of(some: Posterior, items: Tensor) -> Any:
        return some if len(items) == n_items else some.select(items=items)

    if ranking == "thompson":
        _need_uncertainty(posterior)
        if isinstance(posterior, Draws):
            return lambda items: part_of(posterior, items).drawn_score_block(users, seed)
        u, scores_given = _draws_of_users(posterior, users, 1, seed)
        return lambda items: scores_given(u, part_of(posterior, items))
    if ranking == "mean" and not isinstance(posterior, Draws):
        u, v = posterior.u_loc[users], posterior.v_loc
        return lambda items: u @ (v if len(items) == n_items else v[items]).mT
    of_users = posterior.select(users=users)

    def scores(items: Tensor) -> Tensor:
        some = part_of(of_users, items)
        found = some.score_block(everyone)
        return found + kappa * score_sds(some, everyone) if ranking == "ucb" else found

    return scores


def seeds_of(seed: int, n: int) -> list[int]:
    """Seeds of independent generators."""
    return [int(state >> 1) for state in np.random.SeedSequence(seed).generate_state(n, np.uint64)]


def score_sds(posterior: Posterior, users: Any) -> Tensor:
    """Standard deviation of u_i.v_j of a block of users over all items, (n_block, n_items); see Posterior.score.

    var(u.v) = <m_u m_u' + S_u, S_v> + m_v' S_u m_v: two matrix products for all pairs of a block of items.
    """
    _need_uncertainty(posterior)
    users = torch.as_tensor(users)
    if isinstance(posterior, Draws):
        return posterior.score_sd_block(users)
    return _spread(posterior, posterior.u.loc[users], users).sqrt()


def thompson_scores(posterior: Posterior, users: Any, seed: int) -> Tensor:
    """One posterior draw of u_i.v_j over all items, (n_block, n_items), for each user independently of the others.

    u_i is drawn; given it the scores of all items are independent, N(u_i.m_j, u_i' S_j u_i), since q factorises over
    items: v itself need not be drawn. Of stored draws one is chosen. Raises InputError for a point estimate.
    """
    _need_uncertainty(posterior)
    if isinstance(posterior, Draws):
        return posterior.drawn_score_block(users, seed)
    u, scores_given = _draws_of_users(posterior, torch.as_tensor(users), 1, seed)
    return scores_given(u, posterior)


def _draws_of_users(
    posterior: Posterior, users: Tensor, n: int, seed: int
) -> tuple[Tensor, Callable[[Tensor, Posterior], Tensor]]:
    """``n`` draws of the users one after the other, (n * n_users, n_factors), and what draws scores given such rows.

    The scores are of the items of a posterior, all or a part of them; every call goes on with the same random numbers.
    """
    seed_of_u, seed_of_scores = seeds_of(seed, 2)
    nothing = torch.empty(0, dtype=torch.int64)
    drawn = posterior.select(users=users, items=nothing).sample(n, seed_of_u)["u"].flatten(0, 1)
    generator = torch.Generator().manual_seed(seed_of_scores)

    def scores_given(u: Tensor, of_items: Posterior) -> Tensor:
        sd = _spread(of_items, u, None).sqrt()
        return u @ of_items.v_loc.mT + sd * torch.randn(sd.shape, generator=generator, dtype=sd.dtype)

    return drawn, scores_given


def _spread(posterior: Posterior, u: Tensor, users: Tensor | None) -> Tensor:
    """Variance of u.v over all items, (n_users, n_items), u known where ``users`` is None, else N(u, cov(users))."""
    of_v = posterior.v.variance
    if of_v is not None and (users is None or posterior.u.variance is not None):
        if users is None or posterior.u.variance is None:
            return u.square() @ of_v.mT
        u_var = posterior.u.variance[users]
        return (u.square() + u_var) @ of_v.mT + u_var @ posterior.v.loc.square().mT
    second = u[:, :, None] * u[:, None, :]
    of_u = None if users is None else posterior.covariance("u", users)
    flat = (second if of_u is None else second + of_u).flatten(1)
    variances = []
    for items in torch.arange(len(posterior.v_loc)).split(max(1, FLOATS_AT_ONCE // (16 * flat.shape[1]))):
        variance = flat @ posterior.covariance("v", items).flatten(1).mT
        if of_u is not None:
            v = posterior.v_loc[items]
            variance += of_u.flatten(1) @ (v[:, :, None] * v[:, None, :]).flatten(1).mT
        variances.append(variance)
    return torch.cat(variances, 1)


def credible_interval(mean: Tensor, sd: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Ends of the central interval of that probability, by the Normal with the score's own mean and sd.

    u.v is a sum of products of Normals and so not Normal itself, but nearly so: ``benchmarks.updates`` compares the
    interval with quantiles of draws.
    """
    half = normal_half_width(level) * sd
    return mean - half, mean + half


def top_probabilities(
    posterior: Posterior, users: Any, items: Tensor, m: int, candidates: Candidates, n_draws: int, seed: int
) -> Tensor:
    """P(item is among the user's best ``m`` candidates) for some items of each user, (n_users, n_listed), float64.

    The share of ``n_draws`` joint draws of u and all v in which it is; where items tie for the last places, they share
    these. Its standard error is at most 1/2 / sqrt(n_draws). Shapes: ``users`` (n_users,), ``items`` (n_users,
    n_listed). Draws are streamed. Raises InputError for a point estimate.
    """
    _need_uncertainty(posterior, n_draws)
    users = torch.as_tensor(users)
    times_listed = torch.zeros(items.shape, dtype=torch.float64)
    with _progress("draws", n_draws * len(users)) as advance:
        for rows, drawn in _drawn_scores(posterior, users, n_draws, seed):
            scores = candidates.mask(drawn, rows)
            times_listed.index_add_(0, rows, _shares(scores, scores.gather(1, items[rows]), m))
            advance(len(rows))
    return times_listed / n_draws


def _drawn_scores(posterior: Posterior, users: Tensor, n_draws: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Joint draws of the scores of all items, in parts: rows of ``users`` and their scores, (n_rows, n_items).

    One draw of v serves all users. For a few users it is less work to draw the scores given u, as
    :func:`thompson_scores` does.
    """
    n_items, n_factors = posterior.v_loc.shape
    size = max(1, SCORES_AT_ONCE // n_items)
    if len(users) <= FEW_USERS and not isinstance(posterior, Draws):
        drawn, scores_given = _draws_of_users(posterior, users, n_draws, seed)
        for rows in torch.arange(len(drawn)).split(size):
            yield rows % len(users), scores_given(drawn[rows], posterior)
        return
    at_once = max(1, FLOATS_AT_ONCE // ((len(users) + 4 * n_items) * n_factors))
    blocks = torch.arange(len(users)).split(size)
    for some_draws in posterior.select(users=users).draws(n_draws, seed, at_once):
        for u, v in zip(some_draws["u"], some_draws["v"], strict=True):
            for block in blocks:
                yield block, u[block] @ v.mT


def _shares(scores: Tensor, listed: Tensor, m: int) -> Tensor:
    """1 for a listed score among the best ``m`` of its row, 0 for one below, a share where the last places are tied."""
    n_items = scores.shape[1]
    if m >= n_items:
        return torch.ones_like(listed, dtype=torch.float64)
    best = scores.topk(m + 1).values
    last = best[:, m - 1 : m]
    inside = (listed >= last).double()
    tied = (best[:, m] == last[:, 0]).nonzero().squeeze(-1)
    if len(tied):  # more items at the last place than there are places
        at_last = (scores[tied] == last[tied]).sum(-1)
        places = m - (best[tied, :m] > last[tied]).sum(-1)
        share = (places / at_last.double())[:, None]
        inside[tied] = torch.where(listed[tied] == last[tied], share, inside[tied])
    return inside


def above_probabilities(posterior: Posterior, users: Any, first: int, second: int, n_draws: int, seed: int) -> Tensor:
    """P(u.v_first > u.v_second) of each user, (n_users,), the share of joint draws; a tie counts half."""
    _need_uncertainty(posterior, n_draws)
    users = torch.as_tensor(users)
    block = max(1, SCORES_AT_ONCE // (2 * n_draws))
    chances = []
    for some in users.split(block):
        draws = posterior.score_draws(some[:, None], torch.tensor([first, second]), n_draws, seed)
        difference = draws[..., 0] - draws[..., 1]
        chances.append((difference > 0).double().mean(0) + 0.5 * (difference == 0).double().mean(0))
    return torch.cat(chances)


def _need_uncertainty(posterior: Posterior, n_draws: int = 1) -> None:
    if posterior.is_point:
        raise InputError("a MAP fit is a point and has no uncertainty", "fit with --mode bayes")
    if n_draws < 1:
        raise InputError(f"a probability from {counted(n_draws, 'draw')} is none", "ask for 1 or more")


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, lines where that is no terminal; gives a function that advances it."""
    done = 0
    with progress(lines=Lines(free=0), transient=True) as tell:

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            tell(label, done, total, "")

        yield advance
