"""Rows of a side against what is written out densely, in float64."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import MultivariateNormal

from models import gaussians
from models.gaussians import Gaussians, scores_of_pairs

KINDS = ("point", "diagonal", "full", "parent")
N, K = 7, 3
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def rows_of(kind, n=N, seed=0):
    """Any rows; of full covariances the last two rows share one, and the last block is no row's."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    loc = normal(n, K)
    if kind == "point":
        return Gaussians(loc)
    if kind == "diagonal":
        return Gaussians(loc, normal(n, K).square())
    root = normal(n, K, K)
    block = torch.arange(n).clamp(max=n - 2)
    rows = Gaussians(loc, covariance=0.3 * root @ root.mT, block=block.flip(0))
    return rows if kind == "full" else replace(rows, spread=normal(n, K).square(), slope=0.7)


def covariances_of(rows):
    """Row by row."""
    found = []
    for row in range(len(rows)):
        if rows.is_point:
            found.append(torch.zeros(K, K).double())
        elif rows.variance is not None:
            found.append(torch.diag(rows.variance[row]))
        else:
            own = rows.covariance[rows.block[row]]
            through = 0.0 if rows.spread is None else rows.slope**2 * own @ torch.diag(rows.spread[row]) @ own
            found.append(own + through)
    return torch.stack(found)


@pytest.mark.parametrize("kind", KINDS)
def test_covariances_and_what_is_read_from_them(kind, monkeypatch):
    rows, dense = rows_of(kind), covariances_of(rows_of(kind))
    torch.testing.assert_close(rows.covariances(), dense, **CLOSE)
    torch.testing.assert_close(rows.covariances(torch.tensor(2)), dense[2], **CLOSE)
    torch.testing.assert_close(rows.traces(), dense.diagonal(dim1=-2, dim2=-1).sum(-1), **CLOSE)
    for floats in (2**22, 1):
        monkeypatch.setattr(gaussians, "COVARIANCES_AT_ONCE", floats)
        torch.testing.assert_close(rows.variances(), dense.diagonal(dim1=-2, dim2=-1), **CLOSE)


@pytest.mark.parametrize("at_once", [1024, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_second_moments_and_quadratic_forms(kind, at_once, monkeypatch):
    monkeypatch.setattr(gaussians, "BLOCKS_AT_ONCE", at_once)
    rows = rows_of(kind)
    second = covariances_of(rows) + rows.loc[:, :, None] * rows.loc[:, None, :]
    weights = torch.linspace(-1.0, 2.0, N, dtype=torch.float64)
    torch.testing.assert_close(rows.second_moment(), second.sum(0), **CLOSE)
    torch.testing.assert_close(rows.second_moment(weights), (weights[:, None, None] * second).sum(0), **CLOSE)
    torch.testing.assert_close(rows.second_moment(weights > 0), second[weights > 0].sum(0), **CLOSE)
    matrix = second[0] - 2 * second[1]
    torch.testing.assert_close(rows.quadratic(matrix), (second * matrix).sum((-1, -2)), **CLOSE)


@pytest.mark.parametrize("at_once", [1024, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_without_parents_the_rows_that_count_have_their_own_covariances(kind, at_once, monkeypatch):
    monkeypatch.setattr(gaussians, "BLOCKS_AT_ONCE", at_once)
    rows, dense = rows_of(kind), covariances_of(rows_of(kind))
    alone = rows.marginal()
    assert alone.spread is None and torch.equal(alone.loc, rows.loc)
    torch.testing.assert_close(alone.covariances()[2:], dense[2:], **CLOSE)  # the first two share a block
    if kind != "parent":
        assert alone is rows
        return
    torch.testing.assert_close(alone.covariances()[:2], rows.given()[:2], **CLOSE)
    assert len(alone.covariance) == len(rows.covariance)
    counted = torch.arange(N) == 1
    some = rows.marginal(counted)
    torch.testing.assert_close(some.covariances()[1:], dense[1:], **CLOSE)
    torch.testing.assert_close(some.covariances()[0], rows.given()[0], **CLOSE)
    torch.testing.assert_close(rows.marginal(counted | True).covariances(), dense, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_some_rows_and_more_rows(kind):
    rows, more = rows_of(kind), rows_of(kind, 4, seed=1)
    at = torch.tensor([6, 0, 6, 1])
    some = rows.select(at)
    assert torch.equal(some.loc, rows.loc[at])
    torch.testing.assert_close(some.covariances(), covariances_of(rows)[at], **CLOSE)
    if rows.covariance is not None:
        assert len(some.covariance) == 2, "no block that none of them has"
    both = rows.joined(more)
    assert torch.equal(both.loc, torch.cat([rows.loc, more.loc]))
    torch.testing.assert_close(both.covariances(), torch.cat([covariances_of(rows), covariances_of(more)]), **CLOSE)
    torch.testing.assert_close(both.select(torch.arange(N)).covariances(), covariances_of(rows), **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_other_coordinates(kind):
    rows, factor = rows_of(kind), 1.5
    found = rows.mapped(lambda mean: factor * mean, lambda spread: factor**2 * spread)
    assert torch.equal(found.loc, factor * rows.loc)
    given, before = (replace(one, spread=None).covariances() for one in (found, rows))
    torch.testing.assert_close(given, factor**2 * before, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_moves_have_the_covariances(kind):
    """Of unit moves the outer products add up to the covariance, parents' moves among them."""
    rows = rows_of(kind)
    unit = torch.eye(K).double()[:, None, :].expand(K, N, K)
    away = [rows.moved(unit, rows.root()) - rows.loc]
    if kind == "parent":
        away.append(rows.along(unit * rows.spread.sqrt()))
        first = (rows.slope * rows.given()[:, 0, :2] * away[0][..., :2]).sum(-1)
        torch.testing.assert_close(rows.along(away[0][..., :2])[..., 0], first, **CLOSE)
    total = sum(torch.einsum("nrk,nrl->rkl", part, part) for part in away)
    torch.testing.assert_close(total, covariances_of(rows), **CLOSE)


def test_a_coordinate_without_variance_does_not_move():
    rows = rows_of("full")
    held = rows.covariance.clone()
    held[:, 1], held[:, :, 1] = 0.0, 0.0
    rows = replace(rows, covariance=held)
    moved = rows.moved(torch.ones(2, N, K).double(), rows.root())
    assert torch.equal(moved[..., 1], rows.loc[:, 1].expand(2, -1)) and (moved[..., 0] != rows.loc[:, 0]).all()


def test_log_determinants_are_computed_where_they_are_not_given():
    rows = rows_of("full")
    given = replace(rows, log_det=torch.logdet(rows.covariance))
    torch.testing.assert_close(rows.kl(2.0), given.kl(2.0), **CLOSE)
    q = MultivariateNormal(rows.loc, rows.covariances())
    prior = MultivariateNormal(torch.zeros(K).double(), torch.eye(K).double() / 2)
    torch.testing.assert_close(rows.kl(2.0), torch.distributions.kl_divergence(q, prior), **CLOSE)
    torch.testing.assert_close(given.select(torch.tensor([3, 0])).kl(2.0), rows.kl(2.0)[[3, 0]], **CLOSE)


@pytest.mark.parametrize("at_once", [2**22, 5 * K**2])
@pytest.mark.parametrize("v", KINDS)
@pytest.mark.parametrize("u", KINDS)
def test_moments_of_the_scores_of_pairs(u, v, at_once, monkeypatch):
    """var(u.v) = E[(u.v)^2] - E[u.v]^2, from second moments of single rows."""
    monkeypatch.setattr(gaussians, "COVARIANCES_AT_ONCE", at_once)
    users, items = rows_of(u), rows_of(v, n=5, seed=2)
    at, of = torch.cartesian_prod(torch.arange(N), torch.arange(5)).T
    mean, variance = scores_of_pairs(users, items, at, of)
    seconds = [covariances_of(rows) + rows.loc[:, :, None] * rows.loc[:, None, :] for rows in (users, items)]
    exact = (users.loc[at] * items.loc[of]).sum(-1)
    torch.testing.assert_close(mean, exact, **CLOSE)
    second = (seconds[0][at] * seconds[1][of]).sum((-1, -2))
    torch.testing.assert_close(variance, second - exact.square(), rtol=1e-9, atol=1e-9)
