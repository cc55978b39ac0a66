"""Networks started from the data, so that the posterior of the content does not collapse."""

from __future__ import annotations

from typing import Any

import torch

from models.base import FactorModel
from models.contents.base import ContentLikelihood
from models.contents.product import Product
from models.networks import Decoder, Encoder
from models.networks.product import ProductDecoder, ProductEncoder
from models.observations import Observations
from models.rows import DenseRows, PartRows


@torch.no_grad()
def start_alive(model: FactorModel, observations: Observations, start: str = "whitened", sample: int = 4096) -> None:
    """Start encoder and decoder from the data, each part of a product from its own.

    ``start`` is "whitened" or, where no network is convolutional, "svd"; see :mod:`models.networks.mlp_pair`. Every
    pair of networks has its own way. ``sample`` items are looked at where not all are needed.
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


@torch.no_grad()
def align(encoder: ProductEncoder, inputs: PartRows, block: int = 4096) -> None:
    """Turn the means of each expert to those of the experts before it, over the items that have both.

    What an expert says of a content it says in axes of its own. The rotation is the orthogonal Procrustes solution
    (Schoenemann, Psychometrika 1966); without an item that has both there is none.
    An expert that cannot be turned keeps its axes.
    """
    total, there = None, None
    for name, expert in encoder.experts.items():
        own: Any = expert
        nothing = next(own.parameters()).new_zeros(0, encoder.n_factors)
        part, items = inputs.parts[name], inputs.items(name)
        chunks = torch.arange(len(part), device=part.device).split(block)
        found = torch.cat([own(part.select(chunk))[0] for chunk in chunks if len(chunk)] or [nothing])
        loc = found.new_zeros(len(inputs), encoder.n_factors).index_copy(0, items, found)
        if total is None or there is None:
            total, there = loc, inputs.present[name]
            continue
        both = there & inputs.present[name]
        if bool(both.any()):
            left, _, right = torch.linalg.svd(total[both].mT @ loc[both])
            turn = left @ right
            if own.turn(turn):
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
    if encoder.pair is not None:
        encoder.pair.start(encoder, decoder, likelihood, content, inputs, start, sample)
