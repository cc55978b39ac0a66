"""Stock Pyro beside the package and with it: nothing of the one changes the other, and its tools take a fit."""

import arviz_base
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam

import inference
from inference.plain import plain_guide
from models.build import observe
from pyro_cvae.data.simulated import simulated, simulated_gaussian, simulated_stars

SMALL = {"factors": 2, "hidden": (5,), "pretrain_epochs": 1, "epochs": 1, "threads": 1, "dtype": "float64"}


def small(make=simulated_gaussian, **more):
    return make(**{"n_users": 12, "n_items": 10, "n_words": 20, "n_factors": 2} | more)


FITS = {
    "svi": (small, {"method": "svi"}),
    "non-centred": (small, {"method": "svi", "parametrization": "non-centred"}),
    "map": (small, {"method": "coordinate", "mode": "map"}),
    "full": (small, {"method": "coordinate"}),
    "structured": (small, {"method": "coordinate", "guide": "structured"}),
    "mcmc": (small, {"method": "mcmc", "draws": 6, "warmup": 2, "chains": 2}),
    "pmf": (small, {"method": "coordinate", "model": "pmf"}),
    "stars": (lambda: small(simulated_stars, exposure=0.5), {"method": "coordinate", "rating_likelihood": "normal"}),
    "clicks": (
        lambda: small(simulated, n_items=30, clicks_per_user=13.0),
        {"method": "svi", "rating_likelihood": "bernoulli"},
    ),
    "groups": (small, {"method": "coordinate", "model": "tests.models.own_models.GroupedPMF"}),
}


@pytest.fixture(scope="module", params=FITS)
def fit(request):
    make, options = FITS[request.param]
    return inference.fit(make(), **SMALL, **options)


@pytest.fixture
def store():
    """What stock Pyro leaves in its global store is the caller's to clear."""
    yield pyro.get_param_store()
    pyro.clear_param_store()


@pytest.fixture(autouse=True)
def as_the_fit():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_draws_of_the_guide_have_the_posteriors_moments(fit):
    torch.manual_seed(0)
    names = ["u", fit.model.item_site]
    drawn = [fit.guide() for _ in range(2000)]
    wanted = fit.draw_sites(4000, seed=1)
    for name in names:
        ours, theirs = torch.stack([one[name] for one in drawn]), wanted[name]
        spread = theirs.std(0, correction=0)
        off = (ours.mean(0) - theirs.mean(0)).abs() / (spread * (1 / 2000 + 1 / 4000) ** 0.5).clamp(min=1e-9)
        assert float(off.max()) < 5.5, name
        ratio = ours.std(0, correction=0)[spread > 1e-9] / spread[spread > 1e-9]
        assert len(ratio) == 0 or (float(ratio.min()) > 0.85 and float(ratio.max()) < 1.15), name


def test_the_plain_model_has_the_density_of_the_sparse_one(fit):
    values = {
        name: value[0] for name, value in fit.draw_sites(1, seed=3).items() if name in ("u", "z", "v", "v_dagger")
    }
    values |= {name: value for name, value in fit.guide().items() if name not in values}
    likelihood = fit.model.content if fit.model.has_content else None
    observations, _ = observe(fit.dataset, fit.split, likelihood, fit.options.model, fit.options.data.scaling)
    batch = observations.to(dtype=torch.float64).batch(torch.arange(fit.dataset.n_items))
    with fit.model.sparse():
        sparse = poutine.trace(poutine.condition(fit.model.eval(), values)).get_trace(batch)
    plain = poutine.trace(poutine.condition(fit.pyro_model(), values)).get_trace()
    for trace in (sparse, plain):
        trace.compute_log_prob()
    for name in ("u", "R", fit.model.item_site, *(["x", "z"] if fit.model.has_content else [])):
        ours, theirs = (float(trace.nodes[name]["log_prob_sum"].detach()) for trace in (plain, sparse))
        assert ours == pytest.approx(theirs, rel=1e-9), name
    assert "theta" not in plain.nodes and not plain.param_nodes


def test_predictive_prior_and_posterior(fit, store):
    model = fit.pyro_model()
    prior = Predictive(poutine.uncondition(model), num_samples=3)()
    posterior = Predictive(poutine.uncondition(model), guide=fit.guide, num_samples=4)()
    n_users, n_items = fit.dataset.n_users, fit.dataset.n_items
    assert prior["R"].shape == (3, n_items, n_users) and posterior["R"].shape == (4, n_items, n_users)
    assert prior["u"].shape == (3, n_users, fit.model.width)
    if fit.model.has_content:
        assert posterior["x"].shape == (4, n_items, fit.dataset.n_features)


@pytest.mark.parametrize("make_guide", [AutoNormal, AutoDelta, AutoDiagonalNormal])
def test_svi_with_any_automatic_guide(fit, make_guide, store):
    if fit.model.item_site == "v_dagger" or fit.posterior.kind == "structured":
        pytest.skip("one story is as good as another")
    model = fit.pyro_model()
    torch.manual_seed(0)
    svi = SVI(model, make_guide(model), pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step() for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert not any(name.startswith("item_prior") for name in store)


def test_nuts_and_arviz(fit, store):
    if fit.posterior.kind in ("point", "structured") or fit.model.ratings.explicit:
        pytest.skip("one story is as good as another")
    chain = MCMC(NUTS(fit.pyro_model(), max_tree_depth=3), num_samples=5, warmup_steps=5, disable_progbar=True)
    chain.run()
    drawn = arviz_base.from_dict({"posterior": chain.get_samples(group_by_chain=True)})
    assert drawn["posterior"]["u"].shape == (1, 5, fit.dataset.n_users, fit.model.width)


def test_render_model_draws_the_story(fit, store):
    graph = pyro.infer.inspect.get_model_relations(fit.pyro_model())
    observed = set(graph["observed"]) - {"v", "v_dagger"}  # what is computed from others counts as observed to Pyro
    assert observed == ({"x", "R"} if fit.model.has_content else {"R"})
    assert "u" in graph["sample_sample"]["R"] and "users" in graph["plate_sample"]


def test_some_items_by_id():
    fit = inference.fit(small(), **SMALL)
    ids = fit.dataset.item_ids[[7, 2]]
    model, guide = fit.pyro_model(ids), plain_guide(fit, ids)
    posterior = Predictive(poutine.uncondition(model), guide=guide, num_samples=2)()
    assert posterior["v"].shape == (2, 2, 2) and posterior["R"].shape == (2, 2, 12)


class Regression(PyroModule):
    """A model that is not ours, with weights of every sort."""

    def __init__(self):
        super().__init__()
        self.w, self.scale = torch.nn.Parameter(torch.zeros(3)), PyroParam(torch.ones(()), dist.constraints.positive)

    def forward(self, x, y):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(x @ self.w + b, self.scale), obs=y)


def learned(store):
    """The parameters of a regression after ten steps of stock SVI."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    x, model = torch.randn(20, 3), Regression()
    svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(10):
        svi.step(x, x.sum(1))
    return {name: value.detach().clone() for name, value in store.items()}


def test_a_model_that_is_not_ours_learns_the_same_before_and_after_a_fit(store):
    before = learned(store)
    inference.fit(small(), **SMALL)
    after = learned(store)
    assert before.keys() == after.keys() and "w" in before
    for name, value in before.items():
        assert torch.equal(after[name], value), name


@pytest.mark.parametrize("method", ["svi", "coordinate", "mcmc"])
def test_the_same_seed_is_the_same_numbers_whatever_pyro_is_set_to(method, store):
    options = SMALL | {"method": method} | ({"draws": 3, "warmup": 2, "chains": 1} if method == "mcmc" else {})
    base = inference.fit(small(), **options).posterior.tensors()
    for local, validate in ((True, False), (False, True)):
        pyro.clear_param_store()
        pyro.param("0.loc", torch.full((12, 2), 7.0))
        pyro.param("item_prior$$$encoder.weights.0", torch.full((20, 5), 7.0))
        with pyro.settings.context(module_local_params=local), pyro.validation_enabled(validate):
            other = inference.fit(small(), **options).posterior.tensors()
            assert pyro.settings.get("module_local_params") is local
        for name, tensor in base.items():
            assert torch.equal(other[name], tensor), (name, local)
        assert sorted(store.keys()) == ["0.loc", "item_prior$$$encoder.weights.0"]


def test_stock_svi_takes_a_fits_own_model_and_its_minibatch(store):
    fit = inference.fit(small(), **SMALL)
    observations, _ = observe(fit.dataset, fit.split, fit.model.content, fit.options.model, "auto")
    batch = observations.to(dtype=torch.float64).batch(torch.arange(10))
    model = fit.model.eval()
    guide = AutoNormal(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    before = next(model.parameters()).detach().clone()
    losses = [svi.step(batch) for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert not torch.equal(next(model.parameters()), before)  # whose networks learn too, as the caller asked
