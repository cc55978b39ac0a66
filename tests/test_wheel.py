"""The wheel: it holds what it should, says that it is for local use, and works away from a checkout."""

import email
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pyro_cvae", "models", "inference", "analysis")
DATA = {".yaml", ".html", ".j2"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *offline, "-w", out, source], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with nothing but the wheel, which sees this environment's other packages."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True, capture_output=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    # A .pth file in a folder that a .pth file names is not read: an editable install of the checkout stays out.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_every_module_and_data_file_and_nothing_else(wheel: Path) -> None:
    inside = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    wanted = {
        file.relative_to(ROOT)
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.suffix in DATA | {".py"} and "notebooks" not in file.parts
    }
    assert {file for file in inside if not file.parts[0].endswith(".dist-info")} == wanted
    assert {file.suffix for file in wanted} == DATA | {".py"}


def test_its_metadata_say_that_it_is_for_local_use(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert "Private :: Do Not Upload" in metadata.get_all("Classifier", [])
    assert metadata["Requires-Python"] and metadata["License-Expression"] == "Apache-2.0"
    needed = metadata.get_all("Requires-Dist", [])
    assert any(text.startswith("arviz<1") and "python_version < " in text for text in needed)
    assert any(text.startswith("arviz>=1") and "python_version >= " in text for text in needed)


def test_commands_presets_and_pages_work_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [str(installed), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "import inference, analysis; print(inference.__file__, analysis.__file__)")
    assert str(ROOT) not in where and where.count(str(installed.parents[1])) == 2
    assert "--preset" in run("-m", "inference.coordinate", "--help")
    out = tmp_path / "run"
    printed = run(
        *("-m", "inference.coordinate", "--preset", "paper", "--factors", "2", "--hidden", "4", "--epochs", "1"),
        *("--pretrain-epochs", "1", "--sweeps", "1", "--data", "simulated", "--out", str(out)),
    )
    assert "recall@50" in printed and (out / "config.json").is_file()
    run("-m", "analysis.report", str(out), "--out", "report.html")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
