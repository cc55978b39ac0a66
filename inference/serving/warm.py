"""The fit that a service holds, and how it is exchanged while requests are under way."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from inference.fitting import Fit
from pyro_cvae.errors import InputError, MachineError, as_known

log = logging.getLogger("pyro_cvae")


@dataclass(eq=False)
class Warm:
    """A fit that stays open, with ``source`` to open it again; ``loaded`` counts how often it was opened.

    A request keeps the fit with which it began. :meth:`reload` opens the next one beside it and then exchanges one
    reference, so that no request sees half of either. For that time there are two in memory.
    """

    fit: Fit
    source: Callable[[], Fit] | None = None
    loaded: int = 1
    _alone: threading.Lock = field(default_factory=threading.Lock)
    _loading: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def used(self, alone: bool = False) -> Iterator[Fit]:
        """The fit, without gradients; ``alone`` for what calls the model, whose modes are not one thread's own.

        Raises MachineError in the place of what says that memory is short.
        """
        with torch.no_grad(), self._alone if alone else nullcontext():
            try:
                yield self.fit
            except Exception as error:
                known = as_known(error)
                if not isinstance(known, MachineError) or known is error:
                    raise
                raise known from None

    def reload(self) -> None:
        """Open the run again and serve it from now on.

        InputError where there is no run to open, where it is no right one, and while another call opens it. What was
        served is served on then.
        """
        if self.source is None:
            raise InputError("this service was given a fit, not a run folder", "start it with inference.serve RUN")
        if not self._loading.acquire(blocking=False):
            raise InputError("the run is being loaded by another request", "wait for that one")
        try:
            with torch.no_grad():
                self.fit, self.loaded = self.source(), self.loaded + 1
        finally:
            self._loading.release()
        gc.collect()


def state_of(run: Path) -> tuple[int, int, int] | None:
    """What changes when a run folder is replaced; ``None`` while there is none."""
    try:
        told = (run / "manifest.json").stat()
    except OSError:
        return None
    return told.st_ino, told.st_mtime_ns, told.st_size


class Watch:
    """A thread that looks every few ``seconds`` whether the run folder was replaced, and loads it again then."""

    def __init__(self, warm: Warm, run: Path, seconds: float) -> None:
        self._warm, self._run, self._seconds = warm, run, seconds
        self._ended, self._seen = threading.Event(), state_of(run)
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(self._seconds):
            state = state_of(self._run)
            if state is None or state == self._seen:
                continue
            self._seen = state
            try:
                self._warm.reload()
                log.warning("%s was replaced and is loaded", self._run)
            except Exception as error:  # what was served is served on, whatever is wrong with the new one
                log.warning("%s was replaced, but cannot be loaded: %s", self._run, error)
