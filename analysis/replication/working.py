"""A process that makes the fits of one group: what it is asked stands in its input, its rows in its output."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from typing import Any

from analysis.replication.contents import load_study
from analysis.replication.fits import rows_of
from analysis.replication.jobs import Job
from analysis.replication.methods import Method
from analysis.replication.store import Store


def question(jobs: list[Job], folder: str, threads: int) -> str:
    """What a process is asked, as JSON."""
    return json.dumps({"jobs": [asdict(job) for job in jobs], "folder": folder, "threads": threads}, default=list)


def jobs_asked(asked: dict[str, Any]) -> list[Job]:
    """The jobs of a question."""
    return [Job(**(job | {"method": Method(**job["method"])})) for job in asked["jobs"]]


def work() -> None:
    """Answer a question that stands in the standard input: a line of JSON for each row."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked ends this process
    asked = json.loads(sys.stdin.read())
    jobs, answers = jobs_asked(asked), sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints is no answer
    try:
        dataset, _ = load_study(jobs[0].data)
        for row in rows_of(jobs, dataset, Store(asked["folder"]), asked["threads"]):
            print(json.dumps(row), file=answers, flush=True)
    finally:
        sys.stdout = answers
