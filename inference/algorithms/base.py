"""What all inference algorithms share: init, step, posterior, and the only fit loop.

A step is an epoch (or a sweep, or a draw). The state is explicit: everything that the next step depends on, but the
random state, is in it and can be saved, so that a run that was killed goes on to the same numbers. An algorithm itself
holds data and options, which no step changes.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from inference.algorithms.kernels import kernel
from inference.algorithms.workers import ALONE, Workers
from inference.options import Options
from inference.posterior import Posterior
from inference.threads import torch_threads
from pyro_cvae.blame import plugin_failure
from pyro_cvae.errors import InputError, MachineError

State = TypeVar("State")
Snapshot = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass
class StepInfo:
    """What a step reports: its phase, the objective with its named parts in nats, and diagnostics of the content."""

    phase: str
    objective: float
    terms: dict[str, float]
    diagnostics: dict[str, float] = field(default_factory=dict)

    def row(self, name: str) -> dict[str, Any]:
        """A row of the history, the objective under its own name."""
        return {"phase": self.phase, name: self.objective, **self.terms, **self.diagnostics}


class Inference(ABC, Generic[State]):
    """An algorithm over the model: ``init``, ``step`` and ``posterior``, to be run by :func:`fit`."""

    options: Options
    workers: Workers = ALONE

    @property
    @abstractmethod
    def n_steps(self) -> int:
        """Steps of a full fit."""

    @abstractmethod
    def init(self) -> State:
        """The state before the first step, from torch's random state."""

    @abstractmethod
    def step(self, state: State) -> tuple[State, StepInfo]:
        """One epoch: the state after it, and what it reports.

        The state before is not to be used again. It may be the same object: what is large makes room for what is new.
        """

    @abstractmethod
    def posterior(self, state: State) -> Posterior:
        """What is known now."""

    @abstractmethod
    def validates(self, state: State) -> bool:
        """Whether the ratings have been seen, so that a validation recall means something."""

    @abstractmethod
    def snapshot(self, state: State) -> Snapshot:
        """The state as tensors and JSON values, without the random state."""

    @abstractmethod
    def restore(self, snapshot: Snapshot) -> State:
        """The inverse of :meth:`snapshot`."""


@dataclass
class Result(Generic[State]):
    """What the fit loop leaves: the last or best state, what it knows, and the history."""

    state: State
    posterior: Posterior
    history: list[dict[str, Any]]
    best_step: int


def fit(
    inference: Inference[State],
    *,
    validation: tuple[str, Callable[[Posterior], float]] | None = None,
    checkpoint: Callable[[dict[str, Tensor], dict[str, Any]], None] | None = None,
    resume: Snapshot | None = None,
    keep: tuple[int, Callable[[dict[str, Tensor], dict[str, Any]], None]] | None = None,
    on_step: Callable[[int, dict[str, Any]], None] = lambda step, row: None,
) -> Result[State]:
    """Run all steps, or until the validation has not got better for ``patience`` looks; the best state is kept.

    ``validation`` is what is looked at, "validation_recall" or "validation_rmse", and how it is measured;
    ``checkpoint`` is called with a snapshot at least ``checkpoint_seconds`` apart; ``resume`` is such a snapshot;
    ``keep`` is a step and what to call with the snapshot after it.
    Of several workers each calls it with the like; the first one's validation, clock and snapshots count.
    Raises MachineError, naming the step, where the objective is not finite.
    """
    options, workers = inference.options, inference.workers
    with _seeded(options):
        if resume is None:
            state, history, best = inference.init(), [], _Best()
        else:
            try:
                state, history, best = _unpack(inference, *resume)
            except (InputError, KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
                if plugin_failure(error) is not None:
                    raise
                problem = f"the checkpoint is none of this fit ({type(error).__name__}: {error})"
                raise InputError(problem, "start anew with --overwrite") from error
        written = time.monotonic()
        for step in range(len(history), inference.n_steps):
            if best.stops(options.fit.patience):
                break
            began = time.perf_counter()
            with _named_if_not_finite(step + 1):
                state, info = inference.step(state)
                bad = [name for name, value in info.terms.items() if not math.isfinite(value)]
                if bad:
                    raise _NotFinite(f"{', '.join(bad)} ({info.phase})")
            row = {"epoch": step + 1, **info.row(options.objective)}
            last = step + 1 == inference.n_steps
            due = (step + 1) % options.fit.validate_every == 0 or last
            if validation is not None and due and inference.validates(state):
                name, measure = validation
                known = inference.posterior(state)
                row[name] = workers.told(measure(known) if workers.is_first else None)
                if options.fit.patience:
                    value = -row[name] if name.endswith("rmse") else row[name]
                    best.look(value, step + 1, inference.snapshot(state))
            row["seconds"] = time.perf_counter() - began
            history.append(row)
            on_step(step + 1, row)
            if keep is not None and keep[0] == step + 1:
                keep[1](*_pack(inference.snapshot(state), history, best))
            waited = time.monotonic() - written >= options.run.checkpoint_seconds
            if checkpoint is not None and not last and workers.told(waited):
                checkpoint(*_pack(inference.snapshot(state), history, best))
                written = time.monotonic()
        if best.snapshot is not None:
            state = inference.restore(workers.told_snapshot(*best.snapshot))
        return Result(state, inference.posterior(state), history, best.step or len(history))


class _NotFinite(ValueError):
    """A part of the objective is no finite number."""


@contextmanager
def _named_if_not_finite(epoch: int) -> Iterator[None]:
    """Pyro's validation and ours, of parameters and objective, as one line that names the epoch and the part."""
    try:
        yield
    except ValueError as error:
        if not isinstance(error, _NotFinite) and "Expected parameter" not in str(error):
            raise
        first = str(error).split(" (Tensor of shape")[0].splitlines()[0]
        raise MachineError(
            f"epoch {epoch}: no finite number: {first}",
            "use a smaller --learning-rate, --pretrain-learning-rate or --factor-learning-rate, or --dtype float64",
        ) from error


@dataclass
class _Best:
    """The best validation recall so far (of an error, minus it), and the state that had it."""

    recall: float = -1e9
    step: int = 0
    looks_since: int = 0
    snapshot: Snapshot | None = None

    def look(self, recall: float, step: int, snapshot: Snapshot) -> None:
        if recall > self.recall:
            tensors = {name: tensor.clone() for name, tensor in snapshot[0].items()}
            self.recall, self.step, self.looks_since, self.snapshot = recall, step, 0, (tensors, snapshot[1])
        else:
            self.looks_since += 1

    def stops(self, patience: int) -> bool:
        return patience > 0 and self.looks_since >= patience


def _pack(snapshot: Snapshot, history: list[dict[str, Any]], best: _Best) -> Snapshot:
    tensors = {f"state.{name}": tensor for name, tensor in snapshot[0].items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    meta: dict[str, Any] = {"epoch": len(history), "state": snapshot[1], "history": history}
    meta["best"] = {"recall": best.recall, "step": best.step, "looks_since": best.looks_since}
    if best.snapshot is not None:
        tensors |= {f"best.{name}": tensor for name, tensor in best.snapshot[0].items()}
        meta["best"]["state"] = best.snapshot[1]
    return tensors, meta


def _unpack(inference: Inference[State], tensors: dict[str, Tensor], meta: dict[str, Any]) -> Any:
    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    kept = dict(meta["best"])
    best_meta = kept.pop("state", None)
    best = _Best(**kept, snapshot=None if best_meta is None else (part("best."), best_meta))
    state = inference.restore((part("state."), meta["state"]))
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return state, list(meta["history"]), best


@contextmanager
def _seeded(options: Options) -> Iterator[None]:
    """The fit's own seed, floating-point type, threads and kernels; all of them are put back afterwards."""
    dtype = torch.get_default_dtype()
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices), torch_threads(options.fit.threads or None), kernel(options.fit.kernel):
        try:
            torch.manual_seed(options.fit.seed)
            torch.set_default_dtype(getattr(torch, options.fit.dtype))
            yield
        finally:
            torch.set_default_dtype(dtype)
