"""Workers of one fit: this process alone, or several that torchrun has started.

All workers run the same code on the same options. What they share out and bring together again goes through the methods
of :class:`Workers`; alone each of them gives back what it was given. :func:`here` says which workers this process is
one of: under ``torchrun`` those of its job, by :mod:`torch.distributed` (gloo between CPUs, nccl between GPUs).

Source: the sums and rows that least squares by turns has to exchange are those of Zhou, Wilkinson, Schreiber and Pan,
AAIM 2008.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from inference.algorithms.heartbeat import Heartbeat
from inference.algorithms.meeting import meet
from pyro_cvae.errors import MachineError, as_known

if dist.is_available():  # its functions would keep a group that there is when it is imported
    import torch.distributed.nn.functional
Made = TypeVar("Made")
Snapshot = tuple[dict[str, Tensor], dict[str, Any]]
PATIENCE = timedelta(days=7)
"""How long a worker waits for another that is alive: the first may look for settings while others wait."""


class Workers:
    """One worker, which is all of them; see the module's docstring."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes and speaks for all."""
        return self.rank == 0

    def spans(self, weights: Tensor) -> list[slice]:
        """Rows of each worker: contiguous, all of them, with like sums of ``weights`` (n_rows,) and one row at least.

        A worker has none where there are fewer rows than workers.
        """
        n_rows, order = len(weights), torch.arange(self.size - 1)
        if not n_rows:
            return [slice(0, 0)] * self.size
        reached = (1 + weights.double()).cumsum(0).cpu()  # a row without cells costs something too
        cuts = torch.searchsorted(reached, reached[-1] * (order + 1).double() / self.size) + 1
        cuts = (cuts - order).cummax(0).values + order if self.size > 1 else cuts
        first, last = (order + 1).clamp(max=n_rows), (n_rows - self.size + 1 + order).clamp(min=0)
        ends = torch.minimum(cuts, torch.maximum(first, last)).tolist()
        return [slice(begin, end) for begin, end in pairwise([0, *ends, n_rows])]

    def share(self, n: int) -> slice:
        """This worker's share of ``n`` rows of equal weight; the first has one if anybody has."""
        begin, end = (-(-n * worker // self.size) for worker in (self.rank, self.rank + 1))
        return slice(begin, end)

    def total(self, value: Any) -> Any:
        """The sum of a tensor, or of a number, over all workers, in float64 where there are several."""
        return value

    def add(self, tensor: Tensor) -> Tensor:
        """The same in place, and in the tensor's own type."""
        return tensor

    def add_at(self, tensor: Tensor, worker: int) -> Tensor:
        """The sum over all workers, in place, at one of them; what the others have is undefined."""
        return tensor

    def sent(self, tensor: Tensor, sender: int) -> Tensor:
        """What one of the workers has, in place."""
        return tensor

    def rows(self, own: Tensor, spans: list[slice], last: Tensor | None = None) -> Tensor:
        """The rows of all workers, in order, from each one's ``own``, and behind them those that all know, ``last``."""
        return own if last is None else torch.cat([own, last])

    def rows_at_first(self, own: Tensor, spans: list[slice], last: Tensor | None = None) -> Tensor | None:
        """The same at the first worker, ``None`` at the others."""
        return self.rows(own, spans, last)

    def exchanged(self, rows: Tensor, give: list[int], get: list[int]) -> Tensor:
        """So many rows from each worker, ``get``, for as many of ``rows``, in order, as each is given, ``give``."""
        return rows

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Let tensors be those of the first worker, in place."""

    def told(self, value: Any) -> Any:
        """What the first worker says, of values as JSON has them."""
        return value

    def told_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by name as the first worker has them, on the CPU; the others need not know names and shapes."""
        return dict(tensors)

    def told_snapshot(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Snapshot:
        """The first worker's snapshot of a fit."""
        return self.told_tensors(tensors), self.told(meta)

    def by_first(self, work: Callable[[], Made]) -> Made | None:
        """What the first worker's ``work`` gives, and ``None`` of the others, which wait for it.

        Its error is raised there alone. The others end quietly with the same exit code.
        """
        return work()

    def wait(self) -> None:
        """Go on when all have come here."""


ALONE = Workers()


class Group(Workers):
    """Workers of a :mod:`torch.distributed` group that has been made."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def total(self, value: Any) -> Any:
        """The sum over all workers, in float64; of numbers a float."""
        if isinstance(value, Tensor):
            summed = value.detach().double().clone()
            dist.all_reduce(summed)
            return summed
        summed = torch.tensor(float(value), dtype=torch.float64)
        dist.all_reduce(summed)
        return float(summed)

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all workers, in place."""
        whole = tensor.contiguous()
        dist.all_reduce(whole)
        return whole if whole is tensor else tensor.copy_(whole)

    def add_at(self, tensor: Tensor, worker: int) -> Tensor:
        """The sum over all workers, at one of them."""
        tensor = tensor.contiguous()
        dist.reduce(tensor, worker)
        return tensor

    def sent(self, tensor: Tensor, sender: int) -> Tensor:
        """What one of the workers has."""
        tensor = tensor.contiguous()
        dist.broadcast(tensor, sender)
        return tensor

    def rows(self, own: Tensor, spans: list[slice], last: Tensor | None = None) -> Tensor:
        """Each worker's rows at their places, sent by the one that has them."""
        whole = _room(own, spans, last)
        whole[spans[self.rank]] = own
        self._send(whole, spans)
        return whole

    def rows_at_first(self, own: Tensor, spans: list[slice], last: Tensor | None = None) -> Tensor | None:
        """Each worker's rows, one worker after the other."""
        if not self.is_first:
            if len(own):
                dist.send(own.contiguous(), 0)
            return None
        whole = _room(own, spans, last)
        whole[spans[0]] = own
        for sender, span in enumerate(spans[1:], start=1):
            if span.start < span.stop:
                dist.recv(whole[span], sender)
        return whole

    def exchanged(self, rows: Tensor, give: list[int], get: list[int]) -> Tensor:
        """What all others have for this one, one worker after the other."""
        found = rows.new_empty(sum(get), *rows.shape[1:])
        dist.all_to_all_single(found, rows.contiguous(), get, give)
        return found

    @staticmethod
    def _send(whole: Tensor, spans: list[slice]) -> None:
        parts = [(sender, whole[span]) for sender, span in enumerate(spans)]
        works = [dist.broadcast(part, sender, async_op=True) for sender, part in parts if len(part)]
        for work in works:
            work.wait()

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Send each from the first worker."""
        for tensor in tensors:
            if tensor.is_contiguous():
                dist.broadcast(tensor.detach(), 0)
            else:
                whole = tensor.detach().contiguous()
                dist.broadcast(whole, 0)
                tensor.detach().copy_(whole)

    def told(self, value: Any) -> Any:
        """Send the first worker's value as JSON."""
        said = json.dumps(value).encode() if self.is_first else b""
        length = torch.tensor(len(said))
        dist.broadcast(length, 0)
        line = torch.empty(int(length), dtype=torch.uint8)
        if said:
            line.copy_(torch.frombuffer(bytearray(said), dtype=torch.uint8))
        dist.broadcast(line, 0)
        return json.loads(line.numpy().tobytes())

    def told_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names and shapes first, then each tensor."""
        forms = [[name, list(one.shape), str(one.dtype).removeprefix("torch.")] for name, one in tensors.items()]
        found = {}
        for name, shape, dtype in self.told(forms):
            own = tensors[name].cpu().contiguous() if self.is_first else torch.empty(shape, dtype=getattr(torch, dtype))
            dist.broadcast(own, 0)
            found[name] = own
        return found

    def by_first(self, work: Callable[[], Made]) -> Made | None:
        """Work, and tell the exit code of an error."""
        made, failed = None, None
        if self.is_first:
            try:
                made = work()
            except Exception as error:
                failed = error
        code = self.told(None if failed is None else getattr(as_known(failed), "exit_code", 1))
        if failed is not None:
            raise failed
        if code is not None:
            raise SystemExit(code)
        return made

    def wait(self) -> None:
        """Have everybody say a number."""
        self.total(0.0)


def _room(own: Tensor, spans: list[slice], last: Tensor | None) -> Tensor:
    """A tensor for all rows, the ``last`` of them in it."""
    n_rows = spans[-1].stop
    whole = own.new_empty(n_rows + (0 if last is None else len(last)), *own.shape[1:])
    if last is not None:
        whole[n_rows:] = last
    return whole


def here() -> Workers:
    """The workers that this process is one of; MachineError where they do not find one another."""
    if dist.is_available() and dist.is_initialized():
        return Group() if dist.get_world_size() > 1 else ALONE
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    return _joined()


@cache
def _joined() -> Group:
    """Join the job that torchrun has started, and listen for the others from now on.

    The group's threads have ended when Python exits: one that gave a tensor back then would end the process by abort
    (134).
    """
    backend = "cpu:gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend += ",cuda:nccl"
    try:
        store, name, rank, size = meet(PATIENCE)
        dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=size)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise MachineError(f"the workers do not find one another: {reason}", "start them with torchrun") from error
    Heartbeat.start(name, rank, size)
    atexit.register(leave)
    return Group()


def job() -> str:
    """The name of the job that torchrun has started, "" without one."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def restarted_job() -> str:
    """The same where it may have been started again; a job without a name ("none") only by what torchrun counts."""
    unnamed, restarts = job() == "none", os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return "" if unnamed and restarts == "0" else job()


def leave() -> None:
    """Say goodbye to the others at the end of a command; alone nothing."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        Heartbeat.stop()
        dist.destroy_process_group()
