"""How tables are read where they do not say it themselves: names of columns, separator, encoding, words of texts."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Html
from pyro_cvae.trust import is_path

if TYPE_CHECKING:
    from pyro_cvae.data.contents import AnyContent
    from pyro_cvae.data.dataset import Dataset

COLUMNS = ("user", "item", "rating", "weight", "time", "text", "title", "to")
"""The columns that are read, by our names."""
TOKENIZERS = ("words", "unicode-words", "bigrams")
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}
"""Words for separators that are hard to write on a command line."""


@dataclass(frozen=True)
class Reading:
    """How tables are read.

    Parameters:
        columns: What the columns are called there, by our names: ``{"user": "userId", "text": "overview"}``.
        separator: Of text tables; empty tells it from the header.
        encoding: Of text tables; empty is UTF-8, or what their byte order mark says.
        tokenizer: What turns a text into words: one of ``TOKENIZERS``, or the path of a function of one's own.
        html: ``strip`` takes tags and entities out of texts, ``keep`` leaves them.
        min_rating: Least rating of a pair that is a choice; ``None``: any above 0. It goes with clicks alone.
        need_time: Whether a pair without a time is an error, not a warning.
        lenient: Whether a name in ``columns`` may be missing in a table.
        like: A data set by whose vocabularies words are counted, where it has a content of that name; ``None``: each
            content has one of its own.

    Raises InputError for an unknown name, encoding or separator.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    separator: str = ""
    encoding: str = ""
    tokenizer: str = "words"
    html: Html = "strip"
    min_rating: float | None = None
    need_time: bool = False
    lenient: bool = False
    like: Dataset | None = None

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in COLUMNS:
                raise InputError(f"--columns names {name!r}", f"use {', '.join(COLUMNS)}, as in user=userId")
        object.__setattr__(self, "separator", SEPARATORS.get(self.separator, self.separator))
        if set(self.separator) & set('"\r\n\0'):
            raise InputError(f"--separator is {self.separator!r}, but it must be no quote or line end")
        try:
            codecs.lookup(self.encoding or "utf-8").name  # noqa: B018
            b"".decode(self.encoding or "utf-8")
        except (LookupError, ValueError):
            raise InputError(
                f"--encoding is {self.encoding!r}, which is unknown", "use utf-8, latin-1, cp1252, utf-16 or the like"
            ) from None
        if self.html not in get_args(Html):
            raise InputError(f"--html is {self.html!r}, but it must be one of {', '.join(get_args(Html))}")
        if self.tokenizer not in TOKENIZERS and not is_path(self.tokenizer):
            must = f"one of {', '.join(TOKENIZERS)}, or the path of a function"
            raise InputError(f"--tokenizer is {self.tokenizer!r}, but it must be {must}")
        if self.min_rating is not None and self.min_rating != self.min_rating:
            raise InputError(f"--min-rating is {self.min_rating}, but it must be a number")

    @property
    def own_words(self) -> bool:
        """Whether the tokenizer is one of the package's own."""
        return self.tokenizer in TOKENIZERS

    def known(self, name: str) -> AnyContent | None:
        """The content of that name whose vocabulary counts, or ``None``."""
        return None if self.like is None else self.like.contents.get(name)

    def of_another_file(self, columns: Iterable[str] = (), separator: str = "", encoding: str = "") -> Reading:
        """The same for a later file, with its own separator and encoding; columns may be called otherwise there."""
        own = dict(self.columns) | parse_columns(columns)
        return replace(
            self, columns=own, separator=separator, encoding=encoding, need_time=False, lenient=not tuple(columns)
        )


def parse_columns(texts: Iterable[str]) -> dict[str, str]:
    """Names of columns from ``user=userId`` and the like; InputError for anything else, or a name given twice."""
    columns: dict[str, str] = {}
    for text in texts:
        name, given, column = text.partition("=")
        if not given or not column:
            raise InputError(f"--columns {text}: the column is missing", f"write {name or 'user'}=COLUMN")
        if name in columns:
            raise InputError(f"--columns has {name} twice", "name each column once")
        columns[name] = column
    return columns
