"""Vectors, images and tokens: what is refused, selection against Python lists, round trips, mapped files."""

import itertools
import logging
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from pyro_cvae.data import contents as module
from pyro_cvae.data import files
from pyro_cvae.data.aligned import aligned
from pyro_cvae.data.chosen import pick
from pyro_cvae.data.content import Content, TextVectorizer
from pyro_cvae.data.contents import UNKNOWN, Images, Tokens, Vectors, describe, of_texts
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.errors import InputError

TEXTS = ["The sky; the SEA", None, "sea-side, the end", "  "]


def vectors(values=((1, 2), (0, 0), (3, -4), (0, 0)), present=(True, False, True, True)):
    return Vectors(np.array(values, np.float32), np.array(present, bool))


def images(dtype=np.uint8):
    values = np.arange(4 * 1 * 2 * 3).reshape(4, 1, 2, 3).astype(dtype)
    values[1] = 0
    return Images(values / np.float32(24) if dtype != np.uint8 else values, np.array([True, False, True, True]))


def words():
    vectorizer = TextVectorizer.fit(["comet nebula", "sail"])
    counts = vectorizer.counts(["comet comet", "", "sail nebula", ""])
    return Content(counts, vectorizer.vocabulary, vectorizer, np.array([True, False, True, True]))


def dataset(**others):
    others = others or {"pixels": images(), "tags": words(), "title-tokens": Tokens.fit(TEXTS), "sentences": vectors()}
    pairs = Interactions.from_arrays([0, 1], [2, 3], n_users=2, n_items=4)
    return Dataset("d", pairs, Content(sp.csr_matrix((4, 0))), [0, 1], list("abcd"), others=others)


# --- what is refused -------------------------------------------------------------------------------------------------

GOOD = np.ones(3, bool)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Vectors(np.ones((3, 2, 1)), GOOD), r"vectors have shape (3, 2, 1)"),
        (lambda: Vectors(np.ones((3, 0)), GOOD), r"vectors have shape (3, 0)"),
        (lambda: Vectors(np.array([["a"], ["b"], ["c"]]), GOOD), "of type <U1"),
        (lambda: Vectors(np.array([[None], [1], [2]], object), GOOD), "of type object"),
        (lambda: Vectors(np.array([[1], [np.nan], [1]]), GOOD), "row 2 has a number that is not finite"),
        (lambda: Vectors(np.array([[1.0], [2], [1e39]]), GOOD), "row 3 has a number that is not finite"),
        (lambda: Vectors(np.ones((3, 2)), GOOD[:2]), "not told for each of 3"),
        (lambda: Vectors(np.ones((3, 2)), np.ones(3)), "not told for each of 3"),
        (lambda: Vectors(np.ones((3, 2)), np.array([True, True, False])), "of an item that has none are not zero"),
        (lambda: Vectors(np.ones((3, 2)), GOOD, np.ones(2)), "no mean and deviation above 0 of each of 2 features"),
        (lambda: Vectors(np.ones((3, 2)), GOOD, np.zeros((2, 2))), "no mean and deviation above 0"),
        (lambda: Vectors(np.ones((3, 2)), GOOD, np.full((2, 2), np.nan)), "no mean and deviation above 0"),
        (lambda: Images(np.ones((3, 8, 8)), GOOD), "images have shape (3, 8, 8)"),
        (lambda: Images(np.ones((3, 8, 8, 3)), GOOD), "channels last"),
        (lambda: Images(np.ones((3, 1, 8, 8), np.int64), GOOD), "images are of type int64"),
        (lambda: Images(np.full((3, 1, 8, 8), 1.5), GOOD), "row 1 has a pixel below 0 or above 1"),
        (lambda: Images(np.full((3, 1, 8, 8), np.nan), GOOD), "row 1 has a number that is not finite"),
        (lambda: Tokens([0, 1], [2], ("a", "b"), GOOD[:1]), "numbers of tokens run from 2 to 2"),
        (lambda: Tokens([0, 1], [-1], ("a", "b"), GOOD[:1]), "numbers of tokens run from -1 to -1"),
        (lambda: Tokens([0, 1], [0.5], ("a", "b"), GOOD[:1]), "no list of whole numbers"),
        (lambda: Tokens([0, 2], [1], ("a", "b"), GOOD[:1]), "do not fit"),
        (lambda: Tokens([0, 2, 1], [1], ("a", "b"), GOOD[:2]), "do not fit"),
        (lambda: Tokens([1, 1], [1], ("a", "b"), GOOD[:1]), "do not fit"),
        (lambda: Tokens([], [], ("a", "b"), GOOD[:0]), "do not fit"),
        (lambda: Tokens([0, 1], [1], ("a", "a"), GOOD[:1]), "has a token twice"),
        (lambda: Tokens([0, 1], [1], ("a", 5), GOOD[:1]), "no text"),
        (lambda: Tokens([0, 1], [1], ("a", "b"), ~GOOD[:1]), "has tokens"),
        (lambda: Content(sp.csr_matrix([[1], [1]]), given=np.array([True, False])), "has counts"),
        (lambda: Content(sp.csr_matrix([[1], [1]]), given=GOOD), "not told for each of 2"),
        (lambda: dataset(text=vectors()), "cannot be called 'text'"),
        (lambda: dataset(**{"-a": vectors()}), "cannot be called '-a'"),
        (lambda: dataset(**{"a/b": vectors()}), "cannot be called 'a/b'"),
        (lambda: dataset(a=vectors().select([0, 1])), "the content a has 2 items, the interactions 4"),
        (lambda: dataset(a=np.ones((4, 2))), "the content a is a ndarray"),
    ],
)
def test_contents_that_cannot_be_used(make, words):
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        make()
    assert caught.value.remedy and "\n" not in str(caught.value)


def test_numbers_are_kept_as_they_are_or_become_float32():
    assert vectors().values.dtype == np.float32
    assert Vectors(np.ones((3, 2), np.int8), GOOD).values.dtype == np.float32
    assert (images().values.dtype, images(np.float32).values.dtype) == (np.uint8, np.float32)
    assert Tokens([0, 1], np.array([1], np.int64), ("a", "b"), GOOD[:1]).tokens.dtype == np.int32
    assert (vectors().n_items, vectors().n_features, images().n_features) == (4, 2, 6)


def test_rows_are_looked_at_in_blocks(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 16)  # two rows of two numbers
    assert [(b.start, b.stop) for b in module.blocks(np.zeros((5, 2), np.float32))] == [(0, 2), (2, 4), (4, 5)]
    values = np.zeros((5, 2))
    values[4, 1] = np.inf
    with pytest.raises(InputError, match="row 5 has"):
        Vectors(values, np.ones(5, bool))


# --- tokens ----------------------------------------------------------------------------------------------------------


def sequences(tokens):
    return [[tokens.vocabulary[t] for t in tokens.tokens[a:b]] for a, b in itertools.pairwise(tokens.indptr)]


def test_texts_become_tokens_in_their_order_stop_words_kept(caplog):
    with caplog.at_level(logging.INFO):
        tokens = Tokens.fit(TEXTS, n_tokens=3)
    assert tokens.vocabulary == (UNKNOWN, "the", "sea", "end")  # three times, twice, then by the alphabet
    assert sequences(tokens) == [["the", UNKNOWN, "the", "sea"], [], ["sea", UNKNOWN, "the", "end"], []]
    assert tokens.present.tolist() == [True, False, True, False]
    assert "2 of 8 words are outside the vocabulary of 3" in caplog.text


def test_new_texts_by_the_same_vocabulary_and_none_is_cut_short():
    tokens = Tokens.fit(TEXTS)
    long = " ".join(["Sea", "élan", "a", "_1"] * 5000)
    new = tokens.of([long, "?!", None])
    assert new.vocabulary is tokens.vocabulary
    assert sequences(new) == [["sea", UNKNOWN, UNKNOWN, UNKNOWN] * 5000, [], []]
    assert new.present.tolist() == [True, True, False]
    assert new.of([]).n_items == 0
    with pytest.raises(InputError, match="no words"):
        Tokens.fit(["?", None])


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.data())
def test_tokens_are_the_words_of_scikit_learn_and_select_is_that_of_lists(texts, data):
    from sklearn.feature_extraction.text import CountVectorizer

    analyze = CountVectorizer(token_pattern=r"(?u)\b\w+\b").build_analyzer()
    expected = [analyze(text) for text in texts]
    tokens = Tokens.fit([*texts, "word"])
    assert sequences(tokens)[:-1] == expected
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=9))
    got = tokens.select(np.array(rows, np.int64))
    assert sequences(got) == [expected[row] for row in rows]
    assert got.present.tolist() == [bool(texts[row].strip()) for row in rows]


def test_select_and_spread_of_the_others():
    for content in (vectors(), images(), images(np.float32)):
        got = content.select([2, 0])
        np.testing.assert_array_equal(got.values, content.values[[2, 0]])
        assert (type(got), got.present.tolist()) == (type(content), [True, True])
        back = content.spread(np.array([5, 1, 0, 3]), 6)
        np.testing.assert_array_equal(back.values[[5, 1, 0, 3]], content.values)
        assert not back.values[[2, 4]].any()
        assert back.present.tolist() == [True, False, False, True, False, True]
        assert content.spread(np.arange(4), 4) is content
    got = words().select([2, 1])
    assert (got.counts != words().counts[[2, 1]]).nnz == 0
    assert got.present.tolist() == [True, False]


def test_a_blank_text_is_none_as_words_and_as_tokens():
    for kind in ("words", "tokens"):
        content = of_texts(kind, TEXTS)
        assert (content.kind, content.present.tolist()) == (kind, [True, False, True, False])
    assert of_texts("words", ["a comet", "the"]).given is None


# --- within a data set -----------------------------------------------------------------------------------------------


def assert_same(got, expected):
    assert type(got) is type(expected)
    for name, part in module.parts_of(expected).items():
        other = module.parts_of(got)[name]
        if isinstance(part, np.ndarray):
            np.testing.assert_array_equal(other, part)
            assert (other.dtype, other.shape) == (part.dtype, part.shape)
        else:
            assert other == part


@pytest.mark.parametrize("mapped", [False, True])
def test_round_trip_is_exact_and_large_arrays_stay_on_disk(mapped, tmp_path, monkeypatch):
    if mapped:
        monkeypatch.setattr(files, "_MAPPED_BYTES", 0)
    data = dataset(z=vectors(), **dataset().others, floats=images(np.float32))
    data.save(tmp_path)
    again = Dataset.load(tmp_path)
    assert list(again.others) == list(data.others)
    for name, content in data.others.items():
        assert_same(again.others[name], content)
    assert again.fingerprint() == data.fingerprint()
    assert {p.suffix for p in tmp_path.iterdir()} == {".parquet", ".json", ".safetensors", ".npy"}
    for name in ("z", "pixels"):
        assert isinstance(again.others[name].values, np.memmap) == mapped
    again.save(tmp_path)  # in place of the files that are mapped
    assert Dataset.load(tmp_path).fingerprint() == data.fingerprint()
    other = replace(data, others=data.others | {"z": vectors(values=((5, 5), (0, 0), (5, 5), (5, 5)))})
    other.save(tmp_path)
    np.testing.assert_array_equal(again.others["z"].values, vectors().values)
    assert Dataset.load(tmp_path).fingerprint() == other.fingerprint()


def test_contents_give_what_the_items_have_by_name():
    data = dataset()
    assert list(data.contents) == ["pixels", "tags", "title-tokens", "sentences"]
    assert pick(data.contents, "tags") is data.others["tags"]
    with pytest.raises(InputError, match="no content called 'text'; use pixels, tags"):
        pick(data.contents, "text")
    facts = data.describe()
    assert facts["content pixels"] == "images, 1 x 2 x 3, of 3 of 4 items"
    assert facts["content tags"] == "words, 3 entries of 3, of 3 of 4 items"
    assert facts["content title-tokens"] == "tokens, 8 of a vocabulary of 6, of 2 of 4 items"
    assert describe(vectors()) == facts["content sentences"] == "vectors, 2, of 3 of 4 items"
    assert "sentences=Vectors(4 items, 2)" in repr(data) and "\n" not in repr(data)


def test_the_fingerprint_sees_every_part_of_every_content():
    data = dataset()
    tokens, tags = data.others["title-tokens"], data.others["tags"]
    moved = vectors().values.copy()
    moved[0, 0] += 1e-6
    changed = [
        {},
        {"pixels": images()},
        {"sentences": vectors()},
        {"vectors": vectors()},
        {"sentences": Vectors(moved, vectors().present)},
        {"sentences": vectors(present=[True] * 4)},
        {"sentences": replace(vectors(), units=np.ones((2, 2)))},
        {"sentences": Images(vectors().values.clip(0, 1)[:, None, None], vectors().present)},
        {"t": tokens},
        {"t": replace(tokens, vocabulary=(*tokens.vocabulary, "more"))},
        {"t": replace(tokens, tokens=np.zeros_like(tokens.tokens))},
        {"t": replace(tokens, present=np.ones(4, bool))},
        {"tags": tags},
        {"tags": Content(tags.counts, tags.vocabulary, tags.vectorizer)},
        {"tags": Content(tags.counts, tags.vocabulary, None, tags.given)},
    ]
    prints = [replace(data, others=others).fingerprint() for others in changed]
    assert len({*prints, data.fingerprint()}) == len(changed) + 1
    backwards = dict(reversed(data.others.items()))
    assert replace(data, others=backwards).fingerprint() == data.fingerprint()
    given_none = replace(data, content=Content(sp.csr_matrix((4, 0)), given=np.zeros(4, bool)))
    assert given_none.fingerprint() != data.fingerprint()


def test_which_items_have_a_text_survives_a_round_trip(tmp_path):
    data = replace(dataset(a=vectors()), content=words())
    data.save(tmp_path)
    assert Dataset.load(tmp_path).content.given.tolist() == [True, False, True, True]


def test_units_survive_a_round_trip_and_hold_for_data_that_are_read_as_others_were(tmp_path):
    units = np.array([[1.0, -2.0], [3.0, 1e9]])
    data = dataset(a=replace(vectors(), units=units))
    data.save(tmp_path)
    assert Dataset.load(tmp_path).others["a"].units.tolist() == units.tolist()
    other = replace(vectors(), units=np.ones((2, 2)))
    assert aligned(dataset(a=other), data).others["a"].units.tolist() == units.tolist()


@given(st.data())
def test_a_flipped_byte_is_never_read_as_another_data_set(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    dataset().save(folder)
    path = data.draw(st.sampled_from(sorted(folder.glob("content-*"))))
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    try:
        got = Dataset.load(folder)
    except InputError as error:
        assert error.path is not None
        return
    assert got.fingerprint() == dataset().fingerprint()


@pytest.mark.parametrize(
    "name", ["content-pixels.npy", "content-pixels.safetensors", "content-title-tokens.safetensors"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_a_damaged_folder_is_an_error_that_names_the_file(name, damage, tmp_path):
    dataset().save(tmp_path)
    path = tmp_path / name
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": raw[: len(raw) - 3], "other": b"\x80not one of ours"}[damage])
    with pytest.raises(InputError, match=name):
        Dataset.load(tmp_path)


def test_a_stored_name_cannot_lead_out_of_the_folder(tmp_path):
    dataset().save(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text("utf-8").replace('"pixels"', '"../pixels"'), "utf-8")
    with pytest.raises(InputError, match=r"cannot be called '[.][.]/pixels'"):
        Dataset.load(tmp_path)


@pytest.mark.slow
def test_a_large_array_is_checked_and_fingerprinted_without_being_read_whole(tmp_path):
    values = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (4, 2**24))  # 256 MiB
    values[3, -1] = 1
    del values
    tracemalloc.start()
    data = dataset(big=Vectors(files.read_npy(tmp_path / "big.npy"), np.array([False, True, False, True])))
    data.save(tmp_path / "saved")
    again = Dataset.load(tmp_path / "saved")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(again.others["big"].values, np.memmap) and again.others["big"].values[3, -1] == 1
    assert peak < 2**27, f"{peak / 2**20:.0f} MiB"


@given(
    st.sampled_from([np.float32, np.uint8, np.float64, np.int16, bool]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.booleans(),
)
def test_npy_files_are_numpys_own(tmp_path_factory, dtype, shape, fortran):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    values = np.asfortranarray(values) if fortran else values
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    np.save(path, values)
    got = files.read_npy(path)
    np.testing.assert_array_equal(got, values)
    assert (got.dtype, got.shape) == (values.dtype, values.shape)
    files.write_npy(path, values)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), values)
