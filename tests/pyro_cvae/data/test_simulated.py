"""The simulators draw what they say, keep the truth, and repeat themselves."""

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr

from pyro_cvae.data.simulated import THEMES, simulated, simulated_gaussian


@pytest.fixture(scope="module")
def clicks():
    return simulated()


@pytest.fixture(scope="module")
def gaussian():
    return simulated_gaussian()


@pytest.mark.parametrize("make", [simulated, simulated_gaussian])
def test_a_seed_gives_the_same_data_set_and_another_seed_another(make):
    assert make(3).fingerprint() == make(3).fingerprint() != make(4).fingerprint()


def test_the_default_is_the_stated_size(clicks):
    assert (clicks.n_users, clicks.n_items, clicks.n_features) == (600, 1200, 1500)
    assert len(set(clicks.content.vocabulary)) == 1500
    assert clicks.user_ids[[0, -1]].tolist() == ["user-0001", "user-0600"]
    assert clicks.item_ids[[0, -1]].tolist() == ["item-0001", "item-1200"]
    assert clicks.interactions.user_counts.min() >= 12
    assert 25 < clicks.interactions.user_counts.mean() < 35
    assert (clicks.interactions.ratings == 1).all() and clicks.interactions.confidences is None


@pytest.mark.parametrize("make", [simulated, simulated_gaussian])
def test_the_truth_fits_together(make):
    data = make(1)
    truth = data.truth
    np.testing.assert_array_equal(truth["scores"], truth["u"] @ truth["v"].T)
    # Each is a sample of 750 or more standard Normals: a wrong scale is found at once.
    for name, sample in (
        ("u", truth["u"] * np.sqrt(truth["lambda_u"])),
        ("z", truth["z"]),
        ("v_dagger", (truth["v"] - truth["z"]) * np.sqrt(truth["lambda_v"])),
    ):
        assert kstest(sample.ravel(), "norm").pvalue > 1e-4, name


def test_clicks_go_to_the_items_with_the_larger_scores(clicks):
    pairs, scores = clicks.interactions, clicks.truth["scores"]
    clicked = scores[pairs.users, pairs.items]
    ranks = (scores.argsort(axis=1).argsort(axis=1) / (clicks.n_items - 1))[pairs.users, pairs.items]
    assert clicked.mean() > scores.mean() + 3
    assert ranks.mean() > 0.85


def test_click_frequencies_follow_the_stated_rule():
    """One click of each of many users with one taste: frequencies are softmax(score)."""
    data = simulated(5, n_users=400, n_items=30, n_words=50, n_factors=2, clicks_per_user=12.0)
    scores, pairs = data.truth["scores"], data.interactions
    # 12 of 30 items without replacement: the sum over users of inclusion is between softmax and 1.
    softmax = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    clicked = pairs.csr().toarray()
    assert (clicked.sum(axis=1) == 12).all()
    assert (clicked[softmax > 0.9] == 1).mean() > 0.999
    bins = np.digitize(softmax, np.quantile(softmax, np.linspace(0, 1, 11)[1:-1]))
    shares = [clicked[bins == b].mean() for b in range(10)]
    assert (np.diff(shares) > 0).all()


def test_words_follow_the_factors_and_titles_are_made_of_them(clicks):
    counts = clicks.content.counts
    assert not clicks.content.empty.any()
    assert abs(counts.sum(axis=1).mean() - 60) < 5 * np.sqrt(60 / clicks.n_items)
    for factor, theme in ((0, 0), (0, 1), (3, 6)):
        columns = [clicks.content.vocabulary.index(word) for word in THEMES[theme]]
        share = counts[:, columns].sum(axis=1)
        sign = (1, -1)[theme % 2]
        assert spearmanr(np.asarray(share).ravel(), sign * clicks.truth["z"][:, factor]).statistic > 0.5
    words = {word for theme in THEMES for word in theme}
    for title in clicks.titles:
        assert 2 <= len([w for w in title.lower().replace(",", "").split() if w in words]) <= 3, title


def test_themes_are_different_words():
    assert len(THEMES) == 20 and all(len(theme) == 12 for theme in THEMES)
    assert all(word.isascii() and word.isalpha() and word.islower() for theme in THEMES for word in theme)


def test_gaussian_stores_every_cell_with_its_precision(gaussian):
    pairs, truth = gaussian.interactions, gaussian.truth
    assert pairs.complete
    a, b = truth["a"], truth["b"]
    assert set(np.unique(pairs.confidences)) == {float(a), float(b)}
    exposed = pairs.confidences == a
    assert abs(exposed.mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / len(pairs))
    noise = (pairs.ratings - truth["scores"].ravel()) * np.sqrt(pairs.confidences)
    for part in (exposed, ~exposed):
        assert kstest(noise[part], "norm").pvalue > 1e-4
    assert abs(spearmanr(exposed, truth["scores"].ravel()).statistic) < 5 / np.sqrt(len(pairs))


def test_small_and_odd_sizes_work():
    data = simulated(0, n_users=1, n_items=2, n_words=3, n_factors=1)
    assert len(data.interactions) == 2
    assert data.titles[0]
    assert simulated(0, n_users=3, n_items=20, n_words=700, n_factors=12).n_features == 700
