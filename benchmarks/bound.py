"""What the Gaussian bound of clicks costs, on a small Bernoulli problem: ``python -m benchmarks.bound``.

Clicks of 100 users on 150 items are drawn from the model: factors, biases, a share of clicks by the global mean. The
networks are pre-trained once and held. Under the bound (``bernoulli-bound``) the closed form and the gradient mode must
come to the same objective (mean field, diagonal covariances, and points). Of the closed form's q the expected log
likelihood itself is computed by draws: less the bound that is the gap. ``bernoulli`` is fitted by gradients without any
bound, and its q compared by the same ELBO, and by the correlation of true and mean scores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.study.arguments import as_command, command
from benchmarks.study.tables import show
from inference.algorithms.elbo import SIGNS
from inference.fitting import Fit, Pretrained, fit_with
from inference.options import Options
from models.observations import RatingColumns
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.simulated import simulated_stars
from pyro_cvae.data.splits import Split, nothing_held_out

N_USERS, N_ITEMS, N_FACTORS = 100, 150, 3
PRECISIONS = {"lambda_u": 2.0, "lambda_v": 5.0, "lambda_b": 2.0}
SHARED: dict[str, Any] = {
    **{"factors": N_FACTORS, "hidden": (30,), "pretrain_epochs": 40, "batch_size": 150, "dtype": "float64"},
    **{"learning_rate": 0.0, "threads": 1},
}


def simulate(mean: float, seed: int) -> tuple[Dataset, Split]:
    """Clicks drawn with probability sigmoid(s), s as of :func:`simulated_stars` around ``mean``."""
    sizes = {"n_users": N_USERS, "n_items": N_ITEMS, "n_factors": N_FACTORS, "exposure": 0.01}
    world = simulated_stars(seed, mean=mean, **sizes, **PRECISIONS)  # type: ignore[arg-type]
    assert world.truth is not None
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 1 / (1 + np.exp(-world.truth["scores"])))
    pairs = Interactions.from_arrays(users, items, n_users=N_USERS, n_items=N_ITEMS)
    truth = {name: value for name, value in world.truth.items() if name != "a"}
    dataset = replace(world, name="clicks", interactions=pairs, truth=truth)
    return dataset, nothing_held_out(dataset)


def expected(fit: Fit, draws: int = 1000) -> tuple[float, float]:
    """E_q[log p(R|U,V)] of the exact likelihood in nats, with its standard error, by draws of q."""
    columns = RatingColumns.from_interactions(fit.split.train, 1.0, "zeros", torch.float64)
    clicks = columns.dense(1.0)[0]
    values = []
    for part in fit.posterior.draws(draws, seed=0):
        score = part["v"].double() @ part["u"].double().mT
        values.append((clicks * score - torch.nn.functional.softplus(score)).sum((-1, -2)))
    found = torch.cat(values)
    return float(found.mean()), float(found.std() / len(found) ** 0.5)


def of_users_and_items(fit: Fit) -> float:
    """The objective without the content's part, which depends on a draw of z and is the same for all."""
    last = fit.history[fit.metrics["best_epoch"] - 1]
    names = ("ratings", "kl_u", "kl_v", "log_p_u", "log_p_v")
    return sum(SIGNS[name] * last[name] for name in names if last.get(name) is not None)


def measure(mean: float, seed: int, epochs: int) -> list[dict[str, Any]]:
    """All fits of one simulation."""
    dataset, split = simulate(mean, seed)
    share = len(split.train) / (N_USERS * N_ITEMS)
    rows = []
    kept = {method: Pretrained() for method in ("coordinate", "svi")}
    for rating, method, mode in (
        ("bernoulli-bound", "coordinate", "map"),
        ("bernoulli-bound", "svi", "map"),
        ("bernoulli-bound", "coordinate", "bayes"),
        ("bernoulli-bound", "svi", "bayes"),
        ("bernoulli", "svi", "bayes"),
    ):
        how: dict[str, Any] = {"epochs": 0, "sweeps": 400} if method == "coordinate" else {"epochs": epochs}
        how |= {"factor_learning_rate": 0.05} if method == "svi" else {}
        how |= {"diagonal": True} if method == "coordinate" and mode == "bayes" else {}
        options = Options.of(method, mode=mode, rating_likelihood=rating, unrated="zeros", **SHARED | PRECISIONS | how)
        fit = fit_with(dataset, split, options, pretrained=kept[method])
        row = {"clicks": share, "rating": rating, "method": method, "mode": mode, "objective": of_users_and_items(fit)}
        row["correlation"] = fit.metrics["recovery"]["correlation"]
        if mode == "bayes":
            exact, error = expected(fit)
            away = exact - fit.history[-1]["ratings"]  # of one draw an epoch where there is no bound
            row |= {"elbo": row["objective"] + away, "error": error}
            row |= {} if fit.model.ratings.exact else {"gap": away}
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure problems with few and with many clicks, print one table and return its rows."""
    parser = command("bound", __doc__)
    parser.add_argument("--means", type=float, nargs="*", default=[-4.0, -2.0, 0.0], help="mean score of each problem")
    parser.add_argument("--epochs", type=int, default=1500, help="gradient epochs")
    arguments = parser.parse_args(argv)
    rows = [row for mean in arguments.means for row in measure(mean, 0, arguments.epochs)]
    headings = ("clicks", "ratings", "module", "mode", "objective of u, v, R", "gap", "ELBO of u, v, R", "correlation")
    texts = []
    for row in rows:
        gap = f"{row['gap']:.1f}" if "gap" in row else ""
        elbo = f"{row['elbo']:.1f} ± {row['error']:.1f}" if "elbo" in row else ""
        names = (row["rating"], row["method"], row["mode"])
        numbers = (f"{row['objective']:.2f}", gap, elbo, f"{row['correlation']:.3f}")
        texts.append([f"{row['clicks']:.3f}", *names, *numbers])
    show(headings, texts, left=4, title=f"{N_USERS} users, {N_ITEMS} items, nats")
    return rows


if __name__ == "__main__":
    as_command(main)
