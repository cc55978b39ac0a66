"""Minibatch gradients that workers share out: each takes a part of every minibatch, and gradients are added up.

A minibatch's parts of the objective are scaled to all items. With n_w of its n items the worker w has

    sum_w (n_w / n) terms_w = terms,

of what depends on single items and of what does not, such as KL(q(U) || p(U)). So the sum of gradients weighted by
n_w / n is that of the whole minibatch, and a step is the same for any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from inference.algorithms.shared_noise import PartOfNoise
from inference.algorithms.standard_scale import move
from inference.algorithms.workers import Workers
from models.base import FactorModel
from models.observations import Batch
from models.state import fill, kept


class Shares:
    """This worker's shares of minibatches, and what keeps networks and random states of all workers the same."""

    def __init__(self, workers: Workers) -> None:
        self._workers, self._alone = workers, workers.size == 1

    @contextmanager
    def of(self, batch: Batch) -> Iterator[tuple[Batch, float]]:
        """This worker's items of a minibatch, and their share of it, 0 where it has none.

        While it lasts, noise is that of one worker alone.
        """
        if self._alone:
            yield batch, 1.0
            return
        n = len(batch.items)
        part = self._workers.share(n)
        rows = torch.arange(n, device=batch.items.device)[part]
        inputs = batch.inputs.select(rows)
        content = inputs if batch.content is batch.inputs else batch.content.select(rows)
        columns = batch.columns.select(rows)
        own = replace(batch, items=batch.items[part], content=content, inputs=inputs, columns=columns)
        with PartOfNoise(n, part):
            yield own, len(rows) / n

    @staticmethod
    def weighted(loss: Tensor, share: float) -> Tensor:
        """The loss times the share of the minibatch that it is of."""
        return loss if share == 1.0 else share * loss

    @torch.no_grad()
    def add_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Let every gradient be the sum of the workers', in place; one that nobody has stays ``None``."""
        if self._alone:
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        having = self._workers.add(torch.tensor([float(one.grad is not None) for one in parameters])).tolist()
        parameters = [parameter for parameter, somebody in zip(parameters, having, strict=True) if somebody]
        for dtype in {parameter.dtype for parameter in parameters}:
            own = [parameter for parameter in parameters if parameter.dtype == dtype]
            parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in own]
            summed = self._workers.add(torch.cat([part.flatten() for part in parts]))
            for parameter, gradient in zip(own, summed.split([one.numel() for one in own]), strict=True):
                parameter.grad = gradient.view_as(parameter)

    def totals(self, sums: dict[str, float]) -> dict[str, float]:
        """Sums by name over all workers."""
        if self._alone:
            return sums
        names = self._workers.told(list(sums))
        values = torch.tensor([sums.get(name, 0.0) for name in names], dtype=torch.float64)
        return dict(zip(names, self._workers.total(values).tolist(), strict=True))

    def same_start(self, model: nn.Module) -> None:
        """Networks and random state as the first worker has them: another machine's may differ in the last bit."""
        self.same_epoch(model)

    def same_epoch(self, *modules: nn.Module) -> None:
        """The same of several modules, at the beginning of an epoch."""
        if self._alone:
            return
        for module in modules:
            self._workers.same(kept(module).values())
        random = torch.get_rng_state()
        self._workers.same([random])
        torch.set_rng_state(random)

    def same_model(self, model: FactorModel) -> None:
        """What the first worker has found of a model: precisions, trials, and tensors that others have not yet."""
        if self._alone:
            return
        said = self._workers.told({"precisions": model.precisions(), "trials": model.trials})
        move(said["precisions"], model)
        model.trials = said["trials"]
        tensors = self._workers.told_tensors(kept(model))
        fill(model, {name: tensor.to(next(model.tensors_of_its_type()).device) for name, tensor in tensors.items()})
