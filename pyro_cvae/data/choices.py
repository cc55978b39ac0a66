"""Which listed pairs are choices, where a table of clicks has a column of ratings too."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from pyro_cvae.data.cells import absent, plain_number, with_points
from pyro_cvae.data.table import Table
from pyro_cvae.text import counted

_WORDS = dict.fromkeys(("true", "yes", "like", "liked"), 1.0) | dict.fromkeys(("false", "no"), 0.0)
_WORDS |= dict.fromkeys(("dislike", "disliked"), -1.0)
_OTHERS = "--min-rating takes another bound, --ratings stars the ratings themselves"


def choices_of(pairs: Table) -> Table:
    """The pairs that are choices, the column ``rating`` left out; one line of the log says what was made of it.

    A pair is a choice if its rating is at least ``min_rating`` of the reading; without such a bound if it is above 0,
    or missing. Ratings that are all alike and above 0 say nothing and are passed over.
    """
    least = pairs.reading.min_rating
    if "rating" not in pairs.columns:
        if least is not None and not pairs.reading.lenient:
            raise pairs.error(f"has no column rating, of which --min-rating {least:g} is", "leave it out")
        return pairs
    numbers = np.array([np.nan if number is None else number for number in _numbers(pairs, least is not None)])
    without = replace(pairs, columns={name: values for name, values in pairs.columns.items() if name != "rating"})
    stated = numbers[~np.isnan(numbers)]
    if not len(stated):
        told = counted(len(numbers), "pair", "count")
        pairs.tell("the column rating has no number and is left out: %s as chosen", told)
        return without
    kept = ~(numbers < least) & ~np.isnan(numbers) if least is not None else ~(numbers <= 0)
    if not kept.any():
        bound = "above 0" if least is None else f"of {least:g} or more"
        raise pairs.error(f"no pair has a rating {bound}", "choose another --min-rating, or --ratings stars")
    n_out = int((~kept).sum())
    if least is not None:
        told = counted(kept.sum(), "pair", "have", of=len(kept))
        pairs.tell("%s a rating of %g or more, which is a choice", told, least)
    elif n_out:
        told = counted(n_out, "pair", "were", of=len(kept))
        pairs.tell("%s left out, since a rating of 0 or less is no choice; " + _OTHERS, told)
    chosen = stated[stated > 0]
    if least is None and chosen.min(initial=np.inf) < chosen.max(initial=-np.inf):
        low = chosen.min()
        pairs.tell("ratings from %g to %g count alike, those of %g as chosen too; " + _OTHERS, low, chosen.max(), low)
    return without if kept.all() else without.keep(np.flatnonzero(kept).tolist())


def _numbers(pairs: Table, strict: bool) -> list[float | None]:
    """Ratings as numbers, ``None`` where there is none; InputError for other things, if ``strict``."""
    values = with_points(pairs, "rating")
    numbers: list[float | None] = []
    odd: Counter[Any] = Counter()
    for row, value in enumerate(values):
        number = (
            plain_number(value)
            if not isinstance(value, str)
            else _WORDS.get(value.strip().lower(), plain_number(value))
        )
        if number is None or number != number:
            number = None
            if not absent(value):
                odd[str(value)] += 1
            if strict:
                shown = "is missing" if absent(value) else f"{value!r} cannot be used"
                raise pairs.error(f"the rating {shown}", "give a number, or leave --min-rating out", row)
        numbers.append(number)
    if odd:
        told = counted(odd.total(), "rating", "are")
        pairs.tell("%s passed over as no number (the first: %r)", told, next(iter(odd)))
    return numbers
