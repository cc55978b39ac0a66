"""Malformed files, options, run folders and storages through the commands: ``python -m benchmarks.fuzz 2000``.

Each case is a seed. It runs in a process of its own, forked after the imports, on a copy of good inputs with seeded
damage (:mod:`benchmarks.fuzz_cases`), and keeps the contract of every command or is printed with its seed:

- the exit code is 0, 1 or 2, and there is no traceback; with 1 or 2 the last line on stderr says ``error:``;
- it takes at most 20 seconds of CPU and 60 of waiting, and 1 GiB above what the imports take;
- nothing half-written is left, and a command that failed has left what was there as it was.

``--seed N`` begins elsewhere, ``--only N`` runs one case and prints what it said.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz_cases import KINDS, Case, case, prepare
from benchmarks.study.arguments import as_command, command

CPU_SECONDS, WALL_SECONDS, GIB = 20, 60, 2**30
_LEFT = (".partial", ".new", ".tmp")
_MAY_CHANGE = ("best.db", "best.yaml")  # trials are stored as they end, and half.partial is what --resume goes on with


@dataclass
class Outcome:
    """What became of a case: its exit code, what is wrong with that or nothing, stderr, and what it took."""

    code: int
    wrong: str
    said: str
    seconds: float
    peak: int


def main() -> int:
    """Run the cases and print a table by kind; 1 where one broke the contract."""
    parser = command("fuzz", __doc__)
    parser.add_argument("cases", nargs="?", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    seeds = range(asked.seed, asked.seed + asked.cases) if asked.only is None else [asked.only]
    outcomes = run_cases(list(seeds), asked.workers)
    if asked.only is not None:
        print(case(asked.only).argv, outcomes[asked.only].said, sep="\n")
    print(table(outcomes))
    return int(any(outcome.wrong for outcome in outcomes.values()))


def table(outcomes: dict[int, Outcome]) -> str:
    """Numbers of cases by kind and exit code, the slowest and the largest, and every case that broke the contract."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, float] = defaultdict(float)
    largest: dict[str, int] = defaultdict(int)
    kinds = list(KINDS)
    for seed, outcome in outcomes.items():
        kind = kinds[seed % len(kinds)]
        rows[kind]["wrong" if outcome.wrong else str(outcome.code)] += 1
        slowest[kind] = max(slowest[kind], outcome.seconds)
        largest[kind] = max(largest[kind], outcome.peak)
    lines = [f"{'kind':<18}{'exit 0':>8}{'1':>6}{'2':>6}{'wrong':>8}{'seconds':>10}{'MiB':>7}"]
    for kind, counts in rows.items():
        numbers = f"{counts['0']:>8}{counts['1']:>6}{counts['2']:>6}{counts['wrong']:>8}"
        lines.append(f"{kind:<18}{numbers}{slowest[kind]:>10.1f}{largest[kind] / 2**20:>7.0f}")
    bad = {seed: outcome for seed, outcome in outcomes.items() if outcome.wrong}
    lines.append(f"{len(outcomes)} cases, {len(bad)} broke the contract")
    for seed, outcome in bad.items():
        last = (outcome.said.strip().splitlines() or [""])[-1][:160]
        lines.append(f"  seed {seed} ({kinds[seed % len(kinds)]}): {outcome.wrong}: {last}")
    return "\n".join(lines)


def run_cases(seeds: list[int], workers: int = 1) -> dict[int, Outcome]:
    """Each seed's outcome; cases run in forked processes, ``workers`` at once."""
    warm()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        good = Path(scratch, "good")
        good.mkdir()
        in_child(lambda: prepare(good), Path(scratch, "prepare.log"))
        before = _digests(good)
        running: dict[int, tuple[int, Path, float]] = {}
        outcomes: dict[int, Outcome] = {}
        waiting = list(reversed(seeds))
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    seed = waiting.pop()
                    place = Path(scratch, str(seed))
                    running[_start(case(seed), good, place)] = seed, place, time.monotonic()
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid in running:
                    seed, place, began = running.pop(pid)
                    outcomes[seed] = _judge(seed, place, os.waitstatus_to_exitcode(status), usage, began, before)
                    shutil.rmtree(place, ignore_errors=True)
                    if outcomes[seed].wrong or len(outcomes) % 100 == 0:
                        print(len(outcomes), seed, outcomes[seed].wrong, file=sys.stderr, flush=True)
                else:
                    for pid, (_, _, began) in running.items():
                        if time.monotonic() - began > WALL_SECONDS:
                            os.kill(pid, signal.SIGKILL)
                    time.sleep(0.01)
        except KeyboardInterrupt:  # what was found until then is told
            for pid in running:
                os.kill(pid, signal.SIGKILL)
    return {seed: outcomes[seed] for seed in seeds if seed in outcomes}


def warm() -> None:
    """Import what the commands import, so that a forked process need not."""
    for name in [
        "pandas",
        "pyarrow.parquet",
        "PIL.Image",
        "yaml",
        "jsonargparse",
        "optuna",
        "sqlalchemy",
        "scipy.stats",
    ]:
        importlib.import_module(name)
    root = Path(__file__).parents[1]
    for room in ("inference", "analysis"):
        for path in sorted(root.joinpath(room).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if not {"notebooks", "adapters"} & set(parts) and path.stem != "__init__":  # adapters need other pins
                importlib.import_module(".".join(parts))


def _start(one: Case, good: Path, place: Path) -> int:
    shutil.copytree(good, place / "work", symlinks=True)
    pid = os.fork()
    if pid:
        return pid
    try:
        one.damage(place / "work")
        _write(place / "before", _digests(place / "work"))
        os.chdir(place / "work")
        _redirect(place / "said")
        Path("/proc/self/clear_refs").write_text("5")
        _write(place / "rss", {"VmRSS": str(_status("VmRSS"))})
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS + 5, CPU_SECONDS + 10))
        os._exit(_run(one.argv))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)


def _run(argv: tuple[str, ...]) -> int:
    """A command of the package in this process, as its own file runs it; the exit code."""
    from inference.fit_command import run_fit
    from inference.options import METHODS
    from pyro_cvae.errors import run_command

    sys.argv = [argv[0], *argv[1:]]
    method = argv[0].rpartition(".")[2]
    try:
        code = run_fit(method) if method in METHODS else run_command(importlib.import_module(argv[0]).main)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 3
    sys.stdout.flush()
    sys.stderr.flush()
    Path("../peak").write_text(str(_status("VmHWM")))
    return code


def _judge(
    seed: int, place: Path, code: int, usage: resource.struct_rusage, began: float, good: dict[str, str]
) -> Outcome:
    seconds, wall = usage.ru_utime + usage.ru_stime, time.monotonic() - began
    said = (place / "said").read_text(errors="replace") if (place / "said").exists() else ""
    read = _read(place / "rss")
    peak = int((place / "peak").read_text()) - int(read["VmRSS"]) if (place / "peak").exists() and read else 0
    before, after = _read(place / "before"), _digests(place / "work")
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    left = [name for name in after if name not in before and (Path(name).name.startswith(".new-") or _is_left(name))]
    touched = [
        name for name in before if after.get(name) != before[name] and not name.startswith((*_MAY_CHANGE, "half"))
    ]
    wrong = ""
    if "Traceback (most recent call last)" in said:
        wrong = "a traceback"
    elif wall > WALL_SECONDS or seconds > CPU_SECONDS:
        wrong = f"it took {seconds:.0f} s of CPU, {wall:.0f} s in all"
    elif code not in (0, 1, 2):
        wrong = f"exit code {code}"
    elif code and (len(errors) != 1 or not said.strip().splitlines()[-1].startswith("error: ")):
        wrong = f"{len(errors)} lines of error"
    elif peak > GIB:
        wrong = f"it took {peak / GIB:.1f} GiB"
    elif left:
        wrong = f"left {left[0]}"
    elif code and touched:
        wrong = f"exit code {code}, but {touched[0]} is another"
    return Outcome(code, wrong, said, seconds, peak)


def _is_left(name: str) -> bool:
    return any(part.endswith(_LEFT) for part in Path(name).parts if not part.startswith("half"))


def in_child(work: object, log: Path) -> None:
    """Do what may start threads in a process of its own, so that this one can go on forking."""
    pid = os.fork()
    if not pid:
        try:
            _redirect(log)
            work()  # type: ignore[operator]
            sys.stderr.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"the good inputs could not be made:\n{log.read_text()}")


def _redirect(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    os.dup2(os.open(path.with_name("printed"), os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _write(path: Path, values: dict[str, str]) -> None:
    path.write_text("".join(f"{value} {name}\n" for name, value in values.items()))


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pairs = (line.split(" ", 1) for line in path.read_text().splitlines())
    return {name: value for value, name in pairs}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    as_command(main)
