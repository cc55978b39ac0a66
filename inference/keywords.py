"""The keywords of :func:`inference.fit`: every flag of the command line, with underscores, in Python's own types."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from inference.commands import option_of, read_preset, typed
from inference.options import METHODS, Options
from models.contents.making import described
from models.making import path_of
from models.ratings import NAMES as RATING_NAMES
from models.ratings import RatingLikelihood


def options_of(method: str, preset: str | None, given: Mapping[str, Any]) -> Options:
    """The options of a method ("svi", "coordinate", "mcmc") from keywords, on top of those of a preset.

    A likelihood, of content or ratings, may be a class or an instance, of which class and constructor's arguments
    count; a list may stand for a tuple, a path for its text, a number of numpy for Python's. Raises InputError for an
    unknown keyword, a value of another type, and whatever the options refuse.
    """
    classes, values = Options.classes(method), dict(given)
    content, rating = values.get("content_likelihood"), values.get("rating_likelihood")
    if content is not None and not isinstance(content, str):
        name, arguments = described(content)
        values |= {"content_likelihood": name, "content_likelihood_args": arguments}
    if rating is not None and not isinstance(rating, str):
        cls = rating if isinstance(rating, type) else type(rating)
        arguments = {} if isinstance(rating, type) else dict(rating.made_with)
        name = path_of(RATING_NAMES, cls, RatingLikelihood, "rating likelihood")
        values |= {"rating_likelihood": name, "rating_likelihood_args": arguments}
    for name, value in values.items():
        if not name.endswith("_args"):
            values[name] = typed(option_of(classes, name), _plain(value))
    if preset is not None:
        values = read_preset(preset, classes, tuple(METHODS.values()), values)
    return Options.of(method, **values)


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
