"""Does Bayes earn its keep? ``python -m benchmarks.bayes``: covariances and q(v|z) beside points, on paired splits.

All fits are ``inference.coordinate --preset best`` with K = 50, the networks trained on the contents once and held, so
that only the treatment of u and v differs. The settings of each are chosen on a validation part of the training
ratings of the first split: a fifth of them, or at one item a user the other ratings of a seeded tenth of the users,
who are left out of every mean. Then each is fitted to five random splits, with its own settings and with those of
``map``, and compared with ``map`` at its own settings user by user.
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from inference.commands import read_preset
from inference.evaluation.rankings import evaluate, recall_on_validation
from inference.fitting import Pretrained, fit_with
from inference.options import METHODS, Options
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split, per_user, with_validation

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
CUTOFFS = (50, 300)


def options(mode: str, a: float, lambda_u: float, lambda_v: float, **changes: Any) -> Options:
    """The fit of a mode at settings for a = 1 and contents of length 1."""
    precisions = {"lambda_u": a * lambda_u * RADIUS**2, "lambda_v": a * lambda_v / RADIUS**2}
    sizes = {"factors": 50, "hidden": (50,), "radius": RADIUS, "epochs": 0, "sweeps": 6}
    asked = {**sizes, **precisions, "a": a, "b": a * BACKGROUND, **MODES[mode], **changes}
    classes = Options.classes("coordinate")
    return Options.of("coordinate", **read_preset("best", classes, tuple(METHODS.values()), asked))


def choose(dataset: Dataset, split: Split, per_user: int, pretrained: Pretrained, changes: Any) -> dict[str, Any]:
    """Settings of each mode with the best recall@50 plus recall@300 on the validation part."""
    best: dict[str, Any] = {}
    for mode in MODES:
        found = {}
        for setting in product(CERTAINTY[mode], LAMBDA_U[per_user], LAMBDA_V):
            fit = fit_with(dataset, split, options(mode, *setting, **changes), pretrained=pretrained)
            score = fit.posterior.score_block
            found[setting] = tuple(recall_on_validation(score, split, cutoff) for cutoff in CUTOFFS)
            print(f"P = {per_user}, {mode}, a, lambda_u, lambda_v = {setting}: {found[setting]}", flush=True)
        best[mode] = max(found, key=lambda setting: sum(found[setting]))
    return best


def users(dataset: Dataset, split: Split, chosen: Options, pretrained: Pretrained, cutoff: int) -> np.ndarray:
    """recall@cutoff of every headline user, (n_users_evaluated,)."""
    fit = fit_with(dataset, split, chosen, pretrained=pretrained)
    found = evaluate(fit.posterior.score_block, split, cutoffs=(cutoff,), ndcg_cutoffs=()).per_user
    return found.loc[~found["tuning"], f"recall@{cutoff}"].to_numpy()


def main() -> None:
    """Choose settings, fit every mode to every split, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = os.environ.get("PYRO_CVAE_DATA")
    parser.add_argument("--data", default=str(Path(folder) / "citeulike-t") if folder else "citeulike-t")
    parser.add_argument("--per-user", type=int, nargs="*", default=[1, 10], help="training items a user")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: as many as there are cores)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dataset, pretrained, changes = load_dataset(arguments.data), Pretrained(), {"threads": arguments.threads}
    table = Table("P", "fit", "a, lambda_u, lambda_v", "recall@50", "difference to map", "relative", "standard error")
    for p in arguments.per_user:
        fraction = 0.1 if p == 1 else 0.2
        chosen = choose(dataset, with_validation(per_user(dataset, p, 0), fraction, 0), p, pretrained, changes)
        cases = {(mode, chosen[mode]): "" for mode in MODES}
        cases |= {(mode, (a, *chosen["map"][1:])): "" for mode in MODES for a in CERTAINTY[mode]}
        recalls: dict[Any, list[np.ndarray]] = {case: [] for case in cases}
        for seed in range(arguments.splits):
            split = per_user(dataset, p, seed)
            if p == 1:  # marks the users on whom settings were chosen; the training part stays whole
                split = with_validation(split, fraction, 0)
            for mode, setting in cases:
                made = options(mode, *setting, **changes)
                recalls[mode, setting].append(users(dataset, split, made, pretrained, 50))
        base = recalls["map", chosen["map"]]
        for (mode, setting), found in recalls.items():
            means = np.array([(mine - theirs).mean() for mine, theirs in zip(found, base, strict=True)])
            level, reference = (np.mean([part.mean() for part in parts]) for parts in (found, base))
            own = "own" if setting == chosen[mode] else "those of map"
            error = means.std(ddof=1) / len(means) ** 0.5 if len(means) > 1 else float("nan")
            numbers = (f"{level:.4f}", f"{means.mean():+.4f}", f"{means.mean() / reference:+.1%}", f"{error:.4f}")
            table.add_row(str(p), mode, ", ".join(f"{value:g}" for value in setting) + f" ({own})", *numbers)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
