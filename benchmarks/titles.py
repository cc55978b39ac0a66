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

import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.study.arguments import add_data, add_threads, as_command, command, compute_with
from benchmarks.study.choosing import best_recall, reported_split, tuning_split
from benchmarks.study.paired import standard_error
from benchmarks.study.tables import show, verdict
from inference.evaluation import rivals
from inference.evaluation.rankings import evaluate
from inference.fitting import Pretrained, fit_with
from inference.keywords import options_of
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.metrics import CUTOFFS

CONTENTS = ("titles", "title-tokens", "tags")
A, BACKGROUND = 100.0, 0.01
LAMBDA_U = {1: (2.5, 5.0, 10.0), 10: (1.0, 2.5, 5.0)}
LAMBDA_V = 1.0
KL_WEIGHTS = (0.1, 0.02)
SEQUENCE_KL_WEIGHTS = (0.1,)
"""Of models with sequences, which take ten minutes to train on one thread."""
SIZES: dict[str, Any] = {"factors": 200, "hidden": (200,), "mode": "map", "tune": 0}
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
        kept = self.pretrained.setdefault(key, Pretrained())
        return fit_with(self.dataset, split, options_of("coordinate", "best", asked), pretrained=kept).posterior

    def choose(self, name: str, split: Split, lambda_u: tuple[float, ...]) -> tuple[float, float]:
        """Weight of the KL and lambda_u with the best recall@50 plus recall@300 on the validation part."""
        weights = SEQUENCE_KL_WEIGHTS if "sequences" in name else KL_WEIGHTS
        grid = product(weights, lambda_u)
        best, found = best_recall(lambda *setting: self.fit(name, split, *setting).score_block, grid, split)
        shown = ", ".join(f"{setting}: {one:.4f} {two:.4f}" for setting, (one, two) in found.items())
        print(f"{name}, weight of the KL and lambda_u {best} of {shown}", flush=True)
        return best


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Choose settings, fit every model to every split, print one table for each P and return its rows."""
    parser = command("titles", __doc__)
    add_data(parser, "citeulike-a")
    parser.add_argument("--per-user", type=int, nargs="*", default=[1, 10], help="training items a user")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--models", nargs="*", choices=[*MODELS, []], default=list(MODELS), help="which of ours")
    add_threads(parser)
    arguments = parser.parse_args(argv)
    compute_with(arguments.threads)
    dataset = load_dataset(arguments.data, contents=CONTENTS)
    fits = Fits(dataset, arguments.threads)
    rows = []
    for n in arguments.per_user:
        tuning = tuning_split(dataset, n, TUNING_SEED)
        chosen = {name: fits.choose(name, tuning, LAMBDA_U[n]) for name in arguments.models}
        recalls: dict[str, list[list[float]]] = {}
        for seed in range(arguments.splits):
            split = reported_split(dataset, n, seed)
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
    headings = (f"P = {n}, {n_splits} splits", *(f"@{cutoff}" for cutoff in CUTOFFS), "standard error, at most")
    texts = []
    for name, values in found.items():
        texts.append([name, *(f"{value:.4f}" for value in (*values.mean(0), standard_error(values).max()))])
    show(headings, texts)
    for name, parts in TOGETHER.items():
        for part in parts:
            if name in found and part in found:
                gains = found[name] - found[part]
                gain, errors = gains.mean(0), standard_error(gains)
                told = ", ".join(f"{mean:+.4f} ({error:.4f})" for mean, error in zip(gain, errors, strict=True))
                verdict(bool((gain > 2 * errors).all()), f"{name}, less {part}: {told}")


if __name__ == "__main__":
    as_command(main)
