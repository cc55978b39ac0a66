"""Does the evidence tell the precisions of u and v? ``python -m benchmarks.evidence [--data FOLDER]``.

The evidence bound of ``inference.coordinate --mode bayes`` beside recall, over precisions of u and v that are moved
together by factors of four, for several sizes of the confidences a and b with the same ratio. Only this ratio
matters to the ranking of points. The networks are held and trained once.

- Clicks: R is 0 or 1, and C is a where it is 1. A one is worth at most a/2 nats, and what u and v cost in nats does not
  depend on a. So the size of a alone decides whether the bound pays for factors at all.
- The control are ratings drawn from the model's own story, with its own precisions: the factor 1 at the size 1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.study.arguments import add_data, add_threads, as_command, command, compute_with, data_folder
from benchmarks.study.tables import show
from inference.average import list_scores
from inference.evaluation.rankings import evaluate
from inference.fitting import Fit, Pretrained, fit_with
from inference.keywords import options_of
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.simulated import simulated_gaussian
from pyro_cvae.data.splits import Split, held_out_cells, per_user

RATIO = 0.007
"""b / a of clicks, that of ``--preset best``."""
CONFIDENCES = (1.0, 10.0, 100.0, 1000.0)
USERS, ITEMS = 4.938, 0.972
"""Shrinkages of ``--preset best``."""
FACTORS = tuple(4.0**power for power in range(-3, 6))
"""By which the precisions are multiplied."""


@dataclass(frozen=True)
class Case:
    """Fits of one data set at several sizes of the confidences, and how they are measured.

    ``better`` is 1 where more of the ``metric`` is, -1 where less is. ``at`` gives data, split and options at a size
    and a factor of the precisions.
    """

    name: str
    sizes: tuple[float, ...]
    metric: str
    better: int
    at: Callable[[float, float], tuple[Dataset, Split, dict[str, Any]]]
    measure: Callable[[Fit], float]


def clicks(dataset: Dataset, small: dict[str, Any]) -> Case:
    """Ten training items a user of a data set of clicks; the size is a."""
    split = per_user(dataset, 10, 0)
    options = {"factors": 50, "hidden": (50,), "pretrain_epochs": 4, "sweeps": 4, "tune": 0} | small

    def at(a: float, factor: float) -> tuple[Dataset, Split, dict[str, Any]]:
        shrinkages = {"user_shrinkage": USERS * factor, "item_shrinkage": ITEMS * factor}
        return dataset, split, {"preset": "best", "a": a, "b": RATIO * a, **shrinkages, **options}

    def recall(fit: Fit) -> float:
        scores = list_scores(fit.posterior, split.train)
        return evaluate(scores, split, cutoffs=(300,), ndcg_cutoffs=()).means()["recall@300"]

    return Case(dataset.name, CONFIDENCES, "recall@300", 1, at, recall)


def drawn(small: dict[str, Any]) -> Case:
    """Ratings of the model's own story, at the precisions that they were drawn with, times the size."""
    dataset = simulated_gaussian()
    pairs, truth = dataset.interactions, dataset.truth
    assert truth is not None and pairs.confidences is not None
    confidences = pairs.confidences
    options = {"factors": 5, "pretrain_epochs": 20, "epochs": 0, "sweeps": 8} | small

    own = {name: float(truth[name]) for name in ("lambda_u", "lambda_v")}

    def at(size: float, factor: float) -> tuple[Dataset, Split, dict[str, Any]]:
        scaled = replace(dataset, interactions=replace(pairs, confidences=size * confidences))
        precisions = {name: value * factor for name, value in own.items()}
        return scaled, held_out_cells(scaled, 0.2, 0), {"preset": None, **precisions, **options}

    def error(fit: Fit) -> float:
        away = fit.posterior.score_block(np.arange(dataset.n_users)).numpy() - truth["scores"]
        return float(np.sqrt(np.mean(away**2)))

    return Case("ratings of the story", (0.1, 1.0, 10.0), "RMSE of true scores", -1, at, error)


def rows_of(case: Case, threads: int) -> list[dict[str, Any]]:
    """The bound and the metric at each size of the confidences and factor of the shrinkages."""
    pretrained, rows = Pretrained(), []
    for size in case.sizes:
        for factor in FACTORS:
            dataset, split, own = case.at(size, factor)
            preset = own.pop("preset")
            chosen = own | {"mode": "bayes", "diagonal": True, "threads": threads}
            fit = fit_with(dataset, split, options_of("coordinate", preset, chosen), pretrained=pretrained)
            row = {"case": case.name, "size": size, "factor": factor, "bound": fit.history[-1]["elbo"]}
            rows.append(row | {"metric": case.metric, "value": case.measure(fit)})
            print(f"{case.name}, confidences {size:g}, precisions times {factor:g}: {row['bound']:,.0f} nats, "
                  f"{case.metric} {rows[-1]['value']:.3f}", flush=True)  # fmt: skip
    return rows


def main(arguments: list[str] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """Fit, print a table for each case, and return all rows."""
    parser = command("evidence", __doc__)
    add_data(parser, "citeulike-t")
    add_threads(parser)
    options = parser.parse_args(arguments)
    compute_with(options.threads)
    dataset = changes.pop("dataset") if "dataset" in changes else load_dataset(data_folder(options.data))
    rows = []
    for case in (drawn(changes), clicks(dataset, changes)):
        own = rows_of(case, options.threads)
        rows += own
        tell(case, own)
    return rows


def tell(case: Case, rows: list[dict[str, Any]]) -> None:
    """The bound less its best, and the metric, over the factors; the best of each size is marked."""
    texts: list[list[str]] = []
    for size in case.sizes:
        own = [row for row in rows if row["size"] == size]
        best_bound = max(row["bound"] for row in own)
        best_value = max(case.better * row["value"] for row in own)
        bounds = [f"{row['bound'] - best_bound:,.0f}" + "*" * (row["bound"] == best_bound) for row in own]
        values = [f"{row['value']:.3f}" + "*" * (case.better * row["value"] == best_value) for row in own]
        texts += [[f"{size:g}", "bound less best, nats", *bounds], ["", case.metric, *values], []]
    title = f"{case.name}: precisions times ...; * the best"
    show(["confidences", "", *(f"{factor:g}" for factor in FACTORS)], texts[:-1], 2, title=title)


if __name__ == "__main__":
    logging.getLogger("pyro_cvae").setLevel(logging.ERROR)  # the same contents are trained on again and again
    as_command(main)
