"""Top lists, who recalibrates and who is reported, scores and their intervals, against brute force."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.metrics import brier_score_loss

from analysis.over_users import interval, sums_by_user, user_weights
from analysis.recalibration import calibration_error, predict
from analysis.reliability import draw_reliability, reliability, reserved_users, top_lists
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.errors import InputError
from tests.analysis.planted import click_fit

TOP = 15


@pytest.fixture(scope="module")
def fit():
    return click_fit()


@pytest.fixture(scope="module")
def result(fit):
    return reliability(fit, "planted", top=TOP, reserve=0.3, resamples=200)


def pairs_of(part):
    return set(zip(part.users.tolist(), part.items.tolist(), strict=True))


def brute_lists(fit, users, top):
    """Items, scores and relevance of each user's list, user by user."""
    scores = (fit.posterior.u_loc @ fit.posterior.v_loc.mT).numpy()
    train, test = pairs_of(fit.split.train), pairs_of(fit.split.test)
    validation = set() if fit.split.validation is None else pairs_of(fit.split.validation)
    rows = []
    for user in users:
        order = np.argsort(-scores[user])
        items = [j for j in order if (user, j) not in train | (validation - test)][:top]
        rows.append([(j, scores[user, j], (user, j) in test) for j in items])
    return np.array(rows)


@pytest.mark.parametrize(("train_per_user", "validation"), [(6, 0.0), (6, 0.4), (1, 0.2)])
def test_lists_are_those_of_brute_force(train_per_user, validation):
    """Training and validation pairs are no candidates; at one training item a tuning user's validation pairs are."""
    fit = click_fit(train_per_user=train_per_user, validation=validation)
    users = np.unique(fit.split.test.users)
    found, expected = top_lists(fit, users, TOP), brute_lists(fit, users, TOP)
    assert np.array_equal(found.items, expected[..., 0].astype(int))
    np.testing.assert_allclose(found.score, expected[..., 1], rtol=1e-12)
    assert np.array_equal(found.relevant, expected[..., 2]) and found.relevant.any()
    _, sd = fit.posterior.score(users[:, None], found.items)
    np.testing.assert_allclose(found.sd, sd.numpy(), rtol=1e-12)
    counts = np.bincount(fit.split.train.items, minlength=fit.dataset.n_items)
    assert np.array_equal(found.popularity, counts[found.items])


def test_a_list_that_is_longer_than_the_candidates_ends_where_they_end(fit):
    users = np.unique(fit.split.test.users)[:4]
    found = top_lists(fit, users, 1000)
    n_known = np.bincount(fit.split.train.users, minlength=fit.dataset.n_users)[users]
    assert np.array_equal(found.there.sum(1), fit.dataset.n_items - n_known)
    flat = found.flat(np.array([True, False, True, True]))
    assert np.isfinite(flat["score"]).all() and set(flat["user"]) == {0, 1, 2}
    assert np.array_equal(np.bincount(flat["user"]), fit.dataset.n_items - n_known[[0, 2, 3]])


def test_reserved_users_are_the_tuning_users_where_there_are_any(fit):
    tuned = click_fit(train_per_user=1, validation=0.2)
    reserved, reported = reserved_users(tuned, 0.5, seed=0)
    assert np.array_equal(reserved, np.flatnonzero(tuned.split.tuning_users))
    able = np.unique(fit.split.test.users)
    for one in (reserved_users(fit, 0.3, seed) for seed in (0, 1)):
        assert len(one[0]) == round(0.3 * len(able)) and np.array_equal(np.sort(np.concatenate(one)), able)
    assert not np.array_equal(reserved_users(fit, 0.3, 0)[0], reserved_users(fit, 0.3, 1)[0])
    assert not np.intersect1d(reserved, reported).size
    with pytest.raises(InputError, match=r"only \d+ users have held-out positives"):
        reserved_users(fit, 0.9999, 0)


def test_no_test_pair_of_a_reported_user_is_used_in_the_recalibration(fit, result):
    """Other test pairs of the users that are reported: another result by the same recalibration."""
    reserved, _ = reserved_users(fit, 0.3, 0)
    test, n_items = fit.split.test, fit.dataset.n_items
    kept = np.isin(test.users, reserved)
    keys = test.users * n_items + (test.items + 7) % n_items
    kept_or_moved = np.where(kept, test.keys, keys)
    free = np.isin(kept_or_moved, fit.split.train.keys, invert=True)
    users, items = np.divmod(np.unique(kept_or_moved[free]), n_items)
    moved = Interactions.from_arrays(users, items, n_users=test.n_users, n_items=n_items)
    assert np.array_equal(np.unique(moved.users), np.unique(test.users))
    other_fit = dataclasses.replace(fit, split=dataclasses.replace(fit.split, test=moved))
    other = reliability(other_fit, "planted", top=TOP, reserve=0.3, resamples=20)
    assert other.recalibration == result.recalibration and other.candidates.equals(result.candidates)
    assert other.base_rate.value != result.base_rate.value
    mean = [one.scores.loc["recalibrated", "mean"] for one in (result, other)]
    assert mean[0] == pytest.approx(mean[1], rel=1e-12)  # the predictions are the same, what they meet is not
    spoilt = dataclasses.replace(
        fit, split=dataclasses.replace(fit.split, test=test.select(~kept | (test.items % 2 == 0)))
    )
    assert reliability(spoilt, top=TOP, reserve=0.3, resamples=20).recalibration != result.recalibration


def reported_lists(fit):
    _, reported = reserved_users(fit, 0.3, 0)
    return reported, top_lists(fit, reported, TOP).flat(np.ones(len(reported), bool))


def test_scores_are_those_of_scikit_learn_and_of_the_definition(fit, result):
    _, columns = reported_lists(fit)
    y, p = columns["y"], predict(result.recalibration, columns)
    row = result.scores.loc["recalibrated"]
    assert row["brier"] == pytest.approx(brier_score_loss(y, p), rel=1e-12)
    assert row["skill"] == pytest.approx(
        1 - brier_score_loss(y, p) / brier_score_loss(y, np.full(len(y), y.mean())), rel=1e-9
    )
    assert row["calibration_error"] == pytest.approx(calibration_error(p, y), rel=1e-9)
    popular = result.scores.loc["popularity", "brier"]
    assert row["skill_over_popularity"] == pytest.approx(1 - row["brier"] / popular, rel=1e-9)
    assert result.scores.loc["popularity", "skill_over_popularity"] == 0
    clipped = np.clip(columns["score"], 0, 1)
    assert result.scores.loc["clipped score", "brier"] == pytest.approx(brier_score_loss(y, clipped), rel=1e-9)
    assert result.base_rate.value == pytest.approx(y.mean(), rel=1e-12)
    assert row["skill"] > 0.02 and result.sd_gain.value == pytest.approx(
        result.scores.loc["recalibrated with sd", "skill"] - row["skill"], abs=1e-12
    )
    assert result.histogram.sum() == len(y)


def test_bins_and_groups_hold_every_pair(fit, result):
    _, columns = reported_lists(fit)
    y = columns["y"]
    for _, bins in result.bins.groupby("prediction"):
        assert bins["n"].sum() == len(y)
        assert (bins["n"] * bins["share"]).sum() == pytest.approx(y.sum(), rel=1e-12)
        assert ((bins["low"] <= bins["share"]) & (bins["share"] <= bins["high"])).all()
    for _, group in result.groups.groupby("by"):
        assert group["n"].sum() == len(y)
        assert (group["n"] * group["share"]).sum() == pytest.approx(y.sum(), rel=1e-12)
    counts = np.bincount(fit.split.train.items, minlength=fit.dataset.n_items)[columns["item"]]
    for row in result.groups[result.groups["by"] == "popularity"].to_dict("records"):
        low, _, high = row["group"].partition("-")
        inside = (counts >= int(low)) & (counts <= int(high or low))
        assert row["n"] == inside.sum() and row["share"] == pytest.approx(y[inside].mean(), rel=1e-12)


def test_a_resample_is_users_with_all_their_pairs_as_often_as_drawn(fit, result):
    """The intervals again from copies of the users' pairs, resample by resample."""
    reported, columns = reported_lists(fit)
    y, p, user = columns["y"], predict(result.recalibration, columns), columns["user"]
    shares, briers = [], []
    for weights in user_weights(len(reported), 200, 0).astype(int):
        drawn = np.repeat(np.arange(len(y)), weights[user])
        shares.append(y[drawn].mean())
        briers.append(brier_score_loss(y[drawn], p[drawn]))
    row = result.scores.loc["recalibrated"]
    low, high = np.quantile(shares[1:], [0.025, 0.975])
    assert (result.base_rate.low, result.base_rate.high) == pytest.approx((low, high), rel=1e-9)
    low, high = np.quantile(briers[1:], [0.025, 0.975])
    assert (row["brier_low"], row["brier_high"]) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.statistical
def test_the_bootstrap_has_the_standard_error_of_a_mean(failure_rate):
    """Of users with many or few pairs: the sd over resamples of a mean of users is s / sqrt(n), by chi squared."""
    rng = np.random.default_rng(0)
    n, resamples = 300, 4000
    of_user = rng.exponential(size=n)
    weights = user_weights(n, resamples, 1)
    means = weights @ of_user / n
    ratio = resamples * means[1:].var() / (of_user.var() / n)
    assert chi2.ppf(failure_rate / 2, resamples - 1) < ratio < chi2.isf(failure_rate / 2, resamples - 1)
    found = interval(means)
    assert found.value == pytest.approx(of_user.mean(), rel=1e-12) and found.low < found.value < found.high


def test_every_resample_has_as_many_users():
    weights = user_weights(50, 200, 0)
    assert (weights.sum(1) == 50).all() and (weights[0] == 1).all()
    assert np.array_equal(weights, user_weights(50, 200, 0)) and weights[1:].max() > 3


def test_sums_by_user_and_bin_equal_a_loop():
    rng = np.random.default_rng(0)
    user, place, values = rng.integers(0, 5, 60), rng.integers(0, 3, 60), rng.standard_normal(60)
    expected = [[values[(user == i) & (place == b)].sum() for b in range(3)] for i in range(6)]
    np.testing.assert_allclose(sums_by_user(user, values, 6, place), expected, atol=1e-14)
    np.testing.assert_allclose(sums_by_user(user, values, 6), np.sum(expected, 1), atol=1e-14)


def test_a_point_is_recalibrated_without_sd():
    result = reliability(click_fit(kind="point"), top=TOP, reserve=0.3, resamples=20)
    assert np.isnan(result.sd_gain.value) and "recalibrated with sd" not in result.scores.index
    assert result.scores.loc["recalibrated", "skill"] > 0


def test_the_figure_draws_the_bins(result):
    drawn = draw_reliability([result] * 5)
    assert len(drawn.axes) == 16 and sum(axes.axison for axes in drawn.axes) == 10
    curve = next(axes for axes in drawn.axes if axes.get_title().startswith("planted"))
    bins = result.bins[result.bins["prediction"] == "recalibrated"]
    points = curve.lines[0].get_xydata()
    np.testing.assert_allclose(points, bins[["mean", "share"]].to_numpy())
