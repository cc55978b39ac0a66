"""The shape of the house: imports go one way, nothing heavy loads early, nothing is unpickled, everything is told."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from benchmarks import house
from inference.options import METHODS, Options
from inference.tuning.options import TuneOptions

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
ROOMS = house.PACKAGES  # a room imports from itself and from those before it
OUTSIDE = ("tests", "benchmarks")
FILES = [house.File.read(path, ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
HOUSE = house.files(ROOT)
OPTION_NAMES = {
    method: {field.name.replace("_", "-") for part in Options.classes(method) for field in fields(part)}
    for method in METHODS
}


def wrong_arrows(file: house.File) -> list[str]:
    allowed = ROOMS[: ROOMS.index(file.name.split("/")[0]) + 1]
    arrows = [
        f"{file.name}:{one.line} imports {one.module}"
        for one in house.imports(file)
        if one.module.split(".")[0] in ROOMS + OUTSIDE and one.module.split(".")[0] not in allowed
    ]
    return list(dict.fromkeys(arrows))


def test_the_rooms_are_there() -> None:
    assert [room for room in ROOMS if not (ROOT / room / "__init__.py").is_file()] == []


def test_imports_go_one_way() -> None:
    assert [arrow for file in FILES for arrow in wrong_arrows(file)] == []


def test_a_wrong_arrow_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "models" / "sub" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import pyro_cvae.runs, inference.svi\ndef f():\n    from analysis import plots\nfrom ... import tests\n"
    )
    assert wrong_arrows(house.File.read(path, tmp_path)) == [
        "models/sub/a.py:1 imports inference.svi",
        "models/sub/a.py:3 imports analysis",
    ]


def test_only_one_package_knows_jsonargparse() -> None:
    knowing = [file.folder for file in FILES for one in house.imports(file) if one.module == "jsonargparse"]
    assert set(knowing) == {"inference/commands"}


COMMANDS = tuple(file.module for file in HOUSE if house.is_command(file))
EARLY = ("pyro_cvae", "pyro_cvae.runs", "models", "models.catalogue", "inference", "inference.options", *COMMANDS)
HEAVY = {"torch", "pyro", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "optuna", "arviz"}
ALGORITHMS = {"svi": "SVI", "coordinate": "Coordinate", "mcmc": "MCMC"}


@cache
def early(module: str) -> frozenset[str]:
    """What is imported with a module."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return frozenset(done.stdout.split())


@pytest.mark.parametrize("module", EARLY)
def test_nothing_heavy_is_imported_early(module: str) -> None:
    assert HEAVY & early(module) == set()


def test_the_commands_are_there() -> None:
    assert len(COMMANDS) == 17 and {f"inference.{door}" for door in ALGORITHMS} < set(COMMANDS)


@pytest.mark.parametrize("door", ALGORITHMS)
def test_a_door_gives_its_algorithm(door: str) -> None:
    module = importlib.import_module(f"inference.{door}")
    algorithm = importlib.import_module(f"inference.algorithms.{door}")
    assert getattr(module, ALGORITHMS[door]) is getattr(algorithm, ALGORITHMS[door])
    with pytest.raises(AttributeError, match="has no attribute 'State'"):
        module.State  # noqa: B018


# --- the shape in numbers ---------------------------------------------------------------------------------------------


# Exceptions, by what they are excepted from. The lists only shrink: who mends one takes it off.
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
WIDE_FUNCTIONS: set[str] = set()
KINDS_ASKED = {
    "models/testing.py: ContentLikelihood",
    "models/testing_ratings.py: RatingLikelihood",
}
LAZY, OPTIONAL = "a face that commands import at their start", "not everywhere there"
LATE_IMPORTS = {
    "inference/algorithms/kernels.py: inference.algorithms": OPTIONAL,
    "inference/evaluation/als.py: implicit.cpu.als": OPTIONAL,
    "inference/exporting/folder.py: faiss": OPTIONAL,
    "inference/recommending/indexed.py: faiss": OPTIONAL,
    "inference/logs.py: mlflow.entities": OPTIONAL,
    "inference/logs.py: mlflow.tracking": OPTIONAL,
    "inference/logs.py: tensorboard.compat.proto.event_pb2": OPTIONAL,
    "inference/logs.py: tensorboard.compat.proto.summary_pb2": OPTIONAL,
    "inference/logs.py: tensorboard.summary.writer.event_file_writer": OPTIONAL,
    "inference/printing.py: inference.layouts": LAZY,
    "inference/progress.py: rich.console": LAZY,
    "inference/progress.py: rich.markup": LAZY,
    "inference/progress.py: rich.progress": LAZY,
    "pyro_cvae/data/embedding.py: sentence_transformers": OPTIONAL,
    "pyro_cvae/data/embedding.py: transformers.utils.logging": OPTIONAL,
    "pyro_cvae/limits.py: resource": OPTIONAL,
    "pyro_cvae/runs/disk.py: fcntl": OPTIONAL,
}
"""Imports inside functions, by file and module, outside of the doors, and why they are there."""


def beyond(exceptions: set[str], counted: Iterable[str]) -> list[str]:
    """What is counted and no exception, and exceptions that nothing needs any more."""
    places = set(counted)
    return sorted(places - exceptions) + [f"{one} needs no exception" for one in sorted(exceptions - places)]


def test_no_files_import_each_other() -> None:
    assert house.circles(HOUSE) == []


def test_no_file_is_long() -> None:
    assert beyond(LONG_FILES, house.long_files(HOUSE)) == []


def test_no_function_is_long() -> None:
    assert beyond(LONG_FUNCTIONS, house.long_functions(HOUSE)) == []


def test_no_function_has_many_arguments() -> None:
    assert beyond(WIDE_FUNCTIONS, house.wide_functions(HOUSE)) == []


def test_imports_are_at_the_top_of_their_file() -> None:
    late = house.late_imports(HOUSE)
    assert beyond(set(LATE_IMPORTS), (re.sub(r":\d+ imports ", ": ", one) for one in late)) == []


def test_late_imports_are_where_they_have_to_be() -> None:
    """A lazy one in a file that commands import at their start; an optional one of what need not be installed."""
    at_start = frozenset.union(*map(early, COMMANDS))
    needed = {re.split(r"[^\w-]", line)[0] for line in tomllib.loads(PROJECT)["project"]["dependencies"]}
    unix = {"fcntl", "resource"}
    for place, reason in LATE_IMPORTS.items():
        file, module = place.split(": ")
        if reason == LAZY:
            assert file.removesuffix(".py").replace("/", ".") in at_start, place
        elif reason == OPTIONAL:
            assert (name := module.split(".")[0]) in unix or name not in needed | sys.stdlib_module_names, place


def test_nobody_asks_for_the_kind_of_a_likelihood_or_model() -> None:
    """What differs between kinds is a method or an attribute of the class, which one that is plugged in has too."""
    assert beyond(KINDS_ASKED, (f"{file}: {name}" for file, _, name in house.kinds_asked(HOUSE))) == []


def test_a_new_place_and_a_needless_exception_would_be_seen() -> None:
    assert beyond({"old", "mended"}, ["old", "new", "new"]) == ["new", "mended needs no exception"]


def planted(root: Path, **sources: str) -> list[house.File]:
    """Files of these sources, ``__`` in their names for a slash."""
    for name, source in sources.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return house.files(root)


def test_a_circle_would_be_seen(tmp_path: Path) -> None:
    files = planted(
        tmp_path,
        models__a="def f():\n    from models import b\n",
        models__b="from .sub.c import g\n",
        models__sub__c="import models.a\n",
        models__d="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from models.e import x\n",
        models__e="import models.d\n",
        analysis__f="from analysis import g\nimport models.a\n",
        analysis__g="if True:\n    from analysis.f import y\n",
    )
    assert house.circles(files) == [
        ["models/a.py", "models/b.py", "models/sub/c.py"],
        ["analysis/f.py", "analysis/g.py"],
    ]
    assert house.circles(files[2:3]) == []


def test_a_long_file_would_be_seen(tmp_path: Path) -> None:
    files = planted(tmp_path, models__a="\n" * 501, models__b="\n" * 500, analysis__notebooks__c="\n" * 501)
    assert house.long_files(files) == {"models/a.py": 501}


def test_a_long_and_a_wide_function_would_be_seen(tmp_path: Path) -> None:
    body = "\n".join(["        pass"] * 70)
    source = (
        f"class A:\n    def f(self, a, b, /, c, d, *e, f, g, **h):\n{body}\n"
        "def g(a, b, c, d, e, f, g, h, *, i):\n    def inside(a): pass\n"
    )
    files = planted(tmp_path, models__a=source, pyro_cvae__data__simulated=source)
    assert house.long_functions(files) == {"models/a.py:A.f": 71}
    assert house.wide_functions(files) == {"models/a.py:g": 9}
    assert [one.name for one in house.functions(files)] == ["models/a.py:A.f", "models/a.py:g", "models/a.py:g.inside"]


def test_a_late_import_would_be_seen(tmp_path: Path) -> None:
    late = "class A:\n    def f(self):\n        from x import a, b\n        import y\n"
    files = planted(
        tmp_path,
        models__a="import z\n" + late,
        models__b=late + "if __name__ == '__main__':\n    A()\n",
        models__c=late + "def __getattr__(name):\n    import z\n",
    )
    assert house.late_imports(files) == ["models/a.py:4 imports x", "models/a.py:5 imports y"]
    assert [file.name for file in files if house.is_command(file)] == ["models/b.py"]


KINDS = {
    "models__ratings__base": "class RatingLikelihood: pass\nclass Normal(RatingLikelihood): pass\n",
    "models__base": "class FactorModel: pass\nclass Other: pass\n",
    "models__mine": "import models.base\nclass Mine(models.base.FactorModel[int]): pass\n",
}


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("from models.ratings import Normal\nisinstance(x, Normal)", ["Normal"]),
        ("from models.ratings.base import Normal as N\nisinstance(x, int | N)", ["N"]),
        ("from models import ratings\nissubclass(x, (int, ratings.Normal))", ["ratings.Normal"]),
        ("import models.ratings.base\ntype(x) is not models.ratings.base.Normal", ["models.ratings.base.Normal"]),
        ("def f(x):\n    from models.mine import Mine\n    return Mine == type(x)", ["Mine"]),
        ("from models.ratings import Normal\ntype(x) in (int, Normal)", ["Normal"]),
        ("from models.ratings import Normal\nmatch x:\n    case Normal(): pass", ["Normal"]),
        (
            "from models.base import FactorModel, Other\nisinstance(x, FactorModel | Other)",
            ["FactorModel"],
        ),
        ("from torch.distributions import Normal\nisinstance(x, Normal)", []),
        ("from models.ratings import Normal\nisinstance(x, int), Normal(1.0), type(x)", []),
    ],
)
def test_a_question_for_a_kind_would_be_seen(tmp_path: Path, question: str, asked: list[str]) -> None:
    outside = planted(tmp_path, **KINDS, inference__a=question)
    assert [(file, name) for file, _, name in house.kinds_asked(outside)] == [("inference/a.py", one) for one in asked]
    (tmp_path / "inference" / "a.py").unlink()
    inside = planted(tmp_path, **KINDS, models__ratings__a=question)
    assert [name for _, _, name in house.kinds_asked(inside)] == []


def test_the_numbers_of_a_checkout_are_printed(tmp_path: Path) -> None:
    planted(tmp_path, **KINDS, inference__a="import inference.b\n", inference__b="import inference.a\n\n")
    numbers = house.counts(tmp_path).numbers
    assert (numbers["import circles"], numbers["longest file"], numbers["product lines"]) == ("1 (2)", "2", "9")
    lines = house.table({"old": house.counts(tmp_path), "new": house.counts(tmp_path)}).splitlines()
    assert lines[0].split() == ["old", "new"] and lines[1].split() == ["import", "circles", "1", "(2)", "1", "(2)"]


# --- nothing that a file holds is ever run ---------------------------------------------------------------------------

BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BANNED_CALLS = {"torch.load", "torch.save", "eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
BANNED_METHODS = {"read_pickle", "to_pickle"}


def dangers(tree: ast.Module) -> list[str]:
    imported = house.imports(house.File("a.py", 0, tree))
    found = [f"line {one.line}: {one.module}" for one in imported if one.module.split(".")[0] in BANNED_MODULES]
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


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_nothing_is_unpickled(file: house.File) -> None:
    assert dangers(file.tree) == []


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
    assert len(dangers(ast.parse(source))) >= 1
    assert dangers(ast.parse("np.load('a', allow_pickle=False); yaml.safe_load(text)")) == []


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
    assert [name for file in FILES if file.n_lines for name in untold(file.tree, file.name)] == []
    assert list(untold(ast.parse("'''m'''\nclass A:\n  '''a'''\n  def f(self): pass\n  def _g(self): pass"), "m")) == [
        "m.A.f"
    ]
