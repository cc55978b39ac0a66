"""Posterior scores, covariances and draws against each other and against exact posteriors."""

import pytest
import torch
from torch.distributions import Normal

from inference.algorithms.guides import item_conditional
from inference.algorithms.networks import encode
from inference.fitting import ALGORITHMS
from inference.options import Options
from inference.posterior import Posterior, content_diagnostics
from models.build import make_model
from models.contents.multinomial import Multinomial
from models.gaussians import Gaussians
from pyro_cvae.errors import InputError
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, N_WORDS, ToyOptions, toy_observations

KINDS = {
    "point": {"mode": "map"},
    "mean-field": {"mode": "bayes"},
    "structured": {"mode": "bayes", "guide": "structured"},
    "full": {"method": "coordinate", "mode": "bayes"},
}


def fitted(kind, parametrization="centred", epochs=3, **changes):
    common = {"epochs": epochs, "pretrain_epochs": 1, "dtype": "float64", "factors": N_FACTORS, "batch_size": 4}
    options = Options.of(**common | KINDS[kind] | changes)
    observations = toy_observations()
    make = lambda: make_model(  # noqa: E731
        N_USERS, N_ITEMS, N_WORDS, Multinomial(), ToyOptions(parametrization=parametrization)
    ).double()
    algorithm = ALGORITHMS[options.method_name](make, observations, options)
    state = algorithm.init()
    for _ in range(algorithm.n_steps):
        state, _ = algorithm.step(state)
    posterior = algorithm.posterior(state)
    assert posterior.kind == kind
    return algorithm, state, posterior


UNCERTAIN = [("mean-field", {}), ("structured", {}), ("full", {}), ("structured", {"method": "coordinate"})]


@pytest.mark.parametrize(("kind", "changes"), UNCERTAIN)
def test_variance_of_a_score_equals_the_formula(kind, changes):
    """var(u.v) = m_u' S_v m_u + m_v' S_u m_v + tr(S_u S_v)."""
    _, _, posterior = fitted(kind, **changes)
    users, items = torch.arange(N_USERS)[:, None], torch.arange(N_ITEMS)
    mean, sd = posterior.score(users, items)
    u, v = posterior.u_loc, posterior.v_loc
    s_u, s_v = posterior.covariance("u", range(N_USERS)), posterior.covariance("v", range(N_ITEMS))
    for i in range(N_USERS):
        for j in range(N_ITEMS):
            exact = u[i] @ s_v[j] @ u[i] + v[j] @ s_u[i] @ v[j] + (s_u[i] * s_v[j]).sum()
            torch.testing.assert_close(sd[i, j] ** 2, exact, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mean, posterior.score_block(range(N_USERS)))
    torch.testing.assert_close(posterior.mean_score(users, items), mean)


@pytest.mark.parametrize(("kind", "changes"), UNCERTAIN)
def test_scores_in_chunks_of_pairs_are_the_same(kind, changes, monkeypatch):
    _, _, posterior = fitted(kind, **changes)
    users, items = torch.arange(N_USERS)[:, None], torch.arange(N_ITEMS)
    whole = posterior.score(users, items)
    for size in (1, 5, N_USERS * N_ITEMS - 1):
        monkeypatch.setattr("inference.posterior.PAIRS_AT_ONCE", size)
        monkeypatch.setattr("models.gaussians.COVARIANCES_AT_ONCE", size * N_FACTORS**2)
        for part, one in zip(posterior.score(users, items), whole, strict=True):
            assert part.shape == (N_USERS, N_ITEMS)
            torch.testing.assert_close(part, one, rtol=1e-13, atol=1e-14)


def test_covariances_are_those_of_the_state():
    """Rows of q(U) and q(V) by block, of v under q(z) too; z and v_dagger as ever."""
    _, state, posterior = fitted("full")
    for name, rows in (("u", state.users), ("v", state.items)):
        assert torch.equal(posterior.covariance(name, range(len(rows.loc))), rows.covariance[rows.block])
        assert torch.equal(posterior.covariance(name, 3), rows.covariance[rows.block[3]])
    assert posterior.v.block[2] == len(posterior.v.covariance) - 1
    with pytest.raises(InputError, match="no covariance is kept of 'v_dagger'"):
        posterior.covariance("v_dagger", 0)
    _, state, posterior = fitted("structured", method="coordinate")
    s, z_var = state.items.covariance[state.items.block], posterior.z_scale.square()
    slope = state.model.lambda_v * s
    torch.testing.assert_close(posterior.covariance("v", range(N_ITEMS)), s + (slope * z_var[:, None]) @ slope.mT)


@pytest.mark.statistical
@pytest.mark.parametrize(("kind", "changes"), [*UNCERTAIN, ("mean-field", {"parametrization": "non-centred"})])
def test_draws_have_the_posteriors_moments(kind, changes, failure_rate):
    _, _, posterior = fitted(kind, **changes)
    n = 20_000
    draws = posterior.sample(n, seed=0)
    bound = -Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 600))
    for name, rows in (("u", N_USERS), ("v", N_ITEMS), ("z", N_ITEMS)):
        covariance = posterior.covariance(name, range(rows))
        variance = covariance.diagonal(dim1=-2, dim2=-1)
        z = (draws[name].mean(0) - posterior.mean(name)) / (variance / n).sqrt()
        assert z.abs().max() < bound
        centred = draws[name] - draws[name].mean(0)
        found = torch.einsum("nrk,nrl->rkl", centred, centred) / (n - 1)
        error = (variance[:, :, None] * variance[:, None, :] + covariance**2).sqrt() / n**0.5
        assert ((found - covariance) / error).abs().max() < bound
    scores = torch.einsum("nik,njk->nij", draws["u"], draws["v"])
    mean, sd = posterior.score(torch.arange(N_USERS)[:, None], torch.arange(N_ITEMS))
    assert ((scores.mean(0) - mean) / (sd / n**0.5)).abs().max() < bound


@pytest.mark.statistical
def test_structured_draws_of_v_follow_z(failure_rate):
    """cov(v, z) = lambda_v S diag(sigma^2), S the covariance of v given z."""
    svi, state, posterior = fitted("structured")
    n = 20_000
    draws = posterior.sample(n, seed=1)
    part = state.guide[0]
    batch = svi.observations.batch(torch.arange(N_ITEMS))
    tril, _ = item_conditional(state.model, Gaussians(part.loc.detach(), part.scale.detach().square()), batch)
    expected = state.model.lambda_v * torch.cholesky_inverse(tril) * posterior.z_scale.square()[:, None, :]
    v, z = draws["v"] - draws["v"].mean(0), draws["z"] - draws["z"].mean(0)
    found = torch.einsum("njk,njl->jkl", v, z) / (n - 1)
    spread = posterior.covariance("v", range(N_ITEMS)).diagonal(dim1=-2, dim2=-1)[:, :, None]
    error = ((spread * posterior.z_scale.square()[:, None, :] + expected**2) / n).sqrt()
    bound = -Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / expected.numel()))
    assert ((found - expected) / error).abs().max() < bound


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_without_a_column_is_its_content(kind):
    """Masked, the item that nobody rated has v around mu; in the structured guide with what the content leaves open."""
    svi, state, posterior = fitted(kind)
    loc, scale = encode(state.model, svi.observations)
    torch.testing.assert_close(posterior.v_loc[2], loc[2])
    if kind == "structured":
        expected = torch.diag(scale[2].square() + 1 / state.model.lambda_v)
        torch.testing.assert_close(posterior.covariance("v", 2), expected)
    elif kind != "point":
        torch.testing.assert_close(posterior.covariance("v", 2), torch.eye(N_FACTORS).double() / state.model.lambda_v)


def test_a_point_refuses_an_uncertainty():
    _, _, posterior = fitted("point")
    for ask in (
        lambda: posterior.score(0, 0),
        lambda: posterior.covariance("v", 0),
        lambda: posterior.covariance("u", 0),
    ):
        with pytest.raises(InputError, match="--mode bayes"):
            ask()
    assert posterior.covariance("z", 0).shape == (N_FACTORS, N_FACTORS)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_come_back(kind):
    _, _, posterior = fitted(kind)
    again = Posterior.from_tensors(kind, posterior.tensors())
    for name, tensor in posterior.tensors().items():
        assert torch.equal(again.tensors()[name], tensor)
    torch.testing.assert_close(again.mean("v_dagger"), posterior.v_loc - posterior.z_loc)
    with pytest.raises(InputError, match="latent"):
        posterior.mean("w")


def test_content_diagnostics_of_known_posteriors():
    torch.manual_seed(0)
    dead = content_diagnostics(torch.zeros(500, 4), torch.ones(500, 4))
    assert dead == pytest.approx({"kl": 0, "active_units": 0, "active_axes": 0, "mutual_information": 0}, abs=1e-6)
    loc = torch.randn(500, 4)
    loc[:, 3] = 0
    alive = content_diagnostics(loc, torch.full((500, 4), 1e-3))
    assert alive["active_units"] == alive["active_axes"] == 3
    assert alive["mutual_information"] == pytest.approx(torch.tensor(500.0).log().item(), abs=1e-3)
    rotated = content_diagnostics(loc @ torch.linalg.qr(torch.randn(4, 4)).Q, torch.full((500, 4), 1e-3), n_draws=0)
    assert rotated["active_units"] == 3 and rotated["active_axes"] == 4


@pytest.mark.parametrize(("kind", "changes"), [("point", {}), *UNCERTAIN])
def test_some_rows_are_the_whole_posterior_at_these_rows(kind, changes):
    """Rows out of order, one of them twice, rows that share a covariance among them."""
    _, _, posterior = fitted(kind, **changes)
    users, items = torch.tensor([4, 0, 4]), torch.tensor([2, 5, 0])
    part = posterior.select(users=users, items=items)
    for name, rows in (("u", users), ("v", items), ("z", items)):
        assert torch.equal(part.mean(name), posterior.mean(name)[rows])
        if not posterior.is_point:
            assert torch.equal(part.covariance(name, range(3)), posterior.covariance(name, rows))
    if not posterior.is_point:
        for mine, whole in zip(part.score(range(3), range(3)), posterior.score(users, items), strict=True):
            torch.testing.assert_close(mine, whole)
    assert torch.equal(posterior.select(items=items).u_loc, posterior.u_loc)
    draws = part.sample(2000, seed=3)
    names = ("u", "v", "z", "v_dagger")
    assert {name: tuple(draw.shape) for name, draw in draws.items()} == dict.fromkeys(names, (2000, 3, N_FACTORS))


@pytest.mark.parametrize(("kind", "changes"), [("point", {}), *UNCERTAIN])
def test_draws_come_in_parts_and_the_first_is_the_sample(kind, changes):
    _, _, posterior = fitted(kind, **changes)
    parts = list(posterior.draws(7, seed=1, at_once=3))
    assert [len(part["u"]) for part in parts] == [3, 3, 1]
    sampled = posterior.sample(3, seed=1)
    assert torch.equal(sampled["v_dagger"], sampled["v"] - sampled["z"])
    for name, draw in ((name, sampled[name]) for name in "uvz"):
        assert torch.equal(parts[0][name], draw)
        if name == "z":
            assert not torch.equal(parts[0][name], parts[1][name])


@pytest.mark.statistical
@pytest.mark.parametrize(("kind", "changes"), [("point", {}), *UNCERTAIN])
def test_draws_of_scores_have_the_scores_moments(kind, changes, monkeypatch, failure_rate):
    """Two-sided, twelve comparisons a case, of pairs that repeat users and items, drawn in parts."""
    _, _, posterior = fitted(kind, **changes)
    users, items = torch.tensor([[1], [0]]), torch.tensor([3, 2, 3])
    monkeypatch.setattr("inference.posterior.FLOATS_AT_ONCE", 40_000)
    draws = posterior.score_draws(users, items, 4000, seed=2)
    assert draws.shape == (4000, 2, 3)
    assert torch.equal(draws[:, :, 0], draws[:, :, 2])  # one pair asked for twice is one pair
    if posterior.is_point:
        assert torch.equal(draws, posterior.mean_score(users, items).expand(4000, -1, -1))
        return
    mean, sd = posterior.score(users, items)
    bound = -Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 24, dtype=torch.float64))
    assert ((draws.mean(0) - mean).abs() < bound * sd / 4000**0.5).all()
    kurtosis = ((draws - mean) ** 4).mean(0) / sd**4
    assert ((draws.var(0) / sd**2 - 1).abs() < bound * ((kurtosis - 1) / 4000).sqrt()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standard_deviations_come_back_to_the_bit(dtype):
    """Rows hold variances: the root of a rounded square is the number itself."""
    generator = torch.Generator().manual_seed(0)
    scales = 10 ** (30 * torch.rand(3, 10_000, 2, generator=generator, dtype=torch.float64) - 15)
    names = ("u_scale", "v_scale", "z_scale")
    tensors = {name: scale.to(dtype) for name, scale in zip(names, scales, strict=True)}
    tensors |= {name.replace("scale", "loc"): torch.zeros_like(scale) for name, scale in tensors.items()}
    again = Posterior.from_tensors("mean-field", tensors | {"lambda_v": torch.tensor(1.0)})
    for name in names:
        assert torch.equal(again.tensors()[name], tensors[name]) and torch.equal(getattr(again, name), tensors[name])
