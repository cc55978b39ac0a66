"""Evaluation of a model on a split: which users and items count, what is averaged, and that memory stays flat."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from inference import evaluate as evaluate_module
from inference.evaluate import evaluate, item_groups, recall_on_validation
from pyro_cvae.errors import InputError
from pyro_cvae.metrics import rank_metrics


class Pairs(SimpleNamespace):
    """What evaluation reads of an Interactions."""

    def __len__(self):
        return len(self.users)


def pairs(rows, n_items, ratings=None, confidences=None):
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    items = np.array([item for row in rows for item in row], dtype=np.int64)
    ratings = np.ones(len(users)) if ratings is None else np.array(ratings)
    return Pairs(users=users, items=items, ratings=ratings, confidences=confidences, n_users=len(rows), n_items=n_items)


def a_split(train, test, validation=None, tuning_users=None):
    return SimpleNamespace(train=train, test=test, validation=validation, tuning_users=tuning_users)


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

    expected = rank_metrics(scores, csr(split.train, split.validation), csr(split.test), (5, 20), protocol)
    for name, values in expected.items():
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
    monkeypatch.setattr(evaluate_module, "BLOCK_SCORES", 1000)
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
    positives = scipy.sparse.csr_matrix((np.ones(7), (train.users, train.items)), shape=(4, 6))
    assert item_groups(positives).tolist() == [0, 1, 1, 1, 2, 2]
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


def test_what_cannot_be_evaluated_says_why():
    train, nothing = pairs([[0], [1]], 3), pairs([[], []], 3)
    with pytest.raises(InputError, match="no user has a test item"):
        evaluate(fixed(np.zeros((2, 3))), a_split(train, nothing))
    with pytest.raises(InputError, match="no validation part; choose one with --validation"):
        recall_on_validation(fixed(np.zeros((2, 3))), a_split(train, train))
    with pytest.raises(InputError, match="choose one of corrected, paper"):
        evaluate(fixed(np.zeros((2, 3))), a_split(train, train), protocol="best")
    split = a_split(train, pairs([[1], [2]], 3), tuning_users=np.array([True, True]))
    with pytest.raises(InputError, match="tuning user"):
        evaluate(fixed(np.zeros((2, 3))), split).means()
