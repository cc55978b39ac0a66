"""New ratings as the fitted likelihood has them: mean, standard deviation, and their whole distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.ratings.predictive import Predictive

if TYPE_CHECKING:
    from inference.posterior import Posterior
    from models.ratings import RatingLikelihood
    from pyro_cvae.data.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Predicted:
    """New ratings of pairs: ``mean`` and ``sd``, (n_pairs,) each, float64, and all of their ``distribution``."""

    mean: Tensor
    sd: Tensor
    distribution: Predictive


def score_moments(posterior: Posterior, users: Any, items: Any) -> tuple[Tensor, Tensor]:
    """Mean and variance of the scores of pairs of rows, float64; of a point estimate the score is taken to be known."""
    if posterior.is_point:
        mean = posterior.mean_score(users, items).double()
        return mean, torch.zeros_like(mean)
    mean, sd = (part.double() for part in posterior.score(users, items))
    return mean, sd.square()


def predicted(
    likelihood: RatingLikelihood, mean: Tensor, variance: Tensor, train: Interactions | None = None
) -> Predicted:
    """The new ratings of pairs whose scores have these moments, (n_pairs,), under a fitted likelihood.

    Where ``train`` is given, means stay within the range of its ratings; a predictive that is Normal moves with its
    mean, any other one is what the likelihood says.
    """
    with torch.no_grad():
        expected, sd = (part.double() for part in likelihood.predict(mean, variance))
    distribution = likelihood.predictive(mean, variance)
    if train is not None:
        given = train.ratings[train.observed]
        expected = expected.clamp(float(given.min()), float(given.max()))
        distribution = distribution.moved_to(expected.flatten())
    return Predicted(expected, sd, distribution)
