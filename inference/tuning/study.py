"""The trials of a search, and the file that holds them: opened only where it is one, whole, and of this very search."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from inference.tuning.space import Dimension
from pyro_cvae.data.gate import opened
from pyro_cvae.errors import InputError, MachineError, PyroCvaeError

_MAGIC = b"SQLite format 3\0"
_OTHER = "choose another --storage"


@contextmanager
def open_study(
    path: Path,
    identity: dict[str, Any],
    direction: Literal["maximize", "minimize"] = "maximize",
    space: Mapping[str, BaseDistribution] | None = None,
) -> Iterator[optuna.Study]:
    """The stored trials, or a new file for them.

    Parameters: ``identity`` is what they were made with, as JSON; ``space`` what is drawn, by name, of which every
    stored trial must be. Raises InputError if the file is no such store, is damaged, or if its trials were made with
    something else; MachineError where it cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _check_file(path)
    storage = None
    try:
        url = URL.create("sqlite", database=os.fspath(path)).render_as_string()
        # no pool: what fails half-way would leave its connection open
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})
        pruner = optuna.pruners.MedianPruner()
        study = optuna.create_study(
            storage=storage, study_name="tune", direction=direction, load_if_exists=True, pruner=pruner
        )
        if [one.name.lower() for one in study.directions] != [direction]:
            raise ValueError(f"its direction is not {direction}")
        before: Any = study.user_attrs.get("identity", {})
        for name in sorted(before.keys() | identity.keys()) if before or study.trials else ():
            old, new = before.get(name), identity.get(name)
            if old != new:
                problem = f"its trials were made with {name} {_short(old)}, not {_short(new)}"
                raise InputError(problem, "give the same again, or another --storage", path=path)
        _check_trials(study, space)
    except Exception as error:  # a damaged store can fail in every way that there is
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
        if isinstance(error, PyroCvaeError | MemoryError):
            raise
        reason = " ".join(str(error.__cause__ or error).split("\n")[0].split())[:200] or type(error).__name__
        raise InputError(f"cannot hold the trials ({reason})", _OTHER, path=path) from error
    try:
        if not before:
            study.set_user_attr("identity", identity)
        yield study
    except SQLAlchemyError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise MachineError(f"cannot be written ({reason})", "free some space, or wait for others", path=path) from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _check_file(path: Path) -> None:
    """InputError unless the file is empty or SQLite's, whole, with tables and indices alone."""
    with opened(path) as stream:
        begin = stream.read(len(_MAGIC))
    if begin and begin != _MAGIC:
        raise InputError("is no file of trials (SQLite)", _OTHER, path=path)
    try:
        with closing(sqlite3.connect(path, timeout=5)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            answers = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
            kinds = {row[0] for row in connection.execute("SELECT type FROM sqlite_master")}
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        raise InputError(f"cannot be read as trials ({error})", _OTHER, path=path) from None
    if answers != ["ok"] or not kinds <= {"table", "index"}:
        raise InputError("is damaged, or no file of trials", _OTHER, path=path)


def _check_trials(study: optuna.Study, space: Mapping[str, BaseDistribution] | None) -> None:
    """ValueError where a stored trial cannot be one of this search."""
    for number, trial in enumerate(study.get_trials(deepcopy=False)):
        trial._validate()  # type: ignore[no-untyped-call,unused-ignore]
        wrong = trial.number != number
        if space is not None:
            wrong |= any(space.get(name) != drawn for name, drawn in trial.distributions.items())
            wrong |= trial.state.name in ("COMPLETE", "PRUNED") and set(trial.params) != set(space)
        recalls = trial.user_attrs.get("recalls")
        if trial.state.name == "COMPLETE":
            wrong |= trial.value is None or not math.isfinite(trial.value)
            wrong |= not isinstance(recalls, dict) or not recalls or not all(map(_is_number, recalls.values()))
            wrong |= trial.duration is None
        wrong |= not isinstance(trial.user_attrs.get("failed", ""), str)
        if wrong:
            raise ValueError(f"trial {number} is damaged")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) < 80 else text[:77] + "..."


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """A searched option as optuna has it; whole numbers where both ends are."""
    if dimension.choices:
        return CategoricalDistribution(tuple(dimension.choices))
    low, high = dimension.low, dimension.high
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: ended, stopped early, or failed for a reason; not those that were interrupted."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in ended if trial.state != TrialState.FAIL or "failed" in trial.user_attrs]


def few_enough(space: Sequence[Dimension], most: int) -> bool:
    """Whether what is searched are choices alone, of at most so many combinations."""
    return all(one.choices for one in space) and math.prod(len(one.choices) for one in space) <= most


def untried(study: optuna.Study, space: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Combinations of choices that no trial was of, in the order in which they were given."""
    tried = [trial.params for trial in finished(study)]
    names, texts = [one.name for one in space], [list(one.choices) for one in space]
    every = (dict(zip(names, drawn, strict=True)) for drawn in product(*texts))
    return [one for one in every if one not in tried]


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """The trials with a value, the best first, the earlier one where two are equal."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = 1 if study.direction.name == "MINIMIZE" else -1
    return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


def counts(study: optuna.Study) -> str:
    """How many trials count, and how they ended, in words."""
    states = [trial.state.name for trial in finished(study)]
    words = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed"}
    numbers = [f"{states.count(state)} {word}" for state, word in words.items() if state in states]
    return f"{len(states)} ({', '.join(numbers)})"
