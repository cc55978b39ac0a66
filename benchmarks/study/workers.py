"""Processes that are asked one question after the other, so that peak memory is their own.

Nothing heavy is imported here, because a child's ru_maxrss begins at its parent's size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@contextmanager
def worker(module: str, threads: int) -> Iterator[subprocess.Popen[str]]:
    """A process in which ``work()`` of a module answers: a line of JSON in, a line of JSON out."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {module} import work; work()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str], question: Any) -> Any:
    """The answer of a worker; SystemExit where it died."""
    assert process.stdin is not None and process.stdout is not None
    print(json.dumps(question), file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"error: the process that was asked {question!r} died, see above (out of memory?)")
    return json.loads(answer)
