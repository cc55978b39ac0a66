"""R-hat and effective sample sizes against ArviZ's, one quantity at a time."""

import arviz_stats.base
import pytest
import torch

from inference.algorithms.convergence import convergence, diagnose, doubts
from inference.draws import Draws


def autoregressive(n_chains, n_draws, seed=0):
    """Quantities from antithetic to hardly moving, heavy tails, a chain that is elsewhere, and one of few values."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n_chains, n_draws, 8, generator=generator, dtype=torch.float64)
    rho = torch.tensor([-0.9, -0.3, 0.0, 0.5, 0.9, 0.99, 0.5, 0.3], dtype=torch.float64)
    draws = [noise[:, 0]]
    for t in range(1, n_draws):
        draws.append(rho * draws[-1] + noise[:, t])
    found = torch.stack(draws, 1)
    found[:, :, 2] = torch.tan(found[:, :, 2])
    found[0, :, 6] += 2.0
    found[:, :, 7] = found[:, :, 7].round()
    return found


@pytest.mark.parametrize(("n_chains", "n_draws"), [(4, 250), (2, 101), (3, 12)])
def test_the_numbers_are_those_of_arviz(n_chains, n_draws):
    draws = autoregressive(n_chains, n_draws)
    found = diagnose(draws)
    stats = arviz_stats.base.array_stats
    for index in range(draws.shape[2]):
        one = draws[:, :, index].numpy()
        assert float(found.rhat[index]) == pytest.approx(float(stats.rhat(one, method="rank")), rel=1e-12)
        assert float(found.ess_bulk[index]) == pytest.approx(float(stats.ess(one, method="bulk")), rel=1e-9)
        tail = stats.ess(one, method="tail", prob=(0.05, 0.95))
        assert float(found.ess_tail[index]) == pytest.approx(float(tail), rel=1e-9)


def test_what_never_changes_and_chains_that_each_stand_still():
    still = torch.zeros(3, 20, 2)
    still[:, :, 1] += torch.arange(3.0)[:, None]
    found = diagnose(still)
    assert found.rhat.tolist() == [1.0, float("inf")]
    assert found.ess_bulk[0] == found.ess_tail[0] == 60 and found.ess_bulk[1] < 10


def test_convergence_looks_at_joint_scores_and_factors():
    generator = torch.Generator().manual_seed(0)
    u, v, z = (torch.randn(2 * 50, rows, 2, generator=generator) for rows in (3, 4, 4))
    u[:50, 1] += 3.0
    draws = Draws.of(u, v, z, torch.randn(100, generator=generator).double(), n_chains=2)
    found = convergence(draws)
    assert set(found) == {"log_joint", "score", "u", "v", "z"}
    scores = torch.einsum("nik,njk->nij", u, v).view(2, 50, 12)
    assert found["score"] == diagnose(scores).worst()
    assert found["u"] == diagnose(u.view(2, 50, 6)).worst() and found["u"]["rhat"] > 1.5 > found["z"]["rhat"]
    assert convergence(Draws.of(u[:6], v[:6], z[:6], n_chains=2)) == {}


def test_doubts_name_what_disagrees():
    fine = {"rhat": 1.01, "ess_bulk": 900.0, "ess_tail": 800.0}
    assert doubts({"log_joint": fine, "score": fine, "u": fine | {"rhat": 3.0}}, 4) == ""
    assert doubts({"log_joint": fine, "score": fine | {"rhat": 1.2}}, 4).startswith("score has R-hat 1.20")
    assert doubts({"log_joint": fine | {"ess_tail": 300.0}}, 4).startswith("log_joint") and not doubts({}, 4)
