"""Runs and rivals beside each other: one comparison for each data set and split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inference.average import ScoreBlock, list_scores, predictions
from inference.evaluation.candidates import CandidateSet, read_candidates
from inference.evaluation.rankings import Evaluation, evaluate
from inference.evaluation.rating_rivals import RATING_RIVALS, RATING_SETTINGS
from inference.evaluation.ratings import Predict, RatingEvaluation, evaluate_ratings
from inference.evaluation.rivals import RIVALS, settings_of
from inference.fitting import Fit, load
from inference.threads import torch_threads
from models.ratings.predictive import Predictive
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError, PyroCvaeError, about_file
from pyro_cvae.protocol import CUTOFFS, Protocol, telling
from pyro_cvae.trust import Trust


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models on one split of one data set: ``rows`` are (name, evaluation), or (name, why there is none).

    ``explicit`` says that they predict ratings, and do not rank; ``candidates`` which items are ranked, if not all;
    ``settings`` of rivals, in words, by name.
    """

    dataset: Dataset
    split: Split
    rows: list[tuple[str, Evaluation | RatingEvaluation | str]]
    explicit: bool = False
    candidates: CandidateSet | None = None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def evaluations(self) -> list[tuple[str, Any]]:
        """The rows that have an evaluation."""
        return [(name, result) for name, result in self.rows if not isinstance(result, str)]


def compare(
    runs: Iterable[str],
    *,
    rivals: bool = False,
    protocol: Protocol = "corrected",
    cutoffs: Sequence[int] = CUTOFFS,
    candidates: str | None = None,
    threads: int | None = None,
    block_size: int = 256,
    trust: Trust = (),
) -> list[Comparison]:
    """Evaluate runs one after another, and the rivals once for each data set and split that they were fitted on.

    Parameters as the fields of :class:`inference.evaluate.EvaluateOptions`. Raises InputError naming the run that
    cannot be evaluated.
    """
    how: dict[str, Any] = {"cutoffs": tuple(cutoffs), "protocol": protocol, "block_size": block_size}
    comparisons: dict[tuple[str, str, bool], Comparison] = {}
    with torch_threads(threads):
        for path in runs:
            fit = load(path, trust=trust)
            key = fit.dataset.fingerprint(), fit.split.fingerprint(), fit.model.ratings.explicit
            if key not in comparisons:
                comparisons[key] = _comparison(fit, candidates, path)
            comparison = comparisons[key]
            with about_file(path):
                comparison.rows.append((path, _evaluated(fit, comparison, how)))
        for comparison in comparisons.values() if rivals else ():
            if comparison.explicit:
                _add_rating_rivals(comparison)
            else:
                _add_rivals(comparison, how)
    return list(comparisons.values())


def _comparison(fit: Fit, candidates: str | None, path: str) -> Comparison:
    """An empty comparison on the data and split of a fit, whose run is ``path``."""
    explicit = fit.model.ratings.explicit
    if candidates and explicit:
        raise InputError("--candidates are of rankings, and this run predicts ratings", "leave it out", path=path)
    among = read_candidates(candidates, fit.dataset) if candidates else None
    return Comparison(fit.dataset, fit.split, [], explicit, among)


def _evaluated(fit: Fit, comparison: Comparison, how: dict[str, Any]) -> Evaluation | RatingEvaluation:
    if comparison.explicit:
        return evaluate_ratings(predictor(fit), fit.split)
    scores = list_scores(fit.posterior, fit.split.train)
    return _ranked(scores, comparison, how)


def _ranked(scores: ScoreBlock, comparison: Comparison, how: dict[str, Any]) -> Evaluation:
    """The ranking by these scores, at the lengths of lists that say something of so many items."""
    own = how | {"cutoffs": telling(how["cutoffs"], comparison.dataset.n_items)}
    return evaluate(scores, comparison.split, candidates=comparison.candidates, **own)


def _add_rating_rivals(comparison: Comparison) -> None:
    for name, factory in RATING_RIVALS.items():
        predict = factory(comparison.dataset, comparison.split)
        comparison.settings[name] = RATING_SETTINGS.get(name, "fixed")
        comparison.rows.append((name, evaluate_ratings(predict, comparison.split)))


def _add_rivals(comparison: Comparison, how: dict[str, Any]) -> None:
    """Add the rivals that rank, or why there is none."""
    for name, factory in RIVALS.items():
        try:
            score_block = factory(comparison.dataset, comparison.split)
        except PyroCvaeError as error:
            comparison.rows.append((name, str(error)))
            continue
        comparison.settings[name] = settings_of(score_block)
        comparison.rows.append((name, _ranked(score_block, comparison, how)))


def predictor(fit: Fit) -> Predict:
    """A fit's predictions of ratings, with the distribution that its own likelihood has."""

    def predict(users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, Predictive]:
        rating = predictions(fit.posterior, fit.model.ratings, users, items, fit.split.train)
        return rating.mean.numpy(), rating.sd.numpy(), rating.distribution

    return predict
