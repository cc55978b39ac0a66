"""A posterior of stored draws against loops over draws and pairs."""

import pytest
import torch

from inference.draws import Draws
from inference.posterior import Posterior
from inference.recommending.ranking import Candidates, above_probabilities, best_items, top_probabilities
from pyro_cvae.errors import InputError

N, N_USERS, N_ITEMS, K = 24, 4, 6, 3


@pytest.fixture
def draws():
    """u and v that depend on one another: a sign that both share, so that E[u.v] is far from E[u].E[v]."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.where(torch.rand(N, 1, 1, generator=generator) < 0.5, -1.0, 1.0).double()
    u, v, z = (torch.randn(N, n, K, generator=generator, dtype=torch.float64) for n in (N_USERS, N_ITEMS, N_ITEMS))
    log_joint = torch.randn(N, generator=generator, dtype=torch.float64)
    return Draws.of(sign * (u + 1), sign * (v + 1), z, log_joint, n_chains=3, lambda_v=7.0)


def brute_scores(draws):
    found = torch.zeros(N, N_USERS, N_ITEMS, dtype=torch.float64)
    for n in range(N):
        for i in range(N_USERS):
            for j in range(N_ITEMS):
                found[n, i, j] = sum(draws.u_draws[n, i, k] * draws.v_draws[n, j, k] for k in range(K))
    return found


def test_scores_are_those_of_every_draw(draws, monkeypatch):
    scores = brute_scores(draws)
    users, items = torch.arange(N_USERS)[:, None], torch.arange(N_ITEMS)
    mean, sd = scores.mean(0), scores.std(0)
    assert (draws.u_loc @ draws.v_loc.mT - mean).abs().max() > 1
    for floats in (2**25, 100, 1):  # all at once, and in parts
        monkeypatch.setattr("inference.draws.FLOATS_AT_ONCE", floats)
        for found, expected in zip(draws.score(users, items), (mean, sd), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(draws.mean_score(users, items), mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(draws.score_block([3, 1]), mean[[3, 1]], rtol=1e-12, atol=1e-12)
        found = draws.score_draws(users, items, N, seed=3)
        assert found.shape == (N, N_USERS, N_ITEMS)
        torch.testing.assert_close(found.sort(0).values, scores.sort(0).values, rtol=1e-12, atol=1e-12)
        together = found.sum((1, 2)).sort().values  # joint draws, not a mix of rows
        torch.testing.assert_close(together, scores.sum((1, 2)).sort().values, rtol=1e-12, atol=1e-12)
    single, _ = draws.score(2, 5)
    assert single.shape == () and single == pytest.approx(mean[2, 5].item())


def test_means_and_covariances_are_those_of_the_draws(draws):
    assert isinstance(draws, Posterior) and not draws.is_point and draws.kind == "draws" and len(draws) == N
    parts = {"u": draws.u_draws, "v": draws.v_draws, "z": draws.z_draws, "v_dagger": draws.v_draws - draws.z_draws}
    for name, stored in parts.items():
        torch.testing.assert_close(draws.mean(name), stored.mean(0))
        rows = [2, 0]
        for row, found in zip(rows, draws.covariance(name, rows), strict=True):
            torch.testing.assert_close(found, torch.cov(stored[:, row].mT))
        assert torch.equal(draws.covariance(name, 1), draws.covariance(name, [1])[0])
        assert torch.equal(draws.chains(name).flatten(0, 1), stored) and draws.chains(name).shape[:2] == (3, N // 3)
    torch.testing.assert_close(draws.z_scale, draws.z_draws.std(0))
    for ask in (draws.mean, draws.chains, lambda name: draws.covariance(name, 0)):
        with pytest.raises(InputError, match="latent"):
            ask("w")
    lone = Draws.of(draws.u_draws[:1], draws.v_draws[:1], draws.z_draws[:1])
    assert lone.score(0, 0)[1] == 0 and not lone.covariance("u", 0).any()


def test_every_draw_comes_as_often_as_any_other_and_whole(draws):
    sampled = draws.sample(2 * N + 5, seed=1)
    counts = torch.zeros(N, dtype=torch.int64)
    for u, v, z in zip(sampled["u"], sampled["v"], sampled["z"], strict=True):
        at = int((draws.u_draws == u).flatten(1).all(1).nonzero())
        assert torch.equal(draws.v_draws[at], v) and torch.equal(draws.z_draws[at], z)
        counts[at] += 1
    assert set(counts.tolist()) == {2, 3}
    parts = list(draws.draws(7, seed=1, at_once=3))
    assert [len(part["u"]) for part in parts] == [3, 3, 1]
    assert torch.equal(parts[0]["u"], sampled["u"][:3]) and torch.equal(parts[1]["v"], sampled["v"][3:6])
    assert not torch.equal(draws.sample(7, seed=2)["u"], sampled["u"][:7])
    users, items = torch.tensor([0, 3]), torch.tensor([5, 1])
    expected = (sampled["u"][:, users] * sampled["v"][:, items]).sum(-1)
    torch.testing.assert_close(draws.score_draws(users, items, 2 * N + 5, seed=1), expected)


def test_some_rows_are_the_draws_at_these_rows(draws):
    users, items = torch.tensor([3, 0, 3]), [5, 2]
    part = draws.select(users=users, items=items)
    assert torch.equal(part.u_draws, draws.u_draws[:, users]) and torch.equal(part.z_draws, draws.z_draws[:, items])
    for name, rows in (("u", users), ("v", items), ("z", items)):
        assert torch.equal(part.mean(name), draws.mean(name)[rows])
        assert torch.equal(part.covariance(name, range(len(rows))), draws.covariance(name, rows))
    assert torch.equal(part.z_scale, draws.z_scale[items]) and part.n_chains == 3 and part.lambda_v == 7.0
    torch.testing.assert_close(part.score_block([0, 1]), draws.score_block([3, 0])[:, items])
    assert torch.equal(draws.select(items=items).u_draws, draws.u_draws)


def test_tensors_come_back(draws):
    tensors = draws.tensors()
    assert {name for name in tensors if name.startswith("u_")} == {"u_draws"}
    again = Draws.from_tensors("draws", tensors | {"network.encoder": torch.zeros(2)})
    assert again.tensors().keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(again.tensors()[name], tensor)
    assert torch.equal(again.u_loc, draws.u_loc) and torch.equal(again.z_scale, draws.z_scale)
    assert (again.n_chains, again.lambda_v, again.kind) == (3, 7.0, "draws")


def test_blocks_of_scores_over_all_items(draws, monkeypatch):
    """Spread of every draw; a Thompson list is one draw of a user, and users have their own."""
    scores = brute_scores(draws)
    for floats in (2**25, 1):
        monkeypatch.setattr("inference.draws.FLOATS_AT_ONCE", floats)
        torch.testing.assert_close(draws.score_sd_block([3, 1]), scores.std(0)[[3, 1]], rtol=1e-12, atol=1e-12)
        users = [0, 2] * 50
        drawn = draws.drawn_score_block(users, seed=4)
        distance = (drawn[:, None] - scores[:, users].transpose(0, 1)).abs().amax(-1)
        assert (distance.amin(1) < 1e-12).all()
        assert len(distance.argmin(1).unique()) > N // 2


def test_rankings_read_the_stored_draws(draws):
    """All N draws are taken once, so that the chance of being listed is exactly the share of the draws."""
    scores = brute_scores(draws)
    users, candidates = torch.tensor([3, 1]), Candidates(torch.ones(N_ITEMS, dtype=torch.bool))
    items = torch.tensor([[0, 5], [2, 2]])
    listed = scores[:, users].topk(2).indices
    share = (listed[..., None, :] == items[None, :, :, None]).any(-1).double().mean(0)
    torch.testing.assert_close(top_probabilities(draws, users, items, 2, candidates, N, seed=0), share)
    above = (scores[:, users, 0] > scores[:, users, 4]).double().mean(0)
    torch.testing.assert_close(above_probabilities(draws, users, 0, 4, N, seed=1), above)
    values, best = best_items(draws, users, 3, candidates, ranking="ucb", kappa=2.0)
    ucb = (scores.mean(0) + 2 * scores.std(0))[users].topk(3)
    torch.testing.assert_close(values, ucb.values)
    assert torch.equal(best, ucb.indices)
    values, best = best_items(draws, users, N_ITEMS, candidates, ranking="thompson", seed=5)
    drawn = torch.zeros_like(values).scatter(1, best, values)
    assert ((drawn - scores[:, users]).abs().amax(-1).amin(0) < 1e-12).all()
