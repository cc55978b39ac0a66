"""Biases and rating likelihoods in the closed form, in the gradient modes and in the Pyro program, in float64."""

import math
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from pyro import poutine
from torch.nn import functional as F

import inference
from inference.algorithms.coordinate import Coordinate
from inference.algorithms.elbo import NamedELBO, constant, total
from inference.algorithms.guides import make_guide
from inference.algorithms.networks import encode
from inference.options import Options
from models.gaussians import Gaussians
from models.ratings.bernoulli import BernoulliBound, slope
from models.ratings.normal import Normal
from pyro_cvae.data.simulated import simulated_stars
from pyro_cvae.data.splits import held_out_cells
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, toy_model, toy_observations

FAMILIES = {
    "point": {"mode": "map"},
    "full": {"mode": "bayes"},
    "mean-field": {"mode": "bayes", "diagonal": True},
    "structured": {"mode": "bayes", "guide": "structured"},
}
LIKELIHOODS = {
    "confidence-normal": {"biases": "on"},
    "normal": {"biases": "on"},
    "normal without biases": {"biases": "off"},
    "bernoulli-bound": {"biases": "on"},
    "bernoulli-bound without biases": {"biases": "off"},
    "bernoulli-bound of stored cells": {"biases": "on", "rating_likelihood_args": {"zeros": False}},
}
PRECISIONS = {"lambda_u": 0.8, "lambda_v": 3.0, "lambda_b": 1.7, "b": 0.05}


def ratings_of(name, seed=0, unrated="masked"):
    """The toy with ratings of the likelihood's kind, some of them missing; 0 and 1 are both stored."""
    observations = toy_observations(seed)
    columns = observations.columns
    if unrated == "zeros":
        columns = replace(columns, observed=torch.ones(N_ITEMS, dtype=torch.bool))
    if "bernoulli" in name:
        there = (columns.confidences > 0).double()
        columns = replace(columns, ratings=(columns.ratings > -0.5).double() * there, confidences=there)
    elif name.startswith("normal"):
        columns = replace(columns, ratings=3.0 + columns.ratings)
    return replace(observations, columns=columns)


def toy(name, family, seed=0, unrated="masked", **more):
    """Coordinate ascent on the toy before its first sweep."""
    likelihood = name.split()[0]
    known = PRECISIONS | LIKELIHOODS[name] | {"rating_likelihood": likelihood} | more
    settings = {"factors": N_FACTORS, "pretrain_epochs": 0, "epochs": 0, "batch_size": 4, "dtype": "float64"}
    options = Options.of("coordinate", **settings | FAMILIES[family] | known)
    changes = {"a": 2.0, "rating_likelihood_args": {}} | known
    coordinate = Coordinate(lambda: toy_model(**changes), ratings_of(name, seed, unrated), options)
    torch.manual_seed(seed)
    return coordinate, coordinate.init()


def sweeps(coordinate, state, n):
    with torch.no_grad():
        return [total(coordinate.sweep(state)) for _ in range(n)]


ALL = [(name, family) for name in LIKELIHOODS for family in FAMILIES]


@pytest.mark.parametrize("unrated", ["masked", "zeros"])
@pytest.mark.parametrize(("name", "family"), ALL)
def test_no_sweep_lowers_the_objective(name, family, unrated):
    coordinate, state = toy(name, family, unrated=unrated)
    state.items = Gaussians(2 * torch.randn(N_ITEMS, state.model.width).double())
    found = sweeps(coordinate, state, 60)
    for before, after in pairwise(found):
        assert after - before >= -1e-9 * abs(before)
    assert found[-1] - found[0] > 0.1


def xi_of(likelihood):
    """xi of every user's zeros, (n_users,); anything where there are none."""
    return likelihood.log_xi.detach().exp() if likelihood.zeros else torch.ones(N_USERS).double()


def dense_moments(coordinate, state):
    """E[s], E[s^2] of all cells (n_items, n_users), from dense covariances of rows that biases are a part of.

    On the scale on which the ratings are fitted.
    """
    model, posterior = state.model, coordinate.posterior(state)
    u, v = posterior.u_loc, posterior.v_loc
    mean = (v @ u.mT - coordinate.scale.location) / coordinate.scale.scale
    if posterior.is_point:
        return mean, mean.square()
    rows = torch.arange(N_USERS), torch.arange(N_ITEMS)
    s_u, s_v = posterior.covariance("u", rows[0]), posterior.covariance("v", rows[1])
    assert u.shape[1] == model.width + (model.mean is not None)
    variance = torch.einsum("jk,ikl,jl->ji", v, s_u, v) + torch.einsum("ik,jkl,il->ji", u, s_v, u)
    variance = variance + torch.einsum("ikl,jkl->ji", s_u, s_v)
    return mean, mean.square() + variance / coordinate.scale.scale**2


@pytest.mark.parametrize("unrated", ["masked", "zeros"])
@pytest.mark.parametrize(("name", "family"), ALL)
def test_the_ratings_part_is_that_of_all_cells_by_hand(name, family, unrated):
    coordinate, state = toy(name, family, unrated=unrated)
    with torch.no_grad():
        coordinate.sweep(state)
        found = coordinate.sweep(state)["ratings"]
    mean, second = dense_moments(coordinate, state)
    columns, likelihood = coordinate.observations.columns, state.model.ratings
    ratings, confidences = columns.dense(likelihood.background)
    if isinstance(likelihood, BernoulliBound):
        stored = torch.zeros(N_ITEMS, N_USERS, dtype=torch.bool)
        stored[columns.items, columns.users] = True
        xi = torch.where(stored, second.sqrt(), xi_of(likelihood))
        cells = F.logsigmoid(xi) + (ratings - 0.5) * mean - xi / 2 - slope(xi) * (second - xi.square())
        expected = cells[confidences > 0].sum()
    else:
        tau = getattr(likelihood, "tau", torch.ones(())).detach()
        c = tau * confidences
        square = ratings.square() - 2 * ratings * mean + second
        expected = (0.5 * (c / (2 * torch.pi)).log() - 0.5 * c * square)[confidences > 0].sum()
    assert found == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), [pair for pair in ALL if pair[1] in ("point", "mean-field")])
def test_where_the_sweeps_end_the_gradient_of_the_svi_objective_vanishes(name, family):
    """The same bound by two roads: closed forms, and autograd through the Pyro traces (u, v, biases, xi, tau, mean)."""
    coordinate, state = toy(name, family)
    sweeps(coordinate, state, 1500)
    at_the_end = sweeps(coordinate, state, 1)[0]
    model, observations = state.model, coordinate.observations
    guide = make_guide(model, coordinate.options.kind, observations, state.users.loc, state.items.loc)
    if family == "mean-field":
        with torch.no_grad():
            guide[0].scale, guide[2].scale = state.users.variance.sqrt(), state.items.variance.sqrt()
    batch = observations.batch(torch.arange(N_ITEMS))
    terms = NamedELBO().terms(model, guide, batch)
    parts = ("ratings", "kl_u", "kl_v", "log_p_u", "log_p_v")
    value = total({name: term for name, term in terms.items() if name in parts})
    assert value.item() + constant(model, observations) == pytest.approx(at_the_end, rel=1e-10)
    own = [p for n, p in guide.named_parameters() if n.startswith(("0.", "2."))]
    mine = [p for p in model.ratings.parameters() if p.requires_grad]
    mean = [] if model.mean is None else [model.mean]
    gradients = torch.autograd.grad(value, [*own, *mine, *mean], allow_unused=True)
    assert sum(g is not None for g in gradients) >= len(own) + len(mean)
    for gradient in gradients:
        assert gradient is None or gradient.abs().max() < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), [pair for pair in ALL if pair[1] in ("full", "structured")])
def test_nothing_near_the_end_is_better(name, family):
    """Covariances too: rows, blocks and the ratings' own parameters moved a little in random directions."""
    coordinate, state = toy(name, family)
    sweeps(coordinate, state, 600)
    model = state.model
    z_loc, _ = encode(model, coordinate.observations)

    def value():
        with torch.no_grad():
            mean, second = dense_moments(coordinate, state)
            columns, likelihood = coordinate.observations.columns, model.ratings
            ratings, confidences = columns.dense(likelihood.background)
            there = confidences > 0
            if isinstance(likelihood, BernoulliBound):
                stored = torch.zeros_like(there)
                stored[columns.items, columns.users] = True
                xi = torch.where(stored, second.sqrt(), xi_of(likelihood))
                cells = F.logsigmoid(xi) + (ratings - 0.5) * mean - xi / 2 - slope(xi) * (second - xi.square())
            else:
                c = getattr(likelihood, "tau", torch.ones(())) * confidences
                cells = 0.5 * c.log() - 0.5 * c * (ratings.square() - 2 * ratings * mean + second)
            around = model.prior_of_items(z_loc).loc
            kl = state.users.kl(model.lambda_u, None).sum() + state.items.kl(model.lambda_v, around).sum()
            return float(cells[there].sum() - kl)

    best = value()
    generator = torch.Generator().manual_seed(3)

    def moved(tensor, size):
        return tensor + size * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)

    users, items = state.users, state.items
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(20):
        for side, rows in (("users", users), ("items", items)):
            changes = {"loc": moved(rows.loc, 1e-3)}
            if rows.variance is not None:
                changes["variance"] = rows.variance * torch.exp(moved(torch.zeros_like(rows.variance), 1e-3))
            if rows.covariance is not None and rows.spread is None:
                tril = torch.linalg.cholesky(rows.covariance)
                tril = moved(tril, 1e-3).tril()
                changes |= {"covariance": tril @ tril.mT, "log_det": 2 * tril.diagonal(dim1=1, dim2=2).log().sum(-1)}
            setattr(state, side, replace(rows, **changes))
            assert value() < best
            setattr(state, side, rows)
        with torch.no_grad():
            for parameter in model.ratings.parameters():
                if parameter.requires_grad and parameter.numel() and model.ratings.zeros | model.ratings.explicit:
                    parameter.copy_(moved(parameter, 1e-3))
                    assert value() < best
            if model.mean is not None:
                model.mean.add_(1e-2)
                assert value() < best
            for name, parameter in model.named_parameters():
                parameter.copy_(kept[name])
    assert value() == best


def test_the_pyro_program_has_the_biases():
    """log p(u, v, R | z) against Normals by hand: biases, global mean and the scores with them."""
    model = toy_model(biases="on", lambda_b=1.7)
    observations = toy_observations()
    batch = observations.batch(torch.arange(N_ITEMS))
    u, v = torch.randn(N_USERS, N_FACTORS + 1).double(), torch.randn(N_ITEMS, N_FACTORS + 1).double()
    z = torch.randn(N_ITEMS, N_FACTORS).double()
    trace = poutine.trace(poutine.condition(model, data={"u": u, "v": v, "z": z})).get_trace(batch)
    trace.compute_log_prob()
    b = u[:, -1] * (model.lambda_u / 1.7) ** 0.5
    c = v[:, -1] * (model.lambda_v / 1.7) ** 0.5
    scores = v[:, :-1] @ u[:, :-1].mT + b + c[:, None]
    ratings, confidences = observations.columns.dense(model.ratings.b)
    there = confidences > 0
    cells = torch.distributions.Normal(scores, confidences.clamp(min=1e-9).rsqrt()).log_prob(ratings)
    assert trace.nodes["R"]["log_prob_sum"].item() == pytest.approx(float(cells[there].sum()), rel=1e-12)
    for site, rows, bias, around, precision in (
        ("u", u[:, :-1], b, torch.zeros_like(b), model.lambda_u),
        ("v", v[:, :-1] - z, c, model.mean.detach(), model.lambda_v),
    ):
        expected = torch.distributions.Normal(torch.zeros(1).double(), precision**-0.5).log_prob(rows).sum()
        expected = expected + torch.distributions.Normal(around.double(), 1.7**-0.5).log_prob(bias).sum()
        expected = expected + len(bias) * 0.5 * math.log(precision / 1.7)  # density of a bias in units of kappa
        assert trace.nodes[site]["log_prob_sum"].item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["bernoulli", "poisson"])
def test_subsampled_zeros_are_unbiased(name):
    """The mean over all subsets of users is the exact log density, and so is its gradient."""
    model = toy_model(rating_likelihood=name, biases="on")
    columns = ratings_of("bernoulli").columns
    likelihood = model.ratings
    u = torch.randn(N_USERS, 4, dtype=torch.float64, requires_grad=True)
    v = torch.randn(N_ITEMS, 4, dtype=torch.float64)
    likelihood.eval()
    exact = likelihood.distribution(u, v, columns).log_prob(columns)
    (slope_exact,) = torch.autograd.grad(exact.sum(), u)
    likelihood.train()
    likelihood.subsample = 3
    values, order = [], torch.randperm
    try:
        for drawn in combinations(range(N_USERS), 3):
            torch.randperm = lambda n, drawn=drawn, **_: torch.tensor(
                [*drawn, *(i for i in range(n) if i not in drawn)]
            )
            values.append(likelihood.distribution(u, v, columns).log_prob(columns))
    finally:
        torch.randperm = order
    assert torch.stack(values).std(0).max() > 0.1
    mean = torch.stack(values).mean(0)
    torch.testing.assert_close(mean, exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(mean.sum(), u)[0], slope_exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("name", ["bernoulli", "poisson", "bernoulli-bound"])
def test_columns_equal_the_dense_product(name, zeros):
    model = toy_model(rating_likelihood=name, rating_likelihood_args={"zeros": zeros}, biases="off")
    columns = ratings_of("bernoulli").columns
    u, v = torch.randn(N_USERS, N_FACTORS).double(), torch.randn(N_ITEMS, N_FACTORS).double()
    found = model.ratings.eval().distribution(u, v, columns).log_prob(columns)
    ratings, confidences = columns.dense(1.0 if zeros else 0.0)
    cell = torch.distributions.Poisson if name == "poisson" else torch.distributions.Bernoulli
    score = v @ u.mT
    dense = (cell(score.exp()) if name == "poisson" else cell(logits=score)).log_prob(ratings)
    torch.testing.assert_close(found, torch.where(confidences > 0, dense, 0.0).sum(-1), rtol=1e-11, atol=1e-11)


def test_the_bound_is_below_the_expected_log_likelihood():
    """And how far: the gap of a whole fit, cells by hand, with E[log sigmoid] by quadrature."""
    coordinate, state = toy("bernoulli-bound", "full", unrated="zeros")
    sweeps(coordinate, state, 300)
    with torch.no_grad():
        bound = coordinate.sweep(state)["ratings"]
    mean, second = dense_moments(coordinate, state)
    ratings, confidences = coordinate.observations.columns.dense(1.0)
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.hermite_e.hermegauss(64))
    s = mean[..., None] + (second - mean.square()).sqrt()[..., None] * nodes
    cells = (weights / weights.sum() * F.logsigmoid((2 * ratings - 1)[..., None] * s)).sum(-1)
    there = confidences > 0
    stored = torch.zeros_like(there)
    columns = coordinate.observations.columns
    stored[columns.items, columns.users] = True
    xi = torch.where(stored, second.sqrt(), state.model.ratings.log_xi.detach().exp())
    below = F.logsigmoid(xi) + (ratings - 0.5) * mean - xi / 2 - slope(xi) * (second - xi.square())
    assert bound == pytest.approx(float(below[there].sum()), rel=1e-10)
    assert bool((below < cells)[there].all())


@pytest.mark.parametrize("given", [Normal(tau=2.0, learned=False), Normal])
def test_a_likelihood_is_given_by_instance_or_class(given, tmp_path):
    dataset = simulated_stars(n_users=30, n_items=40, n_words=20)
    options = {"factors": 2, "hidden": (5,), "pretrain_epochs": 1, "epochs": 0, "sweeps": 2, "threads": 1}
    split = held_out_cells(dataset, 0.1, 0)
    fit = inference.fit(dataset, split, method="coordinate", rating_likelihood=given, out=tmp_path / "run", **options)
    arguments = {} if given is Normal else {"tau": 2.0, "learned": False}
    assert fit.options.model.rating_likelihood == "normal" and fit.options.model.rating_likelihood_args == arguments
    again = inference.load(tmp_path / "run")
    assert again.model.ratings.tau == fit.model.ratings.tau and again.model.mean == fit.model.mean
    pairs = dataset.user_ids[:9], dataset.item_ids[:9]
    assert again.predict(*pairs).equals(fit.predict(*pairs))
