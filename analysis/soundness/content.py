"""Which units of q(z|x) are alive."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from analysis.plots import figure
from inference.fitting import Fit
from pyro_cvae.errors import InputError


def content_units(fit: Fit) -> tuple[pd.DataFrame, Any]:
    """KL of each unit of q(z|x), and the eigenvalues of the means' covariance; a table and a figure.

    Columns: ``kl``, the mean over items of KL(q(z_k|x) || p(z_k)) in nats, and ``eigenvalue`` of the covariance of the
    means over items, both in falling order, so that a row pairs the k-th largest of each, not one unit with another.
    Raises InputError for a model without such a q.
    """
    if not fit.model.item_prior.latent:
        problem = f"{type(fit.model).__name__} has no q(z|x) whose units could be looked at"
        raise InputError(problem, "fit a model that has, for instance --model cvae")
    loc, scale = fit.posterior.z_loc.double(), fit.posterior.z_scale.double()
    kl = (0.5 * (loc.square() + scale.square() - 1) - scale.log()).mean(0).sort(descending=True).values
    eigenvalues = torch.linalg.eigvalsh(torch.atleast_2d(torch.cov(loc.mT))).flip(0)
    table = pd.DataFrame({"kl": kl.numpy(), "eigenvalue": eigenvalues.numpy()}, index=pd.RangeIndex(1, 1 + len(kl)))
    drawn, axes = figure(2, 1, width=4.6, height=3.2)
    left, right = axes[0]
    left.bar(table.index, table["kl"], width=0.8)
    left.set(xlabel="unit, by its KL", ylabel="mean KL(q(z|x) || p(z)), nats")
    right.semilogy(table.index, table["eigenvalue"].clip(lower=1e-6), ".-")
    right.axhline(0.01, color="#bbbbbb", linestyle="--")
    right.set(xlabel="direction, by its eigenvalue", ylabel="variance of E[z] over items")
    alive = int((table["eigenvalue"] > 0.01).sum())
    right.set_title(f"{alive} of {len(table)} active (above 0.01)", fontsize=10)
    return table, drawn
