"""Does Bayes earn its keep? ``python -m benchmarks.bayes``: covariances and q(v|z) beside points, on paired splits.

All fits are ``inference.coordinate --preset best`` with K = 50, the networks trained on the contents once and held, so
that only the treatment of u and v differs. The settings of each are chosen on a validation part of the training
ratings of the first split: a fifth of them, or at one item a user the other ratings of a seeded tenth of the users,
who are left out of every mean. Then each is fitted to five random splits, with its own settings and with those of
``map``, and compared with ``map`` at its own settings user by user.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.study.arguments import add_data, add_threads, as_command, command, compute_with
from benchmarks.study.choosing import best_recall, reported_split, tuning_split
from benchmarks.study.paired import difference
from benchmarks.study.tables import show
from inference.evaluation.rankings import evaluate
from inference.fitting import Pretrained, fit_with
from inference.keywords import options_of
from inference.options import Options
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split

MODES: dict[str, dict[str, Any]] = {
    "map": {"mode": "map"},
    "bayes": {"mode": "bayes"},
    "bayes, structured": {"mode": "bayes", "guide": "structured"},
}
RADIUS = 9.0
CERTAINTY = {"map": (1.0,), "bayes": (100.0, 1000.0), "bayes, structured": (100.0, 1000.0)}
"""Values of a; the ratios to it are searched apart, and points depend on these alone."""
LAMBDA_U = {1: (1.0, 3.0, 10.0, 30.0), 10: (2.5, 5.0, 10.0, 20.0)}
LAMBDA_V = (1.0,)
BACKGROUND = 0.01
"""lambda_u, lambda_v and b at a = 1 and contents of length 1."""
HEADINGS = ("P", "fit", "a, lambda_u, lambda_v", "recall@50", "difference to map", "relative", "standard error")
Setting = tuple[float, ...]
"""a, lambda_u and lambda_v."""


def options(mode: str, a: float, lambda_u: float, lambda_v: float, **changes: Any) -> Options:
    """The fit of a mode at settings for a = 1 and contents of length 1."""
    precisions = {"lambda_u": a * lambda_u * RADIUS**2, "lambda_v": a * lambda_v / RADIUS**2}
    sizes = {"factors": 50, "hidden": (50,), "radius": RADIUS, "epochs": 0, "sweeps": 6, "tune": 0}
    asked = {**sizes, **precisions, "a": a, "b": a * BACKGROUND, **MODES[mode], **changes}
    return options_of("coordinate", "best", asked)


class Fits:
    """Fits of one data set on the same networks."""

    def __init__(self, dataset: Dataset, threads: int) -> None:
        self.dataset, self.threads, self.pretrained = dataset, threads, Pretrained()

    def scores(self, split: Split, mode: str, *setting: float) -> Any:
        """The scores of a mode at settings."""
        chosen = options(mode, *setting, threads=self.threads)
        return fit_with(self.dataset, split, chosen, pretrained=self.pretrained).posterior.score_block

    def choose(self, n: int) -> dict[str, Setting]:
        """Settings of each mode with the best recall@50 plus recall@300 on the validation part."""
        split, best = tuning_split(self.dataset, n, 0), {}
        for mode in MODES:
            grid = product(CERTAINTY[mode], LAMBDA_U[n], LAMBDA_V)
            best[mode], found = best_recall(partial(self.scores, split, mode), grid, split)
            for setting, recalls in found.items():
                print(f"P = {n}, {mode}, a, lambda_u, lambda_v = {setting}: {recalls}", flush=True)
        return best

    def recall(self, split: Split, mode: str, setting: Setting) -> float:
        """recall@50, mean over headline users."""
        found = evaluate(self.scores(split, mode, *setting), split, cutoffs=(50,), ndcg_cutoffs=())
        return found.means()["recall@50"]


def main() -> None:
    """Choose settings, fit every mode to every split, print one table."""
    parser = command("bayes", __doc__)
    add_data(parser, "citeulike-t")
    parser.add_argument("--per-user", type=int, nargs="*", default=[1, 10], help="training items a user")
    parser.add_argument("--splits", type=int, default=5)
    add_threads(parser)
    arguments = parser.parse_args()
    compute_with(arguments.threads)
    dataset = load_dataset(arguments.data)
    fits, rows = Fits(dataset, arguments.threads), []
    for n in arguments.per_user:
        chosen = fits.choose(n)
        cases = [(mode, chosen[mode]) for mode in MODES]
        cases += [(mode, (a, *chosen["map"][1:])) for mode in MODES for a in CERTAINTY[mode]]
        recalls: dict[tuple[str, Setting], list[float]] = {case: [] for case in cases}
        for seed in range(arguments.splits):
            split = reported_split(dataset, n, seed)
            for case, found in recalls.items():
                found.append(fits.recall(split, *case))
        base = recalls["map", chosen["map"]]
        for (mode, setting), found in recalls.items():
            away, error = difference(found, base)
            own = "own" if setting == chosen[mode] else "those of map"
            told = ", ".join(f"{value:g}" for value in setting) + f" ({own})"
            numbers = (f"{np.mean(found):.4f}", f"{away:+.4f}", f"{away / np.mean(base):+.1%}", f"{error:.4f}")
            rows.append([str(n), mode, told, *numbers])
    show(HEADINGS, rows, left=3)


if __name__ == "__main__":
    as_command(main)
