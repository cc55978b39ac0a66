"""What is hidden of contents while networks are trained on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from models.rows import DenseRows, PartRows, SparseRows, TokenRows


def drop_words(inputs: Any, rate: float) -> Any:
    """Encoder inputs with each word dropped with probability ``rate`` and the rest scaled up."""
    if isinstance(inputs, PartRows):
        return replace(inputs, parts={name: drop_words(part, rate) for name, part in inputs.parts.items()})
    if not isinstance(inputs, SparseRows):
        return inputs
    kept = (torch.rand_like(inputs.values) >= rate) / (1 - rate)
    return SparseRows(inputs.indptr, inputs.columns, inputs.values * kept, inputs.n_columns)


def hide_tokens(content: Any, rate: float) -> Any:
    """The same content, of whose tokens the decoder is told each with probability 1 - ``rate``."""
    if isinstance(content, PartRows):
        return replace(content, parts={name: hide_tokens(part, rate) for name, part in content.parts.items()})
    return content.masked(rate) if isinstance(content, TokenRows) else content


def drop_parts(inputs: PartRows, rate: float) -> PartRows:
    """The same without a share ``rate`` of the parts, each dropped by itself, so that some items have none left."""
    kept = {name: torch.rand(len(inputs), device=inputs.device) >= rate for name in inputs.parts}
    return inputs.only(kept)


def corrupt(inputs: Any, rate: float) -> Any:
    """Encoder inputs of which each word, token or number is lost with probability ``rate``, numbers scaled up.

    A sequence closes up around a token that is lost.
    """
    if not rate:
        return inputs
    if isinstance(inputs, PartRows):
        return replace(inputs, parts={name: corrupt(part, rate) for name, part in inputs.parts.items()})
    if isinstance(inputs, TokenRows):
        kept = torch.rand(len(inputs.tokens), device=inputs.device) >= rate
        before = torch.cat([inputs.indptr.new_zeros(1), kept.cumsum(0)])
        return TokenRows(before[inputs.indptr], inputs.tokens[kept], inputs.n_tokens)
    if isinstance(inputs, DenseRows):
        kept = torch.rand(inputs.block.shape, device=inputs.device) >= rate
        return DenseRows(inputs.block * kept / (1 - rate), 1.0, inputs.dtype, inputs.device)
    return drop_words(inputs, rate)
