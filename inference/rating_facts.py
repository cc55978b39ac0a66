"""The package's own rating likelihoods, as far as options must know them. No heavy import here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RatingFacts:
    """What must be known of a rating likelihood before anything heavy is imported; a test compares it with its class.

    ``conjugate`` and ``exact`` as in :class:`models.ratings.RatingLikelihood`; defaults of ``biases`` and precisions.
    Shrinkages as in :mod:`inference.algorithms.precisions`. Where ``per_factor``, that of items is times the factors,
    so that their number is no matter to the prior of u.v; ``of_points`` is that of map where it is another one.
    ``alone`` is what both shrinkages of a model without content are, in map and in bayes, where it is not these.
    ``lambda_b`` is in units of the precision of a rating.
    """

    conjugate: bool = True
    exact: bool = True
    explicit: bool = False
    biases: bool = True
    per_factor: bool = True
    user_shrinkage: float = 0.4
    item_shrinkage: float = 3.0
    of_points: float = 0.0
    alone: tuple[float, float] | None = None
    lambda_b: float = 1.0

    def default_shrinkages(self, mode: str, factors: int, has_content: bool) -> tuple[float, float]:
        """Shrinkages of users and of items where none is given."""
        if self.alone and not has_content:
            each = self.alone[mode == "bayes"]
            return each, each
        return self.user_shrinkage, self.default_item_shrinkage(mode, factors)

    def default_item_shrinkage(self, mode: str, factors: int) -> float:
        """The items' shrinkage where none is given."""
        if mode == "map" and self.of_points:
            return self.of_points
        return self.item_shrinkage * (factors if self.per_factor else 1)


RATINGS = {
    "confidence-normal": RatingFacts(biases=False, per_factor=False, user_shrinkage=4.0, item_shrinkage=0.75),
    "normal": RatingFacts(explicit=True, user_shrinkage=20.0, item_shrinkage=0.5, of_points=5.0, alone=(12.0, 6.0)),
    "bernoulli": RatingFacts(conjugate=False, alone=(3.0, 3.0)),
    "bernoulli-bound": RatingFacts(exact=False, alone=(3.0, 3.0)),
    "poisson": RatingFacts(conjugate=False, alone=(3.0, 3.0)),
}
"""The package's own rating likelihoods."""
