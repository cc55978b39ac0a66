"""The data of the study: one bag of words of the items, which every method reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from analysis.replication.options import place_of
from pyro_cvae.data.citeulike import read_tags
from pyro_cvae.data.content import Content
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.text import visible

TAGS = ("item-tag.dat", "tag-item.dat")
MOST_RARE = 5
"""Items that a tag is on at least: nobody is like anybody by a rarer one, and there are 39,000 of these."""


def load_study(data: str) -> tuple[Dataset, str]:
    """A data set with one bag of words, and what its words are.

    A CiteULike folder without ``mult.dat`` has the words of the titles; where it has tags, those on ``MOST_RARE`` items
    or more stand beside them as further words, since CTR and CDL are of one bag.
    """
    place = place_of(data)
    dataset, folder = load_dataset(place), Path(place)
    if not (folder / "users.dat").exists():
        return dataset, "the data's own words"
    if (folder / "mult.dat").exists():
        return dataset, "words of titles and abstracts"
    if not any((folder / name).exists() for name in TAGS):
        return dataset, "words of titles alone (no mult.dat)"
    joined = side_by_side(dataset.content, frequent(read_tags(folder, dataset.n_items)))
    what = f"words of titles, and tags on {MOST_RARE} items or more, in one bag (no mult.dat)"
    return replace(dataset, content=joined, others={}), what


def frequent(tags: Content) -> Content:
    """The tags that ``MOST_RARE`` items or more have."""
    kept = np.flatnonzero(np.bincount(tags.counts.indices, minlength=tags.n_features) >= MOST_RARE)
    names = None if tags.vocabulary is None else tuple(tags.vocabulary[column] for column in kept)
    return Content(sp.csr_matrix(tags.counts[:, kept]), names)


def side_by_side(words: Content, tags: Content) -> Content:
    """One content with the columns of both, sparse (n_items, n_words + n_tags); a tag is called ``tag:NAME``."""
    counts = sp.hstack([words.counts, tags.counts], "csr")
    names = None
    if words.vocabulary is not None and tags.vocabulary is not None:
        names = (*words.vocabulary, *(f"tag:{tag}" for tag in tags.vocabulary))
        names = names if len(set(names)) == len(names) else None
    return Content(counts, names)


def label_of(dataset: Dataset) -> str:
    """What files and figures call a data set: its name, with characters that no file's name should have replaced."""
    return "".join(one if one.isalnum() or one in "-_." else "_" for one in visible(dataset.name)) or "data"
