"""The runs of a comparison: whether they can stand side by side, and how each was fitted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from inference.fitting import Fit
from inference.stored import stored_options
from models.build import contents_of, rating_likelihood
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError
from pyro_cvae.runs import Run, open_run
from pyro_cvae.trust import Trust

OBJECTIVES = {"elbo": "ELBO", "map_objective": "MAP objective", "log_joint": "log joint"}
OF_OBJECTIVES = ("ratings", "contents", "content", "scaling", "unrated")
"""Facts of a run without which an objective is of other things."""
NO_BOUND = {
    "tempered": "a tempered fit (lambda_r or the weight of the KL is not 1), of which the untempered value is shown",
    "pseudo_likelihood": "a pseudo-likelihood of the content, so that the objective is of no probability of the data",
}


def predicts_ratings(run: Run) -> bool:
    """True for a run of explicit ratings, which are predicted as numbers."""
    with run.reading():
        return rating_likelihood(stored_options(run).model).explicit


def contents_read(fit: Fit) -> list[str]:
    """Names of the contents that the model of a fit reads."""
    if not fit.model.has_content:
        return []
    return list(contents_of(fit.dataset, fit.model.content, fit.options.model.content)[0])


def open_runs(paths: Sequence[str | os.PathLike[str]], trust: Trust = ()) -> list[Run]:
    """Open runs; InputError, naming the run, for one of other data or another split than the first, or given twice."""
    opened: list[Run] = []
    for path in paths:
        run = open_run(path, trust)
        if any(run.path == other.path for other in opened):
            raise InputError("is given twice", "name each run once", path=path)
        for name, what in (("data", "other data"), ("split", "another split")):
            mine, first = ((one.config.get("fingerprints") or {}).get(name) for one in (run, (opened or [run])[0]))
            if mine != first:
                problem = f"was fitted to {what} than {paths[0]}"
                raise InputError(problem, "compare runs of one data set and one split", path=path)
        opened.append(run)
    return opened


def short_names(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The last parts of the paths, where these differ, otherwise the paths."""
    last = [Path(path).absolute().name for path in paths]
    return last if len(set(last)) == len(last) else [os.fspath(path) for path in paths]


def facts(fit: Fit, run: Run) -> dict[str, Any]:
    """How a run was fitted, the objective of the state that was kept (nats) and the seconds of all epochs."""
    history, kept = fit.history, int(fit.metrics.get("best_epoch") or len(fit.history))
    objective = str(run.config.get("objective"))
    model = run.config["options"]
    return {
        "run": os.fspath(run.path),
        "method": run.config["command"],
        "mode": model.get("mode", ""),
        "posterior": fit.posterior.kind,
        "factors": fit.posterior.n_factors,
        "ratings": model.get("rating_likelihood", "confidence-normal"),
        "biases": model.get("biases", "off"),
        "contents": ", ".join(contents_read(fit)),
        "content": model.get("content_likelihood", "") if fit.model.item_prior.generates else "",
        "scaling": model.get("scaling", "") if fit.model.has_content else "",
        "unrated": model.get("unrated", ""),
        "objective": objective,
        "value": float(history[kept - 1].get(objective, np.nan)) if history else np.nan,
        "tempered": bool(run.config.get("tempered")),
        "pseudo_likelihood": bool(run.config.get("pseudo_likelihood")),
        "epochs": len(history),
        "seconds": float(sum(row.get("seconds", np.nan) for row in history)),
        "seed": model.get("seed"),
    }


def objective_label(objective: str) -> str:
    """The name of an objective with its unit."""
    return OBJECTIVES.get(objective, objective.replace("_", " ")) + ", nats"


def marks(row: Mapping[Any, Any], pseudo: str = "pseudo") -> str:
    """What an objective is to be marked with, from a row of :func:`facts`: tempered, of a pseudo-likelihood."""
    words = {"tempered": "tempered", "pseudo_likelihood": pseudo}
    return "".join(f" ({word})" for name, word in words.items() if row[name])


def comparability(runs: pd.DataFrame) -> list[str]:
    """What forbids to compare objectives of these runs, in words; empty where nothing does."""
    notes = []
    for objective, group in runs.groupby("objective", sort=False):
        differ = [name for name in OF_OBJECTIVES if group[name].nunique() > 1]
        label = OBJECTIVES.get(str(objective), str(objective))
        if differ:
            notes.append(f"The {label}s are of different things: the runs differ in {', '.join(differ)}.")
    notes += [f"{', '.join(runs.loc[runs[n], 'model'])}: {why}." for n, why in NO_BOUND.items() if runs[n].any()]
    if runs["objective"].nunique() > 1:
        shown = " and ".join(OBJECTIVES.get(name, name) for name in runs["objective"].unique())
        notes.append(f"{shown} are different numbers and cannot be compared.")
    return notes


def history_of(fit: Fit) -> pd.DataFrame:
    """The epochs that saw ratings, with ``elapsed``, the seconds from the beginning of the fit."""
    frame = pd.DataFrame(fit.history)
    frame["elapsed"] = frame["seconds"].cumsum() if "seconds" in frame else np.arange(len(frame))
    return frame[frame["ratings"].notna()] if "ratings" in frame else frame


def split_words(split: Split) -> str:
    """How the data were split, in words."""
    facts = {name: value for name, value in split.protocol.items() if name not in ("kind", "validation")}
    words = [str(split.protocol.get("kind", "given")), *(f"{name} {value}" for name, value in facts.items())]
    return "split " + ", ".join(words)
