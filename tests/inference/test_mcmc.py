"""Gibbs and Hamiltonian steps against the Pyro program's log joint and posteriors known exactly; runs and refusals."""

import math

import pytest
import torch
from scipy.stats import norm
from torch.distributions import MultivariateNormal

import inference
from inference.algorithms import mcmc
from inference.algorithms.half_steps import half_step
from inference.algorithms.mcmc import MCMC, draw_rows, log_densities
from inference.algorithms.sides import background_of
from inference.draws import Draws
from inference.evaluation.rankings import evaluate
from inference.fit_command import run_fit
from inference.options import Options
from inference.recommending import recommend
from models.contents.normal import Normal
from models.cvae import CVAE, VAE
from models.gaussians import Gaussians
from models.networks.base import Decoder, Encoder
from models.observations import Observations, SparseRows
from models.ratings.base import RatingLikelihood
from models.ratings.confidence_normal import ConfidenceNormal
from pyro_cvae.data.simulated import simulated
from pyro_cvae.errors import InputError
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, N_WORDS, toy_columns, toy_model, toy_observations

TOY = {"factors": N_FACTORS, "hidden": (6, 5), "pretrain_epochs": 1, "dtype": "float64", "batch_size": 4}
ZEROS = "tests.models.plugged_ratings.OwnZeros"
TOY |= {"draws": 2, "warmup": 2, "chains": 2}


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def toy(make=toy_model, observations=None, **changes):
    """The algorithm on the toy catalogue and its state before the first sweep, without pre-training."""
    options = Options.of("mcmc", **TOY | {"pretrain_epochs": 0} | changes)
    algorithm = MCMC(make, toy_observations() if observations is None else observations, options)
    state = algorithm.pretraining(make())
    state = algorithm.joint(state)
    state.model.eval()
    return algorithm, state


def joint(algorithm, state, chain=0, **values):
    """Log p(R, X, U, V, Z) of a chain in nats, some of its factors given by ``values``."""
    drawn = {name: values.get(name, draw[chain]) for name, draw in state.chains.items()}
    return sum(part.sum() for part in log_densities(state.model, algorithm.catalogue, drawn).values())


# --- the conditionals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["u", "v"])
def test_a_conditional_is_the_log_joints_quadratic(double, side):
    """At its mean the gradient of the Pyro log joint vanishes; minus the Hessian is its precision."""
    algorithm, state = toy()
    model, b = state.model, state.model.ratings.background
    cells = {"u": algorithm.user_cells, "v": algorithm.item_cells}
    other = "v" if side == "u" else "u"
    given = Gaussians(state.chains[other][0])
    precision, prior = (model.lambda_u, None) if side == "u" else (model.lambda_v, state.chains["z"][0])
    rows = half_step(cells[side], given, cells[other].observed, b, precision, prior, family="full").rows
    value = rows.loc.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(joint(algorithm, state, **{side: value}), value)
    assert gradient.abs().max() < 1e-10
    hessian = torch.autograd.functional.hessian(lambda x: joint(algorithm, state, **{side: x}), value)
    for row in range(len(value)):
        torch.testing.assert_close(-hessian[row, :, row].inverse(), rows.covariance[rows.block[row]])
        hessian[row, :, row] = 0.0
    assert hessian.abs().max() < 1e-10  # rows of a side are independent given the other


def test_a_draw_is_the_mean_plus_a_root_of_the_covariance_times_noise(double, monkeypatch):
    algorithm, state = toy()
    rows = half_step(
        algorithm.item_cells, Gaussians(state.chains["u"][0]), algorithm.user_cells.observed, 0.05, 3.0, family="full"
    ).rows
    roots = []
    for k in range(N_FACTORS):
        monkeypatch.setattr(torch, "randn_like", lambda x, k=k: torch.eye(N_FACTORS)[k].expand_as(x))
        roots.append(draw_rows(rows) - rows.loc)
    root = torch.stack(roots, -1)
    torch.testing.assert_close(root @ root.mT, rows.covariance[rows.block], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "ratings", [{}, {"b_power": 0.7}, {"rating_likelihood": ZEROS, "rating_likelihood_args": {"shift": 0.7}}]
)
def test_a_sweep_without_noise_ends_at_the_means_of_the_conditionals(double, monkeypatch, ratings):
    """Of both chains: u is at the mode given the v before, v at the mode given u and z."""
    algorithm, state = toy(lambda: toy_model(**ratings))
    before = {name: draw.clone() for name, draw in state.chains.items()}
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    algorithm.sweep(state)
    assert not torch.equal(state.chains["z"], before["z"])
    for chain in range(2):
        u, v = (state.chains[name][chain].clone().requires_grad_() for name in "uv")
        (gradient,) = torch.autograd.grad(joint(algorithm, state, chain, u=u, v=before["v"][chain]), u)
        assert gradient.abs().max() < 1e-10
        (gradient,) = torch.autograd.grad(joint(algorithm, state, chain, v=v), v)
        assert gradient.abs().max() < 1e-10


def captured(algorithm, state, monkeypatch):
    """The log density of z that the Hamiltonian steps of a sweep are given, of all chains' items."""
    found = []

    def keep(log_density, z, scale, size, n_leapfrog):
        found.append(log_density)
        return z, torch.ones(len(z))

    with monkeypatch.context() as patch:
        patch.setattr(mcmc, "hamiltonian", keep)
        algorithm.sweep(state)
    return found[0]


@pytest.mark.parametrize("b_power", [0.0, 0.7])
def test_the_density_of_z_is_the_pyro_joint_with_v_integrated_out(double, monkeypatch, b_power):
    """The ratings' part is that of dense Normals R_j ~ N(U z_j, 1 / C_j + U U' / lambda_v); gradients by autograd too.

    The gradient of log int p dv in z is that of log p at the conditional mean of v, which is where v moves with z.
    """
    algorithm, state = toy(lambda: toy_model(b_power=b_power))
    model = state.model
    log_density = captured(algorithm, state, monkeypatch)
    ratings, confidences = model.ratings.weighed(toy_columns()).dense(model.ratings.background)
    values = []
    for seed in range(4):
        z = torch.randn(2, N_ITEMS, N_FACTORS, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        total = log_density(z.flatten(0, 1)).view(2, N_ITEMS)
        (gradient,) = torch.autograd.grad(total.sum(), z)
        own = []
        for chain in range(2):
            u = state.chains["u"][chain]
            densities = log_densities(
                model, algorithm.catalogue, {"u": u, "v": torch.zeros_like(z[chain]), "z": z[chain]}
            )
            items = []
            for j in range(N_ITEMS):
                there = confidences[j] > 0
                covariance = torch.diag(1 / confidences[j, there]) + u[there] @ u[there].mT / model.lambda_v
                dense = MultivariateNormal(u[there] @ z[chain, j], covariance) if there.any() else None
                items.append(dense.log_prob(ratings[j, there]) if dense else torch.zeros(()))
            own.append(torch.stack(items) + densities["z"] + densities["x"])
            users, seen = Gaussians(u), algorithm.user_cells.observed
            args = (users, seen, background_of(algorithm.site, False), model.lambda_v, z[chain].detach())
            v = half_step(algorithm.item_cells, *args, family="full").rows.loc
            at_mean = sum(
                part.sum()
                for part in log_densities(model, algorithm.catalogue, {"u": u, "v": v, "z": z[chain]}).values()
            )
            (expected,) = torch.autograd.grad(at_mean, z, retain_graph=True)
            torch.testing.assert_close(gradient[chain], expected[chain], rtol=1e-9, atol=1e-10)
        values.append((total - torch.stack(own)).detach())
    for other in values[1:]:
        torch.testing.assert_close(other, values[0], rtol=0, atol=1e-9)  # up to a constant of each item


def test_the_log_joint_of_a_step_is_the_sum_over_all_sites(double):
    algorithm, state = toy()
    state, info = algorithm.step(state)
    chains = torch.stack([joint(algorithm, state, chain) for chain in range(2)])
    assert info.objective == pytest.approx(chains.mean().item(), rel=1e-12)
    assert set(info.terms) == {"ratings", "content", "log_p_u", "log_p_v", "log_p_z"}
    assert sum(info.terms.values()) == pytest.approx(info.objective, rel=1e-12)


# --- Hamiltonian steps -----------------------------------------------------------------------------------------------


class Linear(Decoder):
    """x = W z + c: with Normal content the posterior of z is Normal."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(N_WORDS, N_FACTORS, generator=generator, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.randn(N_WORDS, generator=generator, dtype=torch.float64))

    def forward(self, z, columns=None):
        return {"loc": z @ self.weight.mT + self.bias}


class Vague(Encoder):
    """An encoder that knows nothing."""

    def __init__(self):
        super().__init__()
        self.width = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, content):
        shape = (len(content), N_FACTORS)
        return self.width.new_zeros(shape), self.width.expand(shape)


def linear_model():
    content = VAE(N_FACTORS, Vague(), Linear(), Normal(0.7))
    return CVAE(N_USERS, N_ITEMS, N_FACTORS, content, ConfidenceNormal(2.0, 0.05), lambda_u=0.8, lambda_v=3.0)


@pytest.mark.statistical
def test_linear_normal_content_and_fixed_users_have_the_exact_posterior(double, failure_rate):
    """With U fixed (z_j, v_j) is jointly Normal: means and covariances of 1,500 chains after 40 steps, two-sided."""
    x = torch.randn(N_ITEMS, N_WORDS, generator=torch.Generator().manual_seed(2))
    rows = SparseRows.from_dense(x)
    observations = Observations(rows, rows, toy_columns())
    n = 1500
    options = {"chains": n, "draws": 1, "warmup": 30, "content_likelihood": "normal"}
    algorithm, state = toy(linear_model, observations, **options)
    model = state.model
    u = torch.randn(N_USERS, N_FACTORS, generator=torch.Generator().manual_seed(3))
    cells, seen = (algorithm.item_cells, algorithm.user_cells.observed)
    given = half_step(cells, Gaussians(u), seen, model.ratings.background, model.lambda_v, family="full").rows
    covariance = given.covariance[given.block]
    for step in range(40):
        state.n_sweeps = step
        with torch.no_grad():
            algorithm._draw_content(state, given.loc.expand(n, -1, -1), covariance.expand(n, -1, -1, -1))
    z = state.chains["z"]
    with torch.no_grad():
        v = torch.stack([draw_rows(given) for _ in range(n)]) + model.lambda_v * torch.einsum(
            "jkl,njl->njk", covariance, z
        )

    ratings, confidences = toy_columns().dense(model.ratings.background)
    w, eye = model.decoder.weight.detach(), torch.eye(N_FACTORS)
    for j in range(N_ITEMS):
        on_v = (u.mT * confidences[j]) @ u + model.lambda_v * eye
        on_z = (1 + model.lambda_v) * eye + 0.7 * w.mT @ w
        precision = torch.cat(
            [torch.cat([on_z, -model.lambda_v * eye], 1), torch.cat([-model.lambda_v * eye, on_v], 1)]
        )
        shift = torch.cat([0.7 * w.mT @ (x[j] - model.decoder.bias.detach()), (u.mT * confidences[j]) @ ratings[j]])
        exact, loc = precision.inverse(), torch.linalg.solve(precision, shift)
        found = torch.cat([z[:, j], v[:, j]], 1)
        bound = norm.isf(failure_rate / 2 / (N_ITEMS * (6 + 36)))
        assert ((found.mean(0) - loc) / (exact.diagonal() / n).sqrt()).abs().max() < bound
        error = ((torch.outer(exact.diagonal(), exact.diagonal()) + exact**2) / n).sqrt()
        assert ((torch.cov(found.mT) - exact) / error).abs().max() < bound


def test_each_row_is_accepted_by_itself_and_energy_is_nearly_kept(double):
    """A row whose density is no number stays where it is; the others of a Normal are nearly always accepted."""
    z = torch.randn(500, 2)

    def log_density(z):
        return torch.where(torch.arange(500) == 7, torch.nan, -0.5 * z.square().sum(-1))

    drawn, acceptance = mcmc.hamiltonian(log_density, z, torch.ones_like(z), torch.full((500,), 0.3), 5)
    assert acceptance[7] == 0 and torch.equal(drawn[7], z[7]) and z.requires_grad is False
    moved = (drawn != z).any(-1)
    assert acceptance.min() == 0 and acceptance[torch.arange(500) != 7].min() > 0.8 and moved.sum() > 450
    exact = (z * math.cos(1.5) - drawn).norm(dim=-1)  # what momentum adds is sin(1.5) times a normal draw
    assert exact[moved].mean() == pytest.approx(math.sin(1.5) * math.sqrt(math.pi / 2), rel=0.1)


def test_step_sizes_are_found_in_the_warm_up_and_then_stay(double):
    algorithm, state = toy(warmup=25, draws=3, leapfrog=2)
    start = state.log_step.clone()
    assert start.unique().tolist() == pytest.approx([math.log(math.pi / 4)])
    state.log_step = start + 3.0  # far too large
    for _ in range(25):
        state, _ = algorithm.step(state)
    warm = state.log_step.clone()
    assert warm.max() <= start.max() and state.n_stored == 0
    for n in range(3):
        state, info = algorithm.step(state)
        assert info.phase == "draws" and state.n_stored == n + 1
        assert torch.equal(state.log_step, warm)
        for name, draw in state.chains.items():
            assert torch.equal(state.stored[name][:, n], draw)
    assert info.diagnostics["acceptance"] > 0.5


# --- fits and runs ---------------------------------------------------------------------------------------------------

SMALL = {"method": "mcmc", "factors": 3, "hidden": (6,), "train_per_user": 5, "lambda_u": 1.0, "a": 1.0, "b": 0.01}
SMALL |= {
    "pretrain_epochs": 3,
    "draws": 6,
    "warmup": 4,
    "chains": 2,
    "thin": 2,
    "threads": 1,
    "checkpoint_seconds": 0.0,
}


@pytest.fixture(scope="module")
def dataset():
    return simulated(n_users=40, n_items=60, n_words=40, n_factors=3)


def numbers(fit):
    history = [{name: value for name, value in row.items() if name != "seconds"} for row in fit.history]
    networks = {name: p.detach().clone() for name, p in fit.model.named_parameters()}
    return fit.posterior.tensors() | networks, history, fit.metrics


def assert_same(one, two):
    assert one[0].keys() == two[0].keys()
    for name, tensor in one[0].items():
        assert torch.equal(tensor, two[0][name]), name
    assert one[1:] == two[1:]


@pytest.mark.parametrize("stop", [2, 3, 5, 9])
def test_a_stopped_run_goes_on_to_the_same_numbers(dataset, tmp_path, killed, stop):
    """Stopped in pre-training, at its end, in the warm-up, between draws."""
    whole = numbers(inference.fit(dataset, **SMALL, out=tmp_path / "whole"))
    with killed(stop):
        inference.fit(dataset, **SMALL, out=tmp_path / "run")
    seen = []
    on_step = lambda step, n_steps, row: seen.append((step, n_steps))  # noqa: E731
    resumed = inference.fit(dataset, **SMALL, out=tmp_path / "run", resume=True, on_step=on_step)
    assert seen[0] == (stop + 1, 13)
    assert_same(whole, numbers(resumed))
    for name in ("posterior.safetensors", "metrics.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_a_run_is_opened_ranked_and_evaluated_like_any_other(dataset, tmp_path, caplog):
    fit = inference.fit(dataset, **SMALL, out=tmp_path / "run")
    assert "the chains disagree or are short: log_joint has R-hat" in caplog.text
    loaded = inference.load(tmp_path / "run")
    assert isinstance(loaded.posterior, Draws) and loaded.posterior.kind == loaded.options.kind == "draws"
    assert (loaded.posterior.n_chains, len(loaded.posterior)) == (2, 12)
    assert_same((numbers(fit)[0], fit.metrics), (numbers(loaded)[0], loaded.metrics))
    assert loaded.options == fit.options and loaded.options.objective == "log_joint"
    assert {"recall@50", "convergence", "recovery", "content"} <= fit.metrics.keys()
    found = evaluate(loaded.posterior.score_block, loaded.split).means()
    assert found["recall@50"] == pytest.approx(fit.metrics["recall@50"])
    table = recommend(loaded, [dataset.user_ids[3]], 4)
    items = dataset.item_rows(table["item"])
    mean, sd = loaded.posterior.score(3, items)
    assert table["score"].tolist() == pytest.approx(mean.tolist(), rel=1e-5)
    assert table["sd"].tolist() == pytest.approx(sd.tolist())
    draws = [row for row in fit.history if row["phase"] == "draws"]
    log_joint = fit.posterior.log_joint.view(2, 6).mean(0)
    assert [row["log_joint"] for row in draws] == pytest.approx(log_joint.tolist())
    u = fit.posterior.chains("u")
    assert not torch.equal(u[0, 0], u[1, 0]) and not torch.equal(u[0, 0], u[0, 1])


def test_thinning_keeps_every_second_draw(dataset):
    common = SMALL | {"thin": 1, "warmup": 6, "draws": 8}
    dense = inference.fit(dataset, **common).posterior.chains("v")
    thinned = inference.fit(dataset, **common | {"thin": 2, "warmup": 3, "draws": 4})
    assert torch.equal(thinned.posterior.chains("v"), dense[:, 1::2]) and len(thinned.history) == 3 + 3 + 4


def test_the_command_line(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["--data", "simulated-gaussian", "--factors", "2", "--hidden", "6", "--pretrain-epochs", "1", "--threads"]
    argv += ["1", "--draws", "5", "--warmup", "2", "--chains", "2", "--quiet", "--out", "run"]
    monkeypatch.setattr("sys.argv", ["inference.mcmc", *argv])
    assert run_fit("mcmc") == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "log joint, mean over chains, nats" in said and "score: largest R-hat" in said and "log_p_z" in said
    assert (tmp_path / "run" / "manifest.json").exists()


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"mode": "map"},
            "--mode is 'map', but it must be bayes in inference.mcmc; for points use",
        ),
        (
            {"lambda_r": 2.0},
            "--lambda-r is 2.0, but it must be 1 .*tempered .*no posterior; use inference.co",
        ),
        ({"kl_weight": 0.5}, "--kl-weight is 0.5, but it must be 1 .*tempered"),
        ({"guide": "structured"}, "--guide is 'structured', but it must be left out in inference.mcmc"),
        ({"parametrization": "non-centred"}, "--parametrization is 'non-centred', but it must be centred"),
        ({"patience": 2}, "--patience is 2, but it must be left out"),
        ({"draws": 0}, "--draws is 0, but it must be at least 1"),
        ({"max_memory": 0.0}, "--max-memory is 0.0"),
        ({"sweeps": 3}, "unknown option 'sweeps'"),
    ],
)
def test_options_that_do_not_go_together(wrong, words):
    with pytest.raises(InputError, match=words):
        Options.of("mcmc", **wrong)


@pytest.mark.parametrize("name", ["pseudo-multinomial", "pseudo-bernoulli"])
def test_a_content_without_a_normaliser_is_refused_and_nothing_is_written(dataset, tmp_path, name):
    with pytest.raises(InputError, match=f"{name} content has no normaliser.*inference.coordinate or inference.svi"):
        inference.fit(dataset, **SMALL, content_likelihood=name, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_data_that_are_too_large_are_refused(dataset, tmp_path):
    words = (
        r"2 chains with 500,000 stored draws of 40 users and 60 items take .* GiB, above --max-memory 2: .*small data"
    )
    with pytest.raises(InputError, match=words + "; use inference.coordinate or inference.svi, or fewer --draws"):
        inference.fit(dataset, **SMALL | {"draws": 500_000}, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_ratings_without_a_closed_form_are_refused():
    class SomeLikelihood(RatingLikelihood):
        def cell(self, score, confidence):
            raise NotImplementedError

    def make():
        model = toy_model()
        model.ratings = SomeLikelihood()
        return model

    with pytest.raises(InputError, match=r"SomeLikelihood has no closed form.*; use inference\.svi"):
        MCMC(make, toy_observations(), Options.of("mcmc", **TOY)).init()
