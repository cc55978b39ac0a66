"""Dataset: typed ids, exact round trips, a fingerprint over everything, damage found on load."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from pyro_cvae.data.content import Content, TextVectorizer
from pyro_cvae.data.dataset import Dataset, typed_ids
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.errors import InputError


def small(**changes):
    pairs = Interactions.from_arrays(
        [0, 1, 2, 2], [1, 0, 1, 2], n_users=3, n_items=3, confidences=[np.nan, 0, 0.1, 3], times=[4, 3, 2, 1e9 + 0.25]
    )
    texts = ["comet nebula comet", "", "sail"]
    vectorizer = TextVectorizer.fit(texts)
    fields = {
        "name": "small",
        "interactions": pairs,
        "content": Content(vectorizer.counts(texts), vectorizer.vocabulary, vectorizer),
        "user_ids": ["Zoë", "b\nc", ""],
        "item_ids": [7, -3, 2**62],
        "titles": ["one", "", "drei\t3"],
        "truth": {"u": np.arange(6.0).reshape(3, 2) / 7, "a": np.array(0.1), "mask": np.array([True, False])},
    }
    return Dataset(**(fields | changes))


def plain(**changes):
    bare = Content(sp.csr_matrix((3, 4)))
    return small(**({"content": bare, "titles": None, "truth": None, "user_ids": [0, 1, 2]} | changes))


def assert_same(got, expected):
    assert got.name == expected.name
    for name, column in expected.interactions.columns().items():
        np.testing.assert_array_equal(getattr(got.interactions, name), column)
        assert getattr(got.interactions, name).dtype == column.dtype
    assert (got.content.counts != expected.content.counts).nnz == 0
    assert got.content.vocabulary == expected.content.vocabulary
    assert got.content.vectorizer == expected.content.vectorizer
    for name in ("user_ids", "item_ids"):
        assert getattr(got, name).dtype == getattr(expected, name).dtype
        assert getattr(got, name).tolist() == getattr(expected, name).tolist()
    assert (got.titles is None) == (expected.titles is None)
    assert got.titles is None or got.titles.tolist() == expected.titles.tolist()
    assert (got.truth or {}).keys() == (expected.truth or {}).keys()
    for name, value in (expected.truth or {}).items():
        np.testing.assert_array_equal(got.truth[name], value)
        assert (got.truth[name].dtype, got.truth[name].shape) == (value.dtype, value.shape)


@pytest.mark.parametrize("make", [small, plain])
def test_round_trip_is_exact(make, tmp_path):
    dataset = make()
    dataset.save(tmp_path / "a" / "b")
    assert_same(Dataset.load(tmp_path / "a" / "b"), dataset)
    assert {p.suffix for p in (tmp_path / "a" / "b").iterdir()} == {".parquet", ".json", ".safetensors"}


def test_saving_over_another_data_set_leaves_nothing_of_it(tmp_path):
    small().save(tmp_path)
    plain().save(tmp_path)
    assert_same(Dataset.load(tmp_path), plain())


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1)), unique=True, min_size=3, max_size=3))
def test_whole_ids_keep_their_type_and_their_strings_find_them(ids):
    dataset = plain(item_ids=ids)
    assert dataset.item_ids.dtype == np.int64
    np.testing.assert_array_equal(dataset.item_rows(ids), [0, 1, 2])
    short = [row for row, key in enumerate(ids) if abs(key) < 10**18]
    np.testing.assert_array_equal(dataset.item_rows([str(ids[row]) for row in short]), short)


def test_text_ids_are_not_numbers():
    dataset = small(user_ids=["1", "01", "x"])
    assert dataset.user_rows(["01", "1"]).tolist() == [1, 0]
    with pytest.raises(InputError, match="no user has the id 1; ids of users look like '1'"):
        dataset.user_rows([1])


@pytest.mark.parametrize("given_id", ["01", "+7", " 7", "7.0", 7.0, True, None, "7_", "٧", "9" * 30])
def test_what_only_resembles_a_whole_id_is_unknown(given_id):
    dataset = plain(item_ids=[7, 1, 2])
    assert dataset.item_rows([given_id], unknown="prior").tolist() == [-1]
    with pytest.raises(InputError, match="no item has the id"):
        dataset.item_rows([given_id])


def test_policies_for_unknown_ids():
    dataset = small()
    assert dataset.item_rows([7, 5, -3], unknown="drop").tolist() == [0, 1]
    assert dataset.item_rows([7, 5, -3], unknown="prior").tolist() == [0, -1, 1]
    assert dataset.item_rows(np.array([2**62, 7])).tolist() == [2, 0]
    assert dataset.item_rows([], unknown="error").dtype == np.int64
    with pytest.raises(InputError, match="error, drop or prior"):
        dataset.item_rows([7], unknown="guess")


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, "1"], "int, str"),
        ([1.0, 2.0], "float"),
        ([True, False], "bool"),
        ([None, "a"], "NoneType"),
        ([2**64], "2.63"),
    ],
)
def test_mixed_or_other_id_types_are_refused(ids, words):
    with pytest.raises(InputError, match=words):
        typed_ids(ids, "ids")


@pytest.mark.parametrize(
    "change",
    [
        {"user_ids": ["a", "b"]},
        {"item_ids": [1, 1, 2]},
        {"titles": ["a"]},
        {"content": Content(sp.csr_matrix((2, 4)))},
    ],
)
def test_parts_that_do_not_fit_are_refused(change):
    with pytest.raises(InputError):
        small(**change)


def test_the_fingerprint_sees_every_part_but_the_name():
    dataset = small()
    pairs, content = dataset.interactions, dataset.content
    changed = [
        {"user_ids": ["Zoë", "b", ""]},
        {"item_ids": ["7", "-3", str(2**62)]},
        {"titles": None},
        {"titles": ["one", "", "drei"]},
        {"truth": None},
        {"truth": dataset.truth | {"a": np.array(0.2)}},
        {"truth": dataset.truth | {"a": np.array([0.1])}},
        {"interactions": replace(pairs, times=None)},
        {"interactions": replace(pairs, confidences=None)},
        {"interactions": replace(pairs, ratings=pairs.ratings * 2)},
        {"interactions": replace(pairs, times=pairs.times + 1)},
        {"content": Content(content.counts, content.vocabulary)},
        {"content": Content(content.counts)},
        {"content": Content(content.counts * 2, content.vocabulary, content.vectorizer)},
        {"content": Content(content.counts, ("a", "b", "c"), content.vectorizer)},
    ]
    prints = {small(**change).fingerprint() for change in changed}
    assert len(prints | {dataset.fingerprint()}) == len(changed) + 1
    assert small(name="other").fingerprint() == dataset.fingerprint()
    assert len(dataset.fingerprint()) == 64


def files_of(make):
    return ["dataset.json", "interactions.parquet", "users.parquet", "items.parquet", "content.safetensors"]


@pytest.mark.parametrize("name", [*files_of(small), "truth.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_a_damaged_folder_is_an_error_that_names_the_file(name, damage, tmp_path):
    small().save(tmp_path)
    path = tmp_path / name
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": raw[: len(raw) // 2], "other": b"\x80not one of ours"}[damage])
    with pytest.raises(InputError, match=name):
        Dataset.load(tmp_path)


@given(st.data())
def test_a_flipped_byte_is_never_read_as_another_data_set(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    small().save(folder)
    path = folder / data.draw(st.sampled_from([*files_of(small), "truth.safetensors"]))
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    try:
        got = Dataset.load(folder)
    except InputError:
        return
    assert got.fingerprint() == small().fingerprint()


def test_a_folder_of_another_schema_or_of_changed_values_is_refused(tmp_path):
    small().save(tmp_path)
    facts = json.loads((tmp_path / "dataset.json").read_text("utf-8"))
    (tmp_path / "dataset.json").write_text(json.dumps(facts | {"schema": 99}), "utf-8")
    with pytest.raises(InputError, match="schema 99"):
        Dataset.load(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(facts | {"vocabulary": ["x", "y", "z"]}), "utf-8")
    with pytest.raises(InputError, match="changed or damaged"):
        Dataset.load(tmp_path)
    del facts["n_items"]
    (tmp_path / "dataset.json").write_text(json.dumps(facts), "utf-8")
    with pytest.raises(InputError, match="fit together"):
        Dataset.load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        Dataset.load(tmp_path / "nowhere")


def test_describe_counts_what_is_empty():
    facts = plain().describe()
    assert facts["pairs"] == 4
    assert facts["empty documents"] == 3
    assert facts["users without items"] == 1  # its only cell is missing
    assert facts["items without users"] == 1


def test_a_data_set_prints_as_one_short_line():
    assert repr(small()) == (
        "Dataset('small', Interactions(4 pairs of 3 users and 3 items), Content(3 items, 3 features, 3 entries))"
    )
