"""What a process does when SIGTERM asks it to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

ENDED = 128 + signal.SIGTERM
"""The exit code."""
PAUSE = 1.0
"""Seconds in which a worker that loses its connections may say so by itself."""


def end_by_sigterm() -> None:
    """Let SIGTERM end this process as an error does: what it holds is put away."""

    def end(signum: int, frame: object) -> None:
        raise SystemExit(ENDED)

    signal.signal(signal.SIGTERM, end)


def end_worker_by_sigterm() -> None:
    """Let SIGTERM end a worker of several with one line.

    torchrun sends it to all workers once one of them has died. Python's own handlers wait for the main thread, which
    may stand in C and wait for the dead one, so that a thread reads the pipe to which signals are written at once.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_wait_for_sigterm, args=(told,), daemon=True, name="sigterm").start()


def _wait_for_sigterm(told: int) -> None:
    while signal.SIGTERM not in os.read(told, 1):
        pass
    time.sleep(PAUSE)
    print(
        "error: another worker of the fit has ended, or somebody has ended the job; a fit with --out goes on with "
        "--resume",
        file=sys.stderr,
        flush=True,
    )
    os._exit(ENDED)
