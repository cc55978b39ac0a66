"""Ratings likelihoods p(R | U, V): one class each; a new one is one file, named by its class path."""

from models.ratings.base import GaussianSite, RatingLikelihood
from models.ratings.columns import CellColumns
from models.ratings.moments import Moments, SweepScores

NAMES = {
    "confidence-normal": "models.ratings.confidence_normal:ConfidenceNormal",
    "normal": "models.ratings.normal:Normal",
    "bernoulli": "models.ratings.bernoulli:Bernoulli",
    "bernoulli-bound": "models.ratings.bernoulli:BernoulliBound",
    "poisson": "models.ratings.poisson:Poisson",
}
"""The package's own likelihoods: name on the command line, and where its class is."""

__all__ = ["NAMES", "CellColumns", "GaussianSite", "Moments", "RatingLikelihood", "SweepScores"]
