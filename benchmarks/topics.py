"""Small tables of strangers, drawn by topics and popularity: ``python -m benchmarks.topics [--shapes NAME ...]``.

``--preset best --mode map`` and nothing else beside simple rivals, on tables of 80 to 1,500 items whose users choose by
topics that texts tell, by popularity, and by tastes that no text tells (:mod:`benchmarks.study.topics`). No model of
ours generates them. A random fifth of each user's choices is test. ALS and the SVD prior choose their settings on
training pairs that are kept aside.

Of every seed another table is drawn. The table has the means over seeds of recall@M (``corrected``), and how much a
rival is ahead of ours at the last M, with the standard error of the mean of the paired differences.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.study.arguments import add_threads, as_command, command, compute_with
from benchmarks.study.choosing import validation_as_test
from benchmarks.study.tables import show
from benchmarks.study.topics import SHAPES, drawn
from inference.average import list_scores
from inference.evaluation.rankings import evaluate
from inference.evaluation.rivals import rival
from inference.fitting import fit_with
from inference.keywords import options_of
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split, nothing_held_out, with_validation

TEST = 0.2
CUTOFFS = (10, 20, 50)
OURS = "preset best"
RIVALS = ("popularity", "als", "tfidf", "svd-300-prior")


def recalls(name: str, dataset: Dataset, split: Split, **changes: Any) -> list[float]:
    """Recall at every cutoff of our preset, or of a rival."""
    if name == OURS:
        options = options_of("coordinate", "best", {"mode": "map", **changes})
        scores = list_scores(fit_with(dataset, split, options).posterior, split.train)
    else:
        scores = rival(name, ["text"])(dataset, split)
    means = evaluate(scores, split, cutoffs=CUTOFFS, ndcg_cutoffs=()).means()
    return [means[f"recall@{cutoff}"] for cutoff in CUTOFFS]


def measure(name: str, n_seeds: int, **changes: Any) -> dict[str, np.ndarray]:
    """Recalls (n_seeds, n_cutoffs) of each model on tables of the shape ``name``."""
    found: dict[str, list[list[float]]] = {model: [] for model in (OURS, *RIVALS)}
    for seed in range(n_seeds):
        dataset = drawn(SHAPES[name], seed)
        split = validation_as_test(with_validation(nothing_held_out(dataset), TEST, seed))
        for model, rows in found.items():
            rows.append(recalls(model, dataset, split, **changes))
    return {model: np.array(rows) for model, rows in found.items()}


def printed(name: str, found: dict[str, np.ndarray]) -> None:
    """Print the table of a shape."""
    ours, rows = found[OURS], []
    for model, each in found.items():
        away = (each - ours)[:, -1]
        error = away.std(ddof=1) / len(away) ** 0.5 if len(away) > 1 else np.nan
        ahead = "" if model == OURS else f"{away.mean():+.4f} ± {error:.4f}"
        rows.append([model, *(f"{value:.4f}" for value in each.mean(0)), ahead])
    shape = SHAPES[name]
    title = f"{name}: {shape.n_users:,} users, {shape.n_items:,} items, {len(ours)} seeds"
    show(["model", *(f"@{cutoff}" for cutoff in CUTOFFS), f"ahead of ours @{CUTOFFS[-1]}"], rows, title=title)


def main(arguments: list[str] | None = None, **changes: Any) -> dict[str, dict[str, np.ndarray]]:
    """Draw, fit and evaluate, print a table for each shape, and return what was measured."""
    parser = command("topics", __doc__)
    parser.add_argument("--shapes", nargs="+", choices=[*SHAPES], default=[*SHAPES], help="which tables")
    parser.add_argument("--seeds", type=int, default=5, help="how many of each")
    add_threads(parser)
    options = parser.parse_args(arguments)
    compute_with(options.threads)
    measured = {}
    for name in options.shapes:
        measured[name] = measure(name, options.seeds, threads=options.threads, **changes)
        printed(name, measured[name])
    return measured


if __name__ == "__main__":
    as_command(main)
