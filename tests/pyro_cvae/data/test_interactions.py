"""Interactions: sorted, unique, valid; what is missing is not observed."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_cvae.data.interactions import Interactions
from pyro_cvae.errors import InputError

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.floats(0, 5)), max_size=40)


@given(PAIRS)
def test_pairs_given_in_any_order_are_sorted_and_the_last_of_each_is_kept(pairs):
    users, items, weights = (list(column) for column in zip(*pairs, strict=True)) if pairs else ([], [], [])
    got = Interactions.from_arrays(users, items, n_users=5, n_items=7, confidences=weights)
    expected = {(u, i): w for u, i, w in pairs}
    assert list(zip(got.users.tolist(), got.items.tolist(), strict=True)) == sorted(expected)
    assert got.confidences is not None
    assert got.confidences.tolist() == [expected[key] for key in sorted(expected)]
    assert (got.ratings == 1).all()


@given(PAIRS)
def test_csr_and_counts_hold_the_observed_pairs_only(pairs):
    users, items, weights = (list(column) for column in zip(*pairs, strict=True)) if pairs else ([], [], [])
    got = Interactions.from_arrays(users, items, n_users=5, n_items=7, confidences=weights, ratings=np.add(weights, 1))
    dense = np.zeros((5, 7))
    for u, i, w in pairs:
        dense[u, i] = (w + 1) * (w != 0)
    np.testing.assert_array_equal(got.csr().toarray(), dense)
    assert got.csr().has_sorted_indices
    np.testing.assert_array_equal(got.user_counts, (dense != 0).sum(1))
    np.testing.assert_array_equal(got.item_counts, (dense != 0).sum(0))


def test_merged_pairs_are_counted_in_a_warning_or_are_an_error(caplog):
    with caplog.at_level(logging.WARNING):
        Interactions.from_arrays([0, 0, 0], [1, 1, 1], n_users=1, n_items=2)
    assert "2 repeated pairs" in caplog.text
    with pytest.raises(InputError, match="2 pairs"):
        Interactions.from_arrays([0, 0, 0], [1, 1, 1], n_users=1, n_items=2, duplicates="error")


@pytest.mark.parametrize(
    "change",
    [
        {"users": [0, 3]},
        {"users": [-1, 0]},
        {"items": [0, 9]},
        {"items": [-2, 0]},
        {"ratings": [1.0, np.nan]},
        {"confidences": [1.0, -1.0]},
        {"confidences": [1.0, np.inf]},
        {"times": [0.0, np.inf]},
    ],
)
def test_invalid_pairs_are_refused(change):
    columns = {"users": [0, 1], "items": [0, 1], "n_users": 2, "n_items": 2} | change
    with pytest.raises(InputError):
        Interactions.from_arrays(**columns)


def test_unsorted_or_ragged_columns_are_refused():
    ones = np.ones(2)
    with pytest.raises(InputError, match="sorted"):
        Interactions(np.array([1, 0]), np.array([0, 0]), ones, None, None, 2, 2)
    with pytest.raises(InputError, match="shape"):
        Interactions(np.array([0, 1]), np.array([0, 0]), np.ones(3), None, None, 2, 2)


def test_a_nan_confidence_is_observed_and_a_zero_one_is_missing():
    got = Interactions.from_arrays([0, 0, 1], [0, 1, 1], n_users=2, n_items=2, confidences=[np.nan, 0, 2])
    assert got.observed.tolist() == [True, False, True]


def test_as_missing_hides_the_rating_and_select_keeps_the_rest():
    pairs = Interactions.from_arrays([0, 0, 1], [0, 1, 1], n_users=2, n_items=2, ratings=[3, 4, 5], times=[1, 2, 3])
    hidden = pairs.as_missing(np.array([False, True, False]))
    assert hidden.ratings.tolist() == [3, 0, 5]
    assert hidden.observed.tolist() == [True, False, True]
    kept = pairs.select(hidden.observed)
    assert (kept.items.tolist(), kept.times.tolist()) == ([0, 1], [1, 3])


def test_positive_leaves_out_zeros_and_missing_cells():
    pairs = Interactions.from_arrays(
        [0, 0, 1], [0, 1, 1], n_users=2, n_items=2, ratings=[0, 1, 1], confidences=[1, 1, 0]
    )
    assert pairs.positive.tolist() == [False, True, False]


def test_complete_means_every_cell_is_stored():
    users, items = np.divmod(np.arange(6), 3)
    assert Interactions.from_arrays(users, items, n_users=2, n_items=3).complete
    assert not Interactions.from_arrays(users[1:], items[1:], n_users=2, n_items=3).complete
