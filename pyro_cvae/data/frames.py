"""Tables: (user, item[, rating, weight, time]) and (item, text[, title]) from pandas, polars, Arrow, CSV or Parquet.

A rating is R_ij where ``ratings="stars"`` asks for it; otherwise a pair is a choice, R_ij = 1, unless its rating says
that it is none (:mod:`pyro_cvae.data.choices`). A weight is the pair's confidence; 0 says that the cell is missing. Ids
keep their type: whole numbers or text. CSV has no types, so a column of ids is whole numbers if every one of them, in
both tables, is written as one. What can be mended is, and counted in one line of the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from pyro_cvae.data import files, gate
from pyro_cvae.data.cells import ids_of, numbers_of, plain_number, texts_of, times_of, with_ids
from pyro_cvae.data.choices import choices_of
from pyro_cvae.data.content import Content, TextVectorizer
from pyro_cvae.data.contents import AnyContent, is_text, of_texts
from pyro_cvae.data.dataset import Dataset, typed_ids
from pyro_cvae.data.delimited import COMPRESSED, ENDINGS, ending_of, read_delimited
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.parquet import Columns, read_parquet
from pyro_cvae.data.reading import Reading
from pyro_cvae.data.sources import Source
from pyro_cvae.data.table import Table
from pyro_cvae.data.text import consent
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Ratings, Unknown
from pyro_cvae.text import counted

PARQUET = (".parquet", ".pq", ".parq")
# The columns we read, by the names they may have.
PAIRS = {"user": ("user", "user_id"), "item": ("item", "item_id"), "weight": ("weight",), "time": ("time", "timestamp")}
STARS = PAIRS | {"rating": ("rating",)}
ITEMS = {"item": ("item", "item_id", "id"), "text": ("text",), "title": ("title",)}
_A_WEIGHT = "a number of 0 or more"


def from_frames(
    interactions: Any,
    items: Any = None,
    *,
    name: str = "table",
    n_words: int = 8000,
    unknown: Unknown = "error",
    ratings: Ratings = "clicks",
    contents: Sequence[Source] = (),
    reading: Reading | None = None,
) -> Dataset:
    """A data set from two tables: pandas or polars frames, Arrow tables, or mappings of column name to values.

    Parameters:
        interactions: Columns ``user``, ``item`` and, if there, ``rating``, ``weight`` (how much a pair counts
            beside others) and ``time`` (numbers, or dates: seconds since 1970, UTC where no zone is given).
        items: Columns ``item`` and, if there, ``text`` and ``title``; one row an item. As in the paper, the words of
            title and text are counted together. Without a column ``text`` the data have no content, and without this
            table the items are those of the pairs, in the order of their ids: for models that read none.
        name: Label of the data set.
        n_words: Size of the vocabulary (:class:`~pyro_cvae.data.content.TextVectorizer`).
        unknown: What to do with pairs whose item is not in ``items``: ``"error"``, or ``"drop"`` and count in the log.
        ratings: ``"clicks"``: every pair is a 1 whose rating, if there, is above 0; ``"stars"``: the rating is R_ij.
        contents: Those without a path that are columns of ``items`` become further contents.
        reading: Names of columns, tokenizer and the like.

    Users are in the order of their ids, items in that of their table. Repeated pairs are merged, the last row kept, and
    counted in the log, as are rows without an id. Raises InputError, naming the row, for anything that cannot be used:
    mixed ids, repeated items, weights that are negative, NaN or infinite, ratings that are missing or not finite.
    """
    reading = reading or Reading()
    consent([reading.tokenizer])  # the caller's own word
    pairs = _as_table(interactions, "interactions", reading)
    things = None if items is None else _as_table(items, "items", reading)
    return build(pairs, things, name, ratings, contents, n_words=n_words, unknown=unknown)


def load_tables(
    path: files.PathLike,
    items: files.PathLike | None = None,
    *,
    ratings: Ratings = "clicks",
    contents: Sequence[Source] = (),
    reading: Reading | None = None,
) -> Dataset:
    """A data set from files of the two tables of :func:`from_frames`, each a text table or Parquet.

    Of ``contents`` those without a path that are columns of the items become further contents.
    """
    reading = reading or Reading()
    pairs = read_table(path, reading)
    name = Path(path).name.partition(".")[0]
    things = None if items is None else read_table(items, reading)
    return build(pairs, things, name, ratings, contents)


def read_table(path: files.PathLike, reading: Reading | None = None) -> Table:
    """The table in a text file with a header (``.csv``, ``.tsv`` and the like) or in a Parquet file.

    Text may be compressed (``.gz``, ``.bz2``, ``.xz``, ``.zst``); capitals in the ending are as good. Raises
    InputError for other files, and what cannot be read.
    """
    path, reading = Path(path), reading or Reading()
    ending, compression = ending_of(path)
    if ending in ENDINGS:
        return read_delimited(path, reading)
    if ending not in PARQUET or compression:
        known = f"{', '.join(ENDINGS)} (also with {', '.join(COMPRESSED)}) nor .parquet"
        with gate.opened(path):  # a wrong path is the first thing to tell
            raise InputError(f"is neither {known}", "convert it to one of them", path=path)
    return Table(Columns(read_parquet(path), "the table", path), path=path, reading=reading)


def read_pairs(
    path: files.PathLike, *, ratings: Ratings = "clicks", reading: Reading | None = None
) -> tuple[list[Any], list[Any], np.ndarray | None, np.ndarray | None]:
    """Users, items and, if there, weights and ratings of a file of pairs as :func:`load_tables` takes it.

    With ``ratings`` "stars" there must be a column ``rating``; otherwise pairs whose rating says that they are no
    choices are left out. Raises InputError.
    """
    table = pairs_of(read_table(path, reading), ratings)
    ((users,), (items,)) = ids_of("user", table), ids_of("item", table)
    weights = numbers_of(table, "weight", _weight, _A_WEIGHT)
    return users, items, weights, numbers_of(table, "rating", plain_number, "a finite number")


def read_id_pairs(path: files.PathLike, reading: Reading | None = None) -> dict[str, list[Any]]:
    """The columns ``user`` and ``item`` of a file of pairs, whatever else it has; raises InputError."""
    return _id_pairs(read_table(path, reading))


def id_pairs(pairs: Any, label: str) -> tuple[list[Any], list[Any]]:
    """Users and items of a table of pairs as :func:`from_frames` takes it, whatever else it has; raises InputError."""
    found = _id_pairs(_as_table(pairs, label, Reading()))
    return found["user"], found["item"]


def _id_pairs(table: Table) -> dict[str, list[Any]]:
    table = with_ids(table.pick({name: PAIRS[name] for name in ("user", "item")}, ("user", "item")), "user", "item")
    return {name: ids_of(name, table)[0] for name in ("user", "item")}


def pairs_of(table: Table, ratings: Ratings) -> Table:
    """The columns of a table of pairs and its rows with ids; of clicks those that are choices, without ratings."""
    stars = ratings == "stars"
    table = with_ids(table.pick(STARS, ("user", "item", "rating") if stars else ("user", "item")), "user", "item")
    return table if stars else choices_of(table)


def build(
    pairs: Table,
    items: Table | None,
    name: str,
    ratings: Ratings = "clicks",
    contents: Sequence[Source] = (),
    *,
    n_words: int = 8000,
    unknown: Unknown = "error",
) -> Dataset:
    """The data set of two tables; see :func:`from_frames` and :func:`load_tables`."""
    if unknown not in get_args(Unknown):
        raise InputError(
            f"unknown policy {unknown!r} for pairs of unknown items", "use " + " or ".join(get_args(Unknown))
        )
    if ratings not in get_args(Ratings):
        raise InputError(f"ratings cannot be read as {ratings!r}", "use " + " or ".join(get_args(Ratings)))
    if items is not None:
        usual = pairs.usually("item", PAIRS["item"]), items.usually("item", ITEMS["item"])
        if usual[0] is pairs or usual[1] is items:  # else no table has the column that --columns names
            pairs, items = usual
    pairs = pairs_of(pairs, ratings)
    own: list[Source] = []
    if items is None:
        (given_items,) = ids_of("item", pairs)
        item_ids = sorted(set(given_items))
    else:
        own = [source for source in contents if source.path is None and source.name in items.columns]
        wanted = {**{source.name: (source.name,) for source in own}, **ITEMS}
        items = with_ids(items.pick(wanted, ("item",)), "item")
        given_items, item_ids = ids_of("item", pairs, items)
        if "text" not in items.columns and not contents:
            items.tell("has no column text: the items have no content (--columns text=NAME, where it is called NAME)")
    (given_users,) = ids_of("user", pairs)
    item_rows = _item_rows(pairs, items, given_items, item_ids, unknown)
    known = item_rows >= 0
    weights = numbers_of(pairs, "weight", _weight, _A_WEIGHT)
    times = times_of(pairs)
    stars = numbers_of(pairs, "rating", plain_number, "a finite number")
    kept_users = [user for user, keep in zip(given_users, known, strict=True) if keep]
    user_ids = sorted(set(kept_users))
    user_of = {key: row for row, key in enumerate(user_ids)}
    interactions = Interactions.from_arrays(
        [user_of[user] for user in kept_users],
        item_rows[known],
        n_users=len(user_ids),
        n_items=len(item_ids),
        ratings=None if stars is None else stars[known],
        confidences=None if weights is None else weights[known],
        times=None if times is None else times[known],
    )
    titles = texts_of(items, "title") if items is not None and "title" in items.columns else None
    return Dataset(
        name,
        interactions,
        no_text(len(item_ids)) if items is None else _text(items, titles, n_words),
        typed_ids(user_ids, "user_ids"),
        typed_ids(item_ids, "item_ids"),
        None if titles is None else np.array(titles, object),
        others={source.name: column_of(items, source) for source in own if items is not None},
    )


def _item_rows(
    pairs: Table, items: Table | None, given: Sequence[Any], item_ids: Sequence[Any], unknown: Unknown
) -> np.ndarray:
    """The row of the item of each pair, (n_pairs,), -1 of one that is to be dropped; raises InputError."""
    row_of: dict[Any, int] = {}
    for row, key in enumerate(item_ids):
        if row_of.setdefault(key, row) != row:
            assert items is not None
            raise items.error(f"item {key!r} is there more than once", "give each item one row", row)
    rows = np.array([row_of.get(key, -1) for key in given], np.int64)
    known = rows >= 0
    if not known.all() and unknown == "error":
        row, lost = int(np.argmin(known)), (~known).sum()
        more = f" ({counted(lost, 'pair', 'are', of=len(known))} of such items)" if lost > 1 else ""
        raise pairs.error(
            f"item {given[row]!r} is not in the table of items{more}", "add it there, or leave its pairs out", row
        )
    if not known.any():
        raise pairs.error("no pair has an item of the table of items", "check that both use the same ids")
    if not known.all():
        pairs.tell("%s of unknown items dropped", counted((~known).sum(), "pair"))
    return rows


def items_like(
    items: Any, ids: np.ndarray, n_words: int = 8000, reading: Reading | None = None
) -> tuple[np.ndarray, Content, np.ndarray | None]:
    """Ids, content and titles of a table of items, those of ``ids`` first and in their order, then the others.

    Raises InputError where an item of ``ids`` is not in the table, or one is there twice.
    """
    reading = reading or Reading()
    consent([reading.tokenizer])
    table = with_ids(_as_table(items, "items", reading).pick(ITEMS, ("item",)), "item")
    ((given,), order) = ids_of("item", table), dict.fromkeys(ids.tolist(), -1)
    for row, key in enumerate(given):
        if order.get(key, -1) != -1:
            raise table.error(f"item {key!r} is there more than once", "give each item one row", row)
        order[key] = row
    if lacking := [key for key, row in order.items() if row < 0]:
        raise table.error(f"item {lacking[0]!r} of the matrix is not in it", "add it, or give other item_ids")
    table = table.keep(list(order.values()))
    titles = texts_of(table, "title") if "title" in table.columns else None
    text = _text(table, titles, n_words)
    return typed_ids(list(order), "item_ids"), text, None if titles is None else np.array(titles, object)


def no_text(n_items: int) -> Content:
    """The texts of items that have none."""
    return Content(sp.csr_matrix((n_items, 0)))


def _text(items: Table, titles: list[str] | None, n_words: int) -> Content:
    """Counts of the words of title and text together; none at all where no item has a text."""
    if "text" not in items.columns:
        return no_text(len(items.columns["item"]))
    texts = texts_of(items, "text")
    documents = texts if titles is None else [f"{title}\n{text}" for title, text in zip(titles, texts, strict=True)]
    if not any(map(is_text, documents)):
        items.tell("the column text is blank in all rows: the items have no content of that name")
        return no_text(len(documents))
    if isinstance(known := items.reading.known("text"), Content):
        return Content(known.of(documents).counts, known.vocabulary, known.vectorizer)
    try:
        vectorizer = TextVectorizer.fit(documents, n_words, tokenizer=items.reading.tokenizer)
    except InputError as error:
        raise items.error(error.problem, error.remedy) from None
    return Content(vectorizer.counts(documents), vectorizer.vocabulary, vectorizer)


def column_of(items: Table, source: Source, like: AnyContent | None = None) -> AnyContent:
    """A column of the table of items as a content; an item whose cell is blank lacks it.

    Words are counted by the vocabulary of ``like``, or of what the table's reading knows by that name.
    """
    like = items.reading.known(source.name) if like is None else like
    try:
        texts = texts_of(items, source.name)
        return of_texts(source.kind or "words", texts, like, items.reading.tokenizer)
    except InputError as error:
        raise InputError(f"{source.name}: {error.problem}", error.remedy, path=error.path or items.path) from None


def _as_table(frame: Any, label: str, reading: Reading) -> Table:
    """A pandas frame (``iloc``), anything that speaks Arrow (polars, pyarrow), or a mapping, as a table."""
    if hasattr(frame, "iloc"):
        if not frame.columns.is_unique:
            raise InputError(f"{label}: has two columns of one name", "rename one of them")
        return Table({str(column): frame[column].tolist() for column in frame.columns}, label, reading=reading)
    if hasattr(frame, "__arrow_c_stream__"):
        return Table(Columns(pa.table(frame), label), label, reading=reading)
    if isinstance(frame, Mapping):
        columns = {str(k): v.tolist() if isinstance(v, np.ndarray) else list(v) for k, v in frame.items()}
        if len({len(values) for values in columns.values()}) > 1:
            raise InputError(f"{label}: columns differ in length", "give as many values in each")
        return Table(columns, label, reading=reading)
    raise InputError(f"{label}: {type(frame).__name__} is no table", "give a pandas or polars frame, or a mapping")


def _weight(value: Any) -> float | None:
    number = plain_number(value)
    return None if number is None or number < 0 else number
