"""The sparse rating columns against the dense product of Normals, in float64."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.ratings import GaussianSite, Moments
from models.ratings.confidence_normal import ConfidenceNormal, expected_half_square, gaussian_factors
from pyro_cvae.errors import InputError
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, toy_columns


def dense_log_prob(u, v, columns, b):
    """The same by hand: a Normal for every cell that is there."""
    ratings, confidences = columns.dense(b)
    there = confidences > 0
    scale = torch.where(there, confidences, 1.0) ** -0.5
    cells = torch.distributions.Normal(v @ u.mT, scale).log_prob(ratings)
    return torch.where(there, cells, 0.0).sum(-1)


def factors(seed=0):
    torch.manual_seed(seed)
    u = torch.randn(N_USERS, N_FACTORS, dtype=torch.float64, requires_grad=True)
    v = torch.randn(N_ITEMS, N_FACTORS, dtype=torch.float64, requires_grad=True)
    return u, v


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    b=st.sampled_from([0.0, 1e-3, 0.05, 2.0]),
    chosen=st.sets(st.integers(0, 8), min_size=1),
    weighed=st.booleans(),
)
def test_columns_equal_the_dense_product_under_every_minibatch(seed, b, chosen, weighed):
    columns = toy_columns(seed, weighed=weighed)
    rows = torch.tensor(sorted(chosen))
    u, v = factors(seed)
    batch = columns.select(rows)
    sparse = ConfidenceNormal(1.0, b).distribution(u, v[rows], batch).log_prob(batch)
    dense = dense_log_prob(u, v, columns, b)[rows]
    torch.testing.assert_close(sparse, dense, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(
        torch.autograd.grad(sparse.sum(), (u, v)), torch.autograd.grad(dense.sum(), (u, v)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_confidence_of_zero_says_that_the_cell_is_missing():
    columns = toy_columns()
    u, v = factors()
    likelihood = ConfidenceNormal(1.0, 0.05)
    other = dataclasses.replace(columns, ratings=torch.where(columns.confidences == 0, 99.0, columns.ratings))
    torch.testing.assert_close(
        likelihood.distribution(u, v, columns).log_prob(columns), likelihood.distribution(u, v, other).log_prob(other)
    )


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_expected_square_is_the_mean_over_draws_of_independent_normals(full, weighed):
    """E[1/2 sum C (R - u.v)^2] in closed form against 1/2 sum C (R^2 - 2 R E[s] + E[s^2]) with E[s^2] by moments."""
    columns = toy_columns(weighed=weighed)
    u, v = (x.detach() for x in factors())
    u_var = torch.rand_like(u)
    if full:
        root = torch.randn(N_ITEMS, N_FACTORS, N_FACTORS, dtype=torch.float64)
        covariance = root @ root.mT
        items = Gaussians(v, covariance=covariance)
    else:
        items = Gaussians(v, torch.rand_like(v))
        covariance = torch.diag_embed(items.variance)
    ours = expected_half_square(Moments(Gaussians(u, u_var), items), columns, 0.05)
    ratings, confidences = columns.dense(0.05)
    second_u = torch.einsum("ik,il->ikl", u, u) + torch.diag_embed(u_var)
    second_v = torch.einsum("jk,jl->jkl", v, v) + covariance
    square = torch.einsum("ikl,jkl->ji", second_u, second_v)
    dense = 0.5 * (confidences * (ratings**2 - 2 * ratings * (v @ u.mT) + square)).sum(-1)
    torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)


def test_zero_variances_are_the_plain_square():
    columns = toy_columns()
    u, v = factors()
    plain = ConfidenceNormal(1.0, 0.05).distribution(u, v, columns).half_square(columns)
    moments = Moments(Gaussians(u, torch.zeros_like(u)), Gaussians(v, torch.zeros_like(v)))
    torch.testing.assert_close(expected_half_square(moments, columns, 0.05), plain)


@pytest.mark.parametrize("weighed", [False, True])
def test_the_gaussian_factors_are_the_gradient_and_curvature_of_the_expected_log_density(weighed):
    columns = toy_columns(weighed=weighed)
    u, v = factors()
    u_var = torch.rand_like(u)
    likelihood = ConfidenceNormal(1.0, 0.05)
    users = Gaussians(u.detach(), u_var)
    precision, shift = gaussian_factors(likelihood.site(columns), users, columns)

    def value(point):
        return likelihood.expected_log_prob(Moments(users, Gaussians(point)), columns).sum()

    gradient = torch.autograd.functional.jacobian(value, v)
    torch.testing.assert_close(gradient, shift - (precision @ v[..., None]).squeeze(-1), rtol=1e-10, atol=1e-10)


@pytest.mark.statistical
@pytest.mark.parametrize("weighed", [False, True])
def test_sample_stores_every_cell_at_its_own_precision(failure_rate, weighed):
    columns = toy_columns(unrated=False, weighed=weighed)
    u, v = (x.detach() for x in factors())
    cells = ConfidenceNormal(1.0, 0.05).distribution(u, v, columns)
    draws = [cells.sample() for _ in range(2000)]
    drawn = torch.stack([draw.ratings.reshape(N_ITEMS, N_USERS) for draw in draws])
    _, confidences = columns.dense(0.05)
    there = confidences > 0
    z = (drawn.mean(0) - v @ u.mT)[there] * (2000 * confidences[there]).sqrt()
    chi2 = (drawn.var(0) * confidences)[there]
    bound = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - failure_rate / 4 / int(there.sum())))
    assert z.abs().max() < bound
    assert ((chi2 - 1) / (2 / 1999) ** 0.5).abs().max() < 1.3 * bound  # chi-squared tails are a little wider
    assert isinstance(draws[0], RatingColumns) and len(draws[0].users) == N_ITEMS * N_USERS
    assert torch.isfinite(cells.log_prob(draws[0])).all()


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.1), (-1.0, 0.1), (1.0, -0.1), (float("nan"), 0.1), (1.0, float("inf"))])
def test_confidences_that_are_no_precisions_are_refused(a, b):
    with pytest.raises(InputError, match="no precisions"):
        ConfidenceNormal(a, b)


@pytest.mark.parametrize("power", [-0.5, 10.5, 1000.0, math.nan, math.inf])
def test_powers_of_popularity_are_from_0_to_10(power):
    with pytest.raises(InputError, match="no power of popularity"):
        ConfidenceNormal(b_power=power)


def test_zeros_go_with_a_power_of_popularity_whose_mean_over_rated_items_is_1():
    """Whatever the units of the counts: twice as many ratings of every item leave the weights as they were."""
    likelihood, counts = ConfidenceNormal(b=0.3, b_power=0.5), torch.tensor([4, 0, 1, 9, 0, 16])
    weights = likelihood.zero_weights(counts)
    assert weights[counts > 0].mean() == pytest.approx(1.0, rel=1e-12)
    torch.testing.assert_close(weights / weights[2], torch.tensor([2.0, 1, 1, 3, 1, 4], dtype=torch.float64))
    torch.testing.assert_close(likelihood.zero_weights(2 * counts)[counts > 0], weights[counts > 0])
    assert ConfidenceNormal().zero_weights(counts) is None
    likelihood.weigh_zeros(0.7, 0.0)
    assert likelihood.b == 0.7 and likelihood.b_power == 0.0 and likelihood.zero_weights(counts) is None
    likelihood.weigh_zeros(0.7)
    assert likelihood.b_power == 0.0, "not told is as it was"


def test_missing_cells_are_not_counted_as_popularity():
    columns = toy_columns()
    there = torch.bincount(columns.items[columns.confidences > 0], minlength=len(columns))
    likelihood = ConfidenceNormal(b_power=1.0)
    weighed = likelihood.weighed(columns)
    assert (columns.confidences == 0).any()
    torch.testing.assert_close(weighed.zero_weights, likelihood.zero_weights(there))
    torch.testing.assert_close(weighed.dense(2.0)[1][0, 5:6] > 0, torch.tensor([True]))


def test_a_site_has_weights_of_zeros_or_a_linear_part():
    one = torch.ones(2)
    with pytest.raises(ValueError, match="no linear part"):
        GaussianSite(one, one, 0.1, -0.5, zero_weights=one)
