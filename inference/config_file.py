"""YAML files of options, read by one who trusts them with nothing: small, shallow, each key once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from pyro_cvae.data.gate import PathLike, read_bytes
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

LARGEST = 2**20
"""Bytes of a file of options."""
MOST_NODES = 10_000
"""Values that a file may stand for, what its aliases repeat counted each time."""
DEEPEST = 20
"""Lists and mappings within one another."""
_PLAIN = "write one 'key: value' a line"


@dataclass(frozen=True)
class Entry:
    """A key of the file as it stands there, its line (from 1), and the node of its value."""

    key: str
    line: int
    node: yaml.Node


def read_entries(path: PathLike) -> list[Entry]:
    """The keys of a YAML file in their order; raises InputError with the line for what is no such file."""
    raw = read_bytes(path, LARGEST)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", "save it as UTF-8", path=path) from None
    try:
        _check_depth(text, path)
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _explained(error, path) from None
    except (RecursionError, ValueError):
        raise InputError("is no YAML: it cannot be read", _PLAIN, path=path) from None
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise InputError("is no list of options", _PLAIN, path=path, line=1)
    size = _size(root, {}, path)
    if size > MOST_NODES:
        raise InputError(
            f"stands for {counted(size, 'value')}", f"write at most {MOST_NODES:,}, without aliases", path=path
        )
    _check_keys(root, path)
    return [Entry(str(key.value), _line(key), value) for key, value in root.value]


def value_of(entry: Entry, path: PathLike) -> Any:
    """The value of a key, of YAML's plain types; InputError for one that is none."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(entry.node)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error)
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        problem = str(error) or type(error).__name__
    problem = " ".join(problem.split())[:200]
    raise InputError(f"{entry.key}: {problem}", "write a plain value", path=path, line=entry.line) from None


def _explained(error: yaml.YAMLError, path: PathLike) -> InputError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    return InputError(f"is no YAML: {problem}", _PLAIN, path=path, line=mark and mark.line + 1)


def _check_depth(text: str, path: PathLike) -> None:
    """InputError for lists and mappings deeper than ``DEEPEST``, before anything recurses into them."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1
            raise InputError(f"is nested more than {DEEPEST} deep", "write plain values", path=path, line=line)


def _size(node: yaml.Node, known: dict[int, int], path: PathLike) -> int:
    """Values that a node stands for, aliases followed; InputError for one that holds itself."""
    if known.get(id(node)) == 0:
        raise InputError("has an alias of what it stands in", "write the value out", path=path, line=_line(node))
    if id(node) not in known:
        known[id(node)] = 0
        known[id(node)] = 1 + sum(_size(child, known, path) for child in _children(node))
    return known[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check_keys(root: yaml.MappingNode, path: PathLike) -> None:
    """InputError for a key that is no plain text, or stands in its mapping a second time."""
    mappings, seen = [root], set()
    while mappings:
        mapping = mappings.pop()
        if id(mapping) in seen:
            continue
        seen.add(id(mapping))
        keys = set()
        for key, value in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                raise InputError("has a key that is no text", _PLAIN, path=path, line=_line(key))
            name = key.value.replace("-", "_") if mapping is root else key.value
            if name in keys:
                raise InputError(f"{name} stands here a second time", "remove one", path=path, line=_line(key))
            keys.add(name)
            stack = [value]
            while stack:
                inner = stack.pop()
                if isinstance(inner, yaml.MappingNode):
                    mappings.append(inner)
                elif isinstance(inner, yaml.SequenceNode):
                    stack += inner.value


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
