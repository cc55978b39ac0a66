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
DEVICES = ("cpu", "cuda")
HOW: dict[str, Any] = {"factors": 4, "hidden": [8], "dtype": "float64", "train_per_user": 5}
HELD: dict[str, Any] = {"method": "coordinate", "pretrain_epochs": 0, "epochs": 0, "sweeps": 4}
SWEEPS: dict[str, dict[str, Any]] = {
    "map": {"mode": "map"},
    "full": {"mode": "bayes"},
    "diagonal": {"mode": "bayes", "diagonal": True},
    "structured": {"mode": "bayes", "guide": "structured"},
    "bound": {"mode": "bayes", "rating_likelihood": "bernoulli-bound"},
}


@pytest.mark.parametrize("kind", SWEEPS)
def test_sweeps_on_a_gpu_come_to_the_numbers_of_the_cpu(kind: str) -> None:
    dataset = simulated(n_users=80, n_items=120, n_words=90, n_factors=3, clicks_per_user=20)
    found = [inference.fit(dataset, device=device, **(HOW | HELD | SWEEPS[kind])).posterior for device in DEVICES]
    assert found[1].u_loc.device.type == "cpu"
    for name in ("u_loc", "v_loc"):
        torch.testing.assert_close(*(getattr(q, name) for q in found), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mode", ["map", "bayes"])
def test_gradients_on_a_gpu_leave_a_posterior_of_numbers(mode: str) -> None:
    """Its random numbers are others than the CPU's."""
    dataset = simulated(n_users=80, n_items=120, n_words=90, n_factors=3, clicks_per_user=20)
    q = inference.fit(dataset, method="svi", mode=mode, device="cuda", pretrain_epochs=1, epochs=2, **HOW).posterior
    assert q.u_loc.device.type == "cpu" and bool(q.u_loc.isfinite().all() and q.v_loc.isfinite().all())


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
        for device in DEVICES:
            cells = Cells.of_items(columns.to(device), 0.01)
            everybody = torch.ones(30, dtype=torch.bool, device=device)
            rows = half_step(cells, Gaussians(u.to(device)), everybody, 0.01, 2.0, z.to(device), family=family).rows
            found.append((rows.loc.cpu(), rows.variances().cpu()))
        torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)
