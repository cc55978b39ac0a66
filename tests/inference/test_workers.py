"""One worker, two or three come to the same numbers, and a job that loses a worker goes on to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.kills import furthest
from inference.algorithms.workers import ALONE, Group, Workers
from pyro_cvae import blame
from pyro_cvae.errors import InputError, MachineError
from tests.inference.fits_by_workers import CASES, SILENT, main

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


class OneOf(Workers):
    """A worker of so many, for what it computes by itself."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("weights", [[], [0.0], [5.0, 0.0], [0.0] * 9, [1e6, 1, 1, 1, 1, 1, 1, 1], [1.0] * 100])
def test_rows_are_shared_out_whole_and_in_order(size: int, weights: list[float]) -> None:
    spans = OneOf(0, size).spans(torch.tensor(weights))
    assert spans[0].start == 0 and spans[-1].stop == len(weights) and len(spans) == size
    assert all(one.stop == other.start for one, other in pairwise(spans))
    lengths = [span.stop - span.start for span in spans]
    assert min(lengths) >= (1 if len(weights) >= size else 0)
    if weights == [1.0] * 100:
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_have_like_numbers_of_cells(size: int) -> None:
    weights = torch.rand(5000, generator=torch.Generator().manual_seed(0)).pow(4) * 100
    sums = torch.tensor([float((1 + weights[span]).sum()) for span in OneOf(0, size).spans(weights)])
    assert float(sums.max() / sums.min()) < 1.05


@pytest.mark.parametrize(("n", "size"), [(0, 3), (1, 3), (2, 3), (7, 3), (512, 5)])
def test_shares_of_a_minibatch_are_all_of_it(n: int, size: int) -> None:
    shares = [OneOf(rank, size).share(n) for rank in range(size)]
    assert [row for share in shares for row in range(n)[share]] == list(range(n))
    assert shares[0].stop >= min(n, 1)


def test_alone_nothing_is_sent() -> None:
    rows = torch.arange(6.0).view(3, 2)
    assert ALONE.total(rows) is rows and ALONE.add(rows) is rows and ALONE.rows(rows, [slice(0, 3)]) is rows
    assert ALONE.told({"a": 1}) == {"a": 1} and ALONE.by_first(lambda: 3) == 3
    assert ALONE.spans(torch.ones(3)) == [slice(0, 3)] and ALONE.share(3) == slice(0, 3)


def together(n_workers: int, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A module run by so many workers of one machine."""
    given = {"env": os.environ | {"OMP_NUM_THREADS": "1"} | more, "cwd": ROOT, "capture_output": True, "text": True}
    return subprocess.run([*TORCHRUN, "--nproc-per-node", str(n_workers), *command], **given, timeout=900)  # type: ignore[call-overload]


def compared(folder: Path, n_workers: int, cases: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """How far fits by so many workers are from those by one."""
    for name in ("alone", "together"):
        (folder / name).mkdir()
    monkeypatch.setattr(sys, "argv", ["fits", str(folder / "alone"), *cases])
    main()
    done = together(n_workers, "-m", "tests.inference.fits_by_workers", str(folder / "together"), *cases)
    assert done.returncode == 0, done.stderr
    names = {case: f"{list(CASES).index(case)}.safetensors" for case in cases}
    return {case: furthest(folder / "alone" / name, folder / "together" / name) for case, name in names.items()}


def test_two_workers_come_to_the_numbers_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = compared(tmp_path, 2, ["map", "full", "bound", "svi, mean-field"], monkeypatch)
    assert max(away.values()) < 1e-12, away


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("bad"), 2), (MachineError("small"), 1), (IndexError(7), 2)],
)  # the last is of what a plug-in does
def test_workers_end_with_the_exit_code_of_the_first(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blame, "_plugins", {"my_plug_ins"})
    monkeypatch.setattr(Group, "told", lambda self, value: said.append(value) or said[0])
    said: list[int | None] = []

    def work() -> None:
        raise error

    first, second = Group.__new__(Group), Group.__new__(Group)
    (first.rank, first.size), (second.rank, second.size) = (0, 2), (1, 2)
    with pytest.raises(type(error)):
        first.by_first(work)
    with pytest.raises(SystemExit) as ended:
        second.by_first(work)
    assert said[0] == ended.value.code == code


THREADS = """
import atexit, os, sys
from pathlib import Path

def threads():
    return sorted(Path(f"/proc/self/task/{t}/comm").read_text().strip() for t in os.listdir("/proc/self/task"))

def tell(how):
    own = [name for name in threads() if "gloo" in name]
    Path(sys.argv[1], f"{how}-{os.environ['RANK']}").write_text(" ".join(own))

atexit.register(tell, "at exit")  # behind what is registered from here on
import inference
from pyro_cvae.data.simulated import simulated
from tests.inference.fits_by_workers import SIZE, SMALL

inference.fit(simulated(**SIZE), **SMALL, method="svi", epochs=1)
tell("before")
if len(sys.argv) > 2:
    raise SystemExit(3)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux tells them")
@pytest.mark.parametrize("more", [[], ["fail"]])
def test_no_thread_of_the_group_is_left_when_python_exits(tmp_path: Path, more: list[str]) -> None:
    """One that gives a tensor back while Python ends itself would end the process by abort (134)."""
    (tmp_path / "fits.py").write_text(THREADS)
    (tmp_path / "found").mkdir()
    done = together(2, *[str(tmp_path / name) for name in ("fits.py", "found")], *more, PYTHONPATH=str(ROOT))
    assert (done.returncode != 0) == bool(more), done.stderr
    for rank in (0, 1):
        assert "gloo" in (tmp_path / "found" / f"before-{rank}").read_text()
        assert (tmp_path / "found" / f"at exit-{rank}").read_text() == "", "they were joined"
    assert "terminate called" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [2, 3])
def test_every_kind_of_fit_comes_to_the_numbers_of_one(
    n_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = compared(tmp_path, n_workers, list(CASES), monkeypatch)
    assert max(away.values()) < 1e-12, away


@pytest.mark.slow
def test_a_likelihood_that_sums_over_its_own_users_alone_is_refused_of_several() -> None:
    done = together(2, "-m", "tests.inference.fits_by_workers", "", SILENT)
    assert done.returncode == 1 and "Silent.after_sweep does not sum over workers; let its sums" in done.stderr


EXITS = """
from inference.algorithms import heartbeat
from inference.algorithms.workers import here
heartbeat.EVERY = 1e-6
here().wait()
"""


def test_a_worker_that_exits_while_it_asks_the_store_does_not_abort(tmp_path: Path) -> None:
    """Without waiting for the thread that asks, C++ ended each of five such jobs with exit code 134."""
    (tmp_path / "exits.py").write_text(EXITS)
    done = together(2, str(tmp_path / "exits.py"))
    assert done.returncode == 0, done.stderr


# --- the command, and workers that die --------------------------------------------------------------------------------

FIT = ["-m", "inference.coordinate", "--mode", "bayes", "--factors", "4", "--hidden", "8", "--pretrain-epochs", "2"]
FIT += ["--dtype", "float64", "--threads", "1", "--checkpoint-seconds", "0", "--sweeps", "8", "--epochs", "4"]


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run folder of one worker."""
    out = tmp_path_factory.mktemp("one") / "run"
    subprocess.run([sys.executable, *FIT, "--out", str(out), "--quiet"], cwd=ROOT, check=True, capture_output=True)
    yield out


def test_workers_write_one_run_folder_and_speak_once(by_one: Path, tmp_path: Path) -> None:
    done = together(2, *FIT, "--out", str(tmp_path / "run"), "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2  # a head and a row
    assert furthest(by_one / "posterior.safetensors", tmp_path / "run" / "posterior.safetensors") < 1e-12
    again = together(2, *FIT, "--out", str(tmp_path / "run"))
    assert again.returncode == 1 and again.stderr.count("error:") == 1 and "exists; give --overwrite" in again.stderr
    assert "inference/algorithms" not in again.stderr  # what is traced back is torchrun alone


def test_what_one_worker_alone_can_do_is_refused_of_several(tmp_path: Path) -> None:
    done = together(2, "-m", "inference.mcmc", "--data", "simulated-gaussian", "--out", str(tmp_path / "run"))
    assert done.returncode == 1 and "inference.mcmc has one worker alone; start it without torchrun" in done.stderr


def processes_below(pid: int) -> list[int]:
    """Workers that torchrun has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


def killed(out: Path, restarts: int, when: float = 0.0) -> tuple[int, float, str]:
    """Kill the second worker once there is a checkpoint: torchrun's exit code, the seconds that it took, and stderr."""
    command = [*TORCHRUN, "--nproc-per-node", "2", "--max-restarts", str(restarts), *FIT, "--out", str(out), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    partial, deadline = out.with_name(out.name + ".partial"), time.monotonic() + 300
    while not list(partial.glob("checkpoint/epoch-*")) and time.monotonic() < deadline and job.poll() is None:
        time.sleep(0.02)
    time.sleep(when)
    os.kill(processes_below(job.pid)[-1], signal.SIGKILL)
    began = time.monotonic()
    _, stderr = job.communicate(timeout=300)
    return job.returncode, time.monotonic() - began, stderr


def test_a_job_that_loses_a_worker_ends_and_goes_on_with_another_number(by_one: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, _, stderr = killed(out, restarts=0)
    assert code == 1 and not out.exists()
    assert "inference/algorithms" not in stderr and "error: another worker of the fit has ended" in stderr
    done = together(3, *FIT, "--out", str(out), "--resume")
    assert done.returncode == 0, done.stderr
    assert furthest(by_one / "posterior.safetensors", out / "posterior.safetensors") < 1e-12


@pytest.mark.slow
def test_a_job_is_started_again_and_ends_in_the_same_numbers(by_one: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, _, stderr = killed(out, restarts=1)
    assert code == 0, stderr
    assert furthest(by_one / "posterior.safetensors", out / "posterior.safetensors") < 1e-12
