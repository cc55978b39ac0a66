"""The contract of encoders and decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from models.observations import SparseRows


class Encoder(nn.Module, ABC):
    """The amortised posterior q(z_j | x_j) = N(mu(x_j), diag(sigma(x_j)^2)) (paper, section 2.1)."""

    @abstractmethod
    def forward(self, content: SparseRows) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), both (n_items, n_factors)."""


class Decoder(nn.Module, ABC):
    """The generation network: parameters of p(x_j | z_j)."""

    @abstractmethod
    def forward(self, z: Tensor, columns: Tensor | None = None) -> dict[str, Tensor]:
        """One tensor (n_items, n_features) per name of the likelihood; with ``columns``, of those features only."""

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
