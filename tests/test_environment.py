"""The three lists of packages agree: pyproject.toml (ranges), constraints.txt (pins), environment.yml (conda)."""

import os
import re
import subprocess
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


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines if line and not line.startswith("#")]
    assert None not in found, "every line of constraints.txt is name==version"
    return {canonicalize_name(m[1]): Version(m[2]) for m in found if m}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for text in PROJECT["dependencies"] + [text for extra in extras for text in extra]]


def conda() -> tuple[list[str], list[str]]:
    """The entries of environment.yml for conda and those for pip."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (for_pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    return [entry for entry in entries if isinstance(entry, str)], for_pip


def test_torch_is_pinned_for_every_build() -> None:
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_dependency_has_a_lower_bound_and_a_pin_within_its_range(requirement: Requirement) -> None:
    if canonicalize_name(requirement.name) == "pyro-cvae":
        return
    assert ">=" in str(requirement.specifier)
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


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
    (matplotlib,) = [r for r in requirements() if r.name == "matplotlib"]
    assert not matplotlib.specifier.contains("3.11.0")
    assert {"arviz-base", "arviz-stats", "arviz-plots"} <= {r.name for r in requirements()}


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
