"""Models of somebody's own: priors are read, sites above u and v are fitted right, and all is kept and put to use."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import Normal

import inference
from analysis.soundness.pareto import log_ratios
from inference.algorithms.above import best_above, check_above, log_prior_above, start_above
from inference.algorithms.base import fit as run_steps
from inference.algorithms.elbo import NamedELBO, constant, total
from inference.algorithms.guides import make_guide
from inference.algorithms.networks import NetworkFit
from inference.commands.plugins import plugin_arguments
from inference.recommending import fold_in, recommend, why
from models.build import make_model
from models.catalogue import GIVEN
from models.contents.multinomial import Multinomial
from pyro_cvae.data.simulated import simulated, simulated_gaussian
from pyro_cvae.errors import InputError
from tests.models import own_models
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, N_WORDS, ToyOptions, toy_observations

PATH = "tests.models.own_models."
SMALL = {"factors": 3, "hidden": (6,), "pretrain_epochs": 1, "epochs": 1, "threads": 1, "dtype": "float64"}


def grouped(make=simulated, **more):
    data = make(**{"n_users": 30, "n_items": 40, "n_words": 30, "n_factors": 3} | more)
    ids = np.array([f"{'de' if i % 3 else 'fr'}-{i}" for i in range(data.n_users)], object)
    return replace(data, user_ids=ids, truth=None)


@pytest.fixture(scope="module")
def dataset():
    return grouped(clicks_per_user=14.0)


def toy(cls=own_models.GroupedCVAE, **changes):
    """A model of the toy with two groups, in float64, and its observations."""
    torch.manual_seed(0)
    model = make_model(
        N_USERS, N_ITEMS, N_WORDS, Multinomial(), ToyOptions(model_args={"lambda_g": 2.0}, **changes), cls
    )
    model.groups, model.group = ("a", "b"), torch.tensor([0, 1, 1, 0, 1, 0, 1])
    return model.double(), toy_observations()


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_the_best_normal_of_group_means_is_that_of_the_textbook():
    model, _ = toy()
    u, v = torch.randn(N_USERS, 3).double(), torch.randn(N_ITEMS, 3).double()
    best = best_above(model, start_above(model), u, v, torch.zeros_like(v))
    counts = torch.bincount(model.group).double()
    precision = 2.0 + counts * model.lambda_u
    sums = torch.zeros(2, 3).double().index_add(0, model.group, u)
    torch.testing.assert_close(best.values["mu"], model.lambda_u * sums / precision[:, None], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(best.scales["mu"], precision.rsqrt()[:, None].expand(2, 3), rtol=1e-12, atol=0)
    assert best.precision.dim() == 1


def test_means_that_depend_on_one_another_have_a_whole_precision():
    class Tied(own_models.GroupedPMF):
        def prior_of_users(self, above):
            prior = super().prior_of_users(above)
            return replace(prior, loc=prior.loc + above["mu"].mean(0))

    torch.manual_seed(0)
    model = make_model(N_USERS, N_ITEMS, None, None, ToyOptions(model_args={"lambda_g": 2.0}), Tied).double()
    model.groups, model.group = ("a", "b"), torch.tensor([0, 1, 1, 0, 1, 0, 1])
    u, v = torch.randn(N_USERS, 3).double(), torch.randn(N_ITEMS, 3).double()
    best = best_above(model, start_above(model), u, v, torch.zeros_like(v))
    assert best.precision.shape == (6, 6)

    def log_density(mu):
        users = model.prior_of_users({"mu": mu.view(2, 3)})
        return log_prior_above(model, {"mu": mu.view(2, 3)}) - 0.5 * users.precision * (u - users.loc).square().sum()

    hessian = torch.autograd.functional.hessian(log_density, best.loc)
    torch.testing.assert_close(best.precision, -hessian, rtol=1e-10, atol=1e-10)
    slope = torch.autograd.functional.jacobian(log_density, best.loc)
    torch.testing.assert_close(slope, torch.zeros(6).double(), rtol=0, atol=1e-9)


@pytest.mark.statistical
def test_draws_of_the_sites_above_are_of_that_normal(failure_rate):
    model, _ = toy()
    u, v = torch.randn(N_USERS, 3).double(), torch.randn(N_ITEMS, 3).double()
    best = best_above(model, start_above(model), u, v, torch.zeros_like(v))
    drawn = torch.stack([best.draw()["mu"] for _ in range(20_000)])
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 12)))
    off = (drawn.mean(0) - best.values["mu"]) / (best.scales["mu"] / 20_000**0.5)
    assert float(off.abs().max()) < bound
    variance = drawn.var(0) / best.scales["mu"].square()
    assert float((variance - 1).abs().max()) < bound * math.sqrt(2 / 20_000)


@pytest.mark.parametrize("options", [{"mode": "map"}, {}, {"diagonal": True}, {"guide": "structured"}])
@pytest.mark.parametrize("model", ["GroupedPMF", "GroupedCVAE"])
def test_sweeps_never_lower_the_objective(dataset, model, options):
    if model == "GroupedPMF" and "guide" in options:
        pytest.skip("there is no z")
    given = SMALL | {"learning_rate": 0.0, "sweeps": 8} | options
    fit = inference.fit(dataset, method="coordinate", model=PATH + model, lambda_u=1.0, lambda_v=3.0, **given)
    values = [row[fit.options.objective] for row in fit.history if row["phase"] == "sweep"]
    assert all(after >= before - 1e-9 * abs(before) for before, after in pairwise(values))
    assert values[-1] > values[0]


@pytest.mark.statistical
@pytest.mark.parametrize("diagonal", [False, True])
def test_the_elbo_of_the_closed_form_is_pyros_own(dataset, diagonal, failure_rate):
    """With the fit's guide and plain program, by Monte Carlo: PMF has no weights, so that they are one number."""
    given = SMALL | {"sweeps": 4, "diagonal": diagonal, "lambda_u": 1.0, "lambda_v": 3.0}
    fit = inference.fit(dataset, method="coordinate", model=PATH + "GroupedPMF", **given)
    model, guide = fit.pyro_model(), fit.guide
    torch.manual_seed(0)
    with torch.no_grad():
        values = torch.tensor([-Trace_ELBO().loss(model, guide) for _ in range(400)])
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 2)))
    assert abs(float(values.mean()) - fit.history[-1]["elbo"]) < bound * float(values.std()) / 20


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["point", "mean-field"])
@pytest.mark.parametrize("parametrization", ["centred", "non-centred"])
def test_the_named_objective_is_pyros_own(kind, parametrization, failure_rate):
    model, observations = toy(parametrization=parametrization)
    start = torch.randn(N_USERS, N_FACTORS).double(), torch.randn(N_ITEMS, N_FACTORS).double()
    torch.set_default_dtype(torch.float64)
    try:
        guide = make_guide(model, kind, observations, *start, scale=0.3)
        batch = observations.batch(torch.arange(N_ITEMS))

        def named():
            terms = NamedELBO().terms(model, guide, batch)
            assert ("log_p_above" if kind == "point" else "kl_above") in terms
            return total({name: float(value) for name, value in terms.items()}) + constant(model, observations)

        with torch.no_grad():
            ours = torch.tensor([named() for _ in range(600)])
            theirs = torch.tensor([-Trace_ELBO().loss(model, guide, batch) for _ in range(1200)])
    finally:
        torch.set_default_dtype(torch.float32)
    error = math.hypot(float(ours.std()) / 600**0.5, float(theirs.std()) / 1200**0.5)
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 4)))
    assert abs(float(ours.mean() - theirs.mean())) < bound * error


# --- priors are read or refused --------------------------------------------------------------------------------------

METHODS = [
    ("svi", {"mode": "map", "epochs": 30}),
    ("svi", {"epochs": 30}),
    ("coordinate", {"mode": "map"}),
    ("coordinate", {}),
    ("coordinate", {"guide": "structured"}),
    ("mcmc", {"draws": 60, "warmup": 20, "chains": 2}),
]


def hardly_any():
    """Two clicks a user."""
    data = simulated_gaussian(n_users=20, n_items=12, n_words=20, n_factors=2)
    pairs = data.interactions
    first = np.concatenate([np.flatnonzero(pairs.users == user)[:1] for user in range(20)])
    return replace(data, interactions=pairs.select(np.isin(np.arange(len(pairs)), first)), truth=None)


@pytest.mark.parametrize(("method", "options"), METHODS, ids=lambda value: str(value))
def test_a_prior_mean_of_three_is_read(method, options):
    """With an almost flat likelihood the posterior means of u are those of the prior."""
    given = SMALL | {"factors": 2, "a": 1e-6, "b": 1e-9, "lambda_u": 100.0, "lambda_v": 1.0, "split": "none"} | options
    fit = inference.fit(hardly_any(), method=method, model=PATH + "StatedMean", **given)
    assert float((fit.posterior.mean("u") - 3).abs().mean()) < 0.05
    assert float(fit.posterior.mean("u").mean()) == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize(("method", "options"), METHODS, ids=lambda value: str(value))
@pytest.mark.parametrize("model", ["HiddenMean", "HiddenSite", "NoPlate", "Twice", "OtherPrecision"])
def test_a_story_that_is_not_what_it_states_is_refused_by_name(dataset, model, method, options):
    with pytest.raises(InputError) as caught:
        inference.fit(dataset, method=method, model=PATH + model, **SMALL | options)
    assert model in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["coordinate", "mcmc"])
def test_sites_that_are_not_normal_are_refused_by_closed_forms_alone(dataset, method, monkeypatch):
    with monkeypatch.context() as before_any_work:
        before_any_work.delattr(NetworkFit, "epoch")
        with pytest.raises(InputError, match=r"the story says of mu what is not Normal.*use inference\.svi"):
            inference.fit(dataset, method=method, model=PATH + "LaplaceGroups", **SMALL)
    assert "mu_scale" in inference.fit(dataset, model=PATH + "LaplaceGroups", **SMALL).posterior.above


def test_a_mean_that_is_not_linear_for_late_items_alone_is_refused():
    class Bent(own_models.GroupedPMF):
        late = 70

        def prior_of_items(self, m, above, items=None):
            prior = super().prior_of_items(m, above, items)
            rows = torch.arange(len(m)) if items is None else items
            bent = torch.where(rows[:, None] >= self.late, above["mu"][0].square(), 0.0)
            return replace(prior, loc=prior.loc + bent)

    model = make_model(N_USERS, 100, None, None, ToyOptions(model_args={"lambda_g": 2.0}), Bent).double()
    model.groups, model.group = ("a", "b"), torch.tensor([0, 1, 1, 0, 1, 0, 1])
    with pytest.raises(InputError, match="the story says of mu what is not Normal"):
        check_above(model)
    model.late = 100
    check_above(model)


def test_a_guide_that_knows_no_sites_above_is_refused_before_any_work(dataset, monkeypatch):
    monkeypatch.delattr(NetworkFit, "epoch")
    with pytest.raises(InputError, match="the structured guide does not know the sites above u and v, mu"):
        inference.fit(dataset, model=PATH + "GroupedCVAE", guide="structured", **SMALL)


# --- kept and put to use ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"),
    [("svi", {}), ("svi", {"mode": "map"}), ("coordinate", {}), ("coordinate", {"mode": "map"}), METHODS[-1]],
)
@pytest.mark.parametrize("model", ["GroupedPMF", "GroupedCVAE"])
def test_a_run_folder_keeps_it_all(dataset, model, method, options, tmp_path):
    given = SMALL | {"model_args": {"lambda_g": 2.0}} | options
    fit = inference.fit(dataset, method=method, model=PATH + model, out=tmp_path / "run", **given)
    with pytest.raises(InputError, match=f"the run asks for {PATH}{model}; if you trust it, add --trust"):
        inference.load(tmp_path / "run")
    again = inference.load(tmp_path / "run", trust=PATH + model)
    tensors = fit.posterior.tensors()
    assert tensors.keys() == again.posterior.tensors().keys()
    for name, tensor in tensors.items():
        assert torch.equal(again.posterior.tensors()[name], tensor), name
    assert torch.equal(again.model.group, fit.model.group) and again.model.lambda_g == 2.0
    assert again.above.keys() == {"mu"} and again.above["mu"].shape == (2, 3)
    assert len(recommend(again, ["de-1"], 5)) == 5


@pytest.mark.parametrize("method", ["svi", "coordinate", "mcmc"])
def test_a_stopped_fit_goes_on_to_the_same_numbers(dataset, method):
    from inference.algorithms.coordinate import Coordinate
    from inference.algorithms.mcmc import MCMC
    from inference.algorithms.svi import SVI
    from inference.options import Options
    from models.build import observe
    from pyro_cvae.data.splits import make_split

    more = {"draws": 3, "warmup": 2, "chains": 2} if method == "mcmc" else {"epochs": 4}
    options = Options.of(method, **SMALL | {"model": PATH + "GroupedPMF"} | more).for_model(has_content=False)
    split = make_split(dataset, options.data)
    observations, _ = observe(dataset, split, None, options.model, "auto")

    def make():
        model = make_model(dataset.n_users, dataset.n_items, None, None, options.model)
        model.of_data(dataset)
        return model

    algorithm = {"svi": SVI, "coordinate": Coordinate, "mcmc": MCMC}[method]
    whole = run_steps(algorithm(make, observations, options)).posterior.tensors()
    kept = []

    def keep(tensors, meta):
        kept.append(({name: one.clone() for name, one in tensors.items()}, json.loads(json.dumps(meta))))

    run_steps(algorithm(make, observations, options), keep=(2, keep))
    resumed = run_steps(algorithm(make, observations, options), resume=kept[0]).posterior.tensors()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


@pytest.mark.parametrize("options", [{"mode": "map"}, {}, {"diagonal": True}])
def test_a_known_user_folded_in_has_the_prior_of_the_group(dataset, options):
    """By dense algebra: Lambda = lambda_u I + sum_j C_j E[v_j v_j'], h = lambda_u mu_g + sum_j C_j R_j E[v_j]."""
    given = SMALL | {"model": PATH + "GroupedPMF", "split": "none", "lambda_u": 1.0, "lambda_v": 3.0} | options
    fit = inference.fit(dataset, method="coordinate", **given)
    row = int(dataset.user_rows(["fr-3"])[0])
    listed = dataset.interactions.items[dataset.interactions.users == row][:4]
    folded = fold_in(fit, ["fr-3"] * 4, dataset.item_ids[listed])
    v, rated = fit.posterior.v_loc, np.unique(dataset.interactions.items)
    second = v[:, :, None] * v[:, None, :]
    if "mode" not in options:
        second = second + fit.posterior.covariance("v", range(len(v)))
    confidence = torch.zeros(len(v)).double()
    confidence[rated] = 1.0
    confidence[listed] = 100.0
    precision = torch.eye(3).double() + torch.einsum("j,jkl->kl", confidence, second)
    mean = fit.above["mu"][fit.model.groups.index("fr")] + 100 * v[listed].sum(0)
    torch.testing.assert_close(folded.posterior.u_loc[row], torch.linalg.solve(precision, mean), rtol=1e-9, atol=1e-9)
    with pytest.raises(InputError, match="GroupedPMF does not say which prior a user has who is not in the data"):
        fold_in(fit, ["de-new"], dataset.item_ids[:1])


def test_a_class_may_be_given_as_such(dataset):
    fit = inference.fit(
        dataset, method="coordinate", model=own_models.GroupedPMF, model_args={"lambda_g": 3.0}, **SMALL
    )
    assert fit.options.model.model == PATH + "GroupedPMF" and fit.model.lambda_g == 3.0
    with pytest.raises(InputError, match="is no FactorModel"):
        inference.fit(dataset, model=torch.nn.Linear, **SMALL)


@pytest.mark.parametrize("model", ["GroupedPMF", "GroupedCVAE"])
def test_flags_of_a_model_are_what_the_package_does_not_give(model):
    values = {"model": PATH + model}
    assert plugin_arguments("model", values, {"lambda_g": "2"}, {}) == {"lambda_g": 2.0}
    for given in GIVEN:
        with pytest.raises(InputError, match=f"unknown option --model.{given}; {model} takes lambda_g"):
            plugin_arguments("model", values, {given: "2"}, {})


def test_new_items_and_texts_are_refused_by_a_model_that_reads_none(dataset):
    fit = inference.fit(dataset, method="coordinate", model="pmf", **SMALL)
    from inference.recommending import add_items

    for act in (lambda: add_items(fit, ["new"], ["comet"]), lambda: fit.encode(np.ones((1, 30)))):
        with pytest.raises(InputError, match="PMF reads no content"):
            act()


@pytest.mark.parametrize(("method", "options"), METHODS, ids=lambda value: str(value))
def test_a_prior_of_single_items_is_read(method, options):
    """With an almost flat likelihood v of every second item is half above z; new items are refused by name."""
    given = SMALL | {"factors": 2, "a": 1e-6, "b": 1e-9, "lambda_u": 1.0, "lambda_v": 400.0, "split": "none"} | options
    fit = inference.fit(hardly_any(), method=method, model=PATH + "ShiftedItems", **given)
    away = fit.posterior.v_loc - fit.posterior.z_loc
    assert float((away[1::2] - 0.5).abs().max()) < 0.05 and float(away[::2].abs().max()) < 0.05
    if method != "mcmc":
        with pytest.raises(InputError, match="ShiftedItems does not say which prior an item has"):
            fit.encode(np.ones((1, 20)))


# --- parameters of a model's own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["map", "bayes"])
def test_svi_learns_a_models_own_parameters(mode):
    """w ends where the objective is best in it: at the mean of f u, since f is 1 or -1."""
    data = simulated_gaussian(n_users=30, n_items=25, n_words=20, n_factors=2)
    given = {"model": PATH + "Regressed", "factors": 2, "epochs": 300, "threads": 1, "dtype": "float64"}
    fit = inference.fit(data, method="svi", mode=mode, **given)
    u, w = fit.posterior.u.loc, fit.model.w.detach()
    feature = torch.where(torch.arange(30) % 2 == 0, 1.0, -1.0).double()
    torch.testing.assert_close(w, (feature[:, None] * u).mean(0), rtol=0.02, atol=2e-3)
    assert float(w.abs().max()) > 0.02


@pytest.mark.parametrize("ratings", ["confidence-normal", "bernoulli"])
def test_what_reads_the_prior_of_a_fit_takes_no_gradient_of_its_parameters(dataset, ratings):
    given = {"model": PATH + "Regressed", "factors": 2, "epochs": 5, "threads": 1, "rating_likelihood": ratings}
    fit = inference.fit(dataset, method="svi", **given)
    assert fit.model.w.requires_grad
    assert np.isfinite(log_ratios(fit, np.arange(3), 20, 0)).all()
    if ratings == "confidence-normal":
        user = fit.dataset.user_ids[0]
        told = why(fit, user, recommend(fit, users=[user], top=2)["item"])
        assert (told.scores["prior"] != 0).all()


@pytest.mark.parametrize("method", ["coordinate", "mcmc"])
def test_closed_forms_refuse_parameters_that_they_would_not_learn(method):
    data = simulated_gaussian(n_users=8, n_items=9, n_words=12, n_factors=2)
    with pytest.raises(InputError, match=rf"inference\.{method} does not learn w of Regressed"):
        inference.fit(data, method=method, model=PATH + "Regressed", factors=2, threads=1)


# --- users without training pairs ------------------------------------------------------------------------------------


def of_groups():
    """Users in two groups who like different halves of the items; the last of each group has one pair, the latest."""
    rng = np.random.default_rng(0)
    rows = {"user": [], "item": [], "time": []}
    for user in range(40):
        group, first = ("de", 0) if user % 2 else ("fr", 20)
        items = [first] if user >= 38 else rng.choice(np.arange(first, first + 20), 12, replace=False)
        for item in items:
            rows["user"].append(f"{group}-{user}")
            rows["item"].append(f"item-{item}")
            rows["time"].append(float(user >= 38))
    return rows


METHODS = [("coordinate", {"mode": "map"}), ("coordinate", {}), ("svi", {"epochs": 5})]
METHODS += [("mcmc", {"draws": 30, "warmup": 30, "chains": 2})]


@pytest.mark.parametrize(("method", "more"), METHODS)
def test_a_user_without_pairs_is_ranked_by_the_group_and_not_by_everybody(tmp_path, method, more):
    given = {"model": PATH + "GroupedPMF", "factors": 2, "threads": 1, "split": "time", "test_fraction": 0.005}
    fit = inference.fit(of_groups(), method=method, out=tmp_path / "run", **given, **more)
    opened = inference.load(tmp_path / "run", trust=[PATH + "GroupedPMF"])
    people = ["fr-38", "de-39"]
    rows = fit.dataset.user_rows(people)
    assert not fit.split.train.user_counts[rows].any()
    for known in (fit, opened):
        lists = recommend(known, users=people, top=10)
        assert set(lists["origin"]) == {"fit"}
        numbers = lists["item"].str.removeprefix("item-").astype(int)
        if method != "svi":  # which would need many epochs to tell the groups apart
            assert ((numbers >= 20) == (lists["user"] == "fr-38")).mean() > 0.9
        wanted = known.posterior.score_block(rows).numpy().max(1)
        best = lists[lists["rank"] == 1].set_index("user")["score"].loc[people]
        assert best.to_numpy() == pytest.approx(wanted, rel=1e-5)
    average = recommend(fit, users=["it-1"], top=3, unknown="prior")
    assert set(average["origin"]) == {"average"}
    if method == "coordinate" and more:
        told = why(fit, "fr-38", recommend(fit, users=["fr-38"], top=2)["item"])
        assert told.reasons.empty and (told.scores["prior"] > 0.1).all()
