"""Tables from pandas, polars, Arrow, CSV and Parquet, and RecBole's atomic files: the same data set from each."""

import datetime as dt
import logging

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.frames import from_frames, load_tables
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.errors import InputError

PAIRS = {"user": ["eve", "bob", "eve"], "item": [10, 7, 7], "weight": [1.0, 0.25, 0.0], "time": [3.0, 2.0, 1.5]}
ITEMS = {"item": [10, 7, -2], "text": ["comet, nebula; comet", "sail the sea", ""], "title": ["Sky", "Sea", ""]}


def expected():
    return from_frames(PAIRS, ITEMS)


def test_a_table_is_read_to_the_letter():
    data = expected()
    assert data.user_ids.tolist() == ["bob", "eve"]
    assert (data.item_ids.tolist(), data.item_ids.dtype) == ([10, 7, -2], np.int64)
    assert data.titles.tolist() == ["Sky", "Sea", ""]
    pairs = data.interactions
    assert (pairs.users.tolist(), pairs.items.tolist()) == ([0, 1, 1], [1, 0, 1])
    assert (pairs.confidences.tolist(), pairs.times.tolist()) == ([0.25, 1, 0], [2, 3, 1.5])
    assert pairs.ratings.tolist() == [1, 1, 1]
    # Title and text are counted together; "the" is a stop word.
    assert data.content.vocabulary == ("comet", "nebula", "sail", "sea", "sky")
    assert data.content.counts.toarray().tolist() == [[2, 1, 0, 0, 1], [0, 0, 1, 2, 0], [0] * 5]
    assert data.content.vectorizer.counts(["sea sea comet"]).toarray().tolist() == [[1, 0, 0, 2, 0]]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_every_kind_of_frame_gives_the_same_data_set(make):
    assert from_frames(make(PAIRS), make(ITEMS)).fingerprint() == expected().fingerprint()


def test_csv_and_parquet_give_the_same_data_set(tmp_path):
    for name, table in (("pairs", PAIRS), ("items", ITEMS)):
        pd.DataFrame(table).to_parquet(tmp_path / f"{name}.parquet")
        pl.DataFrame(table).write_csv(tmp_path / f"{name}.csv")
    for kind in ("csv", "parquet"):
        data = load_dataset(tmp_path / f"pairs.{kind}", tmp_path / f"items.{kind}")
        assert (data.fingerprint(), data.name) == (expected().fingerprint(), "pairs")
    mixed = load_tables(tmp_path / "pairs.csv", tmp_path / "items.parquet")
    assert mixed.fingerprint() == expected().fingerprint()


def test_atomic_files_give_the_same_data_set_but_for_the_types_of_ids(tmp_path):
    (tmp_path / "d.inter").write_text(
        "user_id:token\titem_id:token\tweight:float\ttimestamp:float\trating:float\n"
        "eve\t10\t1.0\t3\t5\nbob\t7\t0.25\t2\t4\neve\t7\t0\t1.5\t1\n"
    )
    (tmp_path / "d.item").write_text(
        "item_id:token\ttitle:token_seq\tabstract:token_seq\tyear:token\tmore:token_seq\n"
        "10\tSky\tcomet nebula\t1\tcomet\n7\tSea\tsail\t2\tthe sea\n-2\t\t\t\t\n"
    )
    assert load_dataset(tmp_path).fingerprint() == expected().fingerprint()
    assert load_dataset(tmp_path / "d.inter").fingerprint() == expected().fingerprint()
    assert load_dataset(tmp_path / "d.inter", tmp_path / "d.item").name == "d"


STARS = PAIRS | {"rating": [4.5, -1, 0]}


def test_ratings_are_read_where_stars_are_asked_for(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        clicks = from_frames(STARS, ITEMS)
    assert clicks.interactions.ratings.tolist() == [1]
    assert "2 of 3 pairs were left out, since a rating of 0 or less" in caplog.text
    data = from_frames(STARS, ITEMS, ratings="stars")
    assert data.interactions.ratings.tolist() == [-1, 4.5, 0]
    assert data.interactions.confidences.tolist() == [0.25, 1, 0]
    pd.DataFrame(STARS).to_csv(tmp_path / "p.csv", index=False)
    pd.DataFrame(ITEMS).to_csv(tmp_path / "i.csv", index=False)
    assert load_dataset(tmp_path / "p.csv", tmp_path / "i.csv", ratings="stars").fingerprint() == data.fingerprint()
    assert load_dataset(tmp_path / "p.csv", tmp_path / "i.csv").fingerprint() == clicks.fingerprint()
    data.save(tmp_path / "saved")
    for ratings in ("clicks", "stars"):
        assert load_dataset(tmp_path / "saved", ratings=ratings).fingerprint() == data.fingerprint()


def test_ratings_of_atomic_files(tmp_path):
    (tmp_path / "d.inter").write_text("user_id:token\titem_id:token\trating:float\n1\t10\t3.5\n2\t7\t2\n")
    (tmp_path / "d.item").write_text("item_id:token\ttitle:token_seq\n10\tcomet sky\n7\tsail\n")
    assert load_dataset(tmp_path).interactions.ratings.tolist() == [1, 1]
    for path in (tmp_path, tmp_path / "d.inter"):
        assert load_dataset(path, ratings="stars").interactions.ratings.tolist() == [3.5, 2]
    (tmp_path / "d.inter").write_text("user_id:token\titem_id:token\trating:float\n1\t10\t3.5\n2\t7\t\n")
    with pytest.raises(InputError, match=r"d\.inter:3: the rating is missing; give a finite number"):
        load_dataset(tmp_path, ratings="stars")


@pytest.mark.parametrize("value", [None, np.nan, np.inf, -np.inf, "5_0", "good", pd.NA])
def test_a_rating_that_is_no_number(value):
    with pytest.raises(InputError, match="interactions: row 2: the rating"):
        from_frames(PAIRS | {"rating": [1, value, 3]}, ITEMS, ratings="stars")


def test_stars_where_there_are_none(tmp_path):
    with pytest.raises(InputError, match="has no column rating"):
        from_frames(PAIRS, ITEMS, ratings="stars")
    with pytest.raises(InputError, match="use clicks or stars"):
        from_frames(PAIRS, ITEMS, ratings="moons")
    with pytest.raises(InputError, match="ratings of simulated are all 1: they are clicks"):
        load_dataset("simulated", ratings="stars")
    gaussian = load_dataset("simulated-gaussian", ratings="stars")
    assert gaussian.fingerprint() == load_dataset("simulated-gaussian").fingerprint()


def test_columns_that_are_left_out_are_named_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        from_frames(PAIRS | {"wieght": [1, 2, 3]}, ITEMS)
    assert "columns left out: wieght (read: user, item, weight, time, rating)" in caplog.text


def test_the_order_of_rows_does_not_matter():
    backwards = {name: values[::-1] for name, values in PAIRS.items()}
    assert from_frames(backwards, ITEMS).fingerprint() == expected().fingerprint()


def test_of_repeated_pairs_the_last_is_kept_and_the_log_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        data = from_frames({"user": [1, 1, 1], "item": [10, 7, 10], "weight": [5, 6, 7]}, ITEMS)
    assert data.interactions.confidences.tolist() == [7, 6]
    assert "1 repeated pair" in caplog.text


def test_pairs_of_unknown_items_are_an_error_or_are_dropped_and_counted(caplog):
    pairs = {"user": ["a", "b", "c"], "item": [10, 99, 7]}
    with pytest.raises(InputError, match="interactions: row 2: item 99 is not in the table of items; add it there"):
        from_frames(pairs, ITEMS)
    with pytest.raises(InputError, match=r"item 99 is .* table of items \(2 of 4 pairs are of such items\)"):
        from_frames({"user": [*pairs["user"], "d"], "item": [*pairs["item"], 98]}, ITEMS)
    with caplog.at_level(logging.WARNING):
        data = from_frames(pairs, ITEMS, unknown="drop")
    assert "1 pair of unknown items dropped" in caplog.text
    assert data.user_ids.tolist() == ["a", "c"]
    with pytest.raises(InputError, match="both use the same ids"):
        from_frames({"user": ["a"], "item": [99]}, ITEMS, unknown="drop")
    with pytest.raises(InputError, match="error or drop"):
        from_frames(pairs, ITEMS, unknown="prior")


@pytest.mark.parametrize(
    ("users", "items", "user_type", "item_type"),
    [
        (["1", "2"], ["10", "7"], int, int),
        (["01", "2"], ["10", "7"], str, int),
        (["1", "x"], ["10", "7"], str, int),
        (["-1", "0"], ["10", "7x"], int, str),
        (["9" * 19, "1"], ["10", "7"], str, int),
    ],
)
def test_ids_of_csv_are_whole_numbers_only_if_all_are_written_so(users, items, user_type, item_type, tmp_path):
    pairs = "".join(f"{u},{i}\n" for u, i in zip(users, items, strict=True))
    (tmp_path / "p.csv").write_text("user,item\n" + pairs)
    (tmp_path / "i.csv").write_text("item,text\n10,comet\n7,sail\n7x,mast\n"[: None if items[1] == "7x" else -8])
    data = load_tables(tmp_path / "p.csv", tmp_path / "i.csv")
    assert data.user_ids.tolist() == sorted(map(user_type, users))
    assert all(type(value) is item_type for value in data.item_ids.tolist())


def test_csv_with_a_mark_windows_line_ends_blank_lines_and_quotes(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbfuser,item\r\n1,a\r\n\r\n")
    (tmp_path / "i.csv").write_bytes(b'text,item\r\n"comet,\r\n""nebula""",a\r\n')
    data = load_tables(tmp_path / "p.csv", tmp_path / "i.csv")
    assert data.content.vocabulary == ("comet", "nebula")
    assert data.item_ids.tolist() == ["a"]


MIXED = [
    (pd.DataFrame({"user": [1, "1"], "item": [7, 7]}), "interactions: row 2: user id '1': ids are of mixed types"),
    (pd.DataFrame({"user": [1.0, 2.5], "item": [7, 7]}), "row 1: user id 1.0 is of type float"),
    (pd.DataFrame({"user": [1.0, np.inf], "item": [7, 7]}), "row 1: user id 1.0 is of type float"),
    (pd.DataFrame({"user": [None, None], "item": [7, 7]}), "row 1: no row has an id of the user"),
    (pd.DataFrame({"user": [True, False], "item": [7, 7]}), "row 1: user id True is of type bool"),
    (pl.DataFrame({"user": [None, None], "item": [7, 7]}), "row 1: no row has an id of the user"),
    (pd.DataFrame({"user": ["a", "b"], "item": ["7", "10"]}), "items: row 1: item id 10: ids are of mixed types"),
    (pd.DataFrame({"user": ["a", "b"], "item": pd.array([None] * 2, "Int64")}), "row 1: no row has an id of the item"),
    (pd.DataFrame({"user": ["a", "b"], "item": [7, 7], "weight": [1, np.nan]}), "row 2: the weight is missing"),
    (pd.DataFrame({"user": ["a", "b"], "item": [7, 7], "weight": [1, -1]}), "row 2: the weight -1 cannot be used"),
    (pd.DataFrame({"user": ["a"], "item": [7], "weight": [np.inf]}), "row 1: the weight inf cannot be used"),
    (pd.DataFrame({"user": [], "item": []}), "interactions: has no rows"),
    (pd.DataFrame([[1, 7, 7]], columns=["user", "item", "item"]), "two columns of one name"),
    ({"user": [1], "item": [7, 7]}, "columns differ in length"),
    ({"user": [2**70], "item": [7]}, "2.63"),
    ([("a", 7)], "list is no table"),
]


@pytest.mark.parametrize(("pairs", "words"), MIXED)
def test_frames_that_cannot_be_used(pairs, words):
    with pytest.raises(InputError, match=words) as caught:
        from_frames(pairs, ITEMS)
    assert "\n" not in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (ITEMS | {"item": [10, 7, 7]}, "items: row 3: item 7 is there more than once"),
        (ITEMS | {"text": ["comet", {"a": 1}, ""]}, "items: row 2: the text is of type dict"),
        (ITEMS | {"title": ["comet", [["x"], {}], ""]}, "items: row 2: the title is of type list"),
        (ITEMS | {"text": ["", None, ""], "title": ["", "the", ""]}, "items: the texts have no words"),
    ],
)
def test_tables_of_items_that_cannot_be_used(items, words):
    with pytest.raises(InputError, match=words):
        from_frames(PAIRS, items)


def test_a_csv_of_text_ids_beside_a_typed_table_of_numbers_names_the_line(tmp_path):
    (tmp_path / "p.csv").write_text("user,item\n1,10\n1,x\n")
    pd.DataFrame(ITEMS).to_parquet(tmp_path / "i.parquet")
    with pytest.raises(InputError, match=r"p\.csv:3: item id 'x' is no whole number"):
        load_tables(tmp_path / "p.csv", tmp_path / "i.parquet")


@pytest.mark.parametrize(
    "times",
    [
        pd.to_datetime(["1970-01-02", "1970-01-01T00:00:01.5"], format="ISO8601"),
        pd.to_datetime(["1970-01-02T01:00+01:00", "1970-01-01T01:00:01.5+01:00"], format="ISO8601"),
        [dt.date(1970, 1, 2), dt.datetime(1970, 1, 1, 0, 0, 1, 500_000)],
        ["1970-01-02", "1970-01-01 00:00:01.500"],
        [86400, 1.5],
        ["86400", "1.5e0"],
    ],
)
def test_dates_become_seconds_since_1970_in_utc(times):
    data = from_frames({"user": [1, 2], "item": [7, 7], "time": list(times)}, ITEMS)
    assert data.interactions.times.tolist() == [86400, 1.5]


def test_the_vocabulary_has_the_asked_size_and_the_data_set_survives_a_round_trip(tmp_path):
    data = from_frames(PAIRS, ITEMS, n_words=2, name="two")
    assert data.n_features == 2
    data.save(tmp_path)
    again = Dataset.load(tmp_path)
    assert again.fingerprint() == data.fingerprint()
    assert again.content.vectorizer == data.content.vectorizer
    assert load_dataset(tmp_path).name == "two"
