"""New ratings where the score is a Normal's: density, distribution function and quantiles against scipy and draws."""

import math
from typing import ClassVar

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from scipy import integrate, special, stats

from models.ratings import RatingLikelihood
from models.ratings.bernoulli import Bernoulli
from models.ratings.cells import moments, points
from models.ratings.confidence_normal import ConfidenceNormal
from models.ratings.normal import Normal
from models.ratings.poisson import Poisson
from models.ratings.predictive import NormalPredictive, Predictive, normal_half_width
from pyro_cvae.errors import InputError
from tests.models.own_ratings import Bounded, Ordinal, Stars, Students

MEAN = torch.tensor([0.3, -1.2, 2.0, 0.0], dtype=torch.float64)
VARIANCE = torch.tensor([0.5, 0.04, 1.7, 3.0], dtype=torch.float64)


class Cut(dist.TorchDistribution):
    """A Normal cut off at 1 and 5: a density and draws, no more."""

    arg_constraints: ClassVar[dict] = {}
    support = constraints.interval(1.0, 5.0)

    def __init__(self, loc):
        self.normal = dist.Normal(loc, 0.8)
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value):
        low, high = ((end - self.normal.loc) / 0.8 for end in (1.0, 5.0))
        flipped = low > 0  # tails are exact, what is near 1 is not
        low, high = torch.where(flipped, -high, low), torch.where(flipped, -low, high)
        below, up_to = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
        return self.normal.log_prob(value) - up_to - torch.log1p(-(below - up_to).exp())

    def sample(self, sample_shape=()):
        loc = self.normal.loc.numpy()
        cut = stats.truncnorm((1 - loc) / 0.8, (5 - loc) / 0.8, loc, 0.8)
        return torch.as_tensor(cut.rvs((*sample_shape, *loc.shape), random_state=0))


class CutNormals(RatingLikelihood):
    """Cells of that kind around 3 + s."""

    def cell(self, score, confidence):
        return Cut(3 + score)


class Gumbels(RatingLikelihood):
    """A skew density on the whole line whose distribution function is hidden."""

    class Hidden(dist.Gumbel):
        def cdf(self, value):
            raise NotImplementedError

        def expand(self, batch_shape, _instance=None):
            return type(self)(self.loc.expand(batch_shape), self.scale.expand(batch_shape))

    def cell(self, score, confidence):
        return self.Hidden(score, torch.full_like(score, 0.7))


class Sines(RatingLikelihood):
    """Normal cells, but the mean is no line in the score."""

    def cell(self, score, confidence):
        return dist.Normal(score.sin(), 0.5)


def by_scipy(given, mean, variance):
    """E[given(s)] over s ~ N(mean, variance): a sum over a fine grid is exact for what is smooth and ends at 0."""
    sd = math.sqrt(variance)
    s = np.linspace(mean - 10 * sd, mean + 10 * sd, 4001)
    return float(integrate.trapezoid(given(s) * stats.norm.pdf(s, mean, sd), s))


def expit_of(s):
    p = special.expit(s)
    return 4 * p, 4 * (1 - p)


CELLS = {
    "students": (Students(), lambda s: stats.t(3, s, 0.6)),
    "bounded": (Bounded(), lambda s: stats.beta(*expit_of(s), loc=1, scale=4)),
    "cut": (CutNormals(), lambda s: stats.truncnorm((1 - 3 - s) / 0.8, (5 - 3 - s) / 0.8, 3 + s, 0.8)),
    "gumbels": (Gumbels(), lambda s: stats.gumbel_r(s, 0.7)),
    "sines": (Sines(), lambda s: stats.norm(np.sin(s), 0.5)),
    "poisson": (Poisson(), lambda s: stats.poisson(np.exp(s))),
    "bernoulli": (Bernoulli(), lambda s: stats.bernoulli(special.expit(s))),
}


@pytest.mark.parametrize("name", CELLS)
def test_density_and_distribution_function_are_those_of_scipy(name):
    likelihood, cell = CELLS[name]
    found = likelihood.predictive(MEAN, VARIANCE)
    assert type(found) is Predictive
    ratings = {"bounded": [1.7, 4.1], "cut": [1.2, 4.6], "poisson": [0.0, 3.0], "bernoulli": [0.0, 1.0]}
    density = "pmf" if found.discrete else "pdf"
    for rating in ratings.get(name, [-2.5, 1.1]):
        given = torch.full_like(MEAN, rating)
        log_p, up_to = found.log_prob(given), found.cdf(given)
        for at, (mean, variance) in enumerate(zip(MEAN.tolist(), VARIANCE.tolist(), strict=True)):
            wanted = by_scipy(lambda s: getattr(cell(s), density)(rating), mean, variance)  # noqa: B023
            assert float(log_p[at]) == pytest.approx(math.log(wanted), abs=1e-7)
            assert float(up_to[at]) == pytest.approx(by_scipy(lambda s: cell(s).cdf(rating), mean, variance), abs=1e-8)  # noqa: B023


@pytest.mark.parametrize("name", [*CELLS, "ordinal"])
def test_quantiles_are_where_the_distribution_function_reaches_the_level(name):
    likelihood = Ordinal() if name == "ordinal" else CELLS[name][0]
    found = likelihood.predictive(MEAN, VARIANCE)
    for level in (0.05, 0.5, 0.95):
        at = found.quantile(level)
        if found.discrete:
            assert (found.cdf(at) >= level - 1e-9).all() and (found.cdf_below(at) < level).all()
        else:
            assert (found.cdf(at - 1e-7) <= level).all() and (found.cdf(at + 1e-7) >= level).all()
    low, high = found.interval(0.9)
    if name in ("bounded", "cut", "ordinal"):
        assert float(low.min()) >= 1 and float(high.max()) <= 5


def test_an_ordinal_of_ones_own_is_summed_over_its_stars():
    found, values = Ordinal().predictive(MEAN, VARIANCE), torch.arange(1.0, 6.0, dtype=torch.float64)
    wanted = np.array(
        [
            [by_scipy(lambda s: Stars(torch.tensor(s)).probs[:, k].numpy(), m, v) for k in range(5)]  # noqa: B023
            for m, v in zip(MEAN.tolist(), VARIANCE.tolist(), strict=True)
        ]
    )
    mass = torch.stack([found.log_prob(torch.full_like(MEAN, value)).exp() for value in values.tolist()], -1)
    np.testing.assert_allclose(mass, wanted, atol=1e-9)
    mean, sd = Ordinal().predict(MEAN, VARIANCE)
    np.testing.assert_allclose(mean, wanted @ values.numpy(), atol=1e-7)
    np.testing.assert_allclose(sd**2, wanted @ values.numpy() ** 2 - (wanted @ values.numpy()) ** 2, atol=1e-6)


@pytest.mark.parametrize("likelihood", [Normal(tau=3.0), ConfidenceNormal(a=2.0)])
def test_the_closed_form_of_normals_is_the_quadrature(likelihood):
    likelihood = likelihood.double()
    confidence = likelihood.default_confidence * torch.tensor([1.0, 0.3, 2.0, 5.0], dtype=torch.float64)
    found = likelihood.predictive(MEAN, VARIANCE, confidence)
    assert isinstance(found, NormalPredictive)
    general, ratings = Predictive(likelihood, MEAN, VARIANCE, confidence), torch.tensor([0.1, 1.0, -3.0, 5.0]).double()
    for name in ("log_prob", "cdf", "pit"):
        torch.testing.assert_close(getattr(found, name)(ratings), getattr(general, name)(ratings), atol=1e-8, rtol=0)
    for level in (0.05, 0.5, 0.99):
        torch.testing.assert_close(found.quantile(level), general.quantile(level), atol=1e-8, rtol=0)
    tau = 3.0 if isinstance(likelihood, Normal) else 1.0
    by_hand = stats.norm.logpdf(ratings, MEAN, (VARIANCE + 1 / (tau * confidence)).sqrt())
    np.testing.assert_allclose(found.log_prob(ratings).detach(), by_hand, rtol=1e-6)


def test_narrow_noise_is_seen_however_wide_the_score_is():
    class Narrow(RatingLikelihood):
        class Cells(dist.Normal):  # no Normal to the package
            pass

        def cell(self, score, confidence):
            return self.Cells(score, 0.03)

    found, ratings = Narrow().predictive(MEAN, VARIANCE), MEAN + 0.7
    assert type(found) is Predictive
    sd = (VARIANCE + 0.03**2).sqrt()
    np.testing.assert_allclose(found.log_prob(ratings), stats.norm.logpdf(ratings, MEAN, sd), atol=1e-6)
    np.testing.assert_allclose(found.cdf(ratings), stats.norm.cdf(ratings, MEAN, sd), atol=1e-8)


@pytest.mark.parametrize("name", ["students", "poisson", "bernoulli", "bounded", "ordinal"])
def test_pit_values_of_draws_are_uniform(name):
    likelihood = Ordinal() if name == "ordinal" else CELLS[name][0]
    torch.manual_seed(4)
    n = 1500
    mean, variance = 0.5 * torch.randn(n, dtype=torch.float64), torch.rand(n, dtype=torch.float64) + 0.05
    score = mean + variance.sqrt() * torch.randn_like(mean)
    drawn = likelihood.cell(score, torch.ones_like(score)).sample().double()
    found = likelihood.predictive(mean, variance)
    assert stats.kstest(found.pit(drawn, seed=1), "uniform").pvalue > 1e-3
    found, drawn = likelihood.predictive(mean[:400], variance[:400]), drawn[:400]
    held = found.holds(drawn, (0.5, 0.9))
    for level, one in zip((0.5, 0.9), held, strict=True):
        low, high = found.interval(level)
        assert ((drawn >= low - 1e-9) & (drawn <= high + 1e-9)).equal(one)
        share = float(one.double().mean())
        assert share > level - 0.1 and (found.discrete or share < level + 0.1)


def test_a_rating_outside_the_support_has_no_density_and_a_known_place():
    outside = torch.tensor([0.0, 7.0, 7.0, 2.5], dtype=torch.float64)
    for likelihood in (Ordinal(), Bounded(), CutNormals()):
        found = likelihood.predictive(MEAN, VARIANCE)
        log_p, up_to = found.log_prob(outside), found.cdf(outside)
        assert (log_p[:3] == -math.inf).all() and up_to[:3].tolist() == pytest.approx([0, 1, 1])
        assert (log_p[3] == -math.inf) == isinstance(likelihood, Ordinal)


def test_a_known_score_needs_no_average():
    found = Ordinal().predictive(MEAN, torch.zeros_like(MEAN))
    np.testing.assert_allclose(found.log_prob(torch.full_like(MEAN, 2.0)).exp(), Stars(MEAN).probs[:, 1], rtol=1e-12)


def test_half_stars_are_found_and_values_that_cannot_be_are_refused_by_name():
    class _Halves(constraints.Constraint):
        is_discrete = True

        def check(self, value):
            return (value >= 0.5) & (value <= 5) & ((2 * value) % 1 == 0)

    class _Odd(constraints.Constraint):
        is_discrete = True

        def check(self, value):
            return value * math.pi == (value * math.pi).round()

    class Cells(Stars):
        support = _Halves()

        def log_prob(self, value):
            return torch.full(torch.broadcast_shapes(value.shape, self.score.shape), -math.log(10.0))

    class Strange(Cells):
        support = _Odd()

    assert points(Cells(MEAN)).tolist() == [k / 2 for k in range(1, 11)]
    assert moments(Cells(MEAN))[0].tolist() == pytest.approx([2.75] * 4)
    with pytest.raises(InputError, match="Strange"):
        points(Strange(MEAN))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.999999, 1 - 2**-53])
def test_intervals_have_ends_at_every_level_below_one(level):
    """Also where (1 + level) / 2 rounds to 1."""
    half = stats.norm.isf(0.5 * (1 - level))
    assert normal_half_width(level) == pytest.approx(half, rel=1e-12)
    found = ConfidenceNormal().predictive(MEAN, VARIANCE)
    assert isinstance(found, NormalPredictive)
    for end, sign in zip(found.interval(level), (-1, 1), strict=True):
        np.testing.assert_allclose(end, found.loc + sign * half * found.scale, rtol=1e-12)
