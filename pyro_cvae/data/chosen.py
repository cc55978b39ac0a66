"""Which of the items' contents is meant, by their names alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pyro_cvae.errors import InputError

One = TypeVar("One")


def pick(contents: Mapping[str, One], name: str) -> One:
    """The content of that name; InputError if there is none."""
    if name not in contents:
        raise InputError(
            f"the items have no content called {name!r}",
            f"use {', '.join(contents) or 'another data set'}, or fit with --contents {name}=PATH",
        )
    return contents[name]


def select(there: Mapping[str, One], parts: Sequence[str] | None, content: str = "") -> dict[str, One]:
    """The contents that a likelihood is of, under its own names: those of its ``parts``, or the one called ``content``.

    Without a name it is the text, or the only one there is. Where the command line has - for _ in a name, or the other
    way round, it is found too. Raises InputError where there is none of that name, or no single one.
    """
    if not there:
        raise InputError("no item has any content", "give a table of items with texts")

    def spelled(name: str) -> str:
        return next((known for known in there if known.replace("-", "_") == name.replace("-", "_")), name)

    if parts is not None:
        if content and [spelled(name) for name in parts] != [spelled(content)]:
            raise InputError(f"--content is {content!r}, but the parts of a product name its contents", "leave it out")
        return {name: pick(there, spelled(name)) for name in parts}
    name = content or ("text" if "text" in there else next(iter(there)))
    if not content and "text" not in there and len(there) > 1:
        raise InputError(f"the items have several contents, {', '.join(there)}", "name one with --content")
    return {name: pick(there, spelled(name))}
