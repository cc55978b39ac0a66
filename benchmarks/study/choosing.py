"""Splits of a study and the settings that are chosen on them, never on test pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from inference.average import ScoreBlock
from inference.evaluation.rankings import recall_on_validation
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split, per_user, with_validation

CUTOFFS = (50, 300)
T = TypeVar("T")


def tuning_split(dataset: Dataset, n: int, seed: int) -> Split:
    """``n`` training items a user, with a validation part to choose settings on.

    A fifth of the training ratings; at one item a user the other ratings of a seeded tenth of the users.
    """
    return with_validation(per_user(dataset, n, seed), 0.1 if n == 1 else 0.2, 0)


def reported_split(dataset: Dataset, n: int, seed: int) -> Split:
    """``n`` training items a user, none taken out; at one, the users on whom settings were chosen are marked."""
    return tuning_split(dataset, n, seed) if n == 1 else per_user(dataset, n, seed)


def validation_as_test(split: Split) -> Split:
    """The same with its validation part as test: what was test is no part of it."""
    assert split.validation is not None
    return replace(split, test=split.validation, validation=None, tuning_users=None)


def best_recall(
    score_block: Callable[..., ScoreBlock], grid: Iterable[T], split: Split
) -> tuple[T, dict[T, tuple[float, ...]]]:
    """The settings with the best recall@50 plus recall@300 on the validation part, and both of all settings.

    ``score_block`` makes the scores of settings, which are its arguments.
    """
    found: dict[Any, tuple[float, ...]] = {}
    for setting in grid:
        score = score_block(*setting)  # type: ignore[misc]
        found[setting] = tuple(recall_on_validation(score, split, cutoff) for cutoff in CUTOFFS)
    return max(found, key=lambda setting: sum(found[setting])), found


def least(loss: Callable[[T], float], grid: Sequence[T]) -> tuple[T, list[float]]:
    """The settings of the smallest loss, and the loss of each; where there is nothing to choose none is computed."""
    losses = [loss(settings) for settings in grid] if len(grid) > 1 else [0.0]
    return grid[int(np.argmin(losses))], losses
