"""Content likelihoods: the sparse formula against torch's dense distributions, values and gradients."""

import pytest
import torch

from models.build import content_likelihood
from models.contents import NAMES, ContentLikelihood
from models.observations import SparseRows
from pyro_cvae.errors import InputError


def content(name, n_items=5, n_words=8):
    torch.manual_seed(1)
    counts = torch.poisson(torch.full((n_items, n_words), 0.7, dtype=torch.float64))
    counts[3] = 0
    scaled = {"bernoulli": counts.clamp(max=1), "pseudo-bernoulli": counts / counts.max(), "normal": counts - 0.5}
    return scaled.get(name, counts)


def reference(name, likelihood, param, x):
    """log p(x | param) by torch.distributions, item by item."""
    if name == "multinomial":
        rows = [
            torch.distributions.Multinomial(int(row.sum()), logits=logits).log_prob(row)
            for row, logits in zip(x, param, strict=True)
        ]
        return torch.stack(rows)
    if name == "normal":
        return torch.distributions.Normal(param, likelihood.lambda_x**-0.5).log_prob(x).sum(-1)
    dense = torch.distributions.Bernoulli(logits=param, validate_args=False)
    return dense.log_prob(x).sum(-1)


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_equals_the_dense_distribution(name):
    likelihood = content_likelihood(name, {"lambda_x": 2.5} if name == "normal" else {})
    assert isinstance(likelihood, ContentLikelihood)
    x = content(name)
    (param_name,) = likelihood.param_names
    param = torch.randn(x.shape, dtype=torch.float64, requires_grad=True)
    sparse = likelihood.log_prob(SparseRows.from_dense(x), {param_name: param})
    dense = reference(name, likelihood, param, x)
    torch.testing.assert_close(sparse, dense, rtol=1e-10, atol=1e-10)
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((value * weights).sum(), param)[0] for value in (sparse, dense))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_initial_bias_gives_the_mean(name):
    likelihood = content_likelihood(name, {})
    mean = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    ((param_name, bias),) = likelihood.initial_bias(mean).items()
    found = likelihood.distribution(**{param_name: bias[None]}).mean[0]
    torch.testing.assert_close(found, mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("bernoulli", 0.5), ("bernoulli", 2.0), ("pseudo-bernoulli", 1.5), ("multinomial", 0.5), ("multinomial", -1.0)],
)
def test_values_outside_the_support_are_refused(name, value):
    with pytest.raises(InputError, match="--scaling"):
        content_likelihood(name, {}).check(SparseRows.from_dense(torch.tensor([[1.0, value]])))


def test_multinomial_draws_have_the_length_of_the_texts():
    likelihood = content_likelihood("multinomial", {})
    like = SparseRows.from_dense(content("multinomial"))
    drawn = likelihood.sample({"logits": torch.zeros(5, 8, dtype=torch.float64)}, like)
    torch.testing.assert_close(drawn.totals, like.totals)


def test_only_pseudo_likelihoods_say_so():
    assert [name for name in NAMES if content_likelihood(name, {}).pseudo] == ["pseudo-bernoulli"]


@pytest.mark.parametrize("name", ["multinomal", "models.contents.multinomial.Nothing", "no.such:Thing"])
def test_unknown_likelihoods_are_refused(name):
    """A name that is none, a class that is none, a module that is none."""
    with pytest.raises(InputError, match="unknown content likelihood"):
        content_likelihood(name, {})


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("torch.nn.Linear", {}, "no ContentLikelihood"),
        ("normal", {"rate": 3}, "rate"),
        ("normal", {"lambda_x": 0}, "precision"),
    ],
)
def test_classes_and_arguments_that_do_not_fit_are_refused(name, arguments, words):
    with pytest.raises(InputError, match=words):
        content_likelihood(name, arguments)
