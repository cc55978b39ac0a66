"""What a split holds out is said: nothing (--split none), ties, and shares that small data do not have."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from pyro_cvae.data import splits
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.splits import (
    by_time,
    held_out_cells,
    held_out_items,
    make_split,
    per_user,
    with_validation,
)
from pyro_cvae.errors import InputError


def table(n_users=10, each=4, times=None):
    n = n_users * each
    pairs = {"user": [k // each for k in range(n)], "item": [k % (each + 3) for k in range(n)]}
    if times is not None:
        pairs["time"] = times
    return from_frames(pairs, {"item": list(range(each + 3)), "text": ["oven sail"] * (each + 3)})


def options(**changed):
    asked = {"split": "per-user", "train_per_user": 2, "train_file": None, "validation_file": None, "test_file": None}
    more = {"test_fraction": 0.25, "split_seed": 0, "validation": 0.0}
    return SimpleNamespace(**asked | more | changed)


def test_none_trains_on_all_pairs_and_says_so(caplog):
    dataset = table()
    with caplog.at_level(logging.INFO):
        split = make_split(dataset, options(split="none"))
    assert len(split.train) == 40 and len(split.test) == 0 and split.validation is None
    assert split.protocol == {"kind": "none"} and "40 pairs train, none is held out" in caplog.text
    np.testing.assert_array_equal(split.train.keys, dataset.interactions.keys)
    with pytest.raises(InputError, match=r"all pairs were fitted \(--split none\).*; fit again with another --split"):
        splits.need_test(split)
    splits.need_test(per_user(dataset, 2, 0))
    tuned = make_split(dataset, options(split="none", validation=0.25))
    assert len(tuned.validation) + len(tuned.train) == 40 and 5 <= len(tuned.validation) <= 15
    with pytest.raises(InputError, match="no user has a second training pair"):
        with_validation(splits.nothing_held_out(table(each=1)), 0.2, 0)


def test_every_split_says_how_many_pairs_it_holds_out(caplog):
    with caplog.at_level(logging.INFO):
        make_split(table(), options())
        make_split(table(), options(train_per_user=3, validation=0.34))
    said = [record.getMessage() for record in caplog.records if "held out" in record.getMessage()]
    assert said[0] == "20 pairs train; 50% are held out: 20 test pairs (--split none fits all)"
    assert "10 test pairs" in said[1] and "validation pairs" in said[1]


@pytest.mark.parametrize(("fraction", "became"), [(0.3, 0.5), (0.5, None), (0.49, None), (0.1, 0.5)])
def test_ties_in_time_are_said(caplog, fraction, became):
    split = by_time(table(times=[1.0] * 20 + [2.0] * 20), fraction)
    assert len(split.test) == 20 and split.protocol.get("became") == became
    said = f"--test-fraction {fraction:g} became 0.5: 20 of 40 pairs, since pairs of one moment stay together"
    assert (said in caplog.text) == (became is not None)


def test_what_was_asked_for_is_not_remarked_on(caplog):
    dataset = table(n_users=50, times=list(range(200)))
    for split in (by_time(dataset, 0.3), held_out_cells(dataset, 0.3, 0), per_user(dataset, 2, 0)):
        assert "became" not in split.protocol
    assert "became" not in held_out_items(table(each=97), 0.3, 0).protocol
    assert "became" not in with_validation(per_user(table(n_users=200), 3, 0), 0.3, 0).protocol["validation"]
    assert "became" not in caplog.text


def test_shares_that_small_data_do_not_have_are_said(caplog):
    dataset = table()
    items = held_out_items(dataset, 0.01, 0)
    assert len(np.unique(items.test.items)) == 1 and items.protocol["became"] == pytest.approx(1 / 7, abs=1e-4)
    assert "--test-fraction 0.01 became 0.143: 1 of 7 rated items" in caplog.text
    cells = held_out_cells(dataset, 0.01, 0)
    assert not len(cells.test) and "--test-fraction 0.01 became 0: 0 of 40 cells" in caplog.text
    none = held_out_cells(table(n_users=1), 0.1, 0)
    assert not len(none.test) and "--test-fraction 0.1 became 0: 0 of 4 cells" in caplog.text
    none = with_validation(per_user(dataset, 2, 0), 0.02, 3)
    assert not len(none.validation) and "--validation 0.02 became 0: 0 of 20 training pairs" in caplog.text
    capped = with_validation(per_user(dataset, 2, 0), 0.9, 0)
    assert len(capped.validation) == 10 and capped.protocol["validation"]["became"] == 0.5
    assert "--validation 0.9 became 0.5: 10 of 20 training pairs, since every user keeps a training pair" in caplog.text
    tuning = with_validation(per_user(dataset, 1, 0), 0.02, 0)
    assert tuning.tuning_users.sum() == 1 and "--validation 0.02 became 0.1: 1 of 10 users" in caplog.text
