"""Posterior spread by the number of ratings of an item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from inference.fitting import Fit
from inference.posterior import Posterior
from pyro_cvae.data.splits import Split

RATINGS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
"""Least number of ratings of each bin of :func:`shrinkage`; 0 is an item of which only the content is known."""
ARTEFACT = "the spread of v takes no notice of what the content leaves open: an artefact of mean field, not knowledge"
FLOATS_AT_ONCE = 2**25


def can_be_structured(fit: Fit) -> bool:
    """Whether ``--guide structured``, in which the spread of v follows that of z, knows the model and its ratings."""
    return fit.model.item_prior.latent and fit.model.ratings.conjugate


def ignores_content(posterior: Posterior) -> bool:
    """True for the centred mean field, in which the spread of v_j does not depend on that of z_j."""
    return posterior.kind in ("mean-field", "full") and posterior.parametrization == "centred"


def shrinkage(posterior: Posterior, ratings: np.ndarray, n_pairs: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Posterior standard deviations of v and of u.v by the number of ratings of the item, a row for each bin.

    ``sd_v`` of an item is sqrt(tr cov(v_j) / n_factors), biases apart; a bin has its median over items, with the 10 %
    and 90 % quantiles. ``sd_score`` is that of u_i.v_j over ``n_pairs`` random users and items of the bin, and
    ``item_share`` the median of 1 - m_v' S_u m_v / var(u.v), the share of its variance that would go if v were known
    (only nearly so of a chain's draws, in which u and v depend on one another). ``ratings`` (n_items,). Bins without an
    item have no row. Raises InputError for a point estimate.
    """
    sd, rng = item_sd(posterior), np.random.default_rng(seed)
    rows = []
    for low, high in zip(RATINGS, (*RATINGS[1:], np.inf), strict=True):
        items = np.flatnonzero((ratings >= low) & (ratings < high))
        if not len(items):
            continue
        users, chosen = rng.integers(len(posterior.u_loc), size=n_pairs), rng.choice(items, n_pairs)
        score_sd = posterior.score(users, chosen)[1].double().numpy()
        v = posterior.mean("v")[torch.as_tensor(chosen)]
        of_user = torch.einsum("pk,pkl,pl->p", v, posterior.covariance("u", users), v).double().numpy()
        row = {"ratings": float(np.median(ratings[items])), "from": low, "to": ratings[items].max()}
        row |= {"n_items": len(items)}
        for name, values in (("v", sd[items]), ("score", score_sd)):
            quantiles = np.quantile(values, [0.1, 0.5, 0.9])
            row |= dict(zip((f"sd_{name}_q10", f"sd_{name}", f"sd_{name}_q90"), quantiles, strict=True))
        rows.append(row | {"item_share": float(np.median(1 - of_user / score_sd**2))})
    return pd.DataFrame(rows)


def item_sd(posterior: Posterior) -> np.ndarray:
    """sqrt(tr cov(v_j) / n_factors) of each item, biases apart, (n_items,), in blocks of items."""
    n_items, width = posterior.v_loc.shape
    blocks = torch.arange(n_items).split(max(1, FLOATS_AT_ONCE // width**2))
    variance = [posterior.covariance("v", rows).diagonal(dim1=-2, dim2=-1).double() for rows in blocks]
    return torch.cat(variance)[:, : posterior.n_factors].mean(-1).sqrt().numpy()


def ratings_of_items(split: Split) -> np.ndarray:
    """Number of training ratings of each item, (n_items,)."""
    train = split.train
    return np.bincount(train.items[train.observed], minlength=train.n_items)


def shown_spread(of_model: pd.DataFrame, lows: Sequence[int]) -> dict[str, list[str]]:
    """One model's rows of :func:`shrinkage` as texts by column, a text for each of the bins that begin at ``lows``."""
    by_bin = of_model.set_index("from")
    forms = {"sd_v": "#.3g", "sd_score": "#.3g", "item_share": ".0%"}
    return {name: [f"{by_bin[name].get(low, np.nan):{form}}" for low in lows] for name, form in forms.items()}
