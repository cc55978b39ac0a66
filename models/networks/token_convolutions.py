"""A convolutional encoder of sequences of tokens: two convolutions over their embeddings, pooled over the positions.

Sequences of any length, in one line with a gap of one zero between two: padding is neither read nor computed. In the
spirit of van den Oord et al., Deep content-based music recommendation, NeurIPS 2013, and Kim, Convolutional neural
networks for sentence classification, EMNLP 2014. The decoder beside it is that of the recurrent networks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.base import Start
from models.networks.mlp import activation_of
from models.networks.recurrent import RecurrentDecoder, start_recurrent
from models.networks.spread import to_unit
from models.networks.token_bags import BagEncoder
from models.rows import TokenRows

N_CONVOLUTIONS, REACH = 2, 3
"""Convolutions, and the tokens side by side that each of them reads."""


class ConvolutionalTokenEncoder(BagEncoder):
    """mu and log sigma^2 linear in [s, h], s the bag of embeddings, h a dense layer over [max_t c_t, mean_t c_t].

    c_t are two convolutions of width 3 over the embeddings of the tokens and of the end, with zeros around them.
    """

    def __init__(
        self, n_tokens: int, n_factors: int, width: int, activation: str = "sigmoid", radius: float = 0.0
    ) -> None:
        super().__init__(n_tokens, width, radius)
        self.activation = activation_of(activation)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, REACH, padding=REACH // 2) for _ in range(N_CONVOLUTIONS)
        )
        self.dense = nn.Linear(2 * width, width)
        self.loc = nn.Linear(2 * width, n_factors)
        self.log_variance = nn.Linear(2 * width, n_factors)

    def line(self, content: TokenRows) -> tuple[Tensor, Tensor]:
        """Embeddings of all sequences in one line, (n_positions, width), and which are of tokens or ends, no gaps."""
        tokens = content.ended().ended().tokens
        there = tokens <= content.n_tokens
        return F.embedding(tokens.clamp(max=content.n_tokens), self.embedding) * there[:, None], there

    def pooled(self, h: Tensor, content: TokenRows) -> Tensor:
        """Maximum and mean over the positions of each sequence, its end among them, (n_items, 2 width)."""
        rows = content.ended().rows
        nothing = h.new_zeros(len(content), h.shape[1])
        most = nothing.scatter_reduce(0, rows[:, None].expand_as(h), h, "amax", include_self=False)
        mean = nothing.index_add(0, rows, h) / (content.lengths + 1).to(h.dtype)[:, None]
        return torch.cat([most, mean], -1)

    def hidden(self, content: TokenRows) -> Tensor:
        """The dense layer, (n_items, width)."""
        h, there = self.line(content)
        for layer in self.convolutions:
            h = self.activation(along(layer, h)) * there[:, None]
        return self.activation(self.dense(self.pooled(h[there], content)))


def along(layer: nn.Module, h: Tensor) -> Tensor:
    """A convolution of positions (n_positions, width) along their line, of the same shape."""
    found: Tensor = layer(h.mT[None])
    return found[0].mT


@torch.no_grad()
def start_token_convolutions(encoder: ConvolutionalTokenEncoder, decoder: RecurrentDecoder, start: Start) -> None:
    """Start as the recurrent networks do, from what a bag of the tokens says, h being of no weight yet.

    Every pre-activation of the convolutions and of the dense layer has mean 0 and variance 1 over the positions of a
    sample, and over its sequences (layer-sequential unit variance).
    """
    start_recurrent(encoder, decoder, start)
    sampled: TokenRows = start.inputs.select(start.some(max(1, start.sample // 16)))
    h, there = encoder.line(sampled)
    size = 0.0
    for layer in (*encoder.convolutions, encoder.dense):
        nn.init.orthogonal_(layer.weight)
        nn.init.zeros_(layer.bias)
        if layer is encoder.dense:
            to_unit(layer, encoder.dense(encoder.pooled(h[there], sampled)), size=size)
        else:
            to_unit(layer, along(layer, h)[there], size=size)
            h = encoder.activation(along(layer, h)) * there[:, None]
        size = 1.0
