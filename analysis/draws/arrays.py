"""The arrays of an exported posterior: draws of what is selected, and what was given beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.draws.pairs import places_in
from analysis.draws.ratings import confidence_of_zeros
from analysis.draws.selection import Selection, plain_texts
from analysis.draws.streams import blocks_from
from analysis.draws.user_rows import UserRows
from analysis.kinds import DrawnFrom
from pyro_cvae.data.splits import GROUPS as HEAT
from pyro_cvae.data.splits import item_groups


def latent_arrays(
    chosen: Selection, source: DrawnFrom, n: int, seed: int, user_log_likelihood: bool = False
) -> dict[str, np.ndarray]:
    """Draws from "posterior" or "prior" of u, v, z, v_dagger, biases and score, (n, ...).

    And of R_user = log p(R_i | u_i, V) where asked.
    """
    fit = chosen.fit
    model, rows = fit.model, UserRows.of(fit, chosen.users)
    wanted = [chosen.items, chosen.pair_items, *([rows.items] if user_log_likelihood else [])]
    users, items = np.unique(np.concatenate([chosen.users, chosen.pair_users])), np.unique(np.concatenate(wanted))
    own, of_pair = np.searchsorted(users, chosen.users), np.searchsorted(users, chosen.pair_users)
    at = [np.searchsorted(items, item_rows) for item_rows in wanted]
    n_factors, arrays = fit.posterior.n_factors, _empty(chosen, n)
    if user_log_likelihood:
        arrays["R_user"] = np.repeat(rows.constant()[None], n, axis=0)
    for block, draws, drawn in blocks_from(source, fit, users, items, n, seed, len(chosen.pair_users)):
        item, pair, *column = (np.flatnonzero((place >= block.start) & (place < block.stop)) for place in at)
        here = at[0][item] - block.start
        arrays["u"][draws] = drawn["u"][:, own, :n_factors]
        arrays["v"][draws, item], arrays["z"][draws, item] = drawn["v"][:, here, :n_factors], drawn["z"][:, here]
        if "user_bias" in arrays:
            arrays["user_bias"][draws] = model.kappa_u * drawn["u"][:, own, n_factors]
            arrays["item_bias"][draws, item] = model.kappa_v * drawn["v"][:, here, n_factors + 1]
        u, v = drawn["u"][:, of_pair[pair]], drawn["v"][:, at[1][pair] - block.start]
        arrays["score"][draws, pair] = (u * v).sum(-1)
        if column and len(column[0]):
            v = drawn["v"][:, at[2][column[0]] - block.start]
            columns = slice(column[0][0], column[0][-1] + 1)
            arrays["R_user"][draws] += rows.log_prob(columns, drawn["u"][:, own], v).numpy()
    return arrays | {"v_dagger": arrays["v"] - arrays["z"]}


def _empty(chosen: Selection, n: int) -> dict[str, np.ndarray]:
    """Arrays for ``n`` draws of each latent variable that is stored, in the type of the posterior."""
    n_users, n_items, n_factors = len(chosen.users), len(chosen.items), chosen.fit.posterior.n_factors
    sizes: dict[str, tuple[int, ...]] = {"u": (n_users, n_factors), "v": (n_items, n_factors)}
    sizes |= {"z": (n_items, n_factors), "score": (len(chosen.pair_users),)}
    if chosen.fit.model.mean is not None:
        sizes |= {"user_bias": (n_users,), "item_bias": (n_items,)}
    dtype = chosen.fit.posterior.u_loc.numpy().dtype
    return {name: np.empty((n, *size), dtype) for name, size in sizes.items()}


def constant_arrays(chosen: Selection) -> dict[str, Any]:
    """What was given: precisions, exposure, training counts and titles."""
    fit, model, train = chosen.fit, chosen.fit.model, chosen.fit.split.train
    given = {"lambda_u": model.lambda_u, "lambda_v": model.lambda_v}
    given |= {"a": model.ratings.default_confidence, "b": confidence_of_zeros(model.ratings)}
    if model.ratings.explicit and (tau := model.ratings.noise_precision) is not None:
        given["tau"] = tau
    if model.mean is not None:
        given["global_mean"] = float(model.mean.detach())
    arrays: dict[str, Any] = {name: np.float64(value) for name, value in given.items()}
    arrays["n_ratings_of_user"] = train.user_counts[chosen.users]
    arrays["n_ratings_of_item"] = train.item_counts[chosen.items]
    arrays["item_group"] = plain_texts(np.array(HEAT, object)[item_groups(train)[chosen.items]])
    if fit.dataset.titles is not None:
        arrays["title"] = plain_texts(fit.dataset.titles[chosen.items])
    if len(chosen.seen):
        _, stored = places_in(train, chosen.seen.users, chosen.seen.items)
        arrays |= {"confidence": chosen.seen.confidences, "stored": stored.astype(np.int8)}
    return arrays | {"pair_part": chosen.kinds_of_pairs()} | chosen.ends("pair", "cell")
