"""The variational modes against the posterior itself: ``python -m benchmarks.reference``.

The ratings of ``simulated-gaussian``, at the precisions they were drawn with, are fitted by every mode with the same
pre-trained networks, which are then held (a table is printed only if they are the same). Of every pair of user and
item the posterior mean and standard deviation of u.v are set against those of the draws of ``inference.mcmc``.
"""

from __future__ import annotations

from typing import Any

import torch

import inference
from benchmarks.study.arguments import add_threads, as_command, command
from benchmarks.study.tables import show, told
from pyro_cvae.data.registry import load_dataset

PRECISIONS = {"a": 1.0, "b": 0.01, "lambda_u": 1.0, "lambda_v": 10.0}
"""Of the simulation."""
HELD = {"epochs": 0, "sweeps": 50}
FITS: dict[str, dict[str, Any]] = {
    "coordinate, points": {"method": "coordinate", "mode": "map", **HELD},
    "coordinate, full": {"method": "coordinate", **HELD},
    "coordinate, diagonal": {"method": "coordinate", "diagonal": True, **HELD},
    "coordinate, structured": {"method": "coordinate", "guide": "structured", **HELD},
    "svi, mean-field": {"method": "svi", "learning_rate": 0.0},
    "svi, structured": {"method": "svi", "guide": "structured", "learning_rate": 0.0},
}
"""Networks held; the steps of u and v in SVI are their own."""
HEADINGS = ("mode", "|mean - mean| / sd, median", "90 %", "sd / sd, median", "5 %", "95 %", "covers 90 %")


def main(argv: list[str] | None = None) -> None:
    """Fit all modes and print one table."""
    parser = command("reference", __doc__)
    parser.add_argument("--draws", type=int, default=500, help="stored draws of each of four chains")
    parser.add_argument("--thin", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--pretrain-epochs", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=300, help="of u and v in SVI")
    add_threads(parser)
    arguments = parser.parse_args(argv)
    dataset = load_dataset("simulated-gaussian")
    shared = {"factors": 5, "hidden": (100, 50), "pretrain_epochs": arguments.pretrain_epochs, **PRECISIONS}
    shared |= {"threads": arguments.threads, "epochs": arguments.epochs}
    chains = {"draws": arguments.draws, "thin": arguments.thin, "warmup": arguments.warmup, "max_memory": 4.0}
    reference = inference.fit(dataset, method="mcmc", **shared, **chains)
    for name, worst in reference.metrics["convergence"].items():
        print(f"{name}: {told(worst, '.3f')}", flush=True)
    users, items = torch.arange(dataset.n_users)[:, None], torch.arange(dataset.n_items)
    assert dataset.truth is not None
    truth = torch.as_tensor(dataset.truth["scores"])
    mean, sd = reference.posterior.score(users, items)
    rows = [["mcmc", "", "", "", "", "", coverage(mean, sd, truth)]]
    for name, changes in FITS.items():
        fit = inference.fit(dataset, **shared | changes)
        pairs = zip(fit.model.parameters(), reference.model.parameters(), strict=True)
        if not all(torch.equal(one, two) for one, two in pairs):
            raise SystemExit(f"{name}: the networks are not those of the reference")
        away = (fit.posterior.mean_score(users, items) - mean).abs() / sd
        row = [name, *(f"{float(away.quantile(level)):.3f}" for level in (0.5, 0.9))]
        if not fit.posterior.is_point:
            own_mean, own_sd = fit.posterior.score(users, items)
            row += [f"{float((own_sd / sd).quantile(level)):.3f}" for level in (0.5, 0.05, 0.95)]
            row.append(coverage(own_mean, own_sd, truth))
        rows.append(row + [""] * (len(HEADINGS) - len(row)))
    show(HEADINGS, rows)
    held, known = fit.posterior, reference.posterior
    away = ((held.z_loc - known.z_loc).abs() / known.z_scale).median()
    wide = (held.z_scale / known.z_scale).median()
    print(f"z of the encoder, which all modes share: |mean - mean| / sd {away:.3f}, sd / sd {wide:.3f}, medians")


def coverage(mean: torch.Tensor, sd: torch.Tensor, truth: torch.Tensor) -> str:
    """Share of true scores within the central 90 % of a Normal."""
    return f"{float(((truth - mean).abs() <= 1.6449 * sd).double().mean()):.3f}"


if __name__ == "__main__":
    as_command(main)
