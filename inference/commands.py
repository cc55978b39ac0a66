"""Command lines made from the option dataclasses: flags, YAML files, plug-ins. The only place that knows jsonargparse.

A field is one flag (``train_per_user`` is ``--train-per-user``), one key of a YAML file (``--config FILE``) and one
entry of ``--help``, taken from the class's docstring. Flags win over the file, the file over a preset of the package
(``--preset NAME``), that over the defaults. Nothing heavy is imported, so that ``--help`` and a wrong option answer at
once; torch is, only when a class path is named.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from inference import presets
from inference.bounds import check_bounds
from inference.compatibility import AUTO, PRODUCT, by_kind, merged
from pyro_cvae.errors import InputError, shown
from pyro_cvae.text import visible, visible_lines
from pyro_cvae.trust import import_named

PLUGINS = {
    "content_likelihood": "models.contents:ContentLikelihood",
    "rating_likelihood": "models.ratings:RatingLikelihood",
}
"""Fields that take a name of the package's own or a class path, and the base class that such a class must have.

The arguments of its constructor are flags with a dot (``--content-likelihood.rate 3``) and arrive in the field of the
same name with ``_args`` (a dict), which is also their key in a YAML file.
"""


BY_FLAG_ALONE = ("trust",)
"""Fields that no file can set: whose code may run is for the person at the keyboard to say."""


@dataclass(frozen=True)
class _Option:
    """One field of one option class, as the command line sees it."""

    name: str
    hint: Any
    default: Any
    help: str
    owner: type

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def is_number(self) -> bool:
        """True if its values are numbers; ``None`` may be one more."""
        return _alternatives(self.hint) in ((int,), (float,))

    @property
    def element(self) -> Any:
        """The type of the elements of a tuple field (or ``tuple[...] | None``), otherwise ``None``."""
        return next((get_args(kind)[0] for kind in _alternatives(self.hint) if get_origin(kind) is tuple), None)


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
    options = _options(option_classes)
    if "--version" in tokens:
        print(f"pyro-cvae {version()}")
        raise SystemExit(0)
    tokens, config_paths = _take(tokens, "--config", command)
    tokens, preset_names = _take(tokens, "--preset", command) if preset_classes else (tokens, [])
    tokens, plugin_arguments = _take_plugin_arguments(tokens, options, command)
    print_config = "--print-config" in tokens
    tokens = [token for token in tokens if token != "--print-config"]

    preset: dict[str, _FromFile] = {}
    readable = [option for name, option in options.items() if name not in (*positionals, *passed_over, *BY_FLAG_ALONE)]
    for name in preset_names:
        preset |= _read_config(str(presets.path(name)), readable, {*passed_over, *_names(preset_classes)})
    read = [_read_config(path, readable, passed_over) for path in config_paths]
    config = _of_ratings(preset, read, tokens, options, command)
    for entries in read:
        config |= _over(config, entries)
    parser = _build_parser(command, description, options, config, positionals, examples, bool(preset_classes))
    values = _parse_tokens(parser, tokens, command, options, positionals)
    given = {name for name, entry in config.items() if values.get(name) == entry.value}

    for name in PLUGINS:
        if name in options and f"{name}_args" in options:
            arguments = _plugin_arguments(name, values, plugin_arguments.get(name, {}), config)
            values[f"{name}_args"] = arguments

    instances = []
    for cls in option_classes:
        try:
            instance = cls(**{name: values[name] for name, option in options.items() if option.owner is cls})
            check_bounds(instance)
            instances.append(instance)
        except InputError as error:
            raise _with_place(error, config, given) from None
    if print_config:
        _print_config(command, options, values, positionals)
        raise SystemExit(0)
    return tuple(instances)


def read_preset(
    name: str, option_classes: tuple[type, ...], preset_classes: tuple[type, ...], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of ``given`` on top of those of a preset, for use without a command line.

    Classes as in :func:`parse`. Raises InputError for an unknown name.
    """
    options = list(_options(option_classes).values())
    entries = _read_config(str(presets.path(name)), options, _names(preset_classes))
    values = {key: entry.value for key, entry in entries.items()}
    given, field = dict(given), "rating_likelihood"
    own = values.get(field, option_of(option_classes, field).default)
    values = presets.fitting(values, own, given.get(field, own))
    for field in PLUGINS:  # the arguments belong to the class that the preset names
        arguments = f"{field}_args"
        if given.get(field, values.get(field)) != values.get(field):
            values.pop(arguments, None)
        elif values.get(field) == AUTO and arguments in given:
            given[arguments] = merged(values.get(arguments, {}), given[arguments])
    return values | given


def read_value(option_classes: tuple[type, ...], name: str, text: str) -> Any:
    """The value of an option from the text that stands after its flag; InputError for a wrong name or type."""
    option = option_of(option_classes, name)
    words: Any = text.split() if option.element is not None else text
    return typed(option, words, None, None)


def option_of(option_classes: tuple[type, ...], name: str) -> _Option:
    """The option called ``name``: its type is ``hint``, its flag ``flag``; InputError with the nearest for another."""
    options = _options(option_classes)
    if name not in options:
        near = difflib.get_close_matches(name, options, 1)
        raise InputError(f"unknown option {name!r}", f"did you mean {near[0]!r}?" if near else "see --help")
    return options[name]


def load_class(field: str, class_path: str) -> type:
    """The class that ``my_module.MyLikelihood`` (or ``my_module:MyLikelihood``) names, for a field of PLUGINS.

    Raises InputError where it cannot be imported or is no subclass of the field's base class.
    """
    flag = "--" + field.replace("_", "-")
    module_name, _, class_name = class_path.replace(":", ".").rpartition(".")
    try:
        found = import_named(class_path)
    except InputError as error:
        raise InputError(f"{flag}: {error.problem}", error.remedy, path=error.path) from None
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            raise InputError(
                f"{flag} names the module {module_name}, which cannot be found",
                "call the command from the folder that holds it, or install it",
            ) from None
        raise InputError(f"{flag}: importing {module_name} failed: {error}", f"install {missing}") from None
    except AttributeError:
        raise InputError(f"{flag}: the module {module_name} has no class {class_name}", "check its spelling") from None
    except Exception as error:
        raise InputError(
            f"{flag}: importing {module_name} failed: {type(error).__name__}: {error}", "mend that module"
        ) from error
    base_module, _, base_name = PLUGINS[field].partition(":")
    base = getattr(importlib.import_module(base_module), base_name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            f"{flag} is {class_path}, which is no {base_name}", f"derive it from {base_module}.{base_name}"
        )
    return found


# --- options and their help ------------------------------------------------------------------------------------------


def _options(option_classes: Iterable[type]) -> dict[str, _Option]:
    import docstring_parser

    options: dict[str, _Option] = {}
    for cls in option_classes:
        style = docstring_parser.DocstringStyle.GOOGLE
        texts = {p.arg_name: p.description for p in docstring_parser.parse(cls.__doc__ or "", style=style).params}
        hints = get_type_hints(cls)
        for field in fields(cls):
            if field.name in options:
                raise TypeError(f"{cls.__name__}.{field.name} is an option of {options[field.name].owner.__name__} too")
            text = " ".join((texts.get(field.name) or "").replace("`", "").split())
            options[field.name] = _Option(field.name, hints[field.name], _default(field), text, cls)
    return options


def _names(option_classes: Iterable[type]) -> set[str]:
    return {field.name for cls in option_classes for field in fields(cls)}


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a field may have, ``None`` left out."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(kind for kind in get_args(hint) if kind is not NoneType)
    return (hint,)


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _build_parser(
    command: str,
    description: str,
    options: Mapping[str, _Option],
    config: Mapping[str, _FromFile],
    positionals: Sequence[str],
    examples: Sequence[tuple[str, str]],
    has_presets: bool,
) -> Any:
    from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter):
        """Help lines as they were written: types and defaults are already in them."""

        def _get_help_string(self, action: argparse.Action) -> str:
            return action.help or ""

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return "\n".join(indent + line for line in text.splitlines())

    parser = ArgumentParser(
        prog=command,
        usage=" ".join([command, *(_metavar(options[name]) for name in positionals), "[OPTION ...]"]),
        description=description,
        epilog="\n".join(["examples:", *(f"  {line}\n      {what}" for line, what in examples)]) if examples else None,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=Formatter,
    )
    parser._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")  # argparse's own misses -1e-3
    groups: dict[type, Any] = {}
    for name in [*positionals, *(name for name in options if name not in positionals)]:
        option = options[name]
        if name.removesuffix("_args") in PLUGINS and name.endswith("_args"):
            continue
        default = config[name].value if name in config else option.default
        text = _help(option, default)
        if name in positionals:
            one = None if option.required else "?"
            many = "+" if option.required else "*"
            place: dict[str, Any] = {"nargs": one if option.element is None else many, "metavar": _metavar(option)}
            parser.add_argument(name, type=option.element or option.hint, help=text, **place)
            continue
        if option.owner not in groups:
            title = option.owner.__name__.removesuffix("Options").lower() + " options"
            groups[option.owner] = parser.add_argument_group(title, (option.owner.__doc__ or "").strip().split("\n")[0])
        group = groups[option.owner]
        if option.hint is bool:
            group.add_argument(option.flag, action=ActionYesNo(no_prefix="no-"), default=default, help=text)
            continue
        shape: dict[str, Any] = {"required": True} if default is MISSING else {"default": default}
        if option.element is not None:
            shape |= {"nargs": "*"} | ({"default": list(default)} if isinstance(default, tuple) else {})
        group.add_argument(
            option.flag, type=option.element or option.hint, metavar=_metavar(option), help=text, **shape
        )
    more = parser.add_argument_group("of every command")
    more.add_argument("--config", metavar="FILE", help="A YAML file, one 'option: value' a line; flags win over it.")
    if has_presets:
        known = "; ".join(f"{name}: {what}" for name, what in presets.names().items())
        more.add_argument("--preset", metavar="NAME", help=f"Settings of the package; --config wins over them. {known}")
    more.add_argument("--print-config", action="store_true", help="Print all options as such a file and stop.")
    more.add_argument("--version", action="store_true", help="Print the version and stop.")
    return parser


def _help(option: _Option, default: Any) -> str:
    text = option.help
    if option.name in PLUGINS:
        text += f" {option.flag}.ARG VALUE gives its constructor an argument."
    return text if default in (MISSING, None, (), "") else f"{text} (default: {visible(_plain(default))})"


def _metavar(option: _Option) -> str:
    kind = option.element or option.hint
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices:
        return "{" + ",".join(map(str, choices)) + "}"
    last = option.name.rsplit("_", 1)[-1].upper()
    if option.element is not None:
        return last.removesuffix("S")
    return {int: "N", float: "X"}.get(_alternatives(kind)[0], last)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _must(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if len(kinds := _alternatives(hint)) > 1 or kinds[0] is not hint:
        return " or ".join(_must(kind) for kind in kinds)
    if origin is tuple:
        return "a list, each " + _must(get_args(hint)[0])
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "a mapping"}
    return words.get(origin or hint, f"a {getattr(hint, '__name__', hint)}")


# --- reading the command line ----------------------------------------------------------------------------------------


def _take(tokens: list[str], flag: str, command: str) -> tuple[list[str], list[str]]:
    """The tokens without ``flag VALUE`` and ``flag=VALUE``, and the values."""
    left, values, rest = [], [], iter(tokens)
    for token in rest:
        if token == flag:
            value = next(rest, None)
            if value is None:
                raise InputError(f"{flag} needs a value", f"{command} --help shows it")
            values.append(value)
        elif token.startswith(flag + "="):
            values.append(token.removeprefix(flag + "="))
        else:
            left.append(token)
    return left, values


def _take_plugin_arguments(
    tokens: list[str], options: Mapping[str, _Option], command: str
) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The tokens without ``--content-likelihood.rate 3`` and the like, and these as {field: {argument: text}}."""
    taken: dict[str, dict[str, str]] = {}
    for name in PLUGINS:
        if name not in options:
            continue
        start = options[name].flag + "."
        for flag in dict.fromkeys(token.partition("=")[0] for token in tokens if token.startswith(start)):
            tokens, values = _take(tokens, flag, command)
            taken.setdefault(name, {})[flag.removeprefix(start).replace("-", "_")] = values[-1]
    return tokens, taken


def _parse_tokens(
    parser: Any, tokens: list[str], command: str, options: Mapping[str, _Option], positionals: Sequence[str]
) -> dict[str, Any]:
    # argparse complains of missing places before unknown options; the user's own words come first
    flags = [name for action in parser._actions for name in action.option_strings]
    for token in tokens:
        if token == "--":
            break
        if re.match(r"--?[A-Za-z]", token) and token.partition("=")[0] not in flags:
            raise _unknown(token.partition("=")[0], flags, command)
    try:
        namespace = parser.parse_args(tokens)
    except argparse.ArgumentError as error:
        raise _explained(str(error), command, options, positionals) from None
    values = {}
    for name, option in options.items():
        value = namespace.get(name)  # not an attribute: a field may be called `items`
        if name in positionals and not option.required and value in (None, []):
            value = option.default
        values[name] = tuple(value) if option.element is not None and isinstance(value, list) else value
    return values


def _unknown(flag: str, flags: Sequence[str], command: str) -> InputError:
    longer = [known for known in flags if known.startswith(flag)]
    names = {known.lstrip("-"): known for known in flags if known.startswith("--")}
    near = [names[name] for name in difflib.get_close_matches(flag.lstrip("-"), names, n=1, cutoff=0.4)]
    best = next(iter(longer + near), None)
    return InputError(
        f"unknown option {flag}", f"did you mean {best}?" if best else f"{command} --help lists all options"
    )


def _explained(message: str, command: str, options: Mapping[str, _Option], positionals: Sequence[str]) -> InputError:
    """One line for what jsonargparse says in several."""
    remedy = f"{command} --help shows it"
    if found := re.match(r"unrecognized arguments: (.*)", message, re.S):
        return InputError(f"{found[1].split()[0]!r} is not expected here", f"{command} --help lists all options")
    if found := re.match(r"the following arguments are required: (.*)", message):
        names = [name.strip() for name in found[1].split(",")]
        missing = ", ".join(_metavar(options[name]) if name in positionals else "--" + name for name in names)
        first = any(name in positionals for name in names)
        return InputError(f"{missing} is missing", f"give it first, before any option; {remedy}" if first else remedy)
    if found := re.match(r"argument ([^:]*): expected .*argument", message):
        return InputError(f"{found[1].split('/')[0]} needs a value", remedy)
    if found := re.search(r'[Pp]arser key "(\w+)"', message):
        option = options[found[1]]
        given = re.findall(r"(?:Got|Given) value: (.*)", message)
        name = _metavar(option) if option.name in positionals else option.flag
        value = repr(given[-1].strip()) if given else "wrong"
        return InputError(f"{name} is {value}, but it must be {_must(option.element or option.hint)}")
    return InputError(" ".join(message.split()), remedy)


# --- the YAML file ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FromFile:
    """A value of a YAML file and where it stands."""

    value: Any
    path: str
    line: int


def _read_config(path: str, options: Sequence[_Option], passed_over: Collection[str]) -> dict[str, _FromFile]:
    from inference.config_file import read_entries, value_of

    if not Path(path).exists():
        raise InputError("no such file", "check the path after --config", path=path)
    known = {option.name: option for option in options}
    entries: dict[str, _FromFile] = {}
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
        entries[key] = _FromFile(typed(known[key], value, path, entry.line), path, entry.line)
    return entries


def typed(option: _Option, value: Any, path: str | None = None, line: int | None = None) -> Any:
    """A value of a file, a flag or a keyword in the field's type, by jsonargparse's rules (``1e-3`` is a number).

    Raises InputError, with the place, for a value of another type.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=option.hint)
    try:
        parsed = parser.parse_object({"value": value}).value
        parts = parsed if isinstance(parsed, list | tuple) else [parsed]
        if None in parts and NoneType not in get_args(option.hint):  # jsonargparse takes null for anything
            raise ValueError("null")
        return parsed
    except (argparse.ArgumentError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        must = _must(option.hint)
        quote = " in quotes" if must == "a text" and not isinstance(value, list | dict | NoneType) else ""
        raise InputError(
            f"{option.name} is {shown(value)}, but it must be {must}{quote}", path=path, line=line
        ) from None


def _with_place(error: InputError, config: Mapping[str, _FromFile], given: set[str]) -> InputError:
    """The error of a dataclass's check, with the line of the YAML file that the value came from."""
    found = re.match(r"--([a-z0-9-]+) is ", error.problem)
    name = found[1].replace("-", "_") if found else ""
    if error.path is not None or name not in given:
        return error
    return InputError(error.problem, error.remedy, path=config[name].path, line=config[name].line)


def _print_config(command: str, options: Mapping[str, _Option], values: Mapping[str, Any], skip: Sequence[str]) -> None:
    import yaml

    plain = {
        name: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if name in options and name not in (*skip, *BY_FLAG_ALONE)
    }
    print(f"# {command} --config FILE")
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    shown = text == visible_lines(text)
    print(text if shown else yaml.safe_dump(plain, sort_keys=False, allow_unicode=False), end="")


# --- plug-ins --------------------------------------------------------------------------------------------------------


def _of_ratings(
    preset: dict[str, _FromFile],
    read: Sequence[Mapping[str, _FromFile]],
    tokens: list[str],
    options: Mapping[str, _Option],
    command: str,
) -> dict[str, _FromFile]:
    """The entries of a preset that hold for the rating likelihood that flags and files choose."""
    if "rating_likelihood" not in options:
        return preset
    named = [entries["rating_likelihood"].value for entries in (preset, *read) if "rating_likelihood" in entries]
    own = preset["rating_likelihood"].value if "rating_likelihood" in preset else options["rating_likelihood"].default
    asked = _take(tokens, "--rating-likelihood", command)[1]
    return presets.fitting(preset, own, [own, *named, *asked][-1])


def _over(config: Mapping[str, _FromFile], entries: dict[str, _FromFile]) -> dict[str, _FromFile]:
    """The entries of a file, with what an earlier file says of other kinds of content where both are of ``auto``."""
    for field in PLUGINS:
        key, named = f"{field}_args", entries.get(field, config.get(field))
        if key in entries and key in config and named is not None and named.value == AUTO:
            entries[key] = replace(entries[key], value=merged(config[key].value, entries[key].value))
    return entries


def _plugin_arguments(
    field: str, values: Mapping[str, Any], texts: Mapping[str, str], config: Mapping[str, _FromFile]
) -> dict[str, Any]:
    """The checked arguments of the class that ``field`` names, from the YAML file and then the flags."""
    chosen, flag = values[field], "--" + field.replace("_", "-")
    arguments: dict[str, Any] = {}
    from_file = config.get(f"{field}_args")
    if from_file is not None and (field not in config or config[field].value == chosen):
        arguments |= from_file.value
    arguments = merged(arguments, texts) if chosen == AUTO else arguments | dict(texts)
    is_path = isinstance(chosen, str) and ("." in chosen or ":" in chosen)
    if not arguments and not is_path:
        return {}
    if chosen == PRODUCT:
        return _part_arguments(field, arguments)
    if chosen == AUTO:
        checked = _part_arguments(field, by_kind(arguments))
        return {key: checked[key] for key in arguments}
    module = PLUGINS[field].partition(":")[0]
    if is_path:
        cls = load_class(field, chosen)
    else:
        cls = _own_class(field, module, chosen)

    return _class_arguments(cls, flag, arguments)


def _part_arguments(field: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a product, each a name or class path, and ``part.argument``, checked by that part's class."""
    flag = "--" + field.replace("_", "-")
    found = {name: value for name, value in arguments.items() if "." not in name}
    for part in dict.fromkeys(name.partition(".")[0] for name in arguments if "." in name):
        if part not in found:
            raise InputError(f"{flag}.{part} has arguments but no likelihood", f"give {flag}.{part} a name too")
        own = {key.partition(".")[2]: value for key, value in arguments.items() if key.startswith(part + ".")}
        chosen = found[part]
        is_path = "." in chosen or ":" in chosen
        cls = load_class(field, chosen) if is_path else _own_class(field, PLUGINS[field].partition(":")[0], chosen)
        found |= {f"{part}.{key}": value for key, value in _class_arguments(cls, f"{flag}.{part}", own).items()}
    return found


def _class_arguments(cls: type, flag: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the types that the constructor of ``cls`` names."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, as_group=False, fail_untyped=False)
    takes = [action.dest for action in parser._actions if action.dest not in ("help", "print_shtab")]
    for name in arguments:
        if name not in takes:
            raise InputError(f"unknown option {flag}.{name}", f"{cls.__name__} takes {', '.join(takes) or 'none'}")
    try:
        parsed = parser.parse_object(dict(arguments))
    except argparse.ArgumentError as error:
        message = str(error)
        if found := re.match(r"the following arguments are required: (.*)", message):
            raise InputError(f"{cls.__name__} needs {found[1]}", f"give {flag}.{found[1].split(',')[0]}") from None
        found = re.search(r'[Pp]arser key "(\w+)"', message)
        name = found[1] if found else ""
        parameter = inspect.signature(cls, eval_str=True).parameters.get(name)
        must = f"be {_must(parameter.annotation)}" if parameter else f"suit {cls.__name__}"
        raise InputError(f"{flag}.{name} is {arguments.get(name)!r}, but it must {must}") from None
    return {name: getattr(parsed, name) for name in arguments}


def _own_class(field: str, module: str, name: str) -> type:
    """The package's own class of that name, from the table ``NAMES`` of its room."""
    names = importlib.import_module(module).NAMES
    if name not in names:
        flag = "--" + field.replace("_", "-")
        raise InputError(f"{flag} is {name!r}, which is no name of the package", "use one of " + ", ".join(names))
    path, _, attribute = names[name].partition(":")
    return getattr(importlib.import_module(path), attribute)


def version() -> str:
    """The package's version, for people to read."""
    from importlib import metadata

    try:
        return metadata.version("pyro-cvae")
    except metadata.PackageNotFoundError:
        return "(not installed)"
