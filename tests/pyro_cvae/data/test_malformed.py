"""Malformed inputs: each is one InputError of one line that names the file, the line where there is one, the remedy."""

import os

import numpy as np
import pytest

from inference.options import Options
from pyro_cvae.data import splits
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.errors import InputError
from pyro_cvae.whole import whole_file

GOOD = {"users.dat": "2 0 2\n1 1\n", "mult.dat": "1 0:1\n0\n2 1:3 0:1\n", "vocabulary.dat": "alpha\nbeta\n"}

# file, what it holds (None: deleted; a dict of files: a folder in its place), line, words of the message
CITEULIKE = [
    ("users.dat", "", None, "empty"),
    ("users.dat", "2 0 2\n3 1\n", 2, "says 3 entries but has 1"),
    ("users.dat", "2 0 2\n0 1\n", 2, "says 0 entries but has 1"),
    ("users.dat", "2 0 2\n1 1.5\n", 2, "'1.5'"),
    ("users.dat", "2 0 x\n1 1\n", 1, "'x'"),
    ("users.dat", "x 0 1\n", 1, "'x'"),
    ("users.dat", "2 0 2\n1 -1\n", 2, "'-1'"),
    ("users.dat", "2 0 2\n-1\n", 2, "'-1'"),
    ("users.dat", "2 0 2\n1 3\n", 2, "item 3 does not exist; use 0 to 2"),
    ("users.dat", "1 1\n2 0 2\n2 1 1\n", 3, "item 1 is there more than once"),
    ("users.dat", "2 0 2\n\n1 1\n", 2, "an empty row"),
    ("users.dat", "2 0 2\n1 1\n\n", 3, "an empty row"),
    ("users.dat", " 2 0 2\n", 1, "a blank at the start"),
    ("users.dat", "2 0\u00a02\n", 1, "unusual"),
    ("users.dat", "2 0 2\r\n1 1\r\n", 1, "carriage return"),
    ("users.dat", "\ufeff2 0 2\n", 1, "byte order mark"),
    ("users.dat", b"2 0 2\n1 \xff\n", 2, "UTF-8"),
    ("users.dat", b"2 0 2\n1 1\n\0\0\0\0", 3, "NUL"),
    ("users.dat", "2 0 2\n1 " + "9" * 30 + "\n", 2, "'999"),
    ("users.dat", "2 0 2\n1 1_0\n", 2, "'1_0'"),
    ("users.dat", "2 0 2\n1 ١\n", 2, "'١'"),
    ("users.dat", "2 0 2\n1 nan\n", 2, "'nan'"),
    ("users.dat", {}, None, "not a file"),
    ("mult.dat", None, None, "no such file; get mult.dat"),
    ("mult.dat", "", None, "empty"),
    ("mult.dat", "1 0:1\n0\n2 1:3\n", 3, "says 2 entries but has 1"),
    ("mult.dat", "1 0:1\n0\n1 1\n", 3, "'1'"),
    ("mult.dat", "1 0:1\n0\n2 1:3 0 1\n", 3, "'0'"),
    ("mult.dat", "1 0:1\n0:1\n1 1:3\n", 2, "'0:1'"),
    ("mult.dat", "1 0:1\n1 1:-2\n0\n", 2, "'1:-2'"),
    ("mult.dat", "1 0:1\n1 1:0\n0\n", 2, "word 1 has count 0"),
    ("mult.dat", "1 0:1\n1 1:nan\n0\n", 2, "'1:nan'"),
    ("mult.dat", "1 0:1\n1 1:2.5\n0\n", 2, "'1:2.5'"),
    ("mult.dat", "1 0:1\n1 2:1\n0\n", 2, "word 2 does not exist; use 0 to 1"),
    ("mult.dat", "1 0:1\n2 1:1 1:2\n0\n", 2, "word 1 is there more than once"),
    ("mult.dat", "1 0:1\n0\n2 1:3 0:1", None, None),  # no newline at the end is fine
    ("vocabulary.dat", None, None, "no such file"),
    ("vocabulary.dat", "", None, "empty"),
    ("vocabulary.dat", "alpha\n\n", 2, "an empty word"),
    ("vocabulary.dat", "alpha\nalpha\n", 2, "also in line 1"),
    ("vocabulary.dat", b"alpha\n\xe9\n", 2, "UTF-8"),
    ("titles.txt", "one\ntwo\n", None, "has 2 titles, but mult.dat has 3 items"),
    ("titles.txt", b"one\ntwo\nthr\xe9", 3, "UTF-8"),
]


def put(path, content):
    if path.exists():
        path.unlink()
    if isinstance(content, dict):
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def assert_one_line(error, path, line, words):
    text = str(error)
    assert text.startswith(f"{path}: " if line is None else f"{path}:{line}: "), text
    assert "\n" not in text and words in text, text
    assert error.remedy and error.exit_code == 2


@pytest.mark.parametrize(("name", "content", "line", "words"), CITEULIKE)
def test_citeulike(name, content, line, words, tmp_path):
    for good, text in GOOD.items():
        put(tmp_path / good, text)
    put(tmp_path / name, content)
    if words is None:
        load_dataset(tmp_path)
        return
    with pytest.raises(InputError) as caught:
        load_dataset(tmp_path)
    assert_one_line(caught.value, tmp_path / name, line, words)


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("1 0\n1 0\n", 2, "user 1 has no item 0 in the data"),
        ("1 0\n", None, "has 1 row, but the data has 2 users"),
        ("1 0\n1 1\n0 \n", None, "has 3 rows"),
        ("1 7\n1 1\n", 1, "item 7 does not exist"),
        ("2 0\n1 1\n", 1, "says 2 entries"),
        ("2 0 0\n1 1\n", 1, "more than once"),
        ("", None, "empty"),
        (None, None, "no such file"),
        ({}, None, "not a file"),
    ],
)
def test_a_file_of_training_rows(content, line, words, tmp_path):
    for good, text in GOOD.items():
        put(tmp_path / good, text)
    put(tmp_path / "train.dat", content)
    with pytest.raises(InputError) as caught:
        splits.from_file(load_dataset(tmp_path), tmp_path / "train.dat")
    assert_one_line(caught.value, tmp_path / "train.dat", line, words)


PAIRS, ITEMS = "user,item,weight,time\n1,a,1,5\n2,b,0.5,6\n", 'item,text,title\na,"comet, nebula",A\nb,sail,B\n'

CSV = [
    ("pairs.csv", "", None, "empty"),
    ("pairs.csv", "user,item\n", None, "no rows"),
    ("pairs.csv", "who,item\n1,a\n", None, "has no column user (its columns: who, item)"),
    ("pairs.csv", "user,user_id,item\n1,1,a\n", None, "both a column user and a column user_id"),
    ("pairs.csv", "user,user,item\n1,1,a\n", 1, "has two columns called user"),
    ("pairs.csv", "1,a\n1,b\n", None, "has no column user and no column item (its columns: 1, a)"),
    ("pairs.csv", "user,item\n1,a\n2\n", 3, "has 1 value, the header 2"),
    ("pairs.csv", "user,item\n1,a\n2,a,3\n", 3, "has 3 values, the header 2"),
    ("pairs.csv", 'user,item\n"1\n2",a\n2\n', 4, "has 1 value"),
    ("pairs.csv", 'user,item\n1,a\n"2,a\n', 3, "not valid CSV"),
    ("pairs.csv", "user,item\n,a\n,a\n", 2, "no row has an id of the user"),
    ("pairs.csv", "user,item\n1,\n", 2, "no row has an id of the item"),
    ("pairs.csv", "user,item\n1,a\n2,c\n", 3, "item 'c' is not in the table of items"),
    ("pairs.csv", "user,item,weight\n1,a,1\n2,a,-1\n", 3, "weight '-1' cannot be used"),
    ("pairs.csv", "user,item,weight\n1,a,1\n2,a,nan\n", 3, "the weight is missing"),
    ("pairs.csv", "user,item,weight\n1,a,inf\n", 2, "weight 'inf' cannot be used"),
    ("pairs.csv", "user,item,weight\n1,a,\n", 2, "the weight is missing"),
    ("pairs.csv", "user,item,weight\n1,a,1_0\n", 2, "weight '1_0' cannot be used"),
    ("pairs.csv", "user,item,weight\n1,a,much\n", 2, "weight 'much' cannot be used"),
    ("pairs.csv", 'user,item,weight\n1,a,"1,000"\n', 2, "weight '1,000' may be a number of thousands"),
    (
        "pairs.csv",
        b"user,item\n1,a\n\xff,a\n",
        3,
        "is not valid UTF-8; name its encoding, for instance --encoding latin-1",
    ),
    ("pairs.csv", "user,item\n1," + "a" * 200_000 + "\n", 2, "is not in the table of items"),
    ("pairs.csv", None, None, "no such file"),
    ("pairs.csv", {}, None, "no data set in this folder"),
    ("items.csv", "item,text\n", None, "no rows"),
    ("items.csv", "item,text\na,comet\nb,sail\na,mast\n", 4, "item 'a' is there more than once"),
    ("items.csv", "item,text\na,the\nb,of\n", None, "no words"),
    ("items.csv", "item,text\n,comet\n,sail\n", 2, "no row has an id of the item"),
    ("items.csv", None, None, "no such file"),
    ("items.csv", "item,text\nx,comet\n", (2, "pairs.csv"), "item 'a' is not in the table of items"),
]


@pytest.mark.parametrize(("name", "content", "line", "words"), CSV)
def test_csv(name, content, line, words, tmp_path):
    put(tmp_path / "pairs.csv", PAIRS)
    put(tmp_path / "items.csv", ITEMS)
    put(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        load_dataset(tmp_path / "pairs.csv", None if isinstance(content, dict) else tmp_path / "items.csv")
    line, name = line if isinstance(line, tuple) else (line, name)
    assert_one_line(caught.value, tmp_path / name, line, words)


INTER = "user_id:token\titem_id:token\ttimestamp:float\nu1\ta\t5\nu2\tb\t6\n"
ITEM = "item_id:token\tmovie_title:token_seq\tclass:token_seq\na\tcomet nebula\tspace\nb\tsail\tsea\n"

ATOMIC = [
    ("d.inter", "", None, "empty"),
    ("d.inter", "user_id\titem_id:token\nu1\ta\n", 1, "cannot use the column 'user_id'"),
    ("d.inter", "user_id:text\titem_id:token\nu1\ta\n", 1, "cannot use the column 'user_id:text'"),
    ("d.inter", "user_id:token\tuser_id:token\nu1\ta\n", 1, "cannot use the column 'user_id:token'"),
    ("d.inter", "user_id:float\titem_id:token\n1\ta\n", 1, "user_id is of type float"),
    ("d.inter", "user:token\tthing:token\nu1\ta\n", None, "has no column item"),
    ("d.inter", INTER + "u3\ta\n", 4, "has 2 values, the header 3"),
    ("d.inter", INTER + "u3\ta\t1\t2\n", 4, "has 4 values, the header 3"),
    ("d.inter", INTER + "\n", 4, "has 1 value"),
    ("d.inter", INTER + "u3\tq\t5\n", 4, "item 'q' is not in the table of items"),
    ("d.inter", INTER.replace("timestamp", "weight") + "u3\ta\t-2\n", 4, "weight '-2' cannot be used"),
    ("d.inter", INTER.encode() + b"\xc3(\ta\t5\n", 4, "UTF-8"),
    ("d.item", ITEM + "a\tmast\tsea\n", 4, "item 'a' is there more than once"),
    ("d.item", ITEM + "c\tmast\n", 4, "has 2 values, the header 3"),
]


@pytest.mark.parametrize(("name", "content", "line", "words"), ATOMIC)
def test_atomic_files(name, content, line, words, tmp_path):
    put(tmp_path / "d.inter", INTER)
    put(tmp_path / "d.item", ITEM)
    put(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        load_dataset(tmp_path)
    assert_one_line(caught.value, tmp_path / name, line, words)


def test_a_path_that_is_no_data_set(tmp_path):
    for path, words in (
        (tmp_path / "nowhere", "simulated-gaussian"),
        (tmp_path, "no data set in this folder"),
        (tmp_path / "nowhere.csv", "no such file"),
        (tmp_path / "nowhere.parquet", "no such file"),
        (tmp_path / "nowhere.inter", "no such file"),
    ):
        with pytest.raises(InputError) as caught:
            load_dataset(path)
        assert_one_line(caught.value, path, None, words)


def test_parquet_that_is_none_and_files_of_other_kinds(tmp_path):
    for name, words in (
        ("a.parquet", "not a readable Parquet"),
        ("a.xlsx", "nor .parquet"),
        ("a.parquet.gz", "nor .parquet"),
    ):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(InputError) as caught:
            load_dataset(tmp_path / name, tmp_path / name)
        assert_one_line(caught.value, tmp_path / name, None, words)


def test_a_table_of_interactions_alone_has_no_content(tmp_path):
    put(tmp_path / "pairs.csv", PAIRS)
    dataset = load_dataset(tmp_path / "pairs.csv")
    assert dataset.contents == {} and dataset.item_ids.tolist() == sorted(dataset.item_ids.tolist())
    with pytest.raises(InputError, match=r"--model cvae is of; add --items FILE, .*or take --model pmf"):
        Options.of("svi", data=str(tmp_path / "pairs.csv")).for_contents(dataset.contents)
    with pytest.raises(InputError, match="--items goes with a table"):
        load_dataset("simulated", tmp_path / "pairs.csv")


def test_two_inter_files_are_one_too_many(tmp_path):
    put(tmp_path / "a.inter", INTER)
    put(tmp_path / "b.inter", INTER)
    with pytest.raises(InputError, match=r"has 2 \.inter files"):
        load_dataset(tmp_path)


def test_an_unreadable_file(tmp_path, monkeypatch):
    for good, text in GOOD.items():
        put(tmp_path / good, text)

    opened = os.open

    def refuse(path, *more, **named):
        if str(path).endswith("vocabulary.dat"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *more, **named)

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(InputError) as caught:
        load_dataset(tmp_path)
    assert_one_line(caught.value, tmp_path / "vocabulary.dat", None, "Permission denied")


def test_the_good_inputs_are_good(tmp_path):
    for name, text in (GOOD | {"pairs.csv": PAIRS, "items.csv": ITEMS}).items():
        put(tmp_path / name, text)
    assert len(load_dataset(tmp_path).interactions) == 3
    data = load_dataset(tmp_path / "pairs.csv", tmp_path / "items.csv")
    assert data.user_ids.tolist() == [1, 2]
    np.testing.assert_array_equal(data.interactions.confidences, [1, 0.5])
    (tmp_path / "atomic").mkdir()
    put(tmp_path / "atomic" / "d.inter", INTER)
    put(tmp_path / "atomic" / "d.item", ITEM)
    assert len(load_dataset(tmp_path / "atomic").interactions) == 2


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), whole_file(path) as new:
        assert new.suffix == ".csv"
        new.write_text("half of")
        raise OSError("disk full")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("table.csv", "old")]
    with whole_file(path) as new:
        new.write_text("new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("table.csv", "new")]
