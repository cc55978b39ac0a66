"""Ratings likelihoods p(R | U, V): one class each."""

from models.ratings.base import RatingLikelihood

__all__ = ["RatingLikelihood"]
