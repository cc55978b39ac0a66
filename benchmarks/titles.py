"""Titles as sequences, titles as words, tags, and both together: ``python -m benchmarks.titles --data FOLDER``.

citeulike-a, P training items a user, ten random splits, corrected recall. All fits are ``inference.coordinate --preset
best --mode map`` with K = 200 and other networks for other contents, which are trained on the contents once and held:
from split to split u and v alone are fitted anew. lambda_u of each and the weight of its KL while the networks are
trained have the best recall@50 plus recall@300 on a validation part of the training ratings of another split: a fifth
of them, or at one item a user the other ratings of a seeded tenth of the users, who are left out of every mean.
lambda_u and lambda_v, which is 1, are given for a = 1 and content means of root mean square length 1.

Wanted: titles and tags together are above each alone, at every M and P, by more than two standard errors.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from inference.commands import read_preset
from inference.evaluation import rivals
from inference.evaluation.rankings import evaluate, recall_on_validation
from inference.fitting import Pretrained, fit_with
from inference.options import METHODS, Options
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split, per_user, with_validation
from pyro_cvae.metrics import CUTOFFS

CONTENTS = ("titles", "title-tokens", "tags")
A, BACKGROUND = 100.0, 0.01
LAMBDA_U = {1: (2.5, 5.0, 10.0), 10: (1.0, 2.5, 5.0)}
LAMBDA_V = 1.0
KL_WEIGHTS = (0.1, 0.02)
SEQUENCE_KL_WEIGHTS = (0.1,)
"""Of models with sequences, which take ten minutes to train on one thread."""
SIZES: dict[str, Any] = {"factors": 200, "hidden": (200,), "mode": "map"}
WORDS = {"titles": "pseudo-multinomial", "titles.subsample": 1500}
SEQUENCES = {"title-tokens": "tokens"}
TAGS = {"tags": "bernoulli", "tags.subsample": 1500}
MODELS: dict[str, dict[str, Any]] = {
    "titles, sequences": {
        **{"content": "title-tokens", "content_likelihood": "tokens", "content_likelihood_args": {}},
        "pretrain_epochs": 10,
    },
    "titles, words": {
        **{"content": "titles", "content_likelihood": "pseudo-multinomial"},
        "content_likelihood_args": {"subsample": 1500},
    },
    "tags": {"content_likelihood": "product", "content_likelihood_args": TAGS},
    "titles, words, and tags": {"content_likelihood": "product", "content_likelihood_args": WORDS | TAGS},
    "titles, sequences, and tags": {
        **{"content_likelihood": "product", "content_likelihood_args": SEQUENCES | TAGS},
        "pretrain_epochs": 10,
    },
}
TOGETHER = {
    "titles, words, and tags": ("titles, words", "tags"),
    "titles, sequences, and tags": ("titles, sequences", "tags"),
}
"""Of each joint fit those of its parts."""
RIVALS: dict[str, Callable[[Dataset, Split], Any]] = {
    "cosine of titles": partial(rivals.tfidf, contents=("titles",)),
    "cosine of tags": partial(rivals.tfidf, contents=("tags",)),
    "cosine of both": partial(rivals.tfidf, contents=("titles", "tags")),
    "svd-200 of both": partial(rivals.svd, n_dimensions=200, contents=("titles", "tags")),
    "svd-300-prior of both": partial(rivals.svd_prior, contents=("titles", "tags")),
    "popularity": rivals.popularity,
    "als": rivals.als,
}
TUNING_SEED = 100


class Fits:
    """The package's models of one data set, each with networks that are trained once for each weight of the KL."""

    def __init__(self, dataset: Dataset, threads: int) -> None:
        self.dataset, self.threads = dataset, threads
        self.pretrained: dict[tuple[str, float], Pretrained] = {}
        self.length: dict[tuple[str, float], float] = {}

    def fit(self, name: str, split: Split, kl_weight: float, lambda_u: float, sweeps: int = 6) -> Any:
        """The posterior of a model; precisions are given for content means of root mean square length 1."""
        key = name, kl_weight
        if key not in self.length and sweeps > 1:
            began = time.perf_counter()
            z = self.fit(name, split, kl_weight, lambda_u, sweeps=1).z_loc
            self.length[key] = float(z.square().sum(1).mean().sqrt())
            told = f"root mean square length of z {self.length[key]:.2f}"
            print(f"{name}, KL {kl_weight}: {told}, trained in {time.perf_counter() - began:.0f} seconds", flush=True)
        square = self.length.get(key, 1.0) ** 2
        precisions = {"lambda_u": A * lambda_u * square, "lambda_v": A * LAMBDA_V / square, "a": A, "b": A * BACKGROUND}
        asked = SIZES | MODELS[name] | precisions | {"sweeps": sweeps, "kl_weight": kl_weight, "threads": self.threads}
        chosen = read_preset("best", Options.classes("coordinate"), tuple(METHODS.values()), asked)
        kept = self.pretrained.setdefault(key, Pretrained())
        return fit_with(self.dataset, split, Options.of("coordinate", **chosen), pretrained=kept).posterior

    def choose(self, name: str, split: Split, lambda_u: tuple[float, ...]) -> tuple[float, float]:
        """Weight of the KL and lambda_u with the best recall@50 plus recall@300 on the validation part."""
        found = {}
        weights = SEQUENCE_KL_WEIGHTS if "sequences" in name else KL_WEIGHTS
        for setting in product(weights, lambda_u):
            score = self.fit(name, split, *setting).score_block
            found[setting] = tuple(recall_on_validation(score, split, cutoff) for cutoff in (50, 300))
        best = max(found, key=lambda setting: sum(found[setting]))
        shown = ", ".join(f"{setting}: {one:.4f} {two:.4f}" for setting, (one, two) in found.items())
        print(f"{name}, weight of the KL and lambda_u {best} of {shown}", flush=True)
        return best


def split_of(dataset: Dataset, n: int, seed: int) -> Split:
    """A split into ``n`` training items a user; at one, the users on whom settings were chosen are marked."""
    split = per_user(dataset, n, seed)
    return with_validation(split, 0.1, 0) if n == 1 else split


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Choose settings, fit every model to every split, print one table for each P and return its rows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.titles", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = os.environ.get("PYRO_CVAE_DATA")
    parser.add_argument("--data", default=str(Path(folder) / "citeulike-a") if folder else "citeulike-a")
    parser.add_argument("--per-user", type=int, nargs="*", default=[1, 10], help="training items a user")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--models", nargs="*", choices=[*MODELS, []], default=list(MODELS), help="which of ours")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: as many as there are cores)")
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dataset = load_dataset(arguments.data, contents=CONTENTS)
    fits = Fits(dataset, arguments.threads)
    rows = []
    for n in arguments.per_user:
        tuning = with_validation(per_user(dataset, n, TUNING_SEED), 0.1 if n == 1 else 0.2, 0)
        chosen = {name: fits.choose(name, tuning, LAMBDA_U[n]) for name in arguments.models}
        recalls: dict[str, list[list[float]]] = {}
        for seed in range(arguments.splits):
            split = split_of(dataset, n, seed)
            for name in (*chosen, *RIVALS):
                score = (
                    fits.fit(name, split, *chosen[name]).score_block if name in chosen else RIVALS[name](dataset, split)
                )
                means = evaluate(score, split, ndcg_cutoffs=()).means()
                recalls.setdefault(name, []).append([means[f"recall@{cutoff}"] for cutoff in CUTOFFS])
                print(
                    f"P = {n}, split {seed}, {name}: {recalls[name][-1][0]:.4f} {recalls[name][-1][-1]:.4f}", flush=True
                )
        found = {name: np.array(values) for name, values in recalls.items()}
        rows += [{"P": n, "model": name, "recall": values} for name, values in found.items()]
        _print(n, found)
    return rows


def _print(n: int, found: dict[str, np.ndarray]) -> None:
    """Means over splits, the largest standard error of each row, and what both contents gain, split by split."""
    n_splits = len(next(iter(found.values())))
    table = Table(f"P = {n}, {n_splits} splits", *(f"@{cutoff}" for cutoff in CUTOFFS), "standard error, at most")
    for name, values in found.items():
        table.add_row(name, *(f"{value:.4f}" for value in values.mean(0)), f"{_error(values).max():.4f}")
    Console(width=140).print(table)
    for name, parts in TOGETHER.items():
        for part in parts:
            if name in found and part in found:
                gain = found[name] - found[part]
                verdict = "met" if bool((gain.mean(0) > 2 * _error(gain)).all()) else "MISSED"
                pairs = zip(gain.mean(0), _error(gain), strict=True)
                told = ", ".join(f"{mean:+.4f} ({error:.4f})" for mean, error in pairs)
                print(f"{verdict}: {name}, less {part}: {told}")


def _error(values: np.ndarray) -> np.ndarray:
    """Standard error over splits, (n_cutoffs,); NaN of one split."""
    return values.std(0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.full(values.shape[1], np.nan)


if __name__ == "__main__":
    main()
