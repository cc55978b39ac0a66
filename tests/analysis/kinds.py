"""Small fits of every rating likelihood, with and without biases, in float64."""

from dataclasses import replace
from typing import Any

import numpy as np

import inference
from inference.fitting import Fit
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.simulated import simulated, simulated_gaussian
from pyro_cvae.data.splits import held_out_cells, with_validation

SMALL: dict[str, Any] = {
    "method": "coordinate", "factors": 2, "hidden": (8,), "pretrain_epochs": 2, "epochs": 2, "sweeps": 3,
    "lambda_u": 2.0, "lambda_v": 5.0, "lambda_b": 3.0, "a": 4.0, "b": 0.2, "dtype": "float64", "threads": 1,
}  # fmt: skip
BY_GRADIENTS = {"method": "svi", "epochs": 4}
KINDS: dict[str, dict[str, Any]] = {
    "paper with biases": {"biases": "on"},
    "stars": {"rating_likelihood": "normal", "guide": "structured"},
    "stars without biases": {"rating_likelihood": "normal", "biases": "off"},
    "stars by gradients": {"rating_likelihood": "normal", **BY_GRADIENTS},
    "clicks by a bound": {"rating_likelihood": "bernoulli-bound"},
    "stored clicks": {"rating_likelihood": "bernoulli", "rating_likelihood_args": {"zeros": False}, **BY_GRADIENTS},
    "clicks": {"rating_likelihood": "bernoulli", "parametrization": "non-centred", **BY_GRADIENTS},
    "counts": {"rating_likelihood": "poisson", "biases": "off", **BY_GRADIENTS},
}
LEAST: dict[str, Any] = {"n_items": 26, "n_words": 30, "n_factors": 2}
NORMAL = [kind for kind in KINDS if kind.startswith(("paper", "stars"))]
WHOLE_ROWS = ["clicks by a bound", "clicks", "counts"]


def stars(seed: int = 0, n_users: int = 20, share: float = 0.4, noise: float = 0.5, **sizes: Any) -> Dataset:
    """Stars 3 + b_i + c_j + u_i.v_j + N(0, noise^2) of a random ``share`` of the cells; every user has some."""
    data = simulated_gaussian(seed, n_users=n_users, **LEAST | sizes)
    assert data.truth is not None
    rng, (n, m) = np.random.default_rng((seed, 1)), data.truth["scores"].shape
    biases = 0.5 * rng.standard_normal((n, 1)) + 0.5 * rng.standard_normal(m)
    scores = 3 + biases + 0.5 * data.truth["scores"]
    users, items = np.nonzero(rng.random((n, m)) < share)
    ratings = scores[users, items] + noise * rng.standard_normal(len(users))
    confidences = rng.choice([np.nan, 0.5, 2.0], len(users), p=[0.8, 0.1, 0.1])
    pairs = Interactions(users, items, ratings, confidences, None, n, m)
    return replace(data, name="stars", interactions=pairs, truth=None)


def clicks(kind: str) -> Dataset:
    """Clicks; some of them counts, or zeros that are stored, where the kind says so."""
    data, rng = simulated(n_users=20, **LEAST, clicks_per_user=13), np.random.default_rng(5)
    if kind == "counts":
        return replace(
            data, interactions=replace(data.interactions, ratings=1.0 + rng.poisson(1, len(data.interactions)))
        )
    if kind == "stored clicks":
        ratings = (rng.random(len(data.interactions)) < 0.6).astype(float)
        return replace(data, interactions=replace(data.interactions, ratings=ratings))
    return data


def small_fit(kind: str, **options: Any) -> Fit:
    """A fit of one of :data:`KINDS`; cells are held out, so that some are missing in training."""
    dataset = stars() if kind.startswith("stars") else clicks(kind)
    split = with_validation(held_out_cells(dataset, 0.25, 0), 0.1, 0)
    method = {name: value for name, value in SMALL.items() if KINDS[kind].get("method") != "svi" or name != "sweeps"}
    return inference.fit(dataset, split, **method | KINDS[kind] | options)
