"""The pages of the reference: one for every module, and the part of the navigation that leads to them."""

from __future__ import annotations

from typing import Any

from docs.making.names import PACKAGES, Module, places

INDEX = "api/index.md"
TITLES = {
    "pyro_cvae": "data sets, splits, metrics, run folders",
    "models": "what is believed",
    "inference": "how belief is updated",
    "analysis": "what a posterior says",
}


def pages(known: list[Module]) -> dict[str, str]:
    """The text of every page by its place: the modules' own, and the index of all names."""
    where = places(known)
    return {INDEX: index(known)} | {module.page: page(module, known, where) for module in known}


def navigation(known: list[Module]) -> list[dict[str, Any]]:
    """What the menu shows: the index, and each package with its folders and modules."""
    return [{"All names": INDEX}, *({package: _branch(package, known)} for package in PACKAGES)]


def page(module: Module, known: list[Module], where: dict[str, str]) -> str:
    """The page of a module; of a package also what it hands on and the modules in it."""
    title = module.name if "." not in module.name else module.name.rpartition(".")[2]
    lines = ["---", f"title: {title}", "---", "", f"# `{module.name}` {{ #{module.anchor} }}", ""]
    lines += [f"::: {module.name}", *_own(module), ""]
    if module.handed_on:
        lines += [f"## What `{module.name}` hands on", ""]
        for name, place in module.handed_on.items():
            there = f"[`{place}`][{where[place]}]" if place in where else f"`{place}`"
            lines.append(f"- `{name}` is {there}.")
        lines.append("")
    inside = [one for one in known if one.name.rpartition(".")[0] == module.name]
    if inside:
        lines += ["## Modules", "", "| module | what it holds |", "| --- | --- |", *map(_row, inside), ""]
    return "\n".join(lines)


def index(known: list[Module]) -> str:
    """The index: every module with its public names."""
    count = sum(len(module.names) for module in known)
    lines = [
        "# All names",
        "",
        f"This page is made from the source. It has {len(known)} modules and {count:,} public names.",
        "Members of classes are counted, and stand on the pages of their modules.",
        "",
    ]
    for package in PACKAGES:
        lines += [f"## {package}: {TITLES[package]}", ""]
        for module in known:
            if module.name.partition(".")[0] == package:
                links = [f"[`{name.removeprefix(module.name + '.')}`][{name}]" for name in module.top_names]
                lines.append(f"- [`{module.name}`][{module.anchor}]" + (": " + ", ".join(links) if links else ""))
        lines.append("")
    return "\n".join(lines)


def _own(module: Module) -> list[str]:
    """What keeps names that are handed on, and are told where they are defined, from being told twice."""
    if not module.handed_on:
        return []
    own = [name.rpartition(".")[2] for name in module.top_names]
    return ["    options:", f"      members: [{', '.join(own)}]" if own else "      members: false"]


def _row(module: Module) -> str:
    return f"| [`{module.name}`][{module.anchor}] | {escaped(module.summary.replace('``', '`'))} |"


def _branch(package: str, known: list[Module]) -> list[Any]:
    own = next(module for module in known if module.name == package)
    inside = [one for one in known if one.name.rpartition(".")[0] == package]
    folders = [{one.name.rpartition(".")[2]: _branch(one.name, known)} for one in inside if one.is_package]
    files = [{one.name.rpartition(".")[2]: one.page} for one in inside if not one.is_package]
    return [own.page, *folders, *files]


def escaped(text: str) -> str:
    """A text as Markdown shows it: what is outside of `code` is taken for no markup."""
    parts = text.split("`")
    for place in range(0, len(parts), 2):
        for mark in "\\*_<[|":
            parts[place] = parts[place].replace(mark, "\\" + mark)
    return "`".join(parts)
