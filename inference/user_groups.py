"""Users with and without training pairs, apart: the second get the average user's list (:mod:`inference.average`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

WITH, WITHOUT = "with training pairs", "without training pairs"


def user_groups(
    per_user: pd.DataFrame, n_pairs: str, means: Callable[[pd.DataFrame], dict[str, float]]
) -> pd.DataFrame:
    """One row for each of the two groups that has headline users: ``n_users``, ``n_pairs`` and ``means`` over them.

    Parameters: ``per_user`` an evaluation's rows with ``tuning`` and ``n_train``; ``n_pairs`` its column that counts
    the pairs that are measured; ``means`` the means of some of its rows, by name.
    """
    import pandas as pd

    headline = per_user[~per_user["tuning"]]
    rows: dict[str, dict[str, Any]] = {}
    for name, theirs in ((WITH, headline["n_train"] > 0), (WITHOUT, headline["n_train"] == 0)):
        if theirs.any():
            users = headline[theirs]
            rows[name] = {"n_users": len(users), "n_pairs": int(users[n_pairs].sum())} | means(users)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("users")


def shown(groups: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """Both groups by name, with whole numbers as such; nothing where all users have training pairs."""
    if WITHOUT not in groups.index:
        return []
    whole = {"n_users": int, "n_pairs": int}
    rows = groups.astype(whole).to_dict("index").items()
    return [(str(name), {str(column): value for column, value in row.items()}) for name, row in rows]
