"""How explicit ratings are predicted: errors, log densities and intervals, by user and by group of items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from torch import Tensor

from inference.average import parts_of, predictions
from inference.evaluation.by_user import ByUser
from inference.posterior import Posterior
from inference.predicted import predicted, score_moments
from models.ratings import RatingLikelihood
from models.ratings.predictive import Predictive
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.splits import GROUPS, Split, item_groups, need_test
from pyro_cvae.errors import InputError

Predict = Callable[[np.ndarray, np.ndarray], tuple[Any, ...]]
"""From rows of users and of items, (n_pairs,) each, to mean and standard deviation of their ratings, and where it is no
Normal of these their distribution (:class:`models.ratings.predictive.Predictive`)."""
OF_PAIRS = ("squared_error", "absolute_error", "log_density", "coverage@50", "coverage@90")
METRICS = ("rmse", *(name.replace("absolute_error", "mae") for name in OF_PAIRS[1:]))
LEVELS = (0.5, 0.9)


@dataclass(frozen=True, eq=False)
class RatingEvaluation(ByUser):
    """How a model predicts the test ratings of a split.

    Parameters:
        per_user: One row a user with a test rating: ``user`` (row), ``tuning`` (settings were chosen on this user's
            test pairs), ``n_train``, ``n_test``, and the means over the user's test ratings of :data:`OF_PAIRS`.
        groups: One row for each of hot, warm and cold items (:func:`pyro_cvae.data.splits.item_groups`) that has test
            ratings of headline users: ``n_items``, ``n_pairs``, ``n_users`` and :data:`METRICS` over its pairs.
    """

    measured_pairs: ClassVar[str] = "n_test"
    per_user: pd.DataFrame
    groups: pd.DataFrame
    metrics: tuple[str, ...] = OF_PAIRS
    protocol: str = "test ratings"

    def means_of(self, users: pd.DataFrame) -> dict[str, float]:
        """:data:`METRICS` over the pairs of some rows of ``per_user``; InputError where there is none."""
        return _over_pairs(users)


def evaluate_ratings(predict: Predict, split: Split) -> RatingEvaluation:
    """Compare predictions with the test ratings of a split; raises InputError where there is none."""
    need_test(split)
    test = split.test.select(split.test.observed)
    tuning = np.zeros(test.n_users, bool) if split.tuning_users is None else np.asarray(split.tuning_users, bool)
    headline = ~tuning[test.users]
    if not headline.any():
        raise InputError("no rating is held out", "choose a split that leaves some over, for instance --split cells")
    pairs = pd.DataFrame(pair_errors(test.ratings, *predict(test.users, test.items)))

    by_user = pairs.groupby(test.users)
    per_user = by_user[list(OF_PAIRS)].mean().rename_axis("user").reset_index()
    per_user.insert(1, "tuning", tuning[per_user["user"]])
    per_user.insert(2, "n_train", split.train.user_counts[per_user["user"]])
    per_user.insert(3, "n_test", by_user.size().to_numpy())
    train = split.train.select(split.train.observed)
    group_of = item_groups(replace(train, ratings=np.ones(len(train))))  # any rating counts, not positive ones alone
    rows = {}
    for number, group in enumerate(GROUPS):
        mine = headline & (group_of[test.items] == number)
        if mine.any():
            counts = {"n_items": int((group_of == number).sum()), "n_pairs": int(mine.sum())}
            counts["n_users"] = len(np.unique(test.users[mine]))
            rows[group] = counts | _over_pairs(pairs[mine].assign(n_test=1))
    return RatingEvaluation(per_user, pd.DataFrame.from_dict(rows, orient="index").rename_axis("group"))


def pair_errors(
    ratings: np.ndarray, mean: np.ndarray, sd: np.ndarray, distribution: Predictive | None = None
) -> dict[str, np.ndarray]:
    """:data:`OF_PAIRS` of each pair, (n_pairs,), of predictions with this distribution, N(mean, sd^2) if none is given.

    The log density is in nats, of discrete ratings a log probability; coverage is 1 where the rating lies within the
    central 50 or 90 % interval.
    """
    away = ratings - mean
    errors = {"squared_error": away**2, "absolute_error": np.abs(away)}
    if distribution is None:
        errors["log_density"] = norm.logpdf(away, scale=sd)
        inside = [np.abs(away) <= norm.ppf(0.5 + level / 2) * sd for level in LEVELS]
    else:
        given = torch.as_tensor(ratings, dtype=torch.float64)
        errors["log_density"] = distribution.log_prob(given).numpy()
        inside = [held.numpy() for held in distribution.holds(given, LEVELS)]
    names = (f"coverage@{100 * level:.0f}" for level in LEVELS)
    return errors | {name: held.astype(np.float64) for name, held in zip(names, inside, strict=True)}


def predict_ratings(
    posterior: Posterior, likelihood: RatingLikelihood, users: np.ndarray, items: np.ndarray, train: Interactions | None
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of new ratings of pairs of rows, (n_pairs,) each, float64.

    ``likelihood`` is the fitted model's. Of a point estimate the score is taken to be known: the standard deviation is
    the noise alone. Where ``train`` is given, means stay within the range of its ratings.
    """
    rating = predicted(likelihood, *score_moments(posterior, users, items), train)
    return rating.mean, rating.sd


def root_mean_square_error(posterior: Posterior, test: Interactions, train: Interactions) -> float:
    """Root mean square of rating less posterior mean score, which is kept within the range of the training ratings."""
    kept, given = test.select(test.observed), train.ratings[train.observed]
    mean = np.zeros(len(kept))
    for at, some, rows in parts_of(posterior, train, kept.users):
        mean[at] = some.mean_score(rows, kept.items[at]).double().numpy()
    return float(np.sqrt(np.mean((kept.ratings - mean.clip(given.min(), given.max())) ** 2)))


def rating_metrics(
    posterior: Posterior, likelihood: RatingLikelihood, test: Interactions, train: Interactions
) -> dict[str, Any]:
    """How explicit test ratings are predicted: errors, log density, coverage of intervals, and the number of pairs.

    ``rmse`` and ``mae`` are in units of the ratings, ``log_density`` is the mean over pairs of log p(r), the
    likelihood's own with the score averaged out, in nats (of discrete ratings their log probability); ``coverage@50``
    and ``coverage@90`` are the shares of ratings within its central intervals.
    """
    kept = test.select(test.observed)
    rating = predictions(posterior, likelihood, kept.users, kept.items, train)
    errors = pair_errors(kept.ratings, rating.mean.numpy(), rating.sd.numpy(), rating.distribution)
    means = [float(values.mean()) for values in errors.values()]
    return dict(zip(METRICS, [means[0] ** 0.5, *means[1:]], strict=True)) | {"n_ratings_evaluated": len(kept)}


def _over_pairs(frame: Any) -> dict[str, float]:
    """:data:`METRICS` from means of :data:`OF_PAIRS` and the number of pairs, ``n_test``, behind each row."""
    if not len(frame):
        raise InputError("every user with test ratings is a tuning user", "use a smaller --validation")
    weighted = np.average(frame[list(OF_PAIRS)], axis=0, weights=frame["n_test"])
    return dict(zip(METRICS, [float(weighted[0]) ** 0.5, *map(float, weighted[1:])], strict=True))
