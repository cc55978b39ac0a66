"""Text from files on its way to a terminal, a page or a figure: control characters are shown, never obeyed."""

from __future__ import annotations

import io
import logging
import re
import sys

_CONTROL = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0 and C1: escape sequences, backspaces, carriage returns
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text around
    "\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # invisible, or a line end
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"  # of shorthand and music, tags
    "\ud800-\udfff"  # lone surrogates, which no stream can write
    "]"
)
# Joiners (U+200C, U+200D), soft hyphens and variation selectors are part of how words and emoji are written.


def visible(value: object) -> str:
    r"""``str(value)`` with each control character as its escape: ESC is ``\x1b``, a right-to-left override ``\u202e``.

    Shown are C0 and C1 control characters (tabs and line ends among them), the marks that reverse or isolate the
    direction of text, invisible characters, tags and lone surrogates. The result is one line that any terminal,
    page or stream takes as text.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(value))


def visible_lines(text: str) -> str:
    r"""The same of a text of several lines: line ends (``\n``) stay."""
    return "\n".join(map(visible, text.split("\n")))


class VisibleFormatter(logging.Formatter):
    """A log message with control characters shown, line ends kept."""

    def format(self, record: logging.LogRecord) -> str:
        """The message of the record, as :func:`visible_lines` has it."""
        return visible_lines(super().format(record))


def write_anything() -> None:
    r"""Let stdout and stderr write what their encoding does not have, and lone surrogates, as escapes (``\u65e5``)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def encodable(text: str, errors: str = "backslashreplace") -> str:
    r"""The text itself, or where it has lone surrogates one that a file can hold; pairs of them become their character.

    ``errors`` is "replace" (each becomes U+FFFD) or "backslashreplace" (each becomes its escape, ``\ud800``).
    """
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        paired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if errors == "replace":
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in paired)
    return paired.encode("utf-8", errors).decode()


def log_to_stderr() -> None:
    """Print what the package logs on stderr, message by message; nothing where the program has set up its own log."""
    if not logging.root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(VisibleFormatter("%(message)s"))
        logging.root.addHandler(handler)


_OF_ONE = {"are": "is", "were": "was", "have": "has", "count": "counts", "stand": "stands", "train": "trains"}
"""Verbs as they follow one thing."""


def counted(n: float, noun: str, verb: str = "", *, of: float | None = None) -> str:
    """``1 pair``, ``2,000 pairs``; with a plural ``verb`` ``1 pair is``; ``of`` more of them ``1 of 5 pairs is``.

    ``noun`` is in the singular, with what stands before it: ``test pair``.
    """
    several = f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}s"
    size = n if of is None else of
    words = f"{n:,.0f}" + ("" if of is None else f" of {of:,.0f}")
    return f"{words} {noun if size == 1 else several}" + (f" {_OF_ONE[verb] if n == 1 else verb}" if verb else "")
