"""Content likelihoods: the sparse formula against torch's dense distributions, values and gradients."""

import itertools

import pytest
import torch

from models.build import content_likelihood
from models.catalogue import CONTENTS
from models.contents import ContentLikelihood
from models.rows import DenseRows, SparseRows
from pyro_cvae.errors import InputError

OF_NUMBERS = [name for name in CONTENTS if name not in ("product", "tokens")]
"""The likelihoods of rows of numbers."""


def content(name, n_items=5, n_words=8):
    torch.manual_seed(1)
    counts = torch.poisson(torch.full((n_items, n_words), 0.7, dtype=torch.float64))
    counts[3] = 0
    scaled = {"bernoulli": counts.clamp(max=1), "pseudo-bernoulli": counts / counts.max(), "normal": counts - 0.5}
    scaled["pseudo-multinomial"] = 0.7 * counts
    scaled["categorical"] = (counts.cumsum(-1) > 0).double().diff(dim=-1, prepend=torch.zeros(n_items, 1))
    return scaled.get(name, counts)


def reference(name, likelihood, param, x):
    """log p(x | param) by torch.distributions, item by item."""
    if name == "poisson":
        return torch.distributions.Poisson(param.exp()).log_prob(x).sum(-1)
    if name == "negative-binomial":
        r = (-likelihood.log_dispersion).exp()
        dense = torch.distributions.NegativeBinomial(r, logits=param - r.log())
        return dense.log_prob(x).sum(-1)
    if name == "categorical":
        dense = torch.distributions.OneHotCategorical(logits=param, validate_args=False)
        return torch.where(x.sum(-1) > 0, dense.log_prob(x), 0.0)
    if name == "multinomial":
        rows = [
            torch.distributions.Multinomial(int(row.sum()), logits=logits).log_prob(row)
            for row, logits in zip(x, param, strict=True)
        ]
        return torch.stack(rows)
    if name == "pseudo-multinomial":
        return torch.lgamma(x.sum(-1) + 1) - torch.lgamma(x + 1).sum(-1) + (x * param.log_softmax(-1)).sum(-1)
    if name == "normal":
        return torch.distributions.Normal(param, likelihood.lambda_x**-0.5).log_prob(x).sum(-1)
    dense = torch.distributions.Bernoulli(logits=param, validate_args=False)
    return dense.log_prob(x).sum(-1)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_log_prob_equals_the_dense_distribution(name):
    arguments = {"normal": {"lambda_x": 2.5}, "negative-binomial": {"dispersion": 0.3}}
    likelihood = content_likelihood(name, arguments.get(name, {})).double()
    assert isinstance(likelihood, ContentLikelihood)
    x = content(name)
    (param_name,) = likelihood.param_names
    param = torch.randn(x.shape, dtype=torch.float64, requires_grad=True)
    sparse = likelihood.log_prob(SparseRows.from_dense(x), {param_name: param})
    dense = reference(name, likelihood, param, x)
    torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    for leaf in (param, *likelihood.parameters()):
        ours, theirs = (torch.autograd.grad((v * weights).sum(), leaf, retain_graph=True)[0] for v in (sparse, dense))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_dense_rows_are_the_sparse_rows_with_their_zeros(name):
    likelihood = content_likelihood(name, {}).double()
    x = content(name)
    sparse, dense = SparseRows.from_dense(x), DenseRows(x, dtype=torch.float64)
    for rows in (dense, dense.select(torch.tensor([3, 0]))):
        likelihood.check(rows)
    (param_name,) = likelihood.param_names
    param = torch.randn(x.shape, dtype=torch.float64, requires_grad=True)
    found, wanted = (likelihood.log_prob(rows, {param_name: param}) for rows in (dense, sparse))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    for leaf in (param, *likelihood.parameters()):
        ours, theirs = (torch.autograd.grad((v * weights).sum(), leaf, retain_graph=True)[0] for v in (found, wanted))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    if type(likelihood).log_prob_sampled is not ContentLikelihood.log_prob_sampled:
        drawn = {param_name: param[:, [1, 4, 6]]}
        ours, theirs = (
            likelihood.log_prob_sampled(rows, {param_name: param[rows.rows, rows.columns]}, drawn, 8)
            for rows in (dense, sparse)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_negative_binomial_of_hardly_any_dispersion_is_the_poisson(dtype):
    """In float32 as well, where the difference of two log Gammas of 1e7 has no digit left."""
    nearly = content_likelihood("negative-binomial", {"dispersion": 1e-7}).to(dtype)
    rows, log_mean = SparseRows.from_dense(content("poisson")), torch.randn(5, 8, dtype=torch.float64)
    exact = content_likelihood("poisson", {}).log_prob(rows, {"log_rate": log_mean})
    found = nearly.log_prob(rows.to(dtype=dtype), {"log_mean": log_mean.to(dtype)})
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_initial_bias_gives_the_mean(name):
    likelihood = content_likelihood(name, {})
    mean = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    ((param_name, bias),) = likelihood.initial_bias(mean).items()
    found = likelihood.distribution(**{param_name: bias[None]}).mean[0]
    torch.testing.assert_close(found, mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("bernoulli", 0.5), ("bernoulli", 2.0), ("pseudo-bernoulli", 1.5), ("multinomial", 0.5)),
        *(("multinomial", -1.0), ("pseudo-multinomial", -0.1), ("pseudo-multinomial", float("nan"))),
        *((name, value) for name in ("poisson", "negative-binomial") for value in (-1.0, 0.5, float("nan"))),
        *(("categorical", value) for value in (1.0, 2.0, -1.0, float("nan"))),
    ],
)
def test_values_outside_the_support_are_refused(name, value):
    with pytest.raises(InputError, match="--scaling"):
        content_likelihood(name, {}).check(SparseRows.from_dense(torch.tensor([[1.0, value]])))


@pytest.mark.parametrize("name", ["multinomial", "pseudo-multinomial"])
def test_multinomial_draws_are_whole_counts_with_the_rounded_length_of_the_texts(name):
    likelihood = content_likelihood(name, {})
    like = SparseRows.from_dense(content(name))
    drawn = likelihood.sample({"logits": torch.zeros(5, 8, dtype=torch.float64)}, like)
    torch.testing.assert_close(drawn.totals, like.totals.round(), rtol=0, atol=0)
    torch.testing.assert_close(drawn.values, drawn.values.round(), rtol=0, atol=0)


@pytest.mark.statistical
def test_multinomial_draws_have_their_probabilities(failure_rate):
    """Counts of words over many texts, two-sided, four comparisons: two texts' logits, two words that stand for all."""
    likelihood, n = content_likelihood("multinomial", {}), 20_000
    logits = torch.tensor([[0.0, 1.0, -2.0], [3.0, 0.0, 0.5]], dtype=torch.float64)
    like = SparseRows.from_dense(torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64))
    repeated = like.select(torch.arange(2).repeat(n))
    drawn = likelihood.sample({"logits": logits.repeat(n, 1)}, repeated).dense().view(n, 2, 3)
    for text, length in enumerate((3, 2)):
        p = logits[text].softmax(-1)
        error = (length * p * (1 - p) / n).sqrt()
        bound = -torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 8))
        assert ((drawn[:, text].mean(0) - length * p).abs() < bound * error)[:2].all()


def test_only_pseudo_likelihoods_say_so():
    assert [name for name in OF_NUMBERS if content_likelihood(name, {}).pseudo] == [
        "pseudo-multinomial",
        "pseudo-bernoulli",
    ]


def test_the_scaling_that_each_likelihood_takes_by_itself():
    expected = {"bernoulli": "binary", "pseudo-bernoulli": "word-max", "multinomial": "none", "normal": "tfidf"}
    expected |= {"pseudo-multinomial": "tfidf-counts", "categorical": "binary"}
    expected |= {"poisson": "none", "negative-binomial": "none"}
    assert {name: content_likelihood(name, {}).default_scaling for name in OF_NUMBERS} == expected


# --- from a part of the features -------------------------------------------------------------------------------------

SUBSAMPLED = list(OF_NUMBERS)
MULTINOMIAL = ["multinomial", "pseudo-multinomial"]
ADDITIVE = ["bernoulli", "pseudo-bernoulli", "poisson", "negative-binomial"]


def sampled(likelihood, rows, logits, drawn):
    """The estimate of log p(x | logits) from the words ``drawn``."""
    (head,) = likelihood.param_names
    stored = {head: logits[rows.rows, rows.columns]}
    return likelihood.log_prob_sampled(rows, stored, {head: logits[:, drawn]}, logits.shape[1])


def over_all_subsets(likelihood, rows, logits, n_drawn):
    """The estimates from every subset of that size, (n_subsets, n_items)."""
    subsets = itertools.combinations(range(logits.shape[1]), n_drawn)
    return torch.stack([sampled(likelihood, rows, logits, list(subset)) for subset in subsets])


def log_normalisers(name, spread, n_drawn):
    """The logs of the sums over words, estimated from every subset of that size, and the exact ones, of each text."""
    likelihood, rows = content_likelihood(name, {}), SparseRows.from_dense(content(name))
    logits = spread * torch.randn(5, 8, dtype=torch.float64)
    found, exact = over_all_subsets(likelihood, rows, logits, n_drawn), likelihood.log_prob(rows, {"logits": logits})
    worded, norm = rows.totals > 0, logits.logsumexp(-1)
    assert torch.equal(found[:, ~worded], torch.zeros_like(found[:, ~worded]))
    return (norm + (exact - found) / rows.totals)[:, worded], norm[worded]


@pytest.mark.parametrize("name", SUBSAMPLED)
def test_the_estimate_from_all_features_is_log_prob_with_its_gradient(name):
    likelihood, rows = content_likelihood(name, {}), SparseRows.from_dense(content(name))
    logits = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    exact = likelihood.log_prob(rows, {likelihood.param_names[0]: logits})
    found = sampled(likelihood, rows, logits, torch.randperm(8))
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)
    ours, theirs = (torch.autograd.grad((value * weights).sum(), logits)[0] for value in (found, exact))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SUBSAMPLED)
def test_the_estimates_gradient_is_finite_where_logits_are_extreme(name):
    likelihood, rows = content_likelihood(name, {}), SparseRows.from_dense(content(name))
    spread = 300 if name != "poisson" else 100  # e^700 is the largest rate
    logits = (spread * torch.randn(5, 8, dtype=torch.float64)).requires_grad_()
    for drawn in ([0], [3, 1], list(range(8))):
        gradient = torch.autograd.grad(sampled(likelihood, rows, logits, drawn).sum(), logits)[0]
        assert torch.isfinite(gradient).all() and bool(gradient.any())


@pytest.mark.parametrize("n_drawn", [1, 3, 7])
@pytest.mark.parametrize("name", ADDITIVE)
def test_the_estimate_of_a_sum_over_words_is_unbiased_over_all_subsets(name, n_drawn):
    likelihood, rows = content_likelihood(name, {}), SparseRows.from_dense(content(name))
    logits = torch.randn(5, 8, dtype=torch.float64)
    found = over_all_subsets(likelihood, rows, logits, n_drawn)
    exact = likelihood.log_prob(rows, {likelihood.param_names[0]: logits})
    torch.testing.assert_close(found.mean(0), exact, rtol=1e-12, atol=1e-12)
    assert (found.std(0) > 0.1).all()


@pytest.mark.parametrize("n_drawn", [1, 3, 7])
@pytest.mark.parametrize("name", MULTINOMIAL)
def test_the_normaliser_is_unbiased_over_all_subsets_and_its_log_too_small(name, n_drawn):
    found, exact = log_normalisers(name, 1.0, n_drawn)
    torch.testing.assert_close(found.exp().mean(0), exact.exp(), rtol=1e-12, atol=0)
    assert (found.mean(0) < exact - 1e-4).all()


@pytest.mark.parametrize("name", MULTINOMIAL)
def test_the_log_of_the_normaliser_is_too_small_by_half_its_relative_variance(name):
    found, exact = log_normalisers(name, 0.02, 3)
    relative_variance = (found - exact).exp().var(0, correction=0)
    torch.testing.assert_close(exact - found.mean(0), 0.5 * relative_variance, rtol=0.02, atol=0)


@pytest.mark.parametrize("name", SUBSAMPLED)
@pytest.mark.parametrize("subsample", [-1, 2.5, "many", None])
def test_a_number_of_features_that_is_none_is_refused(name, subsample):
    with pytest.raises(InputError, match="subsample"):
        content_likelihood(name, {"subsample": subsample})


def test_a_likelihood_without_an_estimate_takes_no_subsample():
    class Plain(ContentLikelihood):
        param_names = ("loc",)

        def distribution(self, **params):
            raise NotImplementedError

    rows = SparseRows.from_dense(content("normal"))
    with pytest.raises(NotImplementedError, match="Plain cannot subsample its features"):
        Plain().log_prob_sampled(rows, {}, {}, 8)


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
