"""Fits whose posterior is made by hand, so that the truth can be drawn from it, or not."""

import dataclasses

import numpy as np
import torch

from inference.fitting import Fit
from inference.options import Options
from inference.posterior import Posterior
from models.gaussians import Gaussians
from pyro_cvae.data.simulated import simulated, simulated_gaussian
from pyro_cvae.data.splits import Split, held_out_cells, held_out_items, per_user, with_validation


def bare_fit(posterior, dataset, split, **options):
    """A fit with no model behind it: all that calibration asks is here."""
    return Fit(posterior, dataset, split, Options.of("coordinate", **options), [], {}, None, {})


def gaussian_fit(seed=0, sd_factor=1.0, kind="mean-field", n_users=20, n_items=25, n_factors=3, items=False):
    """Ratings of a truth that was drawn from the posterior, whose standard deviations are then multiplied."""
    rng = np.random.default_rng(seed)
    dataset = simulated_gaussian(seed, n_users=n_users, n_items=n_items, n_words=40, n_factors=n_factors)
    posterior = random_posterior(rng, kind, n_users, n_items, n_factors)
    drawn = posterior.sample(1, seed)
    scores = np.einsum("ik,jk->ij", drawn["u"][0].numpy(), drawn["v"][0].numpy())
    pairs = dataset.interactions
    noise = rng.standard_normal(len(pairs)) / np.sqrt(pairs.confidences)
    pairs = dataclasses.replace(pairs, ratings=scores[pairs.users, pairs.items] + noise)
    dataset = dataclasses.replace(dataset, interactions=pairs, truth=dataset.truth | {"scores": scores})
    split = held_out_items(dataset, 0.2, seed) if items else held_out_cells(dataset, 0.3, seed)
    scaled = {
        name: getattr(posterior, name).mapped(lambda mean: mean, lambda spread: sd_factor**2 * spread) for name in "uv"
    }
    return bare_fit(dataclasses.replace(posterior, **scaled), dataset, split, a=1.0, b=0.01)


def random_posterior(rng, kind, n_users, n_items, n_factors):
    """A posterior in float64 with means around 1 in length and standard deviations around a half."""

    def tensor(*shape, positive=False):
        values = rng.uniform(0.2, 0.7, shape) if positive else rng.standard_normal(shape)
        return torch.as_tensor(values)

    u, v = Gaussians(tensor(n_users, n_factors)), Gaussians(tensor(n_items, n_factors))
    z = Gaussians(tensor(n_items, n_factors), tensor(n_items, n_factors, positive=True).square())
    if kind == "mean-field":
        u, v = (Gaussians(rows.loc, tensor(*rows.loc.shape, positive=True).square()) for rows in (u, v))
    elif kind != "point":
        roots = [0.4 * tensor(len(rows), n_factors, n_factors) for rows in (u, v)]
        u, v = (Gaussians(rows.loc, covariance=root @ root.mT) for rows, root in zip((u, v), roots, strict=True))
    return Posterior(kind, u, v, z)


def click_fit(seed=0, kind="mean-field", train_per_user=6, validation=0.0, n_users=150, n_items=120, **options):
    """Clicks of the package's simulator, and a posterior around the truth with errors in proportion to its sd."""
    dataset = simulated(seed, n_users=n_users, n_items=n_items, n_words=40, n_factors=3, clicks_per_user=20.0)
    split: Split = per_user(dataset, train_per_user, seed)
    if validation:
        split = with_validation(split, validation, seed)
    posterior = random_posterior(np.random.default_rng(seed), kind, n_users, n_items, 3)
    truth = {name: torch.as_tensor(dataset.truth[name]) for name in ("u", "v")}
    noise = random_posterior(np.random.default_rng(seed + 1), "point", n_users, n_items, 3)
    moved = {
        name: dataclasses.replace(getattr(posterior, name), loc=0.3 * (truth[name] + 0.3 * noise.mean(name)))
        for name in ("u", "v")
    }
    return bare_fit(dataclasses.replace(posterior, **moved), dataset, split, **options)
