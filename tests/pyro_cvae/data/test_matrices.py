"""Matrices of scipy and implicit, polars and Arrow tables: nothing is lost there and back, nothing is guessed."""

import datetime as dt
import logging

import implicit.cpu.als
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import threadpoolctl

import inference
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.matrices import from_csr, to_arrow, to_csr
from pyro_cvae.data.splits import per_user
from pyro_cvae.errors import InputError

USERS, ITEMS = ["u9", "u1", "u5"], ["z", "a", "m", "b"]
TEXTS = {
    "item": ["b", "new", "a", "m", "z"],
    "text": ["oven", "sail", "mast", "proof", "lemma"],
    "title": list("BNAMZ"),
}


def matrix(kind=sp.csr_matrix):
    return kind(np.array([[0, 2.5, 0, 1], [4, 0, 0, 0], [0, 0, 3, 1]]))


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_array, sp.coo_array, sp.coo_matrix, sp.lil_matrix])
@pytest.mark.parametrize("entries", ["choices", "weights", "stars"])
def test_there_and_back(kind, entries):
    dataset = from_csr(matrix(kind), USERS, ITEMS, entries=entries)
    assert dataset.user_ids.tolist() == USERS and dataset.item_ids.tolist() == ITEMS and not dataset.contents
    back, expected = to_csr(dataset.interactions, entries), matrix().toarray()
    assert back.dtype == np.float32 and back.has_sorted_indices
    np.testing.assert_array_equal(back.toarray(), expected > 0 if entries == "choices" else expected)
    others = {"choices", "weights", "stars"} - {entries}
    for other in others:
        ones = dataset.interactions.weight_unit if other == "weights" else 1
        np.testing.assert_array_equal(to_csr(dataset.interactions, other).toarray(), ones * (expected > 0))


def test_rows_are_the_default_ids_and_repeated_cells_are_added_up():
    dataset = from_csr(sp.coo_matrix(([1.0, 2.0, 4.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2)), entries="weights")
    assert dataset.user_ids.tolist() == [0, 1] and dataset.user_ids.dtype == np.int64
    np.testing.assert_array_equal(to_csr(dataset.interactions, "weights").toarray(), [[0, 3], [4, 0]])


def test_items_of_the_table_beside_the_columns_come_behind_them():
    dataset = from_csr(matrix(), USERS, ITEMS, TEXTS)
    assert dataset.item_ids.tolist() == [*ITEMS, "new"] and dataset.titles.tolist() == list("ZAMBN")
    words = np.array(dataset.content.vocabulary)
    for text, row in zip(["lemma", "mast", "proof", "oven", "sail"], dataset.content.counts.toarray(), strict=True):
        assert text in words[row > 0]
    assert to_csr(dataset.interactions).shape == (3, 5) and dataset.interactions.item_counts[-1] == 0


def test_a_matrix_gives_the_fit_of_its_pairs():
    """Ids in order, so that the data set of the table has the same rows."""
    rng = np.random.default_rng(0)
    dense = rng.random((8, 12)) < 0.6
    users, items = [f"u{u}" for u in range(8)], list(range(12))
    table = {"item": items, "text": [" ".join(rng.choice(["sail", "mast", "oven"], 4)) for _ in items]}
    rows, columns = np.nonzero(dense)
    pairs = from_frames({"user": [users[u] for u in rows], "item": columns.tolist()}, table, name="matrix")
    dataset = from_csr(sp.csr_matrix(dense.astype(int)), users, items, table)
    assert dataset.fingerprint() == pairs.fingerprint()
    options = {"factors": 2, "hidden": (4,), "pretrain_epochs": 1, "epochs": 1, "train_per_user": 2}
    one, other = (inference.fit(data, **options).posterior.v_loc for data in (dataset, pairs))
    assert (one == other).all()


def test_what_is_no_choice_or_missing(caplog):
    cells = sp.csr_matrix(([1.0, 0.0, -1.0], ([0, 0, 1], [0, 1, 1])), shape=(2, 2))
    with caplog.at_level(logging.WARNING):
        assert len(from_csr(cells).interactions) == 1
    assert "2 of 3 entries are 0 or less" in caplog.text
    assert from_csr(cells[:1], entries="weights").interactions.observed.tolist() == [True, False]
    assert from_csr(cells, entries="stars").interactions.ratings.tolist() == [1.0, 0.0, -1.0]
    assert cells.nnz == 3 and cells.data.tolist() == [1, 0, -1]  # and the caller's matrix is as it was


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ((np.eye(2),), {}, "matrix is a ndarray; give a sparse matrix"),
        ((matrix().T, USERS, ITEMS), {}, r"4 x 3, users x items, but there are 3 user_ids; give its transpose"),
        ((matrix(), USERS[:2], ITEMS), {}, "3 x 4, users x items, but there are 2 user_ids; give one id for each"),
        ((matrix(), USERS, ["a", "a", "m", "b"]), {}, "item_ids has repeated ids"),
        ((matrix(), USERS, [1, "a", "m", "b"]), {}, "item_ids has ids of type int, str"),
        ((matrix(),), {"entries": "counts"}, "entries is 'counts'; use choices or weights or stars"),
        ((matrix() * np.nan,), {}, "an entry that is no finite number"),
        ((-matrix(),), {"entries": "weights"}, "a confidence is negative or infinite"),
        ((matrix(), USERS, ["z", "a", "m", "c"], TEXTS), {}, "item 'c' of the matrix is not in it"),
        ((matrix(), USERS, ITEMS, {"item": [*ITEMS, "a"], "text": list("vwxyz")}), {}, "row 5: item 'a' is there more"),
    ],
)
def test_what_is_refused(given, options, said):
    with pytest.raises(InputError, match=said):
        from_csr(*given, **options)


def test_implicit_takes_the_matrix():
    """Its own recommender leaves out what the training part has."""
    rng = np.random.default_rng(1)
    dataset = from_csr(sp.csr_matrix(rng.random((30, 20)) < 0.4))
    split = per_user(dataset, 4, seed=0)
    train = to_csr(split.train)
    with threadpoolctl.threadpool_limits(1, "blas"):  # implicit warns of more
        model = implicit.cpu.als.AlternatingLeastSquares(4, iterations=3, random_state=0, num_threads=1)
        model.fit(train, show_progress=False)
    found, _ = model.recommend(np.arange(30), train, 16, filter_already_liked_items=True)
    for user, items in enumerate(found):
        assert not set(items) & set(split.train.items[split.train.users == user])


# --- tables ----------------------------------------------------------------------------------------------------------


def test_an_arrow_table_and_a_polars_frame_there_and_back(tmp_path):
    pairs = {
        "user": [2**62 + 1, 7, 7],
        "item": ["a", "b", "a"],
        "weight": [1.0, None, 3.0],
        "time": [10.5, None, 7.0],
        "rating": [5.0, 1.0, 2.0],
    }
    known = {name: value for name, value in pairs.items() if name != "weight"}
    dataset = from_frames(known, ratings="stars")
    table = to_arrow(dataset)
    assert table.schema.names == ["user", "item", "rating", "time"] and table.column("user").type == pa.int64()
    assert table.column("user").to_pylist() == [7, 7, 2**62 + 1] and table.column("time").null_count == 1
    for again in (table, pl.from_arrow(table), pl.from_arrow(table).lazy().collect()):
        assert from_frames(again, ratings="stars").fingerprint() == dataset.fingerprint()
    weighed = from_csr(matrix(), USERS, ITEMS, entries="weights")
    assert to_arrow(weighed).column("weight").to_pylist() == [2.5, 1.0, 4.0, 3.0, 1.0]
    part = per_user(dataset, 1, seed=0)
    assert to_arrow(dataset, part.train).num_rows == len(part.train)


@pytest.mark.parametrize("kind", ["categories", "enum", "dictionary", "large", "nulls"])
def test_what_pandas_would_change_is_read_as_it_is(kind):
    """A missing cell makes a pandas column of whole numbers floats, and ids above 2^53 other ids."""
    big = 2**53 + 1
    users, items, times = [big, big, 3], ["a", "b", "a"], [dt.datetime(2024, 1, 2, tzinfo=dt.UTC), None, None]
    frame = {"user": [*users, None], "item": [*items, "b"], "time": [*times, None]}
    if kind in ("categories", "enum"):
        of = pl.Categorical() if kind == "categories" else pl.Enum(["a", "b"])
        table = pl.DataFrame(frame).with_columns(pl.col("item").cast(of))
    else:
        table = pa.table(frame)
        column = table.column("item")
        changed = {"dictionary": column.dictionary_encode(), "large": column.cast(pa.large_string()), "nulls": column}
        table = table.set_column(1, "item", changed[kind])
    dataset = from_frames(table)
    assert dataset.user_ids.tolist() == [3, big] and dataset.item_ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(dataset.interactions.times, [np.nan, 1704153600, np.nan])
