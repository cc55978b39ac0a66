"""Items that are left out of one user's list alone: in Python, and from files of every kind that is read."""

import logging
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import inference
from inference.recommend import main
from inference.recommending import fold_in, recommend
from inference.recommending.exclusions import exclusions_in
from inference.recommending.lists import lists_in_parts
from pyro_cvae.data.frames import from_frames
from pyro_cvae.errors import InputError

OPTIONS = {"factors": 3, "hidden": (6,), "train_per_user": 4, "pretrain_epochs": 1, "epochs": 3}
N_USERS, N_ITEMS = 9, 20


def make_dataset(whole=False):
    rng = np.random.default_rng(4)
    pairs = [(u, int(j)) for u in range(N_USERS) for j in rng.choice(N_ITEMS, 6, replace=False)]
    user_of, item_of = (int, lambda j: 100 + j) if whole else (lambda u: f"u{u}", lambda j: f"i{j}")
    texts = [" ".join(rng.choice(["sail", "mast", "oven", "proof", "lemma"], 6)) for _ in range(N_ITEMS)]
    return from_frames(
        {"user": [user_of(u) for u, _ in pairs], "item": [item_of(j) for _, j in pairs]},
        {"item": [item_of(j) for j in range(N_ITEMS)], "text": texts},
    )


@pytest.fixture(scope="module")
def fit():
    return inference.fit(make_dataset(), **OPTIONS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    inference.fit(make_dataset(), **OPTIONS, out=out)
    return out


@pytest.fixture
def call(answer):
    return partial(answer, main)


def items_of(table, user):
    return table.loc[table["user"] == user, "item"].tolist()


@pytest.mark.parametrize("keep_seen", [False, True])
def test_each_user_loses_the_own_pairs_alone(fit, keep_seen):
    users = ["u3", "u0", "u7"]
    whole = recommend(fit, users, N_ITEMS, keep_seen=keep_seen)
    barred = {"u3": items_of(whole, "u3")[:2], "u7": items_of(whole, "u7")[1:4], "u5": ["i1"]}
    pairs = [(user, item) for user, items in barred.items() for item in items]
    table = {"user": [user for user, _ in pairs], "item": [item for _, item in pairs]}
    less = recommend(fit, users, N_ITEMS, keep_seen=keep_seen, exclude_pairs=table, block_size=2)
    for user in users:
        expected = [item for item in items_of(whole, user) if item not in barred.get(user, [])]
        assert items_of(less, user) == expected
    assert items_of(less, "u0") == items_of(whole, "u0") and len(less) == len(whole) - 5


def test_the_chance_to_be_listed_is_among_what_is_left(fit):
    """Without what is excluded, n items are left: each is among the best n for certain."""
    user, keep = "u2", 3
    gone = items_of(recommend(fit, [user], N_ITEMS), user)[keep:]
    table = recommend(
        fit, [user], N_ITEMS, exclude_pairs={"user": [user] * len(gone), "item": gone}, top_probability=keep, draws=20
    )
    assert len(table) == keep and (table[f"p_top_{keep}"] == 1).all()


@pytest.mark.parametrize(
    "make", [dict, pd.DataFrame, pl.DataFrame, pa.table], ids=["dict", "pandas", "polars", "arrow"]
)
def test_every_kind_of_table(fit, make):
    first = items_of(recommend(fit, ["u1"], 1), "u1")
    pairs = make({"item": [first[0], "i0"], "user": ["u1", "u4"], "rating": [0.0, 5.0]})
    assert items_of(recommend(fit, ["u1"], N_ITEMS, exclude_pairs=pairs), "u1") == items_of(
        recommend(fit, ["u1"], N_ITEMS, exclude=first), "u1"
    )


def test_what_is_unknown_is_counted_once(fit, caplog):
    table = {"user": ["u1", "stranger", "u1", "nobody"], "item": ["i3", "i4", "i99", "i99"]}
    with caplog.at_level(logging.WARNING, "pyro_cvae"):
        barred = exclusions_in(table, fit.dataset)
        for user in ("u1", "u2"):
            recommend(fit, [user], exclude_pairs=barred)
    (line,) = [record.getMessage() for record in caplog.records if "excluded" in record.getMessage()]
    assert line.startswith("3 of 4 excluded pairs were left out, as of unknown users (2) or items (2)")


def test_strangers_and_users_that_are_folded_in_have_exclusions_too(fit, caplog):
    average = items_of(recommend(fit, ["new"], N_ITEMS, unknown="prior"), "new")
    pairs = {"user": ["new", "newer"], "item": [average[0], average[1]]}
    table = recommend(fit, ["u1", "newer", "new", "newest"], N_ITEMS, unknown="prior", exclude_pairs=pairs)
    assert items_of(table, "new") == average[1:] and items_of(table, "newer") == [average[0], *average[2:]]
    assert items_of(table, "newest") == average and not [one for one in caplog.records if "excluded" in one.message]
    more = fold_in(fit, ["new"] * 2, ["i1", "i2"])
    own = items_of(recommend(more, ["new"], N_ITEMS), "new")
    assert items_of(recommend(more, ["new"], N_ITEMS, exclude_pairs=pairs), "new") == [
        x for x in own if x != average[0]
    ]


def test_whole_numbers_and_their_texts_are_one_user():
    fit = inference.fit(make_dataset(whole=True), **OPTIONS)
    own = items_of(recommend(fit, [3], N_ITEMS), 3)
    table = recommend(fit, [3, "3"], N_ITEMS, exclude_pairs={"user": [3], "item": [own[0]]})
    assert table["item"].tolist() == own[1:] * 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.csv", "user,item\n{user},{item}\n"),
        ("pairs.tsv", "User ID\tItem ID\n{user}\t{item}\n"),
        ("semicolons.csv", "item;rating;user\n{item};0;{user}\n"),
        ("pairs.parquet", None),
    ],
)
def test_the_command_reads_every_table(run, call, tmp_path, name, text):
    table, path = recommend(inference.load(run), ["u1", "u2"], 5), tmp_path / name
    user, item = "u2", items_of(table, "u2")[0]
    if text is None:
        pd.DataFrame({"user": [user], "item": [item]}).to_parquet(path)
    else:
        path.write_text(text.format(user=user, item=item), encoding="utf-8")
    code, said, _ = call(run, "--user", "u1", "u2", "--top", 4, "--exclude-pairs", path, "--format", "csv")
    lines = [line.split(",")[:3] for line in said.splitlines()[1:]]
    assert code == 0 and [one for u, _, one in lines if u == "u1"] == items_of(table, "u1")[:4]
    assert [one for u, _, one in lines if u == "u2"] == items_of(table, "u2")[1:5]


def test_a_file_of_text_finds_ids_that_are_whole_numbers_or_look_like_them(tmp_path, call, caplog):
    inference.fit(make_dataset(whole=True), **OPTIONS, out=tmp_path / "run")
    own = items_of(recommend(inference.load(tmp_path / "run"), [3], 3), 3)
    (tmp_path / "pairs.csv").write_text(f"user,item\n3,{own[0]}\nx,1\n", encoding="utf-8")
    asked = ("--user", "3", "--top", 2, "--exclude-pairs", tmp_path / "pairs.csv", "--format", "csv")
    code, said, _ = call(tmp_path / "run", *asked)
    assert code == 0 and [int(line.split(",")[2]) for line in said.splitlines()[1:]] == own[1:]
    assert caplog.text.count("1 of 2 excluded pairs") == 1


def test_lists_in_parts_and_in_a_file_are_told_of_unknown_pairs_once(run, call, tmp_path, caplog):
    fit = inference.load(run)
    users = fit.dataset.user_ids.tolist()
    own = recommend(fit, users, 4).groupby("user")["item"].agg(list)
    pairs = pd.DataFrame({"user": [*users, "nobody"], "item": [*(own[user][0] for user in users), "i1"]})
    parts = lists_in_parts(fit, None, 3, exclude_pairs=pairs, at_once=1, block_size=2)
    assert len(parts) == 5 and caplog.text.count("1 of 10 excluded pairs") == 1
    assert {u: items_of(part, u) for part in parts for u in part["user"]} == {u: own[u][1:] for u in users}
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    asked = ("--everybody", "--top", 3, "--exclude-pairs", tmp_path / "pairs.csv", "--out", tmp_path / "lists.csv")
    assert call(run, *asked)[0] == 0 and caplog.text.count("1 of 10 excluded pairs") == 2
    table = pd.read_csv(tmp_path / "lists.csv")
    assert {u: items_of(table, u) for u in users} == {u: own[u][1:] for u in users}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("user,thing\nu1,i1\n", "has no column item"),
        ("", "the file is empty"),
        ("user,item\nu1,i1,x\n", ":2: has 3 values, the header 2"),
    ],
)
def test_files_that_are_no_pairs(run, call, tmp_path, text, line):
    path = tmp_path / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    code, said, err = call(run, "--user", "u1", "--exclude-pairs", path)
    assert (code, said) == (2, "") and line in err and str(path) in err and err.count("\n") == 1


def test_what_it_does_not_go_with(run, call, tmp_path):
    for other in (("--similar", "i1"), ("--similar-users", "u1"), ("--user", "u1", "--above", "i1", "i2")):
        code, _, err = call(run, *other, "--exclude-pairs", tmp_path / "pairs.csv")
        assert code == 2 and "--exclude-pairs is about lists of users" in err


def test_no_table(fit):
    with pytest.raises(InputError, match="exclude_pairs: list is no table"):
        recommend(fit, ["u1"], exclude_pairs=[("u1", "i1")])
