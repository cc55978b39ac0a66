"""The number of threads that torch computes with, for as long as some work lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Torch computes with ``count`` threads inside and with as many as before afterwards; ``None`` changes nothing.

    The block gets the number that torch had before.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
