"""The figures of results of docs/evidence.md, computed again: ``python -m benchmarks.claims`` (``make claims``).

For each fit of FITS, on the authors' two splits of citeulike-t, one run of the command line in a process of its own, so
that its time and peak memory are its own; then one table with the rivals, then the studies of the pages in docs/. The
settings were chosen on validation parts of the training ratings (docs/evidence.md), never on test.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.study.arguments import add_data, add_threads, as_command, command, data_folder

SPARSE = ["--validation", "0.1"]
"""At one item a user: marks the tenth of the users on whom settings were chosen; the training part stays whole."""
PAPER = [
    *("coordinate", "--mode", "map", "--preset", "paper", "--content-likelihood", "bernoulli"),
    *("--content-likelihood.subsample", "3000", "--encoder-input", "tfidf", "--radius", "5", "--start", "svd"),
    *("--word-dropout", "0.5", "--pretrain-learning-rate", "0.001", "--pretrain-epochs", "24", "--epochs", "0"),
    *("--unrated", "masked"),
]
"""K = 50, 200-100 sigmoid, tied, Bernoulli, a = 1, b = 0.01 as in the paper; its start and its input are ours."""
WIDE = ["--preset", "best", "--factors", "1000", "--hidden", "1000", "--tune", "0"]
NARROW = ["--preset", "best", "--factors", "50", "--hidden", "50", "--tune", "0"]
GRADIENTS = ["--epochs", "30", "--learning-rate", "0", "--factor-learning-rate", "0.1"]
"""u and v by gradients with the networks held, as ``coordinate`` holds them: what the two algorithms agree on."""
FITS: dict[str, list[str]] = {
    "best-10-map": ["coordinate", "--mode", "map", "--preset", "best"],
    "given-10-map": ["coordinate", "--mode", "map", "--preset", "best", "--tune", "0"],
    "best-10-bayes": ["coordinate", "--mode", "bayes", "--preset", "best", "--tune", "0"],
    "best-1-map": ["coordinate", "--mode", "map", "--preset", "best", *SPARSE],
    "best-1-bayes": ["coordinate", "--mode", "bayes", "--preset", "best", *SPARSE],
    "wide-10-map": ["coordinate", "--mode", "map", *WIDE],
    "wide-1-map": ["coordinate", "--mode", "map", *WIDE, *SPARSE],
    "paper-10-map": [*PAPER, "--lambda-u", "90", "--lambda-v", "0.015"],
    "paper-1-map": [*PAPER, "--lambda-u", "750", "--lambda-v", "0.04", *SPARSE],
    "coordinate-10-map": ["coordinate", "--mode", "map", *NARROW],
    "svi-10-map": ["svi", "--mode", "map", *NARROW, *GRADIENTS],
    "coordinate-10-bayes": ["coordinate", "--mode", "bayes", "--diagonal", *NARROW],
    "svi-10-bayes": ["svi", "--mode", "bayes", *NARROW, *GRADIENTS],
}
"""Command and flags by name; the second part of a name is the number of training items a user."""
STUDIES: dict[str, list[str]] = {
    "bayes": ["benchmarks.bayes", "--data", "DATA"],
    "reference": ["benchmarks.reference"],
    "updates": ["benchmarks.updates"],
    "sbc": ["analysis.sbc", "--thin", "2"],
    "bandit": ["analysis.bandit"],
    "bound": ["benchmarks.bound"],
    "combinations": ["benchmarks.combinations"],
    "titles": ["benchmarks.titles"],
    "digits": ["benchmarks.digits"],
    "cold": ["benchmarks.cold"],
    "start-from": ["benchmarks.start_from", "--data", "DATA"],
    "contents": ["benchmarks.contents", "--splits", "3", "--sets", "citations", "frequent-tags"],
    "otherdata": ["benchmarks.otherdata", "--parts", "rivals", "strangers"],
    "topics": ["benchmarks.topics"],
    "evidence": ["benchmarks.evidence"],
    "stars": ["benchmarks.stars"],
    "when-bayes": ["benchmarks.when_bayes"],
    "paper": ["analysis.paper", "all", "--jobs", "2"],
}
"""Modules and flags by name: what the pages say of Bayes and MAP, draws, folding in, exploring and kinds of data."""


def main() -> None:
    """Fit and evaluate, then the studies; one line each with its seconds and GiB."""
    parser = command("claims", __doc__)
    add_data(parser, "citeulike-t")
    parser.add_argument("--out", default="runs/claims", help="folder of the run folders")
    parser.add_argument("--only", nargs="*", default=[*FITS, *STUDIES], choices=[*FITS, *STUDIES], help="which of them")
    add_threads(parser)
    arguments = parser.parse_args()
    data = data_folder(arguments.data)
    fits = [name for name in arguments.only if name in FITS]
    for name in fits:
        module, *flags = FITS[name]
        train = data / f"cf-train-{name.split('-')[1]}-users.dat"
        flags += ["--data", str(data), "--train-file", str(train), "--threads", str(arguments.threads)]
        run([f"inference.{module}", *flags, "--out", f"{arguments.out}/{name}", "--overwrite"])
    if fits:
        run(["inference.evaluate", *(f"{arguments.out}/{name}" for name in fits), "--rivals"])
    for name in arguments.only:
        if name in STUDIES:
            run([str(data) if flag == "DATA" else flag for flag in STUDIES[name]])


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
    as_command(main)
