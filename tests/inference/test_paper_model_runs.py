"""Run folders of CTR, CDL and DeepMusic: killed and resumed, and every command that takes one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.inference.test_resume import environment, newest_epoch, same_bytes, write_tables

MODELS = ("ctr", "cdl", "deepmusic")
ARGUMENTS = [
    *("--data", "pairs.csv", "--items", "items.csv", "--train-per-user", "5", "--factors", "3", "--hidden", "6"),
    *("--batch-size", "8", "--pretrain-epochs", "20", "--epochs", "20", "--sweeps", "20", "--threads", "1"),
    *("--quiet", "--checkpoint-seconds", "0"),
]


def call(folder, module, *argv):
    """A command in a process of its own; its standard output."""
    asked = [sys.executable, "-m", module, *argv]
    done = subprocess.run(asked, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("runs")
    write_tables(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("moment", [5, 25, 45])
@pytest.mark.parametrize("model", MODELS)
def test_killed_and_resumed_it_is_the_same_fit(folder, model, moment):
    argv = [*ARGUMENTS, "--model", model, "--mode", "map"]
    whole, out = f"{model}-whole-{moment}", f"{model}-{moment}"
    call(folder, "inference.coordinate", *argv, "--out", whole)
    process = subprocess.Popen(
        [sys.executable, "-m", "inference.coordinate", *argv, "--out", out],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    began, partial = time.monotonic(), folder / f"{out}.partial"
    while newest_epoch(partial) < moment and process.poll() is None and time.monotonic() - began < 120:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.returncode == -signal.SIGKILL and partial.exists():
        call(folder, "inference.coordinate", *argv, "--out", out, "--resume")
    assert same_bytes(folder / whole, folder / out, "posterior.safetensors", "metrics.json")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["map", "bayes"])
@pytest.mark.parametrize("model", MODELS)
def test_every_command_takes_its_run(folder, model, mode):
    out = f"{model}-{mode}"
    call(folder, "inference.coordinate", *ARGUMENTS, "--model", model, "--mode", mode, "--out", out)
    other = f"pmf-{mode}-{model}"
    call(folder, "inference.coordinate", *ARGUMENTS[:6], "--model", "pmf", "--mode", mode, "--out", other)
    assert "item-" in call(folder, "inference.recommend", out, "--user", "user-1", "--top", "3")
    assert "recall@20" in call(folder, "inference.evaluate", out)  # half of the items
    call(folder, "analysis.compare", out, other, "--out", f"{out}-compared")
    call(folder, "analysis.report", out, "--out", f"{out}.html")
    call(folder, "analysis.diagnostics", out, "--out", f"{out}-diagnosed")
    if mode == "bayes":
        assert "low" in call(folder, "inference.recommend", out, "--user", "user-1", "--top", "3", "--interval", "0.9")
        call(folder, "analysis.posterior", out, "--out", f"{out}.nc")
    page = (folder / f"{out}.html").read_text(encoding="utf-8")
    assert "nan" not in page.lower().split("<body")[1].replace("nano", "")
    assert os.listdir(folder / f"{out}-compared") and Path(folder / f"{out}-diagnosed").exists()
