"""Splits: every pair in one part, the stated rules, seeds, round trips."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from pyro_cvae.data import splits
from pyro_cvae.data.content import Content
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.errors import InputError


def dataset(pairs, n_users, n_items, **columns):
    users, items = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    interactions = Interactions.from_arrays(users, items, n_users=n_users, n_items=n_items, **columns)
    content = Content(sp.csr_matrix((n_items, 1)))
    return Dataset("small", interactions, content, np.arange(n_users), np.arange(n_items))


def dense(seed=0, n_users=40, n_items=60, share=0.3, **columns):
    mask = np.random.default_rng(seed).random((n_users, n_items)) < share
    return dataset(np.argwhere(mask).tolist(), n_users, n_items, **columns)


@st.composite
def datasets(draw):
    n_users, n_items = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    cell = st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1))
    pairs = sorted(draw(st.sets(cell, min_size=1)))
    weights = draw(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=len(pairs), max_size=len(pairs)))
    return dataset(pairs, n_users, n_items, confidences=weights, times=np.arange(len(pairs)) % 5)


def assert_partition(split, data):
    """Train, test and validation hold every observed pair once, missing ones are in train only."""
    pairs = data.interactions
    parts = [split.train.keys[split.train.observed], split.test.keys]
    if split.validation is not None and split.tuning_users is None:
        parts.append(split.validation.keys)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), pairs.keys[pairs.observed])
    assert np.isin(pairs.keys[~pairs.observed], split.train.keys).all()


@given(datasets(), st.integers(1, 4), st.integers(0, 99))
def test_per_user_takes_n_of_each_users_pairs_in_the_stated_order(data, n, seed):
    split = splits.per_user(data, n, seed)
    assert_partition(split, data)
    np.testing.assert_array_equal(split.train.user_counts, np.minimum(data.interactions.user_counts, n))
    random, pairs = np.random.RandomState(seed), data.interactions
    for user in range(data.n_users):
        items = pairs.items[pairs.observed & (pairs.users == user)]
        train = split.train.items[split.train.observed & (split.train.users == user)]
        assert train.tolist() == sorted(items[random.permutation(len(items))[:n]].tolist())


@given(datasets(), st.floats(0.05, 0.95), st.integers(0, 99))
def test_cells_that_are_held_out_are_missing_in_training(data, fraction, seed):
    split = splits.held_out_cells(data, fraction, seed)
    assert_partition(split, data)
    assert len(split.test) == round(fraction * data.interactions.observed.sum())
    np.testing.assert_array_equal(split.train.keys, data.interactions.keys)
    held = np.isin(split.train.keys, split.test.keys)
    assert (split.train.confidences[held] == 0).all() and (split.train.ratings[held] == 0).all()
    if len(split.train.observed) and split.train.user_counts.max() > 1:
        with_part = splits.with_validation(split, 0.5, seed)
        assert_partition(with_part, data)
        np.testing.assert_array_equal(with_part.train.keys, data.interactions.keys)


def test_held_out_items_are_cold_in_training():
    data = dense()
    split = splits.held_out_items(data, 0.25, 1)
    assert_partition(split, data)
    held = np.unique(split.test.items)
    assert len(held) == 15
    assert (split.train.item_counts[held] == 0).all()
    np.testing.assert_array_equal(split.test.item_counts[held], data.interactions.item_counts[held])


def test_held_out_items_needs_two_rated_items_and_leaves_one():
    with pytest.raises(InputError, match="fewer than two"):
        splits.held_out_items(dataset([(0, 1), (1, 1)], 2, 3), 0.5, 0)
    split = splits.held_out_items(dataset([(0, 0), (1, 1)], 2, 3), 0.99, 0)
    assert (len(split.train), len(split.test)) == (1, 1)


def test_by_time_tests_on_the_latest_and_never_tears_a_moment_apart():
    data = dataset([(0, i) for i in range(10)], 1, 10, times=[0, 1, 2, 3, 4, 5, 6, 7, 7, 7])
    assert splits.by_time(data, 0.4).test.items.tolist() == [6, 7, 8, 9]
    assert splits.by_time(data, 0.1).test.items.tolist() == [7, 8, 9]
    split = splits.by_time(data, 0.2)
    assert split.train.times.max() < split.test.times.min()
    assert_partition(split, data)


@given(datasets(), st.floats(0.01, 0.99), st.integers(0, 99))
def test_the_last_of_each_user_are_their_latest_and_one_stays(data, fraction, seed):
    when = np.random.default_rng(seed).integers(4, size=len(data.interactions)).astype(float)
    data = replace(data, interactions=replace(data.interactions, times=when))
    split = splits.last_of_each_user(data, fraction, seed)
    assert_partition(split, data)
    had, kept = data.interactions.user_counts, split.train.user_counts
    assert (kept[had > 0] >= 1).all()
    assert (np.abs(split.test.user_counts - np.minimum(fraction * had, had - 1)) < 1)[had > 0].all()
    for user in np.flatnonzero(split.test.user_counts):
        earlier, later = (part.times[(part.users == user) & part.observed] for part in (split.train, split.test))
        assert earlier.max() <= later.min()


def test_the_last_of_each_user_need_times_and_validation_is_of_the_last_too():
    with pytest.raises(InputError, match="no times"):
        splits.last_of_each_user(dense(), 0.2, 0)
    data = dense()
    ids = data.interactions.items.astype(float)
    data = replace(data, interactions=replace(data.interactions, times=ids))
    split = splits.with_validation(splits.last_of_each_user(data, 0.2, 0), 0.2, 0)
    assert split.protocol["validation"]["kind"] == "last training pairs" and len(split.validation)
    for user in np.flatnonzero(split.validation.user_counts):
        known, looked, tested = (part.times[part.users == user] for part in (split.train, split.validation, split.test))
        assert known.max() < looked.min() and looked.max() < tested.min(initial=np.inf)


def test_by_time_needs_times_and_something_earlier():
    with pytest.raises(InputError, match="no times"):
        splits.by_time(dense(), 0.2)
    with pytest.raises(InputError, match="earlier"):
        splits.by_time(dataset([(0, 0), (0, 1)], 1, 2, times=[3, 3]), 0.2)


@given(datasets(), st.integers(2, 5), st.floats(0.01, 0.99), st.integers(0, 99))
def test_validation_leaves_training_and_every_user_keeps_a_pair(data, n, fraction, seed):
    split = splits.per_user(data, n, seed)
    if split.train.user_counts.max() <= 1:
        return
    got = splits.with_validation(split, fraction, seed)
    assert_partition(got, data)
    assert (got.train.user_counts[split.train.user_counts > 0] >= 1).all()
    assert got.test is split.test and got.tuning_users is None
    expected = fraction * split.train.user_counts
    assert (np.abs(got.validation.user_counts - np.minimum(expected, split.train.user_counts - 1)) <= 1).all()


def test_the_validation_share_is_the_fraction_in_expectation():
    data = dense(n_users=2000, n_items=10, share=0.35)  # 3 or 4 pairs a user: 0.1 of them is never a whole number
    split = splits.per_user(data, 10, 0)
    got = splits.with_validation(split, 0.1, 0)
    able = split.train.user_counts[split.train.user_counts > 1]
    # A sum of independent roundings, each with variance 1/4 at most; five standard deviations.
    assert abs(len(got.validation) - 0.1 * able.sum()) < 5 * np.sqrt(len(able) / 4)


def test_at_one_training_item_a_share_of_the_users_is_spent_on_tuning():
    data = dense()
    split = splits.per_user(data, 1, 0)
    got = splits.with_validation(split, 0.1, 3)
    assert got.tuning_users.dtype == bool and got.tuning_users.sum() == 4
    assert got.train is split.train and got.test is split.test
    expected = split.test.select(got.tuning_users[split.test.users])
    np.testing.assert_array_equal(got.validation.keys, expected.keys)
    assert (got.validation.user_counts > 0).sum() == 4
    assert got.describe()["tuning users"] == 4


def test_tuning_users_have_test_pairs():
    data = dataset([(u, 0) for u in range(50)] + [(u, 1) for u in (3, 5)], 50, 2)
    got = splits.with_validation(splits.per_user(data, 1, 0), 0.5, 0)
    assert got.tuning_users.sum() == 1 and got.tuning_users[[3, 5]].any()
    with pytest.raises(InputError, match="no user"):
        splits.with_validation(splits.per_user(dataset([(0, 0)], 1, 1), 1, 0), 0.1, 0)


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    data = dense()
    for make in (
        lambda seed: splits.per_user(data, 3, seed),
        lambda seed: splits.held_out_items(data, 0.2, seed),
        lambda seed: splits.held_out_cells(data, 0.2, seed),
        lambda seed: splits.with_validation(splits.per_user(data, 5, 0), 0.3, seed),
        lambda seed: splits.with_validation(splits.per_user(data, 1, 0), 0.3, seed),
    ):
        assert make(1).fingerprint() == make(1).fingerprint() != make(2).fingerprint()


def test_a_file_of_training_rows(tmp_path):
    data = dense()
    expected = splits.per_user(data, 3, 7)
    rows = [expected.train.items[expected.train.users == user][::-1] for user in range(data.n_users)]
    path = tmp_path / "cf-train-3-users.dat"
    path.write_text("\n".join(" ".join(map(str, [len(row), *row])) for row in rows))
    split = splits.from_file(data, path)
    assert split.fingerprint() == expected.fingerprint()
    assert split.protocol == {"kind": "file", "file": "cf-train-3-users.dat"}


def test_make_split_prefers_a_file_of_training_rows(tmp_path):
    data = dense(n_users=2, n_items=3, share=2.0)
    (tmp_path / "train.dat").write_text("1 2\n0 \n")
    split = splits.make_split(data, options(train_file=str(tmp_path / "train.dat"), split="time"))
    assert (split.train.keys.tolist(), len(split.test)) == ([2], 5)


def test_a_file_of_training_rows_needs_plain_ids(tmp_path):
    data = dense()
    named = Dataset("x", data.interactions, data.content, [f"u{u}" for u in range(40)], np.arange(60))
    with pytest.raises(InputError, match="ids are 0, 1, 2"):
        splits.from_file(named, tmp_path / "any.dat")


def test_a_training_pair_must_not_be_a_test_pair():
    pairs = dense().interactions
    with pytest.raises(InputError, match="also a test pair"):
        splits.Split(pairs, pairs.select(np.arange(len(pairs)) == 3), None, None, {})
    with pytest.raises(InputError, match="other sizes"):
        splits.Split(pairs, dense(n_users=3).interactions, None, None, {})


def options(**changes):
    fields = {"train_file": None, "split": "per-user", "train_per_user": 3, "test_fraction": 0.2, "split_seed": 5}
    return SimpleNamespace(**(fields | {"validation": 0.0} | changes))


def test_make_split_does_what_the_options_say():
    data = dense(times=None)
    assert splits.make_split(data, options()).fingerprint() == splits.per_user(data, 3, 5).fingerprint()
    held = splits.held_out_items(data, 0.2, 5)
    assert splits.make_split(data, options(split="items")).fingerprint() == held.fingerprint()
    got = splits.make_split(data, options(validation=0.3))
    assert got.fingerprint() == splits.with_validation(splits.per_user(data, 3, 5), 0.3, 5).fingerprint()
    with pytest.raises(InputError, match="no times"):
        splits.make_split(data, options(split="time"))
    with pytest.raises(InputError, match="unknown split"):
        splits.make_split(data, options(split="odd"))


def test_make_split_holds_out_cells_where_every_cell_is_stored():
    data = dense(share=2.0)
    split = splits.make_split(data, options())
    assert split.protocol == {"kind": "cells", "test_fraction": 0.2, "seed": 5}
    assert (len(split.train), len(split.test)) == (2400, 480)


def test_a_split_by_cells_of_stars_leaves_no_zero_where_a_rating_is_held_out():
    data = dense()
    stars = np.random.default_rng(1).integers(1, 6, len(data.interactions)).astype(float)
    data = replace(data, interactions=replace(data.interactions, ratings=stars))
    split = splits.make_split(data, options(split="cells", test_fraction=0.1, validation=0.25))
    n = len(stars)
    assert len(split.train) == n and len(split.test) == round(0.1 * n)
    held = np.isin(split.train.keys, np.concatenate([split.test.keys, split.validation.keys]))
    assert not split.train.observed[held].any() and split.train.observed[~held].all()
    assert not split.train.ratings[held].any()
    np.testing.assert_array_equal(split.train.ratings[~held], stars[~held])
    for part in (split.test, split.validation):
        np.testing.assert_array_equal(part.ratings, stars[np.isin(data.interactions.keys, part.keys)])
    assert not np.isin(split.test.keys, split.validation.keys).any()
    assert abs(len(split.validation) / (0.9 * n) - 0.25) < 0.02
    assert split.train.user_counts.min() >= 1


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_round_trip_is_exact(n, validation, tmp_path):
    weights = np.random.default_rng(0).choice([0, 1.5, np.nan], len(dense().interactions))
    data = dense(confidences=weights)
    split = splits.make_split(data, options(train_per_user=n, validation=validation))
    data.save(tmp_path)
    split.save(tmp_path)
    got = splits.Split.load(tmp_path)
    assert got.fingerprint() == split.fingerprint()
    assert got.protocol == split.protocol
    assert (got.validation is None, got.tuning_users is None) == (split.validation is None, split.tuning_users is None)
    for name, column in split.train.columns().items():
        np.testing.assert_array_equal(getattr(got.train, name), column)
    assert Dataset.load(tmp_path).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("name", ["split.json", "train.parquet", "test.parquet", "validation.parquet"])
def test_a_damaged_folder_is_an_error_that_names_the_file(name, tmp_path):
    splits.make_split(dense(), options(validation=0.2)).save(tmp_path)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match=name):
        splits.Split.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=name):
        splits.Split.load(tmp_path)


def test_swapped_parts_are_found(tmp_path):
    splits.per_user(dense(), 3, 0).save(tmp_path)
    raw = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes((tmp_path / "test.parquet").read_bytes())
    (tmp_path / "test.parquet").write_bytes(raw)
    with pytest.raises(InputError, match="changed or damaged"):
        splits.Split.load(tmp_path)
