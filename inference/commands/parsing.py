"""A command line made into instances of option classes: flags over files, files over presets, these over defaults."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from typing import Any

from inference.bounds import check_bounds
from inference.commands.console import build_parser, parse_tokens, take, take_plugin_arguments
from inference.commands.files import (
    FromFile,
    entries_of_preset,
    of_ratings,
    over,
    print_config,
    read_config,
    with_place,
)
from inference.commands.options import BY_FLAG_ALONE, option_table
from inference.commands.plugins import plugin_arguments
from inference.commands.starting import going_on
from models.catalogue import PLUGINS
from pyro_cvae.errors import InputError


def parse(
    command: str,
    description: str,
    option_classes: tuple[type, ...],
    argv: Sequence[str] | None = None,
    *,
    positionals: Sequence[str] = (),
    examples: Sequence[tuple[str, str]] = (),
    preset_classes: tuple[type, ...] = (),
    passed_over: Collection[str] = (),
) -> tuple[Any, ...]:
    """Read a command line into one instance of each option class, in their order.

    Parameters: ``command`` is how it is called (``python -m inference.svi``), ``positionals`` name the fields that are
    given by place instead of by flag, ``examples`` are pairs (command, what it does) shown at the end of ``--help``.
    With ``preset_classes`` the command takes ``--preset``; the options of these classes may stand in a preset even
    where the command has them not. ``passed_over`` are keys that a file may hold and this command does not read.
    ``--help``, ``--version`` and ``--print-config`` print and exit with code 0. Raises InputError, one line.
    """
    tokens = list(sys.argv[1:] if argv is None else argv)
    options = option_table(option_classes)
    if "--version" in tokens:
        print(f"pyro-cvae {version()}")
        raise SystemExit(0)
    tokens, config_paths = take(tokens, "--config", command)
    tokens, preset_names = take(tokens, "--preset", command) if preset_classes else (tokens, [])
    tokens, plugin_texts = take_plugin_arguments(tokens, options, command)
    prints_config = "--print-config" in tokens
    tokens = [token for token in tokens if token != "--print-config"]

    preset: dict[str, FromFile] = {}
    readable = [option for name, option in options.items() if name not in (*positionals, *passed_over, *BY_FLAG_ALONE)]
    for name in preset_names:
        preset |= entries_of_preset(name, readable, preset_classes, passed_over)
    read = [read_config(path, readable, passed_over) for path in config_paths]
    config = preset
    if "rating_likelihood" in options:
        asked = take(tokens, "--rating-likelihood", command)[1]
        config = of_ratings(preset, read, asked, options["rating_likelihood"].default)
    if "start_from" in options:
        config, read = going_on(config, read, tokens, options, command)
    for entries in read:
        config |= over(config, entries)
    parser = build_parser(command, description, options, config, positionals, examples, bool(preset_classes))
    values = parse_tokens(parser, tokens, command, options, positionals)
    given = {name for name, entry in config.items() if values.get(name) == entry.value}

    for name in PLUGINS:
        if name in options and f"{name}_args" in options:
            values[f"{name}_args"] = plugin_arguments(name, values, plugin_texts.get(name, {}), config)
    instances = []
    for cls in option_classes:
        own = {name: values[name] for name, option in options.items() if option.owner is cls}
        instances.append(_checked(cls, own, config, given))
    if prints_config:
        print_config(command, options, values, positionals)
        raise SystemExit(0)
    return tuple(instances)


def _checked(cls: type, values: Mapping[str, Any], config: Mapping[str, FromFile], given: set[str]) -> Any:
    """An instance of an option class; an InputError of its checks names the file that the value came from."""
    try:
        instance = cls(**values)
        check_bounds(instance)
    except InputError as error:
        raise with_place(error, config, given) from None
    return instance


def version() -> str:
    """The package's version, for people to read."""
    try:
        return metadata.version("pyro-cvae")
    except metadata.PackageNotFoundError:
        return "(not installed)"
