"""Ranking metrics of blocks of users: recall and nDCG, ties broken by expectation, no row ever sorted whole.

Every metric here is linear in the relevant items: a sum over them of a gain that depends on the item's position alone.
An item that shares its score with others stands at each of their positions with the same chance, so the expectation of
the metric over all orders of the tied items is the same sum with each gain averaged over those positions. It takes the
place of a random or an arbitrary order (McSherry and Najork, *Computing Information Retrieval Performance Measures
Efficiently in the Presence of Tied Scores*, ECIR 2008, equations for recall and nDCG).

Two protocols, and a figure means nothing without its name:

- ``corrected``: training items are taken out of the ranking; the relevant items are the test items.
- ``paper``: training items stay in the ranking and count as relevant, as in the figures of Li and She (KDD 2017); it
  measures mostly how well the training items are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from pyro_cvae.errors import InputError
from pyro_cvae.protocol import CUTOFFS, Protocol

NDCG_CUTOFFS = (100,)


class Positions(NamedTuple):
    """Where the relevant items of a block of users stand, down to a depth; one entry for each relevant pair.

    ``row`` (n_pairs,) is the user's row in the block and ``item`` (n_pairs,) the item; ``above`` (n_pairs,) counts the
    candidates with a larger score and ``tied`` (n_pairs,) those with the same one, the item itself among them: the item
    stands at one of the positions ``above + 1 .. above + tied`` (1-based), each as likely. Of an item that cannot stand
    within ``depth``, only ``above >= depth`` is known. ``n_relevant`` (n_users,) counts each user's relevant items.
    """

    row: torch.Tensor
    item: torch.Tensor
    above: torch.Tensor
    tied: torch.Tensor
    n_relevant: torch.Tensor
    depth: int


def rank_positions(
    scores: torch.Tensor, train: Any, test: Any, depth: int, protocol: Protocol = "corrected", allowed: Any = None
) -> Positions:
    """Positions of each user's relevant items among the candidates, exact down to ``depth``.

    ``scores`` (n_users, n_items) in any float type, left untouched; ``train`` and ``test`` are scipy CSR matrices
    (n_users, n_items) whose stored cells are the pairs, whatever the values. A pair stored in both counts as a test
    pair. ``allowed``, of the same kind, has the candidates where these are not all items; test pairs must be among
    them, and in the paper protocol training pairs too. One ``topk`` of ``depth + 1`` scores a user; a whole row is read
    again only where a tie runs past ``depth``. Raises ``InputError`` where a score is not finite, ``ValueError`` for
    shapes that do not agree.
    """
    _check_protocol(protocol)
    if not scores.shape == train.shape == test.shape:
        raise ValueError(f"scores {tuple(scores.shape)}, train {train.shape} and test {test.shape} differ in shape")
    n_users, n_items = scores.shape
    if depth < 1:
        raise ValueError(f"depth is {depth}, but it must be at least 1")
    work = scores.detach().to(torch.promote_types(scores.dtype, torch.float32), copy=True)
    _check_finite(work)

    if allowed is not None:
        cells = tuple(torch.from_numpy(one).to(work.device) for one in _pairs(allowed))
        work = torch.full_like(work, -torch.inf).index_put_(cells, work[cells])
    train_row, train_item = _pairs(train)
    row, item = _pairs(test)
    if protocol == "paper":
        both = np.unique(np.concatenate([train_row * n_items + train_item, row * n_items + item]))
        row, item = both // n_items, both % n_items
    n_relevant = np.bincount(row, minlength=n_users)
    if not len(row):
        none = torch.zeros(0, dtype=torch.int64)
        return Positions(none, none, none, none, torch.from_numpy(n_relevant), depth)
    cells = torch.from_numpy(row).to(work.device), torch.from_numpy(item).to(work.device)
    relevant_scores = work[cells]
    if protocol == "corrected":
        work[torch.from_numpy(train_row).to(work.device), torch.from_numpy(train_item).to(work.device)] = -torch.inf
        work[cells] = relevant_scores

    top = work.topk(min(depth + 1, n_items), dim=1).values
    place = np.arange(len(row)) - np.repeat(np.cumsum(n_relevant) - n_relevant, n_relevant)
    slots = cells[0], torch.from_numpy(place).to(work.device)
    ragged = torch.full((n_users, int(n_relevant.max())), torch.inf, dtype=work.dtype, device=work.device)
    ragged[slots] = -relevant_scores
    falling = -top
    above = torch.searchsorted(falling, ragged)[slots]
    at_least = torch.searchsorted(falling, ragged, right=True)[slots]
    if n_items > depth:
        # A tie across the last place kept: how far it runs is seen in the whole row only.
        last = top[:, depth - 1]
        straddling = ((last == top[:, depth]) & (last > -torch.inf)).nonzero().squeeze(1)
        if len(straddling):
            whole = torch.zeros(n_users, dtype=torch.int64, device=work.device)
            counted = (work[straddling] >= last[straddling, None]).sum(1, dtype=torch.int32)
            whole[straddling] = counted.to(torch.int64)
            tied_at_last = (relevant_scores == last[cells[0]]) & (whole[cells[0]] > 0)
            at_least = torch.where(tied_at_last, whole[cells[0]], at_least)
    return Positions(
        row=cells[0].cpu(),
        item=cells[1].cpu(),
        above=above.cpu(),
        tied=(at_least - above).clamp(min=1).cpu(),
        n_relevant=torch.from_numpy(n_relevant),
        depth=depth,
    )


def hit_chance(positions: Positions, cutoff: int) -> torch.Tensor:
    """P(the item stands within the first M) of each relevant pair, (n_pairs,): clamp((M - above) / tied, 0, 1)."""
    _check_cutoff(cutoff, positions.depth)
    return ((cutoff - positions.above).double() / positions.tied.double()).clamp(0.0, 1.0)


def recall_at(positions: Positions, cutoff: int) -> torch.Tensor:
    """Expected recall@M of each user, (n_users,): relevant items within the first M / all relevant items.

    The denominator is not cut at M (Li and She, KDD 2017, section 4.2), and M may exceed the number of items. A user
    without relevant items has none: NaN.
    """
    return _sum_by_user(hit_chance(positions, cutoff), positions) / positions.n_relevant


def ndcg_at(positions: Positions, cutoff: int) -> torch.Tensor:
    """Expected nDCG@M of each user with gains 0 and 1, (n_users,): DCG@M / the DCG@M of the best possible ranking.

    DCG@M = sum over relevant items at positions p <= M of 1 / log2(p + 1) (Jarvelin and Kekalainen, TOIS 2002, in the
    form of Burges et al., ICML 2005, which trec_eval and ir-measures use). A user without relevant items has none: NaN.
    """
    _check_cutoff(cutoff, positions.depth)
    places = torch.arange(1, cutoff + 1, dtype=torch.float64)
    dcg = torch.cat([torch.zeros(1, dtype=torch.float64), (1.0 / torch.log2(places + 1.0)).cumsum(0)])
    first, last = positions.above.clamp(max=cutoff), (positions.above + positions.tied).clamp(max=cutoff)
    gain = (dcg[last] - dcg[first]) / positions.tied.double()
    return _sum_by_user(gain, positions) / dcg[positions.n_relevant.clamp(max=cutoff)]


def metrics_of(
    positions: Positions, cutoffs: Sequence[int] = CUTOFFS, ndcg_cutoffs: Sequence[int] = NDCG_CUTOFFS
) -> dict[str, torch.Tensor]:
    """``{"recall@50": (n_users,), ..., "ndcg@100": (n_users,)}`` of a block of users, in float64.

    Users without relevant items have NaN (``inference.evaluation`` leaves them out before it asks for scores).
    """
    recalls = {f"recall@{cutoff}": recall_at(positions, cutoff) for cutoff in cutoffs}
    return recalls | {f"ndcg@{cutoff}": ndcg_at(positions, cutoff) for cutoff in ndcg_cutoffs}


def _pairs(matrix: Any) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every stored cell of a CSR matrix, int64."""
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return rows, matrix.indices.astype(np.int64)


def _sum_by_user(values: torch.Tensor, positions: Positions) -> torch.Tensor:
    return values.new_zeros(len(positions.n_relevant)).index_add_(0, positions.row, values)


def _check_finite(scores: torch.Tensor) -> None:
    # A finite sum proves every score finite, at a twentieth of the price; a sum that is not may also have overflowed.
    if not scores.sum().isfinite():
        wrong = (~scores.isfinite()).any(1).nonzero()
        if len(wrong):
            raise InputError(
                f"the scores of row {int(wrong[0])} of a block of users are not finite",
                "the fit has diverged: fit again with a smaller --learning-rate",
            )


def _check_protocol(protocol: Protocol) -> None:
    if protocol not in get_args(Protocol):
        raise InputError(f"--protocol is {protocol!r}", "choose one of " + ", ".join(get_args(Protocol)))


def _check_cutoff(cutoff: int, depth: int) -> None:
    if not 1 <= cutoff <= depth:
        raise ValueError(f"cutoff {cutoff} is outside 1..{depth}, the depth of these positions")
