"""The contract of encoders and decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from models.rows import AnyRows

if TYPE_CHECKING:
    from models.contents.base import ContentLikelihood


class Encoder(nn.Module, ABC):
    """The amortised posterior q(z_j | x_j) = N(mu(x_j), diag(sigma(x_j)^2)) (paper, section 2.1).

    ``reads`` are the kinds of content that it can read.
    """

    reads: ClassVar[tuple[str, ...]]

    @abstractmethod
    def forward(self, content: Any) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), both (n_items, n_factors)."""


class Decoder(nn.Module, ABC):
    """The generation network: parameters of p(x_j | z_j)."""

    @abstractmethod
    def forward(self, z: Tensor, columns: Tensor | None = None) -> dict[str, Tensor]:
        """One tensor (n_items, n_features) per name of the likelihood; with ``columns``, of those features only."""

    def given(self, z: Tensor, content: AnyRows) -> dict[str, Tensor]:
        """Parameters for the content that is observed: those of :meth:`forward`, which do not depend on it.

        Override it where a part of x is predicted from another, as a token from those before it.
        """
        return self(z)

    def draw(self, likelihood: ContentLikelihood, z: Tensor, like: AnyRows) -> AnyRows:
        """A draw of p(x | z); ``like`` gives what is not drawn (a text's length)."""
        return likelihood.sample(self(z), like)

    def at(
        self, z: Tensor, rows: Tensor, columns: Tensor, drawn: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters at single cells, each (n_cells,), and those of the features ``drawn``, (n_items, n_drawn).

        ``rows`` and ``columns`` (n_cells,) are the cells' items and features. Override it where the other features need
        not be computed.
        """
        params = self(z)
        cells = {name: value[rows, columns] for name, value in params.items()}
        return cells, {name: value[:, drawn] for name, value in params.items()}


def of_length(radius: float, loc: Tensor) -> Tensor:
    """The same directions at the length ``radius``, (n_items, n_factors).

    Rows below a hundredth stay in proportion: at 0, where an empty text may start, the gradient would have no bound.
    """
    return radius * F.normalize(loc, dim=-1, eps=0.01)
