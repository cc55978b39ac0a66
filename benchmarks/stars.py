"""Stars: MovieLens-100k by bias and factors, beside scikit-surprise: ``python -m benchmarks.stars``.

The data are the atomic files of RecBole's wheel, fetched once by ``pip download recbole --no-deps`` into the cache, or
a folder with ``ml-100k.inter`` and ``ml-100k.item`` (``--data``). Content of an item: its genres and the words of its
title. A tenth of the ratings of each of five seeded splits is test. The settings of each model are those of twelve that
predict a tenth of the training ratings best; the fit that is reported has these back. ``bayes`` learns its precisions
within the fit, and nothing is chosen; ``svi`` takes what ``coordinate`` chose or learned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study.arguments import add_threads, as_command, command, compute_with
from benchmarks.study.choosing import least
from benchmarks.study.movielens import fetch
from benchmarks.study.paired import difference, standard_error
from benchmarks.study.surprise import FACTORISED, REGULARIZED, Predictor, surprise
from benchmarks.study.tables import show, told
from inference.evaluation.ratings import predict_ratings
from inference.fitting import Pretrained, fit_with
from inference.options import Options
from inference.recommending.ranking import credible_interval
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split, held_out_cells, with_validation

TEST = 0.1
LEVEL = 0.9
SHARED = {"rating_likelihood": "normal", "factors": 50, "hidden": (50,)}
CLOSED = {"epochs": 0, "sweeps": 20}
GRADIENTS = {"epochs": 60, "learning_rate": 0.0, "factor_learning_rate": 0.1}
"""The networks are trained on the contents and held: only u, v and the biases see ratings."""
PRECISIONS = [{"lambda_u": u, "lambda_v": v} for u, v in product((200.0, 300.0, 450.0, 650.0), (0.4, 0.7, 1.0))]
RIVAL = "biases and factors (surprise)"


class Study:
    """The models of one split: ``make(split, settings)`` by name, and the settings to choose from."""

    def __init__(self, dataset: Dataset, threads: int) -> None:
        self.dataset, self.threads = dataset, threads
        self.pretrained: dict[str, Pretrained] = {}
        self.learned: dict[str, Any] = {}
        self.models: dict[str, tuple[Callable[..., Predictor], list[dict[str, Any]]]] = {
            "mean": (mean_rating, [{}]),
            "mean and biases (surprise)": (partial(surprise, "BaselineOnly"), REGULARIZED),
            RIVAL: (partial(surprise, "SVD"), FACTORISED),
            "coordinate, map": (partial(self.ours, "coordinate", "map"), PRECISIONS),
            "svi, map": (partial(self.ours, "svi", "map"), []),
            "coordinate, bayes": (partial(self.ours, "coordinate", "bayes"), [{"learn_precisions": True}]),
            "svi, bayes": (partial(self.ours, "svi", "bayes"), []),
        }

    def ours(self, method: str, mode: str, split: Split, settings: dict[str, Any]) -> Predictor:
        """This package's model; precisions that are learned are kept for the fit by gradients."""
        how = CLOSED if method == "coordinate" else GRADIENTS
        options = Options.of(method, mode=mode, threads=self.threads, **SHARED, **how, **settings)
        fit = fit_with(self.dataset, split, options, pretrained=self.pretrained.setdefault(method, Pretrained()))
        if settings.get("learn_precisions"):
            noise = {"rating_likelihood_args": {"tau": float(fit.model.ratings.tau.detach()), "learned": False}}
            self.learned = fit.metrics["precisions"] | noise

        def predict(users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            mean, sd = predict_ratings(fit.posterior, fit.model.ratings, users, items, split.train)
            return mean.numpy(), sd.numpy()

        return predict


def mean_rating(split: Split, settings: dict[str, Any]) -> Predictor:
    """The mean of the training ratings, for every pair."""
    mean = split.train.ratings[split.train.observed].mean()
    return lambda users, items: (np.full(len(users), mean), None)


def choose(make: Callable[..., Predictor], grid: list[dict[str, Any]], split: Split) -> dict[str, Any]:
    """The settings that predict the validation part of a split best."""
    held = split.validation
    assert held is not None

    def error(settings: dict[str, Any]) -> float:
        mean, _ = make(split, settings)(held.users, held.items)
        return float(np.sqrt(np.mean((held.ratings - mean) ** 2)))

    chosen, errors = least(error, grid)
    if len(grid) > 1:
        print("  " + " ".join(f"{error:.4f}" for error in errors), flush=True)
    return chosen


def measure(dataset: Dataset, seed: int, study: Study) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Squared error of each test rating, and whether its interval covers it, (n_test,) each, by model."""
    split = held_out_cells(dataset, TEST, seed)
    tuning, test = with_validation(split, TEST, seed), split.test
    chosen: dict[str, dict[str, Any]] = {}
    found = {}
    for name, (make, grid) in study.models.items():
        if not grid:  # gradients take what the closed form has chosen or learned
            other = chosen[name.replace("svi", "coordinate")]
            settings = study.learned if other.get("learn_precisions") else other
        else:
            settings = choose(make, grid, tuning)
        chosen[name] = settings
        mean, sd = make(split, settings)(test.users, test.items)
        square, covered = (test.ratings - mean) ** 2, None
        if sd is not None:
            low, high = credible_interval(torch.as_tensor(mean), torch.as_tensor(sd), LEVEL)
            covered = (test.ratings >= low.numpy()) & (test.ratings <= high.numpy())
        found[name] = square, covered
        print(f"split {seed}, {name}: RMSE {np.sqrt(square.mean()):.4f} ({told(settings, '')})", flush=True)
    return found


def rmse_interval(
    users: list[np.ndarray], squares: list[np.ndarray], others: list[np.ndarray], n_users: int, draws: int = 2000
) -> tuple[float, float]:
    """95 % interval of the difference of two models' RMSE, mean over splits, by drawing users with replacement."""
    rng = np.random.default_rng(0)
    weights = rng.multinomial(n_users, np.full(n_users, 1 / n_users), draws).astype(float)
    differences = np.zeros(draws)
    for rows, mine, theirs in zip(users, squares, others, strict=True):
        count, *sums = (weights @ np.bincount(rows, part, n_users) for part in (np.ones(len(rows)), mine, theirs))
        differences += np.sqrt(sums[0] / count) - np.sqrt(sums[1] / count)
    low, high = np.quantile(differences / len(users), (0.025, 0.975))
    return float(low), float(high)


def read(folder: Path) -> Dataset:
    """The data set with its stars as ratings."""
    return load_dataset(folder, ratings="stars")


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure every model on every split, print one table and return its rows."""
    parser = command("stars", __doc__)
    parser.add_argument("--data", type=Path, help="folder with ml-100k.inter and ml-100k.item (default: the cache)")
    parser.add_argument("--splits", type=int, default=5)
    add_threads(parser)
    arguments = parser.parse_args(argv)
    compute_with(arguments.threads)
    dataset = read(arguments.data or fetch())
    study = Study(dataset, arguments.threads)
    found = [measure(dataset, seed, study) for seed in range(arguments.splits)]
    users = [held_out_cells(dataset, TEST, seed).test.users for seed in range(arguments.splits)]
    rows: list[dict[str, Any]] = []
    for name in study.models:
        squares, covered = zip(*(split[name] for split in found), strict=True)
        rmse = np.array([np.sqrt(square.mean()) for square in squares])
        theirs = [split[RIVAL][0] for split in found]
        low, high = rmse_interval(users, list(squares), theirs, dataset.n_users)
        row: dict[str, Any] = {"model": name, "rmse": rmse.mean(), "error": float(standard_error(rmse))}
        away, _ = difference(rmse, [np.sqrt(part.mean()) for part in theirs])
        row |= {"difference": away, "low": low, "high": high}
        row["coverage"] = None if covered[0] is None else float(np.mean([part.mean() for part in covered]))
        rows.append(row)
    headings = ("model", "RMSE", "standard error", "less surprise's", "95 % interval", "90 % interval covers")
    texts = []
    for row in rows:
        same = row["model"] == RIVAL
        interval = "" if same else f"{row['low']:+.4f} to {row['high']:+.4f}"
        cover = "" if row["coverage"] is None else f"{row['coverage']:.3f}"
        away = "" if same else f"{row['difference']:+.4f}"
        texts.append([row["model"], f"{row['rmse']:.4f}", f"{row['error']:.4f}", away, interval, cover])
    show(headings, texts, title=f"{dataset.n_users} users, {dataset.n_items} films, {len(found)} splits")
    return rows


if __name__ == "__main__":
    as_command(main)
