"""The conformance kit for ratings: the package's own classes pass, and each planted mistake is named."""

import importlib
import inspect
import pkgutil
from dataclasses import replace

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models.ratings
from models.catalogue import RATINGS
from models.observations import RatingColumns
from models.ratings import CellColumns, GaussianSite, RatingLikelihood
from models.ratings.bernoulli import Bernoulli, BernoulliBound
from models.ratings.confidence_normal import ConfidenceNormal, NormalColumns
from models.ratings.normal import Normal
from models.ratings.poisson import Poisson
from models.testing import check_rating_likelihood
from pyro_cvae.errors import InputError
from tests.models.own_ratings import Around, Kinked, Unchecked

OWN = [
    (ConfidenceNormal, {}),
    (ConfidenceNormal, {"a": 2.0, "b": 0.0}),
    (ConfidenceNormal, {"b": 0.3, "b_power": 0.7}),
    (Normal, {"tau": 2.0}),
    (Normal, {"learned": False}),
    (Bernoulli, {}),
    (Bernoulli, {"zeros": False}),
    (BernoulliBound, {}),
    (BernoulliBound, {"zeros": False}),
    (Poisson, {}),
    (Poisson, {"zeros": False, "subsample": 0}),
]
"""Every ratings likelihood of the package, with arguments."""


@pytest.mark.parametrize(("likelihood", "arguments"), OWN)
def test_the_packages_own_pass(likelihood, arguments):
    check_rating_likelihood(likelihood, **arguments)


@pytest.mark.statistical
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize(("likelihood", "arguments"), OWN)
def test_the_packages_own_pass_at_other_seeds(likelihood, arguments, seed):
    check_rating_likelihood(likelihood, seed=seed, **arguments)


@pytest.mark.parametrize(("likelihood", "arguments"), [(Unchecked, {}), (Kinked, {}), (Kinked, {"asymmetry": 3.0})])
def test_a_stranger_that_states_its_cell_alone_passes(likelihood, arguments):
    check_rating_likelihood(likelihood, **arguments)


def columns_of(ratings):
    n = len(ratings)
    observed, confidences = torch.ones(1, dtype=torch.bool), torch.ones(n)
    return RatingColumns(torch.tensor([0, n]), torch.arange(n), torch.tensor(ratings), confidences, observed, n)


@pytest.mark.parametrize("wrong", [-1.0, 2.5, float("nan"), float("inf")])
def test_what_a_cell_cannot_draw_is_refused_without_a_check_of_ones_own(wrong):
    Unchecked().check(columns_of([0.0, 3.0]))
    with pytest.raises(InputError, match="Unchecked ratings must be what its cell can draw"):
        Unchecked().check(columns_of([0.0, wrong, 3.0]))


def test_a_support_that_moves_with_the_score_lets_any_rating_in():
    Around().check(columns_of([0.0, 30.0]))


def test_all_of_the_package_are_enrolled_and_named():
    found = set()
    for module in pkgutil.iter_modules(models.ratings.__path__, "models.ratings."):
        for _, one in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(one, RatingLikelihood) and one is not RatingLikelihood:
                found.add(f"{one.__module__}:{one.__qualname__}")
    enrolled = {f"{one.__module__}:{one.__qualname__}" for one, _ in OWN}
    assert found == enrolled == {facts.path for facts in RATINGS.values()}


class Counts(Poisson):
    """The Poisson in its shortest form, which others below break."""

    log_prob = RatingLikelihood.log_prob


class NoNormaliser(Poisson):
    def log_prob(self, score, ratings, confidence):
        return ratings * score - score.exp()


class HalfUnnormalised(RatingLikelihood):
    class Cells(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value) + 0.3

    def cell(self, score, confidence):
        return self.Cells(score, confidence.rsqrt())


class EventCells(Counts):
    def cell(self, score, confidence):
        return dist.Poisson(score.exp()).to_event(1)


class OnlyFlat(Counts):
    def cell(self, score, confidence):
        return dist.Poisson(score.exp() * torch.ones(5))


class AnythingGoes(Bernoulli):
    def check(self, columns):
        pass


class RefusesItsOwn(Poisson):
    def check(self, columns):
        if bool((columns.ratings > 0).any()):
            raise InputError("no", "no")


class LooksAtMissing(Bernoulli):
    def check(self, columns):
        if not bool(((columns.ratings == 0) | (columns.ratings == 1)).all()):
            raise InputError("ratings must be 0 or 1", "use others")


class CheckRaises(Bernoulli):
    def check(self, columns):
        raise ValueError("boom")


class _Broken(CellColumns):
    def log_prob(self, value):
        return self.change(super().log_prob(value), value)


class ForgetsMissing(Bernoulli):
    def distribution(self, u, v, columns):
        class Columns(_Broken):
            def change(self, found, value):
                score = (self.u[value.users] * self.v[value.items]).sum(-1)
                missing = (value.confidences == 0).to(score.dtype)
                return found.index_add(0, value.items, -missing * F.softplus(score))

        return Columns(self, u, v, columns)


class CountsItemsWithoutAColumn(Bernoulli):
    def distribution(self, u, v, columns):
        class Columns(_Broken):
            def change(self, found, value):
                return found + (~value.observed).to(found.dtype)

        return Columns(self, u, v, columns)


class ForgetsZeros(Bernoulli):
    def distribution(self, u, v, columns):
        class Columns(CellColumns):
            def _zeros(self, background):
                return 0.5 * super()._zeros(background)

        return Columns(self, u, v, columns)


class DetachedUsers(Bernoulli):
    def distribution(self, u, v, columns):
        return CellColumns(self, u.detach() + 0 * u, v, columns)


class MeansOverItems(Bernoulli):
    def distribution(self, u, v, columns):
        class Columns(_Broken):
            def change(self, found, value):
                return found - 1e-3 * (self.v - self.v.mean(0)).square().sum(-1) * (len(self.v) < 7)

        return Columns(self, u, v, columns)


class ScalesByItself(Poisson):
    def distribution(self, u, v, columns):
        class Columns(_Broken):
            def change(self, found, value):
                return found * 7 / len(self.v)

        return Columns(self, u, v, columns)


class BiasedZeros(Poisson):
    def distribution(self, u, v, columns):
        class Columns(CellColumns):
            def _zeros(self, background):
                whole = super()._zeros(background)
                return whole * (self.likelihood.subsample / len(self.u) if self.likelihood.training else 1)

        return Columns(self, u, v, columns)


class DrawsWithoutConfidence(ConfidenceNormal):
    def distribution(self, u, v, columns):
        class Columns(NormalColumns):
            def sample(self, sample_shape=()):
                drawn = super().sample(sample_shape)
                mean = (self.v[drawn.items] * self.u[drawn.users]).sum(-1)
                ratings = torch.where(drawn.confidences > 0, mean + torch.randn_like(mean), 0.0)
                drawn.ratings.copy_(ratings)
                return drawn

        return Columns(u, v, columns, self.b)


class ForgetsVariances(ConfidenceNormal):
    def expected_log_prob(self, moments, columns):
        return -self.distribution(moments.u, moments.v, columns).half_square(columns)


class NoConstant(ConfidenceNormal):
    def constant(self, columns):
        return super().constant(columns) * 0


class BoundAbove(BernoulliBound):
    def expected_log_prob(self, moments, columns):
        return super().expected_log_prob(moments, columns) + 3.0 * columns.observed


class BoundSaidToBeExact(BernoulliBound):
    exact = True


class HalfThePrecision(ConfidenceNormal):
    def site(self, columns, second=None):
        site = super().site(columns, second)
        return GaussianSite(site.precision / 2, site.shift, site.zero_precision)


class ZerosWithoutShift(BernoulliBound):
    def site(self, columns, second=None):
        site = super().site(columns, second)
        return GaussianSite(site.precision, site.shift, site.zero_precision, 0.0)


class ConjugateWithoutSite(Bernoulli):
    conjugate = True


class NoiselessPredictions(Normal):
    def predict(self, mean, variance):
        return mean, variance.sqrt()


class PlainTensor(Counts):
    def __init__(self):
        super().__init__()
        self.rate = torch.zeros((), requires_grad=True)

    def cell(self, score, confidence):
        return dist.Poisson((score + self.rate).exp())


class UnusedParameter(Poisson):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))


class DrawnInTheConstructor(Counts):
    def __init__(self):
        super().__init__()
        self.shift = float(torch.randn(()))

    def cell(self, score, confidence):
        return dist.Poisson((score + self.shift).exp())


class DoubleInside(Poisson):
    def distribution(self, u, v, columns):
        return CellColumns(self, u.double(), v.double(), columns)


class Popular(ConfidenceNormal):
    def __init__(self):
        super().__init__(1.0, 0.3, b_power=0.7)


class SiteWithoutWeights(Popular):
    def site(self, columns, second=None):
        return super().site(replace(columns, zero_weights=None), second)


class ColumnsWithoutWeights(Popular):
    def distribution(self, u, v, columns):
        class Columns(NormalColumns):
            def log_prob(self, value):
                return super().log_prob(replace(value, zero_weights=None))

        return Columns(u, v, columns, self.b)


MISTAKES = [
    (SiteWithoutWeights, "not that of site's Gaussian"),
    (ColumnsWithoutWeights, "not the product of their cells"),
    (int, "no class of ratings likelihoods"),
    (NoNormaliser, "log_prob is not that of cell"),
    (HalfUnnormalised, "sums to 1.34"),
    (EventCells, "batch and event shapes"),
    (OnlyFlat, "cell fails on scores of shape"),
    (AnythingGoes, "takes a rating of -1"),
    (RefusesItsOwn, "check refuses what cell draws"),
    (LooksAtMissing, "refuses a missing cell"),
    (CheckRaises, "check raises ValueError"),
    (ForgetsMissing, "not the product of their cells"),
    (CountsItemsWithoutAColumn, "not the product of their cells"),
    (ForgetsZeros, "not the product of their cells"),
    (DetachedUsers, "the gradient of log p of the columns"),
    (MeansOverItems, "have another log p than within all items"),
    (ScalesByItself, "have another log p than within all items"),
    (BiasedZeros, "over all subsets of 2 users"),
    (DrawsWithoutConfidence, "drawn columns is"),
    (ForgetsVariances, "standard errors off the mean over draws"),
    (NoConstant, "at points expected_log_prob is not log p"),
    (BoundAbove, "at points the bound is above log p"),
    (BoundSaidToBeExact, "at points expected_log_prob is not log p"),
    (HalfThePrecision, "not that of site's Gaussian"),
    (ZerosWithoutShift, "not that of site's Gaussian"),
    (ConjugateWithoutSite, "conjugate without expected_log_prob"),
    (NoiselessPredictions, "the variance that predict gives"),
    (PlainTensor, "rate is a plain tensor"),
    (UnusedParameter, "no gradient reaches its parameter shift"),
    (DrawnInTheConstructor, "is another"),
    (DoubleInside, "log p of float32 factors has the type"),
]


@pytest.mark.parametrize(("likelihood", "says"), MISTAKES, ids=[one.__name__ for one, _ in MISTAKES])
def test_planted_mistakes_are_named(likelihood, says):
    with pytest.raises(AssertionError, match=says):
        check_rating_likelihood(likelihood)


def test_the_shortest_likelihood_passes():
    check_rating_likelihood(Counts)
