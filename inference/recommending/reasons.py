"""Why an item is in a user's list: what of the score is due to each item that the user has chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from inference.draws import Draws
from inference.fitting import Fit
from inference.recommending.asked import lacks_pairs
from inference.recommending.shares import PARTS, Shares, shares_of
from inference.recommending.words import common_words
from models.catalogue import RATINGS
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

FLOATS_AT_ONCE = 2**23
USERS_AT_ONCE = 512
SPLIT = ("content", "mixed", "ratings")


@dataclass(frozen=True, eq=False)
class Why:
    """Scores taken apart, and the reasons for them.

    ``scores`` has a row for each pair asked for: user, item, score and what it is the sum of, chosen (the shares of the
    user's items), unchosen, prior, user_bias, item_bias and rest. ``reasons`` has a row for each share told: user,
    item, reason (1 for the largest share), because (the id of an item that the user has chosen), title, share, percent
    (of the size of the score), content, mixed and ratings, whose sum is the share, and words. Where the model reads no
    content, or has a prior of v of its own, the split is missing.
    """

    scores: pd.DataFrame
    reasons: pd.DataFrame


def why(fit: Fit, users: Any, items: Iterable[Any], most: int | None = 3) -> Why:
    """The scores of pairs as sums over what the users have chosen, s_it = sum_j share_j + the other parts.

    See :mod:`inference.recommending.shares` for the equation and all parts. Parameters: ``users`` one external id, or
    one for each of the ``items``; ``most`` reasons are told of each pair, those of the largest shares, all if ``None``.
    Users may be folded in and items added. Raises InputError for unknown ids, for users without a training pair, whose
    list is the average user's, for stored draws, and for a likelihood of ratings without a closed form.
    """
    refuse(fit)
    dataset, asked = fit.dataset, list(items)
    single = isinstance(users, str) or not isinstance(users, Iterable)
    user_rows = dataset.user_rows([users] * len(asked) if single else list(users))
    item_rows = dataset.item_rows(asked)
    if len(user_rows) != len(item_rows):
        raise InputError(
            f"{counted(len(user_rows), 'user')} and {counted(len(item_rows), 'item')} are no pairs",
            "give one user for each item",
        )
    if (lacking := lacks_pairs(fit, user_rows)).any():
        name = dataset.user_ids[user_rows[lacking][0]]
        problem = f"user {name!r} has no training pair: the list is the average user's, which no choice explains"
        raise InputError(problem, "ask for users with training pairs, or fold the user in")
    scores = np.zeros((len(asked), 1 + len(PARTS)))
    told = [np.zeros((0, 3 + len(SPLIT)))]
    for pairs in _blocks(fit, user_rows):
        rows, at = np.unique(user_rows[pairs], return_inverse=True)
        shares = shares_of(fit, rows, at, item_rows[pairs])
        scores[pairs] = torch.stack([shares.scores, *(shares.parts[name] for name in PARTS)], 1).numpy()
        told.append(_largest(shares, pairs, most))
    largest = np.concatenate(told)
    ids = {"user": dataset.user_ids[user_rows], "item": dataset.item_ids[item_rows]}
    parts = dict(zip(("score", *PARTS), scores.T, strict=True))
    return Why(pd.DataFrame(ids | parts), _reasons(fit, ids, item_rows, scores[:, 0], largest))


def refuse(fit: Fit) -> None:
    """InputError where u given V is not linear in what the user chose, or not known: see :func:`why`."""
    if isinstance(fit.posterior, Draws):
        problem = "stored draws of inference.mcmc have no closed form of u, which --why needs"
        raise InputError(problem, "fit with inference.coordinate")
    if not fit.model.ratings.conjugate:
        able = ", ".join(name for name, facts in RATINGS.items() if facts.conjugate)
        problem = fit.model.ratings.refuse("--why").problem
        raise InputError(problem, f"fit with inference.coordinate and --rating-likelihood {able}")


def _blocks(fit: Fit, users: np.ndarray) -> Iterator[np.ndarray]:
    """Places of the pairs in blocks of users whose shares are held at once."""
    order = np.argsort(users, kind="stable")
    counts = fit.split.train.user_counts[users[order]]
    width = fit.posterior.u.loc.shape[1]
    block = (
        np.cumsum(counts * width) // FLOATS_AT_ONCE + np.cumsum(np.diff(users[order], prepend=-1) > 0) // USERS_AT_ONCE
    )
    yield from (part for part in np.split(order, np.flatnonzero(np.diff(block)) + 1) if len(part))


def _largest(shares: Shares, pairs: np.ndarray, most: int | None) -> np.ndarray:
    """The largest shares of each pair, largest first: place of the pair, row of the item, share and its split."""
    pair, share = shares.pairs.numpy(), shares.share.numpy()
    order = np.lexsort((-share, pair))
    if most is not None:
        order = order[places(pair[order]) < most]
    split = (getattr(shares, name).numpy() for name in SPLIT)
    return np.stack([pairs[pair], shares.items.numpy(), share, *split], 1)[order]


def places(groups: np.ndarray) -> np.ndarray:
    """The place of each row within its run of equal ``groups``, from 0, (n_rows,)."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))


def _reasons(fit: Fit, ids: dict[str, np.ndarray], items: np.ndarray, scores: np.ndarray, told: np.ndarray) -> Any:
    """A row for each share told, in the order of the pairs; ``items`` and ``scores`` are of the pairs, (n_pairs,)."""
    told = told[np.argsort(told[:, 0], kind="stable")]
    pair, chosen, share = told[:, 0].astype(np.int64), told[:, 1].astype(np.int64), told[:, 2]
    size = np.abs(scores[pair])
    knows = fit.posterior.has_content and fit.model.has_items_around_content()
    titles = fit.dataset.titles
    columns = {
        "reason": places(pair) + 1,
        "because": fit.dataset.item_ids[chosen],
        "title": None if titles is None else titles[chosen],
        "share": share,
        "percent": 100 * np.divide(share, size, out=np.full_like(share, np.nan), where=size > 0),
    }
    columns |= {name: told[:, 3 + at] if knows else np.nan for at, name in enumerate(SPLIT)}
    words = common_words(fit, chosen, items[pair])
    if knows and words is not None:  # of a share that the contents do not raise they would be no reason
        words = [said if part > 0 else "" for said, part in zip(words, columns["content"], strict=True)]
    columns["words"] = words
    return pd.DataFrame({name: values[pair] for name, values in ids.items()} | columns)
