"""Precisions mean the same whatever the length of z, the unit of ratings and weights, and the number of factors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import inference
from inference.algorithms.coordinate import Coordinate
from inference.algorithms.precisions import SHORTEST, choose_penalty, content_length, ridge_biases, start_precisions
from inference.options import Options
from models.build import make_model
from models.catalogue import RATINGS
from models.contents.multinomial import Multinomial
from models.observations import RatingColumns
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import held_out_cells
from tests.models.toy import N_ITEMS, N_USERS, N_WORDS, toy_observations

SMALL = {"factors": 3, "hidden": (6,), "pretrain_epochs": 2, "epochs": 0, "sweeps": 3, "threads": 1, "dtype": "float64"}


def model_of(name="confidence-normal", mode="map", factors=3, **more):
    options = Options.of("svi", mode=mode, rating_likelihood=name, factors=factors, **more)
    return make_model(N_USERS, N_ITEMS, N_WORDS, Multinomial(), options.model), options


def found(z, name="confidence-normal", columns=None, **more):
    """lambda_u and lambda_v for content means z."""
    model, options = model_of(name, **more)
    start_precisions(model, toy_observations().columns if columns is None else columns, z, options, 0)
    return np.array([model.lambda_u, model.lambda_v])


def clicks():
    columns = toy_observations().columns
    return replace(columns, ratings=torch.ones_like(columns.ratings))


def means(length, factors=3):
    z = torch.randn(N_ITEMS, factors, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return length * z / z.norm(dim=1, keepdim=True)


class Contents:
    """Content means in the place of an encoder, ``factor`` times as long."""

    def __init__(self, factor):
        self.factor = factor

    def of(self, coordinate, state):
        n_items, n_factors = coordinate.observations.n_items, state.model.n_factors
        z = torch.randn(n_items, n_factors, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return self.factor * z, torch.full_like(z, 1e-3)


@pytest.mark.parametrize(
    ("length", "times", "unit"), [(7.0, 1.0, 1.0), (0.2, 1.0, 1.0), (1.0, 30.0, 1.0), (3.0, 0.1, 50.0)]
)
def test_scores_of_points_are_the_same_at_any_length_of_z_and_any_a(monkeypatch, length, times, unit):
    """z -> g z, and a, b -> h times: the same map by whole sweeps; ratings in another unit: scores in that unit."""

    def fit(length, times, unit):
        options = Options.of("coordinate", mode="map", a=10 * times, b=0.3 * times, **SMALL)
        observations = toy_observations()
        columns = replace(observations.columns, confidences=10 * times * observations.columns.confidences,
                          ratings=unit * observations.columns.ratings)  # fmt: skip
        make = lambda: make_model(N_USERS, N_ITEMS, N_WORDS, Multinomial(), options.model).double()  # noqa: E731
        monkeypatch.setattr("inference.algorithms.networks.encode", lambda *_: Contents(length).of(coordinate, Given))
        monkeypatch.setattr("inference.algorithms.coordinate.encode", lambda *_: Contents(length).of(coordinate, Given))
        coordinate = Coordinate(make, replace(observations, columns=columns), options)

        class Given:
            model = make()

        state = coordinate.joint(coordinate.pretraining(Given.model))
        coordinate._first_sweeps(state)
        for _ in range(5):
            coordinate.sweep(state)
        return coordinate.posterior(state).score_block(range(N_USERS))

    ours, theirs = fit(1.0, 1.0, 1.0), fit(length, times, unit)
    torch.testing.assert_close(theirs, unit * ours, rtol=1e-9, atol=1e-12 * unit)


def test_what_the_preset_was_tuned_to():
    """best.yaml at a = 100 and contents of length 9."""
    pair = found(means(9.0), columns=clicks(), a=100.0, user_shrinkage=4.938, item_shrinkage=0.972)
    np.testing.assert_allclose(pair, [40000, 1.2], rtol=1e-3)


@pytest.mark.parametrize("name", ["confidence-normal", "bernoulli", "bernoulli-bound", "poisson"])
def test_the_units_of_the_rule(name):
    """lambda_u as s^2 and, with a, as a; lambda_v as 1 / s^2, and as the mean square of the ratings."""
    one = found(means(2.0), name, clicks())
    np.testing.assert_allclose(found(means(6.0), name, clicks()), one * [9, 1 / 9])
    if name == "confidence-normal":
        np.testing.assert_allclose(found(means(2.0), name, clicks(), a=700.0), 7 * one)
        twice = replace(clicks(), ratings=2 * clicks().ratings)
        np.testing.assert_allclose(found(means(2.0), name, twice), one * [1, 4])
    else:
        many = found(means(2.0, 30), name, clicks(), factors=30)
        np.testing.assert_allclose(many, one * [1, 10])  # K / (lambda_u lambda_v), the variance of u.v†, stays


def test_what_is_given_stays():
    """lambda_u and lambda_v win over shrinkages."""
    neither = found(means(2.0), columns=clicks(), user_shrinkage=3.0)
    np.testing.assert_array_equal(found(means(2.0), columns=clicks(), lambda_u=7.0), [7.0, neither[1]])
    both = found(means(2.0), columns=clicks(), lambda_u=7.0, lambda_v=5.0, user_shrinkage=3.0)
    np.testing.assert_array_equal(both, [7.0, 5.0])
    one = found(means(2.0), columns=clicks(), lambda_v=5.0, user_shrinkage=3.0)
    np.testing.assert_array_equal(one, [neither[0], 5.0])


def test_items_without_content_and_dead_contents():
    """Rows of the prior's mean count for no length; contents that say nothing leave precisions finite."""
    z = means(3.0)
    z[::2] = 0
    assert content_length(z) == pytest.approx(3.0)
    assert content_length(torch.zeros(5, 4)) == pytest.approx(2 * SHORTEST)
    assert np.isfinite(found(torch.zeros(N_ITEMS, 3))).all()


def test_a_model_made_by_hand_keeps_its_precisions():
    """Options say nothing of a model that they did not make."""
    from tests.models.toy import toy_model

    model = toy_model()
    start_precisions(model, clicks(), means(2.0), Options.of("svi", factors=3), 0)
    assert (model.lambda_u, model.lambda_v) == (0.8, 3.0)


@pytest.mark.parametrize("method", ["svi", "coordinate", "mcmc"])
def test_a_run_keeps_what_was_found(method, tmp_path):
    """In metrics, in the model that is loaded, and in a run that is resumed."""
    own = {"mcmc": {"draws": 2, "warmup": 1, "chains": 1}, "svi": {}, "coordinate": {"sweeps": 2}}[method]
    common = {name: value for name, value in SMALL.items() if name != "sweeps"} | own | {"epochs": 1}
    data = simulated(n_users=20, n_items=25, n_words=40, n_factors=2)
    fit = inference.fit(data, method=method, out=tmp_path / "run", **common)
    again = inference.load(tmp_path / "run")
    assert fit.options.model.lambda_u == 0
    known = fit.metrics["precisions"]
    assert known["lambda_u"] > 0 and again.model.precisions() == fit.model.precisions()
    length = known["lambda_u"] / (4.0 * 100)
    assert known["lambda_v"] == pytest.approx(0.75 * 100 / length)


def test_what_is_learned_stays_around_what_was_found():
    """The Gamma priors of --learn-precisions have their modes there."""
    data = load_dataset("simulated")
    free = inference.fit(data, method="coordinate", **SMALL)
    stiff = inference.fit(data, method="coordinate", learn_precisions=True, precision_prior=1e9, **SMALL)
    for name, value in free.metrics["precisions"].items():
        assert stiff.metrics["precisions"][name] == pytest.approx(value, rel=1e-6)


# --- stars -----------------------------------------------------------------------------------------------------------


def star_columns(sd_user, sd_item, sd_noise, n_users=80, n_items=60, seed=0):
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((n_users, n_items)) < 0.3)
    ratings = (sd_user * rng.standard_normal(n_users))[users] + (sd_item * rng.standard_normal(n_items))[items]
    ratings += sd_noise * rng.standard_normal(len(users))
    pairs = Interactions.from_arrays(users, items, n_users=n_users, n_items=n_items, ratings=ratings)
    return RatingColumns.from_interactions(pairs, 1.0, dtype=torch.float64)


def test_biases_are_the_ridge():
    """By turns the same as one linear system."""
    columns = star_columns(1.0, 0.5, 0.7)
    users, items, r = columns.users.numpy(), columns.items.numpy(), columns.ratings.numpy()
    n, n_users = len(users), 80
    weight = np.random.default_rng(1).random(n) + 0.5
    design = np.zeros((n, 1 + n_users + 60))
    design[:, 0] = 1
    design[np.arange(n), 1 + users] = 1
    design[np.arange(n), 1 + n_users + items] = 1
    ridge = np.diag([0.0] + [3.0] * (n_users + 60))
    exact = np.linalg.solve(design.T @ (weight[:, None] * design) + ridge, design.T @ (weight * r))
    mean, of_users, of_items = ridge_biases(users, items, r, weight, n_users, 60, 3.0, sweeps=300)
    np.testing.assert_allclose(np.concatenate([[mean], of_users, of_items]), exact, atol=1e-8)


def test_the_penalty_and_the_noise_are_where_the_data_are():
    """Wide biases want little penalty, none want the most; the error is near the noise."""
    generator = np.random.default_rng(0)
    found = []
    for spread in (1.0, 0.0):
        columns = star_columns(spread, spread, 0.5)
        fold = torch.as_tensor(generator.integers(5, size=len(columns.users)))
        penalty, errors = choose_penalty(columns, fold)
        found.append(penalty)
        assert 0.2 < float(errors.mean()) < 0.4
    assert found[0] <= 1.0 and found[1] == 64.0


def test_the_prior_of_biases_is_not_far_narrower_than_they_are_where_ratings_have_hardly_any_noise():
    """Else a noise that is learned, as in bayes, takes the biases over."""
    columns = star_columns(1.0, 1.0, 0.01)
    penalty, errors = choose_penalty(
        columns, torch.as_tensor(np.random.default_rng(0).integers(5, size=len(columns.users)))
    )
    noise = float(errors.mean())
    assert noise < 0.01
    assert (noise / penalty) ** 0.5 > 0.4, "the prior's standard deviation, of biases of 1"


# --- without content -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["map", "bayes"])
@pytest.mark.parametrize("data", ["simulated", "simulated-gaussian", "simulated-stars"])
def test_scores_without_content_are_not_all_0(data, mode):
    """With ``a`` of the options as the unit of data that state precisions all scores would be 0."""
    rating = "normal" if data == "simulated-stars" else "confidence-normal"
    dataset, options = load_dataset(data), {"method": "coordinate", "model": "pmf", "factors": 5, "threads": 1}
    split = held_out_cells(dataset, 0.2, 0) if data == "simulated-stars" else None
    fit = inference.fit(dataset, split, mode=mode, rating_likelihood=rating, sweeps=8, **options)
    u, v = (rows.double()[:, :5] for rows in (fit.posterior.u_loc, fit.posterior.v_loc))
    assert (u @ v.T).std() > 0.05
    if data == "simulated-gaussian":
        assert fit.metrics["recovery"]["correlation"] > 0.7


def test_without_content_the_number_of_factors_is_no_matter():
    """The product of the precisions is the same; with contents that of bayes is per factor."""
    facts = RATINGS["normal"]
    assert facts.default_shrinkages("bayes", 5, False) == facts.default_shrinkages("bayes", 500, False) == (6.0, 6.0)
    assert facts.default_shrinkages("map", 5, False) == (12.0, 12.0)
    assert facts.default_shrinkages("bayes", 50, True) == (20.0, 6.25)
    clicks = RATINGS["confidence-normal"]
    assert clicks.default_shrinkages("map", 50, False) == clicks.default_shrinkages("map", 50, True) == (4.0, 0.75)
