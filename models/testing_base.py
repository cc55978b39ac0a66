"""What the conformance kits have in common: how they fail, compare and draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pyro
import torch
from torch import Tensor, nn

from models.state import fill, kept
from pyro_cvae.errors import InputError

FAILURE_RATE = 1e-4
"""Probability, over seeds, that a right likelihood fails one of the comparisons with draws; the seed is fixed."""
N_DRAWS = 20_000
ANOTHER = "a copy with its arguments, parameters and buffers is another"
KEEP = (
    "keep what is learned in nn.Parameter, other tensors in register_buffer of one shape, "
    "and the rest in the constructor's arguments"
)


class Kit:
    """One likelihood, made from its class and arguments; every failure is an AssertionError with its remedy."""

    likelihood: Any

    def __init__(self, cls: type[Any], arguments: dict[str, Any]) -> None:
        self.cls, self.arguments, self.name = cls, arguments, cls.__name__
        self.likelihood = self.make()

    def run(self) -> None:
        """All checks, from the ones that others rely on to the subtle ones."""
        raise NotImplementedError

    def make(self) -> Any:
        """A fresh instance, as a fit and the opening of a run make it."""
        try:
            return self.cls(**self.arguments)
        except (TypeError, InputError) as error:
            remedy = "define all abstract methods and give the constructor's arguments"
            self.fail(f"cannot be built ({error})", remedy, error)

    def copied(self) -> Any:
        """A fresh instance with the parameters and buffers of this one, which is what a run folder holds."""
        other = self.make()
        try:
            fill(other, kept(self.likelihood))
        except InputError as error:
            self.fail(f"a fresh instance does not take what is kept of this one ({error.problem})", KEEP, error)
        return other

    def accepts(self, data: Any) -> bool:
        """Whether ``check`` accepts these data."""
        try:
            self.likelihood.check(data)
        except InputError:
            return False
        except Exception as error:
            problem = f"check raises {type(error).__name__} ({error})"
            self.fail(problem, "raise pyro_cvae.errors.InputError(problem, remedy) for what is outside", error)
        return True

    def reloaded(self) -> Any:
        """A fresh instance with the ``state_dict`` of this one."""
        other = self.make()
        try:
            other.load_state_dict(self.likelihood.state_dict())
        except RuntimeError as error:
            self.fail(f"a fresh instance does not take its state_dict ({error})", KEEP, error)
        return other

    def fail(self, problem: str, remedy: str, cause: BaseException | None = None) -> NoReturn:
        """Raise an AssertionError of this likelihood."""
        raise AssertionError(f"{self.name}: {problem}; {remedy}") from cause

    def require(self, ok: bool | Tensor, problem: str, remedy: str) -> None:
        """Fail unless it is so."""
        if not bool(ok):
            self.fail(problem, remedy)

    def close(self, found: Tensor, wanted: Tensor, problem: str, remedy: str, tolerance: float = 1e-10) -> None:
        """Fail unless both are the same up to the arithmetic."""
        if found.shape != wanted.shape:
            self.fail(f"{problem} (shape {tuple(found.shape)}, not {tuple(wanted.shape)})", remedy)
        if not torch.allclose(found, wanted, rtol=tolerance, atol=tolerance):
            worst = float((found - wanted).detach().abs().max())
            self.fail(f"{problem} (by up to {worst:.3g})", remedy)


def quantile(n_compared: int) -> float:
    """Standard errors that so many two-sided comparisons stay within, but for FAILURE_RATE of all seeds."""
    return -float(torch.special.ndtri(torch.tensor(FAILURE_RATE / (2 * n_compared))))


def moved(module: nn.Module, by: float) -> None:
    """Add noise of this standard deviation to all parameters."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))


@contextmanager
def in_float64(seed: int) -> Iterator[None]:
    """Float64 by default, Pyro's validation off, random numbers of this seed, and all as it was behind."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.random.fork_rng(devices=()), pyro.validation_enabled(False):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(before)
