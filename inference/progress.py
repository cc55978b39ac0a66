"""How far a command is: a bar where stderr is a terminal, otherwise lines, which are written at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TextIO, TypeVar

Thing = TypeVar("Thing")

FREE_LINES = 60
"""Lines that are written as they come; after them there is at most one in ``SECONDS``."""
SECONDS = 2.0


class Lines:
    """Progress where there is no terminal: a line an epoch, or in long fits one every few seconds.

    Parameters:
        stream: Where they go, stderr by default.
        free: How many are written as they come; with 0 there is none at all before ``SECONDS`` have passed.
        clock: Seconds, for tests.
    """

    def __init__(
        self, stream: TextIO | None = None, free: int = FREE_LINES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._free, self._clock, self._patient = stream, free, clock, free == 0
        self._began = self._last = clock()
        self._phase = ""

    def tell(self, phase: str, note: str, *, always: bool = False) -> None:
        """Write a line, unless there were many lately; the first of a phase is written in any case."""
        now = self._clock()
        at_once = not self._patient and (always or phase != self._phase or self._free > 0)
        if not at_once and now - self._last < SECONDS:
            return
        self._free -= 1
        self._phase, self._last = phase, now
        try:
            print(
                f"{phase}{note and ' '}{note} [{now - self._began:.0f} s]", file=self._stream or sys.stderr, flush=True
            )
        except BrokenPipeError:  # nobody reads any more, and the work goes on
            self._patient, self._last = True, float("inf")


@contextmanager
def progress(
    quiet: bool = False, lines: Lines | None = None, transient: bool = False
) -> Iterator[Callable[[str, int, int | None, str], None]]:
    """Gives a function of phase, steps done, their number, and a note: a bar on a terminal, else lines."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    told = (lines or Lines()) if not console.is_terminal and not quiet else None
    shown = console.is_terminal and not quiet
    more = TextColumn("{task.fields[note]}")
    with Progress(*columns, more, console=console, disable=not shown, transient=transient) as bar:
        task = bar.add_task("preparing", total=None, note="")

        def on_step(phase: str, done: int, total: int | None, note: str = "") -> None:
            if told is not None:
                place = "" if not total else f"{done}/{total}"
                told.tell(phase, " ".join(filter(None, (place, note))), always=bool(total) and done == total)
            bar.update(task, description=escape(phase), completed=done, total=total, note=escape(note))

        yield on_step


def track(things: Iterable[Thing], phase: str, total: int | None = None) -> Iterator[Thing]:
    """The things one by one, with :func:`progress`; lines come at most every few seconds."""
    count = len(things) if total is None and isinstance(things, Sized) else total
    with progress(lines=Lines(free=0), transient=True) as on_step:
        for number, thing in enumerate(things):
            on_step(phase, number, count, "")
            yield thing
