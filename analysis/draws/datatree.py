"""A fit as ArviZ data: joint draws, ratings drawn from them, log-likelihoods, prior, data and history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from analysis.draws.arrays import constant_arrays, latent_arrays
from analysis.draws.arviz_data import inference_data_class, tree_of_groups
from analysis.draws.groups import GROUPS
from analysis.draws.pairs import Cells
from analysis.draws.ratings import draw_ratings, log_density
from analysis.draws.selection import Export, Selection, plain_texts, select
from analysis.draws.streams import evenly_thinned
from analysis.kinds import DrawnFrom
from inference.commands import version
from inference.fitting import Fit
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

Groups = dict[str, dict[str, Any]]
"""Arrays by group and variable."""


def to_datatree(
    fit: Fit,
    users: Iterable[Any] | None = None,
    items: Iterable[Any] | None = None,
    pairs: Iterable[tuple[Any, Any]] | None = None,
    **options: Any,
) -> Any:
    """The posterior of some users and items as an ``xarray.DataTree`` that ArviZ reads; groups are in :data:`GROUPS`.

    Parameters: ``users`` and ``items`` external ids, by default ``n_users`` and ``n_items`` of them evenly over their
    numbers of ratings (0: all); ``pairs`` of external ids whose scores and ratings are wanted, by default all pairs of
    the users and items where both are named, otherwise up to ten training pairs, ten test pairs and ten pairs that are
    neither of each user; ``options`` are the fields of :class:`Export`: draws, seed, n_users, n_items,
    user_log_likelihood, prior, max_memory.
    Raises InputError for a point estimate, an unknown id, and what would take more than ``max_memory`` GiB.
    """
    export = Export(**options)
    if fit.posterior.is_point:
        raise InputError("a MAP fit is a point: it has no draws to export", "fit with --mode bayes")
    if export.draws < 1:
        raise InputError(f"{counted(export.draws, 'draw', 'are')} none", "ask for one or more --draws")
    chosen = select(fit, users, items, pairs, export)
    chosen.need_memory(export)
    n_chains = getattr(fit.posterior, "n_chains", 1)
    groups = _groups(chosen, export)
    if hasattr(fit.posterior, "log_joint"):
        groups["sample_stats"] = {"lp": _log_joint(fit.posterior.log_joint, n_chains, export.draws)}
    groups["constant_data"] = constant_arrays(chosen)
    return _tree(chosen, groups, n_chains)


def _groups(chosen: Selection, export: Export) -> Groups:
    """The groups that are drawn, with the data that they stand beside; draws have no dimension of chains yet."""
    likelihood, n_draws = chosen.fit.model.ratings, export.draws
    groups: Groups = {"posterior": latent_arrays(chosen, "posterior", n_draws, export.seed, export.user_log_likelihood)}
    log_likelihood = {name: groups["posterior"].pop(name) for name in ("R_user",) if name in groups["posterior"]}
    seeds = iter(np.random.SeedSequence((export.seed, 1)).generate_state(4, np.uint64) >> 1)

    def drawn_ratings(source: DrawnFrom, cells: Cells) -> dict[str, np.ndarray]:
        scores = groups[source]["score"][:, chosen.pair_of(cells)]
        return {"R": draw_ratings(likelihood, scores, cells.confidences, int(next(seeds)))}

    seen, held_out = chosen.seen, chosen.held_out
    if len(seen):
        scores = groups["posterior"]["score"][:, chosen.pair_of(seen)]
        groups["posterior_predictive"] = drawn_ratings("posterior", seen)
        log_likelihood["R"] = log_density(likelihood, scores, seen.ratings, seen.confidences)
        groups["observed_data"] = {"R": seen.ratings}
    if log_likelihood:
        groups["log_likelihood"] = log_likelihood
    if len(held_out):
        groups["predictions"] = drawn_ratings("posterior", held_out)
        given = {"R": held_out.ratings, "confidence": held_out.confidences}
        groups["predictions_constant_data"] = given | chosen.ends("held_out")
    if export.prior:
        groups["prior"] = latent_arrays(chosen, "prior", n_draws, int(next(seeds)))
        if len(seen):
            groups["prior_predictive"] = drawn_ratings("prior", seen)
    return groups


def _log_joint(log_joint: Any, n_chains: int, n_draws: int) -> np.ndarray:
    """The log joint densities of those stored draws that are exported, (n_draws,)."""
    kept = evenly_thinned(len(log_joint) // n_chains, n_draws // n_chains)
    return np.asarray(log_joint).reshape(n_chains, -1)[:, kept].reshape(n_draws)


def _tree(chosen: Selection, groups: Groups, n_chains: int) -> Any:
    """All groups with their coordinates: the ids of users and items, numbers of factors, pairs and cells."""
    by_chain: Groups = {}
    for group, arrays in groups.items():
        chained = "data" not in group
        by_chain[group] = {
            name: values.reshape(n_chains, -1, *values.shape[1:]) if chained else values
            for name, values in arrays.items()
        }
    tree = tree_of_groups(by_chain, chosen.coordinates())
    for group in by_chain:
        tree[group].attrs["description"] = GROUPS[group]
    tree["history"] = xr.DataTree(_history(chosen.fit))
    tree.attrs = _about(chosen.fit)
    return tree


def _about(fit: Fit) -> dict[str, Any]:
    """What the numbers belong to, as attributes of the file."""
    options = fit.options
    return {
        "inference_library": "pyro-cvae",
        "inference_library_version": version(),
        "dataset": fit.dataset.name,
        "posterior": fit.posterior.kind,
        "objective": options.objective,
        "tempered": int(options.tempered),
        "pseudo_likelihood": int(fit.model.pseudo),
        "rating_likelihood": options.model.rating_likelihood,
        "ratings": "R is drawn given C, the exposure of the data; of a Normal it is a real number, no zero or one",
    }


def _history(fit: Fit) -> Any:
    """The history of the fit as a data set over epochs; a term that an epoch does not have is NaN."""
    table = pd.DataFrame(fit.history)
    columns = {}
    for name in table.columns:
        column = table[name]
        values = column.to_numpy(np.float64) if column.dtype.kind in "if" else plain_texts(column.to_numpy(object))
        columns[str(name)] = ("epoch", values)
    _, epochs = columns.pop("epoch", ("epoch", np.arange(1.0, 1.0 + len(table))))
    attributes = {"description": GROUPS["history"], "objective": fit.options.objective}
    return xr.Dataset(columns, {"epoch": epochs.astype(np.int64)}, attributes)


def to_inference_data(fit: Fit, *args: Any, **options: Any) -> Any:
    """The same as ``arviz.InferenceData``, which ArviZ below 1 has; arguments as of :func:`to_datatree`."""
    inference_data = inference_data_class()
    tree = to_datatree(fit, *args, **options)
    groups = {name: child.to_dataset() for name, child in tree.children.items()}
    return inference_data(attrs=dict(tree.attrs), warn_on_custom_groups=False, **groups)


def pit(tree: Any, seed: int = 0) -> Any:
    """Where each held-out rating lies in its predictive draws, for ``plot_ecdf_pit``.

    P(R_draw < R) + w P(R_draw = R) with w uniform on (0, 1), drawn by ``seed``: discrete ratings equal many of their
    draws. A ``DataTree`` with a group "pit", variable R (held_out): uniform if the fit is calibrated. Ratings that are
    all 1 because they were chosen to be so, clicks, are no draws of the paper's model.
    """
    if "predictions" not in tree.children:
        raise InputError("no pair of the test part is in these data", "ask for pairs that were held out")
    drawn, came = tree["predictions"]["R"], tree["predictions_constant_data"]["R"]
    below, equal = ((drawn < came).mean(("chain", "draw")), (drawn == came).mean(("chain", "draw")))
    spread = np.random.default_rng(seed).random(equal.shape)
    return xr.DataTree.from_dict({"pit": (below + spread * equal).to_dataset(name="R")})
