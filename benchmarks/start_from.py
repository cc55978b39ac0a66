"""Going on from a run beside a full refit: ``python -m benchmarks.start_from [--data FOLDER]``.

citeulike-t with ten training items a user, the authors' split, ``inference.coordinate --preset best --mode map``. A
share of the training pairs is hidden: all pairs of some users and of some items, who are not in the data at all, each
a quarter of that share of them, and others at random. A fit of the rest is the old run. Another fit goes on from it
with everything (``--start-from``), with so many sweeps as are asked. Beside them is a fit of everything from nothing,
and the same with another seed, which tells how far apart two such fits are.

Columns: recall of the ``corrected`` protocol on the test part; CPU seconds of the fit, of one that goes on with the
opening of the run, without evaluation; the share of the full refit's first 50 items of a user that are among the first
50, a mean over users with test pairs; and by how much scores of the same users differ, |S - S'| / |S'| in the Frobenius
norm, S' the full refit's. The old run is not in the table: it has neither all users nor all items.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.study.arguments import add_data, add_threads, as_command, command, compute_with, data_folder
from benchmarks.study.machine import Load
from benchmarks.study.tables import show
from inference.average import list_scores
from inference.evaluation.rankings import evaluate
from inference.fitting import Fit, fit_with
from inference.keywords import options_of
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split, make_split, nothing_held_out

TOP = 50
CUTOFFS = (50, 300)
USERS_AT_ONCE = 512
WHOLE = 0.25
"""Of the hidden share, that of users and that of items that are hidden whole."""


def before(dataset: Dataset, train: Interactions, share: float, seed: int = 0) -> Dataset:
    """The training pairs without a ``share`` of them, some users and items not being there at all."""
    rng = np.random.default_rng(seed)
    kept = [rng.random(n) >= WHOLE * share for n in (dataset.n_users, dataset.n_items)]
    there = kept[0][train.users] & kept[1][train.items]
    at_random = max(0.0, (share * len(train) - (~there).sum()) / there.sum())
    there &= rng.random(len(train)) >= at_random
    row = [np.cumsum(one) - 1 for one in kept]
    pairs = Interactions.from_arrays(
        row[0][train.users[there]],
        row[1][train.items[there]],
        n_users=int(kept[0].sum()),
        n_items=int(kept[1].sum()),
        ratings=train.ratings[there],
        confidences=None if train.confidences is None else train.confidences[there],
    )
    others = {name: one.select(kept[1]) for name, one in dataset.others.items()}
    ids = dataset.user_ids[kept[0]], dataset.item_ids[kept[1]]
    return Dataset(dataset.name, pairs, dataset.content.select(kept[1]), *ids, None, None, others)


class Refits:
    """Fits of one data set and split, timed, and compared with the first of them."""

    def __init__(self, dataset: Dataset, split: Split, threads: int, **changes: Any) -> None:
        self.dataset, self.split = dataset, split
        self.shared: dict[str, Any] = {"mode": "map", "threads": threads, **changes}
        self.users = np.flatnonzero(split.test.user_counts > 0)
        self.full: Fit | None = None

    def row(self, name: str, hidden: float | None, **asked: Any) -> dict[str, Any]:
        """A fit of everything, from nothing or from a run, as a row of the table."""
        preset = None if "start_from" in asked else "best"
        shared = self.shared if preset else {name: self.shared[name] for name in ("mode", "threads")}
        began = time.process_time()
        fit = fit_with(self.dataset, self.split, options_of("coordinate", preset, shared | asked))
        seconds = time.process_time() - began  # with the metrics at the end, which all have
        self.full = fit if self.full is None else self.full
        scores = list_scores(fit.posterior, self.split.train)
        means = evaluate(scores, self.split, cutoffs=CUTOFFS, ndcg_cutoffs=()).means()
        overlap, distance = self.beside(fit)
        found = {"hidden": "" if hidden is None else f"{hidden:.0%}", "fit": name}
        found |= means | {"CPU s": seconds, "top 50": overlap, "distance": distance}
        print(
            " ".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in found.values()), flush=True
        )
        return found

    def beside(self, fit: Fit) -> tuple[float, float]:
        """The share of the first 50 in common with the full refit, and the distance of scores."""
        assert self.full is not None
        same, square, norm = 0, 0.0, 0.0
        for (mine, seen), (theirs, _) in zip(self.blocks(fit), self.blocks(self.full), strict=True):
            square += float((mine - theirs).double().square().sum())
            norm += float(theirs.double().square().sum())
            lists = [block.masked_fill(seen, -torch.inf).topk(TOP).indices for block in (mine, theirs)]
            marks = [torch.zeros(mine.shape, dtype=torch.bool).scatter_(1, one, True) for one in lists]
            same += int((marks[0] & marks[1]).sum())
        return same / (TOP * len(self.users)), (square / norm) ** 0.5

    def blocks(self, fit: Fit) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores of users with test pairs, (n_block, n_items), and their training pairs, bool of that shape."""
        scores, seen = list_scores(fit.posterior, self.split.train), self.split.train.csr()
        for start in range(0, len(self.users), USERS_AT_ONCE):
            rows = self.users[start : start + USERS_AT_ONCE]
            yield scores(rows), torch.as_tensor(seen[rows].toarray() > 0)


def main(arguments: list[str] | None = None, **changes: Any) -> list[dict[str, Any]]:
    """Fit, go on, compare, print the table, and return its rows."""
    parser = command("start_from", __doc__)
    add_data(parser, "citeulike-t")
    parser.add_argument("--hidden", type=float, nargs="+", default=[0.01, 0.1], help="shares of the training pairs")
    parser.add_argument("--sweeps", type=int, nargs="+", default=[1, 6], help="sweeps of the fits that go on")
    parser.add_argument("--seeds", type=int, default=2, help="fits of everything from nothing")
    add_threads(parser, 1)
    options = parser.parse_args(arguments)
    compute_with(options.threads)
    load = Load()
    if "dataset" in changes:
        dataset, split = changes.pop("dataset"), changes.pop("split")
    else:
        folder = data_folder(options.data)
        dataset = load_dataset(folder)
        asked = options_of("coordinate", None, {"train_file": str(folder / "cf-train-10-users.dat")})
        split = make_split(dataset, asked.data)
    fits = Refits(dataset, split, options.threads, **changes)
    rows = [fits.row("from nothing", None)]
    with tempfile.TemporaryDirectory() as folder:
        for share in options.hidden:
            old, run = before(dataset, split.train, share), str(Path(folder) / f"{share:g}")
            asked = options_of("coordinate", "best", fits.shared | {"out": run, "split": "none"})
            fit_with(old, nothing_held_out(old), asked)
            for sweeps in options.sweeps:
                rows.append(fits.row(f"--start-from, --sweeps {sweeps}", share, start_from=run, sweeps=sweeps))
    for seed in range(1, options.seeds):
        rows.append(fits.row(f"from nothing, --seed {seed}", None, seed=seed))
    texts = [[f"{v:.3f}" if isinstance(v, float) and v < 10 else v if isinstance(v, str) else f"{v:.0f}"
              for v in row.values()] for row in rows]  # fmt: skip
    title = f"{dataset.name}: {len(split.train):,} training pairs"
    show(list(rows[0]), texts, 2, title=title, caption=load.told(options.threads))
    return rows


if __name__ == "__main__":
    as_command(main)
