"""Every public module and name of the four packages, read from the source without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("pyro_cvae", "models", "inference", "analysis")
NOTEBOOKS = "analysis/notebooks/"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A module: its ``name``, its ``file`` from the root, its first sentence, its names, and what it hands on.

    ``names`` are qualified, as ``models.base.FactorModel.forward``. ``handed_on`` are the names of ``__all__`` that are
    defined elsewhere, by the place where they are: ``{"models.FactorModel": "models.base.FactorModel"}``.
    """

    name: str
    file: str
    summary: str
    names: tuple[str, ...]
    handed_on: dict[str, str]

    @property
    def is_package(self) -> bool:
        """Whether it is the ``__init__.py`` of a folder."""
        return self.file.endswith("/__init__.py")

    @property
    def page(self) -> str:
        """Its page of the site, as ``api/models/base.md``."""
        return "api/" + self.name.replace(".", "/") + ("/index.md" if self.is_package else ".md")

    @property
    def anchor(self) -> str:
        """What links to its page are made of: a package alone would be taken for the heading of another page."""
        return self.name if "." in self.name else f"package-{self.name}"

    @property
    def top_names(self) -> tuple[str, ...]:
        """Its classes, functions and constants, without their members."""
        return tuple(name for name in self.names if "." not in name.removeprefix(self.name + "."))


def modules(root: Path = ROOT) -> list[Module]:
    """All modules of the packages in the order of their names; those of which a part begins with ``_`` are private."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    files = [path.relative_to(root).as_posix() for path in paths]
    public = [one for one in files if NOTEBOOKS not in one and not _is_private(one)]
    return sorted((_read(root, file) for file in public), key=lambda one: (PACKAGES.index(_top(one.name)), one.name))


def places(known: list[Module]) -> dict[str, str]:
    """The anchor of every name that can be asked for: of a module, a name, and a name that is handed on."""
    found = {name: name for module in known for name in module.names}
    found |= {module.name: module.anchor for module in known}
    for module in known:
        found |= {name: place for name, place in module.handed_on.items() if place in found}
    return found


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_private(file: str) -> bool:
    return any(part.startswith("_") and part != "__init__" for part in file.removesuffix(".py").split("/"))


def _read(root: Path, file: str) -> Module:
    tree = ast.parse((root / file).read_text(encoding="utf-8"), file)
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    summary = (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ")
    own = tuple(dict.fromkeys(_names(tree, name)))
    return Module(name, file, summary, own, _handed_on(tree, name, set(own)))


def _names(tree: ast.Module | ast.ClassDef, place: str) -> Iterator[str]:
    """The public names that a module or class tells: each has a docstring, or a text below its value."""
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            if ast.get_docstring(node):
                yield f"{place}.{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from _names(node, f"{place}.{node.name}")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_text(after):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and not target.id.startswith("_"):
                    yield f"{place}.{target.id}"


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _handed_on(tree: ast.Module, name: str, own: set[str]) -> dict[str, str]:
    """The names of ``__all__`` that a module imports, under ``if TYPE_CHECKING`` too."""
    listed: set[str] = set()
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = set(ast.literal_eval(node.value))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                imported.setdefault(alias.asname or alias.name, f"{node.module}.{alias.name}")
    return {f"{name}.{one}": imported[one] for one in sorted(listed & set(imported)) if f"{name}.{one}" not in own}
