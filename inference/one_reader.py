"""Tables that one worker of each machine reads, for all workers of that machine."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from inference.algorithms.workers import here
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.mapped import read_mapped, write_mapped
from pyro_cvae.data.splits import Split
from pyro_cvae.trust import Trust


def read_once(read: Callable[[], tuple[Dataset, Split]], trust: Trust = ()) -> tuple[Dataset, Split]:
    """What ``read`` gives, called by the first worker of each machine alone; the others map what that one has written.

    The arrays lie in a folder under that of temporary files until all have mapped them. An error is raised where it
    came up; the other workers end quietly with its exit code. ``trust`` is that of
    :func:`pyro_cvae.data.mapped.read_mapped`.
    """
    local, folder, failed, dataset = int(os.environ.get("LOCAL_RANK", "0")), None, None, None
    said = 0
    if local == 0:  # before workers meet: while a table is turned into values this process answers nobody
        try:
            dataset, split = read()
            folder, said = _written(dataset, split)
        except Exception as error:
            failed, said = error, -getattr(error, "exit_code", 1)
    try:
        workers = here()
        places = [slice(rank, rank + 1) for rank in range(workers.size)]
        numbers = workers.rows(torch.tensor([said]), places).tolist()
        if failed is not None:
            raise failed
        if min(numbers) < 0:
            raise SystemExit(-min(numbers))
        mapped, split = read_mapped(_folder(numbers[workers.rank - local]), trust)
        workers.wait()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return mapped if dataset is None else replace(dataset, interactions=mapped.interactions), split


def _written(dataset: Dataset, split: Split) -> tuple[Path, int]:
    """A new folder that nobody else may read, with both in it, and its number."""
    number = 1 + secrets.randbits(60)
    folder = _folder(number)
    folder.mkdir(mode=0o700)
    try:
        write_mapped(dataset, split, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, number


def _folder(number: int) -> Path:
    return Path(tempfile.gettempdir()) / f"pyro-cvae-{number:x}"
