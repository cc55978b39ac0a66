"""Links between items, such as citations, as a content: whom an item is linked with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from pyro_cvae.data.content import Content
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

log = logging.getLogger(__name__)

FEWEST = 2
"""Items that a node is linked with at least, itself included: no item is like another by a node of fewer."""


def content_of_links(rows: np.ndarray, nodes: np.ndarray, names: Sequence[Any], n_items: int) -> Content:
    """The nodes that each item is linked with, as words, each 0 or 1, sparse (n_items, n_nodes).

    x_jk = 1 where item j is linked with node k, where k is linked with item j, and where k is j itself and j has any
    link. So two items are alike if one cites the other, if both cite the same, or if the same cites both.

    Parameters:
        rows: The item of each link, int64 (n_links,).
        nodes: Where it leads, int64 (n_links,): the row of an item, or from ``n_items`` on a node outside.
        names: Of all nodes, (n_nodes,).
        n_items: Number of items.

    Nodes of fewer than :data:`FEWEST` items are left out. An item without a link has no such content. Raises InputError
    where nothing is left.
    """
    outside, itself = nodes >= n_items, rows == nodes
    rows, nodes, back = rows[~itself], nodes[~itself], ~(outside | itself)[~itself]
    linked = np.unique(np.concatenate([rows, nodes[back]]))
    at = np.concatenate([rows, nodes[back], linked])
    to = np.concatenate([nodes, rows[back], linked])
    counts = sp.csr_matrix((np.ones(len(at)), (at, to)), (n_items, len(names)))
    counts.sum_duplicates()
    counts.data[:] = 1.0
    kept = np.flatnonzero(np.bincount(counts.indices, minlength=len(names)) >= FEWEST)
    if not len(kept):
        raise InputError("no link leads from one item to another", "give links between items of the data")
    given = np.zeros(n_items, bool)
    given[linked] = True
    told = counted(len(linked), "item", "have", of=n_items)
    log.info("links: %s any, to %s", told, counted(len(kept), "node"))
    return Content(counts[:, kept], tuple(str(names[int(node)]) for node in kept), None, None if given.all() else given)


def links_like(like: Content, rows: np.ndarray, ends: Sequence[str], n_items: int) -> Content:
    """Links of other items to the nodes that a content knows, as words, sparse (n_items, n_nodes of ``like``).

    An item without a link has no such content; one whose links all lead elsewhere has it, with none of these nodes.
    Shapes: ``rows`` and ``ends`` (n_links,), the item of each link and the name of the node that it leads to.
    """
    number = {name: node for node, name in enumerate(like.vocabulary or ())}
    nodes = np.array([number.get(end, -1) for end in ends], np.int64)
    known = nodes >= 0
    counts = sp.csr_matrix((np.ones(int(known.sum())), (rows[known], nodes[known])), (n_items, like.n_features))
    counts.sum_duplicates()
    counts.data[:] = 1.0
    given = np.bincount(rows, minlength=n_items) > 0
    return Content(counts, like.vocabulary, None, None if given.all() else given)
