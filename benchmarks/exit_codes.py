"""Exit codes of ordinary and failing commands on a machine that is busy: ``python -m benchmarks.exit_codes 300``.

Each call is a process forked after the imports that ends as any Python program does: what is tested is that nothing
that still runs then takes the process down (exit code 134). ``--load N`` processes do nothing but compute meanwhile.
Prints how often each code came; 1 if there was another than 0, 1 and 2.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.fuzz import in_child, warm
from benchmarks.fuzz_cases import ON_RUNS, prepare
from benchmarks.study.arguments import as_command, command

FAILING: tuple[tuple[str, ...], ...] = (
    ("inference.evaluate", "run", "nowhere"),
    ("inference.evaluate", "run", "run/data"),
    ("inference.evaluate", "run", "old", "--cutoffs", "0"),
    ("inference.recommend", "run", "--user", "nobody"),
    ("inference.recommend", "run", "--similar", "nothing"),
    ("analysis.posterior", "run", "--user", "nobody", "--out", "x.nc"),
    ("analysis.compare", "run", "nowhere"),
)
CALLS = (*FAILING, *ON_RUNS[:6], *FAILING)


def main() -> int:
    """Start the calls, a few at once, and count their codes."""
    parser = command("exit_codes", __doc__)
    parser.add_argument("calls", nargs="?", type=int, default=300)
    parser.add_argument("--load", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=4)
    asked = parser.parse_args()
    warm()
    scratch = Path(tempfile.mkdtemp(prefix="exit-codes-"))  # removed by this process alone, not by the calls
    good = scratch / "good"
    good.mkdir()
    in_child(lambda: prepare(good), scratch / "prepare.log")
    this = os.getpid()
    try:
        return _count(asked.calls, asked.at_once, asked.load, good)
    finally:
        if os.getpid() == this:
            shutil.rmtree(scratch)


def _count(n_calls: int, at_once: int, n_busy: int, good: Path) -> int:
    this, busy = os.getpid(), [_fork_busy() for _ in range(n_busy)]
    codes: Counter[int] = Counter()
    running: set[int] = set()
    try:
        for number in range(n_calls):
            if len(running) >= at_once:
                codes[_ended(running)] += 1
            pid = os.fork()
            if not pid:
                _call(CALLS[number % len(CALLS)], good)
            running.add(pid)
            if number % 50 == 49:
                print(
                    f"{number + 1} calls begun, exit codes: {dict(sorted(codes.items()))}", file=sys.stderr, flush=True
                )
        while running:
            codes[_ended(running)] += 1
    finally:
        for pid in busy if os.getpid() == this else ():
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    print(f"{n_calls} calls, exit codes: {dict(sorted(codes.items()))}")
    return int(bool(set(codes) - {0, 1, 2}))


def _ended(running: set[int]) -> int:
    while True:
        pid, status = os.wait()
        if pid in running:
            running.remove(pid)
            return os.waitstatus_to_exitcode(status)


def _call(argv: tuple[str, ...], good: Path) -> None:
    """The command, then the end of this process as the interpreter makes it."""
    from pyro_cvae.errors import run_command

    os.chdir(good)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.argv = [argv[0], *argv[1:], *(("--out", f"out-{os.getpid()}") if argv[0] == "analysis.compare" else ())]
    code = run_command(importlib.import_module(argv[0]).main)
    sys.exit(code)


def _fork_busy() -> int:
    pid = os.fork()
    if not pid:
        while True:
            pass
    return pid


if __name__ == "__main__":
    as_command(main)
