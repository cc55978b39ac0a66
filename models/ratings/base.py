"""The contract of a ratings likelihood p(R | U, V): one distribution over whole columns of the rating matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from models.observations import RatingColumns


class RatingLikelihood(nn.Module, ABC):
    """p(R_j | U, v_j) of an item's column of ratings, for a batch of items.

    ``conjugate`` says that it is Gaussian in u and v: then :meth:`conjugate_site` and ``background`` exist, which the
    structured guide and the closed forms ask for.
    """

    conjugate: ClassVar[bool] = False

    @abstractmethod
    def distribution(self, u: Tensor, v: Tensor, columns: RatingColumns) -> TorchDistribution:
        """The distribution of the columns, batch shape (n_items,), event shape (n_users,).

        Shapes: ``u`` (n_users, n_factors), ``v`` (n_items, n_factors). Of ``columns`` only the pattern of stored
        cells and their confidences may be used: they are given, not drawn.
        """

    @property
    def background(self) -> float:
        """Precision of the cells that are not stored."""
        raise NotImplementedError(f"{type(self).__name__} has no Gaussian site")

    def conjugate_site(self, u: Tensor, u_var: Tensor | None, columns: RatingColumns) -> tuple[Tensor, Tensor]:
        """The Gaussian factor in v_j: precision (n_items, n_factors, n_factors), and precision times mean."""
        raise NotImplementedError(f"{type(self).__name__} has no Gaussian site")
