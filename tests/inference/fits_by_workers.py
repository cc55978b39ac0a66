"""Small fits by all workers of a job, whose posteriors and histories the first writes: run by torchrun, or alone.

``torchrun --standalone --nproc-per-node 2 -m tests.inference.fits_by_workers FOLDER``
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import inference
from inference.algorithms.workers import here, leave
from models.observations import RatingColumns
from models.ratings.confidence_normal import ConfidenceNormal
from models.ratings.moments import SweepScores
from models.state import kept
from pyro_cvae.data.simulated import simulated, simulated_stars

SMALL: dict[str, Any] = {
    "train_per_user": 5,
    "factors": 4,
    "hidden": [8],
    "pretrain_epochs": 2,
    "dtype": "float64",
    "threads": 1,
    "quiet": True,
}
SIZE = {"n_users": 61, "n_items": 97, "n_words": 80, "n_factors": 3}
CASES: dict[str, dict[str, Any]] = {
    "map": {"mode": "map"},
    "map, tuned": {"mode": "map", "tune": 3, "learning_rate": 0.0},
    "diagonal": {"mode": "bayes", "diagonal": True},
    "full": {"mode": "bayes"},
    "full, by torch": {"mode": "bayes", "kernel": "torch"},
    "structured": {"mode": "bayes", "guide": "structured"},
    "learned precisions": {"mode": "bayes", "learn_precisions": True},
    "biases": {"mode": "bayes", "biases": "on"},
    "biases, map": {"mode": "map", "biases": "on"},
    "bound": {"mode": "bayes", "rating_likelihood": "bernoulli-bound"},
    "bound, map, biases": {"mode": "map", "rating_likelihood": "bernoulli-bound", "biases": "on"},
    "normal": {"mode": "bayes", "rating_likelihood": "normal"},
    "normal, diagonal": {"mode": "bayes", "rating_likelihood": "normal", "diagonal": True},
    "zeros": {"mode": "map", "unrated": "zeros"},
    "needed, map": {"mode": "map", "gather": "needed"},
    "needed, map, by torch": {"mode": "map", "gather": "needed", "kernel": "torch"},
    "needed, map, biases": {"mode": "map", "gather": "needed", "biases": "on"},
    "needed, map, zeros": {"mode": "map", "gather": "needed", "unrated": "zeros"},
    "needed, diagonal": {"mode": "bayes", "gather": "needed", "diagonal": True},
    "needed, diagonal, biases": {"mode": "bayes", "gather": "needed", "diagonal": True, "biases": "on"},
    "needed, normal": {"mode": "bayes", "gather": "needed", "diagonal": True, "rating_likelihood": "normal"},
    "needed, tuned": {"mode": "map", "gather": "needed", "tune": 3, "learning_rate": 0.0},
    "needed, stopped": {"mode": "map", "gather": "needed", "validation": 0.2, "patience": 2, "sweeps": 6},
    "needed, full": {"mode": "bayes", "gather": "needed"},
    "popular, map": {"mode": "map", "b_power": 0.7},
    "popular, full, biases": {"mode": "bayes", "b_power": 0.7, "biases": "on"},
    "popular, structured": {"mode": "bayes", "b_power": 0.7, "guide": "structured"},
    "popular, diagonal": {"mode": "bayes", "b_power": 0.7, "diagonal": True, "unrated": "zeros"},
    "needed, popular": {"mode": "map", "gather": "needed", "b_power": 0.7},
    "words hidden": {"mode": "bayes", "word_dropout": 0.3},
    "no contents": {"mode": "bayes", "model": "pmf"},
    "topics": {"mode": "map", "model": "ctr"},
    "svi, map": {"method": "svi", "mode": "map"},
    "svi, mean-field": {"method": "svi", "mode": "bayes"},
    "svi, structured": {"method": "svi", "mode": "bayes", "guide": "structured"},
}


class Silent(ConfidenceNormal):
    """A likelihood of one's own that reports the sums of its own columns."""

    def after_sweep(self, columns: RatingColumns, scores: SweepScores) -> torch.Tensor:
        """Without those of other workers."""
        return self.at_zero(columns) - 0.5 * scores.form


SILENT = "silent"


def fit(case: str) -> dict[str, torch.Tensor]:
    """Posterior, model and history of a case, as this worker knows them."""
    own = {"mode": "map", "rating_likelihood": Silent}
    given = {"method": "coordinate"} | SMALL | (own if case == SILENT else CASES[case])
    if given["method"] == "coordinate":
        given |= {"epochs": 2, "sweeps": 3} if "sweeps" not in given else {}
    else:
        given |= {"epochs": 3}
    dataset = (
        simulated_stars(**SIZE) if given.get("rating_likelihood") == "normal" else simulated(**SIZE, clicks_per_user=20)
    )
    found = inference.fit(dataset, None, **given)
    rows = [list(row.values()) for row in found.history]
    numbers = [[float(value) for value in row if isinstance(value, int | float)][:-1] for row in rows]
    said = {f"history.{n}": torch.tensor(row, dtype=torch.float64) for n, row in enumerate(numbers)}
    covariances = {"u": found.posterior.u, "v": found.posterior.v}
    whole = {f"{side}.covariances": q.covariances() for side, q in covariances.items()}
    means = {f"{side}.loc": q.loc for side, q in covariances.items()}
    return said | means | whole | {f"model.{name}": tensor for name, tensor in kept(found.model).items()}


def main() -> None:
    """Fit every case, or those that are named, and write what the first worker knows of each."""
    folder, *cases = sys.argv[1:]
    for number, case in enumerate([*CASES, SILENT]):
        if case in (cases or CASES):
            known = fit(case)
            if here().is_first:
                path = Path(folder) / f"{number}.safetensors"
                save_file({name: tensor.detach().clone().contiguous() for name, tensor in known.items()}, path)
    leave()


if __name__ == "__main__":
    main()
