"""The doctor: each illness it knows is found, with a remedy, and a healthy machine is let go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference import doctor
from inference.doctor import Finding

GIB = 2**30
HEALTHY = {"arviz": "0.23.4", "arviz-base": "0.8.2", "arviz-stats": "0.8.0", "arviz-plots": "0.8.0"}


def only(findings: object) -> Finding:
    (finding,) = findings  # type: ignore[misc]
    assert finding.state == "ok" or finding.remedy
    return finding


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A path below a file: no folder can be made there, whoever asks."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "folder"


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10, 4), "problem"), ((3, 11, 0), "ok"), ((3, 14, 1), "ok"), ((3, 15, 0), "warning")]
)
def test_python(version: tuple[int, ...], state: str) -> None:
    assert only(doctor.check_python(version)).state == state


def test_packages() -> None:
    installed, pins = doctor.installed_versions(), doctor.read_pins(doctor.CONSTRAINTS)
    assert pins["torch"] == "2.13.0" and pins["pyro-ppl"] == "1.9.2"

    missing = {name: version for name, version in installed.items() if name != "scipy"}
    problem = only(f for f in doctor.check_packages(missing, pins) if f.state == "problem")
    assert (problem.check, problem.found) == ("scipy", "not installed")

    old = installed | {"scipy": "1.0.0"}
    findings = {f.check: f for f in doctor.check_packages(old, pins)}
    assert findings["scipy"].state == "problem" and findings["scipy"].found.startswith("1.0.0, but >=")
    assert findings["pins"].state == "warning" and "scipy 1.0.0 (pinned 1." in findings["pins"].found
    assert "scipy 1.0.0" in findings["packages"].found

    same = {name: pins.get(name, version) for name, version in installed.items()}
    same["torch"] += "+cu130"
    assert {f.state for f in doctor.check_packages(same, pins)} == {"ok"}
    assert [f.state for f in doctor.check_packages(same, {})] == ["ok", "warning"]
    assert only(doctor.check_packages({}, pins)).state == "problem"


def test_pins_of_a_missing_file(tmp_path: Path) -> None:
    assert doctor.read_pins(tmp_path / "constraints.txt") == {}


def test_matplotlib_beside_arviz_plots(tmp_path: Path) -> None:
    finding = only(doctor.check_combinations(HEALTHY | {"matplotlib": "3.11.0"}, tmp_path))
    assert finding.state == "problem"
    assert finding.remedy == "pip install 'matplotlib>=3.10,<3.11'"
    assert only(doctor.check_combinations(HEALTHY | {"matplotlib": "3.10.9"}, tmp_path)).state == "ok"


def test_arviz_without_its_packages(tmp_path: Path, sealed: Path) -> None:
    alone = {"arviz": "0.23.4", "matplotlib": "3.10.9"}
    assert only(doctor.check_combinations(alone, tmp_path / "cache")).state == "warning"
    finding = only(doctor.check_combinations(alone, sealed))
    assert finding.state == "problem" and str(sealed) in finding.found


def test_arviz_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz_plots", None)
    finding = only(doctor.check_combinations(HEALTHY | {"matplotlib": "3.10.9"}, tmp_path))
    assert finding.state == "problem" and "ModuleNotFoundError" in finding.found


def test_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert only(doctor.check_torch()).found.startswith(f"{torch.__version__}, ")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = only(doctor.check_torch())
    assert finding.state == "warning" and "CUDA 13.0" in finding.found
    monkeypatch.setitem(sys.modules, "torch", None)
    assert only(doctor.check_torch()).state == "problem"


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    monkeypatch.setattr(doctor, "thread_pools", lambda: {"torch": 2, "openblas": 8})
    threads, load = doctor.check_threads(4, {})
    assert threads.state == "warning" and "OMP_NUM_THREADS=4" in threads.remedy and load.state == "ok"
    threads, _ = doctor.check_threads(8, {"OMP_NUM_THREADS": "8"})
    assert threads.state == "ok" and "OMP_NUM_THREADS=8" in threads.found
    threads, _ = doctor.check_threads(8, {"OMP_NUM_THREADS": "many"})
    assert threads.state == "warning"
    monkeypatch.setattr(os, "getloadavg", lambda: (9.5, 0.5, 0.5))
    assert next(f for f in doctor.check_threads(8, {}) if f.check == "load").state == "warning"


def test_thread_pools_are_seen() -> None:
    import torch

    assert doctor.thread_pools()["torch"] == torch.get_num_threads()
    assert doctor.available_cores() > 0


@pytest.mark.parametrize(("free", "state"), [(0.5, "problem"), (2.0, "warning"), (8.0, "ok")])
def test_memory(free: float, state: str) -> None:
    finding = only(doctor.check_memory((free * GIB, 16 * GIB)))
    assert finding.state == state and f"{free} GiB free of 16.0" in finding.found


def test_memory_of_this_machine() -> None:
    free, total = doctor.available_memory()
    assert 0 < free < total


def test_folders(tmp_path: Path, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tmp_path / "a" / "b"
    assert only(doctor.check_folder("cache", new, "move")).state == "ok"
    assert not new.exists() and not (tmp_path / "a").exists()
    finding = only(doctor.check_folder("cache", sealed, "move"))
    assert (finding.state, finding.remedy) == ("problem", "move")
    for free, state in [(0.05, "problem"), (0.5, "warning"), (2, "ok")]:
        usage = (4 * GIB, 0, int(free * GIB))
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, u=usage: type("Usage", (), {"free": u[2]}))
        assert only(doctor.check_folder("cache", new, "move")).state == state


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert doctor.why_unwritable(tmp_path) == "Permission denied"


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_CVAE_CACHE", str(tmp_path))
    assert doctor.cache_folder() == tmp_path


def test_optional_packages() -> None:
    def broken(name: str) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    absent = list(doctor.check_optional({}))
    assert [f.check for f in absent] == list(doctor.OPTIONAL)
    assert {f.state for f in absent} == {"ok"} and all("for " in f.remedy for f in absent)
    found = next(iter(doctor.check_optional({"implicit": "0.7.3"}, broken)))
    assert found.state == "warning" and "libgomp" in found.found


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inference.doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_the_command_ends_in_1_with_a_problem(sealed: Path) -> None:
    done = run("--json", PYRO_CVAE_CACHE=str(sealed))
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    problems = [finding for finding in report["findings"] if finding["state"] == "problem"]
    assert report["problems"] == len(problems)
    assert {"cache folder"} <= {finding["check"] for finding in problems}


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    findings = [Finding("memory", "ok", "1 [GiB]"), Finding("disk", "warning", "little", "buy")]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    monkeypatch.setattr(sys, "argv", ["doctor"])
    doctor.main()
    text = capsys.readouterr().out
    assert "1 [GiB]" in text and "buy" in text and text.endswith("no problems, 1 warning\n")
    findings.append(Finding("torch", "problem", "none", "install it"))
    with pytest.raises(SystemExit) as exit_:
        doctor.main()
    assert exit_.value.code == 1
    assert capsys.readouterr().out.endswith("1 problem, 1 warning\n")
