"""CTR, CDL and DeepMusic: the contract, closed forms by a second computation, and all that runs on a fit."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from pyro import poutine
from sklearn.decomposition import LatentDirichletAllocation
from torch.distributions import Dirichlet

import inference
from inference.algorithms.base import fit as run_steps
from inference.algorithms.coordinate import Coordinate
from inference.algorithms.networks import encode
from inference.options import Options
from inference.recommending import recommend
from models.build import content_likelihood_of, model_of, observe
from models.cdl import CDL
from models.contents.multinomial import Multinomial
from models.corruption import corrupt
from models.ctr import CTR, TopicDecoder, Topics, TopicWords, best_proportions
from models.deepmusic import DeepMusic, Regression
from models.item_prior import Pull
from models.rows import DenseRows, Form, SparseRows, TokenRows
from models.testing import check_model
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import per_user
from pyro_cvae.errors import InputError

MODELS = ("ctr", "cdl", "deepmusic")
SMALL = {
    "factors": 4,
    "hidden": (8,),
    "pretrain_epochs": 2,
    "epochs": 3,
    "sweeps": 3,
    "learning_rate": 0.01,
    "threads": 1,
    "dtype": "float64",
}


@pytest.fixture(scope="module")
def dataset():
    return simulated(0, n_users=40, n_items=60, n_words=50, n_factors=4, clicks_per_user=12.0)


@pytest.fixture(scope="module")
def split(dataset):
    return per_user(dataset, 6, 0)


def fitted(dataset, split, model, method="coordinate", **options):
    own = {name: value for name, value in SMALL.items() if name != "sweeps" or method == "coordinate"}
    return inference.fit(dataset, split, method=method, model=model, **{"mode": "map"} | own | options)


def algorithm(dataset, split, model, **options):
    """Coordinate ascent, not yet begun."""
    chosen = Options.of("coordinate", model=model, **{"mode": "map"} | SMALL | options)
    likelihood = content_likelihood_of(chosen.model)
    observations, _ = observe(dataset, split, likelihood, chosen.model, "auto")
    return Coordinate(lambda: model_of(dataset, chosen.model), observations, chosen)


# --- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "arguments"), [(CTR, {}), (CTR, {"alpha": 1.5, "eta": 0.2}), (CDL, {"noise": 0.1}), (DeepMusic, {})]
)
def test_they_keep_the_contract_of_models(cls, arguments):
    check_model(cls, **arguments)


@pytest.mark.parametrize(
    ("model", "unrated"), [(m, u) for m in MODELS for u in ("masked", "zeros") if m + u != "deepmusiczeros"]
)
def test_at_the_fixed_point_of_map_the_gradient_of_the_log_joint_vanishes(dataset, split, model, unrated):
    """Of the whole Pyro program, in u, v and for CTR in theta and beta too, along the simplex."""
    learns, slow = model == "ctr", model == "deepmusic"  # which begins without what tells directions apart
    precisions = {"lambda_v": 3.0, "lambda_u": 4.0, "a": 2.0, "b": 0.1}
    more = {"epochs": 600 if learns else 3, "sweeps": 3000 if slow else 400, "learning_rate": 0.003}
    coordinate = algorithm(dataset, split, model, unrated=unrated, **more | precisions)
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        state = coordinate.init()
        for _ in range(coordinate.n_steps):
            state, _ = coordinate.step(state)
        fit_model, batch = state.model.eval(), coordinate.observations.batch(torch.arange(dataset.n_items))
        values = {"u": state.users.loc.clone(), "v": state.items.loc.clone()}
        if learns:
            values["topics"] = fit_model.item_prior.theta.clone()
        leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
        with fit_model.sparse():
            trace = poutine.trace(poutine.condition(fit_model, data=leaves)).get_trace(batch)
            found = dict(zip(values, torch.autograd.grad(trace.log_prob_sum(), list(leaves.values())), strict=True))
        assert found["u"].abs().max() < 1e-8 * max(1, float(values["u"].abs().max()))
        assert found["v"].abs().max() < 1e-8 * max(1, float(values["v"].abs().max()))
        if learns:  # at the maximum on the simplex the gradient is the same in every direction
            along = values["topics"] * (found["topics"] - found["topics"].mean(-1, keepdim=True))
            assert along.abs().max() < 1e-3
    finally:
        torch.set_default_dtype(previous)


# --- CTR -------------------------------------------------------------------------------------------------------------


def test_the_best_proportions_are_the_maximum_on_the_simplex():
    generator = torch.Generator().manual_seed(1)
    counts = torch.rand(30, 5, generator=generator, dtype=torch.float64) * torch.tensor([0.0, 0.1, 1, 5, 50])
    counts[:3] = 0.0
    loc = 2 * torch.randn(30, 5, generator=generator, dtype=torch.float64)
    for precision in (0.01, 1.0, 100.0):
        pull = Pull(loc, precision, torch.ones(30, dtype=torch.bool))
        theta = best_proportions(counts, pull)
        assert torch.allclose(theta.sum(-1), torch.ones(30).double()) and bool((theta >= 0).all())

        def value(point, precision=precision):
            logs = torch.where(counts > 0, counts * point.clamp(min=1e-300).log(), 0.0)
            return logs.sum(-1) - 0.5 * precision * (point - loc).square().sum(-1)

        best = value(theta)
        for _ in range(200):  # no other point of the simplex is better
            other = Dirichlet(torch.full((30, 5), 0.3).double()).sample()
            for share in (1.0, 0.1, 1e-3):
                assert bool((value((1 - share) * theta + share * other) <= best + 1e-9 * best.abs().clamp(min=1)).all())


def test_without_ratings_the_proportions_are_those_of_the_words_alone():
    counts = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    pull = Pull(torch.full((2, 2), 9.0), 5.0, torch.zeros(2, dtype=torch.bool))
    assert torch.equal(best_proportions(counts, pull), torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    assert torch.equal(best_proportions(counts, None), torch.tensor([[0.25, 0.75], [0.5, 0.5]]))


def test_words_under_topics_have_the_density_of_the_multinomial():
    torch.manual_seed(0)
    words = SparseRows.from_dense(torch.poisson(torch.rand(7, 11, dtype=torch.float64)))
    decoder, theta = TopicDecoder(11, 3).double(), torch.rand(7, 3, dtype=torch.float64)
    decoder.beta /= decoder.beta.sum(-1, keepdim=True)
    theta = theta / theta.sum(-1, keepdim=True)
    likelihood = Multinomial()
    found = TopicWords(likelihood, decoder, theta, words).log_prob(words)
    assert torch.allclose(found, likelihood.log_prob(words, decoder(theta)), rtol=1e-12)


@pytest.mark.parametrize("lambda_r", [1.0, 0.3])
def test_every_step_of_topics_climbs_the_log_joint(dataset, split, lambda_r):
    """u and v held, theta and beta as :meth:`Topics.learn` leaves them: the Pyro program says so."""
    coordinate = algorithm(dataset, split, "ctr", lambda_r=lambda_r, lambda_v=5.0, factors=3)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        model = coordinate._model().double()
        content, columns = coordinate.observations.content, coordinate.observations.columns
        v = torch.rand(dataset.n_items, 3).double()
        pull = Pull(v, model.lambda_v, columns.observed)
        batch, seen = coordinate.observations.batch(torch.arange(dataset.n_items)), []
        for _ in range(12):
            held = {
                "u": torch.zeros(dataset.n_users, 3),
                "v": torch.where(columns.observed[:, None], v, model.item_prior.theta),
            }
            held["topics"] = model.item_prior.theta
            with model.sparse():
                trace = poutine.trace(poutine.condition(model, data=held)).get_trace(batch)
                trace.compute_log_prob()
            seen.append(sum(float(trace.nodes[site]["log_prob_sum"]) for site in ("theta", "topics", "x", "v")))
            model.item_prior.learn(content, pull)
        assert all(later >= earlier - 1e-8 * abs(earlier) for earlier, later in pairwise(seen))
        assert seen[-1] > seen[0] + 1
    finally:
        torch.set_default_dtype(previous)


def test_topics_are_those_of_scikit_learn(dataset, split):
    """Every pass is a ``partial_fit`` of the same estimator, whose random state alone is a new one."""
    words = algorithm(dataset, split, "ctr").observations.content
    prior = Topics(60, 50, 4, Multinomial()).double()
    torch.manual_seed(5)
    for _ in range(3):
        prior.learn(words, None)
    torch.manual_seed(5)
    theirs = LatentDirichletAllocation(4, doc_topic_prior=0.25, topic_word_prior=0.25, batch_size=64, total_samples=60)
    for _ in range(3):
        random = np.random.RandomState(int(torch.randint(2**31 - 1, ())))
        theirs.random_state = theirs.random_state_ = random
        theirs.partial_fit(words.dense().numpy())
    assert np.allclose(prior.word_counts.numpy(), theirs.components_, rtol=1e-10)
    assert int(prior.n_batches) == theirs.n_batch_iter_


def test_topics_find_the_topics_that_made_the_words():
    """Two topics of disjoint words: the proportions tell the texts apart."""
    rng = np.random.default_rng(0)
    words = np.zeros((60, 20))
    for item in range(60):
        words[item] = rng.multinomial(30, np.repeat([1, 0] if item % 2 else [0, 1], 10) / 10)
    content, prior = SparseRows.from_dense(torch.tensor(words)), Topics(60, 20, 2, Multinomial()).double()
    torch.manual_seed(0)
    for _ in range(10):
        prior.learn(content, None)
    first = prior.theta[::2].mean(0)
    assert float(first.max()) > 0.9 and float(prior.theta[1::2].mean(0)[first.argmax()]) < 0.1


# --- CDL -------------------------------------------------------------------------------------------------------------


def test_the_code_is_of_the_corrupted_content_in_training_and_of_the_whole_otherwise(dataset, split):
    coordinate = algorithm(dataset, split, "cdl")
    model, batch = coordinate._model().double(), coordinate.observations.batch(torch.arange(20))
    with torch.no_grad(), model.sparse():
        known, _ = model.item_prior.encode(batch.inputs)
        trained = poutine.trace(model).get_trace(batch).nodes["m"]["value"]
        model.eval()
        whole = poutine.trace(model).get_trace(batch).nodes["m"]["value"]
    assert torch.equal(whole, known) and not torch.allclose(trained, known)


def test_contents_of_every_kind_lose_the_share_that_is_asked_for():
    torch.manual_seed(0)
    words = SparseRows.from_dense(torch.ones(50, 40))
    numbers = DenseRows.from_numpy(np.ones((50, 40), np.float32))
    tokens = TokenRows.from_lists([list(range(40))] * 50, 40)
    for left in (
        float((corrupt(words, 0.3).values > 0).float().mean()),
        float((corrupt(numbers, 0.3).dense() > 0).float().mean()),
        len(corrupt(tokens, 0.3).tokens) / 2000,
    ):
        assert left == pytest.approx(0.7, abs=0.05)  # four and a half standard errors of 2,000 draws
    assert float(corrupt(words, 0.3).values.mean()) == pytest.approx(1, abs=0.07)
    assert corrupt(words, 0.0) is words
    row = corrupt(tokens, 0.5).select(torch.tensor([3])).tokens
    assert bool((row.diff() > 0).all())


# --- DeepMusic -------------------------------------------------------------------------------------------------------


def test_deepmusic_begins_as_the_factorisation_of_ratings_alone(dataset, split):
    """Its first phase is a PMF of the same precisions; the network says 0 until then and learns of held factors."""
    more = {"lambda_u": 2.0, "lambda_v": 3.0, "unrated": "zeros"}
    music = run_steps(algorithm(dataset, split, "deepmusic", **more))
    alone = run_steps(algorithm(dataset, split, "pmf", **more | {"epochs": 0}))
    phases = [row["phase"] for row in music.history]
    assert phases == ["ratings"] * 3 + ["content"] * 3 + ["sweep"] * 3
    for name in ("ratings", "log_p_u", "log_p_v"):
        ours, theirs = ([row[name] for row in history[:3]] for history in (music.history, alone.history))
        assert ours == pytest.approx(theirs, rel=1e-12)
    held = music.history[2:6]
    assert len({row["ratings"] for row in held}) == 1 and len({row["log_p_u"] for row in held}) == 1
    assert held[-1]["log_p_v"] > held[0]["log_p_v"]
    objective = [row["map_objective"] - row["weights"] for row in music.history[6:]]
    assert objective == sorted(objective)


def test_deepmusic_reads_sequences_by_convolutions_unless_told_otherwise(dataset):
    options = Options.of("coordinate", model="deepmusic", **SMALL, content_likelihood="tokens").model
    likelihood = content_likelihood_of(options)
    prior = Regression.made(5, Form("tokens", (9,)), likelihood, options)
    assert type(prior.encoder).__name__ == "ConvolutionalTokenEncoder"
    other = Regression.made(5, Form("tokens", (9,)), likelihood, replace(options, network="recurrent"))
    assert type(other.encoder).__name__ == "RecurrentEncoder"
    words = TokenRows.from_lists([[1, 2, 3], [], [8]], 9)
    assert not bool(prior.encode(words)[0].any())


def test_a_class_derived_from_deepmusic_is_the_same_fit(dataset, split):
    """By its path options know nothing of its stages before it is imported."""
    own = fitted(dataset, split, "tests.models.own_models.Music")
    assert [row["phase"] for row in own.history] == ["ratings"] * 3 + ["content"] * 3 + ["sweep"] * 3
    assert torch.equal(own.posterior.v_loc, fitted(dataset, split, "deepmusic").posterior.v_loc)
    with pytest.raises(InputError, match="fitted in stages"):
        fitted(dataset, split, "tests.models.own_models.Music", "svi")


# --- fits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_fit_that_was_stopped_goes_on_to_the_same_numbers(dataset, split, model, stop):
    whole = run_steps(algorithm(dataset, split, model))
    kept = []

    def keep(tensors, meta):
        kept.append(({name: value.clone() for name, value in tensors.items()}, json.loads(json.dumps(meta))))

    run_steps(algorithm(dataset, split, model), keep=(stop, keep))
    again = run_steps(algorithm(dataset, split, model), resume=kept[0])
    for one, other in zip(whole.history, again.history, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    for name, value in whole.posterior.tensors().items():
        assert torch.equal(value, again.posterior.tensors()[name])


@pytest.mark.parametrize("mode", ["map", "bayes"])
@pytest.mark.parametrize("model", MODELS[:2])
@pytest.mark.parametrize("parametrization", ["centred", "non-centred"])
def test_svi_fits_those_that_have_no_stages(dataset, split, model, mode, parametrization):
    fit = fitted(dataset, split, model, "svi", mode=mode, parametrization=parametrization, epochs=30)
    first, last = (row[fit.options.objective] for row in (fit.history[2], fit.history[-1]))
    assert last > first and bool(torch.isfinite(fit.posterior.v_loc).all())
    again = encode(fit.model, _observations(fit))[0]
    assert torch.allclose(again, fit.posterior.z_loc, atol=1e-6)


@pytest.mark.parametrize("model", MODELS[:2])
def test_mcmc_draws_around_held_contents(dataset, split, model):
    precisions = {"lambda_u": 1.0, "lambda_v": 60.0 if model == "ctr" else 4.0}
    fit = fitted(dataset, split, model, "mcmc", mode="bayes", draws=200, warmup=30, chains=2, **precisions)
    closed = fitted(dataset, split, model, mode="bayes", learning_rate=0.0, sweeps=30, **precisions)
    scores = [(one.posterior.u_loc @ one.posterior.v_loc.mT).flatten() for one in (fit, closed)]
    assert float(torch.corrcoef(torch.stack(scores))[0, 1]) > 0.9
    assert torch.equal(fit.posterior.z_draws[0], fit.posterior.z_draws[-1])


@pytest.mark.parametrize("model", MODELS)
def test_bayes_has_posteriors_of_factors_and_a_point_of_the_content(dataset, split, model):
    for more in ({}, {"diagonal": True}):
        fit = fitted(dataset, split, model, mode="bayes", **more)
        assert not bool(fit.posterior.z_scale.any())
        mean, sd = fit.posterior.score([0, 1], [2, 3])
        assert bool((sd > 0).all()) and bool(torch.isfinite(mean).all())
        drawn = fit.posterior.sample(3, 0)
        assert torch.equal(drawn["z"][0], fit.posterior.z_loc)


@pytest.mark.parametrize("model", MODELS)
def test_stars_with_biases(dataset, model):
    from pyro_cvae.data.simulated import simulated_stars
    from pyro_cvae.data.splits import held_out_cells

    stars = simulated_stars(0, n_users=40, n_items=50, n_words=40)
    fit = fitted(stars, held_out_cells(stars, 0.2, 0), model, mode="bayes", rating_likelihood="normal")
    assert fit.metrics["rmse"] < 2 and fit.posterior.biases()


@pytest.mark.parametrize("model", MODELS)
def test_a_new_item_is_where_its_content_says(dataset, split, model):
    fit = fitted(dataset, split, model, mode="bayes")
    loc, scale = fit.encode(dataset.content.counts[:5])
    assert loc.shape == (5, 4) and torch.allclose(scale, torch.full_like(scale, fit.posterior.lambda_v**-0.5))
    if model != "ctr":  # of whose items of the fit the ratings say something too
        assert torch.allclose(loc, fit.posterior.z_loc[:5], atol=1e-9)


def _observations(fit):
    likelihood = content_likelihood_of(fit.options.model)
    found, _ = observe(fit.dataset, fit.split, likelihood, fit.options.model, fit.options.data.scaling)
    return found.to(dtype=torch.float64)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("svi", {"model": "deepmusic"}, "fitted in stages"),
        ("mcmc", {"model": "deepmusic", "mode": "bayes"}, "fitted in stages"),
        ("coordinate", {"model": "ctr", "content_likelihood": "bernoulli"}, "of words, not of bernoulli"),
        ("coordinate", {"model": "cdl", "mode": "bayes", "guide": "structured"}, "no z"),
        ("svi", {"model": "ctr", "mode": "bayes", "guide": "structured"}, "no z"),
    ],
)
def test_what_they_cannot_do_is_refused_before_any_work(method, options, said):
    with pytest.raises(InputError, match=said):
        Options.of(method, **options)


@pytest.mark.parametrize(
    ("model", "argument", "said"),
    [
        ("ctr", {"alpha": 0.5}, "alpha is 0.5"),
        ("ctr", {"eta": -1.0}, "eta is -1"),
        ("cdl", {"noise": 1.0}, "noise is 1"),
    ],
)
def test_arguments_outside_their_range_are_refused(dataset, split, model, argument, said):
    with pytest.raises(InputError, match=said):
        fitted(dataset, split, model, model_args=argument)


def test_rankings_of_cold_items(dataset, split):
    """Items without ratings are ranked by their content: no two of them alike."""
    for model in MODELS:
        fit = fitted(dataset, split, model)
        cold = torch.as_tensor(split.train.item_counts == 0)
        if int(cold.sum()) > 1:
            assert len(fit.posterior.v_loc[cold].unique(dim=0)) > 1
        assert len(recommend(fit, [dataset.user_ids[0]], top=5)) == 5


def test_topics_are_saved_with_a_run(dataset, split, tmp_path):
    from inference.loading import load

    fit = fitted(dataset, split, "ctr", out=str(tmp_path / "run"))
    again = load(tmp_path / "run")
    assert torch.equal(again.model.item_prior.theta, fit.model.item_prior.theta)
    assert torch.equal(again.posterior.z_loc, fit.model.item_prior.theta)
    assert replace(again.options.model) == replace(fit.options.model)
