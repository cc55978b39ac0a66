"""What a fit, draws or an option would take is refused before it is taken, and memory that is short is one line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import inference
from analysis.exploring.options import BanditOptions
from analysis.exploring.world import draw_world
from analysis.over_users import user_weights
from inference.commands import parse
from inference.estimates import of_fit
from inference.options import FitOptions, Options
from pyro_cvae import limits
from pyro_cvae.data.simulated import simulated
from pyro_cvae.errors import InputError, MachineError, as_known

MEASURE = Path(__file__).with_name("measure_fit.py")
SMALL = {"factors": 2, "hidden": (3,), "pretrain_epochs": 1, "epochs": 1}


@pytest.mark.parametrize(
    ("method", "asked", "words"),
    [
        ("svi", {"factors": 10**9}, "fewer --factors"),
        ("coordinate", {"factors": 10**7, "mode": "map"}, "fewer --factors"),
        ("svi", {"hidden": (3, 10**9)}, "use "),
        ("svi", {"hidden": (10**9,)}, "narrower --hidden"),
        ("coordinate", {"factors": 10**9, "hidden": (10**9,)}, "use "),
    ],
)
def test_a_fit_larger_than_the_machine_is_not_begun(method, asked, words, tmp_path):
    """On commit 3a1bb09 torch's RuntimeError came out of the fit, or the system ended it."""
    before = torch.get_rng_state()
    with pytest.raises(MachineError) as caught:
        inference.fit(simulated(), method=method, out=tmp_path / "run", **SMALL | asked)
    text = str(caught.value)
    assert "would take" in text and "of memory are free" in text and words in text
    assert caught.value.exit_code == 1 and not list(tmp_path.iterdir())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "option",
    [
        {"threads": 10**9},
        {"epochs": 10**12},
        {"pretrain_epochs": 10**12},
        {"batch_size": 10**12},
        {"factors": 10**20},
        {"hidden": (10**18, 3)},
        {"train_per_user": 10**12},
        {"patience": 10**30},
    ],
)
def test_numbers_that_nobody_can_mean(option):
    with pytest.raises(InputError, match="but it must be at most"):
        Options.of("svi", **option)


def test_a_command_refuses_them_too():
    with pytest.raises(InputError, match="--threads is 1000000000, but it must be at most 1,024"):
        parse("x", "x", (FitOptions,), ["--threads", "1000000000"])


def test_seeds_are_no_sizes():
    assert Options.of("svi", seed=2**63 - 1).fit.seed == 2**63 - 1


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.empty(2**50),
        lambda: torch.empty(2**62, 2**62),
        lambda: np.empty(2**58),
        lambda: np.empty((2**40, 2**40)),
        lambda: torch.nn.Linear(2**33, 2**20),
        lambda: torch.ones(2**22, 1) @ torch.ones(1, 2**30),
        lambda: (_ for _ in ()).throw(RuntimeError("std::bad_alloc")),
        lambda: (_ for _ in ()).throw(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        lambda: (_ for _ in ()).throw(OverflowError("Python int too large to convert to C long")),
        lambda: (_ for _ in ()).throw(MemoryError()),
    ],
)
def test_memory_that_is_short_is_the_machines(error):
    """CPU torch raises RuntimeError, numpy its own; on commit 3a1bb09 the first was a traceback."""
    with pytest.raises(Exception) as caught:
        next(error()) if error.__code__.co_name == "generator" else error()
    if isinstance(caught.value, StopIteration):
        raise AssertionError
    known = as_known(caught.value)
    assert isinstance(known, MachineError) and str(known).startswith("out of memory") and "\n" not in str(known)


def test_other_errors_are_not():
    assert as_known(RuntimeError("shapes cannot be multiplied")) is None
    assert as_known(ValueError("no")) is None


def test_draws_and_resamples_are_counted_first():
    with pytest.raises(MachineError, match="resamples of so many users would take"):
        user_weights(10**6, 10**6, 0)
    with pytest.raises(MachineError, match="rounds of so many users and items would take"):
        draw_world(BanditOptions(users=10**6, first_items=10**6), 0.5, 0)
    fitted = inference.fit(simulated(), **SMALL)
    pairs = np.arange(100)
    with pytest.raises(MachineError, match="draws of the scores of so many pairs would take"):
        fitted.posterior.score_draws(pairs, pairs, 10**9, 0)
    with pytest.raises(MachineError, match="draws of so many rows would take"):
        fitted.posterior.sample(10**8, 0)


def test_the_container_counts(tmp_path, monkeypatch):
    """A container may see the machine's 64 GiB and have two."""
    (tmp_path / "memory.max").write_text(f"{2 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{3 * 2**29}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**29}\n")
    monkeypatch.setattr(limits, "_CGROUP", tmp_path)
    free, total = limits.available_memory()
    assert total == 2 * 2**30 and free <= 2**30
    with pytest.raises(MachineError, match=r"x would take 1.5 GiB, and 1 GiB of memory are free; use less"):
        limits.check_memory(1.5 * 2**30, "x", "use less")


def test_the_older_container_counts(tmp_path, monkeypatch):
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text("1073741824")
    (folder / "memory.usage_in_bytes").write_text("1073000000")
    (folder / "memory.stat").write_text("total_inactive_file 0\n")
    monkeypatch.setattr(limits, "_CGROUP", tmp_path)
    assert limits.available_memory() == (741824, 2**30)


def test_the_limit_of_the_process_counts():
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
    code += "from pyro_cvae.limits import available_memory; print(*available_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    free, total = map(float, done.stdout.split())
    assert total <= 2**31 and free < total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "sizes", "asked"),
    [
        ("svi", (3000, 3000, 500), {"factors": 1500, "hidden": [50]}),
        ("coordinate", (3000, 3000, 500), {"factors": 1500, "hidden": [50], "mode": "map"}),
        ("svi", (300, 2000, 30000), {"factors": 10, "hidden": [600]}),
        ("coordinate", (300, 2000, 30000), {"factors": 10, "hidden": [600], "tied": False, "mode": "map"}),
        ("svi", (300, 6000, 8000), {"factors": 10, "hidden": [20], "batch_size": 6000}),
        ("svi", (300, 2000, 100), {"factors": 10, "hidden": [3000, 3000]}),
    ],
)
def test_the_estimate_is_within_a_factor_of_three_of_the_peak(method, sizes, asked):
    asked = {"epochs": 1, "pretrain_epochs": 1, "train_per_user": 4} | asked
    command = [sys.executable, str(MEASURE), method, *map(str, sizes), json.dumps(asked)]
    measured = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    n_users, n_items, n_words = sizes
    options = Options.of(method, **asked | {"hidden": tuple(asked["hidden"])})
    estimate = sum(of_fit(n_users, n_items, [n_words], options).values())
    assert measured / 3 < estimate < 3 * measured
