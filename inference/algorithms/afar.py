"""Rows of the other side that lie with other workers: each gets those that its own cells meet.

Which these are the pattern says, once. In every half-step each worker then sends each other one the rows that that one
asked for. Sums over all rows of the side are made of every worker's own rows, and added up.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from inference.algorithms.workers import Workers
from models.gaussians import Gaussians


class Afar:
    """Where the rows that this worker's cells meet come from, and who wants which of its own.

    ``met`` (n_met,) are the numbers of these rows among all, ascending, ``places`` (n_stored,) each cell's among them.
    """

    def __init__(self, others: Tensor, spans: list[slice], workers: Workers) -> None:
        """Ask for the rows ``others`` (n_stored,), of which each worker holds one of the ``spans``."""
        self.workers = workers
        self.met, self.places = torch.unique(others, return_inverse=True)
        ends = torch.tensor([span.stop for span in spans], device=self.met.device)
        upto = torch.searchsorted(self.met, ends)
        asked = torch.zeros(workers.size, workers.size, dtype=torch.int64)  # by whom, of whom
        asked[workers.rank] = torch.diff(upto, prepend=upto.new_zeros(1)).cpu()
        asked = workers.add(asked)
        self._get, self._give = asked[workers.rank].tolist(), asked[:, workers.rank].tolist()
        self._wanted = workers.exchanged(self.met, self._get, self._give) - spans[workers.rank].start

    def rows(self, own: Gaussians) -> Gaussians:
        """Q of the rows that are met, from this worker's ``own`` rows; points or diagonal Normals."""
        variance = None if own.variance is None else self.numbers(own.variance)
        return replace(own, loc=self.numbers(own.loc), variance=variance)

    def numbers(self, own: Tensor) -> Tensor:
        """The rows that are met of any numbers by row, (n_met, ...)."""
        return self.workers.exchanged(own.index_select(0, self._wanted), self._give, self._get)
