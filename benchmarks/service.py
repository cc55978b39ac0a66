"""The service under load: ``python -m benchmarks.service RUN``.

``python -m inference.serve RUN --port 0`` runs in a process of its own, and clients of this one ask it over connections
that stay open:

- latency: p50, p99, answers a second and the service's own CPU time an answer, of ``/recommend`` (top 10) and
  ``/fold-in`` (ten items), users and items at random, by ``--clients`` clients, each with one request under way;
- memory: resident memory of the service over ``--long`` requests of all kinds;
- reload: ``POST /reload`` again and again while clients ask; every answer must be right;
- token: a service with a token refuses a wrong one and none, and takes the right one.

Schemathesis, in an environment of its own (``pip install schemathesis``), sends requests made from ``/openapi.json``:
``--cases N --schemathesis FOLDER/bin/schemathesis``. There are two series with N cases for each question. Those of the
document as it is published are nearly all refused. Those of the document narrowed to the run are its own ids and what
its fit can answer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.study.arguments import add_threads, as_command, command
from benchmarks.study.machine import Load
from benchmarks.study.tables import show, verdict

PARTS = ("latency", "memory", "reload", "token")
STATUSES = ("2xx", "4xx", "5xx")
SLOWEST_MS = 50.0
"""p99 of a list at one client, at most."""
LARGEST_GROWTH = 0.02
"""Share by which memory may be larger at the end of the long series than at its quarter."""


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the parts that are asked for, print their tables and return what was measured."""
    parser = command("service", __doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--requests", type=int, default=2000, help="of each kind and number of clients")
    parser.add_argument("--long", type=int, default=36_000, help="requests of the long series: an hour of ten a second")
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--cases", type=int, default=0, help="of schemathesis; 0 leaves it out")
    parser.add_argument("--schemathesis", type=Path, help="its command, in an environment of its own")
    add_threads(parser, 2, " of the service")
    options = parser.parse_args(arguments)
    if options.cases and options.schemathesis is None:
        parser.error("--cases needs --schemathesis COMMAND")
    from benchmarks.study import service  # asks the run for its ids

    machine, found = Load(), dict[str, Any]()
    ids = service.ids_of(options.run)
    if "latency" in options.parts:
        with service.serving(options.run, options.threads) as server:
            rows = [
                service.latency(server, ids, kind, n, options.requests)
                for kind in ("recommend", "fold-in")
                for n in options.clients
            ]
        found["latency"] = rows
        headings = ("question", "clients", "p50, ms", "p99, ms", "answers a second", "CPU, ms")
        show(headings, [[row["kind"], str(row["clients"]), *service.told(row)] for row in rows], 1)
        alone = next((row["p99"] for row in rows if row["kind"] == "recommend" and row["clients"] == 1), None)
        if alone is not None:
            verdict(alone <= SLOWEST_MS, f"p99 of a list at one client: {alone:.1f} ms, at most {SLOWEST_MS:g}")
    if "memory" in options.parts:
        with service.serving(options.run, options.threads) as server:
            memory = found["memory"] = service.memory_over(server, ids, options.long, max(options.clients))
        show(("requests", "resident, MiB"), [[f"{n:,}", f"{mib:.1f}"] for n, mib in memory], 0)
        growth = memory[-1][1] / memory[len(memory) // 4][1] - 1
        verdict(
            growth <= LARGEST_GROWTH, f"memory from a quarter to the end: {growth:+.1%}, at most {LARGEST_GROWTH:.0%}"
        )
    if "reload" in options.parts:
        with service.serving(options.run, options.threads) as server:
            counts = found["reload"] = service.reloaded(server, ids, options.reloads, max(options.clients))
        told = f"{counts['answers']:,} answers beside {counts['reloads']} reloads, {counts['wrong']} of them wrong"
        verdict(not counts["wrong"], told)
    if "token" in options.parts:
        statuses = found["token"] = service.tokens(options.run, ids)
        verdict(statuses == [401, 401, 200], f"no token, a wrong one, the right one: {statuses}")
    if options.cases:
        found["fuzz"] = fuzzed(options, ids)
    print(machine.told(options.threads))
    return found


def fuzzed(options: argparse.Namespace, ids: dict[str, list[Any]]) -> dict[str, Any]:
    """Both series of schemathesis: what they were answered, by the first digit of the status."""
    from benchmarks.study import service

    found, ended = dict[str, Any](), dict[str, int]()
    for document, known in (("as published", None), ("narrowed to the run", ids)):
        with service.serving(options.run, options.threads) as server:
            code, counts, said = service.fuzzed(server, options.schemathesis, options.cases, known)
        if code:
            print(said)
        found[document], ended[document] = counts, code
    rows = [
        [name, *(f"{counts[kind]:,} ({counts[kind] / max(1, counts.total()):.0%})" for kind in STATUSES)]
        for name, counts in found.items()
    ]
    show(("document", *STATUSES), rows, 1)
    for name, code in ended.items():
        told = f"schemathesis, {name}, {options.cases:,} cases for each question: exit code {code}"
        verdict(code == 0 and not found[name]["5xx"], told)
    return found


if __name__ == "__main__":
    as_command(lambda: 0 if main() else 1)
