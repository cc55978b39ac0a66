"""The keywords of :func:`inference.fit`: every flag of the command line, with underscores, in Python's own types."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from inference.commands import option_of, read_preset, typed
from inference.options import METHODS, Options
from models.catalogue import PLUGINS
from models.contents.making import described
from models.making import path_of


def options_of(method: str, preset: str | None, given: Mapping[str, Any]) -> Options:
    """The options of a method ("svi", "coordinate", "mcmc") from keywords, on top of those of a preset.

    A likelihood, of content or ratings, or a pair of networks may be a class or an instance, of which class and
    constructor's arguments count; a model may be a class. A list may stand for a tuple, a path for its text, a number
    of numpy for Python's. Raises InputError for an unknown keyword, a value of another type, and whatever the options
    refuse.
    """
    classes, values = Options.classes(method), dict(given)
    for field in PLUGINS:
        plugin = values.get(field)
        if plugin is None or isinstance(plugin, str):
            continue
        if field == "content_likelihood":
            values[field], values[f"{field}_args"] = described(plugin)
            continue
        values[field] = path_of(field, plugin if isinstance(plugin, type) else type(plugin))
        if not isinstance(plugin, type):
            values[f"{field}_args"] = dict(plugin.made_with)
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
