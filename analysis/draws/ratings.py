"""Ratings given scores, by the run's own likelihood: their confidences, draws and log densities."""

from __future__ import annotations

import numpy as np
import torch

from inference.fitting import Fit
from inference.recommending.updated import zero_weights
from models.ratings import RatingLikelihood
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.turns import in_turn


def stored_confidences(pairs: Interactions, likelihood: RatingLikelihood) -> np.ndarray:
    """C of each stored pair, the likelihood's default where it states none, (n_pairs,)."""
    return pairs.precisions(likelihood.default_confidence, likelihood.weight_unit)


def confidence_of_zeros(likelihood: RatingLikelihood) -> float:
    """Confidence of a cell that is not stored, 0 where it is missing; the mean over rated items."""
    return likelihood.background if likelihood.zeros else 0.0


def confidences_of_zeros(fit: Fit, items: np.ndarray) -> np.ndarray:
    """Confidence of a cell of each of these items that is not stored, 0 where it is missing, (n,)."""
    likelihood = getattr(fit.model, "ratings", None)
    if likelihood is None:
        return np.full(len(items), fit.options.model.b)
    confidence, weights = confidence_of_zeros(likelihood), zero_weights(fit)
    return np.full(len(items), confidence) if weights is None else confidence * weights.numpy()[items]


def draw_ratings(likelihood: RatingLikelihood, scores: np.ndarray, confidences: np.ndarray, seed: int) -> np.ndarray:
    """R_ij ~ p(R_ij | s_ij), ``confidences`` (n_cells,) given; ``scores`` and result (n_draws, n_cells)."""
    score = torch.as_tensor(scores)
    with in_turn(), torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        cell = likelihood.cell(score, torch.as_tensor(confidences).to(score).expand_as(score))
        return cell.sample().to(score).numpy()


def log_density(
    likelihood: RatingLikelihood, scores: np.ndarray, ratings: np.ndarray, confidences: np.ndarray
) -> np.ndarray:
    """Log p(R_ij | s_ij) in nats and float64; ``scores`` and result (n_draws, n_cells), the others (n_cells,)."""
    score = torch.as_tensor(scores).double()
    with torch.no_grad():
        given = (torch.as_tensor(values).double().expand_as(score) for values in (ratings, confidences))
        return likelihood.log_prob(score, *given).numpy()
