"""Networks started from the data, so that the posterior of the content does not collapse."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.base import FactorModel
from models.contents.base import ContentLikelihood
from models.contents.product import Product
from models.networks import Decoder, Encoder
from models.networks.convolutional import ConvolutionalDecoder, ConvolutionalEncoder, start_convolutional
from models.networks.mlp import MLPDecoder, MLPEncoder
from models.networks.product import ProductDecoder, ProductEncoder
from models.networks.recurrent import RecurrentDecoder, RecurrentEncoder, start_recurrent
from models.networks.spread import rank, spread
from models.observations import Observations
from models.rows import DenseRows, NumberRows, PartRows, SparseRows


@torch.no_grad()
def start_alive(model: FactorModel, observations: Observations, start: str = "whitened", sample: int = 4096) -> None:
    """Start encoder and decoder from the data, each part of a product from its own.

    ``start`` is "whitened" or, where no network is convolutional, "svd"; see :func:`start_mlp`. Convolutional networks
    have a way of their own. ``sample`` items are looked at where not all are needed.
    """
    content, inputs = observations.content, observations.inputs
    item_prior: Any = model.item_prior
    encoder, decoder, likelihood = item_prior.encoder, item_prior.decoder, item_prior.content
    if not isinstance(encoder, ProductEncoder):
        _start(encoder, decoder, likelihood, content, inputs, start, sample)
        return
    assert isinstance(decoder, ProductDecoder) and isinstance(likelihood, Product)
    for name, part in likelihood.each():
        networks: tuple[Any, Any] = encoder.experts[name], decoder.part(name)
        _start(*networks, part, content.parts[name], inputs.parts[name], start, sample)  # type: ignore[union-attr]
    align(encoder, inputs)  # type: ignore[arg-type]


def align(encoder: ProductEncoder, inputs: PartRows, block: int = 4096) -> None:
    """Turn the means of each expert to those of the experts before it, over the items that have both.

    What an expert says of a content it says in axes of its own. The rotation is the orthogonal Procrustes solution
    (Schoenemann, Psychometrika 1966); without an item that has both there is none.
    """
    total, there = None, None
    for name, expert in encoder.experts.items():
        own: Any = expert
        part, items = inputs.parts[name], inputs.items(name)
        chunks = torch.arange(len(part), device=part.device).split(block)
        found = torch.cat([own(part.select(chunk))[0] for chunk in chunks if len(chunk)] or [own.loc.bias[None][:0]])
        loc = found.new_zeros(len(inputs), encoder.n_factors).index_copy(0, items, found)
        if total is None or there is None:
            total, there = loc, inputs.present[name]
            continue
        both = there & inputs.present[name]
        if bool(both.any()):
            left, _, right = torch.linalg.svd(total[both].mT @ loc[both])
            turn = left @ right
            own.loc.weight.copy_(turn @ own.loc.weight)
            own.loc.bias.copy_(turn @ own.loc.bias)
            loc = loc @ turn.mT
        total, there = total + loc, there | inputs.present[name]


def _start(
    encoder: Encoder,
    decoder: Decoder,
    likelihood: ContentLikelihood,
    content: Any,
    inputs: Any,
    start: str,
    sample: int,
) -> None:
    if isinstance(inputs, DenseRows):
        chosen = torch.randperm(len(inputs))[:sample].sort().values
        likelihood.start(float(content.select(chosen).dense().var(0).mean()) if len(chosen) > 1 else 0.0)
    if isinstance(encoder, MLPEncoder) and isinstance(decoder, MLPDecoder):
        start_mlp(encoder, decoder, likelihood, content, inputs, start, sample)
    elif isinstance(encoder, RecurrentEncoder) and isinstance(decoder, RecurrentDecoder):
        start_recurrent(encoder, decoder, likelihood, content, start, sample)
    elif isinstance(encoder, ConvolutionalEncoder) and isinstance(decoder, ConvolutionalDecoder):
        chosen = torch.randperm(len(inputs))[: sample // 4].sort().values
        start_convolutional(encoder, decoder, likelihood, inputs.select(chosen), _mean(content))


def start_mlp(
    encoder: MLPEncoder,
    decoder: MLPDecoder,
    likelihood: ContentLikelihood,
    content: NumberRows,
    inputs: NumberRows,
    start: str,
    sample: int,
) -> None:
    """Start the networks from the data, layer by layer, so that the content posterior does not collapse.

    From a random start the ELBO of a sparse bag of words falls into the optimum that ignores z within a few epochs,
    whatever the step or the warm-up. Here the first layer holds the leading right singular vectors of the encoder's
    input, sigma starts at 1/2 and the decoder at the words' frequencies. Of the layers behind,

    - "whitened": mix them at random; every pre-activation, and mu itself, has mean 0 and variance 1 over a sample of
      items (layer-sequential unit variance: Mishkin and Matas, ICLR 2016): for narrow layers;
    - "svd": hand the singular vectors on as they are, at one common scale, small enough for the activations to be
      nearly linear: mu starts as the truncated SVD of the content, the decoder as half of its inverse (at full scale
      the content's likelihood is fitted first, and its posterior means rank worse). For layers as wide as mu.
    """
    from sklearn.utils.extmath import randomized_svd

    as_is = start == "svd"
    mix = nn.init.eye_ if as_is else nn.init.orthogonal_
    hidden, outer = (0.25, 0.5) if as_is else (None, None)
    rest = float(encoder.activation(torch.zeros(()))) if as_is else 0.0
    rows = torch.randperm(len(inputs), device="cpu")[:sample].to(inputs.device).sort().values
    sampled = inputs.select(rows)
    table = encoder.weights[0]
    n_components = min(table.shape[1], min(inputs.shape) - 1)
    seed = int(torch.randint(2**31 - 1, ()))
    matrix = _matrix(inputs if isinstance(inputs, SparseRows) else sampled)
    # Few power iterations: as features, a less exact SVD ranks better (figures in inference/rivals.py, svd).
    singular, right, asked = np.zeros(0), np.zeros((0, table.shape[0])), min(n_components, encoder.loc.out_features)
    if n_components:
        _, singular, right = randomized_svd(matrix, n_components, n_iter=1 if as_is else 2, random_state=seed)
        table[:, :n_components] = 0.0  # beyond the rank there are no directions
        n_components = rank(singular)
        singular, right = singular[:n_components], right[:n_components]
    table[:, :n_components] = torch.as_tensor(right.T.copy()).to(table)
    outward = table * 0.0
    outward[:, :n_components] = table[:, :n_components] * torch.as_tensor(singular.copy()).to(table)
    h = sampled.bag(table)
    h = encoder.activation(_standardize(h, table, encoder.biases[0], hidden))
    for weight, bias in zip(list(encoder.weights)[1:], list(encoder.biases)[1:], strict=True):
        mix(weight)
        h = encoder.activation(_standardize(h @ weight, weight, bias, hidden, rest=rest, size=1.0))
    loc = mix(torch.empty_like(encoder.loc.weight.mT))
    _standardize(h @ loc, loc, encoder.loc.bias, outer, rest=rest, size=1.0)
    encoder.loc.weight.copy_(loc.mT)
    if n_components < asked:  # as many factors all say the same: together they vary as much as those that do not
        share = (max(n_components, 1) / encoder.loc.out_features) ** 0.5
        encoder.loc.weight.mul_(share)
        encoder.loc.bias.mul_(share)
    encoder.log_variance.weight.zero_()
    encoder.log_variance.bias.fill_(2 * torch.tensor(0.5).log())

    z = torch.randn(max(2, len(rows)), decoder.inner.in_features).to(table)
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
    mean = _mean(content)
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


def _standardize(
    pre: Tensor,
    weight: Tensor,
    bias: Tensor,
    gain: float | None = None,
    scale: bool = True,
    rest: float = 0.0,
    size: float = 0.0,
) -> Tensor:
    """Pre-activations of mean 0 and variance 1, by scaling ``weight``'s columns and setting ``bias``.

    ``size`` is that of what the layer below sends, where it is known.

    With a ``gain``, all columns are scaled alike, to this mean standard deviation, and ``bias`` takes out only what the
    layer below sends at rest, ``rest`` from each unit.
    """
    wide = torch.ones_like(bias)
    if scale:
        wide = spread(pre, size=size) if gain is None else spread(pre, alike=True, size=size) / gain
        weight.div_(wide)
    pre = pre / wide
    bias.copy_(-pre.mean(0) if gain is None else -rest * weight.sum(0))
    return pre + bias


def _in_units_of(head: str, likelihood: ContentLikelihood, mean: Tensor, spread: Tensor) -> Tensor:
    """Standard deviations ``spread`` of the content as those of a head, (n_features,): smaller where it is a log."""
    low, at, high = (likelihood.initial_bias(mean + half * spread)[head] for half in (-0.5, 0.0, 0.5))
    return torch.minimum(spread, 2 * torch.minimum(high - at, at - low))


def _mean(rows: NumberRows, at_once: int = 4096) -> Tensor:
    """Mean of each feature over the items, each word given a tenth of a count more, (n_features,)."""
    if isinstance(rows, SparseRows):
        total = rows.values.new_full((rows.n_columns,), 0.1).index_add(0, rows.columns, rows.values)
        return total / len(rows)
    parts = torch.arange(len(rows)).split(at_once)
    return torch.stack([rows.select(part).dense().sum(0) for part in parts]).sum(0) / len(rows)


def _matrix(rows: NumberRows) -> Any:
    if isinstance(rows, DenseRows):
        return rows.dense().cpu().double().numpy()
    from scipy import sparse

    parts = (rows.values.cpu().double().numpy(), rows.columns.cpu().numpy(), rows.indptr.cpu().numpy())
    return sparse.csr_matrix(parts, shape=tuple(rows.shape))
