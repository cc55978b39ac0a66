"""The options that several of the commands have, and how each runs; nothing heavy is imported before it is needed."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from pyro_cvae.errors import run_command


def command(name: str, doc: str | None) -> ArgumentParser:
    """The parser of ``python -m benchmarks.NAME``, with the file's docstring as its help."""
    return ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=doc, formatter_class=RawDescriptionHelpFormatter
    )


def as_command(main: Callable[[], object]) -> NoReturn:
    """Run a benchmark and end: an error is one line, as of every command, and an int that it returns its exit code."""

    def work() -> None:
        if isinstance(code := main(), int) and code:
            raise SystemExit(int(code))

    sys.exit(run_command(work))


def add_threads(parser: ArgumentParser, default: int = 0, of: str = "") -> None:
    """``--threads``, which :func:`compute_with` understands."""
    told = f"CPU threads{of} (0: as many as there are cores)"
    parser.add_argument("--threads", type=int, default=default, help=told)


def compute_with(threads: int) -> None:
    """Torch computes with so many threads from now on; 0 leaves it as many as there are cores."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def add_data(parser: ArgumentParser, name: str) -> None:
    """``--data``, by default the published data set ``name``."""
    folder = os.environ.get("PYRO_CVAE_DATA")
    default = str(Path(folder) / name) if folder else name
    parser.add_argument("--data", default=default, help=f"{name} (default: under $PYRO_CVAE_DATA, or the cache)")


def data_folder(data: str, further: Iterable[str] = ()) -> Path:
    """The folder that ``--data`` names: of a published data set that of the cache, downloaded if need be.

    ``further`` names contents whose files are wanted too.
    """
    from pyro_cvae.data.registry import FURTHER, REMOTE, fetch

    further = [name for name in further if name in FURTHER]
    return fetch(data, further) if data in REMOTE and not Path(data).exists() else Path(data)
