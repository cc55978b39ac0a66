"""Options from YAML files: those of ``--config``, the presets of the package, and what ``--print-config`` prints."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from inference import presets
from inference.commands.options import BY_FLAG_ALONE, Option, names_of, option_of, option_table
from inference.commands.values import typed
from inference.compatibility import AUTO, merged
from inference.config_file import read_entries, value_of
from models.catalogue import PLUGINS
from pyro_cvae.errors import InputError
from pyro_cvae.text import visible_lines


@dataclass(frozen=True)
class FromFile:
    """A value of a YAML file and where it stands."""

    value: Any
    path: str
    line: int | None


def read_config(path: str, options: Sequence[Option], passed_over: Collection[str]) -> dict[str, FromFile]:
    """The entries of a file by option; those named in ``passed_over`` are left out.

    Raises InputError, with the line, for an unknown key and for a value of the wrong type.
    """
    if not Path(path).exists():
        raise InputError("no such file", "check the path after --config", path=path)
    known = {option.name: option for option in options}
    entries: dict[str, FromFile] = {}
    for entry in read_entries(path):
        key = entry.key.replace("-", "_")
        if key not in known:
            if key in BY_FLAG_ALONE:
                remedy = f"give --{key} on the command line"
                raise InputError(f"a file cannot say whom you {key}", remedy, path=path, line=entry.line)
            if key in passed_over:
                continue
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            remedy = f"did you mean {near[0]}?" if near else "see --print-config for all keys"
            raise InputError(f"unknown key {entry.key[:80]}", remedy, path=path, line=entry.line)
        value = value_of(entry, path)
        entries[key] = FromFile(typed(known[key], value, path, entry.line), path, entry.line)
    return entries


def entries_of_preset(
    name: str, options: Sequence[Option], preset_classes: tuple[type, ...], passed_over: Collection[str] = ()
) -> dict[str, FromFile]:
    """The entries of a preset; those of options of ``preset_classes`` that the command has not are left out."""
    return read_config(str(presets.path(name)), options, {*passed_over, *names_of(preset_classes)})


def read_preset(
    name: str, option_classes: tuple[type, ...], preset_classes: tuple[type, ...], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of ``given`` on top of those of a preset, for use without a command line.

    Classes as in :func:`inference.commands.parse`. Raises InputError for an unknown name.
    """
    entries = entries_of_preset(name, list(option_table(option_classes).values()), preset_classes)
    values = {key: entry.value for key, entry in entries.items()}
    given, field = dict(given), "rating_likelihood"
    own = values.get(field, option_of(option_classes, field).default)
    values = presets.fitting(values, own, given.get(field, own))
    return on_top(values, given)


def on_top(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is ``given`` in place of values, whose arguments of a plug-in belong to the class that they name."""
    given = dict(given)
    for field in PLUGINS:
        arguments = f"{field}_args"
        if given.get(field, values.get(field)) != values.get(field):
            values.pop(arguments, None)
        elif values.get(field) == AUTO and arguments in given:
            given[arguments] = merged(values.get(arguments, {}), given[arguments])
    return values | given


def of_ratings(
    preset: dict[str, FromFile], read: Sequence[Mapping[str, FromFile]], asked: Sequence[str], default: Any
) -> dict[str, FromFile]:
    """The entries of a preset that hold for the rating likelihood that files and then flags choose.

    ``read`` are the entries of the files, ``asked`` the values of the flag, ``default`` the option's own.
    """
    named = [entries["rating_likelihood"].value for entries in (preset, *read) if "rating_likelihood" in entries]
    own = preset["rating_likelihood"].value if "rating_likelihood" in preset else default
    return presets.fitting(preset, own, [own, *named, *asked][-1])


def over(config: Mapping[str, FromFile], entries: dict[str, FromFile]) -> dict[str, FromFile]:
    """The entries of a file, with what an earlier file says of other kinds of content where both are of ``auto``."""
    for field in PLUGINS:
        key, named = f"{field}_args", entries.get(field, config.get(field))
        if key in entries and key in config and named is not None and named.value == AUTO:
            entries[key] = replace(entries[key], value=merged(config[key].value, entries[key].value))
    return entries


def with_place(error: InputError, config: Mapping[str, FromFile], given: set[str]) -> InputError:
    """The error of a dataclass's check, with the line of the YAML file that the value came from.

    ``given`` names the options whose value is that of ``config``.
    """
    match = re.match(r"--([a-z0-9-]+) is ", error.problem)
    name = match[1].replace("-", "_") if match else ""
    if error.path is not None or name not in given:
        return error
    return InputError(error.problem, error.remedy, path=config[name].path, line=config[name].line)


def print_config(command: str, options: Mapping[str, Option], values: Mapping[str, Any], skip: Sequence[str]) -> None:
    """Print all options but those in ``skip`` as a file for ``--config``."""
    plain = {
        name: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if name in options and name not in (*skip, *BY_FLAG_ALONE)
    }
    print(f"# {command} --config FILE")
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    printable = text == visible_lines(text)
    print(text if printable else yaml.safe_dump(plain, sort_keys=False, allow_unicode=False), end="")
