"""The keywords of :func:`inference.fit`: every flag of the command line, with underscores, in Python's own types."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from inference.commands import ANEW, check_named, on_top, option_of, read_preset, stored_in, taken_over, typed
from inference.options import METHODS, Options
from models.catalogue import PLUGINS
from models.contents.making import described
from models.making import path_of


def options_of(method: str, preset: str | None, given: Mapping[str, Any], start: Options | None = None) -> Options:
    """The options of a method ("svi", "coordinate", "mcmc") from keywords, on top of those of a preset.

    With ``start_from``, a run folder, they are on top of that run's too, or of those of ``start``, a fit at hand
    (:mod:`inference.commands.starting`).

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
    if (run := values.get("start_from")) is not None:
        values = _going_on(method, preset, values, run, start)
    elif preset is not None:
        values = read_preset(preset, classes, tuple(METHODS.values()), values)
    return Options.of(method, **values)


def _going_on(
    method: str, preset: str | None, given: Mapping[str, Any], run: str, start: Options | None
) -> dict[str, Any]:
    """Keywords on top of the options of a run, these on top of a preset's but for those of a fit from nothing."""
    classes, base = Options.classes(method), dict[str, Any]()
    if preset is not None:
        read = read_preset(preset, classes, tuple(METHODS.values()), {})
        base = {name: value for name, value in read.items() if name not in ANEW.get(method, ())}
    base |= taken_over(stored_in(run) if start is None else start, method, given.get("mode"))
    if start is None:
        check_named(base, given.values(), run)
    return on_top(base, given)


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
