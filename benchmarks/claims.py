"""The figures of README's results, computed again: ``python -m benchmarks.claims`` (``make claims``).

For each mode and each of the authors' two splits of citeulike-t one fit by the command line, in a process of its own,
so that its time and peak memory are its own; then one table with the rivals. The settings were chosen on validation
parts of the training ratings (README, results), never on test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = {
    "10": [],
    "1": ["--lambda-u", "100000", "--epochs", "12", "--validation", "0.1"],
}
"""Flags of each split beside the defaults, by training items a user."""


def main() -> None:
    """Fit, then evaluate; one line a fit with its seconds and GiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = os.environ.get("PYRO_CVAE_DATA")
    default = str(Path(folder) / "citeulike-t") if folder else None
    parser.add_argument(
        "--data", default=default, help="the folder citeulike-t (default: under $PYRO_CVAE_DATA, or the cache)"
    )
    parser.add_argument("--out", default="runs/claims", help="folder of the run folders")
    parser.add_argument("--only", nargs="*", default=["10-map", "10-bayes", "1-map", "1-bayes"], help="which fits")
    arguments = parser.parse_args()
    if arguments.data is None:
        from pyro_cvae.data.registry import fetch

        arguments.data = str(fetch("citeulike-t"))
    for name in arguments.only:
        per_user, mode = name.split("-")
        train = Path(arguments.data) / f"cf-train-{per_user}-users.dat"
        flags = ["--mode", mode, "--data", arguments.data, "--train-file", str(train), *SETTINGS[per_user]]
        run(["inference.svi", *flags, "--out", f"{arguments.out}/{name}", "--overwrite"])
    runs = [f"{arguments.out}/{name}" for name in arguments.only]
    run(["inference.evaluate", *runs, "--rivals"])


def run(module: list[str]) -> None:
    """Run ``python -m ...``; its seconds and peak memory go to stdout. Stops where it fails."""
    print("python -m " + " ".join(module), flush=True)
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *module])
    _, status, usage = os.wait4(process.pid, 0)
    print(f"{time.monotonic() - began:.0f} seconds, peak memory {usage.ru_maxrss / 2**20:.2f} GiB", flush=True)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
