"""Explicit ratings that are not Normal, in everything that is said of ratings: their own density, quantiles and PIT."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import inference
from analysis.coverage import coverage, pit_bins, pit_summary
from analysis.error_correlation import error_correlation
from analysis.posterior import pit, to_datatree
from analysis.soundness.predictive import predictive_checks
from inference.evaluation.comparison import predictor
from inference.evaluation.ratings import evaluate_ratings
from inference.recommending.lists import recommend
from models.ratings.poisson import Poisson
from pyro_cvae.data.simulated import simulated_stars
from pyro_cvae.data.splits import held_out_cells
from tests.models.own_ratings import Bounded, Ordinal, Students

KINDS = {"ordinal": Ordinal, "bounded": Bounded, "students": Students}
SIZES = {"n_users": 40, "n_items": 30, "n_words": 30, "n_factors": 2, "exposure": 0.5}
SMALL = {"factors": 2, "hidden": (5,), "pretrain_epochs": 1, "epochs": 15, "threads": 1, "dtype": "float64"}


def fitted(likelihood, mode="bayes"):
    """A fit to ratings that were drawn from the likelihood at scores around 0.8."""
    dataset = simulated_stars(lambda_u=2.0, mean=0.8, **SIZES)
    pairs = dataset.interactions
    score = torch.as_tensor(dataset.truth["scores"][pairs.users, pairs.items])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        drawn = likelihood().cell(score, torch.ones_like(score)).sample().double()
    if likelihood is Bounded:
        drawn = drawn.clamp(1.001, 4.999)
    dataset = replace(dataset, interactions=replace(pairs, ratings=drawn.numpy()), truth=None)
    split = held_out_cells(dataset, 0.3, 0)
    return inference.fit(dataset, split, method="svi", mode=mode, rating_likelihood=likelihood, lambda_u=2.0, **SMALL)


class Fits(dict):
    """Fits by name, each made when it is asked for."""

    def __missing__(self, name):
        self[name] = fitted(KINDS[name])
        return self[name]


@pytest.fixture(scope="module")
def fits():
    return Fits()


def brute_force(fit, users, items, ratings):
    """Log E[p(r | s)] by plain sums over 20,001 scores of each pair."""
    mean, sd = (part.double()[:, None] for part in fit.posterior.score(users, items))
    t = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    score, weight = mean + sd * t, torch.as_tensor(stats.norm.pdf(t)) * (t[1] - t[0])
    with torch.no_grad():
        cell = fit.model.ratings.cell(score, torch.ones_like(score))
        return ((cell.log_prob(torch.as_tensor(ratings)[:, None]).exp() * weight).sum(-1)).log().numpy()


@pytest.mark.parametrize("name", KINDS)
def test_log_densities_are_the_likelihoods_own(fits, name):
    fit = fits[name]
    test = fit.split.test
    wanted = brute_force(fit, test.users, test.items, test.ratings)
    assert fit.metrics["log_density"] == pytest.approx(wanted.mean(), abs=1e-5)
    assert evaluate_ratings(predictor(fit), fit.split).means()["log_density"] == pytest.approx(wanted.mean(), abs=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_intervals_are_quantiles_of_draws(fits, name):
    fit = fits[name]
    user = fit.dataset.user_ids[3]
    table = recommend(fit, [user], 6, interval=0.9)
    predicted = fit.predict([user] * 6, table["item"], 0.9)
    for side in ("low", "high"):
        np.testing.assert_allclose(table[side], predicted[side], rtol=1e-9)
    if name != "students":
        assert predicted["low"].min() >= 1 and predicted["high"].max() <= 5
    mean, sd = fit.posterior.score([3] * 6, fit.dataset.item_rows(table["item"]))
    torch.manual_seed(2)
    score = mean + sd * torch.randn(100_000, 6, dtype=torch.float64)
    with torch.no_grad():
        drawn = fit.model.ratings.cell(score, torch.ones_like(score)).sample().double().numpy()
    for side, level in (("low", 0.05), ("high", 0.95)):
        up_to = (drawn <= predicted[side].to_numpy() + 1e-9).mean(0)
        below = (drawn < predicted[side].to_numpy() - 1e-9).mean(0)
        assert (up_to > level - 0.005).all() and (below < level + 0.005).all()
    within = (drawn >= predicted["low"].to_numpy() - 1e-9) & (drawn <= predicted["high"].to_numpy() + 1e-9)
    assert (within.mean(0) > 0.89).all()


@pytest.mark.parametrize("name", KINDS)
def test_coverage_takes_them(fits, name):
    fit = fits[name]
    found = coverage(fit, draws=400)
    row = found.table[found.table["by"] == "all"].iloc[0]
    assert row["target"] == "held-out rating" and row["n_cells"] == len(fit.split.test)
    assert abs(row["covered@50"] - row["normal@50"]) < 0.12
    assert abs(row["covered@90"] - 0.9) < 0.12
    assert error_correlation(fit, resamples=20).outcome == "held-out rating"


def test_errors_of_stars_are_from_their_mean_not_from_the_score(fits):
    fit, test = fits["ordinal"], fits["ordinal"].split.test
    found = evaluate_ratings(predictor(fit), fit.split).means()
    mean = fit.predict(fit.dataset.user_ids[test.users], fit.dataset.item_ids[test.items])["mean"].to_numpy()
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((test.ratings - mean) ** 2)))
    score = fit.posterior.mean_score(test.users, test.items).numpy()
    assert found["rmse"] < np.sqrt(np.mean((test.ratings - score) ** 2)) - 0.3


def test_points_have_the_noise_alone():
    fit = fitted(Ordinal, mode="map")
    test = fit.split.test
    score = fit.posterior.mean_score(test.users, test.items)
    with torch.no_grad():
        wanted = fit.model.ratings.cell(score, torch.ones_like(score)).log_prob(torch.as_tensor(test.ratings)).mean()
    assert fit.metrics["log_density"] == pytest.approx(float(wanted), abs=1e-9)


def test_places_among_equal_draws_are_drawn():
    rng = np.random.default_rng(0)
    truth, draws = rng.integers(1, 4, 4000).astype(float), rng.integers(1, 4, (99, 4000)).astype(float)
    values = pit_bins(truth, draws, 0, discrete=True)[0]
    assert stats.kstest((values + 0.5) / 200, "uniform").pvalue > 1e-3
    assert pit_summary(pit_bins(truth, draws, 0, discrete=True)).p_value > 0.01
    assert pit_summary(pit_bins(truth, draws, 0)).p_value < 0.03  # as if the truth came first among its equals


def test_pit_values_of_exported_stars_are_spread_over_their_mass(fits):
    fit = fits["ordinal"]
    tree = to_datatree(fit, draws=300, prior=False, n_users=0, n_items=0)
    values = pit(tree)["pit"]["R"].values
    drawn, came = (tree[name]["R"].values for name in ("predictions", "predictions_constant_data"))
    up_to, below = (drawn <= came).mean((0, 1)), (drawn < came).mean((0, 1))
    assert ((values >= below) & (values <= up_to)).all()
    share = (values - below) / (up_to - below)
    assert stats.kstest(share, "uniform").pvalue > 1e-3


def test_predictive_checks_take_what_states_no_mean(fits):
    found = predictive_checks(fits["ordinal"], draws=20, n_users=10, n_texts=5)
    assert len(found) > 2 and all(0 <= one.p <= 1 for one in found)


def test_counts_have_quantiles_too():
    dataset = simulated_stars(lambda_u=2.0, mean=0.3, **SIZES)
    pairs = dataset.interactions
    drawn = np.random.default_rng(0).poisson(np.exp(dataset.truth["scores"][pairs.users, pairs.items])).astype(float)
    dataset = replace(dataset, interactions=replace(pairs, ratings=drawn), truth=None)
    fit = inference.fit(
        dataset, held_out_cells(dataset, 0.2, 0), method="svi", **SMALL | {"rating_likelihood": Poisson(zeros=False)}
    )
    found = fit.predict(fit.dataset.user_ids[:20], fit.dataset.item_ids[:20], level=0.8)
    assert (found["low"] == found["low"].round()).all() and (found["low"] >= 0).all()
    assert (found["high"] > found["mean"]).all()
