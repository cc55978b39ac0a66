"""CiteULike folders: ``users.dat``, ``mult.dat``, ``vocabulary.dat`` and, if there, titles, tags and citations.

Formats (Wang, Chen and Li, IJCAI 2013): row u of ``users.dat`` is ``n i1 ... in``, the items of user u; row j of
``mult.dat`` is ``n w1:c1 ... wn:cn``, word w occurs c times in item j; row w of ``vocabulary.dat`` is word w, to be
split on newlines only and not stripped, since some words are or hold Unicode blanks. Row t of ``tags.dat`` is tag t;
row j of ``item-tag.dat`` (citeulike-a) is ``n t1 ... tn``, the tags of item j, and row t of ``tag-item.dat``
(citeulike-t) the other way round, the items of tag t. Row j of ``citations.dat`` is ``n i1 ... in``, the items that
item j cites or is cited by. Numbers count from 0.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from pyro_cvae.data import files
from pyro_cvae.data.content import Content
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.links import content_of_links
from pyro_cvae.errors import InputError, about_file
from pyro_cvae.text import counted

log = logging.getLogger(__name__)

# At most 18 digits: then every number fits an int64.
_LIST_ROW = re.compile(r"[0-9]{1,18}(?:[ \t]+[0-9]{1,18})*[ \t]*").fullmatch
_COUNT_ROW = re.compile(r"[0-9]{1,18}(?:[ \t]+[0-9]{1,18}:[0-9]{1,18})*[ \t]*").fullmatch


def load_citeulike(folder: files.PathLike) -> Dataset:
    """Read a CiteULike folder; ids are the row numbers of the files (int).

    Where ``mult.dat`` is absent (citeulike-a is often passed on without it), the words of ``titles.txt`` are counted
    instead, and the log says so. Raises InputError, with file and line, for anything malformed.
    """
    folder = files.need_folder(folder)
    vocabulary = read_vocabulary(folder / "vocabulary.dat")
    titles = files.read_lines(folder / "titles.txt") if (folder / "titles.txt").exists() else None
    if (folder / "mult.dat").exists():
        counts = read_counts(folder / "mult.dat", len(vocabulary))
        if titles is not None and len(titles) != counts.shape[0]:
            raise InputError(
                f"has {counted(len(titles), 'title')}, but mult.dat has {counted(counts.shape[0], 'item')}",
                "take both files from one source",
                path=folder / "titles.txt",
            )
    elif titles is not None:
        log.warning("%s: no mult.dat, so the content is the words of titles.txt", folder)
        counts = count_title_words(titles, vocabulary)
    else:
        raise InputError(
            "no such file", "get mult.dat (or titles.txt, which can stand in for it)", path=folder / "mult.dat"
        )
    rows, items = read_lists(folder / "users.dat", counts.shape[0])
    n_users = len(rows) - 1
    users = np.repeat(np.arange(n_users), np.diff(rows))
    return Dataset(
        folder.resolve().name,
        Interactions.from_arrays(users, items, n_users=n_users, n_items=counts.shape[0]),
        Content(counts, vocabulary),
        np.arange(n_users),
        np.arange(counts.shape[0]),
        None if titles is None else np.array(titles, object),
    )


def read_tags(folder: files.PathLike, n_items: int, least: int = 5) -> Content:
    """The tags of the items as words, each 0 or 1: those on ``least`` items or more, sparse (n_items, n_tags).

    An item without any tag at all has no such content; one with rare tags only has it, with none of these.
    """
    folder = files.need_folder(folder)
    names = read_vocabulary(folder / "tags.dat")
    if (folder / "item-tag.dat").exists():
        starts, tags = read_lists(folder / "item-tag.dat", len(names), n_items, ("item", "tag"))
        items = np.repeat(np.arange(n_items), np.diff(starts))
    elif (folder / "tag-item.dat").exists():
        starts, items = read_lists(folder / "tag-item.dat", n_items, len(names), ("tag", "item"))
        tags = np.repeat(np.arange(len(names)), np.diff(starts))
    else:
        raise InputError("no such file", "get item-tag.dat or tag-item.dat", path=folder / "item-tag.dat")
    counts = sp.csr_matrix((np.ones(len(tags)), (items, tags)), shape=(n_items, len(names)))
    kept = np.flatnonzero(np.bincount(tags, minlength=len(names)) >= least)
    if not len(kept):
        raise InputError(
            f"no tag is on {counted(least, 'item')} or more", "leave the content tags out", path=folder / "tags.dat"
        )
    given = np.diff(counts.indptr) > 0
    content = Content(counts[:, kept], tuple(names[tag] for tag in kept), None, None if given.all() else given)
    rare = int((content.empty & given).sum())
    told = counted(least, "item"), len(kept), len(names), counted(rare, "item", "have")
    log.info("tags on %s or more: %d of %d; %s other tags only", *told)
    return content


def read_citations(folder: files.PathLike, n_items: int) -> Content:
    """The items that an item cites or is cited by, as :func:`pyro_cvae.data.links.content_of_links` has them."""
    path = files.need_folder(folder) / "citations.dat"
    starts, cited = read_lists(path, n_items, n_items, ("item", "item"))
    with about_file(path):
        return content_of_links(np.repeat(np.arange(n_items), np.diff(starts)), cited, range(n_items), n_items)


def read_lists(
    path: files.PathLike, n_items: int, n_rows: int | None = None, what: tuple[str, str] = ("user", "item")
) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``n i1 ... in`` as (starts (n_rows + 1,), items (n_pairs,)), items in the order of the file.

    Raises InputError for a malformed row, a count that lies, an id outside 0..n_items - 1, a repeated id, or, where
    ``n_rows`` is given, another number of rows. ``what`` says what a row and a number are.
    """
    starts, values = _read_rows(path, _LIST_ROW, r"[0-9]{1,18}", "whole numbers of 0 or more, with blanks between")
    _check_range(path, starts, values, n_items, what[1])
    _check_repeats(path, starts, values, what[1])
    if n_rows is not None and len(starts) - 1 != n_rows:
        problem = f"has {counted(len(starts) - 1, 'row')}, but the data has {counted(n_rows, what[0])}"
        raise InputError(problem, "use the file of these data", path=path)
    return starts, values


def read_counts(path: files.PathLike, n_words: int) -> sp.csr_matrix:
    """Rows ``n w1:c1 ... wn:cn`` as sparse counts, float64 (n_items, n_words).

    Raises InputError for a malformed row, a count n that lies, a word outside 0..n_words - 1, a repeated word or c = 0.
    """
    cell, what = r"[0-9]{1,18}:[0-9]{1,18}", "word:count pairs, with blanks between"
    starts, values = _read_rows(path, _COUNT_ROW, cell, what, 2)
    words, counts = values[0::2], values[1::2]
    _check_range(path, starts, words, n_words, "word")
    _check_repeats(path, starts, words, "word")
    if not counts.all():
        bad = int(np.argmin(counts != 0))
        line = int(np.searchsorted(starts, bad, side="right"))
        raise InputError(f"word {words[bad]} has count 0", "leave out words that do not occur", path=path, line=line)
    matrix = sp.csr_matrix((counts.astype(np.float64), words, starts), shape=(len(starts) - 1, n_words))
    matrix.sort_indices()
    return matrix


def read_vocabulary(path: files.PathLike) -> tuple[str, ...]:
    """One word a row, split on newlines only and not stripped; raises InputError for an empty or repeated word."""
    words = files.read_lines(path)
    if "" in words:
        raise InputError("an empty word", "give one word a row", path=path, line=words.index("") + 1)
    seen: dict[str, int] = {}
    for line, word in enumerate(words, 1):
        if seen.setdefault(word, line) != line:
            raise InputError(f"the word {word!r} is also in line {seen[word]}", "keep one", path=path, line=line)
    return tuple(words)


def count_title_words(titles: list[str], vocabulary: tuple[str, ...]) -> sp.csr_matrix:
    """Counts of the vocabulary's words in titles: lower case, split at blanks, all but a-z and 0-9 dropped.

    This rule gives 315 of the 354 rows of the original ``mult.dat`` exactly that can be checked (title and abstract).
    """
    number = {word: w for w, word in enumerate(vocabulary)}
    drop = re.compile(r"[^a-z0-9]+").sub
    rows = [Counter(number.get(drop("", word), -1) for word in title.lower().split()) for title in titles]
    pairs = [[(w, c) for w, c in sorted(row.items()) if w >= 0] for row in rows]
    starts = np.cumsum([0] + [len(row) for row in pairs])
    flat = np.array([pair for row in pairs for pair in row], np.int64).reshape(-1, 2)
    return sp.csr_matrix((flat[:, 1].astype(np.float64), flat[:, 0], starts), shape=(len(titles), len(vocabulary)))


def _read_rows(
    path: files.PathLike, right: Callable[[str], object], cell: str, what: str, width: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a count and that many cells of ``width`` numbers, as :func:`_split_rows` gives them."""
    lines = files.read_lines(path)
    numbers: list[int] = []
    for line, text in enumerate(lines, 1):
        if not right(text):
            raise _malformed_row(path, line, text, cell, what)
        numbers += map(int, text.replace(":", " ").split())
    return _split_rows(path, lines, np.array(numbers, np.int64), width)


def _split_rows(
    path: files.PathLike, lines: list[str], numbers: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Take the leading count out of each row; (starts in entries (n_rows + 1,), values of ``width`` an entry)."""
    found = np.array([len(text.split()) - 1 for text in lines], np.int64)
    heads = np.concatenate([[0], np.cumsum(1 + width * found)])[:-1]
    told = numbers[heads]
    if (told != found).any():
        row = int(np.argmax(told != found))
        raise InputError(
            f"says {counted(told[row], 'entry')} but has {found[row]}",
            "correct the count or the entries",
            path=path,
            line=row + 1,
        )
    return np.concatenate([[0], np.cumsum(found)]), np.delete(numbers, heads)


def _check_range(path: files.PathLike, starts: np.ndarray, values: np.ndarray, size: int, what: str) -> None:
    if len(values) and values.max() >= size:
        bad = int(np.argmax(values >= size))
        line = int(np.searchsorted(starts, bad, side="right"))
        raise InputError(f"{what} {values[bad]} does not exist", f"use 0 to {size - 1}", path=path, line=line)


def _check_repeats(path: files.PathLike, starts: np.ndarray, values: np.ndarray, what: str) -> None:
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((values, rows))
    same = (rows[order][1:] == rows[order][:-1]) & (values[order][1:] == values[order][:-1])
    if same.any():
        bad = order[int(np.argmax(same))]
        raise InputError(
            f"{what} {values[bad]} is there more than once", "list it once", path=path, line=int(rows[bad]) + 1
        )


def _malformed_row(path: files.PathLike, line: int, text: str, entry: str, expected: str) -> InputError:
    """Say which token of a row is wrong."""
    tokens = text.split()
    if not tokens:
        return InputError("an empty row", "write 0 for a row without entries", path=path, line=line)
    wrong = [t for t in tokens[:1] if not re.fullmatch("[0-9]{1,18}", t)]
    wrong += [t for t in tokens[1:] if not re.fullmatch(entry, t)]
    shown = repr(wrong[0][:40]) if wrong else "a blank at the start or of an unusual kind"
    return InputError(f"cannot read {shown}", f"a row is its number of entries, then {expected}", path=path, line=line)
