"""Run folders as strangers might send them: right manifests over wrong content, and every command on them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pyro_cvae.data.dataset import Dataset
from pyro_cvae.errors import run_command
from pyro_cvae.runs.manifest import write_manifest

SMALL: dict[str, Any] = {
    "factors": 2, "hidden": (4,), "pretrain_epochs": 1, "epochs": 1, "train_per_user": 3, "threads": 1,
}  # fmt: skip
MODULES = ("inference.recommend", "inference.evaluate", "analysis.compare", "analysis.report", "analysis.posterior",
           "analysis.diagnostics", "analysis.calibration", "inference.export")  # fmt: skip


def catalogue(n_users: int = 14, n_items: int = 18) -> Dataset:
    """Clicks of a few users on items with a text, tokens of it and a vector, of which some items have none."""
    import numpy as np

    from pyro_cvae.data.content import Content, TextVectorizer
    from pyro_cvae.data.contents import Vectors, of_texts
    from pyro_cvae.data.interactions import Interactions

    rng = np.random.default_rng(0)
    words = np.array(["comet", "nebula", "orbit", "sail", "mast", "rudder", "oven", "pastry", "recipe"])
    texts = [" ".join(rng.choice(words[3 * (j % 3) : 3 * (j % 3) + 3], 6)) for j in range(n_items)]
    users, items = np.nonzero(rng.random((n_users, n_items)) < 0.5)
    vectorizer = TextVectorizer.fit(texts)
    present = np.arange(n_items) % 5 != 0
    vectors = np.where(present[:, None], rng.standard_normal((n_items, 3)), 0).astype(np.float32)
    return Dataset(
        "strangers",
        Interactions.from_arrays(users, items, n_users=n_users, n_items=n_items, times=rng.random(len(users))),
        Content(vectorizer.counts(texts), vectorizer.vocabulary, vectorizer),
        np.array([f"u{row}" for row in range(n_users)], object),
        np.array([f"i{row}" for row in range(n_items)], object),
        np.array([f"title {row}" for row in range(n_items)], object),
        {"scores": rng.standard_normal((n_users, n_items))},
        {"words": of_texts("tokens", texts), "sketch": Vectors(vectors, present)},
    )


def arguments(module: str, run: Path, out: Path) -> list[str]:
    """The least that a command needs to open a run and do its work, with few draws."""
    found = {
        "inference.recommend": ["--user", "u1", "--top", "2"],
        "inference.evaluate": [],
        "inference.export": ["--out", "factors"],
        "analysis.compare": ["--out", "compared", "--resamples", "20", "--users", "4", "--draws", "2"],
        "analysis.report": ["--out", "page.html", "--users", "1", "--draws", "20"],
        "analysis.posterior": ["--out", "draws.nc", "--draws", "5", "--n-users", "2", "--n-items", "2"],
        "analysis.diagnostics": ["--draws", "100", "--n-users", "2", "--check-users", "5", "--check-draws", "10"],
        "analysis.calibration": [
            "--out",
            "calibrated",
            "--draws",
            "20",
            "--resamples",
            "20",
            "--top",
            "9",
            "--reserve",
            "0.5",
        ],
    }[module]
    files = [place + 1 for place, word in enumerate(found) if word == "--out"]
    return [str(run), *(str(out / word) if place in files else word for place, word in enumerate(found))]


def command(module: str, argv: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process; an exception that is no error of ours goes through."""
    import importlib

    main: Callable[[], None] = importlib.import_module(module).main
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = [module, *argv]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(main)
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()


def seal(run: Path) -> None:
    """Write a right manifest over whatever lies in a run folder."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != "manifest.json"]
    write_manifest(run, files)


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Have ``change`` edit the value of a JSON file, or give another in its place."""
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed, indent=1) + "\n")


def edit_table(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The same of the columns of a Parquet file, as pyarrow arrays."""
    table = pq.read_table(path)
    columns = {name: table.column(name) for name in table.column_names}
    changed = change(columns)
    pq.write_table(pa.table(changed if isinstance(changed, dict) else columns), path)


def edit_tensors(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The same of the tensors of a safetensors file."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    changed = change(tensors)
    save_file({k: v.contiguous().clone() for k, v in (changed if isinstance(changed, dict) else tensors).items()}, path)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Another current folder, which Python looks in for modules, as it does where a command is called."""
    before, path = os.getcwd(), list(sys.path)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
