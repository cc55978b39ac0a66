"""Further contents of the items of a data set, from files keyed by item id or from what the data set has itself.

An item that a file does not name lacks that content. Nothing is resized, cut short or unpickled.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import scipy.sparse as sp
from PIL import Image

from pyro_cvae.data import embedding, files, frames
from pyro_cvae.data.cells import ids_of, numbers_of, plain_number, texts_of, with_ids
from pyro_cvae.data.chosen import pick
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import (
    AnyContent,
    Images,
    Tokens,
    Vectors,
    describe,
    float32,
    of_texts,
    spread_mask,
    units_of,
)
from pyro_cvae.data.dataset import Dataset, typed_ids
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.links import content_of_links, links_like
from pyro_cvae.data.npz import read_npz
from pyro_cvae.data.reading import Reading
from pyro_cvae.data.sources import Source
from pyro_cvae.data.table import Table, key_of
from pyro_cvae.errors import InputError, about_file
from pyro_cvae.kinds import TextKind, Unknown
from pyro_cvae.text import counted

log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg")
_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_LARGEST_FOLDER = 4 * 2**30
_LARGEST_PICTURE = 2**26
_AS_ARRAY = "save it again: np.save of numbers (n_items, ...), or np.savez of ids and values"


def with_contents(
    dataset: Dataset, sources: Iterable[Source], unknown: Unknown = "error", reading: Reading | None = None
) -> Dataset:
    """The data set with these contents besides those that it has; each is told in the log.

    Parameters:
        dataset: What names and orders the items.
        sources: See :class:`~pyro_cvae.data.sources.Source`; one without a path is a content that the data set has
            already, or ``titles`` (word counts) or ``title-tokens`` (sequences) where it has titles.
        unknown: What to do with a row or file of an item that is not in the data set: ``"error"``, or ``"drop"`` and
            count in the log.
        reading: How tables are read, and texts turned into words.

    Raises InputError, with the file and where there is one the line, for what cannot be used.
    """
    if unknown not in get_args(Unknown):
        raise InputError(f"unknown policy {unknown!r} for contents of unknown items", "use error or drop")
    others, reading = dict(dataset.others), reading or Reading()
    for source in sources:
        if source.path is not None:
            if source.name in others:
                raise InputError(f"the data set has a content {source.name} already", "give it another name")
            known = None if source.kind == "links" else reading.known(source.name)  # links lead back too: see aligned
            others[source.name] = read_content(dataset, source, unknown, known, reading)
        elif source.name not in others:
            others[source.name] = _of_titles(dataset, source, reading.known(source.name), reading.tokenizer)
        log.info("content %s: %s", source.name, describe(others[source.name]))
    return dataclasses.replace(dataset, others=others)


def read_new_items(
    path: files.PathLike,
    sources: Sequence[Source],
    like: Dataset,
    unknown: Unknown = "error",
    reading: Reading | None = None,
) -> Dataset:
    """Items of a table (item, and if there text and title) and of files of further contents, without users.

    Texts are counted by the vocabularies of ``like``, whose contents the sources name, each of the kind that it has
    there: a column of the table where there is one of that name, else as in :func:`with_contents`. Raises InputError.
    """
    known = {source.name: pick(like.others, source.name) for source in sources}
    sources = [dataclasses.replace(source, kind=source.kind or known[source.name].kind) for source in sources]
    reading = reading or Reading()
    table = frames.read_table(path, reading)
    own = {source.name for source in sources if source.path is None and source.name in table.columns}
    wanted: dict[str, Sequence[str]] = {name: (name,) for name in own}
    table = with_ids(table.pick(wanted | dict(frames.ITEMS), ("item",) if sources else ("item", "text")), "item")
    (ids,) = ids_of("item", table)
    row_of: dict[Any, int] = {}
    for row, key in enumerate(ids):
        if row_of.setdefault(key, row) != row:
            raise table.error(f"item {key!r} is there more than once", "give each item one row", row)
    titles = texts_of(table, "title") if "title" in table.columns else None
    text = Content(sp.csr_matrix((len(ids), 0)))
    if "text" in table.columns and like.content.n_features:
        texts = texts_of(table, "text")
        text = like.content.of(texts if titles is None else [f"{a}\n{b}" for a, b in zip(titles, texts, strict=True)])
    nobody = Interactions.from_arrays([], [], n_users=0, n_items=len(ids))
    shown = None if titles is None else np.array(titles, object)
    new = Dataset("new items", nobody, text, np.zeros(0, np.int64), typed_ids(ids, "item_ids"), shown)
    others: dict[str, AnyContent] = {}
    for source in sources:
        same = known[source.name]
        if source.name in own:
            others[source.name] = frames.column_of(table, source, same)
        elif source.path is None:
            others[source.name] = _of_titles(new, source, same)
        else:
            others[source.name] = read_content(new, source, unknown, same, reading)
    return dataclasses.replace(new, others=others)


def read_content(
    dataset: Dataset,
    source: Source,
    unknown: Unknown = "error",
    like: AnyContent | None = None,
    reading: Reading | None = None,
) -> AnyContent:
    """The content that a file or folder has of the items of ``dataset``; see :func:`with_contents`.

    A folder holds pictures (PNG, JPEG) named by item id; a ``.npy`` array has its rows in the order of the items; an
    ``.npz`` file has ``ids`` and ``values``; a table (CSV, Parquet) has a column ``item`` and ``text``, or numbers, or,
    of links, ``to``. Texts are counted, and links known, by the vocabulary of ``like``, if there is one. A network
    embeds the items' own titles or words (:mod:`pyro_cvae.data.embedding`).
    """
    assert source.path is not None
    if source.kind == "embed":
        return embedding.embedded(dataset, source.path)
    path = Path(source.path)
    items = _Items(dataset, path, unknown)
    ending = path.suffix.lower()
    expected: tuple[str, ...]
    if source.kind == "images" and ending not in (".npy", ".npz"):
        files.need_folder(path)
    if path.is_dir():
        kind, expected = source.kind or "images", ("images",)
    elif ending in (".npy", ".npz"):
        values, ids = (files.read_npy(path, _AS_ARRAY), None) if ending == ".npy" else _read_npz(path)
        kind, expected = source.kind or ("vectors" if values.ndim == 2 else "images"), ("vectors", "images")
    else:
        kind, expected = source.kind or "words", (*get_args(TextKind), "vectors", "links")
    if kind not in expected:
        raise InputError(f"cannot be read as {kind}", f"it can hold {' or '.join(expected)}", path=path)
    if path.is_dir():
        return _read_pictures(items)
    if ending in (".npy", ".npz"):
        return _of_array(items, kind, values, ids)
    table = frames.read_table(path, reading)
    if kind == "links":
        return _links_of_table(items, table, like)
    return _numbers_of_table(items, table, like) if kind == "vectors" else _texts_of_table(items, table, kind, like)


def _of_titles(
    dataset: Dataset, source: Source, like: AnyContent | None = None, tokenizer: str = "words"
) -> AnyContent:
    kinds = {"titles": source.kind or "words", "title-tokens": "tokens"}
    offered = list(dataset.others) + (list(kinds) if dataset.titles is not None else [])
    if source.name not in offered:
        raise InputError(
            f"--contents {source.name}: {dataset.name} has no content of that name",
            f"it offers {', '.join(offered) or 'none'}; a file is given as {source.name}=PATH",
        )
    assert dataset.titles is not None
    return of_texts(kinds[source.name], dataset.titles.tolist(), like, tokenizer)


class _Items:
    """Item ids of one file to rows, each once, by the policy for unknown ones."""

    def __init__(self, dataset: Dataset, path: Path, unknown: Unknown) -> None:
        self.dataset, self.path, self.unknown, self.n_items = dataset, path, unknown, dataset.n_items

    def rows(
        self, ids: Sequence[Any], places: Sequence[InputError | Any], once: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the known ids, int64, and which these are, bool (n_ids,); ``places`` say how to name one.

        InputError for an id that is there again, unless each need not be there ``once``.
        """
        rows = self.dataset.item_rows(ids, unknown="prior")
        known = rows >= 0
        if not known.all() and self.unknown == "error":
            at = int(np.argmin(known))
            raise self._error(f"item {ids[at]!r} is not in the data set", "leave it out, or add the item", places[at])
        if not known.all():
            log.warning("%s: %s of unknown items dropped", self.path, counted((~known).sum(), "content"))
        if not known.any():
            raise InputError("holds no item of the data set", "check that both use the same ids", path=self.path)
        order = np.argsort(rows, kind="stable")
        again = order[1:][(np.diff(rows[order]) == 0) & (rows[order][1:] >= 0)]
        if once and len(again):
            at = int(again.min())
            raise self._error(f"item {ids[at]!r} is there more than once", "give each item one", places[at])
        return rows[known], known

    def _error(self, problem: str, remedy: str, place: Any) -> InputError:
        if isinstance(place, Path):
            return InputError(problem, remedy, path=place)
        if isinstance(place, int):
            return InputError(problem, remedy, path=self.path, line=place)
        return InputError(f"{place}{problem}", remedy, path=self.path)


def _item_ids(table: Table) -> list[Any]:
    """The ids of a table; those of a text file are text, which also finds items whose ids are whole numbers."""
    (ids,) = ids_of("item", table)
    return ids if table.typed else list(map(str, ids))


def _places(table: Table) -> list[Any]:
    rows = range(len(next(iter(table.columns.values()))))
    return list(table.lines) if table.lines is not None else [f"row {row + 1}: " for row in rows]


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``values`` and ``ids`` of an ``.npz`` file."""
    values, ids = read_npz(path, ("values", "ids"), _AS_ARRAY)
    if ids.ndim != 1 or values.ndim < 1 or len(ids) != len(values):
        raise InputError(f"has {ids.shape} ids for {values.shape} values", "give one id for each row", path=path)
    if ids.dtype.kind not in "iuU":
        raise InputError(f"has ids of type {ids.dtype}", "give whole numbers or text", path=path)
    return values, ids


def _of_array(items: _Items, kind: str, values: np.ndarray, ids: np.ndarray | None) -> Vectors:
    if kind == "images" and values.ndim == 3:
        values = values[:, None]
    with about_file(items.path):
        content = {"vectors": Vectors, "images": Images}[kind](values, np.ones(len(values), bool))
    if ids is None:
        if content.n_items != items.n_items:
            problem = f"has {counted(content.n_items, 'row')}, the data set {counted(items.n_items, 'item')}"
            raise InputError(problem, "give one for each item, in their order, or an .npz with ids", path=items.path)
        return content
    rows, known = items.rows(ids.tolist(), [f"ids[{at}]: " for at in range(len(ids))])
    return (content if known.all() else content.select(known)).spread(rows, items.n_items)


def _texts_of_table(items: _Items, table: Table, kind: str, like: AnyContent | None) -> Content | Tokens:
    table = with_ids(table.pick({"item": frames.ITEMS["item"], "text": ("text",)}, ("item", "text")), "item")
    ids = _item_ids(table)
    rows, known = items.rows(ids, _places(table))
    texts: list[str | None] = [None] * items.n_items
    for row, text in zip(rows, np.array(texts_of(table, "text"), object)[known], strict=True):
        texts[row] = text
    with about_file(items.path):
        return of_texts(kind, texts, like, table.reading.tokenizer)


def _links_of_table(items: _Items, table: Table, like: AnyContent | None) -> Content:
    """Links of a table, each from an item to another or to something that is none; see :mod:`pyro_cvae.data.links`."""
    columns = {"item": frames.ITEMS["item"], "to": ("to", "target", "cited")}
    table = with_ids(table.pick(columns, ("item", "to")), "item", "to")
    rows, known = items.rows(_item_ids(table), _places(table), once=False)
    (ends,) = ids_of("to", table)
    ends = [end if table.typed else str(end) for end, keep in zip(ends, known, strict=True) if keep]
    nodes = items.dataset.item_rows(ends, unknown="prior")
    names = [str(name) for name in items.dataset.item_ids]
    with about_file(items.path):
        if isinstance(like, Content):
            return links_like(like, rows, list(map(str, ends)), items.n_items)
        outside = {str(end): 0 for end, node in zip(ends, nodes, strict=True) if node < 0}
        number = {end: items.n_items + place for place, end in enumerate(outside)}
        nodes = np.array([node if node >= 0 else number[str(end)] for end, node in zip(ends, nodes, strict=True)])
        return content_of_links(rows, nodes, [*names, *outside], items.n_items)


def _numbers_of_table(items: _Items, table: Table, like: AnyContent | None) -> Vectors:
    """The numbers of a table, each column in a unit of its own: that of ``like``, or of these items.

    A blank cell is its column's mean, and told; an item without any number lacks the content.
    """
    called = {key_of(name) for name in (*frames.ITEMS["item"], table.reading.columns.get("item", ""))}
    names = [name for name in table.columns if key_of(name) not in called]
    if not names:
        raise InputError("has no column of numbers", "give one besides the item's id", path=items.path)
    table = with_ids(table.pick({"item": frames.ITEMS["item"]} | {name: (name,) for name in names}, ("item",)), "item")
    ids = _item_ids(table)
    wanted = "a finite number, or leave the column out of this table"
    columns = [numbers_of(table, name, plain_number, wanted, blanks=True) for name in names]
    rows, known = items.rows(ids, _places(table))
    values = float32(np.stack([column for column in columns if column is not None], 1))[known]
    there = ~np.isnan(values)
    some = there.any(1)
    rows, values, there = rows[some], values[some], there[some]
    own = like.units if isinstance(like, Vectors) and like.n_features == len(names) else None
    if own is None and not there.any(0).all():
        empty = names[int(np.argmin(there.any(0)))]
        raise table.error(f"the column {empty} has no number", "fill it in, or leave it out of this table")
    with about_file(items.path):  # a float64 that is no float32
        Vectors(np.where(there, values, 0), np.ones(len(values), bool))
        units = units_of(values) if own is None else own
        if blank := int((~there).sum()):
            told = counted(blank, "blank cell", "are", of=there.size)
            table.tell("content of numbers: %s read as the mean of the column", told)
        values = float32(np.where(there, values, units[0]))
        return Vectors(values, np.ones(len(values), bool), units).spread(rows, items.n_items)


def _read_pictures(items: _Items) -> Images:
    """A folder of pictures, one file an item, all of one size and number of channels."""
    found = sorted(path for path in items.path.iterdir() if path.is_file())
    pictures = [path for path in found if path.suffix.lower() in PICTURES]
    if not pictures:
        raise InputError("has no PNG or JPEG file", "name each picture by its item's id", path=items.path)
    if left := [path.name for path in found if path not in pictures]:
        log.warning("%s: files left out: %s", items.path, ", ".join(left[:5]) + " ..." * (len(left) > 5))
    rows, known = items.rows([path.stem for path in pictures], pictures)
    kept = [path for path, keep in zip(pictures, known, strict=True) if keep]
    values = None
    for row, path in zip(rows, kept, strict=True):
        picture = _read_picture(path)
        if values is None:
            first, size = path, items.n_items * picture.nbytes
            if size > _LARGEST_FOLDER:
                what = f"pictures of shape {picture.shape} for {counted(items.n_items, 'item')}"
                problem = f"{what} take {size / 2**30:.0f} GiB"
                raise InputError(problem, "make them smaller, or save one .npy array, which is mapped", path=path)
            values = np.zeros((items.n_items, *picture.shape), np.uint8)
        if picture.shape != values.shape[1:]:
            problem = f"has {_shape(picture.shape)}, but {first.name} has {_shape(values.shape[1:])}"
            raise InputError(problem, "make all pictures of one size and mode; none is resized here", path=path)
        values[row] = picture
    assert values is not None
    return Images(values, spread_mask(np.ones(len(rows), bool), rows, items.n_items))


def _read_picture(path: Path) -> np.ndarray:
    """The pixels of a PNG or JPEG file, uint8 (n_channels, height, width); palettes are looked up, bits 0 or 255."""
    raw = io.BytesIO(files.read_bytes(path))
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(raw, formats=("PNG", "JPEG")) as image:
            if math.prod(image.size) > _LARGEST_PICTURE:
                raise ValueError(f"{image.size[0]} x {image.size[1]} pixels, and at most {_LARGEST_PICTURE:,} are read")
            mode = {"1": "L", "P": "RGBA" if "transparency" in image.info else "RGB"}.get(image.mode, image.mode)
            pixels = np.asarray(image.convert(mode) if mode != image.mode else image)
    except Exception as error:  # Pillow's decoders raise nearly anything
        text = " ".join(str(error).split())
        raise InputError(f"is no readable PNG or JPEG file ({text})", "restore it", path=path) from None
    if mode not in _MODES:
        raise InputError(f"is of mode {mode}", f"save it with 8 bits, as one of {', '.join(_MODES)}", path=path)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _shape(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels of {channels} channel{'s' * (channels > 1)}"
