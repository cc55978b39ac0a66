"""Contents of other kinds than word counts: vectors, images and sequences of tokens, any of which an item may lack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pyro_cvae.data.content import Content
from pyro_cvae.errors import InputError


@dataclass(frozen=True, eq=False)
class Vectors:
    """A vector of real numbers for every item, such as the sentence vectors of a network that is held.

    Parameters:
        values: float32 (n_items, n_features), in memory or mapped (``np.memmap``).
        present: False for items that have none, bool (n_items,); their rows are zeros.
    """

    kind: ClassVar[str] = "vectors"
    values: np.ndarray
    present: np.ndarray

    @property
    def n_items(self) -> int:
        """Number of rows."""
        return len(self.values)

    @property
    def n_features(self) -> int:
        """Numbers of a row."""
        return int(np.prod(self.values.shape[1:]))


@dataclass(frozen=True, eq=False)
class Images(Vectors):
    """A picture for every item, all of one size.

    Parameters:
        values: uint8 (0 to 255) or float32 (0 to 1), (n_items, n_channels, height, width), in memory or mapped.
        present: False for items that have none, bool (n_items,); their pixels are zeros.
    """

    kind: ClassVar[str] = "images"


@dataclass(frozen=True, eq=False)
class Tokens:
    """A sequence of tokens for every item, of any length.

    Parameters:
        indptr: Where each item's sequence begins, int64 (n_items + 1,).
        tokens: Rows of the vocabulary, int32 (n_tokens,), in the order of the text.
        vocabulary: The token of each number; 0 stands for all that are not in it.
        present: False for items that have none, bool (n_items,); an item may have one of length 0.
    """

    kind: ClassVar[str] = "tokens"
    indptr: np.ndarray
    tokens: np.ndarray
    vocabulary: tuple[str, ...]
    present: np.ndarray

    @property
    def n_items(self) -> int:
        """Number of sequences."""
        return len(self.indptr) - 1

    @property
    def n_features(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)


AnyContent = Content | Vectors | Tokens


def pick(contents: dict[str, AnyContent], name: str) -> AnyContent:
    """The content of that name; InputError if there is none."""
    if name not in contents:
        raise InputError(
            f"the items have no content called {name!r}", "use " + (", ".join(contents) or "another data set")
        )
    return contents[name]
