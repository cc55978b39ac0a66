"""Metrics of a fitted model on the test part of a split, beside what a user would pick instead.

``evaluate`` asks for the scores of a block of users at a time and keeps a row of metrics a user; nothing of size
users x items exists. ``python -m inference.evaluate RUN... --rivals`` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_cvae.errors import InputError
from pyro_cvae.metrics import CUTOFFS, NDCG_CUTOFFS, hit_chance, metrics_of, rank_positions, recall_at

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from pyro_cvae.data.interactions import Interactions
    from pyro_cvae.data.splits import Split

    ScoreBlock = Callable[[np.ndarray], torch.Tensor]

GROUPS = ("hot", "warm", "cold")
BLOCK_SCORES = 2**26


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of one model on one split.

    Parameters:
        protocol: ``corrected`` or ``paper`` (:mod:`pyro_cvae.metrics`).
        per_user: One row a user: ``user`` (row), ``tuning`` (settings were chosen on this user's test pairs),
            ``n_test``, ``n_relevant`` (the denominator of recall), then ``recall@M`` and ``ndcg@M``.
        groups: One row for each of hot, warm and cold items (:func:`item_groups`), over headline users: ``n_items``,
            ``n_pairs`` (relevant pairs), ``n_users`` (users with such a pair), ``pooled_recall@M`` (share of those
            pairs within the first M of their user's whole ranking) and ``recall@M`` (the same share by user, averaged
            over those users). A group without pairs has no row.
    """

    protocol: str
    per_user: pd.DataFrame
    groups: pd.DataFrame
    metrics: tuple[str, ...] = field(default=())

    @property
    def n_users_evaluated(self) -> int:
        """Number of users in the headline mean."""
        return int((~self.per_user["tuning"]).sum())

    def means(self) -> dict[str, float]:
        """Headline: the mean of each metric over the users on whose test pairs no setting was chosen."""
        return _means(self.per_user.loc[~self.per_user["tuning"]], self.metrics)

    def all_user_means(self) -> dict[str, float]:
        """The mean of each metric over all users, those included on whom settings were chosen."""
        return _means(self.per_user, self.metrics)

    def to_metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` of a run folder holds: headline means, protocol, users, groups, other means if any."""
        result: dict[str, Any] = {
            **self.means(),
            "protocol": self.protocol,
            "n_users_evaluated": self.n_users_evaluated,
            "groups": {row.pop("group"): row for row in self.groups.reset_index().to_dict("records")},
        }
        if self.per_user["tuning"].any():
            result["all_users"] = {**self.all_user_means(), "n_users_evaluated": len(self.per_user)}
        return result


def evaluate(
    score_block: ScoreBlock,
    split: Split,
    *,
    cutoffs: Sequence[int] = CUTOFFS,
    protocol: str = "corrected",
    users: np.ndarray | None = None,
    block_size: int = 256,
    ndcg_cutoffs: Sequence[int] = NDCG_CUTOFFS,
) -> Evaluation:
    """Rank all candidate items of each user that has relevant ones, and average over users.

    ``score_block(users (B,)) -> (B, n_items)`` is asked for at most ``block_size`` users and 2^26 scores at once.
    Relevant are test pairs with a positive rating; candidates are all items, never-rated ones too, but not the pairs
    known from training or validation (``corrected``). A training pair of confidence 0 is missing, hence not known. A
    pair that is in the test part and the validation part, as at P = 1, is a test pair; its user is marked ``tuning``.
    ``users`` (n_chosen,) restricts to some user rows. Raises ``InputError`` where nobody has a relevant item.
    """
    import pandas as pd
    import torch

    known = _pattern([split.train, split.validation], observed=True, positive=protocol == "paper")
    test = _pattern([split.test], positive=True)
    positives = _pattern([split.train], observed=True, positive=True)
    relevant = _union(known, test) if protocol == "paper" else test
    rows = _users_with(relevant, users, f"no user has {'any' if protocol == 'paper' else 'a test'} item to rank")

    group_of = torch.from_numpy(item_groups(positives))
    pairs, hits = torch.zeros(3, dtype=torch.float64), torch.zeros(3, len(cutoffs), dtype=torch.float64)
    group_users, recalls = torch.zeros_like(pairs), torch.zeros_like(hits)
    columns: dict[str, list[np.ndarray]] = {}
    tuning = np.zeros(relevant.shape[0], bool) if split.tuning_users is None else np.asarray(split.tuning_users, bool)
    for block in _blocks(rows, relevant.shape[1], block_size):
        depth = max((*cutoffs, *ndcg_cutoffs))
        positions = rank_positions(score_block(block), known[block], test[block], depth, protocol)
        values = {"n_relevant": positions.n_relevant, **metrics_of(positions, cutoffs, ndcg_cutoffs)}
        for name, value in values.items():
            columns.setdefault(name, []).append(value.numpy())

        headline = torch.from_numpy(~tuning[block])
        cell = positions.row * 3 + group_of[positions.item]
        in_group = torch.bincount(cell, minlength=3 * len(block)).reshape(-1, 3).double() * headline[:, None]
        pairs += in_group.sum(0)
        group_users += (in_group > 0).sum(0)
        for column, cutoff in enumerate(cutoffs):
            found = torch.zeros(3 * len(block), dtype=torch.float64).index_add_(0, cell, hit_chance(positions, cutoff))
            found = found.reshape(-1, 3) * headline[:, None]
            hits[:, column] += found.sum(0)
            recalls[:, column] += (found / in_group.clamp(min=1)).sum(0)

    metrics = [name for name in columns if name != "n_relevant"]
    n_test = np.diff(test.indptr)[rows]
    per_user = pd.DataFrame(
        {"user": rows, "tuning": tuning[rows], "n_test": n_test}
        | {name: np.concatenate(blocks) for name, blocks in columns.items()}
    )
    groups = pd.DataFrame(
        {"n_items": np.bincount(group_of, minlength=3), "n_pairs": pairs.long(), "n_users": group_users.long()}
        | {f"pooled_recall@{cutoff}": hits[:, i] / pairs.clamp(min=1) for i, cutoff in enumerate(cutoffs)}
        | {f"recall@{cutoff}": recalls[:, i] / group_users.clamp(min=1) for i, cutoff in enumerate(cutoffs)},
        index=pd.Index(GROUPS, name="group"),
    )
    return Evaluation(protocol, per_user, groups[groups["n_pairs"] > 0], tuple(metrics))


def recall_on_validation(score_block: ScoreBlock, split: Split, cutoff: int = 300, block_size: int = 256) -> float:
    """Mean recall@cutoff over users with validation pairs, training items taken out: what early stopping looks at.

    Test pairs stay among the candidates, unknown as they are. Raises ``InputError`` where the split has no validation.
    """
    if split.validation is None or not len(split.validation):
        raise InputError("the split has no validation part", "choose one with --validation, for instance 0.1")
    known, validation = _pattern([split.train], observed=True), _pattern([split.validation], positive=True)
    rows = _users_with(validation, None, "no user has a validation pair with a positive rating")
    total = 0.0
    for block in _blocks(rows, validation.shape[1], block_size):
        positions = rank_positions(score_block(block), known[block], validation[block], cutoff)
        total += float(recall_at(positions, cutoff).sum())
    return total / len(rows)


def item_groups(positives: Any) -> np.ndarray:
    """Group of each item, (n_items,), an index into ``GROUPS``, from the positive training pairs (n_users, n_items).

    cold: no positive training rating. warm: from 1 to the median number of ratings of the items that have any. hot:
    more than that median.
    """
    counts = np.bincount(positives.indices, minlength=positives.shape[1])
    median = np.median(counts[counts > 0]) if counts.any() else 0.0
    return np.where(counts == 0, 2, np.where(counts <= median, 1, 0)).astype(np.int64)


def _pattern(parts: Sequence[Interactions | None], observed: bool = False, positive: bool = False) -> Any:
    """CSR matrix (n_users, n_items) of ones at the pairs of all parts that are observed or positive, where asked."""
    import scipy.sparse

    users, items = [], []
    for part in parts:
        if part is None:
            continue
        shape = part.n_users, part.n_items
        keep = np.ones(len(part), bool)
        if observed and part.confidences is not None:
            keep &= part.confidences != 0.0
        if positive:
            keep &= part.ratings > 0.0
        users.append(part.users[keep])
        items.append(part.items[keep])
    rows, columns = np.concatenate(users), np.concatenate(items)
    matrix = scipy.sparse.coo_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape).tocsr()
    matrix.sum_duplicates()
    return matrix


def _union(first: Any, second: Any) -> Any:
    union = (first + second).tocsr()
    union.sort_indices()
    return union


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


def _means(frame: pd.DataFrame, metrics: Sequence[str]) -> dict[str, float]:
    if not len(frame):
        raise InputError("every user with test items is a tuning user", "use all_user_means, or a smaller --validation")
    return {name: float(frame[name].mean()) for name in metrics}
