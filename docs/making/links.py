"""What the site reads otherwise than GitHub: links out of ``docs``, nested lists, the roles of docstrings."""

from __future__ import annotations

import re
from collections.abc import Mapping

from docs.making.names import Module

LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)([^)#\s]+)(?:#[^)]*)?\)")
ITEM = re.compile(r"(?:[-*]|\d+\.) ")
ROLE = re.compile(r":(?:mod|func|class|meth|attr|data|exc):`~?([\w.]+)(?:\(\))?`")


def without_outside(markdown: str, depth: int, by_file: Mapping[str, Module]) -> str:
    """A page that lies ``depth`` folders below ``docs``, with its links out of ``docs`` rewritten.

    One to a module leads to the page of that module. Any other becomes its text, with the place of the file.
    """

    def link(match: re.Match[str]) -> str:
        label, ups, target = match.groups()
        if len(ups) // 3 <= depth:
            return match[0]
        if target in by_file:
            return f"[{label}][{by_file[target].anchor}]"
        return label if label.strip("`").endswith(target) else f"{label} (`{target}`)"

    return LINK.sub(link, markdown)


def rewritten(text: str, path: str, where: Mapping[str, str]) -> str:
    """The docstring of the object at ``path`` with links for roles; ``where`` has the anchor of every name.

    A role names what it is asked for from the outermost name, or from any place around ``path``. One that names nothing
    public becomes code. Two colons at a line's end become one.
    """

    def link(match: re.Match[str]) -> str:
        name, scope = match[1], path
        while scope:
            if f"{scope}.{name}" in where:
                return f"[`{name}`][{where[f'{scope}.{name}']}]"
            scope = scope.rpartition(".")[0]
        return f"[`{name}`][{where[name]}]" if name in where else f"`{name}`"

    return re.sub(r"(?<=\w)::[ \t]*$", ":", ROLE.sub(link, text), flags=re.M)


def with_deeper_lists(markdown: str) -> str:
    """A page whose lists are indented twice as far: Python-Markdown asks for four blanks where GitHub asks for two."""
    lines, in_code, in_list, before = [], False, False, ""
    for line in markdown.split("\n"):
        in_code ^= line.startswith("```")
        if ITEM.match(line):
            in_list = True
        elif line and not line.startswith(" ") and not before:
            in_list = False
        blanks = len(line) - len(line.lstrip(" "))
        lines.append(" " * blanks + line if in_list and not in_code else line)
        before = line
    return "\n".join(lines)


def with_whole_flags(page: str) -> str:
    """The HTML of a page, its short options marked as what no line ends within (``--print-``, ``config``)."""
    return re.sub(r"<code>(--[\w.-]{1,24}(?: \w{1,10})?)</code>", r'<code class="flag">\1</code>', page)
