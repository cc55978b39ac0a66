"""Commands that are given run folders or data: what is not there is refused before anything heavy is imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from inference.options import METHODS

ROOT = Path(__file__).parents[1]
DOORS = (
    *("inference.evaluate", "inference.export", "inference.recommend", "inference.serve"),
    *("analysis.calibration", "analysis.compare", "analysis.diagnostics", "analysis.posterior", "analysis.report"),
)
HEAVY = ("torch", "pyro", "pandas", "scipy", "sklearn", "pyarrow", "matplotlib")
RUN = f"""
import runpy, sys
name = sys.argv.pop(1)
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
finally:
    print(*set({HEAVY}) & set(sys.modules))
"""


def refusal(door: str, folder: Path, *runs: str) -> str:
    """What a command says on stderr about these runs; it must be one line, with code 2, and nothing heavy imported."""
    command, environment = [sys.executable, "-c", RUN, door, *runs], os.environ | {"PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert (done.returncode, done.stdout) == (2, "\n"), done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr
    return done.stderr


def test_all_commands_that_take_a_run_are_looked_at() -> None:
    files = [path for room in ("inference", "analysis") for path in (ROOT / room).glob("*.py")]
    takes = {path for path in files if re.search(r'positionals=\("runs?",\)', path.read_text(encoding="utf-8"))}
    assert {f"{path.parent.name}.{path.stem}" for path in takes} == set(DOORS)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("nowhere", "nowhere: there is no such run folder; check the path"),
        ("empty", "empty: is no run folder (no manifest.json); give the folder that a fit command left, all of it"),
        ("file", "file: is a file, no run folder; give the folder that a fit command left"),
        ("begun", "begun.partial: this run is not finished; go on with --resume --out "),
    ],
)
def test_what_is_no_run_is_refused_before_anything_heavy_is_imported(
    door: str, run: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun.partial").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    assert said in refusal(door, tmp_path, run)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("door", ["inference.evaluate", "analysis.compare", "analysis.report", "analysis.calibration"])
def test_of_several_runs_each_is_looked_at(door: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "manifest.json").touch()
    assert "nowhere: there is no such run folder" in refusal(door, tmp_path, "there", "nowhere")


TUNE = ("inference.tune", "svi", "--search", "factors=2,3", "--validation", "0.2")


@pytest.mark.parametrize(
    ("door", "words"), [*((f"inference.{method}", ()) for method in METHODS), (TUNE[0], TUNE[1:])], ids=str
)
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--data", "nowhere"), "nowhere: no such data set; use one of simulated, "),
        (("--data", "nowhere.csv"), "nowhere.csv: no such file; check the path"),
        (("--data", "there.csv", "--items", "nowhere.csv"), "nowhere.csv: no such file; check the path"),
    ],
)
def test_data_that_are_not_there_are_refused_before_anything_heavy_is_imported(
    door: str, words: tuple[str, ...], flags: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").write_text("user,item\n")
    assert said in refusal(door, tmp_path, *words, *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]
