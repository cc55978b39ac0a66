"""What fits on a GPU come to is what they come to on the CPU; skipped where torch finds no GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import inference
from pyro_cvae.data.simulated import simulated

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine"),
]
HOW: dict[str, Any] = {"factors": 4, "hidden": [8], "pretrain_epochs": 2, "dtype": "float64", "train_per_user": 5}
FITS: dict[str, dict[str, Any]] = {
    "map": {"method": "coordinate", "mode": "map", "epochs": 0, "learning_rate": 0.0},
    "full": {"method": "coordinate", "mode": "bayes", "epochs": 0, "learning_rate": 0.0},
    "diagonal": {"method": "coordinate", "mode": "bayes", "diagonal": True, "epochs": 0},
    "structured": {"method": "coordinate", "mode": "bayes", "guide": "structured", "epochs": 1},
    "bound": {"method": "coordinate", "mode": "bayes", "rating_likelihood": "bernoulli-bound"},
    "svi, map": {"method": "svi", "mode": "map", "epochs": 2},
    "svi, mean-field": {"method": "svi", "mode": "bayes", "epochs": 2},
}


@pytest.mark.parametrize("kind", FITS)
def test_a_gpu_ranks_as_the_cpu_does(kind: str) -> None:
    """Its random numbers are others, so that scores agree in their order and not in their digits."""
    dataset = simulated(n_users=80, n_items=120, n_words=90, n_factors=3, clicks_per_user=20)
    scores = []
    for device in ("cpu", "cuda"):
        found = inference.fit(dataset, device=device, **(HOW | FITS[kind]))
        q = found.posterior
        assert q.u_loc.device.type == "cpu"
        scores.append((q.u_loc @ q.v_loc.T).double().flatten())
    assert float(torch.corrcoef(torch.stack(scores))[0, 1]) > 0.8


def test_half_steps_on_a_gpu_are_those_on_the_cpu() -> None:
    from inference.algorithms.cells import Cells
    from inference.algorithms.half_steps import half_step
    from models.gaussians import Gaussians
    from models.observations import RatingColumns

    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 12, (40,), generator=generator)
    users = torch.cat([torch.randperm(30, generator=generator)[: int(n)].sort().values for n in lengths])
    indptr = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    ones = torch.ones(len(users), dtype=torch.float64)
    columns = RatingColumns(indptr, users, ones, 100 * ones, lengths > 0, 30)
    z = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    u = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    for family in ("point", "diagonal", "full"):
        found = []
        for device in ("cpu", "cuda"):
            cells = Cells.of_items(columns.to(device), 0.01)
            everybody = torch.ones(30, dtype=torch.bool, device=device)
            rows = half_step(cells, Gaussians(u.to(device)), everybody, 0.01, 2.0, z.to(device), family=family).rows
            found.append((rows.loc.cpu(), rows.variances().cpu()))
        torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)
