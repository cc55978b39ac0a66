"""A data set read as another one was: its words counted in the columns of the other's, and rows found by their ids."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import AnyContent, Tokens, Vectors
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

log = logging.getLogger(__name__)


def places_of(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The row of each external id in ``known``, -1 where it is not there, int64 (n_ids,).

    Where one column is of whole numbers and the other of texts, what they spell counts.
    """
    if ids.dtype.kind != known.dtype.kind:
        ids, known = ids.astype(str).astype(object), known.astype(str).astype(object)
    return pd.Index(known).get_indexer(pd.Index(ids)).astype(np.int64)


def aligned(dataset: Dataset, known: Dataset) -> Dataset:
    """The same data set with each content that ``known`` has too in the form that it has there.

    Words and tokens of one vocabulary become those of the other; what that does not know is left out, and counted in
    the log. Raises InputError where a content is of another kind or size.
    """
    changed = {
        name: _aligned(name, one, known.contents[name])
        for name, one in dataset.contents.items()
        if name in known.contents
    }
    text = changed.pop("text", dataset.content)
    assert isinstance(text, Content)
    return replace(dataset, content=text, others=dataset.others | changed)


def _aligned(name: str, one: AnyContent, known: AnyContent) -> AnyContent:
    if isinstance(one, Content) and isinstance(known, Content):
        return _words(name, one, known)
    if isinstance(one, Tokens) and isinstance(known, Tokens):
        return _tokens(name, one, known)
    if isinstance(one, Vectors) and type(one) is type(known) and one.values.shape[1:] == known.values.shape[1:]:
        return replace(one, units=known.units)
    raise _other(name, one, known)


def _words(name: str, one: Content, known: Content) -> Content:
    counts = one.counts
    if one.vocabulary != known.vocabulary and one.vocabulary is not None and known.vocabulary is not None:
        column_of = {word: column for column, word in enumerate(known.vocabulary)}
        columns = np.array([column_of.get(word, -1) for word in one.vocabulary], np.int64)
        cells = counts.tocoo()
        there = columns[cells.col] >= 0
        shape = (one.n_items, known.n_features)
        counts = sp.csr_matrix((cells.data[there], (cells.row[there], columns[cells.col[there]])), shape)
        _tell(name, int((columns >= 0).sum()), len(columns), known.n_features)
    elif one.n_features != known.n_features:
        raise _other(name, one, known)
    return Content(counts, known.vocabulary, known.vectorizer, one.given)


def _tokens(name: str, one: Tokens, known: Tokens) -> Tokens:
    if one.vocabulary == known.vocabulary:
        return replace(one, tokenizer=known.tokenizer)
    number_of = {token: number for number, token in enumerate(known.vocabulary)}
    numbers = np.array([number_of.get(token, 0) for token in one.vocabulary], np.int32)
    _tell(name, int((numbers > 0).sum()), len(numbers) - 1, known.n_features - 1)
    return Tokens(one.indptr, numbers[one.tokens], known.vocabulary, one.present, known.tokenizer)


def _tell(name: str, n_both: int, n_own: int, n_known: int) -> None:
    if not n_both:
        problem = f"the content {name} has no word of the {n_known:,} that the run knows"
        raise InputError(problem, "give the contents that the run is of")
    told = counted(n_both, "word", "are", of=n_own)
    log.info("%s: %s among the %d that the run knows, others count no more", name, told, n_known)


def _other(name: str, one: AnyContent, known: AnyContent) -> InputError:
    told = [f"{content.kind} of {_size(content)}" for content in (one, known)]
    return InputError(f"the content {name} is {told[0]}, that of the run {told[1]}", "make it as that was made")


def _size(content: AnyContent) -> str:
    shape = content.values.shape[1:] if isinstance(content, Vectors) else (content.n_features,)
    return " x ".join(f"{n:,}" for n in shape)
