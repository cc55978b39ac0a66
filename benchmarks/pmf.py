"""Ratings alone: ``--model pmf`` beside ``implicit`` and scikit-surprise: ``python -m benchmarks.pmf``.

The ratings are those of MovieLens-100k, the file ``ml-100k.inter`` of :mod:`benchmarks.study.movielens`, copied into a
folder of its own, so that nothing is known of the films. Clicks are the ratings of 4 and 5: a fifth of each user's is
test, a tenth of the rest validation, and recall is that of the protocol ``corrected``. Stars are all ratings: a tenth
is test, a tenth of the rest validation. Each model has twelve settings. Those are taken that are best on the validation
part, by the mean of recall@50 and recall@300 or by the RMSE; the fit that is reported has the validation part back in
its training set. "defaults" are fits of which nothing is chosen.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study.arguments import add_threads, as_command, command, compute_with
from benchmarks.study.choosing import CUTOFFS, least, validation_as_test
from benchmarks.study.movielens import fetch
from benchmarks.study.paired import difference
from benchmarks.study.surprise import FACTORISED, REGULARIZED, surprise
from benchmarks.study.tables import show, told
from inference.evaluation.als import als_factors
from inference.evaluation.rankings import evaluate
from inference.evaluation.ratings import predict_ratings
from inference.fitting import fit_with
from inference.options import Options
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.reading import Reading
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split, held_out_cells, nothing_held_out, with_validation

RANKED = [
    {"factors": factors, "alpha": alpha, "penalty": penalty}
    for factors, alpha, penalty in product((20, 50), (10.0, 30.0), (30.0, 60.0, 100.0))
]
"""Of clicks, for all models: a / b and sqrt(lambda_u lambda_v) / b, which implicit calls alpha and regularization."""
SHRUNK = {
    "map": [{"factors": k, "shrinkage": s} for k, s in product((10, 50), (8.0, 10.0, 12.0, 14.0, 17.0, 20.0))],
    "bayes": [{"factors": k, "shrinkage": s} for k, s in product((10, 20), (4.0, 6.0, 7.0, 8.0, 9.0, 11.0))],
}
"""Of stars: both shrinkages, sqrt(lambda_u lambda_v) in units of the noise's precision."""
SWEEPS = 15

Metrics = dict[str, float]
Model = tuple[Callable[[Split, dict[str, Any]], Metrics], list[dict[str, Any]]]
"""From a split and settings to the metrics of its test part, and the settings to choose from."""


class Clicks:
    """Recall of the films that a user gave 4 or 5 stars."""

    rival = "ALS (implicit)"
    metrics = tuple(f"recall@{cutoff}" for cutoff in CUTOFFS)

    def __init__(self, folder: Path, threads: int) -> None:
        self.dataset, self.threads = load_dataset(folder, reading=Reading(min_rating=4)), threads
        self.models: dict[str, Model] = {self.rival: (self.als, RANKED)}
        for mode in ("map", "bayes"):
            self.models[f"pmf, {mode}"] = partial(self.pmf, mode), RANKED
            self.models[f"pmf, {mode}, defaults"] = partial(self.pmf, mode), [{}]

    def split(self, seed: int) -> Split:
        """A fifth of each user's films is test."""
        return validation_as_test(with_validation(nothing_held_out(self.dataset), 0.2, seed))

    def loss(self, metrics: Metrics) -> float:
        """What the settings are to make small."""
        return -float(np.mean([metrics[name] for name in self.metrics]))

    def als(self, split: Split, settings: dict[str, Any]) -> Metrics:
        """The rival, by as many iterations as we make sweeps."""
        alpha, penalty = settings["alpha"], settings["penalty"]
        u, v = als_factors(split, settings["factors"], alpha, 1.0, penalty, SWEEPS)
        return evaluate(lambda rows: u[torch.as_tensor(rows)] @ v.T, split, cutoffs=CUTOFFS).all_user_means()

    def pmf(self, mode: str, split: Split, settings: dict[str, Any]) -> Metrics:
        """This package's model."""
        own: dict[str, Any] = {}
        if settings:
            penalty = settings["penalty"]
            own = {"factors": settings["factors"], "a": settings["alpha"], "b": 1.0}
            own |= {"lambda_u": penalty, "lambda_v": penalty, "sweeps": SWEEPS}
        options = Options.of("coordinate", model="pmf", mode=mode, epochs=0, threads=self.threads, **own)
        posterior = fit_with(self.dataset, split, options).posterior
        return evaluate(posterior.score_block, split, cutoffs=CUTOFFS).all_user_means()


class Stars:
    """Errors of predicted stars."""

    rival = "SVD (scikit-surprise)"
    metrics = ("RMSE", "MAE")

    def __init__(self, folder: Path, threads: int) -> None:
        self.dataset, self.threads = load_dataset(folder, ratings="stars"), threads
        self.models: dict[str, Model] = {
            "mean and biases (scikit-surprise)": (partial(self.surprise, "BaselineOnly"), REGULARIZED),
            self.rival: (partial(self.surprise, "SVD"), FACTORISED),
        }
        for mode, settings in SHRUNK.items():
            self.models[f"pmf, {mode}"] = partial(self.pmf, mode), settings
            self.models[f"pmf, {mode}, defaults"] = partial(self.pmf, mode), [{}]

    def split(self, seed: int) -> Split:
        """A tenth of the ratings is test."""
        return held_out_cells(self.dataset, 0.1, seed)

    def loss(self, metrics: Metrics) -> float:
        """What the settings are to make small."""
        return metrics["RMSE"]

    def surprise(self, name: str, split: Split, settings: dict[str, Any]) -> Metrics:
        """A rival."""
        return errors(split, surprise(name, split, settings)(split.test.users, split.test.items)[0])

    def pmf(self, mode: str, split: Split, settings: dict[str, Any]) -> Metrics:
        """This package's model."""
        own: dict[str, Any] = {"rating_likelihood": "normal"}
        if settings:
            shrinkage = settings["shrinkage"]
            own |= {"factors": settings["factors"], "sweeps": SWEEPS}
            own |= {"user_shrinkage": shrinkage, "item_shrinkage": shrinkage}
        options = Options.of("coordinate", model="pmf", mode=mode, epochs=0, threads=self.threads, **own)
        fit, test = fit_with(self.dataset, split, options), split.test
        mean, _ = predict_ratings(fit.posterior, fit.model.ratings, test.users, test.items, split.train)
        return errors(split, mean.numpy())


def errors(split: Split, mean: np.ndarray) -> Metrics:
    """RMSE and MAE of the test ratings."""
    away = split.test.ratings - mean
    return {"RMSE": float(np.sqrt(np.mean(away**2))), "MAE": float(np.abs(away).mean())}


def measure(study: Clicks | Stars, seed: int) -> dict[str, Metrics]:
    """Metrics of every model on the test part of one split, its settings chosen on the validation part."""
    split = study.split(seed)
    tuning = validation_as_test(with_validation(split, 0.1, seed))
    found = {}
    for name, (make, grid) in study.models.items():
        settings, _ = least(lambda settings, make=make: study.loss(make(tuning, settings)), grid)
        found[name] = make(split, settings)
        measured = told({metric: found[name][metric] for metric in study.metrics}, ".4f")
        print(f"split {seed}, {name}: {measured} ({told(settings) or 'nothing chosen'})", flush=True)
    return found


def summary(study: Clicks | Stars, found: list[dict[str, Metrics]]) -> list[dict[str, Any]]:
    """A row for each model: the mean of each metric over splits, and mean and standard error of the differences."""
    rows = []
    for name in study.models:
        row: dict[str, Any] = {"model": name}
        for metric in study.metrics:
            mine, theirs = ([split[model][metric] for split in found] for model in (name, study.rival))
            away, error = difference(mine, theirs)
            row |= {metric: np.mean(mine), f"{metric}, less": away, f"{metric}, error": error}
        rows.append(row)
    return rows


def show_study(study: Clicks | Stars, rows: list[dict[str, Any]], n_splits: int, dataset: Dataset) -> None:
    """Print the table."""
    title = f"{len(dataset.interactions)} ratings of {dataset.n_users} users and {dataset.n_items} films"
    headings = [heading for metric in study.metrics for heading in (metric, f"less that of {study.rival}")]
    texts = []
    for row in rows:
        cells = [row["model"]]
        for metric in study.metrics:
            away = f"{row[f'{metric}, less']:+.4f} ± {row[f'{metric}, error']:.4f}"
            cells += [f"{row[metric]:.4f}", "" if row["model"] == study.rival else away]
        texts.append(cells)
    show(["model", *headings], texts, title=f"{title}, {n_splits} splits")


def main(argv: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Measure every model on every split, print a table for clicks and one for stars, and return their rows."""
    studies: dict[str, Any] = {"clicks": Clicks, "stars": Stars}
    parser = command("pmf", __doc__)
    parser.add_argument("--data", type=Path, help="folder with ml-100k.inter (default: the cache)")
    parser.add_argument("--parts", nargs="+", choices=studies, default=list(studies), help="which tables")
    parser.add_argument("--splits", type=int, default=3)
    add_threads(parser, 2)
    arguments = parser.parse_args(argv)
    compute_with(arguments.threads)
    logging.getLogger("pyro_cvae").setLevel(logging.ERROR)  # the data set is read again and again
    rows = {}
    with tempfile.TemporaryDirectory() as alone:
        shutil.copy((arguments.data or fetch()) / "ml-100k.inter", alone)
        for part in arguments.parts:
            study = studies[part](Path(alone), arguments.threads)
            found = [measure(study, seed) for seed in range(arguments.splits)]
            rows[part] = summary(study, found)
            show_study(study, rows[part], len(found), study.dataset)
    return rows


if __name__ == "__main__":
    as_command(main)
