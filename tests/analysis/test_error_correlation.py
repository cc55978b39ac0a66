"""Rank correlations of error and sd against scipy and least squares; matched zeros that match."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import chi2, rankdata, spearmanr
from sklearn.preprocessing import SplineTransformer

from analysis.error_correlation import _rank_correlations, error_correlation, matched_zeros, popularity_bins
from analysis.over_users import user_weights
from analysis.reliability import reserved_users
from tests.analysis.planted import click_fit, gaussian_fit


def test_bins_are_powers_of_two():
    assert popularity_bins(np.array([0, 1, 2, 3, 4, 7, 8, 15, 16])).tolist() == [0, 1, 2, 2, 3, 3, 4, 4, 5]


def matched(fit, seed=0):
    test, counts = fit.split.test, np.bincount(fit.split.train.items, minlength=fit.dataset.n_items)
    taken = np.concatenate([fit.split.train.keys, test.keys])
    return test, counts, taken, matched_zeros(test.users, test.items, taken, counts, seed)


def test_matched_zeros_match():
    """Same user, same popularity bin, nowhere in the data, none twice; the seed decides."""
    test, counts, taken, zeros = matched(click_fit())
    found = zeros >= 0
    assert found.mean() > 0.9
    bins = popularity_bins(counts)
    assert np.array_equal(bins[zeros[found]], bins[test.items[found]])
    keys = test.users[found] * test.n_items + zeros[found]
    assert not np.isin(keys, taken).any() and len(np.unique(keys)) == found.sum()
    assert np.array_equal(zeros, matched(click_fit())[3]) and not np.array_equal(zeros, matched(click_fit(), 1)[3])


def test_a_positive_without_a_match_is_said_so():
    """Two items in the bin of user 0: one is the positive, the other is taken; user 1 finds it."""
    counts = np.array([5, 5, 1, 0])
    zeros = matched_zeros(np.array([0, 1]), np.array([0, 0]), np.array([0, 1, 4]), counts, seed=0)
    assert zeros.tolist() == [-1, 1]


@pytest.mark.statistical
def test_matched_zeros_are_uniform_over_what_is_free(failure_rate):
    counts, n = np.full(12, 3), 6000
    taken = np.arange(n) * 12 + np.arange(n) % 12
    zeros = matched_zeros(np.arange(n), np.arange(n) % 12, taken, counts, seed=0)
    steps = (zeros - np.arange(n)) % 12
    observed = np.bincount(steps, minlength=12)
    assert observed[0] == 0
    statistic = ((observed[1:] - n / 11) ** 2 / (n / 11)).sum()
    assert chi2.ppf(failure_rate / 2, 10) < statistic < chi2.isf(failure_rate / 2, 10)


def planted_errors(n=4000, n_users=150, seed=0):
    rng = np.random.default_rng(seed)
    score, popularity = rng.gamma(3.0, 0.2, n), rng.geometric(0.15, n) - 1
    return rng, score, popularity, rng.integers(0, n_users, n)


def test_correlations_equal_scipys_and_least_squares():
    """Spearman's by scipy; the partial one by residuals of ranks from an explicit regression."""
    rng, score, popularity, users = planted_errors()
    sd = 0.1 + 0.2 * score + 0.05 / (1 + popularity) + 0.05 * rng.random(len(score))
    error = (sd * rng.standard_normal(len(score))) ** 2
    plain, partial = _rank_correlations(error, sd, score, popularity, users, 50, 0)
    assert plain.value == pytest.approx(spearmanr(error, sd).statistic, rel=1e-10)
    spline = SplineTransformer(n_knots=5, degree=3).fit_transform(rankdata(score)[:, None] / len(score))
    bins = popularity_bins(popularity)
    design = np.column_stack([spline * (bins == b)[:, None] for b in np.unique(bins)] + [np.log1p(popularity)])
    left = [x - design @ np.linalg.lstsq(design, x, rcond=1e-5)[0] for x in (rankdata(error), rankdata(sd))]
    assert partial.value == pytest.approx(np.corrcoef(left)[0, 1], abs=1e-8)


def test_what_cannot_be_correlated_is_not_a_number():
    """An sd that is the same everywhere; fewer pairs than the terms of score and popularity."""
    rng, score, popularity, users = planted_errors(600, 40)
    plain, partial = _rank_correlations(rng.random(600), np.ones(600), score, popularity, users, 20, 0)
    assert np.isnan([plain.value, plain.low, partial.value, partial.high]).all()
    few = slice(0, 60)
    plain, partial = _rank_correlations(rng.random(60), rng.random(60), score[few], popularity[few], users[few], 20, 0)
    assert np.isfinite(plain.value) and np.isnan(partial.value)


def test_a_resample_weighs_users():
    """Interval ends from weighted regressions, resample by resample."""
    rng, score, popularity, users = planted_errors(600, 40)
    sd, error = rng.random(600), rng.random(600)
    _, partial = _rank_correlations(error, sd, score, popularity, users, 60, 3)
    spline = SplineTransformer(n_knots=5, degree=3).fit_transform(rankdata(score)[:, None] / 600)
    bins = popularity_bins(popularity)
    design = np.column_stack([spline * (bins == b)[:, None] for b in np.unique(bins)] + [np.log1p(popularity)])
    ranks = np.stack([rankdata(error), rankdata(sd)], 1) / 600 - 0.5
    drawn = []
    for weights in user_weights(40, 60, 3)[1:]:
        root = np.sqrt(weights[users])[:, None]
        left = root * ranks - root * design @ np.linalg.lstsq(root * design, root * ranks, rcond=1e-5)[0]
        drawn.append((left[:, 0] @ left[:, 1]) / np.sqrt((left**2).sum(0).prod()))
    assert (partial.low, partial.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-6)


@pytest.mark.statistical
def test_an_sd_that_tells_is_seen_and_one_that_only_follows_the_score_is_not():
    """Errors with the sd: partial correlation above 0. Errors and sd that share the score alone: 0 is inside."""
    held = 0
    for seed in range(20):
        rng, score, popularity, users = planted_errors(seed=seed)
        sd = 0.1 + 0.3 * score * rng.uniform(0.5, 1.5, len(score))
        _, told = _rank_correlations((sd * rng.standard_normal(len(sd))) ** 2, sd, score, popularity, users, 200, 0)
        assert told.low > 0
        error = (score * rng.standard_normal(len(sd))) ** 2
        plain, given = _rank_correlations(error, sd, score, popularity, users, 200, 0)
        assert plain.low > 0
        held += given.low <= 0 <= given.high
    assert held >= 14  # of 20 at 95 %: fewer with a chance of 3e-5


def test_on_data_from_the_model_the_error_is_that_of_the_true_score():
    fit = gaussian_fit(0, n_users=60, n_items=60)
    found = error_correlation(fit, "planted", resamples=100)
    row = found.table.iloc[0]
    assert found.outcome == "true score" and row["n"] == len(fit.split.test) == found.n_pairs
    users, items = fit.split.test.users.copy(), fit.split.test.items.copy()
    mean, sd = (x.numpy() for x in fit.posterior.score(users, items))
    error = (fit.dataset.truth["scores"][users, items] - mean) ** 2
    assert row["spearman"] == pytest.approx(spearmanr(error, sd).statistic, rel=1e-9)
    assert row["partial_low"] > 0  # the truth is a draw of this posterior


def test_on_clicks_positives_of_reported_users_and_as_many_zeros():
    fit = click_fit()
    found = error_correlation(fit, "planted", reserve=0.3, resamples=50)
    _, reported = reserved_users(fit, 0.3, 0)
    n = np.isin(fit.split.test.users, reported).sum()
    assert found.outcome == "matched" and found.n_pairs == 2 * (n - found.n_unmatched)
    assert found.table["by"].iloc[0] == "all"
    groups = found.table[found.table["by"] == "items"]
    assert groups["n"].sum() == found.n_pairs
    point = error_correlation(dataclasses.replace(fit, posterior=click_fit(kind="point").posterior), resamples=50)
    assert point.table.empty and point.kind == "point"
