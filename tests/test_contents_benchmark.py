"""The benchmark of contents fits and measures every set of contents, on a tiny catalogue."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import contents
from inference.evaluation.rankings import evaluate
from inference.evaluation.rivals import tfidf
from pyro_cvae.data.content import Content
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import per_user

SMALL = {"factors": 4, "hidden": (6,), "pretrain_epochs": 1, "sweeps": 1, "tune": 1}


@pytest.mark.usefixtures("threads")
def test_every_set_has_every_model_and_rivals_the_same_contents(capsys):
    whole = simulated(n_users=60, n_items=400, n_words=60, n_factors=3)
    places = {"tags": slice(20, 40), "frequent-tags": slice(20, 30), "citations": slice(40, 60)}
    others = {name: Content(whole.content.counts[:, place]) for name, place in places.items()}
    dataset = replace(whole, content=Content(whole.content.counts[:, :20]), others=others, truth=None)
    chosen = ["--splits", "2", "--per-user", "5", "--threads", "1", "--models", "best", "tfidf", "popularity"]
    rows = contents.main(chosen, dataset=dataset, **SMALL)
    by_name = {(row["contents"], row["model"]): row for row in rows}
    expected = {(", ".join(own), model) for own in contents.SETS.values() for model in ("best", "tfidf")}
    assert by_name.keys() == expected | {("-", "popularity")}
    own = contents.SETS["citations"]
    found = []
    for split in (per_user(dataset, 5, seed) for seed in range(2)):
        found.append(evaluate(tfidf(dataset, split, own), split, cutoffs=(50,)).means()["recall@50"])
    row = by_name[", ".join(own), "tfidf"]
    assert row["recall@50"] == pytest.approx(np.mean(found))
    assert row["se@50"] == pytest.approx(np.std(found, ddof=1) / 2**0.5)
    assert "simulated, 2 random splits" in capsys.readouterr().out
