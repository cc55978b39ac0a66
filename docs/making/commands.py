"""A page for every command, made from the parser that answers its ``--help``."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

from docs.making.names import ROOT
from docs.making.reference import escaped
from inference.commands.console import build_parser
from inference.commands.options import option_table
from inference.options import METHODS

FIRST = ("inference.svi", "inference.coordinate", "inference.mcmc", "inference.recommend", "inference.evaluate")
"""The commands that come first; all others follow by their names, those of ``inference`` before ``analysis``."""
INDEX = "options/index.md"
FRAMES = {f"inference.{method}": "inference.fit_command" for method in METHODS}


@dataclass(frozen=True)
class Command:
    """A command: its module, what it does, examples as pairs (line, what it does), and its parser."""

    module: str
    description: str
    examples: Sequence[tuple[str, str]]
    parser: argparse.ArgumentParser

    @property
    def page(self) -> str:
        """Its page of the site."""
        return f"options/{self.module}.md"


class _Asked(BaseException):
    """What a command asks its command line for; raised in place of reading one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options


def commands() -> list[Command]:
    """All commands of the packages, those of ``inference`` first."""
    files = [path for package in ("inference", "analysis") for path in sorted((ROOT / package).glob("*.py"))]
    run = [path for path in files if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")]
    doors = [f"{path.parent.name}.{path.stem}" for path in run]
    return [command(door) for door in sorted(doors, key=lambda one: FIRST.index(one) if one in FIRST else len(FIRST))]


def command(module: str) -> Command:
    """The command ``python -m module``, run up to the point where it would read its command line."""

    def ask(*arguments: Any, **options: Any) -> None:
        raise _Asked(*arguments, **options)

    main = importlib.import_module(module).main
    with mock.patch(f"{FRAMES.get(module, module)}.parse", ask), mock.patch("sys.argv", [module]):
        try:
            main()
        except _Asked as asked:
            return _of(module, asked)
    raise RuntimeError(f"{module} asks for no options")


def _of(module: str, asked: _Asked) -> Command:
    name, description, classes = asked.arguments[:3]
    places, examples = asked.options.get("positionals", ()), asked.options.get("examples", ())
    presets = bool(asked.options.get("preset_classes"))
    parser = build_parser(name, description, option_table(classes), {}, places, examples, presets)
    return Command(module, description, examples, parser)


def pages(known: Sequence[Command]) -> dict[str, str]:
    """The text of every page by its place."""
    lines = ["# Options of the commands", ""]
    lines += [
        "These pages are made from what `--help` prints. [Commands](../commands.md) says what all have in common."
    ]
    lines += ["", "| command | what it does |", "| --- | --- |"]
    lines += [f"| [`{one.module}`]({one.module}.md) | {escaped(one.description)} |" for one in known]
    return {INDEX: "\n".join([*lines, ""])} | {one.page: page(one) for one in known}


def navigation(known: Sequence[Command]) -> list[dict[str, str]]:
    """What the menu shows."""
    return [{"Overview": INDEX}, *({one.module: one.page} for one in known)]


def page(one: Command) -> str:
    """The page of a command: its description, its options by group, its examples."""
    lines = ["---", f"title: {one.module}", "---", "", f"# `python -m {one.module}`", "", escaped(one.description), ""]
    lines += ["    " + (one.parser.usage or "").strip(), ""]
    for title, about, options in groups(one.parser):
        lines += [f"## {title[0].upper()}{title[1:]}", "", *([escaped(about), ""] if about else [])]
        for flags, text in options:
            lines += [f"`{flags}`", f":   {escaped(text)}", ""]
    if one.examples:
        lines += ["## Examples", ""]
        for line, what in one.examples:
            lines += [f"{escaped(what[0].upper() + what[1:])}:", "", f"    {line}", ""]
    return "\n".join(lines)


def groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """The groups of a parser: title, description, and each option with its help."""
    for group in sorted(parser._action_groups, key=lambda one: one.title == "options"):  # --help comes last
        options = [(flags(action), action.help or "") for action in group._group_actions if shown(action)]
        if options:
            title = {"options": "Help", "positional arguments": "Given by place"}.get(group.title or "", group.title)
            yield title or "Options", group.description or "", options


def shown(action: argparse.Action) -> bool:
    """Whether ``--help`` shows it."""
    return action.help is not argparse.SUPPRESS


def flags(action: argparse.Action) -> str:
    """Its flags with what stands for the value, as ``--factors N``."""
    names: list[str] = list(action.option_strings)
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest
    if not names:
        return metavar
    value = "" if action.nargs == 0 or _is_switch(action) else f" {metavar}"
    many = " ..." if action.nargs in ("*", "+") else ""
    return ", ".join(names) + value + many


def _is_switch(action: argparse.Action) -> bool:
    return type(action).__name__ == "ActionYesNo"
