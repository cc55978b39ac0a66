"""How explicit ratings are predicted: errors, log densities and intervals, by user and by group of items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.user_groups import user_groups
from pyro_cvae.data.splits import need_test
from pyro_cvae.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from inference.fitting import Fit
    from models.ratings.predictive import Predictive
    from pyro_cvae.data.splits import Split

Predict = Callable[[np.ndarray, np.ndarray], tuple[Any, ...]]
"""From rows of users and of items, (n_pairs,) each, to mean and standard deviation of their ratings, and where it is no
Normal of these their distribution (:class:`models.ratings.predictive.Predictive`)."""
OF_PAIRS = ("squared_error", "absolute_error", "log_density", "coverage@50", "coverage@90")
METRICS = ("rmse", *(name.replace("absolute_error", "mae") for name in OF_PAIRS[1:]))
LEVELS = (0.5, 0.9)


@dataclass(frozen=True, eq=False)
class RatingEvaluation:
    """How a model predicts the test ratings of a split.

    Parameters:
        per_user: One row a user with a test rating: ``user`` (row), ``tuning`` (settings were chosen on this user's
            test pairs), ``n_train``, ``n_test``, and the means over the user's test ratings of :data:`OF_PAIRS`.
        groups: One row for each of hot, warm and cold items (``inference.evaluate.item_groups``) that has test ratings
            of headline users: ``n_items``, ``n_pairs``, ``n_users`` and :data:`METRICS` over its pairs.
    """

    per_user: pd.DataFrame
    groups: pd.DataFrame
    metrics: tuple[str, ...] = OF_PAIRS
    protocol: str = "test ratings"

    @property
    def n_users_evaluated(self) -> int:
        """Number of users in the headline means."""
        return int((~self.per_user["tuning"]).sum())

    def means(self) -> dict[str, float]:
        """:data:`METRICS` over the pairs of the users on whose test pairs no setting was chosen."""
        return _over_pairs(self.per_user[~self.per_user["tuning"]])

    def all_user_means(self) -> dict[str, float]:
        """The same over all pairs."""
        return _over_pairs(self.per_user)

    @property
    def user_groups(self) -> pd.DataFrame:
        """Headline users with and without training pairs (:func:`inference.user_groups.user_groups`)."""
        return user_groups(self.per_user, "n_test", _over_pairs)


def evaluate_ratings(predict: Predict, split: Split) -> RatingEvaluation:
    """Compare predictions with the test ratings of a split; raises InputError where there is none."""
    import pandas as pd

    from inference.evaluate import GROUPS, item_groups

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
    group_of = item_groups(
        replace(train, ratings=np.ones(len(train)))
    )  # any rating counts, not the positive ones alone
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
    import torch
    from scipy.stats import norm

    away = ratings - mean
    found = {"squared_error": away**2, "absolute_error": np.abs(away)}
    if distribution is None:
        found["log_density"] = norm.logpdf(away, scale=sd)
        inside = [np.abs(away) <= norm.ppf(0.5 + level / 2) * sd for level in LEVELS]
    else:
        given = torch.as_tensor(ratings, dtype=torch.float64)
        found["log_density"] = distribution.log_prob(given).numpy()
        inside = [held.numpy() for held in distribution.holds(given, LEVELS)]
    names = (f"coverage@{100 * level:.0f}" for level in LEVELS)
    return found | {name: held.astype(np.float64) for name, held in zip(names, inside, strict=True)}


def predictor(fit: Fit) -> Predict:
    """A fit's predictions of ratings, with the distribution that its own likelihood has."""
    from inference.average import predictions

    def predict(users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, Predictive]:
        found = predictions(fit.posterior, fit.model.ratings, users, items, fit.split.train)
        return found.mean.numpy(), found.sd.numpy(), found.distribution

    return predict


def _over_pairs(frame: Any) -> dict[str, float]:
    """:data:`METRICS` from means of :data:`OF_PAIRS` and the number of pairs, ``n_test``, behind each row."""
    if not len(frame):
        raise InputError("every user with test ratings is a tuning user", "use a smaller --validation")
    weighted = np.average(frame[list(OF_PAIRS)], axis=0, weights=frame["n_test"])
    return dict(zip(METRICS, [float(weighted[0]) ** 0.5, *map(float, weighted[1:])], strict=True))
