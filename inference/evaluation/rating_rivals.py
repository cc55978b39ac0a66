"""What a user would predict ratings by instead: their mean, and mean and biases by ridge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold

from inference.evaluation.ratings import Predict
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted


def mean_rating(dataset: Dataset, split: Split) -> Predict:
    """The mean of the training ratings for every pair, with their standard deviation."""
    ratings = split.train.ratings[split.train.observed]
    return lambda users, items: (np.full(len(users), ratings.mean()), np.full(len(users), ratings.std()))


def mean_and_biases(dataset: Dataset, split: Split, penalties: Sequence[float] = (0.5, 1, 2, 4, 8, 16, 32)) -> Predict:
    """Mean and biases, m + b_i + c_j, by ridge: the minimum of sum (R_ij - m - b_i - c_j)^2 + penalty (|b|^2 + |c|^2).

    The penalty is chosen by five-fold cross-validation of the training ratings, whose error is the standard deviation
    of every prediction. Means stay within the range of the training ratings. Raises InputError for fewer than five.
    """
    train = split.train.select(split.train.observed)
    n, n_users = len(train), train.n_users
    if n < 5:
        raise InputError(f"{counted(n, 'training rating', 'are')} too few for cross-validation", "leave --rivals out")

    def design(users: np.ndarray, items: np.ndarray) -> Any:
        rows, ones = np.arange(len(users)).repeat(2), np.ones(2 * len(users))
        columns = np.stack([users, n_users + items], 1).ravel()
        return sparse.csr_matrix((ones, (rows, columns)), (len(users), n_users + train.n_items))

    folds = KFold(5, shuffle=True, random_state=0)
    ridge, grid = Ridge(solver="sparse_cg", tol=1e-8), {"alpha": list(penalties)}
    search = GridSearchCV(ridge, grid, scoring="neg_root_mean_squared_error", cv=folds)
    search.fit(design(train.users, train.items), train.ratings)
    low, high = train.ratings.min(), train.ratings.max()

    def predict(users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return search.predict(design(users, items)).clip(low, high), np.full(len(users), -search.best_score_)

    return predict


RATING_RIVALS: dict[str, Callable[[Dataset, Split], Predict]] = {
    "mean": mean_rating,
    "mean and biases": mean_and_biases,
}
"""Factories ``(dataset, split) -> predict`` by name."""
RATING_SETTINGS = {"mean and biases": "penalty chosen by five-fold cross-validation of the training ratings"}
"""Rivals of explicit ratings with settings that are chosen, and how."""
