"""The three lists of packages agree: pyproject.toml (ranges), constraints.txt (pins), environment.yml (conda)."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "python-graphviz": "graphviz"}


THIS = ".".join(map(str, sys.version_info[:2]))
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def holds(requirement: Requirement, python: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"python_version": python, "extra": ""})


def pins(python: str = THIS) -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    found: dict[str, Version] = {}
    for pin in map(Requirement, lines):
        assert re.fullmatch(r"==[^,*]+", str(pin.specifier)), f"{pin} is no name==version"
        if holds(pin, python):
            name = canonicalize_name(pin.name)
            assert name not in found, f"{name} has two pins on Python {python}"
            found[name] = Version(str(pin.specifier).removeprefix("=="))
    return found


def requirements(python: str = THIS) -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    texts = PROJECT["dependencies"] + [text for extra in extras for text in extra]
    return [requirement for requirement in map(Requirement, texts) if holds(requirement, python)]


def conda() -> tuple[list[str], list[str]]:
    """The entries of environment.yml for conda and those for pip."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (for_pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    return [entry for entry in entries if isinstance(entry, str)], for_pip


def test_torch_is_pinned_for_every_build() -> None:
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_the_pythons_are_those_of_the_project_file() -> None:
    named = "Programming Language :: Python :: "
    assert [text.removeprefix(named) for text in PROJECT["classifiers"] if text.startswith(named)] == PYTHONS
    inside = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in inside] == PYTHONS


def test_the_pages_name_the_pinned_torch() -> None:
    line = re.compile(r"torch==(\S+) --index-url https://download\.pytorch\.org/whl/cpu")
    for page in ("README.md", "docs/start.md"):
        named = line.findall((ROOT / page).read_text())
        assert set(map(Version, named)) == {pins()["torch"]}, page


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_a_lower_bound_and_a_pin_within_its_range(python: str) -> None:
    pinned = pins(python)
    for requirement in requirements(python):
        if (name := canonicalize_name(requirement.name)) != "pyro-cvae":
            assert ">=" in str(requirement.specifier), requirement
            assert pinned[name] in requirement.specifier, requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_arviz_and_its_parts_are_of_one_time(python: str) -> None:
    """ArviZ 1 cannot be imported beside parts of another minor version; ArviZ 0.23 goes with parts 0.8."""
    pinned = pins(python)
    parts = {pinned[name].release[:2] for name in ("arviz-base", "arviz-stats", "arviz-plots")}
    whole = pinned["arviz"].release[:2]
    assert parts == ({(0, 8)} if python == "3.11" else {whole}) and (whole >= (1, 0)) == (python != "3.11")


def test_what_the_dependencies_need_is_pinned_too() -> None:
    """All that is installed on behalf of the project, but for the libraries that a CUDA build of torch brings."""
    pinned, seen, open_ = pins(), set(), [Requirement("pyro-cvae[dev]")]
    while open_:
        requirement = open_.pop()
        name = canonicalize_name(requirement.name)
        if (key := (name, *sorted(requirement.extras))) in seen or re.match("nvidia|cuda|triton", name):
            continue
        seen.add(key)
        assert name in pinned or name == "pyro-cvae", f"{name} has no pin"
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            extras = [{"extra": extra} for extra in requirement.extras or {""}]
            if needed.marker is None or any(needed.marker.evaluate(extra) for extra in extras):
                open_.append(needed)
    assert len(seen) > len(requirements())


def test_the_combination_that_cannot_be_imported_is_excluded() -> None:
    (matplotlib,) = [r for r in requirements("3.11") if r.name == "matplotlib"]
    assert not matplotlib.specifier.contains("3.11.0")
    for python in PYTHONS:
        assert {"arviz-base", "arviz-stats", "arviz-plots"} <= {r.name for r in requirements(python)}


def test_conda_builds_the_same() -> None:
    for_conda, for_pip = conda()
    names = {re.split(r"[=<>]", entry)[0]: entry for entry in for_conda}
    assert {"--constraint constraints.txt", "--editable ."} <= set(for_pip)
    assert "pip" in names
    python = Version(names["python"].removeprefix("python="))
    assert python in SpecifierSet(PROJECT["requires-python"])
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    # whatever conda itself is asked for must be at its pin
    for name, entry in names.items():
        if name not in ("python", "pip"):
            assert Version(entry.partition("=")[2]) == pins()[canonicalize_name(CONDA_NAMES.get(name, name))]
    # and pip has no requirement of its own beside the project's
    assert [entry for entry in for_pip if not entry.startswith("--")] == []


def test_the_same_files_are_installed_by_make() -> None:
    bare = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}

    def recipe(*arguments: str) -> str:
        command = ["make", "--no-print-directory", "--dry-run", "--always-make", "--directory", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=bare).stdout

    plain = recipe("run", "TORCH=", "CONSTRAINTS=constraints.txt")
    assert re.search(r"pip .*install .*-c constraints\.txt -e \.$", plain, re.M)
    assert "python -m inference.svi --mode bayes" in plain
    other = recipe("run", "TORCH=torch --index-url https://example.org/cpu", "CONSTRAINTS=constraints.txt")
    lines = other.splitlines()
    first = next(
        i for i, line in enumerate(lines) if "torch --index-url https://example.org/cpu" in line and "pip" in line
    )
    second = next(i for i, line in enumerate(lines) if line.endswith("-c constraints.txt -e ."))
    assert first < second
    assert "-c constraints.txt" not in recipe("test", "TORCH=", "CONSTRAINTS=")


def test_make_alone_lists_every_target() -> None:
    text = subprocess.run(["make", "--directory", str(ROOT)], capture_output=True, text=True, check=True).stdout
    for target in (
        "run",
        "test",
        "machines",
        "slow",
        "statistical",
        "realdata",
        "seeds",
        "lint",
        "format",
        "docs",
        "peers",
        "claims",
        "bench",
        "clean",
    ):
        assert re.search(rf"^  make {target} ", text, re.M)
