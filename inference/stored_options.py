"""The options that a run folder's ``config.json`` holds, checked; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from inference.options import METHODS, Options
from pyro_cvae.checks import REMEDY, Positive, check_json
from pyro_cvae.errors import InputError, about_file

_CONFIG = {
    "command": str,
    "options": dict[str, Any],
    "scalings": dict[str, dict[str, Any]],
    "weight_unit": Positive | None,
    "product_radius": bool,
    "free_experts": bool,
    "buffers": bool,
    "started_from": str | None,
}


def options_in(config: Mapping[str, Any], path: Path) -> Options:
    """The options of the config that the file ``path`` holds.

    InputError where one is unknown, of another type, or cannot be.
    """
    check_json(config, _CONFIG, path, optional=_CONFIG.keys() - {"command", "options"})
    method, stored = config["command"], config["options"]
    if method not in METHODS:
        raise InputError(f"command is {method!r}, which is none of {', '.join(METHODS)}", REMEDY, path=path)
    hints = {name: hint for part in Options.classes(method) for name, hint in get_type_hints(part).items()}
    check_json(stored, hints, path, optional=hints)
    with about_file(path):
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
        return Options.of(method, **values)
