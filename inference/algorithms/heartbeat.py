"""Workers that tell one another every few seconds that they are there, through the store where torchrun has them meet.

A worker that dies is seen at once: its connections close, and torchrun ends the job. One that is cut off, by a cable or
a machine that is gone, closes nothing, and the others would wait for it. So every worker counts up a number of its own,
and the first looks at all of them, the others at that of the first. Whose number has not changed for
:data:`SILENCE` seconds is lost; who sees it says so in one line and ends, so that torchrun ends the job or starts it
again (``--max-restarts``).
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

EVERY = 2.0
"""Seconds between two beats."""
SILENCE = 20.0
"""Seconds without a beat after which a worker is lost."""
LEFT = -1
"""The beat of a worker that has done its work and gone."""


class Heartbeat:
    """A thread that beats for this worker and listens for others; one in a process."""

    _running: Heartbeat | None = None

    def __init__(self, store: dist.Store, name: str, rank: int, size: int) -> None:
        self._store, self._rank, self._key = store, rank, f"pyro-cvae/{name}/alive/"
        self._others = [other for other in range(size) if other != rank] if rank == 0 else [0]
        self._done, self._reached, self._threads = threading.Event(), time.monotonic(), list[threading.Thread]()

    @classmethod
    def start(cls, name: str, rank: int, size: int) -> None:
        """Begin, if there is a store to meet at; ``name`` is that of these workers, as they have agreed on it."""
        host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
        if not host or not port or cls._running is not None:
            return
        store = dist.TCPStore(
            host, int(port), is_master=False, wait_for_workers=False, timeout=timedelta(seconds=SILENCE / 2)
        )
        cls._running = cls(store, name, rank, size)
        for work in (cls._running._run, cls._running._watch):
            thread = threading.Thread(target=work, daemon=True, name="heartbeat")
            cls._running._threads.append(thread)
            thread.start()
        atexit.register(cls._running._end_threads)

    @classmethod
    def stop(cls) -> None:
        """Say that this worker has done its work."""
        if cls._running is not None:
            running, cls._running = cls._running, None
            running._done.set()
            with suppress(RuntimeError):  # the store has gone before us: everybody is done
                running._store.set(f"{running._key}{running._rank}", str(LEFT))
            running._end_threads()

    def _end_threads(self) -> None:
        """Wait for the threads: Python ends one that asks the store as it exits itself, and C++ then aborts (134)."""
        self._done.set()
        for thread in self._threads:
            thread.join(SILENCE)

    def _run(self) -> None:
        count, heard = 0, {other: (0, time.monotonic()) for other in self._others}
        while not self._done.wait(EVERY):
            count += 1
            try:
                self._store.set(f"{self._key}{self._rank}", str(count))
                beats = {other: self._beat(other) for other in self._others}
                self._reached = time.monotonic()
            except RuntimeError:
                continue
            for other, beat in beats.items():
                known, since = heard[other]
                if beat != known:
                    heard[other] = beat, time.monotonic()
                elif beat != LEFT and time.monotonic() - since > SILENCE:
                    self._end(f"worker {other} has not answered for {SILENCE:.0f} seconds")

    def _watch(self) -> None:
        """Who is cut off itself ends too: a question to the store may then wait for ever.

        Seen twice, because the whole process may have stood still before the first time.
        """
        late = 0
        while not self._done.wait(EVERY):
            late = late + 1 if time.monotonic() - self._reached > SILENCE else 0
            if late > 1:
                self._end("the place where the workers meet does not answer")

    def _beat(self, other: int) -> int:
        key = f"{self._key}{other}"
        return int(self._store.get(key)) if self._store.check([key]) else 0

    def _end(self, why: str) -> None:
        if self._done.is_set():
            return
        print(f"error: worker {self._rank}: {why}; the fit goes on with --resume", file=sys.stderr, flush=True)
        os._exit(1)
