"""Splits of one's own: files of training, validation and test pairs by the user's own ids, with or without the data."""

import gzip
import logging
import sys

import pandas as pd
import pytest

import inference
from inference import evaluate
from inference.fit_command import run_fit
from inference.options import DataOptions
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import make_split
from pyro_cvae.errors import InputError, run_command
from pyro_cvae.text import counted

SMALL = ["--factors", "2", "--hidden", "4", "--epochs", "1", "--pretrain-epochs", "1"]
ROWS = [(f"ann-{i}", f"b{j}", 1 + (i + j) % 5, 100 * i + j) for i in range(6) for j in range(i % 3, 8 + i % 2)]
TRAIN, VALID, TEST = ROWS[::2], ROWS[1::4], [row for row in ROWS[3::4] if row[1] != "b5"]


def table(rows):
    return pd.DataFrame(rows, columns=["user", "item", "rating", "time"])


@pytest.fixture
def folder(tmp_path):
    """All pairs, three files of most of them, and items of which the last stands in no file."""
    parts = {"all": ROWS, "train": TRAIN, "valid": VALID, "test": TEST}
    for name, rows in parts.items():
        table(rows).drop(columns="rating").to_csv(tmp_path / f"{name}.csv", index=False)
        table(rows).to_csv(tmp_path / f"{name}-stars.csv", index=False)
    texts = ["comet sail", "oven lemma", "sail oven", "lemma comet", "mast proof"] * 2
    pd.DataFrame({"item": [f"b{j}" for j in range(10)], "text": texts}).to_csv(tmp_path / "items.csv", index=False)
    return tmp_path


def options(folder, data="all.csv", **files):
    named = {name: str(folder / path) for name, path in files.items()}
    more = {} if data is None else {"data": str(folder / data)}
    return DataOptions(**more, items=str(folder / "items.csv"), **named)


def load_data(asked):
    from pyro_cvae.data import split_files

    return split_files.load_data(asked)


def ids(dataset, part):
    return set(zip(dataset.user_ids[part.users], dataset.item_ids[part.items], strict=True))


def wanted(rows):
    return {row[:2] for row in rows}


def test_three_files_are_three_parts_and_what_no_file_lists_is_counted(folder, caplog):
    asked = options(folder, train_file="train.csv", validation_file="valid.csv", test_file="test.csv")
    dataset = load_data(asked)
    split = make_split(dataset, asked)
    for part, rows in ((split.train, TRAIN), (split.validation, VALID), (split.test, TEST)):
        assert ids(dataset, part) == wanted(rows)
    n = len(ROWS) - len(TRAIN) - len(VALID) - len(TEST)
    assert n > 0 and split.protocol["left_out"] == n
    assert f"of the data {counted(n, 'pair', 'are', of=len(ROWS))} in no file of the split" in caplog.text
    assert len(split.train.times) == len(TRAIN)  # numbers are those of the data


def test_what_one_file_does_not_say_is_the_rest(folder):
    dataset = load_data(options(folder))
    for files, train, test in (
        ({"train_file": "train.csv"}, TRAIN, ROWS[1::2]),
        ({"test_file": "test.csv"}, [row for row in ROWS if row not in TEST], TEST),
        ({"train_file": "train.csv", "validation_file": "valid.csv"}, TRAIN, [r for r in ROWS[1::2] if r not in VALID]),
        ({"test_file": "test.csv", "validation_file": "valid.csv"},
         [row for row in ROWS if row not in TEST + VALID], TEST),
    ):  # fmt: skip
        split = make_split(dataset, options(folder, **files))
        assert ids(dataset, split.train) == wanted(train) and ids(dataset, split.test) == wanted(test)


def test_without_data_the_files_are_the_data(folder, caplog):
    new = [("newcomer", "b8", 1, 5), ("newcomer", "b9", 1, 6)]
    table(TEST + new).drop(columns="rating").to_csv(folder / "test.csv", index=False)
    asked = options(folder, None, train_file="train.csv", validation_file="valid.csv", test_file="test.csv")
    dataset = load_data(asked)
    assert dataset.name == "train" and "newcomer" in dataset.user_ids.tolist() and dataset.n_items == 10
    split = make_split(dataset, asked)
    assert ids(dataset, split.train) == wanted(TRAIN) and ids(dataset, split.test) == wanted(TEST + new)
    assert "left_out" not in split.protocol and len(dataset.interactions) == len(TRAIN + VALID + TEST + new)
    newcomer = dataset.user_rows(["newcomer"])[0]
    assert split.train.user_counts[newcomer] == 0 and split.test.user_counts[newcomer] == 2
    assert dataset.interactions.times is not None


def test_stars_and_columns_that_not_all_files_have(folder, caplog):
    table(TEST).drop(columns=["time"]).to_csv(folder / "test-stars.csv", index=False)
    files = {"train_file": str(folder / "train-stars.csv"), "test_file": str(folder / "test-stars.csv")}
    asked = DataOptions(items=str(folder / "items.csv"), ratings="stars", **files)
    dataset = load_data(asked)
    split = make_split(dataset, asked)
    assert "columns left out, since not all files of the split have them: time" in caplog.text
    given = {row[:2]: row[2] for row in TEST}
    found = zip(split.test.users, split.test.items, split.test.ratings, strict=True)
    assert all(given[dataset.user_ids[u], dataset.item_ids[j]] == r for u, j, r in found)


def test_files_of_stars_need_no_ratings_where_the_data_have_them(folder):
    files = {"train_file": str(folder / "train.csv"), "test_file": str(folder / "test-stars.csv")}
    asked = DataOptions(data=str(folder / "all-stars.csv"), items=str(folder / "items.csv"), ratings="stars", **files)
    dataset = load_data(asked)
    split = make_split(dataset, asked)
    given = {row[:2]: row[2] for row in ROWS}
    for part, rows in ((split.train, TRAIN), (split.test, TEST)):
        assert ids(dataset, part) == wanted(rows)
        found = zip(dataset.user_ids[part.users], dataset.item_ids[part.items], part.ratings, strict=True)
        assert all(given[user, item] == rating for user, item, rating in found)


@pytest.mark.parametrize("form", ["parquet", "csv.gz", "inter", "tsv"])
def test_files_come_in_every_form_that_data_do(folder, form):
    path, frame = folder / f"part.{form}", table(TEST).drop(columns="rating")
    if form == "parquet":
        frame.to_parquet(path)
    elif form == "csv.gz":
        path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    else:
        names = {"user": "user_id:token", "item": "item_id:token", "time": "timestamp:float"} if form == "inter" else {}
        frame.rename(columns=names).to_csv(path, index=False, sep="\t")
    for data in ("all.csv", None):
        asked = options(folder, data, train_file="train.csv", test_file=path.name)
        dataset = load_data(asked)
        assert ids(dataset, make_split(dataset, asked).test) == wanted(TEST)


def test_rows_by_number_are_still_read(tmp_path):
    for name, text in {
        "users.dat": "2 0 1\n3 0 1 2\n", "mult.dat": "1 0:1\n1 1:2\n1 0:3\n", "vocabulary.dat": "oven\nsail\n",
        "train.dat": "1 0\n1 2\n", "test.dat": "1 1\n1 0\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text, encoding="utf-8")
    dataset = load_dataset(tmp_path)
    both = DataOptions(train_file=str(tmp_path / "train.dat"), test_file=str(tmp_path / "test.dat"))
    split = make_split(dataset, both)
    assert split.train.keys.tolist() == [0, 5] and split.test.keys.tolist() == [1, 3]
    alone = make_split(dataset, DataOptions(train_file=str(tmp_path / "train.dat")))
    assert alone.protocol == {"kind": "file", "file": "train.dat"} and alone.test.keys.tolist() == [1, 3, 4]
    (tmp_path / "numbers.csv").write_text("user,item\n0,0\n1,2\n", encoding="utf-8")
    tables = make_split(dataset, DataOptions(train_file=str(tmp_path / "numbers.csv")))
    assert tables.train.keys.tolist() == [0, 5]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([ROWS[1], ROWS[0]], "test.csv:3: 1 pair is also in .*train.csv, user ann-0 with item b0 is the first"),
        ([ROWS[1], ("nobody", "b1", 1, 1)], "test.csv:3: no user of the data has the id 'nobody'"),
        ([("ann-1", "b99", 1, 1)], "test.csv:2: no item of the data has the id 'b99'"),
        ([ROWS[1], ("ann-2", "b0", 1, 1)], "test.csv:3: user ann-2 has no item b0 in the data"),
    ],
)
def test_what_cannot_be_is_refused_with_the_line(folder, rows, problem):
    table(rows).drop(columns="rating").to_csv(folder / "test.csv", index=False)
    asked = options(folder, train_file="train.csv", test_file="test.csv")
    with pytest.raises(InputError, match=problem):
        make_split(load_data(asked), asked)
    if "also in" in problem:  # of the files alone, too
        asked = options(folder, None, train_file="train.csv", test_file="test.csv")
        with pytest.raises(InputError, match=problem):
            make_split(load_data(asked), asked)
    elif "b99" in problem:
        with pytest.raises(InputError, match=r"test.csv:2: item 'b99' is not in the table of items"):
            load_data(options(folder, None, train_file="train.csv", test_file="test.csv"))


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match=r"--validation-file is 'v.csv', but it must be beside --train-file"):
        DataOptions(validation_file="v.csv")
    with pytest.raises(InputError, match=r"--validation is 0.2, but it must be left out with --validation-file"):
        DataOptions(train_file="t.csv", validation_file="v.csv", validation=0.2)


def test_a_pair_twice_in_a_file_is_no_matter(folder, caplog):
    table(TEST + TEST[:2]).drop(columns="rating").to_csv(folder / "test.csv", index=False)
    asked = options(folder, train_file="train.csv", test_file="test.csv")
    dataset = load_data(asked)
    assert ids(dataset, make_split(dataset, asked).test) == wanted(TEST)
    assert "2 pairs are there more than once" in caplog.text


def test_the_commands_and_python_take_them(folder, monkeypatch, capsys, caplog):
    files = [f"--{part}-file={folder / name}.csv" for part, name in (("train", "train"), ("validation", "valid"))]
    files += [f"--test-file={folder / 'test.csv'}", "--items", str(folder / "items.csv")]
    for data in ([], ["--data", str(folder / "all.csv")]):
        out = folder / f"run{len(data)}"
        monkeypatch.setattr(sys, "argv", ["inference.svi", *files, *data, "--out", str(out), "--patience", "1", *SMALL])
        with caplog.at_level(logging.INFO):
            assert run_fit("svi") == 0
        fit = inference.load(out)
        assert ids(fit.dataset, fit.split.validation) == wanted(VALID)
        assert "are held out" in caplog.text and "validation_recall" in pd.DataFrame(fit.history)
        monkeypatch.setattr(sys, "argv", ["inference.evaluate", str(out)])
        assert run_command(evaluate.main) == 0
        assert "train_file train.csv" in capsys.readouterr().out


def test_python_takes_them_as_keywords(folder):
    dataset = load_dataset(folder / "all.csv", folder / "items.csv")
    small = {"factors": 2, "hidden": [4], "epochs": 1, "pretrain_epochs": 1}
    again = inference.fit(dataset, train_file=folder / "train.csv", test_file=folder / "test.csv", **small)
    assert ids(dataset, again.split.test) == wanted(TEST)
    assert ids(dataset, again.split.train) == wanted(TRAIN)
