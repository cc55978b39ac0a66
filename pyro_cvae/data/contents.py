"""Contents of other kinds than word counts: vectors, images and sequences of tokens, any of which an item may lack."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp

from pyro_cvae.data.content import Content, TextVectorizer, check_given
from pyro_cvae.data.stored import csr_of
from pyro_cvae.data.text import tell_doubts, tokenizer_of
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import ContentKind
from pyro_cvae.text import counted

log = logging.getLogger(__name__)

UNKNOWN = "<unknown>"
"""Token 0, which stands for all that are not in the vocabulary; no text can hold it."""

_BLOCK_BYTES = 2**26


@dataclass(frozen=True, eq=False)
class Vectors:
    """A vector of real numbers for every item, such as the sentence vectors of a network that is held.

    Parameters:
        values: Finite, float32 (n_items, n_features), in memory or mapped (``np.memmap``).
        present: False for items that have none, bool (n_items,); their rows are zeros.
        units: Mean and standard deviation of each feature, float64 (2, n_features), where each is a quantity of its
            own, such as a price or a year. A Normal likelihood, encoders and cosines read (values - mean) / deviation.
            ``None``: numbers count as they are.

    Raises InputError, naming the row, for a number that is not finite, a row that should be zero, or other shapes.
    """

    kind: ClassVar[ContentKind] = "vectors"
    values: np.ndarray
    present: np.ndarray
    units: np.ndarray | None = None

    def __post_init__(self) -> None:
        values = np.asanyarray(self.values)
        if values.dtype.kind not in "fiu":
            raise InputError(f"the {self.kind} are of type {values.dtype}", "give numbers, float32 by preference")
        object.__setattr__(self, "values", self._shaped(values))
        check_given(self.present, self.n_items, self.kind)
        self._check_values()
        if self.units is not None:
            self._check_units(np.asarray(self.units))

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        if values.ndim != 2 or not values.shape[1]:
            raise InputError(f"vectors have shape {values.shape}", "give an array (n_items, n_features)")
        return float32(values)

    def _check_values(self) -> None:
        for rows in blocks(self.values):
            part = self.values[rows]
            per_row = part.reshape(len(part), -1)
            for bad, problem, remedy in self._faults(per_row):
                if bad.any():
                    raise InputError(f"row {rows.start + int(np.argmax(bad)) + 1} {problem}", remedy)
            if per_row[~self.present[rows]].any():
                raise InputError(f"{self.kind} of an item that has none are not zero", "set them to zero")

    def _check_units(self, units: np.ndarray) -> None:
        fits = units.shape == (2, self.n_features) and units.dtype.kind == "f"
        if not fits or not np.isfinite(units).all() or (units[1] <= 0).any():
            raise InputError(
                f"the units of {self.kind} are no mean and deviation above 0 of each of "
                + counted(self.n_features, "feature"),
                "give float64 (2, n_features), or leave them out",
            )

    def _faults(self, part: np.ndarray) -> Iterator[tuple[np.ndarray, str, str]]:
        """Rows that cannot be used, bool (n_rows,), of part (n_rows, n_features), each with problem and remedy."""
        yield ~np.isfinite(part).all(axis=1), "has a number that is not finite", "leave out items without one"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(self.n_items, 'item')}, {' x '.join(map(str, self.values.shape[1:]))})"

    @property
    def n_items(self) -> int:
        """Number of rows."""
        return len(self.values)

    @property
    def n_features(self) -> int:
        """Numbers of a row."""
        return int(np.prod(self.values.shape[1:]))

    def centred(self) -> np.ndarray:
        """Numbers in their ``units`` less their means over the items that have some, and zeros, as float32.

        Shape (n_items, n_features).
        """
        flat = self.values.reshape(self.n_items, -1)
        if self.units is not None:
            flat = ((flat - self.units[0]) / self.units[1]).astype(np.float32)
        means = flat[self.present].mean(0, dtype=np.float64).astype(np.float32)
        return np.where(self.present[:, None], flat - means, 0)

    def select(self, rows: Any) -> Self:
        """The content of these items, in their order: rows, an index array or a mask; in memory."""
        return type(self)(self.values[rows], self.present[rows], self.units)

    def spread(self, rows: np.ndarray, n_items: int) -> Self:
        """The content of ``n_items`` items of which the one at ``rows[k]`` has the k-th here, and others have none."""
        if np.array_equal(rows, np.arange(n_items)):
            return self
        values = np.zeros((n_items, *self.values.shape[1:]), self.values.dtype)
        for part in blocks(self.values):
            values[rows[part]] = self.values[part]
        return type(self)(values, spread_mask(self.present, rows, n_items), self.units)


@dataclass(frozen=True, eq=False, repr=False)
class Images(Vectors):
    """A picture for every item, all of one size.

    Parameters:
        values: uint8 (0 to 255) or float32 (0 to 1), (n_items, n_channels, height, width), in memory or mapped.
        present: False for items that have none, bool (n_items,); their pixels are zeros.
    """

    kind: ClassVar[ContentKind] = "images"

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        if values.ndim != 4 or 0 in values.shape[1:]:
            raise InputError(f"images have shape {values.shape}", "give an array (n_items, n_channels, height, width)")
        if values.shape[3] <= 4 < values.shape[1]:
            shape = f"images of shape {values.shape} seem to have their channels last"
            raise InputError(shape, "give (n_items, n_channels, height, width): np.moveaxis(images, -1, 1)")
        if values.dtype.kind != "f" and values.dtype != np.uint8:
            raise InputError(f"images are of type {values.dtype}", "give uint8 from 0 to 255 or float32 from 0 to 1")
        return values if values.dtype == np.uint8 else float32(values)

    def _faults(self, part: np.ndarray) -> Iterator[tuple[np.ndarray, str, str]]:
        if part.dtype != np.uint8:
            yield from super()._faults(part)
            outside = np.any((part < 0) | (part > 1), axis=1)
            yield outside, "has a pixel below 0 or above 1", "divide by the largest value, or give uint8"


@dataclass(frozen=True, eq=False)
class Tokens:
    """A sequence of tokens for every item, of any length.

    Parameters:
        indptr: Where each item's sequence begins, int64 (n_items + 1,).
        tokens: Rows of the vocabulary, int32 (n_tokens,), in the order of the text.
        vocabulary: The token of each number; 0 stands for all that are not in it.
        present: False for items that have none, bool (n_items,); an item may have one of length 0.
        tokenizer: What makes tokens of other texts (:func:`pyro_cvae.data.text.tokenizer_of`).

    Raises InputError for numbers outside the vocabulary, starts that do not fit, or a repeated token.
    """

    kind: ClassVar[ContentKind] = "tokens"
    indptr: np.ndarray
    tokens: np.ndarray
    vocabulary: tuple[str, ...]
    present: np.ndarray
    tokenizer: str = "words"

    def __post_init__(self) -> None:
        for name, kind in (("indptr", np.int64), ("tokens", np.int32)):
            column = np.asarray(getattr(self, name))
            if column.ndim != 1 or (column.dtype.kind not in "iu" and len(column)):
                raise InputError(f"{name} of tokens is no list of whole numbers", "give int64 starts, int32 tokens")
            if name == "tokens" and len(column) and not 0 <= column.min() <= column.max() < len(self.vocabulary):
                found = f"numbers of tokens run from {column.min()} to {column.max()}"
                raise InputError(found, f"use 0 to {len(self.vocabulary) - 1}, the rows of the vocabulary")
            object.__setattr__(self, name, column.astype(kind, copy=False))
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        ends = len(self.indptr) and self.indptr[0] == 0 and self.indptr[-1] == len(self.tokens)
        if not ends or (np.diff(self.indptr) < 0).any():
            raise InputError("the starts of the sequences do not fit the tokens", "begin at 0, end at their number")
        if not all(isinstance(token, str) for token in self.vocabulary):
            raise InputError("a token of the vocabulary is no text", "give one text for each number")
        if not self.vocabulary or len(set(self.vocabulary)) < len(self.vocabulary):
            raise InputError("the vocabulary is empty or has a token twice", f"give {UNKNOWN!r}, then each token once")
        check_given(self.present, self.n_items, self.kind)
        if self.lengths[~self.present].any():
            raise InputError("an item that has no sequence has tokens", "set present to True where there are tokens")

    @classmethod
    def fit(cls, texts: Sequence[str | None], n_tokens: int = 8000, tokenizer: str = "words") -> Tokens:
        r"""The words of texts in their order, with the ``n_tokens`` most frequent as the vocabulary, from 1 on.

        Words are lower case, by ``(?u)\b\w+\b``, stop words kept, or what another ``tokenizer`` makes of a text; ties
        go by the alphabet. ``None`` and blank texts are items that have none. Raises InputError if no word is left.
        """
        tokens_of = tokenizer_of(tokenizer)
        counts = Counter(word for text in texts if text for word in tokens_of(text))
        if not counts:
            raise InputError("the texts have no words", "give items with a text")
        best = sorted(counts, key=lambda word: (-counts[word], word))[:n_tokens]
        none = cls(np.zeros(1, np.int64), np.zeros(0, np.int32), (UNKNOWN, *best), np.zeros(0, bool), tokenizer)
        found = none.of(texts)
        tell_doubts(found.bag(), texts, tokenizer)
        return found

    def of(self, texts: Sequence[str | None]) -> Tokens:
        """Sequences of other texts by this vocabulary; nothing is cut short, and the log counts unknown words."""
        number, tokens_of = self._numbers, tokenizer_of(self.tokenizer)
        rows = [[number.get(word, 0) for word in tokens_of(text)] if text else [] for text in texts]
        indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        tokens = np.fromiter((token for row in rows for token in row), np.int32, int(indptr[-1]))
        unknown = int((tokens == 0).sum())
        told = counted(unknown, "word", "are", of=len(tokens))
        log.info("%s outside the vocabulary of %d", told, len(self.vocabulary) - 1)
        present = np.array([is_text(text) for text in texts], bool)
        return Tokens(indptr, tokens, self.vocabulary, present, self.tokenizer)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.vocabulary)}

    def __repr__(self) -> str:
        items, tokens = counted(self.n_items, "item"), counted(len(self.tokens), "token")
        return f"Tokens({items}, {self.n_features} in the vocabulary, {tokens})"

    @property
    def n_items(self) -> int:
        """Number of sequences."""
        return len(self.indptr) - 1

    @property
    def n_features(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each item, int64 (n_items,)."""
        return np.diff(self.indptr)

    def bag(self) -> sp.csr_matrix:
        """How often each token but the unknown one occurs, float64 (n_items, n_features - 1)."""
        parts = np.ones(len(self.tokens)), self.tokens.copy(), self.indptr  # sorted in place below
        counts = sp.csr_matrix(parts, (self.n_items, self.n_features))
        counts.sum_duplicates()
        return counts[:, 1:]

    def select(self, rows: Any) -> Tokens:
        """The content of these items, in their order: rows, an index array or a mask."""
        rows = np.arange(self.n_items)[rows]
        lengths = self.lengths[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return Tokens(indptr, self.tokens[places], self.vocabulary, self.present[rows], self.tokenizer)


AnyContent = Content | Vectors | Tokens


def of_texts(
    kind: str, texts: Sequence[str | None], like: AnyContent | None = None, tokenizer: str = "words"
) -> Content | Tokens:
    """Texts as ``words`` or ``tokens``, by the vocabulary of ``like``; items with a blank one lack it."""
    if isinstance(like, Content | Tokens):
        return like.of(texts)
    if kind == "tokens":
        return Tokens.fit(texts, tokenizer=tokenizer)
    documents = [text or "" for text in texts]
    given = np.array([is_text(text) for text in texts], bool)
    there = [text for text, has in zip(documents, given, strict=True) if has]
    vectorizer = TextVectorizer.fit(there, tokenizer=tokenizer)
    counts = vectorizer.counts(documents)
    return Content(counts, vectorizer.vocabulary, vectorizer, None if given.all() else given)


def is_text(text: str | None) -> bool:
    """Whether there is anything in it but blanks."""
    return bool(text and text.strip())


def float32(values: np.ndarray) -> np.ndarray:
    """The same numbers, infinite where they are too large; an array that is float32 already stays mapped."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def units_of(values: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of each column of ``values`` (n_rows, n_features) over the numbers that it has.

    Float64 (2, n_features). The deviation of a column of one number is 1.
    """
    numbers = values.astype(np.float64)
    deviations = np.nanstd(numbers, 0)
    constant = np.nanmax(numbers, 0) == np.nanmin(numbers, 0)
    return np.stack([np.nanmean(numbers, 0), np.where(constant, 1.0, deviations)])


def blocks(values: np.ndarray) -> Iterator[slice]:
    """Slices of rows of at most 64 MiB each, so that a mapped array is never wholly in memory."""
    size = max(1, _BLOCK_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(values), size):
        yield slice(start, min(start + size, len(values)))


def spread_mask(present: np.ndarray, rows: np.ndarray, n_items: int) -> np.ndarray:
    """``present`` (n_rows,) at ``rows`` of ``n_items`` items, False elsewhere."""
    spread = np.zeros(n_items, bool)
    spread[rows] = present
    return spread


def describe(content: AnyContent) -> str:
    """Kind, size, and how many items have it: ``images, 1 x 8 x 8, of 1,700 of 1,797 items``."""
    if isinstance(content, Vectors):
        size = " x ".join(f"{n:,}" for n in content.values.shape[1:])
    elif isinstance(content, Tokens):
        size = f"{len(content.tokens):,} of a vocabulary of {content.n_features:,}"
    else:
        size = f"{counted(content.counts.nnz, 'entry')} of {content.n_features:,}"
    return f"{content.kind}, {size}, of {counted(content.present.sum(), 'item', of=content.n_items)}"


def parts_of(content: AnyContent) -> dict[str, Any]:
    """What a content is made of, by name: arrays, and JSON values; :func:`of_parts` turns them back."""
    if isinstance(content, Vectors):
        units = {} if content.units is None else {"units": content.units}
        return {"values": content.values, "present": content.present} | units
    if isinstance(content, Tokens):
        names = ("indptr", "tokens", "present", "vocabulary", *["tokenizer"] * (content.tokenizer != "words"))
        return {name: getattr(content, name) for name in names}
    counts, vectorizer = content.counts, content.vectorizer
    return {
        "data": counts.data,
        "indices": counts.indices.astype(np.int64),
        "indptr": counts.indptr.astype(np.int64),
        "shape": list(counts.shape),
        "present": content.present,
        "vocabulary": content.vocabulary,
        "vectorizer": None if vectorizer is None else vectorizer.to_json(),
    }


def of_parts(kind: str, parts: dict[str, Any]) -> AnyContent:
    """The content of this kind whose :func:`parts_of` these are; InputError or KeyError if they are damaged."""
    if kind in ("vectors", "images"):
        return {"vectors": Vectors, "images": Images}[kind](parts["values"], parts["present"], parts.get("units"))
    if kind == "tokens":
        tokenizer = parts.get("tokenizer", "words")
        if not isinstance(tokenizer, str):
            raise InputError("the stored tokenizer is damaged", "restore the folder it is in")
        return Tokens(parts["indptr"], parts["tokens"], tuple(parts["vocabulary"]), parts["present"], tokenizer)
    if kind != "words":
        raise InputError(f"the stored content is of an unknown kind {kind!r}", "update pyro-cvae")
    n_items, n_features = parts["shape"]
    counts = csr_of(parts, (int(n_items), int(n_features)))
    words, vectorizer = parts["vocabulary"], parts["vectorizer"]
    return Content(
        counts,
        None if words is None else tuple(words),
        None if vectorizer is None else TextVectorizer.from_json(vectorizer),
        None if parts["present"].all() else parts["present"],
    )
