"""The shape of the house: imports go one way, nothing heavy loads early, nothing is unpickled, everything is told."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from inference.options import METHODS, Options
from inference.tuning.options import TuneOptions

ROOT = Path(__file__).parents[1]
ROOMS = ("pyro_cvae", "models", "inference", "analysis")  # a room imports from itself and from those before it
OUTSIDE = ("tests", "benchmarks")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
OPTION_NAMES = {
    method: {field.name.replace("_", "-") for part in Options.classes(method) for field in fields(part)}
    for method in METHODS
}
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute module name of every import, those inside functions included."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            yield node.lineno, ".".join([*start, *filter(None, [node.module])])


def wrong_arrows(path: Path) -> list[str]:
    allowed = ROOMS[: ROOMS.index(path.relative_to(ROOT).parts[0]) + 1]
    return [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for line, module in imports(parsed(path), path)
        if module.split(".")[0] in ROOMS + OUTSIDE and module.split(".")[0] not in allowed
    ]


def test_the_rooms_are_there() -> None:
    assert [room for room in ROOMS if not (ROOT / room / "__init__.py").is_file()] == []


def test_imports_go_one_way() -> None:
    assert [arrow for path in FILES for arrow in wrong_arrows(path)] == []


def test_a_wrong_arrow_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "models" / "sub" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import pyro_cvae.runs, inference.svi\ndef f():\n    from analysis import plots\nfrom ... import tests\n"
    )
    assert wrong_arrows(path) == [
        "models/sub/a.py:1 imports inference.svi",
        "models/sub/a.py:3 imports analysis",
    ]


def test_only_one_package_knows_jsonargparse() -> None:
    knowing = [
        str(path.parent.relative_to(ROOT))
        for path in FILES
        for _, name in imports(parsed(path), path)
        if name == "jsonargparse"
    ]
    assert set(knowing) == {"inference/commands"}


DOORS = {"svi": "SVI", "coordinate": "Coordinate", "mcmc": "MCMC"}
EARLY = ("pyro_cvae", "inference", "inference.options", "inference.commands", *(f"inference.{door}" for door in DOORS))


@pytest.mark.parametrize("module", EARLY)
def test_nothing_heavy_is_imported_early(module: str) -> None:
    code = f"import sys, {module}; print(*{{'torch', 'pyro', 'pandas', 'scipy', 'sklearn'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("door", DOORS)
def test_a_door_gives_its_algorithm(door: str) -> None:
    module = importlib.import_module(f"inference.{door}")
    algorithm = importlib.import_module(f"inference.algorithms.{door}")
    assert getattr(module, DOORS[door]) is getattr(algorithm, DOORS[door])
    with pytest.raises(AttributeError, match="has no attribute 'State'"):
        module.State  # noqa: B018


# --- nothing that a file holds is ever run ---------------------------------------------------------------------------

BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BANNED_CALLS = {"torch.load", "torch.save", "eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
BANNED_METHODS = {"read_pickle", "to_pickle"}


def dangers(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [
        f"line {line}: {name}" for line, name in imports(tree, ROOT / "x.py") if name.split(".")[0] in BANNED_MODULES
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rsplit(".", 1)[-1]
        safe = any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords)
        numpy_load = name in ("np.load", "numpy.load")
        if name in BANNED_CALLS or last in BANNED_METHODS or (numpy_load and not safe):
            found.append(f"line {node.lineno}: {name}")
        found += [f"line {node.lineno}: allow_pickle" for k in node.keywords if k.arg == "allow_pickle" and not safe]
    return found


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_is_unpickled(path: Path) -> None:
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load('a')",
        "np.load('a')",
        "np.load('a', allow_pickle=True)",
        "np.savez('a', x, allow_pickle=flag)",
        "pd.read_pickle('a')",
        "yaml.load(text)",
        "eval('1')",
    ],
)
def test_a_danger_would_be_seen(source: str) -> None:
    assert len(dangers(source)) >= 1
    assert dangers("np.load('a', allow_pickle=False); yaml.safe_load(text)") == []


# --- what is in the repository ---------------------------------------------------------------------------------------


def repository_files() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_no_file_names_a_place_of_one_machine() -> None:
    places = [b"/wo" + b"rk/", b"../sha" + b"red"]
    found = [
        f"{path.relative_to(ROOT)}: {place.decode()}"
        for path in repository_files()
        if path.relative_to(ROOT) != Path(".ci/run")
        for place in places
        if place in path.read_bytes()
    ]
    assert found == []


def test_no_file_is_large() -> None:
    assert [str(path.relative_to(ROOT)) for path in repository_files() if path.stat().st_size > 1_000_000] == []


def test_no_work_is_put_off() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "X" * 3)
    python = [path for path in repository_files() if path.suffix == ".py"]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in python
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if any(word in line for word in words)
    ]
    assert found == []


def test_links_between_pages_lead_somewhere() -> None:
    pages = [path for path in repository_files() if path.suffix == ".md"]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert len(pages) >= 3 and broken == []


def test_readme_names_what_ci_calls_and_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    called = re.findall(r"^make (\w+)", (ROOT / ".ci/run").read_text(), re.M)
    assert {"test", "slow", "statistical", "realdata"} <= set(called)
    assert [target for target in called if f"make {target}" not in readme] == []
    assert "    make run " in readme and "    make test " in readme


def test_options_that_the_pages_show_exist() -> None:
    """Every line of a page that calls one of our commands is made of flags that the command has."""
    flags = {**OPTION_NAMES, "doctor": {"json"}}
    flags["tune"] = set().union({f.name for f in fields(TuneOptions)}, *OPTION_NAMES.values())
    seen = 0
    for page in [path for path in repository_files() if path.suffix == ".md"]:
        for command, rest in re.findall(r"python -m inference\.(\w+)(.*)", page.read_text(encoding="utf-8")):
            if command not in flags:
                continue
            for flag in re.findall(r" --([a-z-]+)", rest.partition("`")[0]):
                seen += 1
                known = flags[command] | {"config", "preset", "print-config", "version", "help"}
                assert flag.removeprefix("no-") in known, f"{page.name}: --{flag}"
    assert seen > 5


# --- everything public is told ---------------------------------------------------------------------------------------

Told = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def untold(tree: Told, name: str) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield name
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if isinstance(node, ast.ClassDef):
                yield from untold(node, f"{name}.{node.name}")
            elif not ast.get_docstring(node) and not any("overload" in ast.unparse(d) for d in node.decorator_list):
                yield f"{name}.{node.name}"


def test_everything_public_has_a_docstring() -> None:
    assert [
        name
        for path in FILES
        if path.read_text(encoding="utf-8").strip()
        for name in untold(parsed(path), str(path.relative_to(ROOT)))
    ] == []
    assert list(untold(ast.parse("'''m'''\nclass A:\n  '''a'''\n  def f(self): pass\n  def _g(self): pass"), "m")) == [
        "m.A.f"
    ]
