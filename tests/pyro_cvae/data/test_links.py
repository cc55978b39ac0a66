"""Links between items as a content: who is like whom by them, from a table and from CiteULike's file."""

import logging
import re

import numpy as np
import pytest

from pyro_cvae.data.citeulike import read_citations
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.links import content_of_links
from pyro_cvae.data.readers import read_content, read_new_items, with_contents
from pyro_cvae.data.sources import Source
from pyro_cvae.errors import InputError

PAIRS = {"user": ["eve", "bob"], "item": ["a", "b"]}
ITEMS = {"item": ["a", "b", "c", "d", "e"], "text": ["comet", "sail", "", "mast", "star"]}


@pytest.fixture
def data():
    return from_frames(PAIRS, ITEMS)


def links(data, folder, text, kind="links", name="links.csv", **others):
    (folder / name).write_text(text)
    return read_content(data, Source("cites", kind, str(folder / name)), **others)


def test_an_item_has_those_that_it_links_to_those_that_link_to_it_and_itself():
    content = content_of_links(np.array([0, 0, 2]), np.array([1, 2, 1]), "abcd", 4)
    assert content.vocabulary == ("a", "b", "c")
    assert content.counts.toarray().tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0]]
    assert content.present.tolist() == [True, True, True, False]


def test_items_are_alike_by_a_link_by_a_common_end_and_by_a_common_source():
    content = content_of_links(np.array([0, 2, 3, 5, 5]), np.array([1, 4, 4, 6, 7]), range(9), 9)
    alike = (content.counts @ content.counts.T).toarray() > 0
    assert alike[0, 1] and alike[2, 3] and alike[6, 7]
    assert not alike[0, 2] and not alike[2, 5] and not alike[8].any()


def test_a_link_of_an_item_to_itself_or_one_that_is_there_twice_says_no_more():
    once = content_of_links(np.array([0]), np.array([1]), "ab", 2)
    again = content_of_links(np.array([0, 0, 1, 0]), np.array([1, 1, 0, 0]), "ab", 2)
    assert (once.counts != again.counts).nnz == 0
    with pytest.raises(InputError, match="no link leads from one item to another"):
        content_of_links(np.array([0, 1]), np.array([0, 1]), "ab", 2)


def test_a_table_of_links_some_of_which_lead_outside(data, tmp_path):
    content = links(data, tmp_path, "item,to\na,b\nc,elsewhere\nd,elsewhere\ne,nobody\n")
    assert content.vocabulary == ("a", "b", "elsewhere")  # by "nobody" no item is like another
    assert content.counts.toarray().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert content.given is None  # the last has a link, of which nothing is left


def test_whole_numbers_are_found_as_numbers_and_other_names_of_the_column(tmp_path):
    numbered = from_frames({"user": [1, 2], "item": [10, 7]}, {"item": [10, 7, -2], "text": ["comet", "sail", ""]})
    content = links(numbered, tmp_path, "item_id,target\n10,7\n10,-2\n")
    assert content.vocabulary == ("10", "7", "-2")
    assert content.counts.toarray().tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 1]]


def test_ids_of_text_that_look_like_numbers_are_found_as_text(tmp_path):
    named = from_frames({"user": ["eve"], "item": ["a"]}, {"item": ["a", "7", "8"], "text": ["comet", "sail", ""]})
    content = links(named, tmp_path, "item,to\na,7\na,8\n")
    assert content.vocabulary == ("a", "7", "8")
    assert content.counts.toarray().tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("item,to\nz,a\n", "links.csv:2: item 'z' is not in the data set"),
        ("item,from\na,b\n", "has no column to .its columns: item, from.; name one of them to, or give --columns to="),
        ("item,to\n", "links.csv: has no rows"),
        ("item,to\na,x\nb,y\n", "links.csv: no link leads from one item to another"),
    ],
)
def test_tables_that_cannot_be_used(text, words, data, tmp_path):
    with pytest.raises(InputError) as found:
        links(data, tmp_path, text)
    assert re.search(words, str(found.value)), str(found.value)


def test_links_to_unknown_items_only_are_dropped_where_that_is_asked(data, tmp_path, caplog):
    content = links(data, tmp_path, "item,to\nz,a\na,b\n", unknown="drop")
    assert content.vocabulary == ("a", "b")
    assert "1 content of unknown items dropped" in caplog.text


def test_a_new_item_is_known_by_the_nodes_of_the_fit(data, tmp_path):
    (tmp_path / "links.csv").write_text("item,to\na,b\nc,elsewhere\nd,elsewhere\n")
    known = with_contents(data, [Source("cites", "links", str(tmp_path / "links.csv"))])
    (tmp_path / "new.csv").write_text("item,text\nf,comet\ng,mast\nh,star\n")
    (tmp_path / "more.csv").write_text("item,to\nf,a\nf,elsewhere\ng,nowhere\n")
    new = read_new_items(tmp_path / "new.csv", [Source("cites", "links", str(tmp_path / "more.csv"))], known)
    content = new.others["cites"]
    assert content.vocabulary == known.others["cites"].vocabulary == ("a", "b", "elsewhere")
    assert content.counts.toarray().tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert content.present.tolist() == [True, True, False]


def test_citations_of_a_folder(tmp_path, caplog):
    (tmp_path / "citations.dat").write_text("1 2\n0 \n1 0\n1 3")
    with caplog.at_level(logging.INFO):
        content = read_citations(tmp_path, 4)
    assert content.vocabulary == ("0", "2")
    assert content.counts.toarray().tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    assert "links: 2 of 4 items have any, to 2 nodes" in caplog.text
    with pytest.raises(InputError, match=r"citations\.dat: has 4 rows, but the data has 5 items"):
        read_citations(tmp_path, 5)
