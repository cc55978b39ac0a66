"""Means over users, and apart over those with and without training pairs.

The second get the average user's list (:mod:`inference.average`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import pandas as pd

WITH, WITHOUT = "with training pairs", "without training pairs"


class ByUser(ABC):
    """An evaluation with one row a user: ``user`` (row), ``tuning``, ``n_train``, ``n_test`` and what is measured.

    ``tuning`` marks the users on whose test pairs settings were chosen; the headline is over all others.
    """

    measured_pairs: ClassVar[str]
    """The column that counts the pairs that are measured."""
    per_user: pd.DataFrame

    @abstractmethod
    def means_of(self, users: pd.DataFrame) -> dict[str, float]:
        """The mean of each metric over some rows of ``per_user``."""

    @property
    def headline(self) -> pd.DataFrame:
        """The rows of the users on whose test pairs no setting was chosen."""
        return self.per_user[~self.per_user["tuning"]]

    @property
    def n_users_evaluated(self) -> int:
        """Number of users in the headline means."""
        return len(self.headline)

    def means(self) -> dict[str, float]:
        """Headline means of each metric."""
        return self.means_of(self.headline)

    def all_user_means(self) -> dict[str, float]:
        """The same over all users, those included on whom settings were chosen."""
        return self.means_of(self.per_user)

    @property
    def user_groups(self) -> pd.DataFrame:
        """Headline users with and without training pairs (:func:`user_groups`)."""
        return user_groups(self.headline, self.measured_pairs, self.means_of)


def user_groups(
    headline: pd.DataFrame, measured_pairs: str, means: Callable[[pd.DataFrame], dict[str, float]]
) -> pd.DataFrame:
    """One row for each of the two groups that has users: ``n_users``, ``n_pairs`` and ``means`` over them.

    Parameters: ``headline`` an evaluation's rows with ``n_train``; ``measured_pairs`` its column that counts the pairs
    that are measured; ``means`` the means of some of its rows, by name.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, theirs in ((WITH, headline["n_train"] > 0), (WITHOUT, headline["n_train"] == 0)):
        if theirs.any():
            users = headline[theirs]
            rows[name] = {"n_users": len(users), "n_pairs": int(users[measured_pairs].sum())} | means(users)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("users")


def shown(groups: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """Both groups by name, with whole numbers as such; nothing where all users have training pairs."""
    if WITHOUT not in groups.index:
        return []
    whole = {"n_users": int, "n_pairs": int}
    rows = groups.astype(whole).to_dict("index").items()
    return [(str(name), {str(column): value for column, value in row.items()}) for name, row in rows]
