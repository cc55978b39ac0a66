"""What a fit or draws would take of memory, in bytes, from sizes alone: asked before anything is allocated.

Each estimate is meant to be within a factor of three of the peak where it is large, which a test measures. What is
more than the machine has is refused by :func:`pyro_cvae.limits.check_memory`, exit code 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch

from inference.options import CoordinateOptions, MCMCOptions, Options, SVIOptions
from pyro_cvae.limits import check_memory
from pyro_cvae.text import counted

_BYTES_OF_A_STEP = 3000
"""Of a row of the history: a dictionary of some twenty numbers, here and once more in the checkpoint's JSON."""
_SIZES = {"float32": 4, "float64": 8}


def networks(n_features: int, hidden: Sequence[int], n_factors: int, tied: bool, tuned: bool = False) -> int:
    """Numbers of encoder and decoder, of parameters, gradients, Adam's two moments and a copy that is kept.

    A fit that is ``tuned`` keeps them of two earlier epochs, and asks these in turn.
    """
    widths = [n_features, *hidden]
    matrices = sum(a * b for a, b in pairwise(widths))
    own = matrices + 3 * hidden[-1] * n_factors + 2 * sum(widths) + 3 * n_factors
    return (8 if tuned else 5) * (own + (0 if tied else matrices))


def factors(n_users: int, n_items: int, options: Options) -> int:
    """Numbers of u, v and z as the algorithm holds them, with gradients, moments and what a step makes."""
    k, method = options.model.factors, options.method
    rows = n_users + n_items
    held = {SVIOptions: 20, CoordinateOptions: 12, MCMCOptions: 6}[type(method)] * rows * k
    if isinstance(method, MCMCOptions):
        held += method.chains * method.draws * (n_users + 2 * n_items) * k * 2
        held += method.chains * 3 * rows * k * k
    return held + 4 * k * k


def start(n_features: int, options: Options) -> int:
    """Numbers of the singular value decomposition that networks start with."""
    rank = min(n_features, max(options.model.factors, *options.model.hidden))
    return 3 * n_features * rank if options.fit.pretrain_epochs or options.fit.start == "svd" else 0


def batch(n_items: int, n_features: int, options: Options) -> int:
    """Numbers of one step of the networks: the layers' values and gradients, and the content as it is decoded."""
    asked = options.fit.batch_size or min(512, max(32, n_items // 50))
    width = 3 * n_features + 4 * sum(options.model.hidden) + 12 * options.model.factors
    return min(asked, n_items) * width


def history(options: Options) -> int:
    """Bytes of the history of all steps."""
    method, fit = options.method, options.fit
    steps = fit.pretrain_epochs + (method.warmup + method.draws if isinstance(method, MCMCOptions) else fit.epochs)
    steps += method.sweeps if isinstance(method, CoordinateOptions) else 0
    return steps * _BYTES_OF_A_STEP


def of_fit(n_users: int, n_items: int, features: Iterable[int], options: Options) -> dict[str, int]:
    """Bytes of a fit by what they are for, each with the option that lowers it; ``features`` of each content."""
    size = _SIZES[options.fit.dtype]
    model, widths = options.model, list(features)
    return {
        "fewer --factors": size * factors(n_users, n_items, options),
        "narrower --hidden layers, fewer --factors or fewer words": size
        * sum(
            networks(n, model.hidden, model.factors, model.tied, options.fit.tune > 0) + start(n, options)
            for n in widths
        ),
        "a smaller --batch-size": size * batch(n_items, sum(widths), options),
        "fewer steps": history(options),
    }


def check_fit(n_users: int, n_items: int, contents: dict[str, Any], options: Options) -> None:
    """MachineError, naming the option to lower, where a fit of these contents would take more than the machine has."""
    parts = of_fit(n_users, n_items, [content.n_features for content in contents.values()], options)
    free = None
    if options.fit.device != "cpu":
        free = float(torch.cuda.mem_get_info(options.fit.device)[0])
    factors = counted(options.model.factors, "factor")
    what = f"a fit of {counted(n_users, 'user')} and {counted(n_items, 'item')} with {factors}"
    check_memory(sum(parts.values()), what, "use " + max(parts, key=lambda name: parts[name]), free=free)


def check_draws(n_draws: int, n_values: int, what: str) -> None:
    """MachineError where ``n_draws`` times ``n_values`` numbers, held at once, are more than the machine has."""
    check_memory(8.0 * n_draws * n_values, f"{n_draws:,} {what}", "use fewer")
