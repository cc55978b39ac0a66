"""What a user would pick instead: popularity, content cosines and the ALS of ``implicit``, scored in blocks.

Where the items have no words, the cosines are of their pictures and vectors. Rivals of explicit ratings are in
:mod:`inference.evaluation.rating_rivals`.

A rival is a factory ``(dataset, split) -> score_block``; ``score_block(users (B,)) -> (B, n_items)`` float32 is what
:func:`inference.evaluation.rankings.evaluate` asks for. Each sees the positive pairs of ``split.train`` and the item
counts, and keeps nothing of size users x items. Settings of ALS and of the SVD prior are chosen on a part of the
training ratings (:mod:`inference.evaluation.als`, :mod:`inference.evaluation.svd_prior`), never on a test part; the
others have none. A user without training pairs gets the mean of the others' scores with the weights of a fit
(:mod:`inference.average`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.extmath import randomized_svd

from inference.average import ScoreBlock, filled
from inference.evaluation.als import als_factors, als_settings, chosen_pairs
from inference.evaluation.svd_prior import TRIALS, fit_held
from pyro_cvae.data.chosen import pick
from pyro_cvae.data.content import Content, ContentScaling
from pyro_cvae.data.contents import Tokens, Vectors
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError

Rival = Callable[[Dataset, Split], ScoreBlock]


def popularity(dataset: Dataset, split: Split) -> ScoreBlock:
    """Score of item j for everybody: its number of positive training ratings."""
    train = split.train
    counts = torch.from_numpy(np.bincount(train.items[train.positive], minlength=train.n_items)).float()
    return lambda users: counts.expand(len(users), -1)


def tfidf(dataset: Dataset, split: Split, contents: Sequence[str] = ()) -> ScoreBlock:
    """Cosine of the item's tf-idf vector and the user's: s_ij = x_j . sum of x_k over the user's training items k.

    x_k is the unit vector of (1 + ln count) * smoothed idf (``ContentScaling`` ``tfidf``); dividing by the norm of the
    user's sum would not change the ranking of a user. ``contents`` names the contents of words and tokens that are
    compared, side by side; by default the text, or where there is none all others of these kinds. Of images and
    vectors, which are compared where there are no words, x_j is the unit vector of the numbers less their means.
    """
    unit = _unit_rows(dataset, contents)
    profiles, by_feature = chosen_pairs(split) @ unit, unit.T
    if not isinstance(unit, np.ndarray):
        profiles, by_feature = profiles.tocsr(), by_feature.tocsr()

    def scores(rows: Any) -> torch.Tensor:
        cosines = rows @ by_feature
        return torch.from_numpy(np.asarray(cosines if isinstance(cosines, np.ndarray) else cosines.toarray()))

    def mean_scores(weights: torch.Tensor) -> torch.Tensor:
        return scores(np.asarray(weights.numpy() @ profiles, np.float32).reshape(1, -1))

    return filled(lambda users: scores(profiles[users]), split.train.select(split.train.positive), mean_scores)


def svd(dataset: Dataset, split: Split, n_dimensions: int, seed: int = 0, contents: Sequence[str] = ()) -> ScoreBlock:
    """The cosine of :func:`tfidf` after a truncated SVD of its unit rows to ``n_dimensions`` (Deerwester, 1990).

    The vectors U S are scaled to unit length, items without content to zero. The SVD is randomised (Halko, Martinsson
    and Tropp, 2011) with 2 power iterations and a fixed seed, and takes as many dimensions as a small matrix has. More
    iterations come nearer to the exact SVD and rank worse: on citeulike-t at P = 1 with 200 dimensions recall@300 is
    0.275 with 2, 0.271 with 3 and 0.266 exactly, so this is the harder rival as well as the cheaper one.
    """
    vectors = _svd_vectors(dataset, n_dimensions, seed, contents)
    items, profiles = torch.from_numpy(vectors), torch.from_numpy(chosen_pairs(split) @ vectors)
    return _of_factors(profiles, items, split)


def _of_factors(users: torch.Tensor, items: torch.Tensor, split: Split) -> ScoreBlock:
    """Products of the rows of users (n_users, width) and items (n_items, width); of nobody known, the mean user's."""
    chosen = split.train.select(split.train.positive)

    def score_block(rows: np.ndarray) -> torch.Tensor:
        return users[torch.from_numpy(rows)] @ items.T

    return filled(score_block, chosen, lambda weights: (weights.to(users.dtype) @ users) @ items.T)


def _svd_vectors(dataset: Dataset, n_dimensions: int, seed: int, contents: Sequence[str]) -> np.ndarray:
    unit = _unit_rows(dataset, contents)
    n_dimensions = min(n_dimensions, *unit.shape)
    left, singular, _ = randomized_svd(unit, n_dimensions, n_iter=2, random_state=seed)
    # Directions without variance (rank below n_dimensions) are rounding noise, which a unit length would blow up.
    vectors = left * np.where(singular > 1e-6 * singular[0], singular, 0.0)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norms > 1e-6, vectors / np.maximum(norms, 1e-6), 0.0).astype(np.float32)


@dataclass(frozen=True)
class TunedScores:
    """Scores of a rival, ``users (B,) -> (B, n_items)``, and the settings that were chosen for it, in words."""

    score_block: ScoreBlock
    settings: str

    def __call__(self, users: np.ndarray) -> torch.Tensor:
        """The scores of a block of users."""
        return self.score_block(users)


def svd_prior(
    dataset: Dataset,
    split: Split,
    n_dimensions: int = 300,
    sweeps: int = 10,
    seed: int = 0,
    contents: Sequence[str] = (),
    trials: int = TRIALS,
) -> TunedScores:
    """The vectors of :func:`svd` held as z under the closed form of ``inference.coordinate --mode map``, no network.

    What a learned encoder has to be better than; its settings are found as a fit finds them
    (:func:`inference.evaluation.svd_prior.fit_held`).
    """
    fit = fit_held(torch.from_numpy(_svd_vectors(dataset, n_dimensions, seed, contents)), split, sweeps, trials)
    return TunedScores(_of_factors(fit.u, fit.v, split), fit.settings)


def als(dataset: Dataset, split: Split) -> TunedScores:
    """Matrix factorisation without content, u_i . v_j of :func:`als_factors`, with settings chosen for the split."""
    chosen = als_settings(split)
    u, v = als_factors(split, chosen.factors, chosen.alpha, 1.0, chosen.regularization)
    return TunedScores(_of_factors(u, v, split), str(chosen))


RIVALS: dict[str, Rival] = {
    "popularity": popularity,
    "tfidf": tfidf,
    "svd-50": partial(svd, n_dimensions=50),
    "svd-200": partial(svd, n_dimensions=200),
    "svd-300-prior": svd_prior,
    "als": als,
}
OF_CONTENTS = ("tfidf", "svd-50", "svd-200", "svd-300-prior")
"""Rivals that compare contents."""


def settings_of(score_block: ScoreBlock) -> str:
    """The settings of a rival in words, and whether they were chosen."""
    return score_block.settings if isinstance(score_block, TunedScores) else "fixed"


def rival(name: str, contents: Sequence[str] = ()) -> Rival:
    """The factory of this name; raises InputError for one that there is not.

    One of :data:`OF_CONTENTS` compares these ``contents``: those of words where there are some, as words and numbers
    have no cosine in common. Without names it is the text, as in :func:`tfidf`.
    """
    if name not in RIVALS:
        raise InputError(f"no rival is called {name!r}", "choose from " + ", ".join(RIVALS))
    if name not in OF_CONTENTS or not contents:
        return RIVALS[name]

    def of_contents(dataset: Dataset, split: Split) -> ScoreBlock:
        words = [one for one in contents if isinstance(pick(dataset.contents, one), Content | Tokens)]
        of_these: Any = RIVALS[name]
        return of_these(dataset, split, contents=words or contents)

    return of_contents


def _unit_rows(dataset: Dataset, contents: Sequence[str]) -> Any:
    """Unit rows by which items are compared, zero where there is nothing, float32 (n_items, n_features).

    Sparse tf-idf of the words and tokens of these contents side by side, or an array of centred numbers.
    """
    chosen = {name: pick(dataset.contents, name) for name in contents} or dict(dataset.contents)
    if not contents and dataset.content.counts.nnz:
        chosen = {"text": dataset.content}
    words = {name: part for name, part in chosen.items() if isinstance(part, Content | Tokens)}
    numbers = {name: part for name, part in chosen.items() if isinstance(part, Vectors)}
    if contents and words and numbers:
        raise InputError(f"words ({', '.join(words)}) and numbers ({', '.join(numbers)}) have no cosine in common",
                         "compare contents of one sort")  # fmt: skip
    counts = [part.counts if isinstance(part, Content) else part.bag() for part in words.values()]
    if any(part.nnz for part in counts):
        joined = counts[0] if len(counts) == 1 else sp.hstack(counts, "csr")
        return ContentScaling.fit(joined, "tfidf").transform(joined)
    centred = [part.centred() for part in numbers.values() if part.present.any()]
    if not centred:
        raise InputError("the items have nothing to compare", "leave the rivals tfidf and svd out")
    rows = np.concatenate([_unit(part) for part in centred], 1)
    return rows if len(centred) == 1 else _unit(rows)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
