"""The CiteULike reader on folders made here; what is malformed is in test_malformed.py."""

import itertools
import logging
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_cvae.data.citeulike import (
    count_title_words,
    load_citeulike,
    read_counts,
    read_lists,
    read_tags,
    read_vocabulary,
)
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.errors import InputError

USERS = "2 0 2\n0 \n3 2\t1   0"  # no newline at the end, a user without items, unsorted, tabs
MULT = "2 3:1 0:12\n0\n1 1:2\n"
WORDS = "plain\nnon\u00a0breaking\n\u2009\n<a\n"


@pytest.fixture
def folder(tmp_path):
    for name, text in (("users.dat", USERS), ("mult.dat", MULT), ("vocabulary.dat", WORDS)):
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def test_a_folder_is_read_to_the_letter(folder):
    data = load_dataset(folder)
    assert data.name == folder.name
    assert data.interactions.csr().toarray().tolist() == [[1, 0, 1], [0, 0, 0], [1, 1, 1]]
    assert data.content.counts.toarray().tolist() == [[12, 0, 0, 1], [0, 0, 0, 0], [0, 2, 0, 0]]
    assert data.content.vocabulary == ("plain", "non\u00a0breaking", "\u2009", "<a")
    assert data.user_ids.tolist() == data.item_ids.tolist() == [0, 1, 2]
    assert data.user_ids.dtype == np.int64
    assert data.titles is None
    assert data.interactions.confidences is None


def test_titles_are_kept_where_there_are_any(folder):
    (folder / "titles.txt").write_text("One\nTwo: a title\nThree ", "utf-8")
    assert load_citeulike(folder).titles.tolist() == ["One", "Two: a title", "Three "]


def test_without_mult_dat_the_titles_are_counted_and_the_log_says_so(folder, caplog):
    (folder / "mult.dat").unlink()
    (folder / "vocabulary.dat").write_text("scalefree\nnets\nof", "utf-8")
    (folder / "titles.txt").write_text("Scale-free nets, of nets\nRésumé\nOF: OF", "utf-8")
    with caplog.at_level(logging.WARNING):
        data = load_citeulike(folder)
    assert data.content.counts.toarray().tolist() == [[1, 2, 1], [0, 0, 0], [0, 0, 2]]
    assert "no mult.dat" in caplog.text and "titles.txt" in caplog.text


TAGS = {
    "item-tag.dat": "2 1 0\n0 \n1 2",  # of each item its tags (citeulike-a)
    "tag-item.dat": "1 0\n1 0\n1 2\n",  # of each tag its items (citeulike-t)
}


@pytest.mark.parametrize("name", TAGS)
def test_tags_are_read_either_way_round(name, folder, caplog):
    (folder / "tags.dat").write_text("war\nlove\nrare ones\n")
    (folder / name).write_text(TAGS[name])
    tags = read_tags(folder, 3, least=1)
    assert tags.vocabulary == ("war", "love", "rare ones")
    assert tags.counts.toarray().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert tags.present.tolist() == [True, False, True]  # the second has no tag at all


def test_tags_on_few_items_are_left_out_and_counted(folder, caplog):
    (folder / "tags.dat").write_text("war\nlove\nrare\n")
    (folder / "tag-item.dat").write_text("2 0 1\n1 2\n2 1 0\n")
    with caplog.at_level(logging.INFO):
        tags = read_tags(folder, 3, least=2)
    assert tags.vocabulary == ("war", "rare")
    assert tags.counts.toarray().tolist() == [[1, 1], [1, 1], [0, 0]]
    assert tags.given is None  # the third has a tag, of which nothing is left
    assert "tags on 2 items or more: 2 of 3; 1 item has other tags only" in caplog.text
    with pytest.raises(InputError, match="no tag is on 3 items or more"):
        read_tags(folder, 3, least=3)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "item-tag.dat: no such file; get item-tag.dat or tag-item.dat"),
        ({"tags.dat": None}, "tags.dat: no such file"),
        ({"item-tag.dat": "1 3\n0\n0\n"}, "item-tag.dat:1: tag 3 does not exist; use 0 to 2"),
        ({"item-tag.dat": "0\n0\n"}, "item-tag.dat: has 2 rows, but the data has 3 items"),
        ({"item-tag.dat": "2 1 1\n0\n0\n"}, "item-tag.dat:1: tag 1 is there more than once"),
        ({"tag-item.dat": "1 3\n0\n0\n"}, "tag-item.dat:1: item 3 does not exist; use 0 to 2"),
        ({"tag-item.dat": "0\n0\n"}, "tag-item.dat: has 2 rows, but the data has 3 tags"),
    ],
)
def test_malformed_tags(files, words, folder):
    for name, text in ({"tags.dat": "war\nlove\nrare\n"} | files).items():
        if text is not None:
            (folder / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(words)):
        load_dataset(folder, contents=["tags"])


def test_tags_and_titles_are_contents_only_when_asked_for(folder):
    (folder / "titles.txt").write_text("The comet\n\nThe sail")
    (folder / "tags.dat").write_text("war\n")
    (folder / "tag-item.dat").write_text("3 0 1 2\n")
    bare = load_citeulike(folder)
    assert not bare.others and load_dataset(folder).fingerprint() == bare.fingerprint()
    data = load_dataset(folder, contents=["titles", "title-tokens"])
    assert data.others["titles"].counts.toarray().tolist() == [[1, 0], [0, 0], [0, 1]]
    assert data.others["title-tokens"].present.tolist() == [True, False, True]
    with pytest.raises(InputError, match="no tag is on 5"):
        load_dataset(folder, contents=["tags"])
    with pytest.raises(InputError, match="tags have no order"):
        load_dataset(folder, contents=["tags=tokens:"])
    (folder / "titles.txt").unlink()
    with pytest.raises(InputError, match="has no content of that name; it offers none"):
        load_dataset(folder, contents=["titles"])


def test_title_words_are_counted_once_for_each_time():
    assert count_title_words(["", "b a b"], ("a", "b")).toarray().tolist() == [[0, 0], [1, 2]]


ROWS = st.lists(st.lists(st.integers(0, 50), unique=True, max_size=9), min_size=1, max_size=9)


@given(ROWS, st.sampled_from([" ", "  ", "\t"]), st.sampled_from(["", "\n"]))
def test_lists_round_trip(tmp_path_factory, rows, blank, end):
    path = tmp_path_factory.mktemp("lists") / "users.dat"
    path.write_text("\n".join(blank.join(map(str, [len(row), *row])) for row in rows) + end)
    starts, items = read_lists(path, 51)
    assert [items[a:b].tolist() for a, b in itertools.pairwise(starts)] == rows


@given(ROWS, st.data())
def test_counts_round_trip(tmp_path_factory, rows, data):
    path = tmp_path_factory.mktemp("counts") / "mult.dat"
    dense = np.zeros((len(rows), 51))
    lines = []
    for j, row in enumerate(rows):
        dense[j, row] = data.draw(st.lists(st.integers(1, 10**6), min_size=len(row), max_size=len(row)))
        lines.append(" ".join([str(len(row)), *(f"{w}:{dense[j, w]:.0f}" for w in row)]))
    path.write_text("\n".join(lines))
    counts = read_counts(path, 51)
    np.testing.assert_array_equal(counts.toarray(), dense)
    assert counts.has_canonical_format


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1),
        unique=True,
        min_size=1,
    )
)
def test_any_word_without_a_line_end_survives(tmp_path_factory, words):
    path = tmp_path_factory.mktemp("words") / "vocabulary.dat"
    path.write_bytes("\n".join(["first", *(word + "!" for word in words)]).encode())
    assert read_vocabulary(path) == ("first", *(word + "!" for word in words))
