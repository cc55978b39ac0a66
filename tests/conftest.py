"""What every test may rely on: fixed seeds, one thread a worker, nothing left behind, and one failure rate."""

import logging
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Several workers on few cores: one thread each, set before numpy or torch is imported, and inherited by subprocesses.
# `make machines` asks for another number.
if "PYTEST_XDIST_WORKER" in os.environ or "TEST_THREADS" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = os.environ.get("TEST_THREADS", "1")

# Hypothesis draws the same examples every time and does not look at the clock, which tells of the machine's load only.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")

STATISTICAL_FAILURE_RATE = 1e-4
"""Probability, over seeds, that a test marked `statistical` fails although the code is right.

One rate for the whole project: a test that compares an estimate with its expectation takes the two-sided normal bound
at this rate (3.9 standard errors), and a test with k comparisons divides the rate by k. Seeds are fixed, so that a
passing test goes on passing; who changes a seed because a test failed has to say why.
"""


FITS = re.compile(r"\b(fit|fit_with|run_fit|fit_and_report|refit|SVI|Coordinate|MCMC)\(")
"""What a file of tests calls if it fits anything."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--fitting``: what `.ci/run` repeats as other machines would compute it."""
    parser.addoption("--fitting", action="store_true", help="only the files of tests that fit anything")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves files of tests out that call no fit, if ``--fitting`` is given."""
    if not config.getoption("--fitting") or not collection_path.name.startswith("test_"):
        return None
    return True if not FITS.search(collection_path.read_text(encoding="utf-8")) else None


@pytest.fixture
def failure_rate() -> float:
    """The project's one rate of false alarms, see STATISTICAL_FAILURE_RATE."""
    return STATISTICAL_FAILURE_RATE


@pytest.fixture
def data_folder() -> Path:
    """The folder that holds citeulike-a and citeulike-t, from PYRO_CVAE_DATA; the test is skipped without it."""
    value = os.environ.get("PYRO_CVAE_DATA")
    if not value:
        pytest.skip("PYRO_CVAE_DATA names no folder with the CiteULike data")
    folder = Path(value).resolve()
    assert folder.is_dir(), f"PYRO_CVAE_DATA is {value}, which is no folder"
    return folder


@pytest.fixture(autouse=True, scope="module")
def plugins_are_of_one_file() -> Iterator[None]:
    """What a test's file has imported by path is to blame in that file alone, whatever order the tests run in."""
    yield
    if "pyro_cvae.blame" in sys.modules:
        sys.modules["pyro_cvae.blame"]._plugins.clear()


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Seed what draws numbers, let our logger speak; afterwards Pyro's global store is empty, torch is as it was."""
    import numpy as np

    logging.getLogger("pyro_cvae").setLevel(logging.NOTSET)  # a command with --quiet in this process leaves it higher

    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        before = torch.get_default_dtype(), torch.get_num_threads()
    yield
    if torch is not None:
        after = torch.get_default_dtype(), torch.get_num_threads()
        torch.set_default_dtype(before[0])
        torch.set_num_threads(before[1])
        assert after == before, f"the test left (default dtype, threads) = {after}, found {before}"
    pyro = sys.modules.get("pyro")
    if pyro is not None:
        left = sorted(pyro.get_param_store())
        pyro.clear_param_store()
        assert not left, f"the test left parameters in Pyro's global store: {left}"


@pytest.fixture(autouse=True)
def a_busy_machine_says_no_more(nothing_leaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of progress that come after some seconds would be in what a command says on a slow machine alone."""
    monkeypatch.setattr("inference.progress.SECONDS", float("inf"))


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command's ``main`` in this process, with arguments; gives exit code, stdout and stderr."""
    from pyro_cvae.errors import run_command

    def run_it(main: Callable[[], None], *argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, argv)])
        code = run_command(main)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_it


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """A context in which a fit is killed when it has written the checkpoint of a step."""
    from pyro_cvae.runs import RunWriter

    write = RunWriter.checkpoint

    @contextmanager
    def after(step: int) -> Iterator[None]:
        def write_and_die(writer: RunWriter, tensors: Any, meta: Any) -> None:
            write(writer, tensors, meta)
            if meta["epoch"] == step:
                writer.close()
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(RunWriter, "checkpoint", write_and_die)
            yield

    return after


@pytest.fixture
def threads() -> Iterator[None]:
    """For tests that set torch's number of threads on purpose: puts it back before `nothing_leaks` looks."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
