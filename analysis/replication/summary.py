"""Recalls over splits: means, standard errors, and contrasts with 95 % t-intervals, paired over splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from analysis.over_users import LEVEL, Interval, standard_error
from analysis.replication.fits import PROTOCOLS
from analysis.replication.jobs import Job
from pyro_cvae.protocol import CUTOFFS

REFERENCE = "paper"
"""The method from which differences are taken: the CVAE in the paper's configuration."""


def t_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """The mean of values of some splits, (n_splits,), and its 95 % t-interval; the bounds of one value are NaN."""
    found = np.asarray(values, float)
    half = float(t.ppf((1 + LEVEL) / 2, len(found) - 1) * standard_error(found)) if len(found) > 1 else np.nan
    return Interval(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half)


@dataclass(frozen=True)
class Term:
    """A weight times the mean recall of a method; ``per_user`` 1 or 10, ``metric`` an M of recall@M or a column.

    ``data`` names a data set; by default that at hand.
    """

    weight: float
    method: str
    per_user: int
    metric: int | str
    data: str = ""


class Results:
    """Numbers of finished fits by data set, P, method, and seed of the split."""

    def __init__(self, jobs: Iterable[Job], rows: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> None:
        self._found: dict[tuple[str, int, str], dict[int, Mapping[str, Any]]] = {}
        for job in jobs:
            if job.key in rows:
                place = labels[job.data], job.per_user, job.method.name
                self._found.setdefault(place, {})[job.seed] = rows[job.key]

    @property
    def data(self) -> list[str]:
        """The data sets with a fit."""
        return list(dict.fromkeys(data for data, _, _ in self._found))

    def row(self, data: str, per_user: int, method: str, seed: int) -> Mapping[str, Any] | None:
        """The row of a fit, or ``None``."""
        return self._found.get((data, per_user, method), {}).get(seed)

    def values(self, data: str, per_user: int, method: str, metric: int | str, protocol: str) -> dict[int, float]:
        """A metric by seed of the split: recall@M of an M; ``precision``; or a number of the last step of the fit."""
        rows = self._found.get((data, per_user, method), {})
        if isinstance(metric, int):
            return {seed: row[protocol][str(metric)] for seed, row in rows.items()}
        numbers = {seed: row.get(metric, row.get("last", {}).get(metric)) for seed, row in rows.items()}
        return {seed: value for seed, value in numbers.items() if value is not None}

    def contrast(self, terms: Sequence[Term], data: str, protocol: str, base: Sequence[Term] = ()) -> Interval | None:
        """The sum of some terms with its interval over the splits that all have; ``None`` where there are none.

        With a ``base`` it is the ratio of both sums, split by split.
        """
        by_term = {one: self.values(one.data or data, one.per_user, one.method, one.metric, protocol)
                   for one in (*terms, *base)}  # fmt: skip
        seeds = sorted(set.intersection(*(set(found) for found in by_term.values())))
        if not seeds:
            return None
        above = [sum(one.weight * by_term[one][seed] for one in terms) for seed in seeds]
        if not base:
            return t_interval(above)
        below = [sum(one.weight * by_term[one][seed] for one in base) for seed in seeds]
        return t_interval([over / under if under else np.nan for over, under in zip(above, below, strict=True)])


def table_of(results: Results, jobs: Iterable[Job], labels: Mapping[str, str]) -> pd.DataFrame:
    """A row for each data set, P, protocol, method and M of a part.

    Columns: ``recall`` the mean over splits and ``se`` its standard error; ``less_paper`` the mean difference to the
    CVAE in the paper's configuration, paired over splits, with its 95 % t-interval ``low`` and ``high``.
    """
    rows = []
    for job in _but_for_splits(jobs):
        data, per_user, method = labels[job.data], job.per_user, job.method
        for protocol in PROTOCOLS:
            for cutoff in CUTOFFS:
                found = [*results.values(data, per_user, method.name, cutoff, protocol).values()]
                if not found:
                    continue
                terms = [Term(1.0, method.name, per_user, cutoff), Term(-1.0, REFERENCE, per_user, cutoff)]
                away = None if method.name == REFERENCE else results.contrast(terms, data, protocol)
                row = {"data": data, "per_user": per_user, "protocol": protocol, "method": method.name}
                row |= {"label": method.label, "family": method.family, "at": method.at, "cutoff": cutoff}
                row |= {"recall": np.mean(found), "se": float(standard_error(np.array(found))), "splits": len(found)}
                bounds = (np.nan,) * 3 if away is None else (away.value, away.low, away.high)
                rows.append(row | dict(zip(("less_paper", "low", "high"), bounds, strict=True)))
    return pd.DataFrame(rows)


def _but_for_splits(jobs: Iterable[Job]) -> list[Job]:
    """One of all jobs that differ in the split alone."""
    return list({(job.data, job.per_user, job.method.name): job for job in jobs}.values())
