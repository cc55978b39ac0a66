"""The benchmark of going on from a run hides what it says, fits, goes on and compares, on a tiny catalogue."""

import numpy as np
import pytest

from benchmarks import start_from
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import per_user

SMALL = {"factors": 4, "hidden": (6,), "pretrain_epochs": 1, "sweeps": 2, "tune": 2}


@pytest.fixture(scope="module")
def dataset():
    return simulated(n_users=90, n_items=150, n_words=40, n_factors=3)


@pytest.mark.usefixtures("threads")
def test_every_fit_has_its_row(dataset, capsys):
    given = {"dataset": dataset, "split": per_user(dataset, 10, 0)} | SMALL
    rows = start_from.main(["--hidden", "0.2", "--sweeps", "1", "30", "--threads", "1"], **given)
    full, one, many, other = rows
    assert full["top 50"] == 1.0 and full["distance"] == 0.0
    for row in (one, many, other):
        assert 0.3 < row["top 50"] <= 1.0 and row["distance"] > 0 and row["recall@50"] > 0
    assert one["hidden"] == "20%" and "--sweeps 30" in many["fit"] and "--seed 1" in other["fit"]
    assert one["recall@50"] != many["recall@50"], "the number of sweeps makes a difference"
    assert "simulated" in capsys.readouterr().out


def test_what_is_hidden(dataset):
    train = per_user(dataset, 10, 0).train
    old = start_from.before(dataset, train, 0.4)
    assert 0.5 < len(old.interactions) / len(train) < 0.7
    assert old.n_users < dataset.n_users and old.n_items < dataset.n_items
    users, items = dataset.user_rows(old.user_ids), dataset.item_rows(old.item_ids)
    there = users[old.interactions.users] * dataset.n_items + items[old.interactions.items]
    assert np.isin(there, train.keys).all()
    assert (dataset.content.counts[items] != old.content.counts).nnz == 0
