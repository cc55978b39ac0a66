"""The shape of the house in numbers: ``python -m benchmarks.house [CHECKOUT ...] [--list]``.

The table has a column for each checkout, by default for this one. What is counted are the Python files of the four
packages, without the notebooks. With ``--list`` the places follow, of the last checkout. ``tests/test_architecture.py``
holds this checkout to what is counted here. The lines of the table:

- import circles: groups of files of which each imports the others, over whatever way. An import inside a function
  counts; one under ``if TYPE_CHECKING`` does not, and neither does that of a package which Python makes by itself on
  the way to one of its modules. Behind the number stand the sizes of the circles.
- longest file, files over 500 lines: blank lines and comments count too.
- functions over 70 lines: from ``def`` to the last line, the docstring too. A function inside another counts for both.
- functions with more than 8 arguments: ``self`` and ``cls`` are none, ``*args`` and ``**kwargs`` are one each.
  ``pyro_cvae/data/simulated.py`` is left out: what a simulator is asked for is a list of numbers.
- imports inside functions: those outside of the doors. A door is a file that is run as a command or that gives names
  when they are asked for (a module's ``__getattr__``), and ``inference/fit_command.py``, the frame of three doors.
- kinds asked for elsewhere: ``isinstance``, ``issubclass``, ``type(...) is`` and ``case`` on a class that is defined in
  ``models/ratings`` or ``models/contents``, or on a model or an item prior of ``models/*.py``, in a file outside of the
  folder that defines it. A class is followed through the file's imports, so that another one of the same name is none.
- product lines: of all files, and of each package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from benchmarks.study.arguments import as_command, command

PACKAGES = ("pyro_cvae", "models", "inference", "analysis")
NOTEBOOKS = "analysis/notebooks/"
MOST_LINES, MOST_LINES_OF_FUNCTION, MOST_ARGUMENTS = 500, 70, 8
SIMULATORS = ("pyro_cvae/data/simulated.py",)
FRAMES = ("inference/fit_command.py",)
LIKELIHOODS = ("models/ratings", "models/contents")
MODELS, MODEL_BASES = "models", {"FactorModel", "ItemPrior"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class File:
    """A Python file: its path from the checkout, as ``inference/svi.py``, its number of lines and its syntax."""

    name: str
    n_lines: int
    tree: ast.Module

    @classmethod
    def read(cls, path: Path, root: Path) -> File:
        """The file at ``path`` of the checkout ``root``."""
        source = path.read_text(encoding="utf-8")
        return cls(path.relative_to(root).as_posix(), len(source.splitlines()), ast.parse(source, str(path)))

    @property
    def folder(self) -> str:
        """The folder that it is in, as ``models/ratings``."""
        return self.name.rpartition("/")[0]

    @property
    def module(self) -> str:
        """Its name in an import statement; of an ``__init__.py`` that of the package."""
        return self.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@dataclass(frozen=True)
class Import:
    """An imported ``module``, or the ``name`` that is taken from it, and what it is called here."""

    line: int
    module: str
    name: str = ""
    here: str = ""
    in_function: bool = False
    for_types: bool = False


@dataclass(frozen=True)
class Measured:
    """A function by its file and qualified name, with its numbers of lines and of arguments."""

    name: str
    n_lines: int
    n_arguments: int


@dataclass(frozen=True)
class Counts:
    """The numbers of a checkout, and under the same titles the places."""

    numbers: dict[str, str]
    places: dict[str, list[str]] = field(default_factory=dict)


def files(root: Path) -> list[File]:
    """All files of the four packages of a checkout."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return [File.read(path, root) for path in paths if NOTEBOOKS not in path.as_posix()]


def imports(file: File) -> Iterator[Import]:
    """Every import of a file, with absolute names."""
    yield from _imports(file.tree, file.folder.split("/"), False, False)


def _imports(node: ast.AST, package: list[str], in_function: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        where = {"in_function": in_function, "for_types": for_types}
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(child.lineno, alias.name, "", alias.asname or alias.name.split(".")[0], **where)
        elif isinstance(child, ast.ImportFrom):
            start = package[: len(package) - child.level + 1] if child.level else []
            module = ".".join([*start, *filter(None, [child.module])])
            for alias in child.names:
                yield Import(child.lineno, module, alias.name, alias.asname or alias.name, **where)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from _imports(ast.Module([statement], []), package, in_function, True)
            yield from _imports(ast.Module(child.orelse, []), package, in_function, for_types)
        else:
            yield from _imports(child, package, in_function or isinstance(child, Function), for_types)


def circles(house: Iterable[File]) -> list[list[str]]:
    """Files that import each other over whatever way, a list a circle, the largest first."""
    by_module = {file.module: file for file in house}
    needs: dict[str, set[str]] = {}
    for module, file in by_module.items():
        asked = [one for one in imports(file) if not one.for_types]
        modules = {full if (full := f"{one.module}.{one.name}") in by_module else one.module for one in asked}
        needs[module] = (modules & by_module.keys()) - {module}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError:
        reached = {module: _reached(module, needs) for module in needs}
        groups = {frozenset(b for b in reached[a] if a in reached[b]) for a in needs if a in reached[a]}
        return sorted((sorted(by_module[one].name for one in group) for group in groups), key=lambda g: (-len(g), g))
    return []


def _reached(start: str, needs: dict[str, set[str]]) -> set[str]:
    """All modules that one imports, itself or through others."""
    reached, ahead = set[str](), [start]
    while ahead:
        for module in needs[ahead.pop()] - reached:
            reached.add(module)
            ahead.append(module)
    return reached


def long_files(house: Iterable[File]) -> dict[str, int]:
    """Files of more than 500 lines."""
    return {file.name: file.n_lines for file in house if file.n_lines > MOST_LINES}


def functions(house: Iterable[File]) -> Iterator[Measured]:
    """All functions and methods, those of simulators excepted."""
    for file in house:
        if file.name not in SIMULATORS:
            yield from _functions(file.tree, f"{file.name}:")


def _functions(node: ast.AST, before: str) -> Iterator[Measured]:
    for child in ast.iter_child_nodes(node):
        inside = before
        if isinstance(child, Function | ast.ClassDef):
            inside = f"{before}{child.name}."
        if isinstance(child, Function):
            yield Measured(inside[:-1], (child.end_lineno or child.lineno) - child.lineno + 1, _arguments(child))
        yield from _functions(child, inside)


def _arguments(function: Function) -> int:
    own = function.args
    named = [one.arg for one in (*own.posonlyargs, *own.args, *own.kwonlyargs)]
    return len(named) - (named[:1] in (["self"], ["cls"])) + sum(one is not None for one in (own.vararg, own.kwarg))


def long_functions(house: Iterable[File]) -> dict[str, int]:
    """Functions of more than 70 lines."""
    return {one.name: one.n_lines for one in functions(house) if one.n_lines > MOST_LINES_OF_FUNCTION}


def wide_functions(house: Iterable[File]) -> dict[str, int]:
    """Functions with more than 8 arguments."""
    return {one.name: one.n_arguments for one in functions(house) if one.n_arguments > MOST_ARGUMENTS}


def is_command(file: File) -> bool:
    """Whether a file is run as a command."""
    return any(isinstance(one, ast.If) and "__name__" in ast.unparse(one.test) for one in file.tree.body)


def is_door(file: File) -> bool:
    """Whether a file is a command's face, or gives names only when they are asked for."""
    gives = any(isinstance(one, ast.FunctionDef) and one.name == "__getattr__" for one in file.tree.body)
    return is_command(file) or gives or file.name in FRAMES


def late_imports(house: Iterable[File]) -> list[str]:
    """Imports inside functions outside of the doors, a statement each."""
    inside = ((file, one) for file in house if not is_door(file) for one in imports(file) if one.in_function)
    return list(dict.fromkeys(f"{file.name}:{one.line} imports {one.module}" for file, one in inside))


def kinds(house: Iterable[File]) -> set[str]:
    """Classes of likelihoods, models and item priors, each behind the folder that defines it: models/ratings/Normal."""
    classes = [
        (file.folder, node)
        for file in house
        if file.folder == MODELS or file.folder.startswith(LIKELIHOODS)
        for node in ast.walk(file.tree)
        if isinstance(node, ast.ClassDef)
    ]
    bases = {node.name: {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases} for _, node in classes}
    of_models = set(MODEL_BASES)
    while more := {name for name, above in bases.items() if above & of_models} - of_models:
        of_models |= more
    return {f"{folder}/{node.name}" for folder, node in classes if folder != MODELS or node.name in of_models}


def kinds_asked(house: Iterable[File]) -> list[tuple[str, int, str]]:
    """File, line and class of every question for a kind outside of the folder that defines the class."""
    house = list(house)
    known = kinds(house)
    asked = []
    for file in house:
        called = {one.here: f"{one.module}.{one.name}" if one.name else one.here for one in imports(file)}
        for node in ast.walk(file.tree):
            for name in _classes_asked(node):
                first, _, rest = name.partition(".")
                full = ".".join(filter(None, [called.get(first, ""), rest]))
                folder = _defined_in(full, known)
                if folder is not None and not f"{file.folder}/".startswith(f"{folder}/"):
                    asked.append((file.name, node.lineno, name))  # type: ignore[attr-defined]
    return sorted(asked)


def _defined_in(full: str, known: set[str]) -> str | None:
    """The folder of a class by its name in an import, as ``models.ratings.normal.Normal``; None of any other class."""
    *modules, name = full.split(".")
    folders = ["/".join(modules[:length]) for length in range(len(modules), 0, -1)]
    return next((folder for folder in folders if f"{folder}/{name}" in known), None)


def _classes_asked(node: ast.AST) -> list[str]:
    """Names of the classes that an ``isinstance``, ``issubclass``, ``type(...) is`` or ``case`` asks for."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass") and len(node.args) == 2:
        return _names(node.args[1])
    if isinstance(node, ast.Compare) and any(
        isinstance(side, ast.Call) and ast.unparse(side.func) == "type" for side in (node.left, *node.comparators)
    ):
        return [name for side in (node.left, *node.comparators) for name in _names(side)]
    return [ast.unparse(node.cls)] if isinstance(node, ast.MatchClass) else []


def _names(node: ast.expr) -> list[str]:
    """Names of classes in a class, a union or a tuple of them."""
    if isinstance(node, ast.BinOp):
        return [*_names(node.left), *_names(node.right)]
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return [name for one in node.elts for name in _names(one)]
    return [ast.unparse(node)] if isinstance(node, ast.Name | ast.Attribute) else []


def counts(root: Path) -> Counts:
    """All numbers of a checkout."""
    house = files(root)
    groups, late, asked = circles(house), late_imports(house), kinds_asked(house)
    long, wide = long_functions(house), wide_functions(house)
    longest = max(house, key=lambda file: file.n_lines)
    sizes = f" ({', '.join(str(len(group)) for group in groups)})" if groups else ""
    lines = {package: sum(f.n_lines for f in house if f.name.startswith(f"{package}/")) for package in PACKAGES}
    circle, length, arguments = "import circles", "functions over 70 lines", "functions with more than 8 arguments"
    within, kind = "imports inside functions", "kinds asked for elsewhere"
    numbers = {
        circle: f"{len(groups)}{sizes}",
        "longest file": f"{longest.n_lines:,}",
        "files over 500 lines": f"{len(long_files(house))}",
        length: f"{len(long)}",
        arguments: f"{len(wide)}",
        within: f"{len(late)}",
        kind: f"{len(asked)}",
        "product lines": f"{sum(lines.values()):,}",
    }
    numbers |= {f"  {package}": f"{n_lines:,}" for package, n_lines in lines.items()}
    places = {
        circle: [" ".join(group) for group in groups],
        "longest file": [longest.name],
        "files over 500 lines": [f"{name}: {n_lines}" for name, n_lines in long_files(house).items()],
        length: [f"{name}: {n_lines}" for name, n_lines in long.items()],
        arguments: [f"{name}: {n_arguments}" for name, n_arguments in wide.items()],
        within: late,
        kind: [f"{name}:{line} asks for {asked_for}" for name, line, asked_for in asked],
    }
    return Counts(numbers, places)


def table(columns: dict[str, Counts]) -> str:
    """The numbers of some checkouts side by side, in plain text."""
    titles = list(next(iter(columns.values())).numbers)
    rows = [["", *columns], *([title, *(one.numbers[title] for one in columns.values())] for title in titles)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    title, *others = widths
    lines = ([row[0].ljust(title), *map(str.rjust, row[1:], others)] for row in rows)
    return "\n".join("  ".join(line) for line in lines)


def main() -> None:
    """Print the table."""
    parser = command("house", __doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).parents[1]], metavar="CHECKOUT")
    parser.add_argument("--list", action="store_true", help="name the places, of the last checkout")
    options = parser.parse_args()
    columns = {path.resolve().name: counts(path) for path in options.checkouts}
    print(table(columns))
    if options.list:
        for title, places in list(columns.values())[-1].places.items():
            print(f"\n{title}", *(f"  {place}" for place in places), sep="\n")


if __name__ == "__main__":
    as_command(main)
