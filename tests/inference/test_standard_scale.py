"""Explicit ratings in any unit give the same fit, in that unit: they are fitted on a standard scale."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import inference
from inference.recommending import fold_in
from pyro_cvae.data.simulated import simulated_stars
from pyro_cvae.data.splits import held_out_cells
from pyro_cvae.errors import InputError

SMALL = {"rating_likelihood": "normal", "factors": 2, "hidden": (5,), "pretrain_epochs": 1, "epochs": 2, "threads": 1}
CLOSED = SMALL | {"method": "coordinate", "sweeps": 3}
FITS = {
    "coordinate, map": CLOSED | {"mode": "map"},
    "coordinate, bayes": CLOSED,
    "coordinate, diagonal": CLOSED | {"diagonal": True},
    "coordinate, structured": CLOSED | {"guide": "structured"},
    "coordinate, learned": CLOSED | {"learn_precisions": True},
    "svi, map": SMALL | {"mode": "map"},
    "svi, bayes": SMALL,
    "svi, structured": SMALL | {"guide": "structured"},
    "svi, non-centred": SMALL | {"parametrization": "non-centred"},
    "without biases": CLOSED | {"biases": "off"},
    "mcmc": SMALL | {"method": "mcmc", "biases": "off", "draws": 3, "warmup": 3, "chains": 1, "epochs": 0},
}


def stars(factor=1.0, offset=0.0):
    """Stars in another unit, whole and half ones."""
    data = simulated_stars(n_users=30, n_items=40, n_words=40, n_factors=2, exposure=0.3)
    ratings = offset + factor * np.round(2 * data.interactions.ratings) / 2
    return replace(data, interactions=replace(data.interactions, ratings=ratings), truth=None)


def fitted(name, factor=1.0, offset=0.0, **more):
    data = stars(factor, offset)
    return inference.fit(data, held_out_cells(data, 0.2, 0), **FITS[name] | more)


@pytest.mark.parametrize("factor", [2.0**11, 2.0**-8])
@pytest.mark.parametrize("name", FITS)
def test_a_factor_of_two_changes_no_bit(name, factor):
    """u, biases, noise and lambda_u are in the ratings' unit, v and lambda_v are not; nothing else moves."""
    one, other = fitted(name), fitted(name, factor)
    assert torch.equal(factor * one.posterior.u_loc, other.posterior.u_loc)
    assert torch.equal(one.posterior.z_loc, other.posterior.z_loc)
    users, items = one.split.test.users, one.split.test.items
    scores = (fit.posterior.mean_score(users, items) for fit in (one, other))
    torch.testing.assert_close(factor * next(scores), next(scores), rtol=1e-5, atol=0)
    assert other.metrics["rmse"] == pytest.approx(factor * one.metrics["rmse"], rel=1e-5)
    assert other.metrics["coverage@90"] == one.metrics["coverage@90"]
    assert other.metrics["log_density"] == pytest.approx(one.metrics["log_density"] - math.log(factor), abs=1e-4)
    known = one.metrics["precisions"], other.metrics["precisions"]
    assert known[1]["lambda_u"] == pytest.approx(known[0]["lambda_u"] / factor**2)
    assert known[1]["lambda_v"] == known[0]["lambda_v"]


@pytest.mark.parametrize(("factor", "offset"), [(20, 0), (2000, 0), (1e6, 0), (1e-3, 0), (1, 1e4), (20, 7), (1, 1e7)])
@pytest.mark.parametrize("name", ["coordinate, map", "coordinate, bayes", "svi, map", "svi, bayes"])
def test_any_unit_gives_the_same_predictions(name, factor, offset):
    """RMSE, means and intervals by pair, in that unit."""
    one, other = fitted(name), fitted(name, factor, offset)
    assert other.metrics["rmse"] == pytest.approx(factor * one.metrics["rmse"], rel=1e-3)
    pairs = one.dataset.user_ids[one.split.test.users], one.dataset.item_ids[one.split.test.items]
    ours, theirs = (fit.predict(*pairs) for fit in (one, other))
    unit = factor * one.split.train.ratings.std()
    np.testing.assert_allclose(theirs["mean"], offset + factor * ours["mean"], atol=1e-2 * unit)
    np.testing.assert_allclose(theirs["sd"], factor * ours["sd"], rtol=1e-2)


@pytest.mark.parametrize("name", ["coordinate, map", "coordinate, bayes", "svi, map"])
def test_precisions_that_are_given_are_in_the_ratings_unit(name):
    """A fit of ratings times f at lambda / f^2 is the fit at lambda."""
    given = {"lambda_u": 3.0, "lambda_v": 2.0, "lambda_b": 5.0}
    one = fitted(name, rating_likelihood_args={"tau": 1.5, "learned": False}, **given)
    known = one.metrics["precisions"]
    assert known["lambda_u"] == pytest.approx(3.0) and known["lambda_v"] == 2.0
    assert one.model.lambda_b == pytest.approx(5.0)
    assert float(one.model.ratings.tau.detach()) == pytest.approx(1.5)
    scaled = given | {"lambda_u": 3.0 / 64, "lambda_b": 5.0 / 64}
    other = fitted(name, 8.0, rating_likelihood_args={"tau": 1.5 / 64, "learned": False}, **scaled)
    torch.testing.assert_close(other.posterior.u_loc, 8 * one.posterior.u_loc, rtol=1e-4, atol=1e-5)


def test_the_objective_is_a_density_of_the_ratings_as_they_are():
    """log p(R|U,V) and log p(U) of a point, from the model that the fit leaves; by gradients, beside another unit."""
    fit = fitted("coordinate, map", 20.0, dtype="float64")
    train = fit.split.train.select(fit.split.train.observed)
    score = fit.posterior.mean_score(train.users, train.items)
    by_hand = torch.distributions.Normal(score, fit.model.ratings.tau.detach() ** -0.5)
    last = fit.history[-1]
    assert last["ratings"] == pytest.approx(float(by_hand.log_prob(torch.as_tensor(train.ratings)).sum()), rel=1e-9)
    u = fit.model.own("u", fit.posterior.u_loc)
    sd = torch.tensor(fit.model.lambda_u**-0.5, dtype=u.dtype)
    assert last["log_p_u"] == pytest.approx(float(torch.distributions.Normal(0.0 * sd, sd).log_prob(u).sum()), rel=1e-9)

    one, other = (fitted("svi, map", factor, dtype="float64") for factor in (1.0, 20.0))
    assert other.history[-1]["ratings"] == pytest.approx(one.history[-1]["ratings"] - len(train) * math.log(20))
    n_coordinates = 30 * one.model.width
    assert other.history[-1]["log_p_u"] == pytest.approx(one.history[-1]["log_p_u"] - n_coordinates * math.log(20))


def test_bounds_of_any_unit_differ_by_the_density_of_the_unit():
    """ELBO of R: that of f R less n log f; what is learned of precisions moves with it."""
    one, other = fitted("coordinate, learned", dtype="float64"), fitted("coordinate, learned", 20.0, dtype="float64")
    n = int(one.split.train.observed.sum())
    change = -n * math.log(20) + 2 * math.log(20)  # the density of lambda_u, too
    assert other.history[-1]["elbo"] - one.history[-1]["elbo"] == pytest.approx(change, rel=1e-6)


@pytest.mark.parametrize("name", ["coordinate, bayes", "svi, bayes", "without biases", "mcmc"])
def test_a_run_folder_speaks_of_the_ratings_as_they_are(name, tmp_path):
    """Loaded, it predicts the same; folded in with their own ratings, users predict alike."""
    fit = fitted(name, 20.0, 100.0, out=tmp_path / "run")
    again = inference.load(tmp_path / "run")
    pairs = fit.dataset.user_ids[fit.split.test.users], fit.dataset.item_ids[fit.split.test.items]
    assert again.predict(*pairs).equals(fit.predict(*pairs))
    assert again.model.precisions() == fit.model.precisions()
    if name == "coordinate, bayes":
        mine = (fit.split.train.users == 3) & fit.split.train.observed
        items = fit.dataset.item_ids[fit.split.train.items[mine]]
        user = fit.dataset.user_ids[3]
        found = fold_in(again, [user] * len(items), items, ratings=fit.split.train.ratings[mine]).posterior
        moved = (found.score_block([3]) - fit.posterior.score_block([3])).abs().max()
        assert moved < 0.5 * 20  # of ratings around 170; the fit's own q(V) has had its last half-step since


@pytest.mark.parametrize("factor", [1e20, 1e-20])
def test_a_spread_beyond_floating_point_numbers_is_refused(factor):
    with pytest.raises(InputError, match="the ratings spread by"):
        fitted("coordinate, map", factor)
