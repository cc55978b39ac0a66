"""Content: scalings against their definitions (and scikit-learn), texts to counts, JSON round trips."""

import json
from typing import get_args

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.feature_extraction.text import TfidfTransformer

from pyro_cvae.data.content import Content, ContentScaling, TextVectorizer
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Scaling

COUNTS = arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=st.integers(0, 9)).map(
    lambda dense: sp.csr_matrix(dense.astype(np.float64))
)


def scaled(counts, name):
    return ContentScaling.fit(counts, name).transform(counts)


@given(COUNTS)
def test_word_max_divides_each_word_by_its_largest_count(counts):
    dense = counts.toarray()
    expected = dense / np.maximum(dense.max(axis=0, keepdims=True), 1)
    np.testing.assert_array_equal(scaled(counts, "word-max").toarray(), expected.astype(np.float32))


@given(COUNTS)
def test_row_max_divides_each_row_by_its_largest_count_and_leaves_empty_rows_empty(counts):
    dense = counts.toarray()
    expected = dense / np.maximum(dense.max(axis=1, keepdims=True), 1)
    np.testing.assert_array_equal(scaled(counts, "row-max").toarray(), expected.astype(np.float32))


@given(COUNTS)
def test_tfidf_is_scikit_learns(counts):
    expected = TfidfTransformer(sublinear_tf=True).fit_transform(counts).toarray()
    np.testing.assert_allclose(scaled(counts, "tfidf").toarray(), expected, rtol=1e-6, atol=0)


@given(COUNTS)
def test_tfidf_counts_have_the_weights_of_tfidf_and_the_length_of_damped_counts(counts):
    dense = counts.toarray()
    damped = np.where(dense > 0, 1 + np.log(np.maximum(dense, 1)), 0.0)
    weighted = damped * (np.log((1 + len(dense)) / (1 + (dense > 0).sum(0))) + 1)
    length, total = damped.sum(1, keepdims=True), weighted.sum(1, keepdims=True)
    expected = np.where(total > 0, weighted * length / np.where(total > 0, total, 1), 0.0)
    found = scaled(counts, "tfidf-counts").toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)
    np.testing.assert_allclose(found.astype(np.float64).sum(1), damped.sum(1), rtol=1e-6, atol=0)
    cosines = scaled(counts, "tfidf").toarray()  # the same directions
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found / np.where(norms > 0, norms, 1), cosines, rtol=1e-5, atol=0)


def test_tfidf_counts_of_a_new_text_use_the_frequencies_that_were_learned():
    scaling = ContentScaling.fit(sp.csr_matrix([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), "tfidf-counts")
    idf = np.log([4 / 3, 4 / 2, 4 / 1]) + 1  # the last word is in no known text
    np.testing.assert_allclose(scaling.factors, idf, rtol=1e-15)
    found = scaling.transform(sp.csr_matrix([[5.0, 0.0, 1.0], [0.0, 0.0, 0.0]])).toarray()
    damped = np.array([1 + np.log(5), 0, 1])
    np.testing.assert_allclose(found[0], damped * idf * damped.sum() / (damped @ idf), rtol=1e-6)
    assert not found[1].any()


@given(COUNTS)
def test_none_and_binary(counts):
    np.testing.assert_array_equal(scaled(counts, "none").toarray(), counts.toarray())
    np.testing.assert_array_equal(scaled(counts, "binary").toarray(), counts.toarray() > 0)


@given(COUNTS, st.sampled_from(get_args(Scaling)))
def test_a_stored_scaling_gives_the_same_bits_and_never_a_nan(counts, name):
    scaling = ContentScaling.fit(counts, name)
    again = ContentScaling.from_json(json.loads(json.dumps(scaling.to_json())))
    got, expected = again.transform(counts), scaling.transform(counts)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.toarray(), expected.toarray())
    assert np.isfinite(got.data).all()


@given(COUNTS, st.sampled_from(get_args(Scaling)))
def test_transform_leaves_its_input_alone(counts, name):
    before = counts.copy()
    out = ContentScaling.fit(counts, name).transform(counts)
    out.data[:] = -1
    out.indices[:] = 0
    np.testing.assert_array_equal(counts.toarray(), before.toarray())


def test_a_new_text_uses_what_was_learned_and_is_clipped():
    scaling = ContentScaling.fit(sp.csr_matrix([[4.0, 0.0], [2.0, 0.0]]), "word-max")
    np.testing.assert_array_equal(
        scaling.transform(sp.csr_matrix([[8.0, 3.0], [1.0, 0.0]])).toarray(), [[1, 1], [0.25, 0]]
    )


def test_wrong_scalings_are_refused():
    counts = sp.csr_matrix([[1.0, 2.0]])
    with pytest.raises(InputError, match="word-max"):
        ContentScaling.fit(counts, "wordmax")
    with pytest.raises(InputError, match="3 features"):
        ContentScaling.fit(counts, "tfidf").transform(sp.csr_matrix([[1.0, 2.0, 3.0]]))
    for bad in (
        {},
        {"name": "odd", "factors": None},
        {"name": "tfidf", "factors": None},
        {"name": "tfidf", "factors": "x"},
        {"name": "tfidf-counts", "factors": None},
        {"name": "none", "factors": [1.0, 1.0]},
    ):
        with pytest.raises(InputError, match="damaged"):
            ContentScaling.from_json(bad)


def test_content_is_canonical_and_does_not_share_memory():
    given_counts = sp.csr_matrix((np.array([1.0, 2.0, 0.0, 3.0]), [2, 0, 1, 2], [0, 4, 4]), shape=(2, 3))
    content = Content(given_counts)
    assert content.counts.toarray().tolist() == [[2, 0, 4], [0, 0, 0]]
    assert (content.counts.nnz, content.counts.has_sorted_indices) == (2, True)
    assert content.empty.tolist() == [False, True]
    assert given_counts.nnz == 4


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_counts_must_be_finite_and_not_negative(bad):
    with pytest.raises(InputError, match="count"):
        Content(sp.csr_matrix([[1.0, bad]]))


def test_a_vocabulary_of_another_size_is_refused():
    with pytest.raises(InputError, match="3 words"):
        Content(sp.csr_matrix([[1.0, 2.0]]), ("a", "b", "c"))


TEXTS = [
    "The comet and the nebula: a comet in the telescope",
    "A telescope for the harbour",
    "Harbour, sail, sail and the harbour telescope",
]


def test_the_vocabulary_is_the_top_words_by_tfidf_without_stop_words():
    # c ln(N / df) summed: comet and sail 2 ln 3, nebula ln 3, harbour 3 ln 1.5, telescope 0.
    assert TextVectorizer.fit(TEXTS, 2).vocabulary == ("comet", "sail")
    assert TextVectorizer.fit(TEXTS, 3).vocabulary == ("comet", "harbour", "sail")
    assert TextVectorizer.fit(TEXTS, 99).vocabulary == ("comet", "harbour", "nebula", "sail", "telescope")


def test_counts_and_new_texts_after_a_round_trip_through_json():
    vectorizer = TextVectorizer.fit(TEXTS)
    again = TextVectorizer.from_json(json.dumps(vectorizer.to_json()))
    assert again == vectorizer
    assert again.counts(TEXTS).toarray().tolist() == [[2, 0, 1, 0, 1], [0, 1, 0, 0, 1], [0, 2, 0, 2, 1]]
    assert again.counts(["Unheard of; SAIL the the", ""]).toarray().tolist() == [[0, 0, 0, 1, 0], [0] * 5]


def test_texts_without_words_are_refused():
    for texts in (["the and of", ""], []):
        with pytest.raises(InputError, match="no words"):
            TextVectorizer.fit(texts)


@pytest.mark.parametrize("bad", ["{", "[]", '{"kind": "pickle", "vocabulary": []}', '{"vocabulary": [1]}', "null"])
def test_a_damaged_vectorizer_is_refused(bad):
    with pytest.raises(InputError, match="damaged"):
        TextVectorizer.from_json(bad)
