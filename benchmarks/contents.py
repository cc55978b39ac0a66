"""What every content adds: ``python -m benchmarks.contents [--data FOLDER] [--splits N]``.

``--preset best --mode map`` of the text alone, with tags, and with tags and citations, on the same random splits of P
training items a user, beside rivals that compare the same contents side by side. Of CiteULike the tags come from the
postings that are also the test pairs: who posts an item tags it. So the last rows have only the tags on 20 items or
more, of which a single posting is a small part.

The table has recall@50 and recall@300 of the ``corrected`` protocol, mean and standard error over splits. The networks
of each set of contents are trained once. ALS chooses its settings on a validation part of the training pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.arguments import add_data, add_threads, as_command, command, compute_with, data_folder
from benchmarks.study.tables import show
from inference.average import ScoreBlock, list_scores
from inference.evaluation.rankings import evaluate
from inference.evaluation.rivals import OF_CONTENTS, rival
from inference.fitting import Pretrained, fit_with
from inference.keywords import options_of
from pyro_cvae.data.citeulike import read_citations, read_tags
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split, per_user

SETS: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "tags": ("text", "tags"),
    "citations": ("text", "tags", "citations"),
    "frequent-tags": ("text", "frequent-tags", "citations"),
}
FREQUENT = 20
"""Items that a frequent tag is on at least."""
RIVALS = ("tfidf", "svd-200", "svd-300-prior")
ALONE = ("als", "popularity")
"""Rivals that read no content."""
CUTOFFS = (50, 300)


def read(folder: Path) -> Dataset:
    """A CiteULike folder with all of its contents."""
    dataset = load_dataset(folder)
    n = dataset.n_items
    others = {
        "tags": read_tags(folder, n),
        "frequent-tags": read_tags(folder, n, FREQUENT),
        "citations": read_citations(folder, n),
    }
    return replace(dataset, others=others)


class Measured:
    """Recall of every model on every split, one data set after the other."""

    def __init__(self, dataset: Dataset, per_users: Sequence[int], n_splits: int, **options: Any) -> None:
        self.dataset, self.options = dataset, options
        self.splits = {p: [per_user(dataset, p, seed) for seed in range(n_splits)] for p in per_users}

    def of(self, contents: tuple[str, ...], name: str) -> list[dict[str, Any]]:
        """A row for each P: what a model that reads these contents comes to."""
        pretrained, rows = Pretrained(), []
        own = {one: part for one, part in self.dataset.others.items() if one in contents}
        dataset = replace(self.dataset, others=own)
        for p, splits in self.splits.items():
            found = [self._recall(self._scores(dataset, split, contents, name, pretrained), split) for split in splits]
            means = np.mean(found, 0)
            errors = np.std(found, 0, ddof=1) / len(found) ** 0.5 if len(found) > 1 else np.full(len(CUTOFFS), np.nan)
            row: dict[str, Any] = {"contents": ", ".join(contents), "model": name, "P": p}
            for cutoff, mean, error in zip(CUTOFFS, means, errors, strict=True):
                row |= {f"recall@{cutoff}": float(mean), f"se@{cutoff}": float(error)}
            rows.append(row)
            told = ", ".join(f"@{cutoff} {row[f'recall@{cutoff}']:.4f}" for cutoff in CUTOFFS)
            print(f"{row['contents']}: {name}, P = {p}: {told}", flush=True)
        return rows

    def _scores(
        self, dataset: Dataset, split: Split, contents: tuple[str, ...], name: str, pretrained: Pretrained
    ) -> ScoreBlock:
        if name != "best":
            return rival(name, contents if name in OF_CONTENTS else ())(dataset, split)
        fit = fit_with(dataset, split, options_of("coordinate", "best", self.options), pretrained=pretrained)
        return list_scores(fit.posterior, split.train)

    @staticmethod
    def _recall(scores: ScoreBlock, split: Split) -> list[float]:
        means = evaluate(scores, split, cutoffs=CUTOFFS, ndcg_cutoffs=()).means()
        return [means[f"recall@{cutoff}"] for cutoff in CUTOFFS]


def main(arguments: list[str] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """Fit and evaluate, print the table, and return its rows."""
    parser = command("contents", __doc__)
    add_data(parser, "citeulike-t")
    parser.add_argument("--splits", type=int, default=5, help="random splits (default: 5)")
    parser.add_argument("--per-user", type=int, nargs="+", default=[1, 10], help="training items a user, P")
    told = "; ".join(f"{name}: {', '.join(own)}" for name, own in SETS.items())
    parser.add_argument("--sets", nargs="+", choices=[*SETS], default=[*SETS], help=f"which contents ({told})")
    parser.add_argument("--models", nargs="+", choices=["best", *RIVALS, *ALONE], default=["best", *RIVALS, *ALONE])
    add_threads(parser)
    options = parser.parse_args(arguments)
    compute_with(options.threads)
    dataset = changes.pop("dataset") if "dataset" in changes else read(data_folder(options.data, ("tags", "citations")))
    fitted = {"mode": "map", "threads": options.threads, **changes}
    measured, rows = Measured(dataset, options.per_user, options.splits, **fitted), list[dict[str, Any]]()
    for chosen in options.sets:
        for name in [one for one in options.models if one not in ALONE]:
            rows += measured.of(SETS[chosen], name)
    for name in [one for one in options.models if one in ALONE]:
        rows += [row | {"contents": "-"} for row in measured.of(("text",), name)]
    rows.sort(key=lambda row: row["P"])
    texts = [
        [row["contents"], row["model"], str(row["P"])]
        + [f"{row[f'recall@{cutoff}']:.4f} ± {row[f'se@{cutoff}']:.4f}" for cutoff in CUTOFFS]
        for row in rows
    ]
    title = f"{dataset.name}, {options.splits} random splits"
    show(["contents", "model", "P", *(f"recall@{cutoff}" for cutoff in CUTOFFS)], texts, 2, title=title)
    return rows


if __name__ == "__main__":
    as_command(main)
