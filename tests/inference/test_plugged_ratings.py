"""A likelihood written to the contract is the package's own in every number, in the closed form and by gradients."""

import pytest
import torch

import inference
from models.build import observe
from models.ratings import Moments
from models.testing import check_rating_likelihood
from pyro_cvae.data.simulated import simulated, simulated_stars
from pyro_cvae.errors import InputError
from tests.models.plugged_ratings import OwnBound, OwnNoise, OwnZeros, Probit

SMALL = {"dtype": "float64", "threads": 1, "factors": 3, "hidden": (6,), "pretrain_epochs": 1, "epochs": 1}
STARS = {"ratings": "stars", "biases": "on", "lambda_u": 20.0, "lambda_v": 10.0, "lambda_b": 4.0, "split": "cells"}
CLICKS = {"biases": "on", "lambda_u": 1.0, "lambda_v": 10.0, "lambda_b": 1.0}


def pair(method, kind, **more):
    """The same fit twice: by the package's likelihood and by the plug-in."""
    if kind == "noise":
        dataset, options = simulated_stars(n_users=30, n_items=40, n_words=30, n_factors=3), STARS
        own, plugged = ("normal", {"tau": 1.0}), ("tests.models.plugged_ratings.OwnNoise", {"tau": 1.0})
    else:
        dataset, options = simulated(n_users=30, n_items=40, n_words=30, n_factors=3, clicks_per_user=14.0), CLICKS
        own, plugged = ("bernoulli-bound", {}), ("tests.models.plugged_ratings.OwnBound", {})
    given = SMALL | options | {"method": method, "learning_rate": 0.003} | more
    return [
        inference.fit(dataset, rating_likelihood=name, rating_likelihood_args=arguments, **given)
        for name, arguments in (own, plugged)
    ]


@pytest.mark.parametrize("kind", ["noise", "bound"])
@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("coordinate", {}),
        ("coordinate", {"diagonal": True}),
        ("coordinate", {"guide": "structured"}),
        ("coordinate", {"guide": "structured", "unrated": "zeros"}),
        ("coordinate", {"mode": "map"}),
        ("svi", {}),
        ("svi", {"mode": "map"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "full",
)
def test_a_plug_in_has_every_number_of_the_packages_own(kind, method, more):
    own, plugged = pair(method, kind, **more)
    for name, tensor in own.posterior.tensors().items():
        assert torch.allclose(plugged.posterior.tensors()[name], tensor, rtol=1e-9, atol=1e-9), name
    learned = [dict(fit.model.ratings.named_parameters()) for fit in (own, plugged)]
    for name in learned[0]:
        assert torch.allclose(learned[1][name], learned[0][name], rtol=1e-9, atol=1e-9), name
    for key, value in own.history[-1].items():
        if isinstance(value, float) and key != "seconds":
            assert plugged.history[-1][key] == pytest.approx(value, rel=1e-9), key
    for key in ("rmse", "coverage@50", "coverage@90"):
        assert [key in fit.metrics for fit in (own, plugged)] == [kind == "noise"] * 2
        if key in own.metrics:
            assert plugged.metrics[key] == pytest.approx(own.metrics[key], rel=1e-9)


@pytest.mark.parametrize("likelihood", [OwnNoise, OwnBound, OwnZeros])
def test_the_plug_ins_keep_the_contract(likelihood):
    check_rating_likelihood(likelihood)


@pytest.mark.parametrize("kind", ["noise", "bound"])
def test_the_reported_part_is_the_likelihoods_own_at_q(kind):
    """E log p after the last sweep, from the posterior's tensors by ``expected_log_prob``, for both."""
    for fit in pair("coordinate", kind, diagonal=True, sweeps=3):
        q, ratings = fit.posterior, fit.model.ratings
        moments = Moments(q.u, q.v)
        observations, _ = observe(fit.dataset, fit.split, fit.model.content, fit.options.model, "auto")
        columns = observations.columns
        with torch.no_grad():
            value = ratings.expected_log_prob(moments, columns).sum() + ratings.constant(columns).sum()
        assert float(value) == pytest.approx(fit.history[-1]["ratings"], rel=1e-9)


def test_a_subclass_of_the_packages_noise_is_not_short_cut():
    dataset = simulated_stars(n_users=30, n_items=40, n_words=30, n_factors=3)
    given = SMALL | STARS | {"method": "coordinate", "learning_rate": 0.0}
    plain, shifted = (
        inference.fit(dataset, rating_likelihood=name, **given)
        for name in ("normal", "tests.models.plugged_ratings.ShiftedNoise")
    )
    gap = plain.history[-1]["ratings"] - shifted.history[-1]["ratings"]
    assert gap == pytest.approx(dataset.n_items, rel=1e-9)


PLUGGED = "tests.models.plugged_ratings."
ZEROS = {"model": "pmf", "factors": 2, "threads": 1, "dtype": "float64", "lambda_u": 1.0, "lambda_v": 1.0}


def few_clicks():
    return simulated(n_users=20, n_items=25, n_words=20, n_factors=2, clicks_per_user=14.0)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("mcmc", {"draws": 5, "warmup": 5, "chains": 2}),
        ("coordinate", {}),
        ("coordinate", {"mode": "map"}),
        ("svi", {}),
    ],
)
def test_what_a_site_says_of_zeros_counts_and_not_their_confidence(method, more):
    """Precisions tau C are the package's own a = b = tau, whose confidences are these precisions."""
    more = more | ({"epochs": 3} if method == "svi" else {})
    own = inference.fit(few_clicks(), method=method, a=0.5, b=0.5, **ZEROS, **more)
    plugged = inference.fit(
        few_clicks(), method=method, rating_likelihood=PLUGGED + "OwnZeros", biases="off", **ZEROS, **more
    )
    for name, tensor in own.posterior.tensors().items():
        if name != "log_joint" or method != "mcmc":
            torch.testing.assert_close(plugged.posterior.tensors()[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


def test_what_after_sweep_learns_is_in_the_next_sweep():
    """At the end q(U) is the best of the precision as it is, and not of the one before the first sweep."""
    given = {"rating_likelihood": PLUGGED + "Sharpened", "biases": "off", "method": "coordinate", "mode": "map"}
    fit = inference.fit(few_clicks(), **ZEROS, **given, sweeps=300)
    tau = float(fit.model.ratings.tau)
    assert tau > 2
    observations, _ = observe(fit.dataset, fit.split, None, fit.options.model, "auto")
    u, v = fit.posterior.u.loc, fit.posterior.v.loc
    ratings, c = observations.columns.dense(1.0)
    right = tau * (c * ratings).mT.double() @ v
    precision = tau * torch.einsum("ji,jk,jl->ikl", c.double(), v, v) + torch.eye(2).double()
    torch.testing.assert_close(torch.linalg.solve(precision, right), u, rtol=1e-4, atol=1e-5)


def test_a_parameter_that_no_sweep_learns_is_refused():
    with pytest.raises(InputError, match=r"inference\.coordinate does not learn tau of Unlearned"):
        inference.fit(few_clicks(), method="coordinate", rating_likelihood=PLUGGED + "Unlearned", biases="off", **ZEROS)


def test_a_cell_of_ones_own_under_another_density_is_refused():
    """The kit says so too; a fit would have been of the logit."""
    with pytest.raises(InputError, match="Probit has a cell of its own and takes log_prob of another"):
        inference.fit(few_clicks(), method="svi", rating_likelihood=PLUGGED + "Probit", **ZEROS)
    with pytest.raises(AssertionError, match="log_prob"):
        check_rating_likelihood(Probit)
