"""Evaluation of a model on a split: which users and items count, what is averaged, and that memory stays flat."""

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from inference.evaluate import main
from inference.evaluation.rankings import evaluate, recall_on_validation, recalls
from pyro_cvae.data.content import Content
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import Split, item_groups, per_user, with_validation
from pyro_cvae.errors import InputError
from pyro_cvae.metrics import metrics_of, rank_positions
from pyro_cvae.protocol import choosing, telling


def pairs(rows, n_items, ratings=None, confidences=None):
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    items = np.array([item for row in rows for item in row], dtype=np.int64)
    return Interactions.from_arrays(
        users, items, n_users=len(rows), n_items=n_items, ratings=ratings, confidences=confidences
    )


def a_split(train, test, validation=None, tuning_users=None):
    return Split(train, test, validation, tuning_users, {})


def fixed(scores):
    scores = torch.as_tensor(scores)
    return lambda users: scores[torch.from_numpy(users)]


@pytest.fixture
def random_split():
    generator = np.random.default_rng(0)
    part = generator.random((60, 90))
    parts = [[np.flatnonzero(row) for row in mask] for mask in (part < 0.1, (part > 0.1) & (part < 0.2), part > 0.95)]
    parts[1][3] = parts[1][7] = np.array([], dtype=np.int64)
    train, test, validation = (pairs(rows, 90) for rows in parts)
    return a_split(train, test, validation), torch.from_numpy(generator.normal(size=(60, 90)))


@pytest.mark.parametrize("protocol", ["corrected", "paper"])
def test_blocks_give_the_same_numbers_as_the_whole(random_split, protocol):
    split, scores = random_split
    small = evaluate(fixed(scores), split, cutoffs=(5, 20), protocol=protocol, block_size=7)
    whole = evaluate(fixed(scores), split, cutoffs=(5, 20), protocol=protocol)
    pd.testing.assert_frame_equal(small.per_user, whole.per_user, check_exact=True)
    pd.testing.assert_frame_equal(small.groups, whole.groups, rtol=1e-14)

    def csr(*parts):
        return sum(scipy.sparse.csr_matrix((np.ones(len(p)), (p.users, p.items)), shape=(60, 90)) for p in parts)

    positions = rank_positions(scores, csr(split.train, split.validation), csr(split.test), 100, protocol)
    for name, values in metrics_of(positions, (5, 20)).items():
        np.testing.assert_array_equal(whole.per_user[name], values.numpy()[whole.per_user["user"]])
        assert whole.means()[name] == pytest.approx(float(values.nanmean()), rel=1e-14)


def test_users_without_test_items_are_skipped_and_never_scored(random_split):
    split, scores = random_split
    asked = []

    def score_block(users):
        asked.extend(users.tolist())
        return scores[torch.from_numpy(users)]

    evaluation = evaluate(score_block, split)
    assert asked == [user for user in range(60) if user not in (3, 7)]
    assert evaluation.per_user["user"].tolist() == asked
    assert evaluate(fixed(scores), split, protocol="paper").n_users_evaluated == 60
    assert evaluate(fixed(scores), split, users=np.array([8, 3, 1])).per_user["user"].tolist() == [1, 8]


def test_memory_stays_flat(random_split, monkeypatch):
    split, scores = random_split
    sizes = []

    def score_block(users):
        sizes.append(len(users))
        return scores[torch.from_numpy(users)]

    evaluate(score_block, split, block_size=16)
    assert sizes == [16, 16, 16, 10]
    sizes.clear()
    recall_on_validation(score_block, split, block_size=25)
    assert sizes == [25, 25, 9]  # one user has no validation pair
    sizes.clear()
    monkeypatch.setattr("inference.evaluation.rankings.BLOCK_SCORES", 1000)
    evaluate(score_block, split, block_size=16)
    assert set(sizes) == {11, 3}  # 11 * 90 scores are at most 1000


def test_validation_items_are_no_candidates_but_test_pairs_of_tuning_users_stay():
    # User 0: item 0 known, 1 validation, 2 test. User 1 is a tuning user: its test pairs are its validation pairs.
    scores = [[9.0, 8.0, 7.0, 1.0], [9.0, 8.0, 7.0, 1.0]]
    split = a_split(
        pairs([[0], [0]], 4), pairs([[2], [3]], 4), pairs([[1], [3]], 4), tuning_users=np.array([False, True])
    )
    evaluation = evaluate(fixed(scores), split, cutoffs=(1, 2))
    assert evaluation.per_user["recall@1"].tolist() == [1.0, 0.0]
    assert evaluation.means()["recall@1"] == 1.0
    assert evaluation.all_user_means()["recall@1"] == 0.5
    metrics = evaluation.to_metrics()
    assert metrics["n_users_evaluated"] == 1
    assert metrics["all_users"]["n_users_evaluated"] == 2
    assert metrics["all_users"]["recall@1"] == 0.5
    assert metrics["protocol"] == "corrected"


def test_missing_cells_are_candidates_and_only_positive_ratings_are_relevant():
    # Item 0 was seen and disliked, item 1 is missing from training (confidence 0) and is the test pair; 2 has r < 0.
    train = pairs([[0, 1]], 4, ratings=[-1.0, 1.0], confidences=np.array([np.nan, 0.0]))
    split = a_split(train, pairs([[1, 2]], 4, ratings=[0.5, -0.5]))
    evaluation = evaluate(fixed([[9.0, 8.0, 7.0, 6.0]]), split, cutoffs=(1,))
    assert evaluation.per_user[["n_test", "n_relevant", "recall@1"]].values.tolist() == [[1, 1, 1.0]]
    paper = evaluate(fixed([[9.0, 8.0, 7.0, 6.0]]), split, cutoffs=(1,), protocol="paper")
    assert paper.per_user["n_relevant"].tolist() == [1]


def test_hot_warm_and_cold_items_apart():
    train = pairs([[0, 1], [0, 2], [0, 3], [0]], 6)  # ratings an item: 4 1 1 1 0 0; median of the rated ones 1
    assert item_groups(train).tolist() == [0, 1, 1, 1, 2, 2]
    split = a_split(train, pairs([[4, 5], [1], [4, 1], []], 6))
    evaluation = evaluate(fixed([[0.0, 5.0, 4.0, 3.0, 2.0, 1.0]] * 4), split, cutoffs=(1, 3))
    groups = evaluation.groups
    assert groups.index.tolist() == ["warm", "cold"]  # no test pair is hot
    assert groups["n_items"].tolist() == [3, 2]
    assert groups["n_pairs"].tolist() == [2, 3]
    assert groups["n_users"].tolist() == [2, 2]
    assert groups["recall@1"].tolist() == [1.0, 0.0]
    # user 0 ranks 2 3 4 5 and finds one of two cold items in three; user 2 ranks 1 2 4 5 and finds its only one
    assert groups["pooled_recall@3"].tolist() == [1.0, pytest.approx(2 / 3)]
    assert groups["recall@3"].tolist() == [1.0, pytest.approx(3 / 4)]
    assert evaluation.to_metrics()["groups"]["cold"]["n_pairs"] == 3


def test_recall_on_validation_is_the_recall_of_the_validation_pairs(random_split):
    split, scores = random_split
    as_test = a_split(split.train, split.validation)
    expected = evaluate(fixed(scores), as_test, cutoffs=(20,)).means()["recall@20"]
    assert recall_on_validation(fixed(scores), split, cutoff=20, block_size=7) == pytest.approx(expected, rel=1e-14)


def test_lists_are_shorter_than_a_small_catalogue(runs, random_split, capsys):
    assert telling((10, 50, 100), 40) == (10, 20) and telling((10, 50, 100), 101) == (10, 50, 100)
    assert choosing((50, 300), 40) == (20,) and choosing((50, 300), 700) == (50, 300) and choosing((50,), 1) == (1,)
    split, scores = random_split
    half = split.train.n_items // 2
    assert half < 300, "of so few items a list of 300 has all"
    assert recall_on_validation(fixed(scores), split) == recall_on_validation(fixed(scores), split, cutoff=half) < 1
    assert f"recall@{half}" in evaluate(fixed(scores), split).means()
    main(["two"])
    assert "recall@5 " in (printed := capsys.readouterr().out) and "recall@50" not in printed  # of ten items


def test_what_cannot_be_evaluated_says_why():
    train, test, nothing = pairs([[0], [1]], 3), pairs([[1], [2]], 3), pairs([[], []], 3)
    score_block = fixed(np.zeros((2, 3)))
    with pytest.raises(InputError, match="no user has a test item"):
        evaluate(score_block, a_split(train, nothing))
    with pytest.raises(InputError, match="no validation part; choose one with --validation"):
        recall_on_validation(score_block, a_split(train, test))
    with pytest.raises(InputError, match="choose one of corrected, paper"):
        evaluate(score_block, a_split(train, test), protocol="best")
    with pytest.raises(InputError, match="tuning user"):
        evaluate(score_block, a_split(train, test, tuning_users=np.array([True, True]))).means()


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch):
    """Two fits on one split and one on another, as ``inference.fitting.load`` gives them, by path."""
    generator = np.random.default_rng(2)
    users, items = np.nonzero(generator.random((12, 10)) < 0.5)
    counts = scipy.sparse.csr_matrix(generator.poisson(0.7, (10, 8)).astype(float))
    dataset = Dataset(
        "toy",
        Interactions.from_arrays(users, items, n_users=12, n_items=10),
        Content(counts),
        np.array([f"user {i}" for i in range(12)], object),
        np.arange(10),
    )
    splits = {2: per_user(dataset, 2, seed=0), 1: with_validation(per_user(dataset, 1, seed=0), 0.2, seed=0)}

    def fit(p):
        posterior = SimpleNamespace(score_block=fixed(generator.normal(size=(12, 10))), tells_users=False)
        model = SimpleNamespace(ratings=SimpleNamespace(explicit=False))
        return SimpleNamespace(dataset=dataset, split=splits[p], posterior=posterior, model=model)

    fits = {"one [bold]": fit(2), "two": fit(2), "other": fit(1)}
    monkeypatch.setattr("inference.evaluation.comparison.load", lambda path, trust=(): fits[path])
    monkeypatch.setattr("inference.evaluate.check_runs", lambda runs: None)
    return fits


def test_runs_on_one_split_share_a_table_and_their_rivals(runs, capsys, tmp_path):
    out, per_user_file = tmp_path / "means.csv", tmp_path / "users.parquet"
    files = ["--out", str(out), "--per-user", str(per_user_file)]
    main([*runs, "--rivals", "--cutoffs", "3", "5", *files])
    printed = capsys.readouterr().out
    where = "corrected protocol; toy (12 users, 10 items); split per-user, train_per_user"
    n_users = len(np.unique(runs["two"].split.test.users))
    assert printed.count(f"{where} 2, seed 0; {n_users} users evaluated\n") == 1
    n_others = len(np.unique(runs["other"].split.test.users)) - int(runs["other"].split.tuning_users.sum())
    others = f"{where} 1, seed 0, validation 0.2 (tuning users); {n_others} users evaluated\n"
    assert printed.count(others) == 1
    assert "one [bold]" in printed
    assert "other *" in printed

    means = pd.read_csv(out)
    assert (means["protocol"] == "corrected").all()
    headline = means[(means["items"] == "all") & (means["users"] == "headline")]
    rivals = ["popularity", "tfidf", "svd-50", "svd-200", "svd-300-prior", "als"]
    assert headline["model"].tolist() == ["one [bold]", "two", *rivals, "other", *rivals]
    assert headline["split_fingerprint"].tolist() == 8 * [runs["two"].split.fingerprint()] + 7 * [
        runs["other"].split.fingerprint()
    ]
    expected = evaluate(runs["two"].posterior.score_block, runs["two"].split, cutoffs=(3, 5))
    assert headline.iloc[1]["recall@3"] == pytest.approx(expected.means()["recall@3"], rel=1e-15)
    assert headline.iloc[1]["n_users"] == n_users
    assert set(means["items"]) <= {"all", "hot", "warm", "cold"}
    assert means["pooled_recall@5"].notna().equals(means["items"] != "all")

    users = pd.read_parquet(per_user_file)
    two = users[users["model"] == "two"]
    assert two["user"].tolist() == [f"user {i}" for i in expected.per_user["user"]]
    np.testing.assert_array_equal(two["ndcg@100"], expected.per_user["ndcg@100"])


def test_the_table_names_the_paper_protocol_and_says_what_it_measures(runs, capsys):
    main(["two", "--protocol", "paper", "--cutoffs", "3"])
    printed = capsys.readouterr().out
    assert "paper protocol" in printed
    assert "count as hits" in printed


def test_a_rival_that_cannot_be_had_is_a_row_that_says_why(runs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    main(["two", "--rivals"])
    assert (
        "als: this rival needs the package implicit; install it with: pip install implicit" in capsys.readouterr().out
    )


def test_a_run_whose_scores_are_not_finite_is_named(runs):
    runs["two"].posterior.score_block = fixed(np.full((12, 10), np.nan))
    with pytest.raises(InputError, match=r"^two: the scores .* not finite"):
        main(["two"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["two", "--out", "table.txt"], "must end in .csv or .parquet"),
        (["two", "--per-user", "nowhere/users.csv"], "nowhere: --per-user: no such folder"),
        (["two", "--cutoffs", "0"], "--cutoffs is '0'"),
        (["two", "--block-size", "0"], "--block-size is 0"),
        (["two", "--protocol", "best"], "one of corrected, paper"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(arguments, message, monkeypatch):
    monkeypatch.setattr("inference.evaluation.comparison.load", lambda path, trust=(): pytest.fail("loaded"))
    with pytest.raises(InputError, match=re.escape(message)):
        main(arguments)


def test_help_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "inference.evaluate", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--rivals" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "pyro_cvae.protocol" in imported
    assert not {"torch", "pandas", "scipy", "sklearn", "rich"} & imported


@pytest.mark.parametrize("protocol", ["corrected", "paper"])
def test_recalls_alone_are_those_of_the_whole_evaluation(protocol):
    data = simulated(0, n_users=30, n_items=40, n_words=20, clicks_per_user=12.0)
    split = per_user(data, 5, 0)
    scores = torch.randn(30, 40, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with ties
    score_block = lambda rows: scores[torch.as_tensor(rows)]  # noqa: E731
    whole = evaluate(score_block, split, cutoffs=(3, 10), protocol=protocol, ndcg_cutoffs=())
    alone = recalls(score_block, split, cutoffs=(3, 10), protocol=protocol, block_size=7)
    for name in ("user", "n_relevant", "recall@3", "recall@10"):
        assert np.array_equal(alone[name], whole.per_user[name])
