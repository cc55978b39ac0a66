"""SIGTERM ends a process as an error does, and a worker that stands in C with one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

STANDS = """
import sys, time
from datetime import timedelta
from torch.distributed import TCPStore
from pyro_cvae.errors import run_command

def main():
    try:
        print("here", flush=True)
        {wait}
    finally:
        print("put away", flush=True)

sys.exit(run_command(main))
"""


def ended(wait: str, **more: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that SIGTERM asks to end."""
    command = [sys.executable, "-c", STANDS.format(wait=wait)]
    job = subprocess.Popen(command, env=os.environ | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout is not None and job.stdout.readline() == "here\n"
    job.send_signal(signal.SIGTERM)
    said, told = job.communicate(timeout=60)
    return job.returncode, said, told


def test_a_process_puts_away_what_it_holds() -> None:
    assert ended("time.sleep(100)") == (143, "put away\n", "")


@pytest.mark.parametrize(
    "wait", ["time.sleep(100)", "TCPStore('localhost', 0, is_master=True).wait(['no'], timedelta(seconds=100))"]
)
def test_a_worker_ends_with_one_line(wait: str) -> None:
    code, _, told = ended(wait, WORLD_SIZE="2")
    assert code == 143 and len(told.splitlines()) == 1
    assert told.startswith("error: another worker of the fit has ended") and "--resume" in told


def test_a_worker_that_has_an_error_of_its_own_says_that() -> None:
    code, _, told = ended("time.sleep(0.3); raise RuntimeError('gloo/transport')", WORLD_SIZE="2")
    assert code == 1 and len(told.splitlines()) == 1 and "has ended or cannot be reached" in told
