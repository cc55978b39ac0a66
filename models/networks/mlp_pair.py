"""The pair of perceptrons, and its start from the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from models.contents.base import ContentLikelihood
from models.networks.base import NetworkPair, Start
from models.networks.mlp import READS, MLPDecoder, MLPEncoder
from models.networks.of_data import feature_means, leading_directions, matrix_of
from models.networks.spread import rank, spread
from models.rows import DenseRows, Form, NumberRows, SparseRows

LINEAR_UP_TO = 0.25
"""Root mean square of a hidden unit's input up to which an activation counts as nearly linear."""


class MLPPair(NetworkPair):
    """Perceptrons of words, vectors and images."""

    reads: ClassVar[tuple[str, ...]] = READS

    def make(self, form: Form, heads: Sequence[str], options: Any) -> tuple[MLPEncoder, MLPDecoder]:
        """Both networks at a random start.

        Only those of words may be tied: a first layer that whitens dense numbers is no use the other way round.
        """
        o = options
        encoder = MLPEncoder(form.n_features, o.factors, o.hidden, o.activation, o.radius)
        tied_to = encoder if o.tied and form.kind == "words" else None
        return encoder, MLPDecoder(form.n_features, o.factors, o.hidden, o.activation, heads, tied_to)

    def directions(self, encoder: Any) -> int:
        """As many as the first layer has room for."""
        return encoder.weights[0].shape[1]

    def start(self, encoder: Any, decoder: Any, start: Start) -> None:
        """See :func:`start_mlp`."""
        start_mlp(encoder, decoder, start)


def start_mlp(encoder: MLPEncoder, decoder: MLPDecoder, start: Start) -> None:
    """Start the networks from the data, layer by layer, so that the content posterior does not collapse.

    From a random start the ELBO of a sparse bag of words falls into the optimum that ignores z within a few epochs,
    whatever the step or the warm-up. Here the first layer holds the leading right singular vectors of the encoder's
    input, sigma starts at 1/2 and the decoder at the words' frequencies. Of the layers behind,

    - "whitened": mix them at random; every pre-activation, and mu itself, has mean 0 and variance 1 over a sample of
      items (layer-sequential unit variance: Mishkin and Matas, ICLR 2016): for narrow layers;
    - "svd": hand the singular vectors on as they are, at one common scale, small enough for the activations to be
      nearly linear. That holds for the longest directions too: where an activation flattens them, short ones, of few
      words each, weigh more in z, and it ranks worse. Mu starts as the truncated SVD of the content, the decoder as
      half of its inverse (at full scale the content's likelihood is fitted first, and its posterior means rank worse).
      For layers as wide as mu.
    """
    as_is, likelihood, inputs = start.how == "svd", start.likelihood, start.inputs
    rows = start.some()
    sampled = inputs.select(rows)
    if start.directions is None:
        singular, right, asked = _directions(encoder, inputs, sampled, as_is)
    else:
        singular, right, asked = _given(encoder, start.directions)
    table, n_components = encoder.weights[0], len(singular)
    outward = table * 0.0
    outward[:, :n_components] = table[:, :n_components] * torch.as_tensor(singular.copy()).to(table)
    _start_encoder(encoder, sampled, as_is, n_components, asked)
    h = _start_decoder(decoder, encoder, right, as_is, len(rows))
    tied, mean = {id(weight) for weight in encoder.weights}, feature_means(start.content)
    for head, begin in likelihood.initial_bias(mean).items():
        if isinstance(inputs, DenseRows):  # half as wide as the content, in the directions in which it varies most
            deviation = torch.nan_to_num(sampled.dense().std(0, correction=min(1, len(rows) - 1)))
            wide = 0.5 * _in_units_of(head, likelihood, mean, deviation.to(mean)).norm()
            outward = outward * (wide.to(table) / (h @ outward.mT).std(0).norm().clamp(min=1e-30))
            decoder.outputs[head].copy_(outward)
        elif not as_is and id(decoder.outputs[head]) not in tied:
            decoder.outputs[head].copy_(table)
        begin = begin.to(table) - decoder.outputs[head] @ h.mean(0)
        decoder.output_biases[head].copy_(begin)


def _directions(
    encoder: MLPEncoder, inputs: NumberRows, sampled: NumberRows, as_is: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    """Put the leading right singular vectors of the inputs into the encoder's first layer.

    Returns the singular values (n_components,), the vectors (n_components, n_features), and how many were asked for.
    """
    table = encoder.weights[0]
    n_components = min(table.shape[1], min(inputs.shape) - 1)
    seed = int(torch.randint(2**31 - 1, ()))
    matrix = matrix_of(inputs if isinstance(inputs, SparseRows) else sampled)
    # Few power iterations: as features, a less exact SVD ranks better (figures in inference/evaluation/rivals.py, svd).
    singular, right, asked = np.zeros(0), np.zeros((0, table.shape[0])), min(n_components, encoder.loc.out_features)
    if n_components:
        singular, right = leading_directions(matrix, n_components, 1 if as_is else 2, seed)
        table[:, :n_components] = 0.0  # beyond the rank there are no directions
        n_components = rank(singular)
        singular, right = singular[:n_components], right[:n_components]
    table[:, :n_components] = torch.as_tensor(right.T.copy()).to(table)
    return singular, right, asked


def _given(encoder: MLPEncoder, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The same of directions that are known, (n_components, n_features)."""
    table = encoder.weights[0]
    table[:] = 0.0
    table[:, : len(right)] = torch.as_tensor(right.T.copy()).to(table)
    return np.ones(len(right)), right, min(len(right), encoder.loc.out_features)


def _start_encoder(encoder: MLPEncoder, sampled: NumberRows, as_is: bool, n_components: int, asked: int) -> None:
    """The layers behind the first, mu and sigma."""
    mix = nn.init.eye_ if as_is else nn.init.orthogonal_
    hidden, outer = (0.25, 0.5) if as_is else (None, None)
    most = LINEAR_UP_TO if as_is else math.inf
    rest = float(encoder.activation(torch.zeros(()))) if as_is else 0.0
    table = encoder.weights[0]
    h = encoder.activation(_standardize(sampled.bag(table), table, encoder.biases[0], hidden, most=most))
    for weight, bias in zip(list(encoder.weights)[1:], list(encoder.biases)[1:], strict=True):
        mix(weight)
        h = encoder.activation(_standardize(h @ weight, weight, bias, hidden, rest=rest, size=1.0, most=most))
    loc = mix(torch.empty_like(encoder.loc.weight.mT))
    _standardize(h @ loc, loc, encoder.loc.bias, outer, rest=rest, size=1.0)
    encoder.loc.weight.copy_(loc.mT)
    if n_components < asked:  # as many factors all say the same: together they vary as much as those that do not
        share = (max(n_components, 1) / encoder.loc.out_features) ** 0.5
        encoder.loc.weight.mul_(share)
        encoder.loc.bias.mul_(share)
    encoder.log_variance.weight.zero_()
    encoder.log_variance.bias.fill_(2 * torch.tensor(0.5).log())


def _start_decoder(decoder: MLPDecoder, encoder: MLPEncoder, right: np.ndarray, as_is: bool, n_rows: int) -> Tensor:
    """The decoder's hidden layers; the last of them for z from its prior, (n_rows or 2, hidden[0])."""
    mix = nn.init.eye_ if as_is else nn.init.orthogonal_
    hidden = 0.25 if as_is else None
    rest = float(encoder.activation(torch.zeros(()))) if as_is else 0.0
    table, n_components = encoder.weights[0], len(right)
    z = torch.randn(max(2, n_rows), decoder.inner.in_features).to(table)
    inner = mix(torch.empty_like(decoder.inner.weight.mT))
    tied = {id(weight) for weight in encoder.weights}
    if as_is:
        for head in decoder.heads:
            if id(decoder.outputs[head]) not in tied:
                decoder.outputs[head].zero_()[:, :n_components] = torch.as_tensor(right.T.copy()).to(table)
        if n_components:
            hidden = 0.5 / float(decoder.outputs[decoder.heads[0]][:, :n_components].norm(dim=0).mean())
    h = decoder.activation(_standardize(z @ inner, inner, decoder.inner.bias, hidden))
    decoder.inner.weight.copy_(inner.mT)
    for weight, bias in zip(reversed(list(decoder.weights)), reversed(list(decoder.biases)), strict=True):
        free = id(weight) not in tied
        h = decoder.activation(_standardize(h @ weight.mT, weight.mT, bias, hidden, scale=free, rest=rest))
    return h


def _standardize(
    pre: Tensor,
    weight: Tensor,
    bias: Tensor,
    gain: float | None = None,
    scale: bool = True,
    rest: float = 0.0,
    size: float = 0.0,
    most: float = math.inf,
) -> Tensor:
    """Pre-activations of mean 0 and variance 1, by scaling ``weight``'s columns and setting ``bias``.

    ``size`` is that of what the layer below sends, where it is known.

    With a ``gain``, all columns are scaled alike, to this mean standard deviation or further, so that no unit's root
    mean square is above ``most``. Then ``bias`` takes out only what the layer below sends at rest, ``rest`` a unit.
    """
    wide = torch.ones_like(bias)
    if scale:
        wide = spread(pre, size=size) if gain is None else spread(pre, alike=True, size=size) / gain
        if gain is not None:
            sent = pre - rest * weight.sum(0)
            wide = wide.clamp(min=float(sent.square().mean(0).max().sqrt()) / most)
        weight.div_(wide)
    pre = pre / wide
    bias.copy_(-pre.mean(0) if gain is None else -rest * weight.sum(0))
    return pre + bias


def _in_units_of(head: str, likelihood: ContentLikelihood, mean: Tensor, spread: Tensor) -> Tensor:
    """Standard deviations ``spread`` of the content as those of a head, (n_features,): smaller where it is a log."""
    low, at, high = (likelihood.initial_bias(mean + half * spread)[head] for half in (-0.5, 0.0, 0.5))
    return torch.minimum(spread, 2 * torch.minimum(high - at, at - low))
