r"""A posterior as ArviZ data: ``python -m analysis.posterior RUN --out FILE.nc``. The only module that knows ArviZ.

From a fit, or the folder of one, come joint draws of some users and items, of the scores u.v of pairs and of their
ratings, with log-likelihoods, prior, data and history, named by the data's own ids. :data:`GROUPS` says what is where.

R is drawn by the run's own likelihood of ratings, given which cells there are and with what confidence. The paper's is
no generative model of clicks, because C depends on R in it (a where R = 1): what it draws are real numbers, no clicks.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.printing import Sheet, check_format, emit
from pyro_cvae.data import files
from pyro_cvae.errors import InputError, MachineError, run_command

if TYPE_CHECKING:
    import numpy as np
    import torch

    from inference.fitting import Fit
    from inference.posterior import Posterior
    from models.cvae import CVAE
    from models.ratings import RatingLikelihood
    from pyro_cvae.data.interactions import Interactions

GROUPS = {
    "posterior": "u (user), v, v_dagger and z (item), by factor; score (pair), u.v and biases; with biases "
    "also user_bias and item_bias, which has the global mean in it",
    "prior": "the same before any data: rotation leaves it as it is, so only norms and scores mean something",
    "posterior_predictive": "R of the cells that the fit saw (cell), given their confidences",
    "prior_predictive": "the same from the prior",
    "log_likelihood": "R (cell), log p(R_ij | u_i, v_j); where asked for R_user (user), log p(R_i | u_i, V), all items",
    "observed_data": "R (cell) as the fit saw it: a cell that is not stored is 0",
    "constant_data": "user, item, part of pairs; confidence of cells, if they are stored; training counts; precisions, "
    "of which tau is that of the noise of explicit ratings, and the prior mean of the items' biases",
    "predictions": "R of pairs of the test part (held_out), given the confidence that a stored rating has",
    "predictions_constant_data": "R (held_out), the rating that came, its confidence, user and item",
    "sample_stats": "lp, the log joint density of each draw: of MCMC only",
    "history": "the objective and its named terms by epoch: they belong to a fit, not to a draw, as sample_stats must",
}
"""What each group holds; in brackets the dimensions beside chain and draw."""

NAMES = (
    *("summary", "ess", "rhat", "mcse", "loo", "loo_subsample", "loo_approximate_posterior", "loo_pit", "compare"),
    *("plot_forest", "plot_ecdf_pit", "plot_ppc_pit", "plot_ppc_dist", "plot_dist", "plot_trace", "plot_rank"),
    *("plot_khat", "plot_loo_pit"),
)
"""ArviZ's own functions that this module hands on: the names are those of 1.x, which the 0.8 parts have too."""

READERS = 'pip install "arviz>=1" netCDF4'
"""What opens the file elsewhere: neither ArviZ nor h5netcdf brings a reader of HDF5, netCDF4 and h5py are such."""
FLOATS_AT_ONCE = 2**23
PAIRS_OF_A_KIND = 10


def __getattr__(name: str) -> Any:
    if name in NAMES:
        for package in ("arviz_stats", "arviz_plots", "arviz"):
            found = getattr(importlib.import_module(package), name, None)
            if found is not None:
                return found
        raise MachineError(f"the installed ArviZ has no {name}", "install arviz-stats and arviz-plots, 0.8 or newer")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def psis(log_ratios: np.ndarray) -> np.ndarray:
    """Pareto k of importance ratios, by Pareto-smoothed importance sampling: (n_draws, n) to (n,).

    Below 0.7 an estimate by these ratios can be trusted, above it q is too far from its target. Ratios that do not
    vary have no tail: their k is -inf. Source: Vehtari et al., Pareto smoothed importance sampling, JMLR 2024.
    """
    import numpy as np
    from arviz_stats.base import array_stats

    k = np.full(log_ratios.shape[1], -np.inf)
    varies = np.ptp(log_ratios, axis=0) > 1e-9
    if varies.any():  # ArviZ takes log-likelihoods, whose negatives are the log ratios of leaving one out
        k[varies] = array_stats.psislw(-log_ratios[:, varies], axis=0)[1]
    return k


# --- draws, a block of items after the other -------------------------------------------------------------------------


def draw_blocks(
    posterior: Posterior, users: np.ndarray, items: np.ndarray, n: int, seed: int
) -> Iterator[tuple[slice, slice, dict[str, torch.Tensor]]]:
    """Joint draws of u of some users with v and z of many items, in parts that take little memory.

    Yields (which of ``items``, which draws, {"u", "v", "z"}), each (n_draws, n_rows, n_factors), u and v with the
    coordinates of biases (:class:`inference.posterior.Posterior`); a draw has the same u in every block of items.
    Of a variational posterior, whose rows are independent, each block of items has a stream of its own, and the first
    is that of ``posterior.sample``. Of MCMC they are the stored draws in their order,
    evenly thinned to ``n``.
    """
    import numpy as np
    import torch

    n_factors = posterior.u_loc.shape[1]
    if hasattr(posterior, "chains"):
        chosen = posterior.select(users, items)
        parts = {name: chosen.chains(name) for name in "uvz"}  # type: ignore[attr-defined]
        n_chains, n_stored = parts["u"].shape[:2]
        if n % n_chains:
            raise InputError(f"{n} draws are no multiple of {n_chains} chains", "ask for another number of --draws")
        kept = torch.as_tensor(_thinned(n_stored, n // n_chains))
        yield slice(0, len(items)), slice(0, n), {name: part[:, kept].flatten(0, 1) for name, part in parts.items()}
        return
    width = n_factors if posterior.v_covariance is not None else 32
    step = max(1, FLOATS_AT_ONCE // (4 * n_factors * width))
    nobody, u = torch.zeros(0, dtype=torch.int64), []
    for start in range(0, max(1, len(items)), step):
        block = slice(start, min(start + step, len(items)))
        floats = n_factors * (3 * (block.stop - start) + len(users))
        own = seed if start == 0 else int(np.random.SeedSequence((seed, start)).generate_state(1, np.uint64)[0] >> 1)
        part = posterior.select(torch.as_tensor(users) if start == 0 else nobody, torch.as_tensor(items[block]))
        first = 0
        for drawn in part.draws(n, own, max(1, FLOATS_AT_ONCE // floats)):
            if start == 0:
                u.append(drawn["u"])
            draws = slice(first, first + len(drawn["v"]))
            joined = torch.cat(u)[draws] if start else drawn["u"]
            yield block, draws, drawn | {"u": joined}
            first = draws.stop


def prior_blocks(
    model: CVAE, n_users: int, n_items: int, n: int, seed: int, dtype: torch.dtype, n_pairs: int = 0
) -> Iterator[tuple[slice, slice, dict[str, torch.Tensor]]]:
    """The same from the prior, all items in each part; ``n_pairs`` are as many rows more to be kept in memory."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    step = max(1, FLOATS_AT_ONCE // (model.width * (n_users + 2 * n_items + 2 * n_pairs)))

    def noise(rows: int, width: int, precision: float, size: int) -> torch.Tensor:
        return precision**-0.5 * torch.randn(size * rows, width, generator=generator, dtype=dtype)

    for start in range(0, n, step):
        size = min(step, n - start)
        with torch.no_grad():
            u, z = noise(n_users, model.width, model.lambda_u, size), noise(n_items, model.n_factors, 1.0, size)
            v = model.prior_of_items(z) + noise(n_items, model.width, model.lambda_v, size)
            drawn = {"u": model.of_users(u), "v": model.of_items(v), "z": z}
        yield (
            slice(0, n_items),
            slice(start, start + size),
            {name: rows.view(size, -1, rows.shape[1]) for name, rows in drawn.items()},
        )


def _thinned(n_stored: int, n: int) -> np.ndarray:
    """``n`` of ``n_stored`` draws of a chain, evenly, in their order."""
    import numpy as np

    if n > n_stored:
        raise InputError(f"{n} draws of each chain are asked for, {n_stored} are stored", "ask for fewer --draws")
    return np.linspace(0, n_stored - 1, n).round().astype(np.int64)


def noise_precision(likelihood: RatingLikelihood) -> float | None:
    """What confidences are multiplied by to be the precisions of Normal ratings; ``None`` of other likelihoods."""
    from models.ratings.confidence_normal import ConfidenceNormal
    from models.ratings.normal import Normal

    if type(likelihood) is Normal:
        return float(likelihood.tau.detach())
    return 1.0 if type(likelihood) is ConfidenceNormal else None


@dataclass(frozen=True, eq=False)
class UserRows:
    """The rating rows R_i of some users, over all items that have a column: stored cells on a background of zeros.

    Shapes: ``items`` (n_observed,) rows of the catalogue, ascending; of each stored cell ``user``, its place among the
    users, ``item``, its place among ``items``, ``rating`` and ``confidence`` (n_stored,), in the order of the items.
    Of Normal ratings, ``gaussian``, the confidences are the precisions, and ``b`` is that of a zero; of others ``b`` is
    the confidence of a zero, and 0 where cells that are not stored are missing.
    """

    n_users: int
    items: np.ndarray
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    confidence: np.ndarray
    b: float
    likelihood: RatingLikelihood
    gaussian: bool

    @classmethod
    def of(cls, fit: Fit, users: np.ndarray) -> UserRows:
        """The training rows of some users, given by row."""
        import numpy as np

        train, likelihood = fit.split.train, fit.model.ratings
        stored = np.bincount(train.items, minlength=train.n_items) > 0
        items = np.flatnonzero(stored) if fit.options.model.unrated == "masked" else np.arange(train.n_items)
        place = np.full(train.n_users, -1)
        place[users] = np.arange(len(users))
        mine = np.flatnonzero(place[train.users] >= 0)
        mine = mine[np.argsort(train.items[mine], kind="stable")]
        at = np.searchsorted(items, train.items[mine])
        factor = noise_precision(likelihood)
        times = 1.0 if factor is None else factor
        return cls(
            len(users),
            items,
            place[train.users[mine]],
            at,
            train.ratings[mine],
            times * _confidences(train, likelihood)[mine],
            times * _of_zeros(likelihood),
            likelihood,
            factor is not None,
        )

    def constant(self) -> np.ndarray:
        """The part of log p(R_i | u_i, V) that no latent changes, (n_users,); see :meth:`log_prob`."""
        import numpy as np

        return self.log_normalizer() if self.gaussian else np.zeros(self.n_users)

    def log_prob(self, block: slice, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """What a block of ``items`` adds to log p(R_i | u_i, V), (n_draws, n_users), in nats and float64.

        Shapes: ``u`` (n_draws, n_users, n_factors), ``v`` (n_draws, n_block, n_factors), with the biases' coordinates.
        """
        return -self.half_square(block, u, v) if self.gaussian else self._all_cells(block, u, v)

    def _all_cells(self, block: slice, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The sum over all cells of the block, zeros and stored ones, a few draws at a time."""
        import torch

        user, item, rating, confidence = self.cells(block, u.dtype)
        there = (confidence > 0).nonzero().squeeze(-1)
        rating, confidence = rating[there], confidence[there]
        parts = []
        step = max(1, FLOATS_AT_ONCE // max(1, self.n_users * v.shape[1]))
        with torch.no_grad():
            for start in range(0, len(u), step):
                score = u[start : start + step] @ v[start : start + step].mT
                stored = score[:, user, item]
                own = stored[:, there]
                added = self.likelihood.log_prob(own, rating.expand_as(own), confidence.expand_as(own))
                total = score.new_zeros(score.shape[:2], dtype=torch.float64)
                if self.b > 0:
                    total += self._zeros(score).double().sum(-1)
                    total.index_add_(1, user, -self._zeros(stored).double())
                parts.append(total.index_add_(1, user[there], added.double()))
        return torch.cat(parts)

    def _zeros(self, score: torch.Tensor) -> torch.Tensor:
        import torch

        return self.likelihood.log_prob(score, torch.zeros_like(score), torch.full_like(score, self.b))

    def log_normalizer(self) -> np.ndarray:
        """sum_j 1/2 log(C_ij / 2 pi) over the cells that are there, of Normal ratings, in nats, (n_users,)."""
        import numpy as np

        there = self.confidence > 0
        log_c = np.log(np.where(there, self.confidence, 1.0) / (2 * np.pi)) * there
        found = np.bincount(self.user, log_c, self.n_users)
        if self.b > 0:
            rest = len(self.items) - np.bincount(self.user, minlength=self.n_users)
            found += rest * np.log(self.b / (2 * np.pi))
        return 0.5 * found

    def half_square(self, block: slice, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """What a block of ``items`` adds to 1/2 sum_j C_ij (R_ij - u_i.v_j)^2, (n_draws, n_users) in float64.

        With G = sum over the block of v_j v_j' it is 1/2 [b u_i' G u_i + sum over stored of c (r - s)^2 - b s^2].
        Shapes: ``u`` (n_draws, n_users, n_factors), ``v`` (n_draws, n_block, n_factors).
        """
        if self.n_users > u.shape[2]:  # the Gram matrix is cheaper than all scores
            square = ((u @ (v.mT @ v)) * u).double().sum(-1)
        else:
            square = (u @ v.mT).square_().double().sum(-1)
        user, item, rating, confidence = self.cells(block, u.dtype)
        score = (u[:, user] * v[:, item]).sum(-1)
        stored = confidence * (rating - score).square() - self.b * score.square()
        return 0.5 * (self.b * square).index_add_(1, user, stored.double())

    def cells(self, block: slice, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """User, item (its place in the block), rating and confidence of the stored cells in a block of ``items``."""
        import numpy as np
        import torch

        begin, end = np.searchsorted(self.item, (block.start, block.stop))
        user, item = (torch.as_tensor(part[begin:end]) for part in (self.user, self.item - block.start))
        rating, confidence = (torch.as_tensor(part[begin:end]).to(dtype) for part in (self.rating, self.confidence))
        return user, item, rating, confidence


def _confidences(pairs: Interactions, likelihood: RatingLikelihood) -> np.ndarray:
    """C of each stored pair, the likelihood's default where it states none, (n_pairs,)."""
    return pairs.precisions(likelihood.default_confidence, likelihood.weight_unit)


def _of_zeros(likelihood: RatingLikelihood) -> float:
    """Confidence of a cell that is not stored, 0 where it is missing."""
    return likelihood.background if likelihood.zeros else 0.0


def draw_ratings(likelihood: RatingLikelihood, scores: np.ndarray, confidences: np.ndarray, seed: int) -> np.ndarray:
    """R_ij ~ p(R_ij | s_ij), ``confidences`` (n_cells,) given; ``scores`` and result (n_draws, n_cells)."""
    import torch

    score = torch.as_tensor(scores)
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        cell = likelihood.cell(score, torch.as_tensor(confidences).to(score).expand_as(score))
        return cell.sample().to(score).numpy()


def _log_prob(likelihood: RatingLikelihood, cells: Cells, scores: np.ndarray) -> np.ndarray:
    """Log p(R_ij | s_ij) in nats, float64 (n_draws, n_cells)."""
    import torch

    score = torch.as_tensor(scores).double()
    with torch.no_grad():
        given = (torch.as_tensor(part).double().expand_as(score) for part in (cells.ratings, cells.confidences))
        return likelihood.log_prob(score, *given).numpy()


# --- which users, items and pairs ------------------------------------------------------------------------------------


def pairs_by_kind(fit: Fit, users: np.ndarray, n: int, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Up to ``n`` pairs (user rows, item rows) of each user of a kind: "train", "test", and "neither", at random.

    "train" are the stored pairs of the training part that are not missing, "test" those of the test part.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    train, test = fit.split.train, fit.split.test
    n_items = train.n_items
    wanted = np.zeros(train.n_users, bool)
    wanted[users] = True
    found = {}
    for name, part in (("train", train.select(train.observed)), ("test", test)):
        mine = rng.permutation(np.flatnonzero(wanted[part.users]))
        found[name] = _first_of_each(part.users[mine], part.items[mine], n)
    candidates = rng.integers(0, n_items, (len(users), 2 * n + 10)) + n_items * np.asarray(users)[:, None]
    keys = rng.permutation(np.unique(candidates))
    keys = keys[~np.isin(keys, np.concatenate([train.keys, test.keys]))]
    found["neither"] = _first_of_each(*np.divmod(keys, n_items), n)
    return found


def _first_of_each(users: np.ndarray, items: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``n`` pairs of each user, by user."""
    import numpy as np

    order = np.argsort(users, kind="stable")
    users, items = users[order], items[order]
    rank = np.arange(len(users)) - np.searchsorted(users, users)
    return users[rank < n], items[rank < n]


def spread_rows(counts: np.ndarray, n: int) -> np.ndarray:
    """``n`` rows evenly over the order of their counts, ascending by row; all rows where ``n`` is 0."""
    import numpy as np

    if n == 0 or n >= len(counts):
        return np.arange(len(counts))
    order = np.argsort(counts, kind="stable")
    return np.sort(order[np.linspace(0, len(counts) - 1, n).round().astype(np.int64)])


@dataclass(frozen=True, eq=False)
class Cells:
    """Pairs as rows of users and items, with a rating and a confidence each, all (n,)."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    confidences: np.ndarray

    def __len__(self) -> int:
        return len(self.users)


def seen_cells(fit: Fit, users: np.ndarray, items: np.ndarray) -> Cells:
    """Those of the pairs that have a factor in the fit's likelihood, with R and C as it saw them.

    A pair that is not stored in training is a zero, of precision b in the paper, be it a test pair or not, or missing,
    by the likelihood; a missing one (confidence 0) and one of an item without a column have no factor.
    """
    import numpy as np

    train, likelihood = fit.split.train, fit.model.ratings
    at, stored = _found(train, users, items)
    columns = np.bincount(train.items, minlength=train.n_items) > 0
    has_column = columns[items] if fit.options.model.unrated == "masked" else np.ones(len(items), bool)
    ratings = np.where(stored, train.ratings[at], 0.0)
    confidences = np.where(stored, _confidences(train, likelihood)[at], _of_zeros(likelihood))
    there = has_column & (confidences > 0)
    return Cells(users[there], items[there], ratings[there], confidences[there])


def held_out_cells(fit: Fit, users: np.ndarray, items: np.ndarray) -> Cells:
    """Those of the pairs that are in the test part, with the rating that came; a C not stated is the default."""
    test = fit.split.test
    at, stored = _found(test, users, items)
    confidences = _confidences(test, fit.model.ratings)
    stored &= confidences[at] > 0 if len(test) else False
    at = at[stored]
    return Cells(users[stored], items[stored], test.ratings[at], confidences[at])


def _found(part: Interactions, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pair is stored in a part, and whether it is."""
    import numpy as np

    keys = users * part.n_items + items
    if not len(part):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(part.keys, keys), len(part) - 1)
    return at, part.keys[at] == keys


# --- ArviZ data ------------------------------------------------------------------------------------------------------


def to_datatree(
    fit: Fit,
    users: Iterable[Any] | None = None,
    items: Iterable[Any] | None = None,
    pairs: Iterable[tuple[Any, Any]] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
    n_users: int = 20,
    n_items: int = 20,
    user_log_likelihood: bool = False,
    prior: bool = True,
    max_memory: float = 1.0,
) -> Any:
    """The posterior of some users and items as an ``xarray.DataTree`` that ArviZ reads; groups are in :data:`GROUPS`.

    Parameters: ``users`` and ``items`` external ids, by default ``n_users`` and ``n_items`` of them evenly over their
    numbers of ratings (0: all); ``pairs`` of external ids whose scores and ratings are wanted, by default all pairs of
    the users and items where both are named, otherwise up to ten training pairs, ten test pairs and ten pairs that are
    neither of each user; ``draws`` joint draws in all (of MCMC: of the stored ones, a multiple of its chains);
    ``user_log_likelihood`` asks for log p(R_i | u_i, V), for which v of every item with a column is drawn, and dropped.
    Raises InputError for a point estimate, an unknown id, and what would take more than ``max_memory`` GiB.
    """
    import numpy as np

    posterior, dataset = fit.posterior, fit.dataset
    if posterior.is_point:
        raise InputError("a MAP fit is a point: it has no draws to export", "fit with --mode bayes")
    if draws < 1:
        raise InputError(f"{draws} draws are none", "ask for one or more --draws")
    n_chains = getattr(posterior, "n_chains", 1)
    both = users is not None and items is not None
    counts = dataset.interactions
    user_rows = spread_rows(counts.user_counts, n_users) if users is None else _unique(dataset.user_rows(users))
    item_rows = (
        spread_rows(fit.split.train.item_counts, n_items) if items is None else _unique(dataset.item_rows(items))
    )
    if pairs is not None:
        listed = list(pairs)
        pair_users, pair_items = (
            rows_of([pair[side] for pair in listed])
            for side, rows_of in enumerate((dataset.user_rows, dataset.item_rows))
        )
    elif both:
        pair_users, pair_items = np.repeat(user_rows, len(item_rows)), np.tile(item_rows, len(user_rows))
    else:
        kinds = pairs_by_kind(fit, user_rows, PAIRS_OF_A_KIND, seed).values()
        pair_users, pair_items = (np.concatenate(part) for part in zip(*kinds, strict=True))
    asked = _Asked(fit, user_rows, item_rows, pair_users, pair_items)
    asked.need_memory(draws, prior, user_log_likelihood, max_memory)

    values = {"posterior": asked.draws("posterior", draws, seed, user_log_likelihood)}
    log_likelihood = {name: values["posterior"].pop(name) for name in ("R_user",) if name in values["posterior"]}
    likelihood = fit.model.ratings
    seeds = iter(np.random.SeedSequence((seed, 1)).generate_state(4, np.uint64) >> 1)

    def ratings(source: str, cells: Cells) -> dict[str, np.ndarray]:
        scores = values[source]["score"][:, asked.pair_of(cells)]
        return {"R": draw_ratings(likelihood, scores, cells.confidences, int(next(seeds)))}

    if len(asked.seen):
        scores = values["posterior"]["score"][:, asked.pair_of(asked.seen)]
        values["posterior_predictive"] = ratings("posterior", asked.seen)
        log_likelihood["R"] = _log_prob(likelihood, asked.seen, scores)
        values["observed_data"] = {"R": asked.seen.ratings}
    if log_likelihood:
        values["log_likelihood"] = log_likelihood
    if len(asked.held_out):
        values["predictions"] = ratings("posterior", asked.held_out)
        given = {"R": asked.held_out.ratings, "confidence": asked.held_out.confidences}
        values["predictions_constant_data"] = given | asked.ends("held_out")
    if prior:
        values["prior"] = asked.draws("prior", draws, int(next(seeds)))
        if len(asked.seen):
            values["prior_predictive"] = ratings("prior", asked.seen)
    if hasattr(posterior, "log_joint"):
        kept = _thinned(len(posterior.log_joint) // n_chains, draws // n_chains)
        lp = np.asarray(posterior.log_joint).reshape(n_chains, -1)[:, kept]
        values["sample_stats"] = {"lp": lp.reshape(draws)}
    values["constant_data"] = asked.constants()
    return asked.tree(values, n_chains)


def _unique(rows: np.ndarray) -> np.ndarray:
    """Rows in the order given, each once."""
    import numpy as np

    return rows[np.sort(np.unique(rows, return_index=True)[1])]


@dataclass(frozen=True, eq=False)
class _Asked:
    """Users, items and pairs that are exported, by row."""

    fit: Fit
    users: np.ndarray
    items: np.ndarray
    pair_users: np.ndarray
    pair_items: np.ndarray

    @cached_property
    def seen(self) -> Cells:
        """The pairs that the fit saw."""
        return seen_cells(self.fit, self.pair_users, self.pair_items)

    @cached_property
    def held_out(self) -> Cells:
        """The pairs of the test part."""
        return held_out_cells(self.fit, self.pair_users, self.pair_items)

    def pair_of(self, cells: Cells) -> np.ndarray:
        """The place of each cell among the pairs."""
        import numpy as np

        n_items = self.fit.dataset.n_items
        pairs = self.pair_users * n_items + self.pair_items
        order = np.argsort(pairs, kind="stable")
        return order[np.searchsorted(pairs[order], cells.users * n_items + cells.items)]

    def need_memory(self, draws: int, prior: bool, by_user: bool, max_memory: float) -> None:
        """Raise InputError, naming the size, where the arrays would take more than ``max_memory`` GiB."""
        loc = self.fit.posterior.u_loc
        n_factors, biases = self.fit.posterior.n_factors, int(self.fit.model.mean is not None)
        latent = (n_factors + biases) * len(self.users) + (3 * n_factors + biases) * len(self.items)
        drawn = (latent + len(self.pair_users) + len(self.seen)) * (2 if prior else 1) + len(self.held_out)
        doubles = len(self.seen) + (len(self.users) if by_user else 0)
        needed = draws * (drawn * loc.element_size() + doubles * 8) / 2**30
        if needed > max_memory:
            what = f"{len(self.users):,} users, {len(self.items):,} items and {len(self.pair_users):,} pairs"
            problem = f"{draws:,} draws of {what} take {needed:.1f} GiB, above --max-memory {max_memory:g}"
            raise InputError(problem, "ask for fewer draws, users, items or pairs, or for more --max-memory")

    def _empty(self, n: int) -> dict[str, np.ndarray]:
        import numpy as np

        n_users, n_items, n_factors = len(self.users), len(self.items), self.fit.posterior.n_factors
        sizes = {"u": (n_users, n_factors), "v": (n_items, n_factors), "z": (n_items, n_factors)}
        sizes |= {"score": (len(self.pair_users),)}  # type: ignore[dict-item]
        if self.fit.model.mean is not None:
            sizes |= {"user_bias": (n_users,), "item_bias": (n_items,)}  # type: ignore[dict-item]
        return {name: np.empty((n, *size), self.fit.posterior.u_loc.numpy().dtype) for name, size in sizes.items()}

    def draws(self, source: str, n: int, seed: int, user_log_likelihood: bool = False) -> dict[str, np.ndarray]:
        """Draws from "posterior" or "prior" of u, v, z, v_dagger, biases and score, (n, ...).

        And of R_user = log p(R_i | u_i, V) where asked.
        """
        import numpy as np

        model, posterior = self.fit.model, self.fit.posterior
        rows = UserRows.of(self.fit, self.users)
        wanted = [self.items, self.pair_items, *([rows.items] if user_log_likelihood else [])]
        users, items = np.unique(np.concatenate([self.users, self.pair_users])), np.unique(np.concatenate(wanted))
        own, of_pair = np.searchsorted(users, self.users), np.searchsorted(users, self.pair_users)
        at = [np.searchsorted(items, part) for part in wanted]
        n_factors, found = posterior.n_factors, self._empty(n)
        if user_log_likelihood:
            found["R_user"] = np.repeat(rows.constant()[None], n, axis=0)
        if source == "posterior":
            stream = draw_blocks(posterior, users, items, n, seed)
        else:
            sizes, dtype = (len(users), len(items)), posterior.u_loc.dtype
            stream = prior_blocks(model, *sizes, n, seed, dtype, len(self.pair_users))
        for block, draws, drawn in stream:
            item, pair, *column = (np.flatnonzero((place >= block.start) & (place < block.stop)) for place in at)
            here = at[0][item] - block.start
            found["u"][draws] = drawn["u"][:, own, :n_factors]
            found["v"][draws, item], found["z"][draws, item] = drawn["v"][:, here, :n_factors], drawn["z"][:, here]
            if "user_bias" in found:
                found["user_bias"][draws] = model.kappa_u * drawn["u"][:, own, n_factors]
                found["item_bias"][draws, item] = model.kappa_v * drawn["v"][:, here, n_factors + 1]
            u, v = drawn["u"][:, of_pair[pair]], drawn["v"][:, at[1][pair] - block.start]
            found["score"][draws, pair] = (u * v).sum(-1)
            if column and len(column[0]):
                v = drawn["v"][:, at[2][column[0]] - block.start]
                part = slice(column[0][0], column[0][-1] + 1)
                found["R_user"][draws] += rows.log_prob(part, drawn["u"][:, own], v).numpy()
        return found | {"v_dagger": found["v"] - found["z"]}

    def constants(self) -> dict[str, Any]:
        """What was given: precisions, exposure, training counts and titles."""
        import numpy as np

        from pyro_cvae.data.splits import GROUPS as HEAT
        from pyro_cvae.data.splits import item_groups

        fit, model = self.fit, self.fit.model
        train = fit.split.train
        given = {"lambda_u": model.lambda_u, "lambda_v": model.lambda_v}
        given |= {"a": model.ratings.default_confidence, "b": _of_zeros(model.ratings)}
        if model.ratings.explicit and (tau := noise_precision(model.ratings)) is not None:
            given["tau"] = tau
        if model.mean is not None:
            given["global_mean"] = float(model.mean.detach())
        found: dict[str, Any] = {name: np.float64(value) for name, value in given.items()}
        found["n_ratings_of_user"] = train.user_counts[self.users]
        found["n_ratings_of_item"] = train.item_counts[self.items]
        found["item_group"] = _texts(np.array(HEAT, object)[item_groups(train)[self.items]])
        if fit.dataset.titles is not None:
            found["title"] = _texts(fit.dataset.titles[self.items])
        if len(self.seen):
            _, stored = _found(train, self.seen.users, self.seen.items)
            found |= {"confidence": self.seen.confidences, "stored": stored.astype(np.int8)}
        return found | {"pair_part": self._part()} | self.ends("pair", "cell")

    def tree(self, values: Mapping[str, dict[str, Any]], n_chains: int) -> Any:
        """All groups with their coordinates: the ids of users and items, numbers of factors, pairs and cells."""
        import arviz_base
        import numpy as np
        import xarray as xr

        dataset, fit = self.fit.dataset, self.fit
        coords = {"user": _texts(dataset.user_ids[self.users]), "item": _texts(dataset.item_ids[self.items])}
        coords |= {"factor": np.arange(fit.posterior.n_factors)}
        for dim, users, items in self._places():
            ids = zip(dataset.user_ids[users].tolist(), dataset.item_ids[items].tolist(), strict=True)
            coords[dim] = np.array([f"{user}, {item}" for user, item in ids], np.str_)
        grouped: dict[str, dict[str, Any]] = {}
        for group, named in values.items():
            chained = "data" not in group
            grouped[group] = {
                name: value.reshape(n_chains, -1, *value.shape[1:]) if chained else value
                for name, value in named.items()
            }
        of_predictions = DIMS | {"R": ["held_out"], "confidence": ["held_out"]}
        tree = arviz_base.from_dict(grouped, coords=coords, dims=DIMS, pred_coords=coords, pred_dims=of_predictions)
        for group in grouped:
            tree[group].attrs["description"] = GROUPS[group]
        tree["history"] = xr.DataTree(_history(fit))
        tree.attrs = self._about()
        return tree

    def _places(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """The dimensions of pairs, with the rows of users and items of each."""
        seen, held_out = self.seen, self.held_out
        pairs = ("pair", self.pair_users, self.pair_items)
        return [pairs, ("cell", seen.users, seen.items), ("held_out", held_out.users, held_out.items)]

    def ends(self, *dims: str) -> dict[str, np.ndarray]:
        """The ids of the users and items of pairs, one variable each, as ``pair_user``."""
        found = {}
        for dim, users, items in self._places():
            if dim in dims and len(users):
                found[f"{dim}_user"] = _texts(self.fit.dataset.user_ids[users])
                found[f"{dim}_item"] = _texts(self.fit.dataset.item_ids[items])
        return found

    def _part(self) -> np.ndarray:
        """The kind of each pair: "train", "test" or "neither"."""
        import numpy as np

        stored = [
            _found(part, self.pair_users, self.pair_items)[1] for part in (self.fit.split.train, self.fit.split.test)
        ]
        return np.where(stored[1], "test", np.where(stored[0], "train", "neither"))

    def _about(self) -> dict[str, Any]:
        """What the numbers belong to, as attributes of the file."""
        from inference.commands import version

        options, likelihood = self.fit.options, self.fit.model.content
        return {
            "inference_library": "pyro-cvae",
            "inference_library_version": version(),
            "dataset": self.fit.dataset.name,
            "posterior": self.fit.posterior.kind,
            "objective": options.objective,
            "tempered": int(options.tempered),
            "pseudo_likelihood": int(likelihood.pseudo),
            "rating_likelihood": options.model.rating_likelihood,
            "ratings": "R is drawn given C, the exposure of the data; of a Normal it is a real number, no zero or one",
        }


DIMS: dict[str, list[str]] = {
    "u": ["user", "factor"],
    "v": ["item", "factor"],
    "v_dagger": ["item", "factor"],
    "z": ["item", "factor"],
    "score": ["pair"],
    "user_bias": ["user"],
    "item_bias": ["item"],
    "R": ["cell"],
    "R_user": ["user"],
    "confidence": ["cell"],
    "stored": ["cell"],
    "n_ratings_of_user": ["user"],
    "n_ratings_of_item": ["item"],
    "item_group": ["item"],
    "title": ["item"],
    **{name: [name.rpartition("_")[0]] for name in ("pair_user", "pair_item", "pair_part", "cell_user", "cell_item")},
    **{name: ["held_out"] for name in ("held_out_user", "held_out_item")},
}
"""Dimensions of each variable beside chain and draw; of the groups of predictions R and its confidence are held out."""


def _texts(values: np.ndarray) -> np.ndarray:
    """Texts as numpy's own strings, which NetCDF knows; numbers as they are."""
    import numpy as np

    return np.array([str(value) for value in values.tolist()], dtype=np.str_) if values.dtype == object else values


def _history(fit: Fit) -> Any:
    """The history of the fit as a data set over epochs; a term that an epoch does not have is NaN."""
    import numpy as np
    import pandas as pd
    import xarray as xr

    table = pd.DataFrame(fit.history)
    columns = {}
    for name in table.columns:
        column = table[name]
        values = column.to_numpy(np.float64) if column.dtype.kind in "if" else _texts(column.to_numpy(object))
        columns[str(name)] = ("epoch", values)
    _, epochs = columns.pop("epoch", ("epoch", np.arange(1.0, 1.0 + len(table))))
    attributes = {"description": GROUPS["history"], "objective": fit.options.objective}
    return xr.Dataset(columns, {"epoch": epochs.astype(np.int64)}, attributes)


def to_inference_data(fit: Fit, *args: Any, **options: Any) -> Any:
    """The same as ``arviz.InferenceData``, which ArviZ below 1 has; arguments as of :func:`to_datatree`."""
    import arviz

    if not hasattr(arviz, "InferenceData"):
        raise MachineError("this ArviZ has no InferenceData", "use to_datatree, which ArviZ 1 and newer take")
    tree = to_datatree(fit, *args, **options)
    groups = {name: child.to_dataset() for name, child in tree.children.items()}
    return arviz.InferenceData(attrs=dict(tree.attrs), warn_on_custom_groups=False, **groups)


def pit(tree: Any, seed: int = 0) -> Any:
    """Where each held-out rating lies in its predictive draws, for ``plot_ecdf_pit``.

    P(R_draw < R) + w P(R_draw = R) with w uniform on (0, 1), drawn by ``seed``: discrete ratings equal many of their
    draws. A ``DataTree`` with a group "pit", variable R (held_out): uniform if the fit is calibrated. Ratings that are
    all 1 because they were chosen to be so, clicks, are no draws of the paper's model.
    """
    import numpy as np
    import xarray as xr

    if "predictions" not in tree.children:
        raise InputError("no pair of the test part is in these data", "ask for pairs that were held out")
    drawn, came = tree["predictions"]["R"], tree["predictions_constant_data"]["R"]
    below, equal = ((drawn < came).mean(("chain", "draw")), (drawn == came).mean(("chain", "draw")))
    spread = np.random.default_rng(seed).random(equal.shape)
    return xr.DataTree.from_dict({"pit": (below + spread * equal).to_dataset(name="R")})


def save(tree: Any, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write ArviZ data as NetCDF 4 (HDF5), a group each, whole or not at all; R (ncdf4) and Julia (NCDatasets) read it.

    Raises InputError where the file exists and ``overwrite`` is not given, MachineError where nothing can write it.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise InputError("exists already", "choose another --out, or give --overwrite", path=path)
    missing = [name for name in ("h5netcdf", "h5py") if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"no NetCDF can be written without {' and '.join(missing)}"
        raise MachineError(problem, f"pip install {' '.join(missing)}")
    with files.whole_file(path) as new:
        tree.to_netcdf(new, engine="h5netcdf")
    return path


# --- the command -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PosteriorOptions:
    """What is exported of a fitted model.

    Parameters:
        run: The run folder of a fit.
        out: The NetCDF file (.nc); without it only what it would hold is shown.
        draws: Joint draws in all; of MCMC a multiple of its chains.
        user: Users by their ids.
        users_from: A file of user ids, one a line.
        n_users: Users where none is named, evenly over their numbers of ratings; 0 takes all.
        item: Items by their ids.
        items_from: A file of item ids, one a line.
        n_items: Items where none is named, evenly over their numbers of training ratings; 0 takes all.
        pairs: A CSV or Parquet file with columns user and item; otherwise all pairs of the named users and items, or
            some training, test and other pairs of each user.
        user_log_likelihood: The log-likelihood of each user's ratings too, for which all items are drawn (slower).
        prior: Draws of the prior too.
        seed: Of the draws.
        max_memory: GiB that the arrays may take; more is refused.
        overwrite: Replace the file if it exists.
        format: How the list of variables is printed (table, csv, json).
        trust: Class paths outside of the package that the run may import; see docs/security.md.
    """

    run: str
    out: str | None = None
    draws: int = 1000
    user: tuple[str, ...] = ()
    users_from: str | None = None
    n_users: int = 20
    item: tuple[str, ...] = ()
    items_from: str | None = None
    n_items: int = 20
    pairs: str | None = None
    user_log_likelihood: bool = False
    prior: bool = True
    seed: int = 0
    max_memory: float = 1.0
    overwrite: bool = False
    format: str = "table"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_format(self.format)
        if self.out is not None and Path(self.out).suffix != ".nc":
            raise InputError(f"--out is {self.out!r}, but it must end in .nc")
        if self.out is not None and not Path(self.out).absolute().parent.is_dir():
            raise InputError("--out: no such folder", "make it first", path=Path(self.out).parent)
        if self.out is not None and Path(self.out).exists() and not self.overwrite:
            raise InputError("exists already", "choose another --out, or give --overwrite", path=self.out)
        for name, least in (("draws", 1), ("n_users", 0), ("n_items", 0), ("seed", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} is {getattr(self, name)}, but it must be at least {least}")
        if not self.max_memory > 0:
            raise InputError(f"--max-memory is {self.max_memory:g}, but it must be above 0")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from inference.commands import parse

    (options,) = parse(
        "python -m analysis.posterior",
        "Export posterior draws as a NetCDF file that ArviZ, R and Julia read.",
        (PosteriorOptions,),
        argv,
        positionals=("run",),
        examples=(
            ("python -m analysis.posterior RUN --out posterior.nc", "some users and items"),
            ("python -m analysis.posterior RUN --out one.nc --user user-0001 --draws 4000", "one user"),
            ("python -m analysis.posterior RUN --out pairs.nc --pairs pairs.csv", "scores of named pairs"),
        ),
    )
    from inference.fitting import load

    fit = load(options.run, trust=options.trust)
    tree = to_datatree(
        fit,
        _named(options.user, options.users_from),
        _named(options.item, options.items_from),
        None if options.pairs is None else read_pairs(options.pairs),
        draws=options.draws,
        seed=options.seed,
        n_users=options.n_users,
        n_items=options.n_items,
        user_log_likelihood=options.user_log_likelihood,
        prior=options.prior,
        max_memory=options.max_memory,
    )
    if options.out is not None:
        save(tree, options.out, overwrite=options.overwrite)
    _print(tree, options.out, f"{fit.dataset.name}, {fit.posterior.kind}", options.format)


def _named(ids: Sequence[str], path: str | None) -> list[str] | None:
    from pyro_cvae.data.delimited import read_ids

    named = [*ids, *(read_ids(path) if path else [])]
    return named or None


def read_pairs(path: str) -> list[tuple[Any, Any]]:
    """Pairs of ids from a table with columns user and item (:mod:`pyro_cvae.data.frames`). Raises InputError."""
    from pyro_cvae.data.cells import ids_of, with_ids
    from pyro_cvae.data.frames import PAIRS, read_table

    table = with_ids(
        read_table(path).pick({name: PAIRS[name] for name in ("user", "item")}, ("user", "item")), "user", "item"
    )
    ((users,), (items,)) = ids_of("user", table), ids_of("item", table)
    return list(zip(users, items, strict=True))


def _print(tree: Any, path: str | None, about: str, format: str) -> None:
    import pandas as pd

    title = path or f"{about}; no file, --out FILE.nc writes one"
    sheet = Sheet(["group", "variables"], title=title, texts=["variables"], whole=True)
    records = []
    for name, group in tree.children.items():
        variables = [f"{v} ({', '.join(map(str, array.dims))})" for v, array in group.data_vars.items()]
        sheet.add_row(name, "; ".join(variables) if name != "history" else f"{len(variables)} columns (epoch)")
        for variable, array in group.data_vars.items():
            shape = " x ".join(map(str, array.shape))
            dims = " ".join(map(str, array.dims))
            records.append({"group": name, "variable": str(variable), "dimensions": dims, "shape": shape})
    notes = []
    if path is not None:
        opened = f'open it: xarray.open_datatree("{path}")'
        notes = [opened, f"elsewhere: {READERS}; h5netcdf and h5py in place of netCDF4 will do"]
    emit([sheet], {"variables": pd.DataFrame(records)}, format, notes)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
