"""Which shrinkage of items stars start from: ``python -m benchmarks.shrinkages``.

Data: MovieLens-100k in RecBole's format, 20,000 of its ratings, and ``simulated-stars``. Of each a tenth of the ratings
is test, which nothing here looks at, and a tenth of the rest validation. The fits are those of ``inference.coordinate``
with nothing given but the number of factors and ``--item-shrinkage``; so the shrinkage of users and the penalty of the
biases are chosen within the fit, as they are by default. The table has the RMSE of the validation ratings, mean over
two splits, beside that of mean and biases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.study import movielens
from benchmarks.study.arguments import add_threads, as_command, command, compute_with
from benchmarks.study.tables import show
from inference.algorithms.precisions import PENALTIES, ridge_biases
from inference.evaluation.ratings import predict_ratings
from inference.fitting import fit_with
from inference.kinds import Mode
from inference.options import Options
from models.catalogue import RATINGS
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split, held_out_cells, with_validation

TIMES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Shrinkages of items that are tried, in units of the default."""
FACTORS = {"simulated-stars": (5, 10), "MovieLens, 20,000": (10, 50), "MovieLens, 100,000": (10, 50)}
FEW = 20_000
SPLITS = 2


def data_sets() -> dict[str, Dataset]:
    """The data by name."""
    films = load_dataset(movielens.fetch(), ratings="stars")
    drawn = np.random.default_rng(0).permutation(len(films.interactions))[:FEW]
    few = films.interactions.select(np.isin(np.arange(len(films.interactions)), drawn))
    simulated = load_dataset("simulated-stars")
    return dict(zip(FACTORS, (simulated, replace(films, interactions=few), films), strict=True))


def error(split: Split, mean: np.ndarray) -> float:
    """RMSE of the validation ratings."""
    assert split.validation is not None
    return float(np.sqrt(np.mean((split.validation.ratings - mean) ** 2)))


def biases_alone(dataset: Dataset, split: Split) -> float:
    """RMSE of mean and biases, at the penalty that is best for these very ratings."""
    assert split.validation is not None
    users, items = split.validation.users, split.validation.items
    seen = split.train.select(split.train.observed)
    cells = seen.users, seen.items, seen.ratings, np.ones(len(seen)), dataset.n_users, dataset.n_items
    found = (ridge_biases(*cells, penalty) for penalty in PENALTIES)
    return min(error(split, mean + of_users[users] + of_items[items]) for mean, of_users, of_items in found)


def fitted(dataset: Dataset, split: Split, seed: int, threads: int, **chosen: Any) -> float:
    """RMSE of a fit of the command with nothing given but what is ``chosen``."""
    options = Options.of("coordinate", rating_likelihood="normal", threads=threads, seed=seed, **chosen)
    fit = fit_with(dataset, split, options)
    assert split.validation is not None
    pairs = split.validation.users, split.validation.items
    return error(split, predict_ratings(fit.posterior, fit.model.ratings, *pairs, split.train)[0].numpy())


def measure(dataset: Dataset, mode: Mode, factors: int, threads: int) -> list[float]:
    """RMSE of mean and biases and at each of :data:`TIMES`, means over splits."""
    default = RATINGS["normal"].default_item_shrinkage(mode, factors)
    errors = []
    for seed in range(SPLITS):
        split = with_validation(held_out_cells(dataset, 0.1, seed), 0.1, seed)
        common: dict[str, Any] = {"mode": mode, "factors": factors}
        at = (fitted(dataset, split, seed, threads, item_shrinkage=times * default, **common) for times in TIMES)
        errors.append([biases_alone(dataset, split), *at])
    return [float(mean) for mean in np.mean(errors, axis=0)]


def main(argv: list[str] | None = None) -> list[list[float]]:
    """Measure all of it, print one table and return its numbers."""
    parser = command("shrinkages", __doc__)
    add_threads(parser)
    arguments = parser.parse_args(argv)
    compute_with(arguments.threads)
    rows, found = [], []
    modes: tuple[Mode, ...] = ("map", "bayes")
    for name, dataset in data_sets().items():
        for mode in modes:
            for factors in FACTORS[name]:
                found.append(measure(dataset, mode, factors, arguments.threads))
                rows.append([name, mode, str(factors), *(f"{value:.4f}" for value in found[-1])])
                print(" ".join(rows[-1]), flush=True)
    headings = ["data", "mode", "K", "mean and biases", *(f"x {times:g}" for times in TIMES)]
    show(headings, rows, left=2, title="RMSE of validation ratings by --item-shrinkage, in units of the default")
    return found


if __name__ == "__main__":
    as_command(main)
