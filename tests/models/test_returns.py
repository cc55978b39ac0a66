"""What a plug-in's methods give is looked at before a fit: the method is named, not the line that stumbles over it."""

import re
from dataclasses import replace

import pyro.distributions as dist
import pytest
import torch

import inference
from models.build import make_model
from models.contents.making import content_class
from models.contents.multinomial import Multinomial
from models.contents.poisson import Poisson
from models.contents.product import Product
from models.networks import making
from models.networks.mlp_pair import MLPPair
from models.observations import Form, Observations
from models.pmf import PMF
from models.priors import NormalPrior
from models.ratings import GaussianSite
from models.returns import check_ratings, check_returns, prior_given
from models.rows import PartRows
from models.testing_networks import FORMS, LIKELIHOODS, rows_of
from pyro_cvae.data.simulated import simulated_gaussian, simulated_stars
from pyro_cvae.errors import InputError
from tests.models.plugged_ratings import OwnBound, OwnNoise, OwnZeros
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, N_WORDS, ToyOptions, toy_columns, toy_observations

NAN = float("nan")


def giving(cls, method, what):
    """A class that derives from another, and gives what ``what`` says, of what that one gives."""

    def own(self, *args, **more):
        return what(getattr(super(made, self), method)(*args, **more))

    made = type("Wrong", (cls,), {method: own, "__module__": __name__})
    return made


def said(method, problem):
    return rf"^{re.escape(__name__)}\.Wrong\.{method} gives {problem}; "


RATINGS = [
    ("cell", lambda found: None, "None"),
    ("cell", lambda found: found.mean, r"a tensor of shape \(5,\)"),
    ("cell", lambda found: dist.Normal(found.mean.sum(), 1.0), r"a Normal of batch shape \(\) and event shape \(\)"),
    ("cell", lambda found: found.to_event(1), r"a Independent of batch shape \(\) and event shape \(5,\)"),
    ("log_prob", lambda found: found.sum(), r"a tensor of shape \(\)"),
    ("log_prob", lambda found: found * NAN, "nan"),
    ("distribution", lambda found: None, "None"),
    ("distribution", lambda found: dist.Normal(torch.zeros(3, N_USERS), 1.0), r"a Normal of batch .* \(3, 7\) .*"),
    ("expected_log_prob", lambda found: None, "None"),
    ("expected_log_prob", lambda found: found.sum(), r"a tensor of shape \(\)"),
    ("expected_log_prob", lambda found: found * NAN, "nan"),
    ("constant", lambda found: found.sum(), r"a tensor of shape \(\)"),
    ("site", lambda found: None, "None"),
    ("site", lambda found: GaussianSite(found.precision[1:], found.shift, 0.0), r"a tensor of shape \(\d+,\)"),
    ("site", lambda found: GaussianSite(found.precision, found.shift * NAN, 0.0), "nan"),
    ("site", lambda found: GaussianSite(-found.precision, found.shift, 0.0), "a precision below 0"),
    ("predict", lambda found: found[0], r"a tensor of shape \(\d+,\)"),
    ("predict", lambda found: (found[0].sum(), found[1]), r"a tensor of shape \(\)"),
    ("predict", lambda found: (found[0] * NAN, found[1]), "nan"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "what", "problem"), RATINGS)
def test_a_likelihood_of_ratings_is_told_which_method_is_wrong(method, what, problem):
    columns = toy_observations().columns
    check_ratings(giving(OwnNoise, method, lambda found: found)(), columns)  # which is right
    with pytest.raises(InputError, match=said(method, problem)):
        check_ratings(giving(OwnNoise, method, what)(), columns)


@pytest.mark.parametrize("cls", [OwnBound, OwnNoise, OwnZeros])
def test_right_ones_are_let_through(cls):
    likelihood = cls()
    likelihood.prepare(N_USERS)
    before = torch.random.get_rng_state()
    check_ratings(likelihood, toy_observations().columns)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_support_that_moves_with_the_score_leaves_ratings_out():
    class Around(OwnNoise):
        conjugate = explicit = False

        def cell(self, score, confidence):
            return dist.Uniform(score - 0.1, score + 0.1)

    check_ratings(Around(), toy_observations().columns)


class Learning(OwnNoise):
    """Its noise is where ``to`` puts it."""

    to = NAN

    def learn(self, mean_square):
        with torch.no_grad():
            self.log_tau.fill_(self.to)


class Coming(Learning):
    to = 0.5


def test_what_learns_nan_is_named():
    """It was told as a precision of the closed form that is not positive definite."""
    data = simulated_stars(n_users=30, n_items=20)
    how = {"method": "coordinate", "model": "pmf", "factors": 2, "threads": 1}
    inference.fit(data, rating_likelihood=f"{__name__}.Coming", **how)
    with pytest.raises(InputError, match=rf"^{re.escape(__name__)}\.Learning\.learn leaves log_tau at nan; "):
        inference.fit(data, rating_likelihood=f"{__name__}.Learning", **how)


PRIORS = [
    ("above", lambda found: None, "None"),
    ("above", lambda found: [1], "a list of 1"),
    ("prior_of_users", lambda found: None, "None"),
    ("prior_of_users", lambda found: found.loc, r"a tensor of shape \(\d+,\)"),
    ("prior_of_users", lambda found: replace(found, loc=torch.zeros(3, 7)), r"a tensor of shape \(3, 7\)"),
    ("prior_of_users", lambda found: replace(found, loc=found.loc * NAN), "nan"),
    ("prior_of_items", lambda found: None, "None"),
    ("prior_of_items", lambda found: replace(found, loc=found.loc[1:]), r"a tensor of shape \(\d+, \d+\)"),
]


@pytest.mark.parametrize(("method", "what", "problem"), PRIORS)
def test_a_model_is_told_which_prior_is_wrong(method, what, problem):
    check_returns(model_of(giving(PMF, method, lambda found: found)), toy_observations())
    with pytest.raises(InputError, match=said(method, problem)):
        check_returns(model_of(giving(PMF, method, what)), toy_observations())


def model_of(cls=None, likelihood=None):
    torch.manual_seed(0)
    return make_model(N_USERS, N_ITEMS, N_WORDS, likelihood or Multinomial(), ToyOptions(), cls).double()


NETWORKS = [
    ("encoder", "forward", lambda found: None, "None"),
    ("encoder", "forward", lambda found: tuple(part[:, 1:] for part in found), r"a tensor of shape \(3, 2\)"),
    ("encoder", "forward", lambda found: (found[0] * NAN, found[1]), "nan"),
    ("encoder", "forward", lambda found: (found[0], -found[1]), "a standard deviation below 0"),
    ("decoder", "forward", lambda found: None, "None"),
    ("decoder", "forward", lambda found: found["logits"], r"a tensor of shape \(3, 12\)"),
    ("decoder", "forward", lambda found: {"rate": found["logits"]}, "a dictionary of rate"),
    ("decoder", "forward", lambda found: {"logits": found["logits"][:, 1:]}, r"a tensor of shape \(3, 11\)"),
    ("content", "log_prob", lambda found: found.sum(), r"a tensor of shape \(\)"),
    ("content", "log_prob", lambda found: found * NAN, "nan"),
    ("content", "initial_bias", lambda found: None, "None"),
    ("content", "initial_bias", lambda found: {"rate": found["logits"]}, "a dictionary of rate"),
    ("content", "initial_bias", lambda found: {"logits": found["logits"][1:]}, r"a tensor of shape \(11,\)"),
]


@pytest.mark.parametrize(("part", "method", "what", "problem"), NETWORKS)
def test_networks_and_likelihoods_of_content_are_told_which_method_is_wrong(part, method, what, problem):
    model = model_of()
    owner = getattr(model.item_prior, part)
    own, owner.__class__ = type(owner), giving(type(owner), method, lambda found: found)
    check_returns(model, toy_observations())
    owner.__class__ = giving(own, method, what)
    with pytest.raises(InputError, match=said(method, problem)):
        check_returns(model, toy_observations())
    assert model.training


def of_kinds(*kinds):
    """A model of contents of these kinds and what it is conditioned on; of several, items lack some of them."""
    torch.manual_seed(0)
    rows, parts = {kind: rows_of(kind) for kind in kinds}, {kind: content_class(LIKELIHOODS[kind])() for kind in kinds}
    content, form, likelihood = rows[kinds[0]], FORMS[kinds[0]], parts[kinds[0]]
    columns = toy_columns().select(torch.arange(len(content)))
    if len(kinds) > 1:
        there = torch.arange(len(content)) % 2 == 0
        present = {kind: there if place else ~there for place, kind in enumerate(kinds)}
        rows = {kind: part.select(present[kind].nonzero().flatten()) for kind, part in rows.items()}
        content, form, likelihood = PartRows(rows, present), {kind: FORMS[kind] for kind in kinds}, Product(**parts)
    options = ToyOptions(activation="tanh", tied=False)
    model = make_model(N_USERS, len(content), form, likelihood, options).double()
    return model, Observations(content, content, columns)


def pieces_of(model, kind):
    """Encoder, decoder and likelihood of one of its contents."""
    prior = model.item_prior
    if isinstance(prior.content, Product):
        return prior.encoder.experts[kind], prior.decoder.part(kind), dict(prior.content.each())[kind]
    return prior.encoder, prior.decoder, prior.content


def short(found):
    """Without the last feature of the first head, or the last factor of the means."""
    if isinstance(found, dict):
        return {name: value[:, 1:] for name, value in found.items()}
    return (found[0][:, 1:], found[1])


@pytest.mark.parametrize(
    "kinds", [*((kind,) for kind in FORMS), *((kind, "words") for kind in FORMS if kind != "words")]
)
@pytest.mark.parametrize("piece", [0, 1, 2])
def test_every_kind_of_content_is_asked_alone_and_among_several(kinds, piece):
    """A decoder of tokens, and all networks of several contents, were not: what they did wrong was a traceback."""
    model, observations = of_kinds(*kinds)
    owner, method = pieces_of(model, kinds[0])[piece], ("forward", "given", "log_prob")[piece]
    own, owner.__class__ = type(owner), giving(type(owner), method, lambda found: found)
    check_returns(model, observations)
    owner.__class__ = giving(own, method, (short, short, lambda found: found.sum())[piece])
    named = "forward" if (piece, kinds[0] == "tokens") == (1, False) else method
    with pytest.raises(InputError, match=rf"\.{named} gives a tensor of shape "):
        check_returns(model, observations)


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        (lambda params: None, "None"),
        (lambda params: dist.Poisson(params["log_rate"].exp()), r"a Poisson of batch shape \(3, 12\) and .*"),
        (lambda params: dist.Poisson(params["log_rate"][:, 1:].exp()).to_event(1), r"a Independent of .* \(11,\)"),
    ],
)
def test_a_distribution_of_content_is_one_of_rows(what, problem):
    class Wrong(Poisson):
        def distribution(self, **params):
            return what(params)

    Wrong.__qualname__ = "Wrong"
    with pytest.raises(InputError, match=said("distribution", problem)):
        check_returns(model_of(likelihood=Wrong()), toy_observations())


@pytest.mark.parametrize("what", [lambda found: None, lambda found: found[0], lambda found: found[::-1]])
def test_a_pair_makes_an_encoder_and_a_decoder(what, monkeypatch):
    wrong = giving(MLPPair, "make", what)
    monkeypatch.setattr(making, "made", lambda *asked: wrong())
    with pytest.raises(InputError, match=said("make", ".*") + "let it give an Encoder and a Decoder"):
        making.make_networks(Form("words", (N_WORDS,)), Multinomial(), ToyOptions(network="mlp"))


def test_priors_of_somebody_new_are_looked_at_too():
    model = model_of(giving(PMF, "prior_of_new_users", lambda found: found))
    with pytest.raises(InputError, match=said("prior_of_new_users", r"a tensor of shape \(2, 9\)")):
        prior_given(model, "prior_of_new_users", NormalPrior(torch.zeros(2, 9), 1.0), 2)
    assert prior_given(model, "prior_of_new_users", NormalPrior(torch.zeros(2, N_FACTORS), 1.0), 2).precision == 1


class OneMean(PMF):
    """Means of another shape, which would be spread over all factors."""

    def prior_of_users(self, above):
        return replace(super().prior_of_users(above), loc=torch.zeros(self.n_users, 1))


@pytest.mark.parametrize("method", ["svi", "coordinate", "mcmc"])
def test_every_fit_asks_before_it_begins(method):
    data = simulated_gaussian(n_users=8, n_items=9, n_words=12, n_factors=3)
    with pytest.raises(InputError, match=r"OneMean\.prior_of_users gives a tensor of shape \(8, 1\)"):
        inference.fit(data, method=method, model=f"{__name__}.OneMean", factors=2, threads=1)


class ThreeNumbers(OwnNoise):
    """What it gives after a sweep is asked for after the sweep."""

    def after_sweep(self, columns, scores):
        return torch.zeros(3)


class NoStart(OwnNoise):
    """The items' biases start nowhere."""

    def initial_mean(self, columns):
        return NAN


class OneUnit(OwnNoise):
    """Two are asked for."""

    def units(self, columns):
        return 1.0


@pytest.mark.parametrize(
    ("cls", "problem"),
    [
        ("NoStart", "initial_mean gives nan; let it give a finite number"),
        ("OneUnit", "units gives a float; let it give 2 numbers"),
        ("ThreeNumbers", r"after_sweep gives a tensor of shape \(3,\); let it give one number"),
    ],
)
def test_so_is_what_a_fit_asks_on_its_way(cls, problem):
    data = simulated_stars(n_users=8, n_items=9, n_words=12, n_factors=3)
    with pytest.raises(InputError, match=rf"{cls}\.{problem}"):
        inference.fit(
            data, method="coordinate", model="pmf", rating_likelihood=f"{__name__}.{cls}", factors=2, threads=1
        )
