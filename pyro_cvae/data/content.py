"""Content: word counts of the items, how they are scaled, and how texts become counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, get_args

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer

from pyro_cvae.data.text import tell_doubts, tokenizer_of
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import ContentKind, Scaling
from pyro_cvae.text import counted

WEIGHTED = ("word-max", "tfidf", "tfidf-counts")


@dataclass(frozen=True, eq=False)
class Content:
    """Counts of the features (words) of every item, as read.

    Parameters:
        counts: Finite and not negative, sparse float64 (n_items, n_features), indices sorted, no stored zeros.
        vocabulary: The word of each feature, or ``None``.
        vectorizer: What turned texts into these counts and can do so with new ones, or ``None``.
        given: False for items that have none, as against one without words, bool (n_items,); ``None``: all have one.
    """

    kind: ClassVar[ContentKind] = "words"
    counts: sp.csr_matrix
    vocabulary: tuple[str, ...] | None = None
    vectorizer: TextVectorizer | None = None
    given: np.ndarray | None = None

    def __post_init__(self) -> None:
        counts = sp.csr_matrix(self.counts, dtype=np.float64)
        if counts is self.counts or np.shares_memory(counts.data, self.counts.data):
            counts = counts.copy()
        counts.sum_duplicates()
        counts.eliminate_zeros()
        if not (np.isfinite(counts.data).all() and (counts.data > 0).all()):
            raise InputError("a count of the content is negative or not finite", "give counts of 0 or more")
        if self.vocabulary is not None and len(self.vocabulary) != counts.shape[1]:
            words, columns = counted(len(self.vocabulary), "word"), counted(counts.shape[1], "column")
            raise InputError(f"the vocabulary has {words}, the counts {columns}", "give one word for each column")
        object.__setattr__(self, "counts", counts)
        if self.given is not None:
            check_given(self.given, self.n_items, "words")
            if not self.empty[~self.given].all():
                raise InputError("an item that has no words has counts", "set given to True where there are words")

    def __repr__(self) -> str:
        sizes = (self.n_items, "item"), (self.n_features, "feature"), (self.counts.nnz, "entry")
        return f"Content({', '.join(counted(*size) for size in sizes)})"

    @property
    def n_items(self) -> int:
        """Number of rows."""
        return int(self.counts.shape[0])

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.counts.shape[1])

    @property
    def present(self) -> np.ndarray:
        """False for items that have none, bool (n_items,)."""
        return np.ones(self.n_items, bool) if self.given is None else self.given

    @property
    def empty(self) -> np.ndarray:
        """True for an item without a single word, bool (n_items,)."""
        return np.diff(self.counts.indptr) == 0

    def select(self, rows: Any) -> Content:
        """The content of these items, in their order: rows, an index array or a mask."""
        given = None if self.given is None else self.given[rows]
        return Content(self.counts[rows], self.vocabulary, self.vectorizer, given)

    def of(self, texts: Sequence[str | None]) -> Content:
        """Counts of other texts by this vocabulary; blank ones are items that have none. InputError without one."""
        vectorizer = self.vectorizer
        if vectorizer is None:
            if self.vocabulary is None:
                raise InputError("there is no vocabulary to count the words of a text by", "give word counts")
            vectorizer = TextVectorizer(self.vocabulary)
        given = np.array([bool(text and text.strip()) for text in texts], bool)
        counts = vectorizer.counts([text or "" for text in texts])
        return Content(counts, self.vocabulary, self.vectorizer, None if given.all() else given)


def check_given(given: Any, n_items: int, what: str) -> None:
    """Raise InputError unless it is bool (n_items,): whether each item has the content that ``what`` names."""
    if not (isinstance(given, np.ndarray) and given.dtype == bool and given.shape == (n_items,)):
        raise InputError(f"which items have {what} is not told for each of {n_items}", "give bool (n_items,)")


@dataclass(frozen=True, eq=False)
class ContentScaling:
    """How counts c_jw become the content x_jw, with what was learned from the counts it was fitted on.

    - ``none``: x = c.
    - ``binary``: x = 1 where c > 0.
    - ``word-max``: x = min(1, c_jw / max(1, max_j' c_j'w)), the paper's: each word by its largest count over the
      articles (section 4.1); only a new text can reach the clip.
    - ``row-max``: x = c_jw / max(1, max_w' c_jw').
    - ``tfidf``: (1 + ln c_jw) * (ln((1 + N) / (1 + df_w)) + 1), each row divided by its Euclidean norm; as
      scikit-learn's ``TfidfTransformer(sublinear_tf=True)``.
    - ``tfidf-counts``: the same weights, each row scaled to the total of its 1 + ln c: pseudo-counts of a text of that
      length in which a rare word counts for more than a frequent one.

    Parameters:
        name: One of the above.
        factors: What was learned for each feature, float64 (n_features,): the divisor of ``word-max``, the inverse
            document frequency of the last two; ``None`` for the others.
    """

    name: Scaling
    factors: np.ndarray | None = None

    @classmethod
    def fit(cls, counts: sp.csr_matrix, name: Scaling) -> ContentScaling:
        """Learn the scaling ``name`` from counts (n_items, n_features); raises InputError for an unknown name."""
        if name not in get_args(Scaling):
            raise InputError(f"unknown content scaling {name!r}", "use one of " + ", ".join(get_args(Scaling)))
        if name == "word-max":
            largest = counts.max(axis=0).toarray().ravel() if counts.shape[0] else np.zeros(counts.shape[1])
            return cls(name, np.maximum(largest.astype(np.float64), 1.0))
        if name in ("tfidf", "tfidf-counts"):
            frequency = np.bincount(counts.indices[counts.data > 0], minlength=counts.shape[1])
            return cls(name, np.log((1.0 + counts.shape[0]) / (1.0 + frequency)) + 1.0)
        return cls(name)

    def transform(self, counts: sp.csr_matrix) -> sp.csr_matrix:
        """The content of these counts (any rows, same features), float32, empty rows kept empty.

        Raises InputError if the number of features is not the one it was fitted on.
        """
        if self.factors is not None and counts.shape[1] != len(self.factors):
            raise InputError(
                f"the counts have {counted(counts.shape[1], 'feature')}, the scaling {len(self.factors)}",
                "use the vocabulary that the model was fitted with",
            )
        data, columns = counts.data.astype(np.float64), counts.indices
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        if self.name == "binary":
            data = (data > 0).astype(np.float64)
        elif self.name == "word-max":
            assert self.factors is not None
            data = np.minimum(data / self.factors[columns], 1.0)
        elif self.name == "row-max":
            largest = np.ones(counts.shape[0])
            np.maximum.at(largest, rows, data)
            data = data / largest[rows]
        elif self.name == "tfidf":
            assert self.factors is not None
            data = (1.0 + np.log(data)) * self.factors[columns]
            norms = np.sqrt(np.bincount(rows, data**2, minlength=counts.shape[0]))
            data = data / norms[rows]
        elif self.name == "tfidf-counts":
            assert self.factors is not None
            damped = 1.0 + np.log(data)
            data = damped * self.factors[columns]
            length, total = (np.bincount(rows, part, minlength=counts.shape[0]) for part in (damped, data))
            data = data * (length[rows] / total[rows])
        return sp.csr_matrix((data.astype(np.float32), columns.copy(), counts.indptr.copy()), shape=counts.shape)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` turns back into an equal scaling."""
        return {"name": self.name, "factors": None if self.factors is None else self.factors.tolist()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ContentScaling:
        """The scaling that :meth:`to_json` wrote; raises InputError if it is damaged."""
        try:
            name, factors = value["name"], value["factors"]
            learned = None if factors is None else np.asarray(factors, np.float64)
        except (KeyError, TypeError, ValueError):
            raise InputError("the stored content scaling is damaged", "restore the run folder") from None
        if name not in get_args(Scaling) or (learned is None) == (name in WEIGHTED):
            raise InputError("the stored content scaling is damaged", "restore the run folder")
        return cls(name, learned)


@dataclass(frozen=True)
class TextVectorizer:
    """Texts to word counts by a fixed vocabulary: the paper's recipe (section 4.1), with scikit-learn's tokenizer.

    Lower case, tokens by ``token_pattern``, English stop words out, and of the rest the ``n_words`` with the largest
    tf-idf summed over the texts, sum_j c_jw ln(N / df_w); ties go by the alphabet. Another ``tokenizer`` than "words"
    (:func:`pyro_cvae.data.text.tokenizer_of`) takes the place of pattern and stop words. It is stored as JSON, not
    pickled.
    """

    vocabulary: tuple[str, ...]
    token_pattern: str = r"(?u)\b\w\w+\b"
    stop_words: str | None = "english"
    tokenizer: str = "words"

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        n_words: int = 8000,
        *,
        stop_words: str | None = "english",
        tokenizer: str = "words",
    ) -> TextVectorizer:
        """Choose the vocabulary; raises InputError if no word is left. What is doubtful of it is told in the log."""
        texts = list(texts)
        if tokenizer == "words":
            counter = CountVectorizer(token_pattern=cls.token_pattern, stop_words=stop_words)
        else:
            stop_words, counter = None, CountVectorizer(analyzer=tokenizer_of(tokenizer))
        try:
            counts = counter.fit_transform(texts)
        except ValueError:
            raise InputError("the texts have no words but stop words", "give items with a text") from None
        words = counter.get_feature_names_out()
        tell_doubts(counts, texts, tokenizer)
        frequency = np.bincount(counts.indices, minlength=len(words))
        scores = np.asarray(counts.sum(axis=0)).ravel() * np.log(counts.shape[0] / frequency)
        best = np.sort(np.argsort(-scores, kind="stable")[:n_words])
        return cls(tuple(str(word) for word in words[best]), cls.token_pattern, stop_words, tokenizer)

    @cached_property
    def _counter(self) -> Any:
        if self.tokenizer != "words":
            return CountVectorizer(analyzer=tokenizer_of(self.tokenizer), vocabulary=list(self.vocabulary))
        return CountVectorizer(token_pattern=self.token_pattern, vocabulary=list(self.vocabulary))

    def counts(self, texts: Sequence[str]) -> sp.csr_matrix:
        """Word counts of texts, old or new, float64 (n_texts, n_features); words outside the vocabulary are ignored."""
        return sp.csr_matrix(self._counter.transform(texts), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` turns back into an equal vectorizer."""
        return {
            "kind": "bag-of-words",
            "token_pattern": self.token_pattern,
            "stop_words": self.stop_words,
            "vocabulary": list(self.vocabulary),
        } | ({} if self.tokenizer == "words" else {"tokenizer": self.tokenizer})

    @classmethod
    def from_json(cls, value: dict[str, Any] | str) -> TextVectorizer:
        """The vectorizer that :meth:`to_json` wrote (or its text); raises InputError if it is damaged."""
        try:
            stored = json.loads(value) if isinstance(value, str) else value
            words = tuple(stored["vocabulary"])
            if stored["kind"] != "bag-of-words" or not all(isinstance(word, str) for word in words):
                raise ValueError
            pattern, stop_words = stored["token_pattern"], stored["stop_words"]
            tokenizer = stored.get("tokenizer", "words")
            if stop_words not in (None, "english") or not isinstance(tokenizer, str):
                raise ValueError
        except (KeyError, TypeError, ValueError, RecursionError):
            raise InputError("the stored vectorizer is damaged", "restore the folder it is in") from None
        if pattern != cls.token_pattern:  # a stranger's regular expression may take for ever
            problem = f"texts are cut into words by {pattern!r}, which is no pattern of the package"
            raise InputError(problem, f"use {cls.token_pattern!r}")
        return cls(words, pattern, stop_words, tokenizer)
