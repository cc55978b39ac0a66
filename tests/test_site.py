"""The site of the documentation: every public name has its place, every option its line, every page its entry."""

import ast
import contextlib
import importlib
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from benchmarks import house
from docs.making import commands, links, reference
from docs.making.names import Module, modules, places
from inference.options import Options

ROOT = Path(__file__).parents[1]
KNOWN = modules()
PAGES = reference.pages(KNOWN)


def in_menu(entries: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else in_menu(value)


def public(tree: ast.Module | ast.ClassDef, place: str) -> Iterator[str]:
    """The public classes and functions that have a docstring, found another way than the site finds them."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is not None:
                yield f"{place}.{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{place}.{node.name}")


def test_every_public_name_is_on_the_page_of_its_module_and_that_in_the_menu() -> None:
    menu, of_module = list(in_menu(reference.navigation(KNOWN))), {module.name: module for module in KNOWN}
    assert len(menu) == len(set(menu)) and set(menu) == set(PAGES)
    files = house.files(ROOT)
    assert len(files) > 250 and {file.module for file in files} == set(of_module)
    for file in files:
        module = of_module[file.module]
        assert f"\n::: {file.module}\n" in PAGES[module.page] and module.page in menu
        assert set(public(file.tree, file.module)) <= set(module.names), file.name


def test_what_is_imported_is_what_was_read() -> None:
    """Of a few modules, what Python itself says that they define."""
    for name in ("pyro_cvae.errors", "inference.options.fit", "models.gaussians", "inference.commands.options"):
        module = importlib.import_module(name)
        own = {
            one
            for one, value in vars(module).items()
            if not one.startswith("_") and inspect.getmodule(value) is module and inspect.getdoc(value)
        }
        (read,) = [one for one in KNOWN if one.name == name]
        assert own <= {one.removeprefix(name + ".") for one in read.top_names}


def test_names_are_read_as_they_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""All."""\nfrom models.a import A\n__all__ = ["A"]\n')
    (folder / "_hidden.py").write_text('"""Nobody\'s."""\n')
    (folder / "a.py").write_text(
        '"""One | two\nlines.\n\nMore."""\nX = 1\n"""A number."""\nY = 2\n_Z = 3\n"""Hidden."""\n'
        'class A:\n    """A."""\n    def f(self):\n        """F."""\n    def _g(self):\n        """G."""\n'
        "    def h(self): pass\ndef _k():\n    '''K.'''\n"
    )
    package, module = modules(tmp_path)
    assert module == Module(
        "models.a", "models/a.py", "One | two lines.", ("models.a.X", "models.a.A", "models.a.A.f"), {}
    )
    assert package.handed_on == {"models.A": "models.a.A"} and package.page == "api/models/index.md"
    assert places([package, module])["models.A"] == "models.a.A"
    assert "| [`models.a`][models.a] | One \\| two lines. |" in reference.pages([package, module])[package.page]


@pytest.mark.parametrize("known", commands.commands(), ids=lambda one: one.module)
def test_the_page_of_a_command_has_what_its_help_says(known: commands.Command) -> None:
    text, printed = commands.page(known), io.StringIO()
    main = importlib.import_module(known.module).main
    asked = mock.patch("sys.argv", [known.module, "--help"])
    with asked, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main()
    flags = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", printed.getvalue(), re.M))
    assert len(flags) >= 4 and flags <= set(re.findall(r"^`[^`]*?(--[a-z-]+)", text, re.M))
    words = re.sub(r"\\([\\*_<\[|])", r"\1", " ".join(text.split()))
    defaults = re.findall(r"\(default: [^()]+\)", " ".join(printed.getvalue().split()))
    assert [one for one in defaults if one not in words.replace("`", "") and "-" not in one] == []


def test_every_command_has_a_page_with_its_options() -> None:
    found = commands.commands()
    assert {one.module for one in found} == {file.module for file in house.files(ROOT) if house.is_command(file)}
    made = commands.pages(found)
    assert set(in_menu(commands.navigation(found))) == set(made)
    for name in Options.of("svi").to_dict():
        assert f"`--{name.replace('_', '-')}" in made["options/inference.svi.md"] or name.endswith("_args")


def test_every_written_page_is_in_the_menu() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    menu = list(in_menu(yaml.safe_load(text)["nav"]))
    written = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert len(menu) == len(set(menu)) and set(menu) == set(written)


def test_the_site_fetches_nothing() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False and settings["strict"] is True
    assert {"search", "offline"} <= {one for one in settings["plugins"] if isinstance(one, str)}
    assert any("iframe-worker" in one for one in settings["extra"]["polyfills"])
    for kind in ("extra_css", "extra_javascript"):
        assert [one for one in settings.get(kind, []) if "://" in one] == []
    for one in (*settings["extra"]["polyfills"], *settings["extra_css"]):
        assert (ROOT / "docs" / one).is_file()


@pytest.mark.parametrize(
    ("text", "depth", "made"),
    [
        ("[models/cvae.py](../models/cvae.py)", 0, "[models/cvae.py][models.cvae]"),
        ("[story](../models/cvae.py#L3).", 0, "[story][models.cvae]."),
        ("[the test](../tests/test_site.py)", 0, "the test (`tests/test_site.py`)"),
        ("[`tests/test_site.py`](../tests/test_site.py)", 0, "`tests/test_site.py`"),
        ("[one](models.md), [two](https://example.org)", 0, "[one](models.md), [two](https://example.org)"),
        ("[up](../paper.md) [out](../../models/cvae.py)", 1, "[up](../paper.md) [out][models.cvae]"),
    ],
)
def test_links_out_of_the_pages(text: str, depth: int, made: str) -> None:
    assert links.without_outside(text, depth, {module.file: module for module in KNOWN}) == made


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("- a\n  b\n  - c\n    d\n\ne\n\n    code", "- a\n    b\n    - c\n        d\n\ne\n\n    code"),
        ("1. a\n   b\n\n  c\n- d\n```\n  e\n```\n  f", "1. a\n      b\n\n    c\n- d\n```\n  e\n```\n    f"),
        ("text\n  more\n\n    code", "text\n  more\n\n    code"),
    ],
)
def test_lists_are_indented_as_the_site_asks(text: str, made: str) -> None:
    assert links.with_deeper_lists(text) == made


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("See :func:`fit` and :class:`~a.b.C`.", "See [`fit`][a.fit] and [`a.b.C`][a.b.C]."),
        (":meth:`start`, :data:`unknown`", "[`start`][a.b.C.start], `unknown`"),
        ("So::\n\n    x::\n", "So:\n\n    x:\n"),
        ("``a::b`` and a::b", "``a::b`` and a::b"),
    ],
)
def test_roles_become_links(text: str, made: str) -> None:
    where = {name: name for name in ("a.fit", "a.b.C", "a.b.C.start")}
    assert links.rewritten(text, "a.b.C.stop", where) == made


def test_short_options_are_not_broken() -> None:
    text = "<code>--keep-seen</code> <code>--threads N</code> <code>make run</code> <code>--a b c</code>"
    made = '<code class="flag">--keep-seen</code> <code class="flag">--threads N</code>'
    assert links.with_whole_flags(text) == f"{made} <code>make run</code> <code>--a b c</code>"
