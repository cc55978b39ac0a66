"""Ratings likelihoods p(R | U, V): one class each; a new one is one file, named by its class path."""

from models.ratings.base import GaussianSite, RatingLikelihood
from models.ratings.columns import CellColumns
from models.ratings.moments import Moments, SweepScores

__all__ = ["CellColumns", "GaussianSite", "Moments", "RatingLikelihood", "SweepScores"]
