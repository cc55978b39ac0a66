"""Which Python `make` takes for .venv: real interpreters, or stand-ins that claim a version, on a PATH of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("make", "sh", "mkdir", "cmp", "touch", "printf", "cat", "rm", "grep", "env", "dirname", "chmod")
STAND_IN = """#!/bin/sh
case "$1" in
-c) exec "{real}" -c 'import sys; sys.version_info = tuple(map(int, "{version}".split("."))); exec(sys.argv[1])' "$2" ;;
-V) echo "Python {version}" ;;
-m) mkdir -p "$3/bin"; touch "$3/bin/pip"; chmod +x "$3/bin/pip"
    printf '#!/bin/sh\\necho "Python {version}"\\n' > "$3/bin/python"; chmod +x "$3/bin/python" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile, and beside it ``bin``, the only folder on the PATH; their paths have a space."""
    folder, tools = tmp_path / "the checkout", tmp_path / "bin"
    folder.mkdir()
    tools.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in TOOLS:
        where = shutil.which(name)
        assert where is not None, f"{name} is needed here"
        (tools / name).symlink_to(where)
    return folder


def stand_in(checkout: Path, name: str, version: str) -> Path:
    path = checkout.parent / "bin" / name
    path.write_text(STAND_IN.format(real=sys.executable, version=version))
    path.chmod(0o755)
    return path


def broken_shim(checkout: Path, name: str) -> None:
    path = checkout.parent / "bin" / name
    path.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    path.chmod(0o755)


def make(checkout: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard error, and what Python .venv then has."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "PYTHON"}
    environment["PATH"] = str(checkout.parent / "bin")
    command = [str(checkout.parent / "bin" / "make"), ".venv/choices", *arguments]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    python = checkout / ".venv/bin/python"
    taken = subprocess.run([python, "-V"], capture_output=True, text=True).stdout if python.exists() else ""
    return done.returncode, done.stderr, taken.strip()


@pytest.mark.parametrize("version", ["3.11.7", "3.12.1", "3.13.0", "3.14.2"])
def test_any_supported_python_is_enough(checkout: Path, version: str) -> None:
    stand_in(checkout, "python" + version.rpartition(".")[0], version)
    assert make(checkout) == (0, "", f"Python {version}")


def test_a_plain_python3_is_enough(checkout: Path) -> None:
    stand_in(checkout, "python3", "3.12.4")
    assert make(checkout)[::2] == (0, "Python 3.12.4")


def test_the_newest_that_works_is_taken(checkout: Path) -> None:
    broken_shim(checkout, "python3.14")
    broken_shim(checkout, "python3.13")
    for version in ("3.11.7", "3.12.1", "3.15.0"):
        stand_in(checkout, "python" + version.rpartition(".")[0], version)
    assert make(checkout)[::2] == (0, "Python 3.12.1")


def test_the_python_that_is_named_wins_and_a_made_environment_is_not_taken_for_it(checkout: Path) -> None:
    named = stand_in(checkout, "an old one", "3.11.7")
    stand_in(checkout, "python3.13", "3.13.0")
    assert make(checkout, f"PYTHON={named}")[::2] == (0, "Python 3.11.7")
    assert make(checkout)[::2] == (0, "Python 3.11.7"), "an environment that is there is kept"
    code, error, _ = make(checkout, "PYTHON=python3.13")
    assert code == 2 and "make clean" in error


@pytest.mark.parametrize("version", ["3.10.13", "3.15.0", "2.7.18"])
def test_a_python_out_of_range_is_refused_in_one_line(checkout: Path, version: str) -> None:
    stand_in(checkout, "python3", version)
    code, error, taken = make(checkout)
    line = error.splitlines()[0]
    assert (code, taken) == (2, "") and line.startswith("error: ") and "3.11 to 3.14" in line
    assert make(checkout, f"PYTHON={checkout.parent / 'bin' / 'python3'}")[0] == 2


def test_no_python_at_all_is_said(checkout: Path) -> None:
    code, error, _ = make(checkout)
    assert code == 2 and "3.11 to 3.14" in error.splitlines()[0]


def test_this_python_makes_an_environment(checkout: Path) -> None:
    """The real thing, but for what pip would install."""
    code, error, taken = make(checkout, f"PYTHON={sys.executable}")
    assert (code, taken) == (0, "Python " + sys.version.split()[0]), error
