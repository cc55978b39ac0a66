"""A service in a process of its own, and clients that ask it."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.narrowed import narrowed
from benchmarks.study.workers import ROOT
from pyro_cvae.runs import open_run

KINDS = ("recommend", "fold-in", "similar", "why")
QUESTIONS = (*KINDS, "similar-users", "new-item")
LIKED = 10
POINTS = 20
"""How often memory is looked at in a long series."""
TOKEN = "a-token-of-the-benchmark"
Ids = dict[str, list[Any]]


@dataclass(frozen=True)
class Server:
    """A service that runs: its port and process."""

    port: int
    process: int

    def mib(self) -> float:
        """Its resident memory."""
        told = Path(f"/proc/{self.process}/status").read_text()
        (kib,) = re.findall(r"VmRSS:\s+(\d+)", told)
        return int(kib) / 1024

    def cpu_seconds(self) -> float:
        """Seconds of processors that it has taken."""
        told = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def ids_of(run: Path) -> Ids:
    """Ids of users with training pairs, and of items; the words that are counted, if any."""
    opened = open_run(run)
    dataset, split = opened.dataset(), opened.split()
    known = split.train.user_counts > 0
    words = list(dataset.content.vocabulary or ())
    return {"user": dataset.user_ids[known].tolist(), "item": dataset.item_ids.tolist(), "word": words}


@contextmanager
def serving(run: Path, threads: int, *more: str) -> Iterator[Server]:
    """``python -m inference.serve`` at a free port, until the end of the block."""
    asked = ["inference.serve", str(run), "--port", "0", "--threads", str(threads), *more]
    process = subprocess.Popen(
        [sys.executable, "-m", *asked], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ.copy()
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not (port := re.search(r":(\d+)$", line.strip())):
            raise SystemExit(f"error: the service did not start: {line!r}")
        _answering(int(port[1]))
        yield Server(int(port[1]), process.pid)
    finally:
        process.terminate()
        process.communicate()


def _answering(port: int) -> None:
    """Wait until it answers."""
    for _ in range(600):
        try:
            with closing(connect(port)) as client:
                if ask(client, "GET", "/health")[0] == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("error: the service does not answer")


def connect(port: int) -> http.client.HTTPConnection:
    """A connection that stays open."""
    return http.client.HTTPConnection("127.0.0.1", port, timeout=120)


def ask(
    client: http.client.HTTPConnection, method: str, path: str, body: Any = None, token: str | None = None
) -> tuple[int, bytes]:
    """Status and body of an answer."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    client.request(method, path, None if body is None else json.dumps(body), headers)
    answer = client.getresponse()
    return answer.status, answer.read()


def question(kind: str, ids: Ids, chance: random.Random) -> dict[str, Any]:
    """A question with users and items at random."""
    if kind == "recommend":
        return {"user": chance.choice(ids["user"]), "top": 10}
    if kind == "fold-in":
        return {"items": chance.sample(ids["item"], LIKED), "top": 10}
    if kind == "similar":
        return {"item": chance.choice(ids["item"]), "top": 10}
    return {"user": chance.choice(ids["user"]), "top": 1}


def latency(server: Server, ids: Ids, kind: str, n_clients: int, n_requests: int) -> dict[str, Any]:
    """p50, p99 and the service's own CPU time an answer in milliseconds, and answers a second, of so many clients."""

    def work(client: http.client.HTTPConnection, seed: int, n: int) -> list[float]:
        chance, seconds = random.Random(seed), list[float]()
        for _ in range(n):
            asked = question(kind, ids, chance)
            began = time.perf_counter()
            status, said = ask(client, "POST", f"/{kind}", asked)
            seconds.append(time.perf_counter() - began)
            if status != 200:
                raise SystemExit(f"error: /{kind} answered {status}: {said!r}")
        return seconds

    by_clients(server, lambda client, seed: work(client, seed, 20), n_clients)  # not counted
    began, cpu = time.perf_counter(), server.cpu_seconds()
    parts = by_clients(server, lambda client, seed: work(client, seed, n_requests // n_clients), n_clients)
    took, cpu = time.perf_counter() - began, server.cpu_seconds() - cpu
    seconds = np.concatenate(parts)
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000
    measured = {"p50": p50, "p99": p99, "rate": len(seconds) / took, "cpu": 1000 * cpu / len(seconds)}
    return {"kind": kind, "clients": n_clients} | measured


def told(row: dict[str, Any]) -> list[str]:
    """The numbers of :func:`latency` as text."""
    return [f"{row['p50']:.1f}", f"{row['p99']:.1f}", f"{row['rate']:.0f}", f"{row['cpu']:.1f}"]


def by_clients(server: Server, work: Callable[[http.client.HTTPConnection, int], Any], n_clients: int) -> list[Any]:
    """What ``work`` gives to each of so many clients, with a connection of its own and a number."""

    def one(seed: int) -> Any:
        with closing(connect(server.port)) as client:
            return work(client, seed)

    with ThreadPoolExecutor(n_clients) as pool:
        return list(pool.map(one, range(n_clients)))


def memory_over(server: Server, ids: Ids, n_requests: int, n_clients: int) -> list[tuple[int, float]]:
    """Requests sent and resident MiB, some times over a series of requests of all kinds in turn."""
    points = [(0, server.mib())]
    each = n_requests // POINTS // n_clients

    def work(client: http.client.HTTPConnection, seed: int) -> None:
        chance = random.Random(1000 * len(points) + seed)
        for _, kind in zip(range(each), itertools.cycle(KINDS), strict=False):
            status, said = ask(client, "POST", f"/{kind}", question(kind, ids, chance))
            if status not in (200, 400):  # 400: this run has no reasons
                raise SystemExit(f"error: /{kind} answered {status}: {said!r}")

    for point in range(1, POINTS + 1):
        by_clients(server, work, n_clients)
        points.append((point * each * n_clients, server.mib()))
    return points


def reloaded(server: Server, ids: Ids, n_reloads: int, n_clients: int) -> dict[str, int]:
    """Answers to clients while the run is loaded again so often, and how many of them were none or another list."""
    ended, first = threading.Event(), {"user": ids["user"][0], "top": 10}
    with closing(connect(server.port)) as client:
        wanted = ask(client, "POST", "/recommend", first)

    def work(client: http.client.HTTPConnection, seed: int) -> tuple[int, int]:
        n = wrong = 0
        while not ended.is_set():
            try:
                wrong += ask(client, "POST", "/recommend", first) != wanted
            except (OSError, http.client.HTTPException):
                client.close()
                wrong += 1
            n += 1
        return n, wrong

    def reload() -> int:
        try:
            with closing(connect(server.port)) as client:
                return sum(ask(client, "POST", "/reload")[0] == 200 for _ in range(n_reloads))
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        loads = pool.submit(reload)
        counts = by_clients(server, work, n_clients)
        answers, wrong = (sum(column) for column in zip(*counts, strict=True))
        return {"reloads": loads.result(), "answers": answers, "wrong": wrong}


def tokens(run: Path, ids: Ids) -> list[int]:
    """Statuses of a question without a token, with a wrong one, and with the right one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "token"
        path.write_text(TOKEN)
        with serving(run, 1, "--token-file", str(path)) as server, closing(connect(server.port)) as client:
            asked = {"user": ids["user"][0]}
            return [ask(client, "POST", "/recommend", asked, token)[0] for token in (None, TOKEN[:-1], TOKEN)]


def statuses(server: Server) -> Counter[str]:
    """Answers to questions until now, by the first digit of their status: ``2xx``, ``4xx``, ``5xx``."""
    with closing(connect(server.port)) as client:
        text = ask(client, "GET", "/metrics")[1].decode()
    counts = Counter[str]()
    for path, first, n in re.findall(r'requests_total\{path="([^"]*)",status="(\d)\d\d"\} (\d+)', text):
        if path.strip("/") in QUESTIONS:
            counts[f"{first}xx"] += int(n)
    return counts


def fuzzed(server: Server, program: Path, cases: int, ids: Ids | None) -> tuple[int, Counter[str], str]:
    """Exit code of schemathesis, so many cases for each question, what they were answered, and the end of what it says.

    With ``ids`` its cases are of the narrowed document and right ones, else of the published one, half of them wrong.
    """
    with closing(connect(server.port)) as client:
        health, document = (json.loads(ask(client, "GET", path)[1]) for path in ("/health", "/openapi.json"))
    if ids is not None:
        document = narrowed(document, ids, health["uncertain"], health["explicit"])
    document["paths"] = {path: what for path, what in document["paths"].items() if path.strip("/") in QUESTIONS}
    before = statuses(server)
    with tempfile.TemporaryDirectory() as folder:  # it leaves what it has found in the folder where it runs
        path = Path(folder) / "openapi.json"
        path.write_text(json.dumps(document))
        asked = [str(program.absolute()), "run", str(path), "--url", f"http://127.0.0.1:{server.port}"]
        asked += ["--checks", "not_a_server_error", "--max-examples", str(cases), "--phases", "fuzzing"]
        asked += ["--mode", "all" if ids is None else "positive", "--continue-on-failure"]
        done = subprocess.run(asked, capture_output=True, text=True, cwd=folder)
    said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
    return done.returncode, statuses(server) - before, said
