"""Reasons for the items of lists, for people: a table for each user (``inference.recommend RUN --user ID --why 3``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from inference.kinds import Method
from inference.sheets import Sheet
from pyro_cvae.text import counted

if TYPE_CHECKING:
    import pandas as pd

LEAST = 0.5
"""Percent of the score below which a part of it is not told."""
LARGE = 0.1
"""Size of a rest in that of its score from which on it is told of."""
SPLIT = ("content", "mixed", "ratings")
PARTS = {
    "unchosen": "what the user did not choose",
    "prior": "the prior of users",
    "user_bias": "the user's bias",
    "item_bias": "the item's bias",
    "rest": "rest: the fit has not converged",
}
"""What else scores are made of, as it is told."""


def told_reasons(lists: pd.DataFrame, scores: pd.DataFrame, reasons: pd.DataFrame) -> list[Sheet]:
    """A table for each user: of each listed item the largest shares in percent of its score, and what else it is of.

    ``lists`` are those of :func:`inference.recommending.recommend`, ``scores`` and ``reasons`` of
    :class:`inference.recommending.reasons.Why`. The percentages of an item add up to 100, to -100 where its score is
    below 0, but for what is rounded and parts below half a percent.
    """
    split = [name for name in SPLIT if reasons[name].notna().any()]
    words = ["words"] if reasons["words"].notna().any() else []
    ranks = lists.set_index(["user", "item"])["rank"].to_dict()
    of_pair = {pair: part.to_dict("records") for pair, part in reasons.groupby(["user", "item"], sort=False)}
    sheets: dict[Any, Sheet] = {}
    for row in scores.to_dict("records"):
        pair = row["user"], row["item"]
        if row["user"] not in sheets:
            title = f"Why these, for {row['user']}: percent of the score"
            columns = ["rank", "share", *split, "because", *words]
            sheets[row["user"]] = Sheet(columns, title=title, texts=["because", *words])
        sheet, size = sheets[row["user"]], abs(row["score"])
        for number, (share, because, reason) in enumerate(_rows(row, of_pair.get(pair, []))):
            own = [_percent(reason.get(name), size) for name in split]
            rank = "" if number else str(ranks[pair])
            sheet.add_row(rank, _percent(share, size), *own, because, *(str(reason.get(name) or "") for name in words))
        if sheet.rows:
            sheet.add_rule()
    return list(sheets.values())


def large_rests(scores: pd.DataFrame) -> int:
    """How many scores shares do not explain: those whose rest is more than a tenth of their size."""
    return int((scores["rest"].abs() > LARGE * scores["score"].abs()).sum())


def told_rests(n: int, of: int, method: Method) -> list[str]:
    """That shares do not explain ``n`` of so many scores of a fit by ``method``, in a line, or no line of none."""
    if not n:
        return []
    told = f"the rest of {counted(n, 'score', of=of)} is more than {LARGE:.0%} of them"
    more = "--sweeps or --epochs" if method == "coordinate" else "--epochs, or with inference.coordinate"
    return [f"{told}: the fit has not converged, and shares explain them badly; fit with more {more}"]


def _rows(score: dict[str, Any], reasons: list[dict[str, Any]]) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """Share, what it is due to and the reason as a row, for the reasons of an item and then the other parts."""
    left, least = score["chosen"], LEAST / 100 * abs(score["score"])
    for reason in reasons:
        left -= reason["share"]
        title = f" {reason['title']}" if isinstance(reason["title"], str) else ""
        yield reason["share"], f"{reason['because']}{title}", reason
    for share, name in ((left, "the user's other items"), *((score[part], name) for part, name in PARTS.items())):
        if abs(share) >= least and abs(share) > 0:
            yield share, f"({name})", {}


def _percent(share: float | None, size: float) -> str:
    """A share in percent of the size of the score, "" where there is none."""
    return "" if share is None or share != share or not size else f"{100 * share / size:.0f}%"
