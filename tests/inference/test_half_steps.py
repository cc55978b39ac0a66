"""Closed-form half-steps against dense brute force, in float64."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, kl_divergence

from inference.algorithms import half_steps
from inference.algorithms.cells import BLOCK_BYTES, Cells
from inference.algorithms.half_steps import Offset, half_step
from inference.algorithms.kernels import kernel, there
from inference.algorithms.sides import background_of
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.ratings import Moments
from models.ratings.confidence_normal import ConfidenceNormal
from pyro_cvae.errors import MachineError
from tests.models.toy import toy_columns

SIDES, OTHERS = ("users", "items"), ("point", "diagonal", "full", "structured")
FAMILIES = ("point", "diagonal", "full", "structured")
KERNELS = ("torch", "numba") if there() else ("torch",)
PRECISION = 1.7
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def ragged(seed=0, n_users=60, n_items=45, b=0.05, unrated="masked"):
    """Columns and rows of all lengths: cells missing or weaker than the background, items and users without any."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(n_items, 1, generator=generator) ** 2 * torch.rand(n_users, generator=generator) ** 0.5
    stored = torch.rand(n_items, n_users, generator=generator) < 3 * share
    stored[::7], stored[:, ::9] = False, False
    if n_users > 1 and n_items > 1:
        stored[1, 1] = True
    users = stored.nonzero(as_tuple=True)[1]
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), stored.sum(1).cumsum(0)])
    ratings = torch.randn(len(users), generator=generator, dtype=torch.float64)
    confidences = b + torch.rand(len(users), generator=generator, dtype=torch.float64)
    confidences[::6], confidences[1::17], confidences[2::17] = 0.0, b, b / 2  # missing; no weight; a negative one
    observed = stored.any(1) if unrated == "masked" else torch.ones(n_items, dtype=torch.bool)
    return RatingColumns(indptr, users, ratings, confidences, observed, n_users)


class Side:
    """One side's cells, its dense ratings and precisions (n_rows, n_others), and the other side's cells."""

    def __init__(self, side, columns, b):
        both = {"items": Cells.of_items(columns, b), "users": Cells.of_users(columns, b)}
        self.columns, self.b, self.side = columns, b, side
        self.cells, self.others = both[side], both["users" if side == "items" else "items"]
        ratings, precisions = columns.dense(b if isinstance(b, float) else 0.0)
        self.ratings, self.precisions = (x if side == "items" else x.mT for x in (ratings, precisions))

    def step(self, other, family, prior=None, **more):
        full = "full" if family == "structured" else family
        return half_step(self.cells, other, self.others.observed, self.b, PRECISION, prior, family=full, **more)

    @classmethod
    def weighed(cls, side, columns, b):
        """Zeros of items with weights of their own, as a likelihood's site has them."""
        columns = replace(columns, zero_weights=torch.linspace(0.1, 3.0, len(columns), dtype=torch.float64))
        site = ConfidenceNormal(1.0, b).site(columns)
        own = cls(side, columns, site)
        own.b = background_of(site, side == "users")
        own.ratings, own.precisions = (x if side == "items" else x.mT for x in columns.dense(b))
        return own

    def half_square(self, rows, other):
        """E[1/2 sum C (R - s)^2] by sums over all cells."""
        score = rows.loc @ other.loc.mT
        square = torch.einsum("ikl,okl->io", second_moments(rows), second_moments(other))
        return (0.5 * self.precisions * (self.ratings**2 - 2 * self.ratings * score + square)).sum()

    def optimum(self, other, prior):
        """Precision matrices and means of the best q of all rows."""
        eye = torch.eye(other.loc.shape[1]).to(other.loc)
        precisions = torch.einsum("io,okl->ikl", self.precisions, second_moments(other)) + PRECISION * eye
        right = (self.precisions * self.ratings) @ other.loc + PRECISION * prior
        return precisions, torch.linalg.solve(precisions, right)


def make_rows(kind, cells, n_factors=3, seed=0):
    """Any q of the rows of ``cells``, not the best one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    loc = normal(len(cells), n_factors)
    if kind == "point":
        return Gaussians(loc)
    if kind == "diagonal":
        return Gaussians(loc, variance=0.05 + normal(*loc.shape).square())
    own = cells.lengths > 0
    block = torch.where(own, own.cumsum(0) - 1, own.sum() + (~cells.observed).long())
    root = normal(int(own.sum()) + 2, n_factors, n_factors)
    covariance = 0.1 * root @ root.mT + 0.05 * torch.eye(n_factors).double()
    rows = Gaussians(loc, covariance=covariance, block=block, log_det=torch.logdet(covariance))
    return rows if kind == "full" else replace(rows, spread=0.2 + normal(*loc.shape).square(), slope=0.8)


def covariances(rows):
    """Covariance of each row, (n_rows, n_factors, n_factors), written out."""
    if rows.is_point:
        return torch.zeros(*rows.loc.shape, rows.loc.shape[1]).to(rows.loc)
    if rows.variance is not None:
        return torch.diag_embed(rows.variance)
    own = rows.covariance[rows.block]
    return own if rows.spread is None else own + rows.slope**2 * own @ torch.diag_embed(rows.spread) @ own


def second_moments(rows):
    return covariances(rows) + rows.loc[:, :, None] * rows.loc[:, None, :]


def prior_of(side, n_factors, seed=5):
    """A prior mean for the items, none (zero) for the users; with its variances."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(side.cells), n_factors
    loc = torch.randn(*shape, generator=generator, dtype=torch.float64)
    var = 0.1 + torch.rand(*shape, generator=generator, dtype=torch.float64)
    return (loc, loc, var) if side.side == "items" else (None, torch.zeros_like(loc), var)


def assert_best(side, other, family):
    """The half-step's rows and sums are the brute-force optimum's."""
    prior, prior_loc, prior_var = prior_of(side, other.loc.shape[1])
    precisions, loc = side.optimum(other, prior_loc)
    for name in KERNELS:
        with kernel(name):
            found = side.step(other, family, prior, prior_var=prior_var if family == "structured" else None)
        assert_optimum(side, other, family, found, precisions, loc)
    return found


def assert_optimum(side, other, family, found, precisions, loc):
    rows = found.rows
    torch.testing.assert_close(rows.loc, loc, **CLOSE)
    if family == "diagonal":
        torch.testing.assert_close(rows.variance, 1 / precisions.diagonal(dim1=-2, dim2=-1), **CLOSE)
    elif family != "point":
        torch.testing.assert_close(rows.covariance[rows.block], torch.linalg.inv(precisions), **CLOSE)
        torch.testing.assert_close(rows.log_det[rows.block], -torch.logdet(precisions), **CLOSE)
        of_its_own = side.cells.observed if getattr(side.b, "by_row", None) is not None else side.cells.lengths > 0
        assert len(rows.covariance) == int(of_its_own.sum()) + 2
    else:
        assert rows.is_point
    expected = float(side.half_square(rows, other))
    assert found.half_square(side.columns) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("unrated", ["masked", "zeros"])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("make", [Side, Side.weighed], ids=["zeros alike", "zeros by item"])
def test_a_half_step_is_the_brute_force_optimum(make, name, family, other, unrated):
    for columns in (ragged(unrated=unrated), toy_columns(unrated=unrated == "masked")):
        side = make(name, columns, 0.05)
        assert {True, False} <= set((side.cells.lengths > 0).tolist()) or columns.n_users == 7
        assert_best(side, make_rows(other, side.others), family)


@pytest.mark.parametrize("n_factors", [6, 150])
def test_points_whose_zeros_differ_by_item_go_by_woodbury_and_cholesky(n_factors, monkeypatch):
    """Whatever the length up to which Woodbury's identity is used, with a prior and with a bias of the other side."""
    columns = ragged()
    columns = replace(columns, confidences=columns.confidences + 0.2)
    side = Side.weighed("items", columns, 0.05)
    other, (prior, prior_loc, _) = make_rows("point", side.others, n_factors), prior_of(side, n_factors)
    offset = Offset(mean := torch.linspace(-1, 1, len(side.others), dtype=torch.float64), mean.square())
    precisions, _ = side.optimum(other, prior_loc)
    right = (side.precisions * (side.ratings - mean)) @ other.loc + PRECISION * prior_loc
    wanted = torch.cholesky_solve(right[..., None], torch.linalg.cholesky(precisions)).squeeze(-1)
    for short in (0.0, 1.0, 1e9):
        monkeypatch.setattr(half_steps, "WOODBURY_UP_TO", short)
        background = replace(side.b, offset=offset)
        found = half_step(side.cells, other, side.others.observed, background, PRECISION, prior)
        torch.testing.assert_close(found.rows.loc, wanted, **CLOSE)
        score = found.rows.loc @ other.loc.mT + mean
        square = (0.5 * side.precisions * (side.ratings - score).square()).sum()
        assert found.half_square(columns) == pytest.approx(float(square), rel=1e-10)


def test_the_ragged_data_have_what_is_to_be_tested():
    """Rows by the dozen and without any cell, buckets of unequal lengths above 8, weights of either sign and zero."""
    for name in SIDES:
        side = Side(name, ragged(), 0.05)
        lengths = side.cells.lengths
        assert lengths.min() == 0 and lengths.max() > 20
        assert not side.cells.observed.all() or name == "users"
        padded = [side.cells.padded(rows) for rows in side.cells.blocks(lambda length: 1)]
        assert any(not one.full for one in padded) and all(one.full for one in padded if one.real.shape[1] <= 8)
        seen = torch.cat(side.cells.blocks(lambda length: 1)).sort().values
        assert torch.equal(seen, lengths.nonzero().flatten())
        assert {-1.0, 0.0, 1.0} <= set(side.cells.weights.sign().tolist())


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    sizes=st.tuples(st.integers(2, 50), st.integers(2, 50), st.integers(1, 5)),
    b=st.sampled_from([0.0, 0.05, 1.0]),
    woodbury=st.sampled_from([0.0, 1.0, 100.0]),
    block_bytes=st.sampled_from([1, 3000, 2**25]),
    name=st.sampled_from(SIDES),
    pair=st.sampled_from([(f, o) for f in FAMILIES for o in OTHERS] + [("point", "point")] * 8),
)
def test_whatever_the_sizes_lengths_and_blocks(seed, sizes, b, woodbury, block_bytes, name, pair):
    n_users, n_items, n_factors = sizes
    side = Side(name, ragged(seed, n_users, n_items, b), b)
    family, other = pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BLOCK_BYTES, "cpu", block_bytes)
        patch.setattr(half_steps, "WOODBURY_UP_TO", woodbury)
        assert_best(side, make_rows(other, side.others, n_factors, seed), family)


@pytest.mark.parametrize("b", [0.0, 0.05])
@pytest.mark.parametrize("name", SIDES)
def test_woodbury_and_cholesky_agree(name, b, monkeypatch):
    """Up to 0, 1 and any number of cells a factor; the factorised matrices show which way was taken."""
    columns = ragged(b=b)
    columns = replace(columns, confidences=columns.confidences.clamp(min=b + 0.01))
    side = Side(name, columns, b)
    other, (prior, _, _) = make_rows("point", side.others, 6), prior_of(side, 6)
    sizes, factor = [], half_steps._cholesky
    monkeypatch.setattr(half_steps, "_cholesky", lambda m: sizes.append(m.shape[-1]) or factor(m))
    found = {}
    for short in (0.0, 1.0, 1e9):
        sizes.clear()
        monkeypatch.setattr(half_steps, "WOODBURY_UP_TO", short)
        with kernel("torch"):
            found[short] = side.step(other, "point", prior)
        assert {0.0: min(sizes) == max(sizes) == 6, 1.0: min(sizes) < max(sizes) == 6, 1e9: max(sizes) > 6}[short]
    for short in (0.0, 1.0):
        torch.testing.assert_close(found[short].rows.loc, found[1e9].rows.loc, rtol=1e-10, atol=1e-12)
        assert found[short].half_square(columns) == pytest.approx(found[1e9].half_square(columns), rel=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SIDES)
def test_neither_threads_nor_blocks_matter(name, family, threads, monkeypatch):
    side = Side(name, ragged(), 0.05)
    other = make_rows("point" if family == "point" else "structured", side.others)
    prior, _, var = prior_of(side, 3)
    found = []
    for n_threads, block_bytes in ((1, 2**25), (1, 500), (2, 500), (2, 1)):
        torch.set_num_threads(n_threads)
        monkeypatch.setitem(BLOCK_BYTES, "cpu", block_bytes)
        found.append(side.step(other, family, prior, prior_var=var if family == "structured" else None))
        assert torch.get_num_threads() == n_threads
    for one in found[1:]:
        torch.testing.assert_close(one.rows.loc, found[0].rows.loc, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(one.rows.traces(), found[0].rows.traces(), rtol=1e-12, atol=1e-13)
    assert torch.equal(found[1].rows.loc, found[2].rows.loc), "threads alone change no bit"
    assert (found[1].square, found[1].linear) == (found[2].square, found[2].linear)


@pytest.mark.parametrize("name", SIDES)
def test_the_mean_update_with_zero_covariances_is_that_of_map(name):
    side = Side(name, ragged(), 0.05)
    full, (prior, _, _) = make_rows("full", side.others), prior_of(side, 3)
    points = side.step(Gaussians(full.loc), "point", prior).rows.loc
    zero = torch.zeros_like(full.covariance)
    for other in (
        replace(full, covariance=zero),
        Gaussians(full.loc, variance=torch.zeros_like(full.loc)),
        Gaussians(full.loc),
    ):
        for family in ("diagonal", "full"):
            torch.testing.assert_close(side.step(other, family, prior).rows.loc, points, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SIDES)
def test_no_other_q_of_the_family_has_a_higher_objective(name, family, other):
    """From any q a half-step rises, and every small change of its result falls: -E[half square] - KL."""
    side = Side(name, ragged(), 0.05)
    others = make_rows(other, side.others)
    prior, prior_loc, prior_var = prior_of(side, 3)
    spread = prior_var if family == "structured" else None

    def objective(rows):
        return float(-side.half_square(rows, others) - rows.kl(PRECISION, prior_loc).sum())

    best = side.step(others, family, prior, prior_var=spread).rows
    top = objective(best)
    for seed in range(3):
        anything = make_rows(family, side.cells, seed=seed)
        if spread is not None:
            anything = replace(anything, spread=spread)
        assert objective(anything) < top
    generator = torch.Generator().manual_seed(0)
    for sign in (1e-3, -1e-3):
        step = sign * torch.randn(best.loc.shape, generator=generator, dtype=torch.float64)
        assert objective(replace(best, loc=best.loc + step)) < top
        if best.variance is not None:
            assert objective(replace(best, variance=best.variance * (1 + step))) < top
        elif best.covariance is not None:
            mix = torch.eye(3).double() + sign * torch.randn(
                best.covariance.shape, generator=generator, dtype=torch.float64
            )
            changed = mix @ best.covariance @ mix.mT
            assert objective(replace(best, covariance=changed, log_det=torch.logdet(changed))) < top


@pytest.mark.parametrize("v", ["point", "diagonal", "full"])
@pytest.mark.parametrize("u", ["point", "diagonal"])
def test_the_sums_are_those_of_the_ratings_distribution(u, v):
    """The likelihood's expectation, which the SVI module uses."""
    columns = ragged()
    side = Side("items", columns, 0.05)
    users = make_rows(u, side.others)
    found = side.step(users, v, prior_of(side, 3)[0])
    rows = found.rows
    expected = -ConfidenceNormal(b=0.05).expected_log_prob(Moments(users, rows), columns).sum()
    assert found.half_square(columns) == pytest.approx(float(expected), rel=1e-11)


@pytest.mark.parametrize("kind", OTHERS)
def test_moments_of_rows(kind):
    for name in SIDES:
        cells = Side(name, ragged(), 0.05).cells
        rows = make_rows(kind, cells)
        dense = covariances(rows)
        traces = dense.diagonal(dim1=-2, dim2=-1).sum(-1)
        torch.testing.assert_close(rows.traces(), traces, **CLOSE)
        for observed in (cells.observed, torch.ones_like(cells.observed), cells.lengths > 3):
            expected = second_moments(rows)[observed].sum(0)
            torch.testing.assert_close(rows.second_moment(observed), expected, **CLOSE)
        if rows.covariance is not None:
            own = cells.lengths > 0
            torch.testing.assert_close(rows.marginal().covariances()[own], dense[own], **CLOSE)


def sigma_points(rows, prior_loc):
    """Means of the prior at points whose average is the expectation of anything quadratic, with q's mean at each."""
    if rows.spread is None:
        return [(prior_loc, rows.loc)]
    size, points = rows.loc.shape[1], []
    for k in range(size):
        for sign in (1, -1):
            away = torch.zeros_like(prior_loc)
            away[:, k] = sign * (size * rows.spread[:, k]).sqrt()
            slope = rows.slope * rows.covariance[rows.block]
            points.append((prior_loc + away, rows.loc + (slope @ away[..., None]).squeeze(-1)))
    return points


@pytest.mark.parametrize("with_prior", [True, False])
@pytest.mark.parametrize("kind", OTHERS)
def test_kl_and_expected_square_of_rows(kind, with_prior):
    """Against torch; where the prior's mean is Normal itself, averaged over it."""
    side = Side("items", ragged(), 0.05)
    rows = make_rows(kind, side.cells)
    prior = prior_of(side, 3)[0] if with_prior else torch.zeros_like(rows.loc)
    given = covariances(replace(rows, spread=None))
    tight = torch.eye(3).double() / PRECISION
    squares, kls = [], []
    for mean, loc in sigma_points(rows, prior):
        squares.append((loc - mean).square().sum(-1) + given.diagonal(dim1=-2, dim2=-1).sum(-1))
        if kind == "point":
            kls.append(-MultivariateNormal(mean, tight).log_prob(loc))
        else:
            kls.append(kl_divergence(MultivariateNormal(loc, given), MultivariateNormal(mean, tight)))
    asked = prior if with_prior else None
    torch.testing.assert_close(rows.expected_square(asked), torch.stack(squares).mean(0), **CLOSE)
    torch.testing.assert_close(rows.kl(PRECISION, asked), torch.stack(kls).mean(0), **CLOSE)


def test_rows_without_cells_share_two_covariances():
    side = Side("items", ragged(), 0.05)
    users = make_rows("full", side.others)
    rows = side.step(users, "full", prior_of(side, 3)[0]).rows
    none = ~side.cells.observed
    assert none.sum() > 1 and len(rows.block[none].unique()) == 1
    torch.testing.assert_close(rows.covariance[rows.block[none][0]], torch.eye(3).double() / PRECISION)
    assert torch.equal(rows.loc[none], prior_of(side, 3)[1][none])
    zeros = Side("items", ragged(unrated="zeros"), 0.05)
    rows = zeros.step(users, "full", prior_of(side, 3)[0]).rows
    assert len(rows.block[none].unique()) == 1
    shared = torch.linalg.inv(0.05 * users.second_moment(side.others.observed) + PRECISION * torch.eye(3).double())
    torch.testing.assert_close(rows.covariance[rows.block[none][0]], shared, **CLOSE)


@pytest.mark.parametrize("family", ["point", "diagonal", "full"])
def test_a_precision_that_is_not_positive_definite_says_what_to_do(family):
    side = Side("users", ragged(), 0.05)
    other = torch.full((len(side.others), 3), 1e4)  # of rank one, so that the prior alone makes it definite
    parts = vars(side.cells).values()
    cells = Cells(*(x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in parts))
    with pytest.raises(MachineError, match="--dtype float64"):
        half_step(cells, Gaussians(other), side.others.observed, 0.05, 1e-9, family=family)
