"""RecBole's atomic files: ``NAME.inter`` and ``NAME.item``, tab separated, each column typed in the header.

Of ``.inter`` we read ``user_id:token``, ``item_id:token`` and, if there, ``weight:float`` (how much a pair counts),
``timestamp:float`` and, where ``ratings="stars"`` asks for it, ``rating:float``; of ``.item`` ``item_id:token`` and all
``token_seq`` columns, the text (one named like a title is the title, too). Other columns are left out and named in the
log; without ``rating`` every listed pair counts as chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pyro_cvae.data import files
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.frames import build
from pyro_cvae.data.reading import Reading
from pyro_cvae.data.sources import Source
from pyro_cvae.data.table import Table
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Ratings
from pyro_cvae.text import counted

TYPES = ("token", "token_seq", "float", "float_seq")


def load_atomic(
    path: files.PathLike,
    items: files.PathLike | None = None,
    *,
    ratings: Ratings = "clicks",
    contents: Sequence[Source] = (),
    reading: Reading | None = None,
) -> Dataset:
    """A data set from a folder with one ``.inter`` file, or from that file; ``.item`` beside it, or ``items``.

    Without a file of items, or a column of type token_seq in it, the items have no text: for models that read none.

    Raises InputError, with file and line, for anything malformed; policies as in ``frames.from_frames``, and
    ``contents`` as in ``frames.load_tables``.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("*.inter"))
        if len(found) != 1:
            raise InputError(f"has {len(found)} .inter files", "keep one, or give its path", path=path)
        path = found[0]
    reading = reading or Reading()
    pairs, _ = read_atomic(path, reading)
    item_path = path.with_suffix(".item") if items is None else Path(items)
    if items is None and not item_path.exists():
        return build(pairs, None, path.stem, ratings, contents)
    table, types = read_atomic(item_path, reading)
    sequences = [name for name, kind in types.items() if kind == "token_seq"]
    titles = [name for name in sequences if "title" in name.lower()][:1]
    columns = {name: values for name, values in table.columns.items() if name not in sequences}
    rest = [table.columns[name] for name in sequences if name not in titles]
    if sequences:
        n_rows = len(table.lines or ())
        columns["text"] = [" ".join(parts) for parts in zip(*rest, strict=True)] if rest else [""] * n_rows
    if titles:
        columns["title"] = table.columns[titles[0]]
    columns |= {s.name: table.columns[s.name] for s in contents if s.path is None and s.name in table.columns}
    texts = replace(table, columns=columns)
    return build(pairs, texts, path.stem, ratings, contents)


def read_atomic(path: Path, reading: Reading) -> tuple[Table, dict[str, str]]:
    """The rows of an atomic file, and the type of each column."""
    header, *rows = files.read_lines(path)
    types: dict[str, str] = {}
    for field in header.split("\t"):
        name, _, kind = field.partition(":")
        if not name or kind not in TYPES or name in types:
            remedy = "a header is name:type, tab separated, with type " + ", ".join(TYPES)
            raise InputError(f"cannot use the column {field[:40]!r}", remedy, path=path, line=1)
        types[name] = kind
    for name in ("user_id", "item_id"):
        if types.get(name, "token") != "token":
            raise InputError(f"{name} is of type {types[name]}", f"make it {name}:token", path=path, line=1)
    cells = [row.split("\t") for row in rows]
    for line, row in enumerate(cells, 2):
        if len(row) != len(types):
            raise InputError(
                f"has {counted(len(row), 'value')}, the header {len(types)}", "separate by tabs", path=path, line=line
            )
    columns = zip(*cells, strict=True) if cells else ((),) * len(types)
    lines = range(2, len(cells) + 2)
    return Table(dict(zip(types, columns, strict=True)), path=path, lines=lines, typed=False, reading=reading), types
