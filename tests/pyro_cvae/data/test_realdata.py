"""The CiteULike data themselves: counts that their description states, the authors' splits, and speed."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyro_cvae.data import files, registry, splits
from pyro_cvae.data.citeulike import read_counts, read_lists
from pyro_cvae.data.content import ContentScaling
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import git_blob_sha1, load_dataset

pytestmark = pytest.mark.realdata

EMPTY = """1449 1663 1850 2454 2700 3764 4755 4759 6067 6564 7295 8091 10339 10421 10431 12461 12780 14084 16083 16323
17030 17896 18177 19526 19599 19838 19873 21505 21890 22469 24263"""


@pytest.fixture(scope="module")
def folder():
    if "PYRO_CVAE_DATA" not in os.environ:
        pytest.skip("PYRO_CVAE_DATA does not name the folder of the CiteULike data")
    return Path(os.environ["PYRO_CVAE_DATA"])


@pytest.fixture(scope="module")
def citeulike_t(folder):
    return load_dataset(folder / "citeulike-t")


@pytest.fixture(scope="module")
def citeulike_a(folder):
    return load_dataset(folder / "citeulike-a")


def test_interactions_of_citeulike_t(citeulike_t):
    pairs = citeulike_t.interactions
    assert (pairs.n_users, pairs.n_items, len(pairs)) == (7947, 25975, 134_860)
    users, items = pairs.user_counts, pairs.item_counts
    assert (users.min(), np.median(users), users.max()) == (3, 7, 1995)
    assert ((items > 0).sum(), (items == 0).sum()) == (25_584, 391)
    assert (np.median(items[items > 0]), items.max()) == (3, 488)


def test_tags_of_citeulike_t(folder):
    tags = load_dataset(folder / "citeulike-t", contents=["tags"]).others["tags"]
    assert (tags.n_features, int(tags.counts.sum()), tags.counts.max()) == (8311, tags.counts.nnz, 1)
    assert tags.present.all()
    row = files.read_lines(folder / "citeulike-t" / "tag-item.dat")[
        files.read_lines(folder / "citeulike-t" / "tags.dat").index(tags.vocabulary[7])
    ]
    assert np.flatnonzero(tags.counts[:, 7].toarray()).tolist() == sorted(map(int, row.split()[1:]))


def test_tags_and_titles_of_citeulike_a(folder, citeulike_a):
    data = load_dataset(folder / "citeulike-a", contents=["tags", "titles", "title-tokens"])
    tags, titles, tokens = data.others.values()
    assert (tags.n_features, tags.counts.nnz, tags.counts.max()) == (7386, 181_665, 1)
    assert (int((~tags.present).sum()), int(tags.empty.sum())) == (3461, 3579)
    assert titles.present.all() and titles.n_features == 8000
    words = [re.findall(r"\w+", title.lower()) for title in data.titles]
    assert tokens.lengths.tolist() == [len(row) for row in words] and tokens.n_features == 8001
    flat = [word for row in words for word in row]
    known = set(tokens.vocabulary)
    assert [tokens.vocabulary[t] for t in tokens.tokens] == [w if w in known else "<unknown>" for w in flat]
    assert replace(data, others={}).fingerprint() == citeulike_a.fingerprint()


def test_content_of_citeulike_t(citeulike_t):
    counts, words = citeulike_t.content.counts, np.diff(citeulike_t.content.counts.indptr)
    assert (counts.shape, counts.nnz, counts.sum(), counts.max()) == ((25_975, 20_000), 490_708, 804_367, 141)
    assert (round(words.mean(), 1), np.median(words), words.max()) == (18.9, 18, 379)
    assert (np.asarray(counts.sum(axis=0)) > 0).all()
    empty = np.flatnonzero(citeulike_t.content.empty)
    assert empty.tolist() == [int(j) for j in EMPTY.split()]
    assert (citeulike_t.interactions.item_counts[empty] > 0).all()
    vocabulary = citeulike_t.content.vocabulary
    assert (len(vocabulary), len(set(vocabulary))) == (20_000, 20_000)
    # Ten words hold a no-break or thin space, two more an en space: stripping or splitlines() would change them.
    assert sum("\u00a0" in word or "\u2009" in word for word in vocabulary) == 10
    assert sum(any(c.isspace() for c in word) for word in vocabulary) == 12
    assert "&#34;real&#34" in vocabulary and "<a" in vocabulary


def test_scalings_of_citeulike_t(citeulike_t):
    counts = citeulike_t.content.counts
    for name, mean in (("row-max", 0.356), ("word-max", 0.304)):
        x = ContentScaling.fit(counts, name).transform(counts)
        assert round(float(x.data.mean(dtype=np.float64)), 3) == mean
        assert (x.data > 0).all() and x.data.max() == 1


def test_the_authors_split_at_ten_is_reproduced_by_its_seed(folder, citeulike_t):
    split = splits.per_user(citeulike_t, 10, 123)
    theirs = splits.from_file(citeulike_t, folder / "citeulike-t" / "cf-train-10-users.dat")
    assert split.fingerprint() == theirs.fingerprint()
    assert (len(split.train), len(split.test)) == (53_399, 81_461)
    assert (split.test.user_counts > 0).sum() == 2598
    assert (split.train.item_counts == 0).sum() == 7563
    starts, items = read_lists(folder / "citeulike-t" / "cf-test-10-users.dat", 25_975)
    keys = np.repeat(np.arange(7947), np.diff(starts)) * 25_975 + items
    np.testing.assert_array_equal(np.sort(keys), split.test.keys)


def test_the_authors_split_at_one(folder, citeulike_t):
    split = splits.from_file(citeulike_t, folder / "citeulike-t" / "cf-train-1-users.dat")
    assert (len(split.train), len(split.test)) == (7947, 126_913)
    assert split.test.user_counts.min() > 0
    assert (split.train.item_counts == 0).sum() == 22_081
    tuned = splits.with_validation(split, 0.1, 0)
    assert (tuned.tuning_users.sum(), tuned.validation.user_counts.min()) == (795, 0)


def test_citeulike_a_counts_its_titles(citeulike_a):
    pairs = citeulike_a.interactions
    assert (pairs.n_users, pairs.n_items, len(pairs)) == (5551, 16_980, 204_986)
    users, items = pairs.user_counts, pairs.item_counts
    assert (users.min(), np.median(users), users.max()) == (10, 22, 403)
    assert (items.min(), np.median(items), items.max()) == (1, 9, 321)
    assert citeulike_a.n_features == 8000
    assert citeulike_a.content.empty.sum() == 42
    assert round(citeulike_a.content.counts.nnz / 16_980, 1) == 5.3  # different words a title
    lengths = [len(title.split()) for title in citeulike_a.titles]
    assert (len(set(citeulike_a.titles)), min(lengths), max(lengths)) == (16_980, 2, 34)


def test_part_of_the_counts_of_citeulike_a(folder):
    counts = read_counts(folder / "citeulike-a" / "partial" / "mult.dat", 8000)
    assert (counts.shape[0], counts.nnz, counts.sum(), counts.max()) == (1929, 125_567, 172_343, 42)
    assert ((np.asarray(counts.sum(axis=0)) > 0).sum(), np.diff(counts.indptr).min() > 0) == (7408, True)


def test_the_hashes_of_downloads_are_those_of_the_files(folder):
    for name, remotes in registry.REMOTE.items():
        further = [one for files in registry.FURTHER.values() for one in files[name]]
        for remote in [*remotes, *further]:
            path = folder / name / remote.name
            if path.exists():  # citeulike-a's mult.dat may not be there
                assert git_blob_sha1(path.read_bytes()) == remote.sha1, path


def test_a_round_trip_of_citeulike_t(citeulike_t, tmp_path):
    citeulike_t.save(tmp_path)
    assert Dataset.load(tmp_path).content.vocabulary == citeulike_t.content.vocabulary
    assert load_dataset(tmp_path).fingerprint() == citeulike_t.fingerprint()
