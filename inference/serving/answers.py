"""What each request is answered, by :mod:`inference.recommending` alone: what is here only checks and words it.

Every function takes a fit and a request, and changes neither: users folded in and items added are in a copy that is
gone with the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from inference.fitting import Fit
from inference.recommending.items import add_items
from inference.recommending.lists import recommend, similar_items
from inference.recommending.neighbours import similar_users
from inference.recommending.reasons import why
from inference.recommending.updated import unused_id
from inference.recommending.users import fold_in, without_users
from inference.serving import asked, told
from pyro_cvae.errors import InputError


class NotThereError(InputError):
    """An id that the fit does not know."""


def recommended(fit: Fit, request: asked.RecommendAsked) -> told.Recommended:
    """The list of a user of the fit.

    Raises NotThereError for unknown ids, InputError for what a point estimate cannot answer.
    """
    user = _known_user(fit, request.user)
    return _recommended(fit, user, request, shown=user)


def folded_in(fit: Fit, request: asked.FoldInAsked) -> told.Recommended:
    """The list of a new user, from all that they have chosen; raises as :func:`recommended`."""
    fit, user = _with_user(fit, request)
    return _recommended(fit, user, request, shown=None)


def similar(fit: Fit, request: asked.SimilarAsked) -> told.Similar:
    """Items like one of the fit; NotThereError for unknown ids."""
    check_items(fit, [request.item, *request.exclude])
    table = similar_items(fit, [request.item], request.top, exclude=request.exclude)
    (row,) = fit.dataset.item_rows([request.item])
    return told.Similar(item=_plain(fit.dataset.item_ids[row]), items=_listed(table))


def like_user(fit: Fit, request: asked.SimilarUsersAsked) -> told.SimilarUsers:
    """Users like one of the fit; NotThereError for unknown ids, InputError for a user without a training pair."""
    user = _known_user(fit, request.user)
    table = similar_users(fit, [user], request.top, exclude=[_known_user(fit, one) for one in request.exclude])
    users = [told.Neighbour(**_fields(row, told.Neighbour)) for row in table.to_dict("records")]
    return told.SimilarUsers(user=user, users=users)


def new_item(fit: Fit, request: asked.NewItemAsked) -> told.NewItem:
    """What a text says: the nearest items, and users' scores.

    Raises NotThereError for unknown users, InputError where the fit does not read texts.
    """
    users = list(dict.fromkeys(_known_user(fit, one) for one in request.users))
    titles = None if request.title is None else [request.title]
    item = unused_id(fit.dataset.item_ids, "new item")
    more = add_items(fit, [item], [request.text], titles=titles)
    table = similar_items(more, [item], request.top)
    scores = recommend(more, users, 1, candidates=[item]).to_dict("records") if users else []
    return told.NewItem(
        words=int(more.dataset.content.counts[-1].sum()),
        similar=_listed(table),
        scores=[told.Score(**_fields(row, told.Score)) for row in scores],
    )


def explained(fit: Fit, request: asked.WhyAsked) -> told.Why:
    """Reasons for items of a user.

    Raises NotThereError for unknown ids, InputError for users without a training pair and where there are no reasons.
    """
    if request.liked is None:
        assert request.user is not None
        user = shown = _known_user(fit, request.user)
    else:
        (fit, user), shown = _with_user(fit, request.liked), None
    if request.items is None:
        items = recommend(fit, [user], request.top)["item"].tolist()
    else:
        check_items(fit, request.items)
        items = list(dict.fromkeys(request.items))
    found = why(fit, user, items, request.reasons)
    return told.Why(user=shown, items=_explained(fit, found.scores, found.reasons))


def health(fit: Fit, loaded: int) -> told.Health:
    """What is served."""
    dataset = fit.dataset
    return told.Health(
        status="ok",
        data=dataset.name,
        posterior=fit.posterior.kind,
        uncertain=not fit.posterior.is_point,
        explicit=fit.model.ratings.explicit,
        users=dataset.n_users,
        items=dataset.n_items,
        loaded=loaded,
    )


def check_items(fit: Fit, ids: Iterable[Any]) -> None:
    """NotThereError for the first item that the fit does not know."""
    try:
        fit.dataset.item_rows(ids)
    except InputError as error:
        raise NotThereError(error.problem, error.remedy) from None


def _known_user(fit: Fit, user: Any) -> Any:
    """A user's id in the type of the fit's; NotThereError where there is none."""
    try:
        (row,) = fit.dataset.user_rows([user])
    except InputError as error:
        raise NotThereError(error.problem, error.remedy) from None
    return _plain(fit.dataset.user_ids[row])


def _with_user(fit: Fit, liked: asked.LikedAsked) -> tuple[Fit, Any]:
    """The fit with a new user and nobody else, and the id that this one has for a moment."""
    check_items(fit, liked.items)
    explicit = fit.model.ratings.explicit
    if explicit and liked.ratings is None:
        raise InputError("the run is of explicit ratings, and these items have none", "give ratings, one an item")
    if not explicit and liked.ratings is not None:
        raise InputError("the run is of choices, which have no ratings", "leave ratings out")
    user = unused_id(fit.dataset.user_ids, "new user")
    return fold_in(without_users(fit), [user] * len(liked.items), liked.items, ratings=liked.ratings), user


def _recommended(fit: Fit, user: Any, request: asked.ListAsked, shown: Any) -> told.Recommended:
    """A list as :func:`inference.recommending.recommend` makes it."""
    check_items(fit, [*(request.candidates or ()), *request.exclude])
    table = recommend(
        fit,
        [user],
        request.top,
        candidates=request.candidates,
        exclude=request.exclude,
        interval=request.interval,
        top_probability=request.top_probability,
    )
    if request.top_probability is not None:
        table = table.rename(columns={f"p_top_{request.top_probability}": "p_top"})
    origin = table["origin"].iloc[0] if len(table) else "fit"
    return told.Recommended(user=shown, origin=origin, items=_listed(table))


def _listed(table: pd.DataFrame) -> list[told.Listed]:
    """The rows of a list."""
    return [told.Listed(**_fields(row, told.Listed)) for row in table.to_dict("records")]


def _explained(fit: Fit, scores: pd.DataFrame, reasons: pd.DataFrame) -> list[told.Explained]:
    """Each item with its parts and its reasons, in the order asked for."""
    of_item = {item: part.to_dict("records") for item, part in reasons.groupby("item", sort=False)}
    titles, rows = fit.dataset.titles, fit.dataset.item_rows(scores["item"])
    answers = []
    for row, score in zip(rows, scores.to_dict("records"), strict=True):
        own = [told.Reason(**_fields(one, told.Reason)) for one in of_item.get(score["item"], [])]
        title = None if titles is None else titles[row]
        answers.append(told.Explained(**_fields(score, told.Explained) | {"title": title, "reasons": own}))
    return answers


def _fields(row: dict[Any, Any], answer: type[BaseModel]) -> dict[str, Any]:
    """The fields of an answer that a row of a table has; what is missing there is ``None``."""
    return {name: _plain(row[name]) for name in answer.model_fields if name in row}


def _plain(value: Any) -> Any:
    """A value as Python's own; no number is ``None``, and so is an infinite one, which JSON has not."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
