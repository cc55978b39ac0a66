"""What requests say: their fields, with their types and bounds. Whatever breaks one is refused before any work."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    model_validator,
)

from pyro_cvae.text import counted

MOST_LISTED = 1000
"""Length of a list."""
MOST_IDS = 20_000
"""Items that a request may name in one field."""
MOST_USERS = 100
MOST_EXPLAINED = 50
"""Items whose reasons one request asks for."""
MOST_TEXT = 50_000
"""Characters of a text."""


def _writable(text: str) -> str:
    """The text; ValueError where it has half of a pair of surrogates, which no answer could hold."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("has half of a surrogate pair")
    return text


def _unpointed(number: Any) -> Any:
    """10.0 as 10: some programs write whole numbers so, and JSON Schema calls both integers."""
    exact = isinstance(number, float) and number.is_integer() and abs(number) <= 2**53
    return int(number) if exact else number


WRITABLE = AfterValidator(_writable)
UNPOINTED = BeforeValidator(_unpointed)
"""Both stand after the bounds: before them, the document would not name these."""
Whole = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63), UNPOINTED]
Id = Whole | Annotated[StrictStr, Field(max_length=1000), WRITABLE]
"""A user's or an item's own id; where ids are whole numbers, a text that spells one is taken, too."""
Ids = Annotated[list[Id], Field(max_length=MOST_IDS)]
Top = Annotated[StrictInt, Field(ge=1, le=MOST_LISTED), UNPOINTED]


class Asked(BaseModel):
    """A request: fields that it has not are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ListAsked(Asked):
    """How long a list is, what may be in it, and how sure it is to say that it is.

    ``interval`` is a probability, ``top_probability`` a number M: both need a fit of ``bayes``.
    """

    top: Top = 10
    candidates: Ids | None = None
    exclude: Ids = []
    interval: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
    top_probability: Top | None = None


class RecommendAsked(ListAsked):
    """``POST /recommend``: a list for a user of the fit."""

    user: Id


class SimilarAsked(Asked):
    """``POST /similar``: items like one of the fit."""

    item: Id
    top: Top = 10
    exclude: Ids = []


class SimilarUsersAsked(Asked):
    """``POST /similar-users``: users like one of the fit."""

    user: Id
    top: Top = 10
    exclude: Ids = []


class LikedAsked(Asked):
    """All that a new user has chosen; ``ratings`` of these items where the fit is of explicit ratings."""

    items: Annotated[Ids, Field(min_length=1)]
    ratings: Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(max_length=MOST_IDS)] | None = None

    @model_validator(mode="after")
    def _one_rating_each(self) -> LikedAsked:
        if self.ratings is not None and len(self.ratings) != len(self.items):
            raise ValueError(f"{counted(len(self.items), 'item', 'have')} {counted(len(self.ratings), 'rating')}")
        return self


class FoldInAsked(ListAsked, LikedAsked):
    """``POST /fold-in``: a list for a new user, of whom nothing is kept."""


class NewItemAsked(Asked):
    """``POST /new-item``: a text that no item of the fit has, and the users whose scores are asked for."""

    text: Annotated[StrictStr, Field(min_length=1, max_length=MOST_TEXT), WRITABLE]
    title: Annotated[StrictStr, Field(max_length=1000), WRITABLE] | None = None
    users: Annotated[list[Id], Field(max_length=MOST_USERS)] = []
    top: Top = 10


class WhyAsked(Asked):
    """``POST /why``: reasons for items of a user of the fit, or of a new one; without ``items`` for the first ``top``.

    ``reasons`` are told of each item.
    """

    user: Id | None = None
    liked: LikedAsked | None = None
    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_EXPLAINED)] | None = None
    top: Annotated[StrictInt, Field(ge=1, le=MOST_EXPLAINED), UNPOINTED] = 10
    reasons: Annotated[StrictInt, Field(ge=1, le=100), UNPOINTED] = 3

    @model_validator(mode="after")
    def _one_user(self) -> WhyAsked:
        if (self.user is None) == (self.liked is None):
            raise ValueError("needs either a user or what one has liked")
        return self
