"""Metrics of rankings on the test part of a split.

:func:`evaluate` asks for the scores of a block of users at a time and keeps a row of metrics a user; nothing of size
users x items exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from inference.average import ScoreBlock
from inference.evaluation.by_user import ByUser, shown
from inference.evaluation.candidates import CandidateSet, Ranking
from pyro_cvae.data.interactions import pairs_matrix
from pyro_cvae.data.splits import GROUPS, Split, item_groups, need_test
from pyro_cvae.errors import InputError
from pyro_cvae.metrics import (
    NDCG_CUTOFFS,
    Positions,
    hit_chance,
    metrics_of,
    rank_positions,
    recall_at,
)
from pyro_cvae.protocol import CUTOFFS, Protocol, choosing, telling

BLOCK_SCORES = 2**24
"""Scores that are asked for at once."""


@dataclass(frozen=True, eq=False)
class Evaluation(ByUser):
    """Metrics of one model on one split.

    Parameters:
        protocol: ``corrected`` or ``paper`` (:mod:`pyro_cvae.metrics`).
        per_user: One row a user: ``user`` (row), ``tuning`` (settings were chosen on this user's test pairs),
            ``n_train``, ``n_test``, ``n_relevant`` (the denominator of recall), then ``recall@M`` and ``ndcg@M``.
        groups: One row for each of hot, warm and cold items (:func:`pyro_cvae.data.splits.item_groups`), over headline
            users: ``n_items``, ``n_pairs`` (relevant pairs), ``n_users`` (users with such a pair), ``pooled_recall@M``
            (share of those pairs within the first M of their user's whole ranking), ``recall@M`` (the same share by
            user, averaged over those users) and ``own_recall@M`` (of the ranking of the group's items alone). A group
            without pairs has no row.
        metrics: Names of the metrics.
    """

    measured_pairs: ClassVar[str] = "n_relevant"
    protocol: Protocol
    per_user: pd.DataFrame
    groups: pd.DataFrame
    metrics: tuple[str, ...] = ()

    def means_of(self, users: pd.DataFrame) -> dict[str, float]:
        """The mean of each metric over some rows of ``per_user``; InputError where there is none."""
        if not len(users):
            problem = "every user with test items is a tuning user"
            raise InputError(problem, "use all_user_means, or a smaller --validation")
        return {name: float(users[name].mean()) for name in self.metrics}

    def to_metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` of a run folder holds: headline means, protocol, users, groups, other means if any.

        ``user_groups`` are there where some users have no training pairs.
        """
        result: dict[str, Any] = {
            **self.means(),
            "protocol": self.protocol,
            "n_users_evaluated": self.n_users_evaluated,
            "groups": {row.pop("group"): row for row in self.groups.reset_index().to_dict("records")},
        }
        if apart := shown(self.user_groups):
            result["user_groups"] = dict(apart)
        if self.per_user["tuning"].any():
            result["all_users"] = {**self.all_user_means(), "n_users_evaluated": len(self.per_user)}
        return result


@dataclass(frozen=True, eq=False)
class _GroupSums:
    """Sums over headline users by group of items: hot, warm, cold.

    Shapes: ``group_of`` (n_items,) the group of each item; ``pairs`` and ``users`` (n_groups,) the relevant pairs and
    the users with any; ``hits``, ``recalls`` and ``own_recalls`` (n_groups, n_cutoffs).
    """

    group_of: Tensor
    cutoffs: Sequence[int]
    pairs: Tensor
    users: Tensor
    hits: Tensor
    recalls: Tensor
    own_recalls: Tensor

    @classmethod
    def none(cls, group_of: np.ndarray, cutoffs: Sequence[int]) -> _GroupSums:
        """Sums of nobody."""
        by_group = torch.zeros(2, len(GROUPS), dtype=torch.float64)
        by_cutoff = torch.zeros(3, len(GROUPS), len(cutoffs), dtype=torch.float64)
        return cls(torch.from_numpy(group_of), cutoffs, *by_group, *by_cutoff)

    def add(self, positions: Positions, headline: Tensor) -> Tensor:
        """Add a block of users, ``headline`` bool (n_block,); returns their relevant pairs, (n_block, n_groups)."""
        n_block, n_groups = len(headline), len(GROUPS)
        cell = positions.row * n_groups + self.group_of[positions.item]
        in_group = torch.bincount(cell, minlength=n_groups * n_block).reshape(-1, n_groups).double()
        in_group = in_group * headline[:, None]
        self.pairs.add_(in_group.sum(0))
        self.users.add_((in_group > 0).sum(0))
        for column, cutoff in enumerate(self.cutoffs):
            hits = torch.zeros(n_groups * n_block, dtype=torch.float64)
            hits.index_add_(0, cell, hit_chance(positions, cutoff))
            hits = hits.reshape(-1, n_groups) * headline[:, None]
            self.hits[:, column] += hits.sum(0)
            self.recalls[:, column] += (hits / in_group.clamp(min=1)).sum(0)
        return in_group

    def add_alone(self, group: int, alone: Positions, has_any: Tensor) -> None:
        """Add the rankings of a group's items alone, of the users of a block that ``has_any``, bool (n_block,)."""
        for column, cutoff in enumerate(self.cutoffs):
            self.own_recalls[group, column] += recall_at(alone, cutoff)[has_any].sum()

    def frame(self, n_items: np.ndarray) -> pd.DataFrame:
        """The ``groups`` of an :class:`Evaluation`; ``n_items`` (n_groups,)."""
        shares = {
            "pooled_recall": self.hits / self.pairs.clamp(min=1)[:, None],
            "recall": self.recalls / self.users.clamp(min=1)[:, None],
            "own_recall": self.own_recalls / self.users.clamp(min=1)[:, None],
        }
        columns = {"n_items": n_items, "n_pairs": self.pairs.long(), "n_users": self.users.long()}
        for name, share in shares.items():
            columns |= {f"{name}@{cutoff}": share[:, column] for column, cutoff in enumerate(self.cutoffs)}
        groups = pd.DataFrame(columns, index=pd.Index(GROUPS, name="group"))
        return groups[groups["n_pairs"] > 0]


def evaluate(
    score_block: ScoreBlock,
    split: Split,
    *,
    cutoffs: Sequence[int] | None = None,
    protocol: Protocol = "corrected",
    users: np.ndarray | None = None,
    block_size: int = 256,
    ndcg_cutoffs: Sequence[int] = NDCG_CUTOFFS,
    candidates: CandidateSet | None = None,
) -> Evaluation:
    """Rank all candidate items of each user that has relevant ones, and average over users.

    ``score_block(users (B,)) -> (B, n_items)`` is asked for at most ``block_size`` users and 2^24 scores at once.
    Relevant are test pairs with a positive rating; candidates are all items, never-rated ones too, or those of
    ``candidates``, but not the pairs known from training or validation (``corrected``). A relevant pair that is no
    candidate counts for nothing. A training pair of confidence 0 is missing, hence not known. A pair that is in the
    test part and the validation part, as at P = 1, is a test pair; its user is marked ``tuning``. ``users``
    (n_chosen,) restricts to some user rows. ``cutoffs`` are by default those of 50 to 300 that :func:`telling` leaves.
    Raises ``InputError`` where nobody has a relevant item.
    """
    need_test(split)
    known, test = _known_and_test(split, protocol)
    among = candidates or CandidateSet(np.ones(split.train.n_items, bool))
    whole, group_of = Ranking(known, test, among.items, among.pairs), item_groups(split.train)
    alone = [Ranking(known, test, among.items & (group_of == group), among.pairs) for group in range(len(GROUPS))]
    what = "any" if protocol == "paper" else "a test"
    problem = f"no user has {what} item to rank{' among the candidates' * (candidates is not None)}"
    rows = _users_with(whole.relevant(protocol), users, problem)
    tuning = np.zeros(known.shape[0], bool) if split.tuning_users is None else np.asarray(split.tuning_users, bool)
    columns: dict[str, list[np.ndarray]] = {}
    cutoffs = telling(CUTOFFS, split.train.n_items) if cutoffs is None else cutoffs
    sums, depth = _GroupSums.none(group_of, cutoffs), max((*cutoffs, *ndcg_cutoffs))
    for block in _blocks(rows, len(group_of), block_size):
        scores = score_block(block)
        positions = whole.positions(scores, block, depth, protocol)
        values = {"n_relevant": positions.n_relevant, **metrics_of(positions, cutoffs, ndcg_cutoffs)}
        for name, value in values.items():
            columns.setdefault(name, []).append(value.numpy())
        in_group = sums.add(positions, torch.from_numpy(~tuning[block]))
        for group in in_group.sum(0).nonzero().flatten().tolist():
            own = alone[group].positions(scores, block, depth, protocol)
            sums.add_alone(group, own, in_group[:, group] > 0)
    n_test = np.diff(whole.relevant("corrected").indptr)[rows]
    per_user = pd.DataFrame(
        {"user": rows, "tuning": tuning[rows], "n_train": split.train.user_counts[rows], "n_test": n_test}
        | {name: np.concatenate(blocks) for name, blocks in columns.items()}
    )
    groups = sums.frame(np.bincount(group_of[among.items], minlength=len(GROUPS)))
    return Evaluation(protocol, per_user, groups, tuple(name for name in columns if name != "n_relevant"))


def recalls(
    score_block: ScoreBlock,
    split: Split,
    *,
    cutoffs: Sequence[int] = CUTOFFS,
    protocol: Protocol = "corrected",
    block_size: int = 256,
) -> pd.DataFrame:
    """recall@M of every user who has relevant items: what :func:`evaluate` says of them, without groups of items.

    These take three rankings more of every user. Columns "user", "n_relevant" and "recall@M", a row a user.
    """
    need_test(split)
    known, test = _known_and_test(split, protocol)
    ranking = Ranking(known, test, np.ones(split.train.n_items, bool), None)
    rows = _users_with(ranking.relevant(protocol), None, "no user has any item to rank")
    found = []
    for block in _blocks(rows, split.train.n_items, block_size):
        positions = ranking.positions(score_block(block), block, max(cutoffs), protocol)
        columns = {"user": block, "n_relevant": positions.n_relevant.numpy()}
        found.append(pd.DataFrame(columns | {f"recall@{m}": recall_at(positions, m).numpy() for m in cutoffs}))
    return pd.concat(found, ignore_index=True)


def recall_on_validation(
    score_block: ScoreBlock, split: Split, cutoff: int | None = None, block_size: int = 256
) -> float:
    """Mean recall@cutoff over users with validation pairs, training items taken out: what early stopping looks at.

    ``cutoff`` is by default 300, and half of the items where these are fewer than 600 (:func:`choosing`). Test
    pairs stay among the candidates, unknown as they are. Raises ``InputError`` where the split has no validation.
    """
    if split.validation is None or not len(split.validation):
        raise InputError("the split has no validation part", "choose one with --validation, for instance 0.1")
    (cutoff,) = choosing((300,), split.train.n_items) if cutoff is None else (cutoff,)
    known = pairs_matrix(split.train.select(split.train.observed))
    validation = pairs_matrix(split.validation.select(split.validation.positive))
    rows = _users_with(validation, None, "no user has a validation pair with a positive rating")
    total = 0.0
    for block in _blocks(rows, validation.shape[1], block_size):
        positions = rank_positions(score_block(block), known[block], validation[block], cutoff)
        total += float(recall_at(positions, cutoff).sum())
    return total / len(rows)


def _known_and_test(split: Split, protocol: Protocol) -> tuple[Any, Any]:
    """Pairs that are known from training and validation, and test pairs, sparse (n_users, n_items)."""
    parts = [split.train] if split.validation is None else [split.train, split.validation]
    chosen = [part.select(part.positive if protocol == "paper" else part.observed) for part in parts]
    return pairs_matrix(*chosen), pairs_matrix(split.test.select(split.test.positive))


def _users_with(matrix: Any, users: np.ndarray | None, problem: str) -> np.ndarray:
    rows = np.flatnonzero(np.diff(matrix.indptr)).astype(np.int64)
    if users is not None:
        rows = np.intersect1d(rows, users)
    if not len(rows):
        raise InputError(problem, "choose a split that leaves some pairs over, with a smaller --train-per-user")
    return rows


def _blocks(rows: np.ndarray, n_items: int, block_size: int) -> Iterator[np.ndarray]:
    """``rows`` in blocks of at most ``block_size`` users and ``BLOCK_SCORES`` scores."""
    if block_size < 1:
        raise InputError(f"block_size is {block_size}, but it must be at least 1")
    step = max(1, min(block_size, BLOCK_SCORES // max(1, n_items)))
    return (rows[start : start + step] for start in range(0, len(rows), step))
