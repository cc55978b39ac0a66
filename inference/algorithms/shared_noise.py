"""Draws of a part of a minibatch that are those of the whole: several workers draw what one would have drawn."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor


class PartOfNoise(Messenger):
    """While it lasts, sites in the plate "items" take the rows ``part`` of noise for ``n_rows`` items.

    Noise for all rows is taken from torch's random state, so that every worker's state stays that of one worker alone.
    Normal sites are moved by it, loc + scale e, and points have none. Other sites are drawn for their own rows from a
    state of their own: right, but not what one worker alone would draw.
    """

    def __init__(self, n_rows: int, part: slice) -> None:
        super().__init__()
        self._n_rows, self._part = n_rows, part

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or msg["value"] is not None:
            return
        if not any(frame.name == "items" for frame in msg["cond_indep_stack"]):
            return
        fn = msg["fn"]
        while isinstance(fn, dist.Independent):
            fn = fn.base_dist
        if isinstance(fn, dist.Delta):
            return
        if isinstance(fn, dist.Normal):
            msg["value"] = fn.loc + fn.scale * self._noise(fn.loc)
        elif isinstance(fn, dist.MultivariateNormal):
            noise = self._noise(fn.loc)
            msg["value"] = fn.loc + (fn._unbroadcasted_scale_tril @ noise[..., None]).squeeze(-1)
        else:
            seed = int(torch.randint(2**31 - 1, ()))
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed + self._part.start)
                msg["value"] = msg["fn"].rsample() if msg["fn"].has_rsample else msg["fn"].sample()
        msg["done"] = True

    def _noise(self, like: Tensor) -> Tensor:
        shape = (self._n_rows, *like.shape[1:])
        return torch.empty(shape, dtype=like.dtype, device=like.device).normal_()[self._part]
