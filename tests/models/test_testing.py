"""The conformance kit: every likelihood of the package passes, every planted mistake is caught and named."""

import math

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import inference
from benchmarks.floors import SMALL, WORTH, drawn_from
from models.catalogue import CONTENTS
from models.contents import ContentLikelihood
from models.contents.bernoulli import Bernoulli
from models.contents.categorical import Categorical
from models.contents.making import content_class
from models.contents.multinomial import Multinomial
from models.contents.negative_binomial import NegativeBinomial
from models.contents.normal import Normal
from models.contents.poisson import Poisson
from models.contents.product import Product
from models.contents.tokens import Tokens
from models.rows import DenseRows
from models.testing import check_likelihood
from pyro_cvae.errors import InputError

ARGUMENTS = {
    "bernoulli": [{"subsample": 2}],
    "multinomial": [{"subsample": 2}],
    "negative-binomial": [{"dispersion": 0.2}, {"dispersion": 4.0, "subsample": 2}],
    "normal": [{"lambda_x": 2.5}, {"lambda_x": 0.4, "learned": True}],
    "poisson": [{"subsample": 2}],
    "product": [
        {"tags": "bernoulli"},
        {"titles": "tokens", "tags": "bernoulli", "vectors": "normal", "vectors.learned": True},
        {"a": "negative-binomial", "b": "pseudo-bernoulli"},
    ],
}
"""Arguments besides none with which the package's own are checked."""
CASES = [
    (name, arguments)
    for name in CONTENTS
    for arguments in (*(({},) if name != "product" else ()), *ARGUMENTS.get(name, []))
]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_the_packages_own_likelihoods_conform(name, arguments):
    check_likelihood(content_class(name), **arguments)


@pytest.mark.statistical
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_the_packages_own_likelihoods_conform_at_other_seeds(name, arguments, seed):
    check_likelihood(content_class(name), seed=seed, **arguments)


class Heavy(ContentLikelihood):
    """Student's t, or Laplace where there are no degrees of freedom: tails and kinks that a Normal has not."""

    param_names = ("loc",)

    def __init__(self, df: float = 0.0) -> None:
        super().__init__()
        self.df = df

    def distribution(self, **params):
        loc = params["loc"]
        return (dist.StudentT(self.df, loc, 0.8) if self.df else dist.Laplace(loc, 0.8)).to_event(1)


@pytest.mark.parametrize("df", [0.0, 5.0])
def test_densities_with_tails_or_kinks_conform(df):
    check_likelihood(Heavy, df=df)


class Shares(ContentLikelihood):
    """Numbers between 0 and 1, of which no check is stated."""

    param_names = ("logit",)

    def distribution(self, **params):
        p = torch.sigmoid(params["logit"])
        return dist.Beta(4 * p, 4 * (1 - p)).to_event(1)


class Near(ContentLikelihood):
    """Uniform around a mean, with which the support moves."""

    param_names = ("mean",)

    def distribution(self, **params):
        return dist.Uniform(params["mean"] - 1, params["mean"] + 1).to_event(1)


@pytest.mark.parametrize("wrong", [-0.25, 1.5, float("nan")])
def test_what_a_distribution_cannot_draw_is_refused_without_a_check_of_ones_own(wrong):
    good = torch.full((3, 4), 0.5)
    Shares().check(DenseRows(good))
    bad = good.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(wrong))
    with pytest.raises(InputError, match=f"Shares content cannot hold a {wrong:g}"):
        Shares().check(DenseRows(bad))
    Near().check(DenseRows(9 * good))


def test_nothing_is_left_of_a_check():
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_likelihood(Poisson)
    with pytest.raises(AssertionError):
        check_likelihood(ForgottenFactorial)
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), before)


# --- planted mistakes ------------------------------------------------------------------------------------------------


class ForgottenFactorial(Poisson):
    """log x! is missing."""

    def log_prob(self, obs, params):
        return super().log_prob(obs, params).index_add(0, obs.rows, torch.lgamma(obs.values + 1))


class ForgottenTwice(ForgottenFactorial):
    """It is missing in the dense distribution too, so that the two agree."""

    def distribution(self, **params):
        class Unnormalised(dist.Poisson):
            def log_prob(self, value):
                return super().log_prob(value) + torch.lgamma(value + 1)

            def expand(self, batch_shape, _instance=None):
                return Unnormalised(self.rate.expand(batch_shape))

        return dist.Independent(Unnormalised(params["log_rate"].exp()), 1)


class ForgottenTwoPi(Normal):
    """The constant of a Normal is missing in both."""

    def log_prob(self, obs, params):
        return super().log_prob(obs, params) + 0.5 * obs.n_columns * math.log(2 * math.pi)

    def distribution(self, **params):
        class Unnormalised(dist.Normal):
            def log_prob(self, value):
                return super().log_prob(value) + 0.5 * math.log(2 * math.pi)

        return dist.Independent(Unnormalised(params["loc"], 1.0), 1)


class WithoutZeros(Bernoulli):
    """Only the words present are scored."""

    def log_prob(self, obs, params):
        at = nn.functional.logsigmoid(params["logits"][obs.rows, obs.columns])
        return torch.zeros(len(obs)).to(at).index_add(0, obs.rows, at)


class TakesAnything(Poisson):
    """No check of the support."""

    def check(self, obs):
        pass


class TakesEmptyRows(Categorical):
    """Says by its distribution that a category is always there, by its check that it may be missing."""

    def distribution(self, **params):
        return dist.OneHotCategorical(logits=params["logits"])


class RefusesItsOwn(Poisson):
    """Counts that are checked as if they were binary."""

    check = Bernoulli.check


class ChecksWithValueError(Poisson):
    """An error of another kind."""

    def check(self, obs):
        if bool((obs.values < 0).any()):
            raise ValueError("negative")


class MixesItems(Poisson):
    """The rates are normalised over the plate."""

    def log_prob(self, obs, params):
        log_rate = params["log_rate"]
        return super().log_prob(obs, {"log_rate": log_rate - log_rate.mean(0)})


class Broadcasts(NegativeBinomial):
    """A vector over items meets a matrix of items x features without its last dimension."""

    def log_prob(self, obs, params):
        return super().log_prob(obs, params)[:, None] + torch.zeros(len(obs)).to(params["log_mean"])


class NoLastDimension(Poisson):
    """A vector over items is put beside the features."""

    def distribution(self, **params):
        log_rate = params["log_rate"]
        return dist.Poisson((log_rate - log_rate.mean(-1)).exp()).to_event(1)


class LengthOfTheBatch(Poisson):
    """The rates are shared out by the length of all texts of the minibatch."""

    def log_prob(self, obs, params):
        return super().log_prob(obs, {"log_rate": params["log_rate"] + obs.totals.sum().log()})


class OneNumber(Poisson):
    """The sum over the plate."""

    def log_prob(self, obs, params):
        return super().log_prob(obs, params).sum()


class NoEvent(Poisson):
    """Features are taken for a batch."""

    def distribution(self, **params):
        return dist.Poisson(params["log_rate"].exp())


class AnotherName(Poisson):
    """A head that nobody reads."""

    param_names = ("log_mean",)


class Detached(Poisson):
    """The network learns nothing."""

    def log_prob(self, obs, params):
        return super().log_prob(obs, {"log_rate": params["log_rate"].detach()})


class UnusedHead(Poisson):
    """One head too many."""

    param_names = ("log_rate", "gate")


class UnusedParameter(Poisson):
    """A parameter of its own that has no part in the density."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class PlainTensor(Normal):
    """Something learned that no optimiser sees and no run keeps."""

    def __init__(self):
        super().__init__()
        self.offset = torch.zeros((), requires_grad=True)


class HeldInARandomState(Normal):
    """What is drawn in the constructor is lost with it."""

    def __init__(self):
        super().__init__(lambda_x=float(torch.rand(()).item() + 0.5))


class WrongGradient(Poisson):
    """The value is right, its gradient is not."""

    def log_prob(self, obs, params):
        found = super().log_prob(obs, params)
        return found.detach() + 2 * (found - found.detach())


class DrawsTooMuch(Poisson):
    """Draws of another rate than that of the density."""

    def sample(self, params, like):
        return super().sample({"log_rate": params["log_rate"] + 0.05}, like)


class DrawsFromNeighbours(Bernoulli):
    """The rows of a draw belong to other items."""

    def sample(self, params, like):
        return super().sample({"logits": params["logits"].roll(1, 0)}, like)


class DrawsDense(Poisson):
    """A draw of another type."""

    def sample(self, params, like):
        return self.distribution(**params).sample()


class Unweighted(Poisson):
    """Drawn features stand for themselves only."""

    def log_prob_sampled(self, obs, stored, drawn, n_features):
        return super().log_prob_sampled(obs, stored, drawn, drawn["log_rate"].shape[1])


class CallsItselfUnbiased(Multinomial):
    """The log of an unbiased estimate is none."""

    unbiased = True


class OnlyDouble(Poisson):
    """A type that is not that of the parameters."""

    def log_prob(self, obs, params):
        return super().log_prob(obs, params).double()


class BiasOfNobody(Poisson):
    """A start for a head that is not there."""

    def initial_bias(self, mean):
        return {"logits": mean}


class WithoutEnd(Tokens):
    """The end is not scored, so that lengths have no probability."""

    def log_prob(self, obs, params):
        ended = obs.ended()
        at = params["logits"].log_softmax(-1).gather(-1, ended.tokens[:, None]).squeeze(-1)
        at = torch.where(ended.tokens == obs.n_tokens, 0.0, at)
        return at.new_zeros(len(obs)).index_add(0, ended.rows, at)


class OnePlaceOff(Tokens):
    """Each token is scored by the parameters of the place behind it."""

    def log_prob(self, obs, params):
        return super().log_prob(obs, {"logits": params["logits"].roll(-1, 0)})


class UnnormalisedTokens(Tokens):
    """Logits are taken for logarithms of probabilities, in both."""

    def log_prob(self, obs, params):
        ended = obs.ended()
        at = params["logits"].gather(-1, ended.tokens[:, None]).squeeze(-1)
        return at.new_zeros(len(obs)).index_add(0, ended.rows, at)

    def distribution(self, **params):
        class Raw(dist.Categorical):
            def log_prob(self, value):
                return params["logits"].gather(-1, value[:, None]).squeeze(-1)

        return Raw(logits=params["logits"])


class DrawsTooOften(Tokens):
    """Draws of another temperature than the density."""

    def draw_next(self, params):
        return super().draw_next({"logits": 1.3 * params["logits"]})


class CountsMissingParts(Product):
    """A part that is not there is scored as if it were the mean of the others."""

    def log_prob(self, obs, params):
        found = super().log_prob(obs, params)
        return torch.where(found == 0, found.mean(), found)


class ForgetsAPart(Product):
    """Only the first part is scored."""

    def log_prob(self, obs, params):
        name, part = self.each()[0]
        own = {key.removeprefix(f"{name}."): value for key, value in params.items() if key.startswith(f"{name}.")}
        found = part.log_prob(obs.parts[name], own)
        return found.new_zeros(len(obs)).index_add(0, obs.items(name), found)


TWO = {"tags": "bernoulli", "titles": "tokens"}
OF_PARTS = {CountsMissingParts: TWO, ForgetsAPart: TWO}
"""Arguments of the planted mistakes that have some."""
MISTAKES = {
    WithoutEnd: "log_prob is not the sum over tokens, and the end, of distribution's log_prob",
    OnePlaceOff: "log_prob of a minibatch of 1 is not that of the same items",
    UnnormalisedTokens: r"p\(x\) sums to .* over all sequences, not to 1; add the normaliser",
    DrawsTooOften: "the frequencies of 20000 drawn sequences are .* standard errors off .* let draw_next draw from",
    CountsMissingParts: "log_prob of a minibatch of 1 is not that of the same items",
    ForgetsAPart: "log_prob is not the sum over the parts that are there",
    ForgottenFactorial: "log_prob is not distribution's log_prob .* a term of the normaliser .* may be forgotten",
    ForgottenTwice: r"p\(x\) sums to .* over its support, not to 1; add the normaliser",
    ForgottenTwoPi: r"p\(x\) sums to 6\.28319 over its support, not to 1; add the normaliser",
    WithoutZeros: "log_prob is not distribution's log_prob .* or the zeros of a sparse row",
    TakesAnything: r"check accepts a row of signs \(.*\), which is outside the support of distribution; raise",
    TakesEmptyRows: r"check accepts an empty row \(.*\), which is outside the support",
    RefusesItsOwn: "check refuses what sample draws; let check take exactly the support",
    ChecksWithValueError: r"check raises ValueError \(negative\); raise pyro_cvae.errors.InputError",
    MixesItems: "log_prob of a minibatch of 1 is not that of the same items .* must not depend on the others",
    Broadcasts: r"log_prob has shape \(7, 7\) for 7 items, not \(7,\); sum over the features of each item",
    NoLastDimension: "distribution fails on parameters of 7 items .* work for any number of items",
    LengthOfTheBatch: "log_prob of a minibatch of 1 is not that of the same items among all 7",
    OneNumber: r"log_prob has shape \(\) for 7 items",
    NoEvent: r"batch and event shapes \(7, 5\) and \(\), not \(7,\) and \(5,\) .* end with .to_event\(1\)",
    AnotherName: "distribution fails on the heads log_mean .* take exactly the names of param_names",
    Detached: "no gradient leaves log_prob; compute with tensors only",
    UnusedHead: "no gradient reaches the head 'gate'",
    UnusedParameter: "no gradient reaches its parameter scale; use it in log_prob",
    PlainTensor: "offset is a plain tensor, which no optimiser and no run knows; make it an nn.Parameter",
    HeldInARandomState: "arguments, parameters and buffers is another; keep what is learned in nn.Parameter",
    WrongGradient: "the gradient of log_prob is not distribution's",
    DrawsTooMuch: "the mean of 20000 draws of sample is .* standard errors off that of distribution",
    DrawsFromNeighbours: "of 20000 draws of sample is .* draw each row of sample from its own parameters",
    DrawsDense: r"sample gives \(7, 5\) where SparseRows of \(7, 5\) are due",
    Unweighted: "the mean of log_prob_sampled over all subsets of 1 features is not log_prob .* weigh what is summed",
    CallsItselfUnbiased: "over all subsets of 1 features is not log_prob .* or set unbiased = False",
    OnlyDouble: "log_prob of float32 parameters has the type torch.float64",
    BiasOfNobody: "initial_bias names 'logits'",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda cls: cls.__name__)
def test_a_planted_mistake_is_named_with_its_remedy(mistake):
    with pytest.raises(AssertionError, match=f"^{mistake.__name__}: .*{MISTAKES[mistake]}"):
        check_likelihood(mistake, **OF_PARTS.get(mistake, {}))


@pytest.mark.parametrize(
    ("cls", "arguments", "words"),
    [
        (nn.Linear, {}, "derive it from ContentLikelihood"),
        (ContentLikelihood, {}, "define all abstract methods"),
        (Poisson, {"rate": 3}, "give the constructor's arguments"),
    ],
)
def test_what_is_no_likelihood_or_cannot_be_built(cls, arguments, words):
    with pytest.raises(AssertionError, match=words):
        check_likelihood(cls, **arguments)


# --- fits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", WORTH)
def test_a_fit_of_contents_drawn_from_it_learns_them(case):
    """That held-out items rank by them is asked of several seeds in tests/test_floors.py."""
    arguments, options, _ = WORTH[case]
    chosen = SMALL | {"mode": "map", "pretrain_epochs": 12, "epochs": 1} | options
    name = case.split()[0]
    fit = inference.fit(drawn_from(name), content_likelihood=name, content_likelihood_args=arguments, **chosen)
    content = [row["content"] - row["kl_z"] for row in fit.history if row["phase"] == "content"]
    assert np.mean(content[-3:]) > np.mean(content[:3])
