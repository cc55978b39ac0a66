"""What answers say. What a fit has no value of is left out: a ``map`` fit has no spread, some items no title."""

from __future__ import annotations

from pydantic import BaseModel, Field

Told = int | str
"""An id, in the type of the data's own."""


class Listed(BaseModel):
    """An item of a list; ``sd`` is the posterior standard deviation of the score, ``low`` and ``high`` an interval."""

    rank: int
    item: Told
    title: str | None = None
    score: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p_top: float | None = Field(None, description="the probability to be among the user's best top_probability")
    rating: float | None = Field(None, description="of explicit ratings: the mean of a new one")
    rating_sd: float | None = None
    group: str


class Recommended(BaseModel):
    """A user's list; ``origin`` says where it is from: fit, folded in, or average."""

    user: Told | None = None
    origin: str
    items: list[Listed]


class Similar(BaseModel):
    """Items like one, by the cosine of their vectors."""

    item: Told
    items: list[Listed]


class Neighbour(BaseModel):
    """A user who is like another, by the cosine of their vectors; ``pairs`` are the user's training pairs."""

    rank: int
    user: Told
    score: float
    pairs: int


class SimilarUsers(BaseModel):
    """Users like one."""

    user: Told
    users: list[Neighbour]


class Score(BaseModel):
    """A user's score of a new item."""

    user: Told
    score: float
    sd: float | None = None
    origin: str


class NewItem(BaseModel):
    """What a text says: how many of its words the fit knows, the items nearest to it, and users' scores."""

    words: int
    similar: list[Listed]
    scores: list[Score]


class Reason(BaseModel):
    """An item that the user has chosen, and its share of a score; ``percent`` is of the size of the score."""

    because: Told
    title: str | None = None
    share: float
    percent: float | None = None
    content: float | None = None
    mixed: float | None = None
    ratings: float | None = None
    words: str | None = None


class Explained(BaseModel):
    """An item's score as the sum of its parts, and the largest shares in ``chosen``; see docs/why.md."""

    item: Told
    title: str | None = None
    score: float
    chosen: float
    unchosen: float
    prior: float
    user_bias: float
    item_bias: float
    rest: float
    reasons: list[Reason]


class Why(BaseModel):
    """Reasons for items of a user."""

    user: Told | None = None
    items: list[Explained]


class Health(BaseModel):
    """What is served."""

    status: str
    data: str
    posterior: str
    uncertain: bool = Field(description="whether there are intervals and probabilities")
    explicit: bool = Field(description="whether it is of explicit ratings")
    users: int
    items: int
    loaded: int = Field(description="how many times a run was opened")


class Problem(BaseModel):
    """What is wrong, in one line."""

    error: str
