"""How wide pre-activations and singular values are, where a content may not vary at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NOTHING = 1e-5
"""What is this small beside the size of the numbers themselves is their rounding, not how they vary."""


def spread(pre: Tensor, over: tuple[int, ...] = (0,), alike: bool = False, size: float = 0.0) -> Tensor:
    """Standard deviation over ``over``, by which units are scaled to variance 1; never 0.

    With ``alike`` there is one for all units, the root of their mean square. Of a unit that varies by no more than
    rounding it is how large its values are, and of one that is 0 it is 1: scaled so it stays as constant as it is,
    where rounding scaled to variance 1 would be noise, and its weights a million times too large. Rounding is that of
    numbers of the size of ``pre``, or of ``size`` where that is more (of what they are differences of).
    """
    if pre.shape[0] > 1:
        square = pre.var(over)
    else:
        square = torch.zeros_like(pre.mean(over))
    second = pre.square().mean(over)
    if alike:
        square, second = square.mean().expand_as(square), second.mean().expand_as(second)
    found, large = square.sqrt(), second.sqrt().clamp(min=size)
    return torch.where(found > NOTHING * large, found, torch.where(large > 0, large, torch.ones_like(large)))


def to_unit(layer: Any, pre: Tensor, over: tuple[int, ...] = (0,), size: float = 0.0) -> None:
    """Scale and shift a layer in place so that its units or channels have mean 0 and variance 1 over ``over``.

    ``pre`` are its pre-activations with a bias of 0; ``size`` as of :func:`spread`.
    """
    wide = spread(pre, over, size=size)
    shape = [1] * layer.weight.dim()
    shape[1 if isinstance(layer, nn.ConvTranspose2d) else 0] = -1
    layer.weight.div_(wide.view(shape))
    layer.bias.copy_(-pre.mean(over) / wide)


def rank(singular: Any) -> int:
    """How many of the singular values, the largest first, are more than rounding."""
    return int((singular > NOTHING * singular[0]).sum()) if len(singular) else 0
