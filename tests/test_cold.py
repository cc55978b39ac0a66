"""The benchmark of cold items fits, finds settings and measures, on a tiny catalogue."""

import numpy as np
import pytest

from benchmarks import cold
from pyro_cvae.data.simulated import simulated

SMALL = {"factors": 4, "hidden": (6,), "pretrain_epochs": 1, "sweeps": 2, "tune": 2}


@pytest.mark.usefixtures("threads")
def test_every_split_has_every_model(capsys):
    dataset = simulated(n_users=90, n_items=150, n_words=40, n_factors=3)
    models = ["best", "tfidf", "popularity"]
    rows = cold.main(["--threads", "1", "--models", *models], dataset=dataset, **SMALL)
    assert [(row["split"], row["model"]) for row in rows] == [(kind, m) for kind in cold.SPLITS for m in models]
    by_name = {(row["split"], row["model"]): row for row in rows}
    assert by_name["items", "popularity"]["recall@300"] > 0, "a list of all items has them all"
    assert "new" in by_name["items", "best"]["found"] and by_name["random", "tfidf"]["found"] == ""
    assert "simulated, items" in capsys.readouterr().out


def test_the_oldest_items_train():
    dataset = simulated(n_users=40, n_items=120, n_words=20, n_factors=3)
    split = cold.oldest(dataset)
    assert split.train.user_counts.max() == cold.PER_USER
    for user in range(40):
        trained, tested = (part.items[part.users == user] for part in (split.train, split.test))
        assert not len(tested) or trained.max() < tested.min()
        assert np.array_equal(np.sort(trained), trained)
