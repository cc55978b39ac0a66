"""Notebooks: text and paired file agree, nothing is stored or defined in them, and each runs without a warning."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
TEXTS = sorted((ROOT / "analysis" / "notebooks").glob("*.py"))
NAMES = [path.stem for path in TEXTS]
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def definitions(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DEFINITIONS):
            yield f"line {node.lineno}: {getattr(node, 'name', 'lambda')}"


def complaints(notebook: Any) -> list[str]:
    """What the cells wrote to stderr: warnings and our own log."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]


def executed(notebook: Any) -> Any:
    """The notebook after a real kernel has run it at the root of the repository, warnings being errors."""
    from nbclient import NotebookClient

    strict = nbformat.v4.new_code_cell("import warnings\nwarnings.simplefilter('error')")
    mild = nbformat.v4.new_code_cell(
        "warnings.resetwarnings()\nwarnings.simplefilter('ignore')"
    )  # the kernel's own end
    notebook.cells = [strict, *notebook.cells, mild]
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}})
    environment = {name: value for name, value in os.environ.items() if name != "PYRO_CVAE_NOTEBOOK_DATA"}
    client.execute(env=environment | dict.fromkeys(THREADS, "1"))
    return notebook


def test_there_are_three() -> None:
    assert [name[0] for name in NAMES] == ["1", "2", "3"]


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_the_paired_file_is_the_text(path: Path) -> None:
    text, paired = jupytext.read(path), nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert cells(paired) == cells(text), f"write it anew: jupytext --to ipynb {path.relative_to(ROOT)}"
    assert paired.metadata.jupytext.formats == text.metadata.jupytext.formats == "ipynb,py:percent"
    assert paired.metadata.kernelspec == text.metadata.kernelspec
    nbformat.validate(paired)


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_no_output_is_stored(path: Path) -> None:
    paired = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    code = [cell for cell in paired.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_nothing_is_defined(path: Path) -> None:
    assert list(definitions(path.read_text(encoding="utf-8"))) == []


def test_a_definition_would_be_seen() -> None:
    assert list(definitions("x = 1\nif x:\n    def f(): pass\ny = lambda: 0")) == ["line 3: f", "line 4: lambda"]


@pytest.mark.slow
def test_a_warning_would_stop_a_notebook() -> None:
    from nbclient.exceptions import CellExecutionError

    logged = "import logging\nlogging.getLogger('pyro_cvae').warning('no')\nimport inference\nprint(inference.__file__)"
    done = executed(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(logged)]))
    assert [text.strip() for text in complaints(done)] == ["no"]
    assert done.cells[1].outputs[-1].text.strip() == str(ROOT / "inference" / "__init__.py")
    with pytest.raises(CellExecutionError) as stopped:
        executed(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import warnings; warnings.warn('old')")]))
    assert (stopped.value.ename, stopped.value.evalue) == ("UserWarning", "old")


@pytest.mark.slow
@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_it_runs(path: Path) -> None:
    notebook = executed(jupytext.read(path))
    assert complaints(notebook) == []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) >= 3
