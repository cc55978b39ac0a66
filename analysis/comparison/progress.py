"""How far a comparison is, on the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inference.progress import Lines
from inference.progress import progress as progress_of_steps


@contextmanager
def progress() -> Iterator[Callable[[int, int, str], None]]:
    """Gives ``on_step`` of :func:`analysis.comparison.side_by_side.compare`: a bar on a terminal, lines elsewhere."""
    with progress_of_steps(lines=Lines(free=0), transient=True) as tell:
        yield lambda done, n, name: tell("models", done, n, name)
