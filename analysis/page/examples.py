"""The lists of a few users, with what is known about each score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.over_users import counted_pairs
from analysis.page.options import ReportOptions
from analysis.reliability import Reliability
from inference.fitting import Fit
from inference.numerals import largest, number
from inference.recommending.asked import posterior_of
from inference.recommending.lists import recommend

LEVELS = (0.9, 0.5)


def example_rows(fit: Fit, options: ReportOptions) -> np.ndarray:
    """Rows of the users that are shown: those asked for, or a seeded few of the headline users with test items."""
    dataset, split = fit.dataset, fit.split
    if options.user:
        return dataset.user_rows(dict.fromkeys(options.user))
    counted = split.test.observed if fit.model.ratings.explicit else split.test.positive
    able = np.unique(split.test.users[counted])
    if split.tuning_users is not None:
        able = able[~split.tuning_users[able]]
    return np.sort(np.random.default_rng(options.seed).permutation(able)[: options.users])


def user_facts(fit: Fit, row: int) -> dict[str, Any]:
    """What a reader needs to judge a user's list: the id, how much is known, and some training items."""
    dataset, train, test = fit.dataset, fit.split.train, fit.split.test
    explicit = fit.model.ratings.explicit
    items = train.items[(train.users == row) & train.observed & (train.positive | explicit)]
    return {
        "id": str(dataset.user_ids[row]),
        "n_train": len(items),
        "n_test": int(((test.users == row) & (test.observed if explicit else test.positive)).sum()),
        "verb": "rated" if explicit else "chosen",
        "chosen": [{"id": str(dataset.item_ids[j]), "title": _title(fit, j)} for j in items[:5]],
    }


def _title(fit: Fit, item: int) -> str:
    return "" if fit.dataset.titles is None else str(fit.dataset.titles[item])


def example_lists(
    fit: Fit, users: np.ndarray, top: int, draws: int, seed: int, reliable: Reliability | None = None
) -> list[list[dict[str, Any]]]:
    """The list of each user (rows), best first: id, title, group, score, and whether it is a held-out positive.

    Held-out items are candidates, as in evaluation; users without training pairs have the average user's list.
    With uncertainty also ``ends``: of each level of :data:`LEVELS` the interval of u.v by quantiles of ``draws``
    posterior draws. With ``reliable`` also ``p``, the recalibrated P that the item is a held-out positive.
    """
    if not len(users):
        return []
    dataset, test, asked = fit.dataset, fit.split.test, np.unique(users)
    table = recommend(fit, dataset.user_ids[users].tolist(), top, keep_test=True)
    items = dataset.item_rows(table["item"].tolist())
    rows = dataset.user_rows(table["user"].tolist())
    came = test.observed if fit.model.ratings.explicit else test.positive
    held_out = test.users[came] * test.n_items + test.items[came]
    hits = np.isin(rows * test.n_items + items, held_out)
    quantiles = None
    if not fit.posterior.is_point:
        at = [0.5 - level / 2 for level in LEVELS] + [0.5 + level / 2 for level in LEVELS]
        place = np.searchsorted(asked, rows)
        drawn = posterior_of(fit, asked).score_draws(place, items, draws, seed)
        quantiles = np.quantile(drawn.double().numpy(), at, axis=0)
    p = None
    if reliable is not None:
        popularity = counted_pairs(fit).item_counts[items]
        p = reliable.recalibration(table["score"].to_numpy(), table["rank"].to_numpy(), popularity)
    lists: dict[int, list[dict[str, Any]]] = {int(user): [] for user in users}
    for index, (row, item, score, group) in enumerate(zip(rows, items, table["score"], table["group"], strict=True)):
        ends = None
        if quantiles is not None:
            mine, n = quantiles[:, index], len(LEVELS)
            ends = {level: (float(mine[k]), float(mine[n + k])) for k, level in enumerate(LEVELS)}
        entry: dict[str, Any] = {"id": str(dataset.item_ids[item]), "title": _title(fit, item), "group": str(group)}
        entry["p"] = None if p is None else float(p[index])
        lists[int(row)].append(entry | {"score": float(score), "hit": bool(hits[index]), "ends": ends})
    return list(lists.values())


def with_strips(examples: list[dict[str, Any]], about: dict[str, dict[str, Any]], names: Sequence[str]) -> list[Any]:
    """The users with their lists, each strip placed on one scale a user, 0 to 100 from its lowest to its highest."""
    placed = []
    for place, user in enumerate(examples):
        lists = {name: about[name]["lists"][place] for name in names}
        entries = [entry for listed in lists.values() for entry in listed]
        ends = [end for entry in entries for pair in (entry["ends"] or {}).values() for end in pair]
        values = [entry["score"] for entry in entries] + ends
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        width, size = (high - low) or 1.0, largest((low, high))

        def at(value: float, low: float = low, width: float = width) -> float:
            return round(100 * (value - low) / width, 2)

        for entry in entries:
            entry["at"] = at(entry["score"])
            entry["strips"] = {
                f"i{100 * level:.0f}": (at(pair[0]), at(pair[1])) for level, pair in (entry["ends"] or {}).items()
            }
            entry["told"] = "; ".join(
                [f"mean {number(entry['score'], 3, size)}"]
                + [
                    f"{level:.0%} from {number(a, 3, size)} to {number(b, 3, size)}"
                    for level, (a, b) in (entry["ends"] or {}).items()
                ]
            )
        placed.append(user | {"lists": lists, "low": number(low, 2, size), "high": number(high, 2, size)})
    return placed
