r"""Probabilistic matrix factorisation: ratings alone, the items' contents unread.

Source: R. Salakhutdinov and A. Mnih, Probabilistic Matrix Factorization, NIPS 2008.

For each user i
    u_i ~ N(0, lambda_u^-1 I)
For each item j
    v_j ~ N(0, lambda_v^-1 I)
For each user i and item j
    R_ij ~ p(R | s_ij),  s_ij = u_i.v_j              rating, by any likelihood of models.ratings

It is the :class:`~models.cvae.CVAE` whose z_j is 0. Scores depend on lambda_u lambda_v alone: u g and v / g with
precisions lambda_u / g^2 and lambda_v g^2 are the same model. Cold items are at the prior, all alike.
"""

from __future__ import annotations

import pyro

from models.base import FactorModel, NoContent
from models.observations import Batch
from models.ratings import RatingLikelihood


class PMF(FactorModel):
    """p(R, U, V) of the module's docstring, over a minibatch of items and all users."""

    def __init__(
        self,
        n_users: int,
        n_items: int,
        n_factors: int,
        ratings: RatingLikelihood,
        *,
        lambda_u: float = 1.0,
        lambda_v: float = 1.0,
        lambda_b: float | None = None,
    ) -> None:
        own = {"lambda_u": lambda_u, "lambda_v": lambda_v, "lambda_b": lambda_b}
        super().__init__(n_users, n_items, n_factors, NoContent(n_factors), ratings, **own)  # type: ignore[arg-type]

    def forward(self, batch: Batch) -> None:
        """The generative story; sites u, v, v_dagger, R, of which R is observed."""
        above = self.above()
        with pyro.plate("users", self.n_users):
            u = self.factors_of_users(above)
        with pyro.plate("items", self.n_items, subsample=batch.items):
            v = self.factors_of_items(self.item_prior(batch), batch, above)
            self.ratings_of(u, v, batch)
