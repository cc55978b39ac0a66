"""The named objective against Pyro's own estimators and against exact quantities, in float64."""

import math

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from inference.algorithms.elbo import SIGNS, NamedELBO, constant, total
from inference.algorithms.guides import StructuredItems, item_conditional, make_guide
from models.gaussians import Gaussians
from models.observations import Batch
from models.ratings import Moments
from pyro_cvae.errors import InputError
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, toy_model, toy_observations

CASES = [
    ("centred", "point"),
    ("centred", "mean-field"),
    ("centred", "structured"),
    ("non-centred", "point"),
    ("non-centred", "mean-field"),
]


def setting(parametrization="centred", kind="mean-field", **changes):
    torch.manual_seed(0)
    model, observations = toy_model(parametrization=parametrization, **changes), toy_observations()
    start = torch.randn(N_USERS, N_FACTORS).double(), torch.randn(N_ITEMS, N_FACTORS).double()
    guide = make_guide(model, kind, observations, *start, scale=0.3)
    return model, guide, observations, observations.batch(torch.arange(N_ITEMS))


def mean_and_error(draw, n):
    values = torch.tensor([draw() for _ in range(n)], dtype=torch.float64)
    return float(values.mean()), float(values.std() / n**0.5)


def named(model, guide, batch):
    terms = NamedELBO().terms(model, guide, batch)
    return total({name: float(value) for name, value in terms.items()})


@pytest.mark.statistical
@pytest.mark.parametrize("lambda_r", [1.0, 0.4])
@pytest.mark.parametrize(("parametrization", "kind"), CASES)
def test_named_parts_add_up_to_pyros_monte_carlo_elbo(parametrization, kind, lambda_r, failure_rate):
    """Two-sided at the project's failure rate; the named estimate must be the less noisy of the two."""
    model, guide, observations, batch = setting(parametrization, kind, lambda_r=lambda_r)
    with torch.no_grad():
        ours, our_error = mean_and_error(lambda: named(model, guide, batch) + constant(model, observations), 200)
        theirs, their_error = mean_and_error(lambda: -Trace_ELBO().loss(model, guide, batch), 600)
    bound = -Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 10))
    assert abs(ours - theirs) < bound * math.hypot(our_error, their_error)
    assert our_error * 200**0.5 < 0.1 * their_error * 600**0.5


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["point", "mean-field", "structured"])
def test_minibatches_over_a_partition_have_the_same_mean(kind, failure_rate):
    model, guide, observations, batch = setting(kind=kind)
    parts = [observations.batch(torch.tensor(rows)) for rows in ([7, 0, 4], [1, 2, 3, 5, 6, 8])]
    with torch.no_grad():
        whole, error = mean_and_error(lambda: named(model, guide, batch), 200)
        weighted = lambda: sum(len(part.items) / N_ITEMS * named(model, guide, part) for part in parts)  # noqa: E731
        split, split_error = mean_and_error(weighted, 200)
    bound = -Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 3))
    assert abs(whole - split) < bound * math.hypot(error, split_error)


@pytest.mark.parametrize("kind", ["point", "mean-field", "structured"])
def test_parts_without_content_do_not_depend_on_the_draw(kind):
    """Only E log p(x|z) needs samples: every other part is exact."""
    model, guide, _, batch = setting(kind=kind)
    first, second = (NamedELBO().terms(model, guide, batch) for _ in range(2))
    for name in first:
        if name == "content":
            assert first[name] != second[name]
        else:
            torch.testing.assert_close(first[name], second[name], rtol=1e-12, atol=1e-12)


def test_the_couplings_gradient_in_mu_is_lambda_v_times_the_gap():
    """PAPER 2.3 prints Lambda_v (E[v] - mu); the derivative of E log p(v|z) has lambda_v, the precision of p(v|z)."""
    model, guide, _, batch = setting()
    loc, scale = model.encoder(batch.inputs)
    loc, scale = loc.detach().requires_grad_(), scale.detach().requires_grad_()
    model.encoder.forward = lambda content: (loc, scale)
    terms = NamedELBO().terms(model, guide, batch)
    grad_loc, grad_scale = torch.autograd.grad(-terms["kl_v"], (loc, scale))
    v = guide[2].loc.detach()
    torch.testing.assert_close(grad_loc, model.lambda_v * (v - loc.detach()), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad_scale, -model.lambda_v * scale.detach(), rtol=1e-12, atol=1e-12)


def test_the_structured_guide_is_optimal_given_q_u():
    """Perturbing the mean or the covariance of q(v|z) lowers ratings - kl_v: two-sided in every direction tried."""
    model, guide, _, batch = setting(kind="structured")
    users = guide[0]
    q_u = Gaussians(users.loc.detach(), users.scale.detach().square())
    tril, shift = item_conditional(model, q_u, batch)
    z = torch.randn(N_ITEMS, N_FACTORS, dtype=torch.float64)
    mean = torch.cholesky_solve((shift + model.lambda_v * z)[..., None], tril).squeeze(-1)
    covariance = torch.cholesky_inverse(tril)

    def value(loc, spread):
        q_v = Gaussians(loc, covariance=spread)
        ratings = model.ratings.expected_log_prob(Moments(q_u, q_v), batch.columns)
        return (ratings - q_v.kl(model.lambda_v, z)).sum().item()

    best = value(mean, covariance)
    for seed in range(5):
        torch.manual_seed(seed)
        step = 1e-3 * torch.randn_like(mean)
        assert value(mean + step, covariance) < best
        assert value(mean - step, covariance) < best
        for factor in (0.999, 1.001):
            assert value(mean, covariance * factor) < best


def test_the_structured_guides_gradient_needs_none_through_q_v():
    """Envelope theorem: detaching q(v|z) from q(u) leaves the gradient in q(u) as it is."""
    model, guide, _, batch = setting(kind="structured")
    users = guide[0]
    parameters = list(users.parameters())

    def gradient():
        torch.manual_seed(1)
        terms = NamedELBO().terms(model, guide, batch)
        return torch.autograd.grad(terms["ratings"] - terms["kl_u"] - terms["kl_v"], parameters)

    detached = gradient()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "no_grad", torch.enable_grad)
        attached = gradient()
    assert isinstance(guide[1], StructuredItems)
    for one, other in zip(detached, attached, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("full", [False, True])
def test_kl_equals_torchs(full):
    torch.manual_seed(0)
    mean, prior = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    root = torch.randn(4, 3, 3).double()
    var = root @ root.mT + torch.eye(3) if full else torch.rand(4, 3).double()
    covariance = var if full else torch.diag_embed(var)
    prior_covariance = torch.eye(3).double() / 2.5
    expected = kl_divergence(MultivariateNormal(mean, covariance), MultivariateNormal(prior, prior_covariance))
    rows = Gaussians(mean, covariance=var) if full else Gaussians(mean, var)
    torch.testing.assert_close(rows.kl(2.5, prior), expected)
    point = -MultivariateNormal(prior, prior_covariance).log_prob(mean)
    torch.testing.assert_close(Gaussians(mean).kl(2.5, prior), point)


def test_a_minibatch_of_some_items_updates_only_their_rows():
    """The trap of autoguides with minibatches: rows of the wrong items."""
    for kind in ("point", "mean-field"):
        model, guide, observations, _ = setting(kind=kind)
        rows = torch.tensor([1, 7])
        terms = NamedELBO().terms(model, guide, observations.batch(rows))
        items = [p for n, p in guide.named_parameters() if n.startswith("2.") and "scale" not in n]
        (gradient,) = torch.autograd.grad(NamedELBO().objective(terms), items)
        assert gradient.abs().sum(-1).nonzero().flatten().tolist() == rows.tolist()


def test_the_kl_weight_tempers_the_objective_and_not_the_total():
    model, guide, _, batch = setting()
    terms = NamedELBO().terms(model, guide, batch)
    plain, tempered = NamedELBO().objective(terms), NamedELBO(kl_weight=0.25).objective(terms)
    torch.testing.assert_close(tempered - plain, 0.75 * terms["kl_z"])
    assert set(terms) <= set(SIGNS)


def test_a_structured_guide_needs_the_centred_model():
    with pytest.raises(InputError, match="centred"):
        setting("non-centred", "structured")


def test_a_batch_is_in_ascending_order():
    """A plate whose subsample is as long as the plate does not index: a permutation would mix up rows."""
    observations = toy_observations()
    batch = observations.batch(torch.randperm(N_ITEMS))
    assert isinstance(batch, Batch) and batch.items.tolist() == list(range(N_ITEMS))
