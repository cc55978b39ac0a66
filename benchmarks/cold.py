"""Do items without training ratings reach the list? ``python -m benchmarks.cold [--data FOLDER]``.

``--preset best --mode map``, which finds its settings on hidden training pairs, beside the same with the settings as
they are given (``--tune 0``) and the simple rivals, on three kinds of splits:

- random: ten random items of each user train;
- oldest: the ten items of lowest id of each user train, where ids follow the time at which items came and are taken for
  times (what ``--split last`` hides from the search, the latest of each user, is hidden then);
- items: all pairs of a random fifth of the rated items are test.

The table has recall@M of the ``corrected`` protocol over all items, recall@300 of cold items within that list, and
recall@50 and @300 of cold items ranked among themselves. The networks are trained once. ALS and the SVD prior choose
their settings on training pairs of each split that are kept aside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.study.arguments import add_data, add_threads, as_command, command, compute_with, data_folder
from benchmarks.study.tables import show
from inference.average import ScoreBlock, list_scores
from inference.evaluation.rankings import evaluate
from inference.evaluation.rivals import rival, settings_of
from inference.fitting import Pretrained, fit_with
from inference.keywords import options_of
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split, held_out_items, per_user
from pyro_cvae.protocol import CUTOFFS

PER_USER = 10
HELD_OUT = 0.2
FITS: dict[str, dict[str, Any]] = {"best": {}, "best, --tune 0": {"tune": 0}}
COLD = {"cold@300": "recall@300", "alone@50": "own_recall@50", "alone@300": "own_recall@300"}
RIVALS = ("tfidf", "svd-50", "svd-300-prior", "als", "popularity")


def oldest(dataset: Dataset) -> Split:
    """The ten items of lowest id of each user train, the rest is test, with ids as times."""
    pairs = replace(dataset.interactions, times=dataset.interactions.items.astype(np.float64))
    counts = pairs.user_counts
    rank = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    late = rank >= PER_USER
    protocol = {"kind": "last", "of": "ids", "train_per_user": PER_USER}
    return Split(pairs.select(~late), pairs.select(late), None, None, protocol)


SPLITS: dict[str, Callable[[Dataset], Split]] = {
    "random": lambda dataset: per_user(dataset, PER_USER, 0),
    "oldest": oldest,
    "items": lambda dataset: held_out_items(dataset, HELD_OUT, 0),
}

REHEARSED = {"oldest": {"split": "last"}, "items": {"split": "items"}}
"""The split that a fit is told, which gets these splits ready-made: by it options say what the search hides."""


class Fits:
    """Fits of one data set on the same networks."""

    def __init__(self, dataset: Dataset, threads: int, **changes: Any) -> None:
        self.dataset, self.pretrained = dataset, Pretrained()
        self.shared: dict[str, Any] = {"mode": "map", "threads": threads, **changes}

    def scores(self, name: str, kind: str, split: Split) -> tuple[ScoreBlock, str]:
        """Scores of a fit or a rival, and what the fit has found."""
        if name not in FITS:
            found = rival(name, [*self.dataset.contents])(self.dataset, split)
            return found, "" if settings_of(found) == "fixed" else settings_of(found)
        options = options_of("coordinate", "best", self.shared | REHEARSED.get(kind, {}) | FITS[name])
        fit = fit_with(self.dataset, split, options, pretrained=self.pretrained)
        taken = [row for row in fit.metrics.get("tuning", []) if row["taken"] == "yes"]
        told = ", ".join(f"c {row['cold_scale']:.2f} {row['cold']}" for row in taken)
        power = f" n^{taken[0]['b_power']:g}" if taken and taken[0]["b_power"] else ""
        return list_scores(fit.posterior, split.train), told and f"b {taken[0]['b']:g}{power}, {told}"


def main(arguments: list[str] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """Fit and evaluate, print a table for each split, and return its rows."""
    parser = command("cold", __doc__)
    add_data(parser, "citeulike-t")
    parser.add_argument("--contents", nargs="*", default=[], help="further contents, as tags, which rivals read too")
    parser.add_argument("--splits", nargs="+", choices=[*SPLITS], default=[*SPLITS], help="which of them")
    parser.add_argument("--models", nargs="+", choices=[*FITS, *RIVALS], default=[*FITS, *RIVALS], help="which of them")
    add_threads(parser)
    options = parser.parse_args(arguments)
    compute_with(options.threads)
    if "dataset" in changes:
        dataset = changes.pop("dataset")
    else:
        dataset = load_dataset(data_folder(options.data, options.contents), contents=options.contents)
    fits, rows = Fits(dataset, options.threads, **changes), list[dict[str, Any]]()
    for kind in options.splits:
        split, own = SPLITS[kind](dataset), list[dict[str, Any]]()
        for name in options.models:
            scores, found = fits.scores(name, kind, split)
            measured = evaluate(scores, split, cutoffs=CUTOFFS, ndcg_cutoffs=())
            of_cold = measured.to_metrics()["groups"].get("cold", {})
            cold = {told: of_cold.get(name, float("nan")) for told, name in COLD.items()}
            own.append({"split": kind, "model": name, **measured.means(), **cold, "found": found})
            print(f"{kind}, {name}: recall@300 {own[-1]['recall@300']:.3f}", flush=True)
        headings = [key.replace("recall", "") for key in own[0] if key != "split"]
        texts = [[f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items() if k != "split"] for row in own]
        show(headings, texts, title=f"{dataset.name}, {kind}: {len(split.test):,} test pairs")
        rows += own
    return rows


if __name__ == "__main__":
    as_command(main)
