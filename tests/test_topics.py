"""The benchmark of strangers' tables draws what it says, and measures every model on the same split."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import topics
from benchmarks.study.topics import SHAPES, Shape, drawn

TINY = Shape(40, 60, 6, 3, 8, 0.5, 2.0)
SMALL = {"factors": 4, "hidden": (6,), "pretrain_epochs": 1, "sweeps": 1, "tune": 2}


@pytest.mark.usefixtures("threads")
def test_every_model_is_measured_and_told(monkeypatch, capsys):
    monkeypatch.setitem(SHAPES, "club", TINY)
    found = topics.main(["--shapes", "club", "--seeds", "2", "--threads", "1"], **SMALL)
    assert list(found) == ["club"] and list(found["club"]) == [topics.OURS, *topics.RIVALS]
    for recalls in found["club"].values():
        assert recalls.shape == (2, 3) and (np.diff(recalls) >= 0).all() and (recalls[:, -1] > 0.3).all()
    assert not np.array_equal(*found["club"]["popularity"])
    text = capsys.readouterr().out
    assert "club: 40 users, 60 items, 2 seeds" in text and all(name in text for name in topics.RIVALS)
    away = (found["club"]["als"] - found["club"][topics.OURS])[:, -1]
    assert f"{away.mean():+.4f} ± {abs(away[0] - away[1]) / 2:.4f}" in text


def test_users_choose_items_once_and_by_their_topics():
    dataset = drawn(TINY, 0)
    pairs = dataset.interactions
    assert len(np.unique(pairs.users * dataset.n_items + pairs.items)) == len(pairs)
    assert 5 < len(pairs) / dataset.n_users < 7 and dataset.content.counts.shape[0] == dataset.n_items
    same = drawn(TINY, 0)
    assert same.fingerprint() == dataset.fingerprint() != drawn(TINY, 1).fingerprint()
    words = dataset.content.counts.toarray()
    words = words / np.linalg.norm(words, axis=1, keepdims=True)
    chosen = np.zeros((dataset.n_users, dataset.n_items), bool)
    chosen[pairs.users, pairs.items] = True
    alike = words @ words.T
    own = np.array([alike[np.ix_(one, one)].mean() for one in chosen])
    assert (own > alike.mean()).mean() > 0.9


def test_popular_items_are_chosen_by_more_users():
    counts = [drawn(replace(TINY, n_users=400, popularity=popularity), 0).interactions.item_counts
              for popularity in (0.0, 2.0)]  # fmt: skip
    assert counts[1].std() > 2 * counts[0].std()
