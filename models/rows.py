"""Contents of items as rows: words, vectors and images, tokens, and several of these of which an item may lack some.

All of them have a length and a :class:`Form`, and can be selected from by row and moved. What a likelihood of numbers
needs (``rows``, ``columns``, ``values``, ``totals``, ``dense()``), :class:`SparseRows` and :class:`DenseRows` have.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


@dataclass(frozen=True)
class Form:
    """What rows look like: ``kind`` (words, vectors, images or tokens) and the ``size`` of one.

    ``size`` is (n_features,), of an image (n_channels, height, width), of tokens that of the vocabulary, (n_tokens,).
    """

    kind: str
    size: tuple[int, ...]

    @property
    def n_features(self) -> int:
        """Numbers of a row, or tokens of the vocabulary."""
        return int(np.prod(self.size))


Forms = Form | dict[str, Form]
"""The form of one content, or those of several by name."""


def segments(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Row pointers of the chosen ``rows`` of a ragged array, and the positions of their entries."""
    lengths = indptr[rows + 1] - indptr[rows]
    pointers = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    shift = torch.repeat_interleave(indptr[rows] - pointers[:-1], lengths)
    return pointers, torch.arange(int(pointers[-1]), device=indptr.device) + shift


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Words of items as compressed sparse rows: entries ``values`` at words ``columns``, zero elsewhere.

    Shapes: ``indptr`` (n_rows + 1,), ``columns`` and ``values`` (n_entries,).
    """

    indptr: Tensor
    columns: Tensor
    values: Tensor
    n_columns: int

    @classmethod
    def from_csr(cls, matrix: sparse.csr_matrix, dtype: torch.dtype = torch.float32) -> SparseRows:
        """Take over a scipy matrix (n_rows, n_columns)."""
        matrix = sparse.csr_matrix(matrix)
        return cls(
            torch.as_tensor(matrix.indptr.astype(np.int64)),
            torch.as_tensor(matrix.indices.astype(np.int64)),
            torch.as_tensor(matrix.data).to(dtype),
            matrix.shape[1],
        )

    @classmethod
    def from_dense(cls, dense: Tensor) -> SparseRows:
        """The non-zero entries of a small dense block (n_rows, n_columns)."""
        rows, columns = dense.nonzero(as_tuple=True)
        indptr = torch.zeros(len(dense) + 1, dtype=torch.int64, device=dense.device)
        indptr[1:] = torch.bincount(rows, minlength=len(dense)).cumsum(0)
        return cls(indptr, columns, dense[rows, columns], dense.shape[1])

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def form(self) -> Form:
        """Words, n_columns of them."""
        return Form("words", (self.n_columns,))

    @property
    def shape(self) -> torch.Size:
        """(n_rows, n_columns), as Pyro's trace printers ask for it."""
        return torch.Size((len(self), self.n_columns))

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.indptr.device

    @property
    def blank(self) -> Tensor:
        """Which rows have no entry, bool (n_rows,)."""
        return self.indptr.diff() == 0

    @property
    def n_outputs(self) -> int:
        """Numbers that a decoder makes for all of them, by head."""
        return len(self) * self.n_columns

    @property
    def rows(self) -> Tensor:
        """The row of each entry, (n_entries,)."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.indptr.device), self.indptr.diff())

    @property
    def totals(self) -> Tensor:
        """Sum of each row, (n_rows,)."""
        return self.values.new_zeros(len(self)).index_add(0, self.rows, self.values)

    def select(self, rows: Tensor) -> SparseRows:
        """The chosen rows, in the order given."""
        indptr, at = segments(self.indptr, rows)
        return SparseRows(indptr, self.columns[at], self.values[at], self.n_columns)

    def dense(self) -> Tensor:
        """The rows as a dense block (n_rows, n_columns): for minibatches and tests."""
        block = self.values.new_zeros(len(self), self.n_columns)
        block[self.rows, self.columns] = self.values
        return block

    def bag(self, table: Tensor) -> Tensor:
        """The rows times ``table`` (n_columns, width): sums of embeddings, (n_rows, width)."""
        weights = self.values.to(table.dtype)
        return torch.nn.functional.embedding_bag(
            self.columns, table, self.indptr[:-1], mode="sum", per_sample_weights=weights
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> SparseRows:
        """The same on another device or with values of another type."""
        indptr, columns = self.indptr.to(device), self.columns.to(device)
        return SparseRows(indptr, columns, self.values.to(device, dtype), self.n_columns)


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Vectors or images: ``storage`` (n_rows, ...) of any type, perhaps mapped from a file, times ``factor``.

    With ``units`` (2, n_features) they are storage less the first row of these, over the second.

    Storage stays where and what it is until a minibatch is selected; ``dense()``, ``values`` and what follows from them
    convert it to ``dtype`` on ``device``, and all rows at once only if they are asked of all rows.
    """

    storage: Tensor
    factor: float = 1.0
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    units: Tensor | None = None

    @classmethod
    def from_numpy(
        cls, array: np.ndarray, dtype: torch.dtype = torch.float32, units: np.ndarray | None = None
    ) -> DenseRows:
        """Rows of an array (n_rows, n_features) or (n_rows, n_channels, height, width); bytes become [0, 1]."""
        with warnings.catch_warnings():  # a file that is mapped for reading: nothing here writes
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            storage = torch.from_numpy(np.asarray(array))
        factor = 1 / 255 if storage.dtype == torch.uint8 else 1.0
        return cls(storage, factor, dtype, units=None if units is None else torch.from_numpy(units))

    def __len__(self) -> int:
        return len(self.storage)

    @property
    def form(self) -> Form:
        """Vectors, or images where a row has three dimensions."""
        size = tuple(self.storage.shape[1:])
        return Form("images" if len(size) == 3 else "vectors", size)

    @property
    def n_columns(self) -> int:
        """Numbers of a row."""
        return self.form.n_features

    @property
    def shape(self) -> torch.Size:
        """(n_rows, n_columns), as Pyro's trace printers ask for it."""
        return torch.Size((len(self), self.n_columns))

    @property
    def blank(self) -> Tensor:
        """None: numbers always say something, bool (n_rows,)."""
        return torch.zeros(len(self), dtype=torch.bool, device=self.device)

    @property
    def n_outputs(self) -> int:
        """Numbers that a decoder makes for all of them, by head."""
        return len(self) * self.n_columns

    @cached_property
    def block(self) -> Tensor:
        """The rows as they are, converted: (n_rows, ...)."""
        if self.units is not None:
            mean, deviation = self.units.to(self.device)
            return ((self.storage.to(self.device, self.units.dtype) - mean) / deviation).to(self.dtype)
        return self.storage.to(self.device, self.dtype) * self.factor

    def dense(self) -> Tensor:
        """The rows as a dense block (n_rows, n_columns)."""
        return self.block.flatten(1)

    @property
    def values(self) -> Tensor:
        """All numbers, zeros too, (n_rows * n_columns,)."""
        return self.block.flatten()

    @property
    def rows(self) -> Tensor:
        """The row of each number."""
        return torch.arange(len(self), device=self.device).repeat_interleave(self.n_columns)

    @property
    def columns(self) -> Tensor:
        """The column of each number."""
        return torch.arange(self.n_columns, device=self.device).repeat(len(self))

    @property
    def totals(self) -> Tensor:
        """Sum of each row, (n_rows,)."""
        return self.dense().sum(-1)

    def select(self, rows: Tensor) -> DenseRows:
        """The chosen rows, in the order given."""
        return replace(self, storage=self.storage[rows.to(self.storage.device)])

    def bag(self, table: Tensor) -> Tensor:
        """The rows times ``table`` (n_columns, width), (n_rows, width)."""
        return self.dense().to(table.dtype) @ table

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> DenseRows:
        """The same, to be converted to another type on another device."""
        there = self.device if device is None else torch.device(device)
        return replace(self, dtype=self.dtype if dtype is None else dtype, device=there)


NumberRows = SparseRows | DenseRows
"""Rows of numbers: what likelihoods of features take."""

MASKED = -1
"""A token that the decoder is not told while it is trained."""


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Sequences of tokens, of any length, one after the other: row j is ``tokens[indptr[j]:indptr[j + 1]]``.

    Shapes: ``indptr`` (n_rows + 1,), ``tokens`` (n_entries,), each below ``n_tokens``, the vocabulary's size; ``told``
    (n_entries,), where it is given, is what the decoder is told of the tokens before the one it predicts.
    """

    indptr: Tensor
    tokens: Tensor
    n_tokens: int
    told: Tensor | None = None

    @classmethod
    def from_numpy(cls, indptr: np.ndarray, tokens: np.ndarray, n_tokens: int) -> TokenRows:
        """Take over arrays, in memory or mapped."""
        return cls(torch.as_tensor(np.array(indptr, np.int64)), torch.as_tensor(np.array(tokens, np.int64)), n_tokens)

    @classmethod
    def from_lists(cls, sequences: list[list[int]], n_tokens: int) -> TokenRows:
        """From a few sequences."""
        indptr = np.cumsum([0, *map(len, sequences)])
        return cls.from_numpy(indptr, np.array([token for one in sequences for token in one], np.int64), n_tokens)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def form(self) -> Form:
        """Tokens, of a vocabulary of n_tokens."""
        return Form("tokens", (self.n_tokens,))

    @property
    def shape(self) -> torch.Size:
        """(n_rows, n_tokens), as Pyro's trace printers ask for it."""
        return torch.Size((len(self), self.n_tokens))

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.indptr.device

    @property
    def blank(self) -> Tensor:
        """Which sequences have no token, bool (n_rows,)."""
        return self.indptr.diff() == 0

    @property
    def n_outputs(self) -> int:
        """Numbers that a decoder makes for all of them, by head: a row of the vocabulary and the end for each token."""
        return (len(self.tokens) + len(self)) * (self.n_tokens + 1)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each sequence, (n_rows,)."""
        return self.indptr.diff()

    @property
    def rows(self) -> Tensor:
        """The row of each token, (n_entries,)."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.device), self.lengths)

    def select(self, rows: Tensor) -> TokenRows:
        """The chosen rows, in the order given."""
        indptr, at = segments(self.indptr, rows)
        return TokenRows(indptr, self.tokens[at], self.n_tokens, None if self.told is None else self.told[at])

    def masked(self, rate: float) -> TokenRows:
        """The same with each token hidden from the decoder with probability ``rate`` (Bowman et al., CoNLL 2016)."""
        hidden = torch.rand(len(self.tokens), device=self.device) < rate
        return replace(self, told=self.tokens.masked_fill(hidden, MASKED))

    def ended(self) -> TokenRows:
        """The sequences with an end behind each, a token of its own, number ``n_tokens``."""
        last = self.indptr[1:] + torch.arange(len(self), device=self.device)
        return self._with(last, self.tokens, self.n_tokens + 1)

    def begun(self) -> TokenRows:
        """What a decoder reads to predict :meth:`ended`: a beginning, ``n_tokens``, and the tokens as it is told them.

        Those that it is not told are ``n_tokens + 1``.
        """
        told = self.tokens if self.told is None else self.told
        first = self.indptr[:-1] + torch.arange(len(self), device=self.device)
        return self._with(first, torch.where(told == MASKED, self.n_tokens + 1, told), self.n_tokens + 2)

    def _with(self, places: Tensor, tokens: Tensor, n_tokens: int) -> TokenRows:
        """One token more in each sequence, at these places of the result: the number after the vocabulary."""
        indptr = self.indptr + torch.arange(len(self) + 1, device=self.device)
        more = tokens.new_full((len(tokens) + len(self),), self.n_tokens)
        old = torch.ones_like(more, dtype=torch.bool)
        old[places] = False
        more[old] = tokens
        return TokenRows(indptr, more, n_tokens)

    def padded(self) -> tuple[Tensor, Tensor]:
        """The sequences side by side, 0 behind their ends, and where a token is, both (n_rows, longest)."""
        lengths = self.lengths
        longest = int(lengths.max()) if len(self) else 0
        there = torch.arange(longest, device=self.device) < lengths[:, None]
        return self.tokens.new_zeros(there.shape).masked_scatter(there, self.tokens), there

    def counts(self, dtype: torch.dtype = torch.float32) -> SparseRows:
        """How often each token occurs in each sequence."""
        cells, counts = torch.unique(self.rows * self.n_tokens + self.tokens, return_counts=True)
        rows = torch.div(cells, self.n_tokens, rounding_mode="floor")
        indptr = torch.zeros(len(self) + 1, dtype=torch.int64, device=self.device)
        indptr[1:] = torch.bincount(rows, minlength=len(self)).cumsum(0)
        return SparseRows(indptr, cells % self.n_tokens, counts.to(dtype), self.n_tokens)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TokenRows:
        """The same on another device; tokens are whole numbers whatever the type."""
        told = None if self.told is None else self.told.to(device)
        return TokenRows(self.indptr.to(device), self.tokens.to(device), self.n_tokens, told)


@dataclass(frozen=True, eq=False)
class PartRows:
    """Several contents of items by name, any of which an item may lack: ``parts[name]`` has rows of those that have it.

    Shapes: ``present[name]`` bool (n_rows,); ``parts[name]`` has as many rows as it has True, in the same order.
    """

    parts: Mapping[str, SparseRows | DenseRows | TokenRows]
    present: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.present.values())))

    @property
    def form(self) -> dict[str, Form]:
        """The forms of the parts."""
        return {name: part.form for name, part in self.parts.items()}

    @property
    def shape(self) -> torch.Size:
        """(n_rows, features of all parts), as Pyro's trace printers ask for it."""
        return torch.Size((len(self), sum(form.n_features for form in self.form.values())))

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return next(iter(self.present.values())).device

    @property
    def blank(self) -> Tensor:
        """Which items have nothing but blank parts, or none at all, bool (n_rows,)."""
        blank = torch.ones(len(self), dtype=torch.bool, device=self.device)
        for name, part in self.parts.items():
            blank[self.items(name)[~part.blank]] = False
        return blank

    @property
    def n_outputs(self) -> int:
        """Numbers that the decoders make for all of them, by head."""
        return sum(part.n_outputs for part in self.parts.values())

    def items(self, name: str) -> Tensor:
        """The rows that have this part, (n_present,)."""
        return self.present[name].nonzero().squeeze(-1)

    def select(self, rows: Tensor) -> PartRows:
        """The chosen rows, in the order given."""
        parts = {}
        for name, part in self.parts.items():
            place = self.present[name].cumsum(0) - 1
            parts[name] = part.select(place[rows[self.present[name][rows]]])
        return PartRows(parts, {name: there[rows] for name, there in self.present.items()})

    def only(self, kept: Mapping[str, Tensor]) -> PartRows:
        """The same without the parts for which ``kept[name]``, bool (n_rows,), is False."""
        parts, present = {}, {}
        for name, part in self.parts.items():
            there = self.present[name]
            present[name] = there & kept[name]
            parts[name] = part.select(kept[name][there].nonzero().squeeze(-1))
        return PartRows(parts, present)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PartRows:
        """The same on another device or with numbers of another type."""
        parts = {name: part.to(device, dtype) for name, part in self.parts.items()}
        return PartRows(parts, {name: there.to(device) for name, there in self.present.items()})


@dataclass(frozen=True, eq=False)
class NoRows:
    """Items of which no content is read: a number of them, and where the fit is."""

    n_rows: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return self.n_rows

    @property
    def form(self) -> Form:
        """No features."""
        return Form("nothing", (0,))

    @property
    def shape(self) -> torch.Size:
        """(n_rows, 0)."""
        return torch.Size((self.n_rows, 0))

    @property
    def n_outputs(self) -> int:
        """Nothing is decoded."""
        return 0

    def select(self, rows: Tensor) -> NoRows:
        """As many as are chosen."""
        return replace(self, n_rows=len(rows))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> NoRows:
        """The same on another device."""
        return self if device is None else replace(self, device=torch.device(device))


OneRows = SparseRows | DenseRows | TokenRows
"""Rows of one content."""
AnyRows = OneRows | PartRows | NoRows
"""Rows of content of any kind."""
