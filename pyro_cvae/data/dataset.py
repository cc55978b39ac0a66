"""Dataset: interactions and content with the ids that users see; row numbers never leave the package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pyro_cvae.checks import check_json
from pyro_cvae.data import files, stored
from pyro_cvae.data.content import Content, TextVectorizer
from pyro_cvae.data.contents import AnyContent, Tokens, Vectors, describe, of_parts, parts_of
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.sources import check_name
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import UnknownId
from pyro_cvae.listed import Listed
from pyro_cvae.text import counted, encodable
from pyro_cvae.trust import only_trusted

SCHEMA = 1
SCHEMA_OF_OTHERS = 2  # with contents that a reader of the first schema would not see
_INTEGER = re.compile("0|-?[1-9][0-9]{0,17}").fullmatch


@dataclass(frozen=True, eq=False)
class Dataset:
    """Who rated what, what the items say, and what users and items are called.

    Parameters:
        name: A short label; not part of the fingerprint.
        interactions: The stored pairs.
        content: The counts of every item.
        user_ids: External id of each user row: int64, or object holding str; unique.
        item_ids: External id of each item row, the same.
        titles: Title of each item row (object holding str), or ``None``.
        truth: What a simulator drew, by name (u, v, z, scores, lambda_u, ...), or ``None``.
        others: Contents of the items besides ``content``, by name: letters, digits, ``_`` and ``-``, not ``text``.

    Raises InputError if sizes disagree, or ids are repeated or of mixed types, or a content has no usable name.
    """

    name: str
    interactions: Interactions
    content: Content
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray | None = None
    truth: dict[str, np.ndarray] | None = None
    others: dict[str, AnyContent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, n in (("user_ids", self.n_users), ("item_ids", self.n_items)):
            ids = typed_ids(getattr(self, name), name)
            object.__setattr__(self, name, ids)
            if ids.shape != (n,):
                raise InputError(
                    f"{name} has {counted(len(ids), 'entry')}, the interactions {n}", "give one id for each row"
                )
            if len(set(ids.tolist())) != n:
                raise InputError(f"{name} has repeated ids", "give each row its own id")
        if self.content.n_items != self.n_items:
            raise InputError(
                f"the content has {counted(self.content.n_items, 'item')}, the interactions {self.n_items}",
                "give one row of content for each item",
            )
        if self.titles is not None:
            titles = np.asarray(self.titles, object)
            if any(isinstance(title, str) and encodable(title, "replace") is not title for title in titles):
                titles = np.array([encodable(str(title), "replace") for title in titles], object)
            object.__setattr__(self, "titles", titles)
            if len(self.titles) != self.n_items:
                raise InputError(
                    f"{counted(len(self.titles), 'title')} for {counted(self.n_items, 'item')}",
                    "give one for each item",
                )
        object.__setattr__(self, "others", dict(self.others))
        for name, content in self.others.items():
            check_name(name)
            if not isinstance(content, Content | Vectors | Tokens):
                raise InputError(f"the content {name} is a {type(content).__name__}", "use Vectors, Images or Tokens")
            if content.n_items != self.n_items:
                problem = f"the content {name} has {counted(content.n_items, 'item')}, the interactions {self.n_items}"
                raise InputError(problem, "give one row of content for each item")

    def __repr__(self) -> str:
        parts = [repr(self.name), repr(self.interactions), repr(self.content)]
        return f"Dataset({', '.join(parts + [f'{name}={content!r}' for name, content in self.others.items()])})"

    @property
    def contents(self) -> dict[str, AnyContent]:
        """All contents of the items by name; ``content``, called text, unless it has no words at all."""
        return ({"text": self.content} if self.content.n_features else {}) | self.others

    @property
    def n_users(self) -> int:
        """Number of users."""
        return self.interactions.n_users

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.interactions.n_items

    @property
    def n_features(self) -> int:
        """Number of words, or other features of the content."""
        return self.content.n_features

    @cached_property
    def _rows_of(self) -> dict[str, dict[Any, int]]:
        ids = {"user": self.user_ids, "item": self.item_ids}
        return {kind: {key: row for row, key in enumerate(column.tolist())} for kind, column in ids.items()}

    def user_rows(self, ids: Iterable[Any], unknown: UnknownId = "error") -> np.ndarray:
        """Rows of users given by external id, int64.

        Where the ids are whole numbers, a string that spells one is accepted (command lines give strings).
        ``unknown`` is the policy for an id that is not there: ``"error"`` raises InputError, ``"drop"`` leaves it out,
        ``"prior"`` gives row -1, which stands for "nothing known but the prior".
        """
        return self._rows("user", self.user_ids, ids, unknown)

    def item_rows(self, ids: Iterable[Any], unknown: UnknownId = "error") -> np.ndarray:
        """Rows of items given by external id; as :meth:`user_rows`."""
        return self._rows("item", self.item_ids, ids, unknown)

    def _rows(self, kind: str, known: np.ndarray, ids: Iterable[Any], unknown: UnknownId) -> np.ndarray:
        if unknown not in get_args(UnknownId):
            raise InputError(f"unknown policy {unknown!r} for unknown ids", "use error, drop or prior")
        table, whole = self._rows_of[kind], known.dtype != object
        rows = []
        for given in ids.tolist() if isinstance(ids, np.ndarray) else ids:
            key = int(given) if whole and isinstance(given, str) and spells_integer(given) else given
            right_type = isinstance(key, int | np.integer) if whole else isinstance(key, str)
            row = table.get(key, -1) if right_type and not isinstance(key, bool) else -1
            if row < 0 and unknown == "error":
                example = known[0].item() if whole else known[0]
                raise InputError(f"no {kind} has the id {given!r}", f"ids of {kind}s look like {example!r}")
            rows.append(row)
        found = np.array(rows, np.int64)
        return found[found >= 0] if unknown == "drop" else found

    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything but the name: pairs, contents, words, ids, titles, truth; types included."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        counts, vectorizer = self.content.counts, self.content.vectorizer
        parts: dict[str, Any] = {"shape": [self.n_users, self.n_items, self.n_features]}
        parts |= self.interactions.columns()
        parts |= {"data": counts.data, "indices": counts.indices.astype(np.int64)}
        parts |= {"indptr": counts.indptr.astype(np.int64), "vocabulary": self.content.vocabulary}
        parts |= {"vectorizer": None if vectorizer is None else vectorizer.to_json()}
        parts |= {"user_ids": self.user_ids, "item_ids": self.item_ids, "titles": self.titles}
        parts |= {f"truth.{name}": value for name, value in sorted((self.truth or {}).items())}
        if self.content.given is not None:
            parts |= {"given": self.content.given}
        for name, content in sorted(self.others.items()):
            named = {"kind": content.kind} | parts_of(content)
            parts |= {f"others.{name}.{part}": value for part, value in named.items()}
        return files.digest(parts)

    def describe(self) -> dict[str, int | float | str]:
        """The facts worth printing, in reading order."""
        pairs = self.interactions
        return {
            "name": self.name,
            "users": self.n_users,
            "items": self.n_items,
            "pairs": len(pairs),
            "density": len(pairs) / max(1, self.n_users * self.n_items),
            "words": self.n_features,
            "word entries": int(self.content.counts.nnz),
            "empty documents": int(self.content.empty.sum()),
            "users without items": int((pairs.user_counts == 0).sum()),
            "items without users": int((pairs.item_counts == 0).sum()),
            **{f"content {name}": describe(content) for name, content in self.others.items()},
        }

    def save(self, folder: files.PathLike) -> None:
        """Write the data set into a folder (made if need be): Parquet, JSON and safetensors, no pickle.

        Vectors and images are ``.npy`` files, which :meth:`load` maps into memory where they are large.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_table(folder / "interactions.parquet", self.interactions.columns())
        files.write_table(folder / "users.parquet", {"id": self.user_ids})
        titles = {} if self.titles is None else {"title": self.titles}
        files.write_table(folder / "items.parquet", {"id": self.item_ids} | titles)
        counts = self.content.counts
        csr = {"data": counts.data, "indices": counts.indices, "indptr": counts.indptr}
        csr |= {} if self.content.given is None else {"given": self.content.given}
        others = {name: _save_content(folder, name, content) for name, content in self.others.items()}
        files.write_arrays(folder / "content.safetensors", csr)
        if self.truth is not None:
            files.write_arrays(folder / "truth.safetensors", self.truth)
        vectorizer = self.content.vectorizer
        newer = bool(others) or self.content.given is not None
        facts = {
            "schema": SCHEMA_OF_OTHERS if newer else SCHEMA,
            "name": self.name,
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_features": self.n_features,
            "fingerprint": self.fingerprint(),
            "truth": self.truth is not None,
            "vectorizer": None if vectorizer is None else vectorizer.to_json(),
            "vocabulary": self.content.vocabulary,
        } | ({"others": others} if newer else {})
        files.write_json(folder / "dataset.json", facts)

    @classmethod
    def load(cls, folder: files.PathLike | Listed) -> Dataset:
        """Read what :meth:`save` wrote, exactly; raises InputError naming the file that is missing or damaged.

        Of a folder with a manifest only the files that it lists are read. A class that the files name is imported only
        where :mod:`pyro_cvae.trust` says so.
        """
        listed = stored.every_file(folder)
        with only_trusted(listed.folder):
            return cls._load(listed)

    @classmethod
    def _load(cls, listed: Listed) -> Dataset:
        folder = listed.folder
        facts = stored.load_json(listed, "dataset.json", SCHEMA, SCHEMA_OF_OTHERS)
        try:
            check_json(facts, stored.DATASET, folder / "dataset.json", optional=("others",))
        except InputError as error:
            problem = f"its files do not fit together ({error.problem})"
            raise InputError(problem, stored.AGAIN, path=error.path) from None
        n_users, n_items, n_features = (facts[name] for name in ("n_users", "n_items", "n_features"))
        people = stored.load_ids(listed, "users.parquet", n_users)
        things = stored.load_ids(listed, "items.parquet", n_items)
        pairs = stored.load_interactions(listed, "interactions.parquet", n_users, n_items)
        csr = stored.load_arrays(listed, "content.safetensors")
        truth = stored.load_truth(listed, n_users, n_items) if facts["truth"] else None
        words, vectorizer = facts["vocabulary"], facts["vectorizer"]
        try:
            content = Content(
                stored.csr_of(csr, (n_items, n_features), folder / "content.safetensors"),
                None if words is None else tuple(words),
                None if vectorizer is None else TextVectorizer.from_json(vectorizer),
                csr.get("given"),
            )
            others = {name: _load_content(listed, name, parts) for name, parts in facts.get("others", {}).items()}
            ids = people["id"], things["id"]
            dataset = cls(facts["name"], pairs, content, *ids, things.get("title"), truth, others)
            intact = dataset.fingerprint() == facts["fingerprint"]
        except InputError as error:
            raise InputError(error.problem, error.remedy, path=error.path or folder, line=error.line) from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise InputError(f"its files do not fit together ({error})", "make the folder again", path=folder) from None
        if not intact:
            raise InputError("its files were changed or damaged after saving", "make the folder again", path=folder)
        return dataset


def _save_content(folder: Path, name: str, content: AnyContent) -> dict[str, Any]:
    """Write the arrays of a content; what JSON holds is returned."""
    parts = parts_of(content)
    if "values" in parts:
        files.write_npy(folder / f"content-{name}.npy", parts.pop("values"))
    arrays = {part: value for part, value in parts.items() if isinstance(value, np.ndarray)}
    files.write_arrays(folder / f"content-{name}.safetensors", arrays)
    return {"kind": content.kind} | {part: value for part, value in parts.items() if part not in arrays}


def _load_content(listed: Listed, name: str, facts: dict[str, Any]) -> AnyContent:
    check_name(name)  # before it is part of a path
    folder = listed.folder
    parts = facts | stored.load_arrays(listed, f"content-{name}.safetensors")
    if facts["kind"] in ("vectors", "images"):
        parts["values"] = files.read_npy(listed.file(f"content-{name}.npy", stored.AGAIN))
    try:
        return of_parts(facts["kind"], parts)
    except InputError as error:
        problem = f"the content {name} is damaged ({error.problem})"
        raise InputError(problem, "make the folder again", path=folder) from None


def typed_ids(ids: Any, what: str) -> np.ndarray:
    """Ids as one typed array: int64, or object holding str; raises InputError for mixed or other types.

    Lone surrogates, which no file can hold, are written as escapes.
    """
    if isinstance(ids, np.ndarray) and np.issubdtype(ids.dtype, np.integer):
        return ids.astype(np.int64)
    values = ids.tolist() if hasattr(ids, "tolist") else list(ids)
    if all(isinstance(value, str) for value in values):
        return np.array([encodable(str(value)) for value in values], object)
    if all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values):
        try:
            return np.array(values, np.int64)
        except OverflowError:
            raise InputError(f"{what} has a whole number above 2^63", "give such ids as text") from None
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise InputError(f"{what} has ids of type {kinds}", "give whole numbers only or text only")


def spells_integer(text: str) -> bool:
    """Whether a text is a whole number as Python writes it (no leading zeros or plus), of at most 18 digits."""
    return _INTEGER(text) is not None
