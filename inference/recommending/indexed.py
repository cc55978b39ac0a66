"""The best items through an index of faiss, which looks at some of them only, and so misses some.

The items are in clusters of vectors of like direction, 4 sqrt(n_items) of them, of which those are searched whose
centres have the largest inner products with u. How much is found depends on the data:
:meth:`inference.recommending.lists.Lists.recall` measures it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inference.draws import Draws
from inference.recommending.ranking import Candidates
from pyro_cvae.errors import InputError, MachineError

if TYPE_CHECKING:
    from inference.posterior import Posterior

USERS_AT_ONCE = 1024
PER_CLUSTER = 64
"""Items, at most, that centres are found by, for each of them."""
LEAST_ITEMS = 1000
"""Items below which there is one cluster, so that nothing is missed."""


class Indexed:
    """An index of the items ``allowed``, bool (n_items,), by their means; ``probes`` clusters are searched for a user.

    Raises MachineError without faiss, InputError for stored draws, whose scores are no inner products of means.
    """

    def __init__(self, posterior: Posterior, allowed: Tensor, probes: int) -> None:
        if isinstance(posterior, Draws):
            raise InputError("scores of stored draws are no inner products of vectors", "leave out --index")
        faiss = _faiss()
        faiss.omp_set_num_threads(torch.get_num_threads())
        self._items = allowed.nonzero().squeeze(-1)
        vectors = posterior.v_loc[self._items].numpy().astype(np.float32)
        clusters = round(4 * len(vectors) ** 0.5) if len(vectors) >= LEAST_ITEMS else 1
        centres = faiss.IndexFlatIP(vectors.shape[1])
        self._index = faiss.IndexIVFFlat(centres, vectors.shape[1], clusters, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.max_points_per_centroid = PER_CLUSTER
        self._index.nprobe = min(probes, clusters)
        self._index.train(vectors)
        self._index.add(vectors)

    def best(self, posterior: Posterior, top: int, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """As :func:`inference.recommending.ranking.best_items` of all users of the posterior, as far as it is found."""
        n_users, top = len(posterior.u_loc), min(top, len(posterior.v_loc))
        values = torch.full((n_users, top), -torch.inf, dtype=posterior.v_loc.dtype)
        items = torch.zeros(n_users, top, dtype=torch.int64)
        for block in torch.arange(n_users).split(USERS_AT_ONCE):
            u = posterior.u_loc[block]
            most_seen = 0 if candidates.seen is None else int(np.diff(candidates.seen[block.numpy()].indptr).max())
            deep = min(top + most_seen, self._index.ntotal)
            found = torch.from_numpy(self._index.search(u.numpy().astype(np.float32), deep)[1])
            there, near = found >= 0, self._items[found.clamp(min=0)]
            scores = torch.einsum("nk,nlk->nl", u, posterior.v_loc[near]).masked_fill(~there, -torch.inf)
            if candidates.seen is not None:
                scores = scores.masked_fill(torch.from_numpy(_among(candidates.seen[block.numpy()], near)), -torch.inf)
            order = scores.sort(dim=1, descending=True, stable=True).indices[:, :top]
            length = order.shape[1]
            values[block, :length] = scores.gather(1, order)
            items[block, :length] = near.gather(1, order)
        return values, items


def recall(exact: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> float:
    """The share of the items of exact lists that are in others, each as (values, items), (n_users, top)."""
    listed = torch.isfinite(exact[0])
    there = (exact[1][:, :, None] == found[1].masked_fill(~torch.isfinite(found[0]), -1)[:, None, :]).any(-1)
    return float(there[listed].double().mean())


def _among(seen: Any, items: Tensor) -> np.ndarray:
    """Whether each of the items (n_users, n) of a user is stored in the user's row of ``seen``."""
    rows = np.repeat(np.arange(seen.shape[0], dtype=np.int64), np.diff(seen.indptr))
    keys = np.arange(len(items), dtype=np.int64)[:, None] * seen.shape[1] + items.numpy()
    return np.isin(keys, rows * seen.shape[1] + seen.indices)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MachineError(
            "--index faiss needs the package faiss-cpu", "install it with: pip install faiss-cpu"
        ) from None
    return faiss
