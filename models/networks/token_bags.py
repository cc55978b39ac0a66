"""Encoders of sequences of tokens that read the bag of the tokens' embeddings beside whatever else they read."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.base import Encoder, of_length
from models.rows import TokenRows

READS = ("tokens",)
"""Kinds of content that these networks read."""


class BagEncoder(Encoder):
    """mu and log sigma^2 linear in [s, h], s the sum of the tokens' embeddings over the root of their number.

    h is what a subclass reads of the sequence, :meth:`hidden`. s lets the network start from what a bag of the tokens
    says (:func:`models.starting.start_alive`). ``radius`` as of the :class:`~models.networks.mlp.MLPEncoder`.

    The table ``embedding`` is (n_tokens + 1, width), its last row that of the end. A subclass makes ``loc`` and
    ``log_variance``, whose first ``width`` inputs are s.
    """

    reads = READS
    loc: nn.Linear
    log_variance: nn.Linear

    def __init__(self, n_tokens: int, width: int, radius: float = 0.0) -> None:
        super().__init__()
        self.radius = radius
        self.embedding = nn.Parameter(0.1 * torch.randn(n_tokens + 1, width))

    def bag(self, content: TokenRows) -> Tensor:
        """Sums of embeddings over the root of their number, (n_items, width)."""
        total = F.embedding_bag(content.tokens, self.embedding, content.indptr[:-1], mode="sum")
        return total / content.lengths.clamp(min=1).to(total.dtype).sqrt()[:, None]

    @abstractmethod
    def hidden(self, content: TokenRows) -> Tensor:
        """What is read of the sequences besides, (n_items, n_hidden)."""

    def forward(self, content: TokenRows) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), both (n_items, n_factors)."""
        h = torch.cat([self.bag(content), self.hidden(content)], -1)
        loc = self.loc(h)
        if self.radius:
            loc = of_length(self.radius, loc)
        return loc, torch.exp(0.5 * self.log_variance(h).clamp(-12, 6))
