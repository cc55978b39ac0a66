"""The searched space: options with their ranges and choices, checked before anything is fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.commands import option_of, read_value
from inference.options import DataOptions, Options
from inference.tuning.options import pieces_of
from pyro_cvae.errors import InputError


@dataclass(frozen=True)
class Dimension:
    """One searched option: a range of numbers, or choices, by the text that the user gave for each."""

    name: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: dict[str, Any] = field(default_factory=dict)

    @property
    def ends(self) -> list[Any]:
        """All choices, or the two ends."""
        return list(self.choices.values()) or [self.low, self.high]

    def value(self, drawn: Any) -> Any:
        """The option's value for what optuna drew: fractions are rounded to six digits, to be read by people."""
        if self.choices:
            return self.choices[drawn]
        return min(max(float(f"{drawn:.6g}"), self.low), self.high) if isinstance(drawn, float) else drawn

    def drawn(self, value: Any) -> Any:
        """The inverse; ``None`` for a value outside."""
        if self.choices:
            return next((text for text, choice in self.choices.items() if choice == value), None)
        return value if self.low <= value <= self.high else None


def dimensions(search: Sequence[str], base: Options) -> tuple[Dimension, ...]:
    """The searched space by name, from the texts of ``--search``, checked against the options of ``base``.

    Raises InputError for a name that is no option of the model or the fit, for a value of the wrong type, and for one
    that the option can take neither beside the base settings nor beside the lowest or highest of the other options.
    """
    space = [_dimension(text, base) for text in search]
    backgrounds = [{}, *({one.name: one.ends[end] for one in space} for end in (0, -1))]
    for one in space:
        for value in one.ends:
            problems = [_problem(base, beside | {one.name: value}) for beside in backgrounds]
            if all(problems):
                raise InputError(f"--search: {problems[0]}")
    return tuple(sorted(space, key=lambda one: one.name))


def settings(params: dict[str, Any], space: Sequence[Dimension], base: Options) -> Options:
    """The options of a trial."""
    return _with(base, {one.name: one.value(params[one.name]) for one in space})


def _dimension(text: str, base: Options) -> Dimension:
    """The option that one text of ``--search`` names, by itself."""
    classes = Options.classes(base.method_name)[:-1]
    name, pieces, is_range = pieces_of(text)
    option = option_of(classes, name)
    if option.owner is DataOptions and name != "scaling":
        raise InputError(f"--search has {name}, which says what is fitted, not how", f"give {option.flag} instead")
    if name.startswith("rating_likelihood"):
        problem = f"--search has {name}, with which precisions and biases have other defaults"
        raise InputError(problem, "search with each by itself, given as an option")
    if not is_range:
        return Dimension(name, choices={piece: read_value(classes, name, piece) for piece in pieces})
    if not option.is_number:
        raise InputError(f"--search has {text!r}, but {name} is no number", f"give choices, {name}=a,b,c")
    low, high = (read_value(classes, name, piece) for piece in pieces[:2])
    if not -math.inf < low < high < math.inf or ("log" in pieces and low <= 0):
        raise InputError(f"--search has {text!r}", "low must be below high, and with log above 0")
    return Dimension(name, low, high, "log" in pieces)


def _problem(base: Options, values: dict[str, Any]) -> str:
    try:
        _with(base, values)
    except InputError as error:
        return str(error)
    return ""


def _with(base: Options, values: dict[str, Any]) -> Options:
    """The base settings with other values."""
    if values.get("content_likelihood", base.model.content_likelihood) != base.model.content_likelihood:
        values = {"content_likelihood_args": {}} | values  # those of the base belong to its own class
    return Options.of(base.method_name, **base.to_dict() | values)
