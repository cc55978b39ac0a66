"""The number of threads that torch and numpy compute with, for as long as some work lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


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


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Numpy's matrix products are made by ``count`` threads inside and by as many as before afterwards."""
    with _pools().limit(limits=count, user_api="blas"):
        yield


@cache
def _pools() -> ThreadpoolController:
    """The libraries of linear algebra of this process, looked for once."""
    return ThreadpoolController()
