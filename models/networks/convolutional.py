"""Convolutional networks of images: strided convolutions inwards, transposed ones outwards to exactly the same size.

And the pair of convolutional networks, which of tokens has those of :mod:`models.networks.token_convolutions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.networks.base import Decoder, Encoder, NetworkPair, Start, of_length
from models.networks.mlp import activation_of
from models.networks.of_data import feature_means
from models.networks.recurrent import RecurrentDecoder
from models.networks.spread import NOTHING, rank, to_unit
from models.networks.token_convolutions import ConvolutionalTokenEncoder, start_token_convolutions
from models.rows import DenseRows, Form
from pyro_cvae.errors import InputError

READS = ("images",)
"""Kinds of content that these networks read; the pair reads tokens too."""
CHANNELS = (32, 64, 64, 64)
"""Channels behind each convolution, of which larger images have more."""
SMALLEST = 4
"""Least height and width of an image."""


def sizes(size: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Channels, height and width of the image and behind each convolution, which halves them and rounds up."""
    channels, height, width = size
    if min(height, width) < SMALLEST:
        problem = f"images of {height} x {width} are too small for convolutions"
        raise InputError(problem, f"give {SMALLEST} x {SMALLEST} or more, or use --network mlp")
    found = [(channels, height, width)]
    for more in CHANNELS:
        if len(found) > 2 and min(height, width) <= SMALLEST:
            break
        height, width = -(-height // 2), -(-width // 2)
        found.append((more, height, width))
    return found


class ConvolutionalEncoder(Encoder):
    """Convolutions of 3 x 3 in steps of two, a dense layer, then mu and log sigma^2 linear in it.

    ``size`` is (n_channels, height, width); ``radius`` as of the :class:`~models.networks.mlp.MLPEncoder`.
    """

    reads = READS

    def __init__(
        self,
        size: tuple[int, int, int],
        n_factors: int,
        width: int = 100,
        activation: str = "sigmoid",
        radius: float = 0.0,
    ) -> None:
        super().__init__()
        self.radius, self.activation = radius, activation_of(activation)
        path = sizes(size)
        self.layers = nn.ModuleList(
            nn.Conv2d(path[place][0], path[place + 1][0], 3, stride=2, padding=1) for place in range(len(path) - 1)
        )
        channels, height, breadth = path[-1]
        self.layers.append(nn.Linear(channels * height * breadth, width))
        self.loc = nn.Linear(width, n_factors)
        self.log_variance = nn.Linear(width, n_factors)

    def hidden(self, content: DenseRows) -> Tensor:
        """The last hidden layer, (n_items, width)."""
        h = content.block.to(self.loc.weight.dtype)
        for layer in self.layers:
            h = self.activation(layer(h.flatten(1) if isinstance(layer, nn.Linear) else h))
        return h

    def forward(self, content: DenseRows) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), both (n_items, n_factors)."""
        h = self.hidden(content)
        loc = self.loc(h)
        if self.radius:
            loc = of_length(self.radius, loc)
        return loc, torch.exp(0.5 * self.log_variance(h).clamp(-12, 6))


class ConvolutionalDecoder(Decoder):
    """The encoder upside down: two dense layers, transposed convolutions, and for each head a bias of every pixel."""

    def __init__(
        self,
        size: tuple[int, int, int],
        n_factors: int,
        width: int = 100,
        activation: str = "sigmoid",
        heads: Sequence[str] = ("loc",),
    ) -> None:
        super().__init__()
        self.activation, self.heads = activation_of(activation), tuple(heads)
        path = sizes(size)
        self.inmost = path[-1]
        channels, height, breadth = self.inmost
        self.layers = nn.ModuleList([nn.Linear(n_factors, width), nn.Linear(width, channels * height * breadth)])
        for place in range(len(path) - 1, 1, -1):
            self.layers.append(_upwards(path[place], path[place - 1], bias=True))
        self.outputs = nn.ModuleDict({head: _upwards(path[1], path[0], bias=False) for head in heads})
        n_features = size[0] * size[1] * size[2]
        self.output_biases = nn.ParameterDict({head: nn.Parameter(torch.zeros(n_features)) for head in heads})

    def hidden(self, z: Tensor) -> Tensor:
        """The layer next to the images, (n_items, channels, height, width)."""
        h = z
        for layer in self.layers:
            if isinstance(layer, nn.ConvTranspose2d) and h.dim() == 2:
                h = h.unflatten(1, self.inmost)
            h = self.activation(layer(h))
        return h.unflatten(1, self.inmost) if h.dim() == 2 else h

    def forward(self, z: Tensor, columns: Tensor | None = None) -> dict[str, Tensor]:
        """The likelihood's parameters (n_items, n_features), or of the features ``columns`` only."""
        h = self.hidden(z)
        params = {head: layer(h).flatten(1) + self.output_biases[head] for head, layer in self.outputs.items()}
        return params if columns is None else {head: value[:, columns] for head, value in params.items()}


def _upwards(inner: tuple[int, int, int], outer: tuple[int, int, int], bias: bool) -> nn.ConvTranspose2d:
    """A transposed convolution to exactly the outer size: an even one needs a row more than an odd one."""
    more = (1 - outer[1] % 2, 1 - outer[2] % 2)
    return nn.ConvTranspose2d(inner[0], outer[0], 3, stride=2, padding=1, output_padding=more, bias=bias)


class ConvolutionalPair(NetworkPair):
    """Convolutions, the dense layer as wide as the last of ``hidden``.

    Of images transposed ones outwards. Of tokens all layers have this width, and the decoder is the recurrent one.
    """

    reads: ClassVar[tuple[str, ...]] = (*READS, "tokens")

    def make(self, form: Form, heads: Sequence[str], options: Any) -> tuple[Encoder, Decoder]:
        """Both networks for images of this size, or for a vocabulary of this size, at a random start."""
        o, width = options, options.hidden[-1]
        if form.kind == "tokens":
            n_tokens = form.n_features
            reader = ConvolutionalTokenEncoder(n_tokens, o.factors, width, o.activation, o.radius)
            return reader, RecurrentDecoder(n_tokens, o.factors, width, heads, reader if o.tied else None)
        size: Any = form.size
        encoder = ConvolutionalEncoder(size, o.factors, width, o.activation, o.radius)
        return encoder, ConvolutionalDecoder(size, o.factors, width, o.activation, heads)

    def start(self, encoder: Any, decoder: Any, start: Start) -> None:
        """See :func:`start_convolutional` and :func:`~models.networks.token_convolutions.start_token_convolutions`."""
        begin: Any = start_token_convolutions if start.inputs.form.kind == "tokens" else start_convolutional
        begin(encoder, decoder, start)


@torch.no_grad()
def start_convolutional(encoder: ConvolutionalEncoder, decoder: ConvolutionalDecoder, start: Start) -> None:
    """Every pre-activation of mean 0 and variance 1 over a sample (layer-sequential unit variance), then mu too.

    mu are the leading principal components of the last hidden layer, whitened; sigma is 1/2. The decoder starts at the
    mean picture, about half as wide as the pictures around it.
    """
    sampled: DenseRows = start.inputs.select(start.some(start.sample // 4))
    mean = feature_means(start.content)
    h = sampled.block.to(encoder.loc.weight.dtype)
    for layer in encoder.layers:
        nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]
        size = 0.0 if layer is encoder.layers[0] else 1.0
        h = encoder.activation(_unit(layer, h.flatten(1) if isinstance(layer, nn.Linear) else h, size))
    centre = h.mean(0)
    _, singular, right = torch.linalg.svd(h - centre, full_matrices=False)
    nn.init.orthogonal_(encoder.loc.weight)
    if float(singular[0]) > NOTHING * len(h) ** 0.5:
        k = min(rank(singular), encoder.loc.out_features)
        wide = singular[:k, None] / len(h) ** 0.5
        encoder.loc.weight[:k] = right[:k] / wide.clamp(min=1e-3 * float(singular[0]))
    encoder.loc.bias.copy_(-encoder.loc.weight @ centre)
    encoder.log_variance.weight.zero_()
    encoder.log_variance.bias.fill_(2 * torch.tensor(0.5).log())

    h = torch.randn(max(2, len(sampled)), encoder.loc.out_features).to(centre)
    for layer in decoder.layers:
        nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]
        if isinstance(layer, nn.ConvTranspose2d) and h.dim() == 2:
            h = h.unflatten(1, decoder.inmost)
        h = decoder.activation(_unit(layer, h))
    h = h.unflatten(1, decoder.inmost) if h.dim() == 2 else h
    wide = sampled.dense().std(0, correction=min(1, len(sampled) - 1)).norm().to(centre)
    begins = start.likelihood.initial_bias(mean)
    for head in decoder.heads:
        outward: Any = decoder.outputs[head]
        outward.weight.mul_(0.5 * wide / outward(h).flatten(1).std(0).norm().clamp(min=1e-6))
        begin = begins.get(head, torch.zeros_like(mean)).to(centre)
        decoder.output_biases[head].copy_(begin - outward(h).flatten(1).mean(0))


def _unit(layer: Any, h: Tensor, size: float = 0.0) -> Tensor:
    """The layer's pre-activations, after it was scaled so that each unit or channel has mean 0 and variance 1."""
    nn.init.zeros_(layer.bias)
    pre = layer(h)
    to_unit(layer, pre, (0,) if pre.dim() == 2 else (0, 2, 3), size)
    return layer(h)
