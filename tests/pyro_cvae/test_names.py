"""A folder of somebody else may have the name of a package of ours, such as `models`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(folder, *arguments):
    """Python called in a folder, whose modules come before the installed ones."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(params=["package", "module"])
def hidden(request, tmp_path):
    """A folder with a `models` of its own, which does not know what ours has."""
    if request.param == "module":
        (tmp_path / "models.py").write_text("OWN = True\n")
    else:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "__init__.py").write_text("OWN = True\n")
        (tmp_path / "models" / "mine.py").write_text("class Mine: pass\n")
    return tmp_path


def test_commands_take_ours(hidden):
    small = ["--factors", "2", "--hidden", "3", "--pretrain-epochs", "1", "--epochs", "1", "--threads", "1"]
    small += ["--mode", "map", "--out", "run", "--quiet"]
    done = python(hidden, "-m", "inference.coordinate", *small)
    assert (done.returncode, done.stderr) == (0, "") and (hidden / "run" / "manifest.json").is_file()
    done = python(hidden, "-m", "inference.coordinate", "--model", "models.mine.Mine")
    assert done.returncode == 2
    assert (
        "models.mine, which cannot be found; models is a package of pyro-cvae: give yours another name" in done.stderr
    )


@pytest.mark.parametrize("first", ["", "import models; "])
def test_a_program_is_told_what_hides_ours(hidden, first):
    done = python(hidden, "-c", f"{first}import inference")
    told = done.stderr.splitlines()[-1]
    assert (
        told.startswith(f"ImportError: {hidden}") and "hides pyro-cvae's package models: give it another name" in told
    )


def test_a_folder_without_a_package_in_it_hides_nothing(tmp_path):
    (tmp_path / "models").mkdir()
    assert python(tmp_path, "-c", "import inference, models; models.FactorModel").returncode == 0
