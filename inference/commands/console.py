"""The words of a command line: the parser with its help, and one line for whatever is wrong with them."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any

from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

from inference import presets
from inference.commands.files import FromFile
from inference.commands.options import Option
from inference.commands.values import must_be
from models.catalogue import PLUGINS
from pyro_cvae.errors import InputError


class _Formatter(DefaultHelpFormatter):
    """Help lines as they were written: types and defaults are already in them."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help or ""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())


def build_parser(
    command: str,
    description: str,
    options: Mapping[str, Option],
    config: Mapping[str, FromFile],
    positionals: Sequence[str],
    examples: Sequence[tuple[str, str]],
    has_presets: bool,
) -> ArgumentParser:
    """The parser of a command, of its options in groups by class; defaults are those of ``config`` where it has one."""
    parser = ArgumentParser(
        prog=command,
        usage=" ".join([command, *(options[name].metavar for name in positionals), "[OPTION ...]"]),
        description=description,
        epilog="\n".join(["examples:", *(f"  {line}\n      {what}" for line, what in examples)]) if examples else None,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    parser._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")  # argparse's own misses -1e-3
    groups: dict[type, Any] = {}
    for name in [*positionals, *(name for name in options if name not in positionals)]:
        option = options[name]
        if name.removesuffix("_args") in PLUGINS and name.endswith("_args"):
            continue
        default = config[name].value if name in config else option.default
        if name in positionals:
            _add_place(parser, option, default)
            continue
        if option.owner not in groups:
            title = option.owner.__name__.removesuffix("Options").lower() + " options"
            groups[option.owner] = parser.add_argument_group(title, (option.owner.__doc__ or "").strip().split("\n")[0])
        _add_flag(groups[option.owner], option, default)
    _add_common(parser, has_presets)
    return parser


def _add_place(parser: ArgumentParser, option: Option, default: Any) -> None:
    """An option that is given by place instead of by flag."""
    one = None if option.required else "?"
    many = "+" if option.required else "*"
    shape: dict[str, Any] = {"nargs": one if option.element is None else many, "metavar": option.metavar}
    parser.add_argument(option.name, type=option.element or option.hint, help=option.help_line(default), **shape)


def _add_flag(group: Any, option: Option, default: Any) -> None:
    text = option.help_line(default)
    if option.hint is bool:
        group.add_argument(option.flag, action=ActionYesNo(no_prefix="no-"), default=default, help=text)
        return
    shape: dict[str, Any] = {"required": True} if default is MISSING else {"default": default}
    if option.element is not None:
        shape |= {"nargs": "*"} | ({"default": list(default)} if isinstance(default, tuple) else {})
    group.add_argument(option.flag, type=option.element or option.hint, metavar=option.metavar, help=text, **shape)


def _add_common(parser: ArgumentParser, has_presets: bool) -> None:
    """The flags that every command has; they are read before, and stand here for the help."""
    common = parser.add_argument_group("of every command")
    common.add_argument("--config", metavar="FILE", help="A YAML file, one 'option: value' a line; flags win over it.")
    if has_presets:
        known = "; ".join(f"{name}: {what}" for name, what in presets.names().items())
        help_line = f"Settings of the package; --config wins over them. {known}"
        common.add_argument("--preset", metavar="NAME", help=help_line)
    common.add_argument("--print-config", action="store_true", help="Print all options as such a file and stop.")
    common.add_argument("--version", action="store_true", help="Print the version and stop.")


def take(tokens: Iterable[str], flag: str, command: str) -> tuple[list[str], list[str]]:
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


def take_plugin_arguments(
    tokens: list[str], options: Mapping[str, Option], command: str
) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The tokens without ``--content-likelihood.rate 3`` and the like, and these as {field: {argument: text}}."""
    taken: dict[str, dict[str, str]] = {}
    for name in PLUGINS:
        if name not in options:
            continue
        start = options[name].flag + "."
        for flag in dict.fromkeys(token.partition("=")[0] for token in tokens if token.startswith(start)):
            tokens, values = take(tokens, flag, command)
            taken.setdefault(name, {})[flag.removeprefix(start).replace("-", "_")] = values[-1]
    return tokens, taken


def parse_tokens(
    parser: ArgumentParser, tokens: list[str], command: str, options: Mapping[str, Option], positionals: Sequence[str]
) -> dict[str, Any]:
    """The values of all options by name; InputError, one line, for words that are none."""
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


def _explained(message: str, command: str, options: Mapping[str, Option], positionals: Sequence[str]) -> InputError:
    """One line for what jsonargparse says in several."""
    remedy = f"{command} --help shows it"
    if extra := re.match(r"unrecognized arguments: (.*)", message, re.S):
        return InputError(f"{extra[1].split()[0]!r} is not expected here", f"{command} --help lists all options")
    if required := re.match(r"the following arguments are required: (.*)", message):
        names = [name.strip() for name in required[1].split(",")]
        missing = ", ".join(options[name].metavar if name in positionals else "--" + name for name in names)
        first = any(name in positionals for name in names)
        return InputError(f"{missing} is missing", f"give it first, before any option; {remedy}" if first else remedy)
    if bare := re.match(r"argument ([^:]*): expected .*argument", message):
        return InputError(f"{bare[1].split('/')[0]} needs a value", remedy)
    if wrong := re.search(r'[Pp]arser key "(\w+)"', message):
        option = options[wrong[1]]
        given = re.findall(r"(?:Got|Given) value: (.*)", message)
        name = option.metavar if option.name in positionals else option.flag
        value = repr(given[-1].strip()) if given else "wrong"
        return InputError(f"{name} is {value}, but it must be {must_be(option.element or option.hint)}")
    return InputError(" ".join(message.split()), remedy)
