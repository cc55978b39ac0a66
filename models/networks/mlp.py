"""Multi-layer perceptrons of words, vectors and images: x -> 200 -> 100 -> (mu, sigma), z -> 100 -> 200 -> x.

The first layer of the encoder is a sum of embeddings over the words present, so that these are never made dense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.base import Decoder, Encoder, of_length
from models.rows import NumberRows
from pyro_cvae.errors import InputError

CELLS_AT_ONCE = 512
"""Cells of which products are made at once, so that they stay in a core's cache."""
READS = ("words", "vectors", "images")
"""Kinds of content that these networks read."""
ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "softplus": F.softplus}


def activation_of(name: str) -> Callable[[Tensor], Tensor]:
    """The function of that name; InputError if there is none."""
    if name not in ACTIVATIONS:
        raise InputError(f"unknown activation {name!r}", "use one of " + ", ".join(ACTIVATIONS))
    return ACTIVATIONS[name]


class MLPEncoder(Encoder):
    """h_l = activation(h_{l-1} W_l + b_l), mu = h_L W_mu + b_mu, log sigma^2 = h_L W_sigma + b_sigma.

    ``hidden`` are the widths from the content inwards, the paper's (200, 100). ``weights[l]`` has shape
    (width of layer l - 1, width of layer l), so that the first is an embedding table of the words. With a ``radius``
    above 0 every mu has this length: mu = radius (h W + b) / |h W + b|, so that what a text says is a direction, and a
    short text is no nearer to 0 than a long one.
    """

    reads = READS

    def __init__(
        self,
        n_features: int,
        n_factors: int,
        hidden: Sequence[int] = (200, 100),
        activation: str = "sigmoid",
        radius: float = 0.0,
    ) -> None:
        super().__init__()
        self.radius = radius
        widths = [n_features, *hidden]
        self.activation = activation_of(activation)
        self.weights = nn.ParameterList(
            nn.init.xavier_uniform_(torch.empty(inputs, outputs)) for inputs, outputs in pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.zeros(width) for width in hidden)
        self.loc = nn.Linear(widths[-1], n_factors)
        self.log_variance = nn.Linear(widths[-1], n_factors)
        for head in (self.loc, self.log_variance):
            nn.init.xavier_uniform_(head.weight)
            nn.init.zeros_(head.bias)

    def hidden(self, content: NumberRows) -> Tensor:
        """The last hidden layer, (n_items, hidden[-1])."""
        h = self.activation(content.bag(self.weights[0]) + self.biases[0])
        for weight, bias in zip(list(self.weights)[1:], list(self.biases)[1:], strict=True):
            h = self.activation(h @ weight + bias)
        return h

    def forward(self, content: NumberRows) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), both (n_items, n_factors)."""
        h = self.hidden(content)
        loc = self.loc(h)
        if self.radius:
            loc = of_length(self.radius, loc)
        return loc, torch.exp(0.5 * self.log_variance(h).clamp(-12, 6))


class MLPDecoder(Decoder):
    """The encoder upside down: h_l = activation(h_{l+1} W_l' + c_l), params = h_1 W_0' + c_0 for each head.

    With ``tied_to`` an encoder the matrices of all layers but the innermost are its own, transposed ("the weights of
    the inference network are set to be the transpose of the generation network", paper, section 3.3; its authors'
    program leaves the layer next to z free, as here). Biases are never shared.
    """

    def __init__(
        self,
        n_features: int,
        n_factors: int,
        hidden: Sequence[int] = (200, 100),
        activation: str = "sigmoid",
        heads: Sequence[str] = ("logits",),
        tied_to: MLPEncoder | None = None,
    ) -> None:
        super().__init__()
        widths = [n_features, *hidden]
        self.activation = activation_of(activation)
        self.inner = nn.Linear(n_factors, widths[-1])
        nn.init.xavier_uniform_(self.inner.weight)
        nn.init.zeros_(self.inner.bias)
        self.heads = tuple(heads)
        self.weights = nn.ParameterList(
            (tied_to.weights[layer] if tied_to else nn.init.xavier_uniform_(torch.empty(widths[layer : layer + 2])))
            for layer in range(1, len(hidden))
        )
        self.biases = nn.ParameterList(torch.zeros(width) for width in hidden[:-1])
        self.outputs = nn.ParameterDict()
        self.output_biases = nn.ParameterDict()
        for index, head in enumerate(heads):
            free = tied_to is None or index > 0
            self.outputs[head] = (
                nn.init.xavier_uniform_(torch.empty(widths[:2])) if free else tied_to.weights[0]  # type: ignore[union-attr]
            )
            self.output_biases[head] = nn.Parameter(torch.zeros(n_features))

    def hidden(self, z: Tensor) -> Tensor:
        """The layer next to the content, (n_items, hidden[0])."""
        h = self.activation(self.inner(z))
        for weight, bias in zip(reversed(list(self.weights)), reversed(list(self.biases)), strict=True):
            h = self.activation(h @ weight.mT + bias)
        return h

    def forward(self, z: Tensor, columns: Tensor | None = None) -> dict[str, Tensor]:
        """The likelihood's parameters (n_items, n_features), or of the features ``columns`` only."""
        h = self.hidden(z)
        chosen = slice(None) if columns is None else columns
        return {head: F.linear(h, self.outputs[head][chosen], self.output_biases[head][chosen]) for head in self.heads}

    def at(
        self, z: Tensor, rows: Tensor, columns: Tensor, drawn: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters at single cells and of the features ``drawn``; no other feature is looked at."""
        h, n_cells = self.hidden(z), len(columns)
        wanted = torch.cat([columns, drawn])
        cells, features = {}, {}
        for head in self.heads:
            at_cells, at_features = _Products.apply(h, self.outputs[head], rows, columns, drawn)
            # The gradient of an embedding is made many times faster than that of an index.
            bias = F.embedding(wanted, self.output_biases[head][:, None]).squeeze(-1)
            cells[head], features[head] = at_cells + bias[:n_cells], at_features + bias[n_cells:]
        return cells, features


class _Products(torch.autograd.Function):
    """h_r.w_c at single cells (r, c), (n_cells,), and H W' of drawn rows of W, (n_items, n_drawn).

    Sums over cells are bags: d h_r = sum_c g_rc w_c, and d w_c = sum_r g_rc h_r. Nothing of size n_cells x width is
    kept.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, table: Tensor, rows: Tensor, columns: Tensor, drawn: Tensor) -> Any:
        chosen = F.embedding(drawn, table)
        ctx.save_for_backward(h, table, rows, columns, drawn, chosen)
        parts = zip(rows.split(CELLS_AT_ONCE), columns.split(CELLS_AT_ONCE), strict=True)
        at_cells = [(F.embedding(row, h) * F.embedding(column, table)).sum(-1) for row, column in parts]
        return torch.cat(at_cells), h @ chosen.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_cells: Tensor, of_features: Tensor) -> Any:
        h, table, rows, columns, drawn, chosen = ctx.saved_tensors
        whole = torch.zeros_like(table).index_add_(0, drawn, of_features.mT @ h)
        met, sums = _bags(columns, rows, of_cells, h)
        whole.index_add_(0, met, sums)
        met, sums = _bags(rows, columns, of_cells, table)
        return (of_features @ chosen).index_add_(0, met, sums), whole, None, None, None


def _bags(keys: Tensor, places: Tensor, weights: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The keys that there are, (n_keys,), and of each the weighted sum of the rows at its places, (n_keys, width)."""
    order = keys.argsort(stable=True)
    met, counts = torch.unique_consecutive(keys[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    return met, F.embedding_bag(places[order], table, starts, mode="sum", per_sample_weights=weights[order])
