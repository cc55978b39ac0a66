"""Options of a run that another fit goes on from (``--start-from RUN``): its own are the defaults.

Flags win over a file of ``--config``, that over the run, the run over a preset. What is left to the caller are places
on the disk and what the machine has. What is of a fit from nothing (:data:`ANEW`) is not taken from the run. A file or
preset that does not say ``start_from`` itself is of such fits too, and what it says of these is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from inference.commands.console import take
from inference.commands.files import FromFile
from inference.commands.options import Option
from inference.options import Options, RunOptions
from inference.stored_options import options_in
from models.catalogue import PLUGINS
from pyro_cvae.data.sources import parse_all
from pyro_cvae.errors import InputError
from pyro_cvae.listed import check_schema, read_json, read_manifest, verify
from pyro_cvae.runs.folders import folder_of
from pyro_cvae.trust import is_path

ANEW: dict[str, dict[str, Any]] = {
    "coordinate": {"pretrain_epochs": 0, "kl_warmup": None, "epochs": 0, "tune": 0},
    "svi": {"pretrain_epochs": 0, "kl_warmup": None, "learning_rate": 0.0, "tune": 0},
}
"""What a fit does to networks and settings that begin at nothing, and what of it is left where they do not."""
OWN = (
    *("data", "items", "train_file", "validation_file", "test_file", "device", "threads", "max_memory"),
    *(field.name for field in fields(RunOptions)),
)
"""Options that are the caller's own: places on the disk, and what the machine has."""
CLASSES = (*PLUGINS, *(f"{field}_args" for field in PLUGINS), "tokenizer")
"""Options that may name code of somebody's own."""
OF_BAYES = ("guide", "diagonal", "learn_precisions")
"""Options that go with ``--mode bayes`` alone."""
_AGAIN = "fit again or copy the folder again"


def stored_in(run: str | os.PathLike[str]) -> Options:
    """The options of a finished run folder, of which ``config.json`` alone is read; InputError where there is none."""
    folder = folder_of(run)
    files = read_manifest(folder, _AGAIN)
    path = folder / "config.json"
    if path.name not in files:
        raise InputError("is damaged: config.json is not in it", _AGAIN, path=folder / "manifest.json")
    verify(folder, {path.name: files[path.name]}, _AGAIN)
    config = read_json(path, _AGAIN)
    if not isinstance(config, dict):
        raise InputError("is damaged: no config", _AGAIN, path=path)
    check_schema(config, path, _AGAIN)
    return options_in(config, path)


def taken_over(stored: Options, method: str, mode: str | None = None) -> dict[str, Any]:
    """What a fit by ``method`` that goes on from one of these options takes of them, by name.

    ``mode`` is that which the caller gives, if any: points have no guide.
    """
    if method not in ANEW:
        able = " and ".join(f"inference.{name}" for name in ANEW)
        raise InputError(f"--start-from is not of inference.{method}", f"use one of {able}")
    known = {field.name for part in Options.classes(method) for field in fields(part)}
    values = {name: value for name, value in stored.to_dict().items() if name in known and name not in OWN}
    values["contents"] = tuple(
        text for text, one in zip(stored.data.contents, parse_all(stored.data.contents), strict=True) if not one.path
    )
    if mode == "map":
        values = {name: value for name, value in values.items() if name not in OF_BAYES}
    if method == "coordinate":
        values["parametrization"] = "centred"  # the same networks, and all that it knows
    if method == "svi" and not values["epochs"]:
        del values["epochs"]  # of a run whose u and v were fitted by sweeps
    return values | ANEW[method]


def check_named(values: Mapping[str, Any], named: Iterable[Any], run: str | os.PathLike[str]) -> None:
    """InputError where the run names a class or function of somebody's own that the caller does not name too.

    ``named`` are the caller's own words and values. A run folder may be a stranger's, see docs/security.md.
    """
    own = {_spelled(text) for text in _texts(named)}
    for name in CLASSES:
        for path in _texts([values.get(name)]):
            if is_path(path) and _spelled(path) not in own:
                flag = "--" + name.removesuffix("_args").replace("_", "-")
                remedy = f"if you trust it, name it yourself with {flag}"
                raise InputError(f"the run asks for {path}", remedy, path=run)


def paths_in(options: Options) -> tuple[str, ...]:
    """Paths of classes and functions that options name, which are the caller's own words by then."""
    values = options.to_dict()
    found = [text for name in CLASSES for text in _texts([values[name]]) if is_path(text)]
    return tuple(dict.fromkeys(_spelled(text) for text in found if all(_spelled(text).split("."))))


def going_on(
    config: dict[str, FromFile],
    read: Sequence[dict[str, FromFile]],
    tokens: list[str],
    options: Mapping[str, Option],
    command: str,
) -> tuple[dict[str, FromFile], list[dict[str, FromFile]]]:
    """The entries of a preset, with those of the run that tokens or files start from over them, and those of files.

    The same as given where no run is named.
    """
    asked = take(tokens, "--start-from", command)[1]
    runs = [*(one["start_from"].value for one in read if _starts(one)), *asked]
    if not runs:
        return config, list(read)
    method = _method_of(options)
    modes = [*(one["mode"].value for one in read if "mode" in one), *take(tokens, "--mode", command)[1]]
    values = taken_over(stored_in(runs[-1]), method, modes[-1] if modes else None)
    check_named(values, [*tokens, *(entry.value for one in read for entry in one.values())], runs[-1])
    place = os.path.join(runs[-1], "config.json")
    own = {name: FromFile(value, place, None) for name, value in values.items() if name in options}
    passed_over = ANEW[method]
    left = [one if _starts(one) else _without(one, passed_over | {"start_from": None}) for one in read]
    return _without(config, passed_over) | own, left


def _starts(entries: Mapping[str, FromFile]) -> bool:
    """Whether a file names a run to start from; one that ``--print-config`` has printed may name none."""
    return "start_from" in entries and entries["start_from"].value is not None


def _method_of(options: Mapping[str, Option]) -> str:
    return next(name for name in ("coordinate", "svi", "mcmc") if options.keys() >= names_of_method(name))


def names_of_method(method: str) -> set[str]:
    """Options of one algorithm alone."""
    return {field.name for field in fields(Options.classes(method)[-2])}


def _without(entries: Mapping[str, FromFile], names: Collection[str]) -> dict[str, FromFile]:
    return {name: entry for name, entry in entries.items() if name not in names}


def _spelled(path: str) -> str:
    return path.replace(":", ".")


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """All texts in values, lists and mappings of them; of ``--flag=VALUE`` the value too."""
    for value in values:
        if isinstance(value, str):
            yield value
            if value.startswith("--") and "=" in value:
                yield value.partition("=")[2]
        elif isinstance(value, Mapping):
            yield from _texts(value.values())
        elif isinstance(value, list | tuple):
            yield from _texts(value)
