"""Three workers on machines of their own, as far as the network knows: namespaces of it, joined by a bridge."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.algorithms.heartbeat import SILENCE
from tests.inference.test_workers import FIT, ROOT, furthest, processes_below

pytestmark = pytest.mark.slow
MACHINES, PORT = 3, 29517
TURN = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Which process of pytest-xdist this is: each has namespaces and a bridge of its own."""
BRIDGE = f"pcvbr{TURN}"


def space(machine: int) -> str:
    return f"pcv{TURN}x{machine}"


def cable(machine: int) -> str:
    return f"pcvl{TURN}x{machine}"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def address(machine: int) -> str:
    return f"10.213.{77 + TURN}.{machine + 1}"


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; one that nobody has asked about has."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture(scope="module")
def machines() -> Iterator[None]:
    """Three namespaces, each with a cable to a bridge."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("namespaces of the network need root and the command ip")
    steps = [("ip", "link", "add", BRIDGE, "type", "bridge"), ("ip", "link", "set", BRIDGE, "up")]
    for n in range(MACHINES):
        inside = ("ip", "-n", space(n))
        steps += [
            ("ip", "netns", "add", space(n)),
            ("ip", "link", "add", cable(n), "type", "veth", "peer", "name", "eth0", "netns", space(n)),
            ("ip", "link", "set", cable(n), "master", BRIDGE, "up"),
            (*inside, "addr", "add", f"{address(n)}/24", "dev", "eth0"),
            (*inside, "link", "set", "eth0", "up"),
            (*inside, "link", "set", "lo", "up"),
        ]
    try:
        for step in steps:
            done = run(*step)
            if done.returncode:
                pytest.skip(f"{' '.join(step)}: {done.stderr.strip()}")
        yield
    finally:
        for n in range(MACHINES):
            run("ip", "netns", "del", space(n))
        run("ip", "link", "del", BRIDGE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The posterior of one worker."""
    out = tmp_path_factory.mktemp("alone") / "run"
    subprocess.run([sys.executable, *FIT, "--out", str(out), "--quiet"], cwd=ROOT, check=True, capture_output=True)
    return out / "posterior.safetensors"


def started(out: Path, nodes: str, name: str, port: int) -> list[subprocess.Popen[str]]:
    """The three machines' torchruns, their output in files beside the run folder."""
    jobs = []
    for n in range(MACHINES):
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{address(0)}:{port}", "--rdzv-id", name]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes, "--nproc-per-node", "1", *meet]
        torchrun += ["--local-addr", address(n), "--max-restarts", "3", "--rdzv-conf", f"is_host={int(n == 0)}"]
        command = ["ip", "netns", "exec", space(n), *torchrun, *FIT, "--out", str(out), "--quiet"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
        with open(out.with_name(f"log{n}"), "w") as log:
            jobs.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, text=True))
    return jobs


def test_three_machines_come_to_the_numbers_of_one(machines: None, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    codes = [job.wait(timeout=400) for job in started(out, "3", "three", PORT)]
    assert codes == [0, 0, 0], (tmp_path / "log0").read_text()[-3000:]
    assert furthest(alone, out / "posterior.safetensors") < 1e-12


def test_a_machine_that_is_cut_off_is_given_up(machines: None, alone: Path, tmp_path: Path) -> None:
    """The others say so within 30 seconds, begin again without it, and come to the same numbers."""
    out = tmp_path / "run"
    jobs = started(out, "2:3", "cut", PORT + 1)
    partial, deadline = out.with_name("run.partial"), time.monotonic() + 300
    while not list(partial.glob("checkpoint/epoch-*")) and time.monotonic() < deadline:
        assert jobs[0].poll() is None, (tmp_path / "log0").read_text()[-3000:]
        time.sleep(0.02)
    (lost,) = processes_below(jobs[2].pid)
    run("ip", "link", "set", cable(2), "down")
    began, line = time.monotonic(), f"has not answered for {SILENCE:.0f} seconds"
    while line not in (tmp_path / "log0").read_text() and time.monotonic() - began < 60:
        time.sleep(0.2)
    assert time.monotonic() - began < 30 and (tmp_path / "log0").read_text().count(line) == 1
    try:
        codes = [job.wait(timeout=400) for job in jobs[:2]]
        while is_alive(lost) and time.monotonic() - began < 120:
            time.sleep(0.2)
        assert not is_alive(lost)  # it ends by itself, even where its torchrun waits for the network
    finally:
        jobs[2].kill()
        jobs[2].wait(timeout=120)
        run("ip", "link", "set", cable(2), "up")
    assert codes == [0, 0], (tmp_path / "log0").read_text()[-3000:]
    assert furthest(alone, out / "posterior.safetensors") < 1e-12
