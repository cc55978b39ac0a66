"""``python -m inference.doctor``: what this installation is made of, what is wrong with it, and the remedy.

Every line is ok, a warning (it works, but not as it should) or a problem (something will fail). Exit code 1 with a
problem, 0 without. Every check is a function of its own that yields findings; none of them changes anything.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Literal

from inference.commands import parse
from inference.kinds import Format
from inference.options.checking import check_words
from inference.printing import Sheet, show
from pyro_cvae.errors import run_command
from pyro_cvae.limits import available_memory

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
GIB = 2**30
COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}
INSTALL = "pip install -c constraints.txt -e ."
OPTIONAL = {
    "implicit": "the rival als; pip install -e '.[als]'",
    "numba": "closed forms by compiled kernels; pip install -e '.[fast]'",
    "polars": "polars tables as input; pip install polars",
    "graphviz": "drawing the model; pip install -e '.[draw]'",
    "sentence_transformers": "sentence vectors of texts; pip install -e '.[embed]'",
}
"""Packages that may be absent, what each is for and how to have it."""


@dataclass(frozen=True)
class DoctorOptions:
    """How the findings are told.

    Parameters:
        json: Print JSON instead of a table; the same as --format json.
        format: How the findings are printed.
    """

    json: bool = False
    format: Format = "table"

    def __post_init__(self) -> None:
        check_words(self)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    state: Literal["ok", "warning", "problem"]
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """All findings, in the order of the checks."""
    installed = installed_versions()
    return [
        *check_python(sys.version_info[:3]),
        *check_packages(installed, read_pins(CONSTRAINTS)),
        *check_combinations(installed, arviz_cache()),
        *check_torch(),
        *check_threads(available_cores(), os.environ),
        *check_memory(available_memory()),
        *check_folder("cache folder", cache_folder(), "set PYRO_CVAE_CACHE to a folder you own"),
        *check_folder("working folder", Path.cwd(), "call the command from a folder you own, or give --out one"),
        *check_optional(installed),
    ]


# --- what is there ---------------------------------------------------------------------------------------------------


def installed_versions() -> dict[str, str]:
    """Name (lower case, dashes) and version of every installed distribution."""
    return {_normal(found.name): found.version for found in metadata.distributions() if found.name}


def read_pins(path: Path) -> dict[str, str]:
    """The pins of a constraints file that hold for this Python, name to version; empty where there is no such file."""
    from packaging.requirements import Requirement

    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    held = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    return {_normal(pin.name): str(pin.specifier).removeprefix("==") for pin in held}


def available_cores() -> float:
    """CPU cores that this process may use: its affinity, or the quota of its container where that is less."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file() and (words := quota.read_text().split())[0] != "max":
        cores = min(cores, int(words[0]) / int(words[1]))
    return cores


def cache_folder() -> Path:
    """Where downloads are kept."""
    from pyro_cvae.data import registry

    return registry.cache_folder()


def arviz_cache() -> Path:
    """The folder that arviz 0.23 makes when it is imported without its three sub-packages."""
    from platformdirs import user_cache_path

    return user_cache_path("arviz", "arviz")


def why_unwritable(folder: Path) -> str | None:
    """Why no file can be made in ``folder`` or, where it does not exist yet, why it cannot be made; or ``None``."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{place} is no folder"
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return error.strerror or str(error)


# --- what is wrong with it -------------------------------------------------------------------------------------------


def check_python(version: tuple[int, ...]) -> Iterator[Finding]:
    """Python 3.11 to 3.14 is what the tests run with."""
    text = ".".join(map(str, version))
    if version[:2] < (3, 11):
        yield Finding("Python", "problem", text, "install one of Python 3.11 to 3.14")
    elif version[:2] > (3, 14):
        remedy = "make clean run PYTHON=python3.14"
        yield Finding("Python", "warning", f"{text}; the tests ran with 3.11 to 3.14", remedy)
    else:
        yield Finding("Python", "ok", f"{text}, {sys.executable}")


def check_packages(installed: Mapping[str, str], pins: Mapping[str, str]) -> Iterator[Finding]:
    """What the project requires is there and in range; what is installed at another version than its pin is named."""
    from packaging.requirements import Requirement

    if "pyro-cvae" not in installed:
        yield Finding("pyro-cvae", "problem", "not installed", INSTALL)
        return
    every = [Requirement(text) for text in metadata.requires("pyro-cvae") or []]
    required = [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]
    for requirement in required:
        name = _normal(requirement.name)
        if name not in installed:
            yield Finding(name, "problem", "not installed", INSTALL)
        elif not requirement.specifier.contains(installed[name], prereleases=True):
            yield Finding(name, "problem", f"{installed[name]}, but {requirement.specifier} is required", INSTALL)
    names = ["pyro-cvae", *(_normal(requirement.name) for requirement in required)]
    yield Finding("packages", "ok", ", ".join(f"{name} {installed[name]}" for name in names if name in installed))
    if not pins:
        yield Finding("pins", "warning", "no constraints.txt beside the packages", "work from a checkout")
        return
    other = [
        f"{name} {installed[name]} (pinned {version})"
        for name, version in pins.items()
        if name in installed and installed[name].partition("+")[0] != version.partition("+")[0]
    ]
    if other:
        yield Finding("pins", "warning", "not the tested version: " + ", ".join(other), INSTALL)
    else:
        yield Finding("pins", "ok", "every installed package is at its tested version")


def check_combinations(installed: Mapping[str, str], cache: Path) -> Iterator[Finding]:
    """Sets of packages that pip accepts and that fail all the same."""
    from packaging.version import Version

    plots, drawing = installed.get("arviz-plots"), installed.get("matplotlib")
    if plots and drawing and Version(plots) < Version("1") and Version(drawing) >= Version("3.11"):
        yield Finding(
            "arviz", "problem", f"arviz-plots {plots} cannot be imported beside matplotlib {drawing}",
            "pip install 'matplotlib>=3.10,<3.11'",
        )  # fmt: skip
        return
    missing = [name for name in ("arviz-base", "arviz-stats", "arviz-plots") if name not in installed]
    if "arviz" in installed and missing and Version(installed["arviz"]) < Version("1"):
        why = why_unwritable(cache)
        found = f"without {', '.join(missing)} it warns once a day"
        if why is not None:
            found = f"without {', '.join(missing)} it cannot be imported, since {cache} cannot be written ({why})"
        yield Finding("arviz", "problem" if why is not None else "warning", found, INSTALL)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name in ("arviz", "arviz_plots"):
                importlib.import_module(name)
    except Exception as error:
        yield Finding("arviz", "problem", f"cannot be imported: {type(error).__name__}: {error}", INSTALL)
    else:
        yield Finding("arviz", "ok", "can be imported, without a warning")


def check_torch() -> Iterator[Finding]:
    """The build of PyTorch, its BLAS and its devices."""
    try:
        import torch
    except Exception as error:  # a broken shared library raises OSError, a missing package ImportError
        yield Finding("torch build", "problem", f"cannot be imported: {error}", INSTALL)
        return
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    text = (
        f"{torch.__version__}, {kind}, BLAS {blas[1] if blas else 'unknown'}, {torch.backends.cpu.get_cpu_capability()}"
    )
    if torch.version.cuda and not torch.cuda.is_available():
        yield Finding("torch build", "warning", f"{text}, but no GPU can be used", "run with --device cpu")
    elif torch.version.cuda:
        yield Finding("torch build", "ok", f"{text}, {torch.cuda.get_device_name()}")
    else:
        yield Finding("torch build", "ok", text)


def check_threads(cores: float, environment: Mapping[str, str]) -> Iterator[Finding]:
    """The thread pools of torch and of the other BLAS libraries against the cores that may be used."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    chosen = {name: environment[name] for name in names if name in environment}
    pools = thread_pools()
    text = f"{cores:g} cores; " + ", ".join(f"{name} {threads}" for name, threads in pools.items())
    text += "; " + (", ".join(f"{name}={value}" for name, value in chosen.items()) or "no OMP_NUM_THREADS")
    most = max(pools.values(), default=1)
    if most > max(cores, 1):
        advice = f"export OMP_NUM_THREADS={max(int(cores), 1)}, or give --threads"
        yield Finding("threads", "warning", f"{text}: more threads than cores, which slows everything", advice)
    elif any(not value.isdigit() or int(value) < 1 for value in chosen.values()):
        yield Finding("threads", "warning", text, "give these variables whole numbers, or unset them")
    else:
        yield Finding("threads", "ok", text)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores:
        advice = "wait, or take fewer --threads: timings will not be comparable"
        yield Finding("load", "warning", f"{load:.1f} runnable processes on {cores:g} cores", advice)
    else:
        yield Finding("load", "ok", f"{load:.1f} runnable processes on {cores:g} cores")


def thread_pools() -> dict[str, int]:
    """Threads that torch, and each BLAS or OpenMP library that numpy and scipy have loaded, would use."""
    pools: dict[str, int] = {}
    try:
        import numpy  # noqa: F401  loads its BLAS
        import threadpoolctl
        import torch
    except ImportError:
        return pools
    pools["torch"] = torch.get_num_threads()
    for pool in threadpoolctl.threadpool_info():
        pools[f"{pool['internal_api']} {pool['version'] or ''}".strip()] = pool["num_threads"]
    return pools


def check_memory(memory: tuple[float, float]) -> Iterator[Finding]:
    """Free memory; citeulike-t at the paper's sizes is meant to fit in 2.5 GiB."""
    free, total = memory
    text = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    if free < 0.75 * GIB:
        yield Finding("memory", "problem", text, "close other programs; importing torch alone takes a third of a GiB")
    elif free < 2.5 * GIB:
        yield Finding("memory", "warning", f"{text}: small data only", "close other programs")
    else:
        yield Finding("memory", "ok", text)


def check_folder(name: str, folder: Path, remedy: str) -> Iterator[Finding]:
    """A folder that is written to: whether it can be, and the space that is left there."""
    why = why_unwritable(folder)
    if why is not None:
        yield Finding(name, "problem", f"{folder} cannot be written ({why})", remedy)
        return
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{folder}, {free / GIB:.1f} GiB free"
    if free < 0.1 * GIB:
        yield Finding(name, "problem", text, f"free some space, or {remedy}")
    elif free < GIB:
        yield Finding(name, "warning", text, f"free some space, or {remedy}")
    else:
        yield Finding(name, "ok", text)


def check_optional(
    installed: Mapping[str, str], load: Callable[[str], object] = importlib.import_module
) -> Iterator[Finding]:
    """Packages that only some commands need: whether they are there and can be imported."""
    for name, purpose in OPTIONAL.items():
        if name not in installed:
            yield Finding(name, "ok", "not installed (optional)", f"for {purpose}")
            continue
        try:
            load(name)
        except Exception as error:
            yield Finding(name, "warning", f"{installed[name]} cannot be imported: {error}", f"for {purpose}")
            continue
        if name == "graphviz" and shutil.which("dot") is None:
            text = f"{installed[name]}, but there is no program dot"
            yield Finding(name, "ok", text, "for pictures install Graphviz itself (Debian: apt-get install graphviz)")
        else:
            yield Finding(name, "ok", installed[name])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- the report ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Examine, print, and exit with 1 where there is a problem."""
    (options,) = parse(
        "python -m inference.doctor",
        "Says what this installation is made of, what is wrong with it, and the remedy.",
        (DoctorOptions,),
        examples=[
            ("python -m inference.doctor", "a table of what was found"),
            ("python -m inference.doctor --json > doctor.json", "the same for a program, or for a bug report"),
            ("PYRO_CVAE_CACHE=/data/cache python -m inference.doctor", "examine another cache folder"),
        ],
    )
    findings = examine()
    problems = sum(finding.state == "problem" for finding in findings)
    concerns = sum(finding.state == "warning" for finding in findings)
    if options.json or options.format == "json":
        import json

        print(
            json.dumps(
                {"problems": problems, "warnings": concerns, "findings": [asdict(f) for f in findings]}, indent=1
            )
        )
    elif options.format == "csv":
        import csv

        table = csv.DictWriter(sys.stdout, [field.name for field in fields(Finding)], lineterminator="\n")
        table.writeheader()
        table.writerows(map(asdict, findings))
    else:
        sheet = Sheet(["what", "state", "found", "remedy"], texts=["found", "remedy"], styles=COLOURS, whole=True)
        for finding in findings:
            sheet.add_row(finding.check, finding.state, finding.found, finding.remedy)
        show(sheet)
        show(f"{_count(problems, 'problem')}, {_count(concerns, 'warning')}")
    if problems:
        raise SystemExit(1)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}" + ("" if number == 1 else "s")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
