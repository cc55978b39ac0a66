"""Recalls over splits: means, standard errors, and contrasts with 95 % t-intervals, paired over splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from analysis.over_users import LEVEL, Interval, standard_error
from analysis.replication.fits import PROTOCOLS
from analysis.replication.jobs import Job
from pyro_cvae.protocol import CUTOFFS


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

    ``recall`` is the mean over ``splits`` splits, and ``se`` its standard error.
    """
    rows = []
    for job, protocol, cutoff in product(_but_for_splits(jobs), PROTOCOLS, CUTOFFS):
        found = [*results.values(labels[job.data], job.per_user, job.method.name, cutoff, protocol).values()]
        if found:
            numbers = {"recall": np.mean(found), "se": float(standard_error(np.array(found))), "splits": len(found)}
            rows.append(_place(job, protocol, cutoff, labels) | numbers)
    return pd.DataFrame(rows)


def differences_of(results: Results, jobs: Iterable[Job], labels: Mapping[str, str]) -> pd.DataFrame:
    """A row for each data set, P, protocol, method, method ``beside`` it and M of a part.

    ``difference`` is the mean difference of recalls, paired over splits; ``low`` and ``high`` are its 95 % t-interval.
    """
    chosen = _but_for_splits(jobs)
    named = {job.method.name: job.method for job in chosen}
    rows = []
    for job, protocol, cutoff in product(chosen, PROTOCOLS, CUTOFFS):
        for other in job.method.beside:
            terms = [Term(1.0, job.method.name, job.per_user, cutoff), Term(-1.0, other, job.per_user, cutoff)]
            away = results.contrast(terms, labels[job.data], protocol) if other in named else None
            if away is not None and other != job.method.name:
                numbers = {"beside": other, "beside_family": named[other].family, "difference": away.value}
                numbers |= {"beside_label": named[other].label, "low": away.low, "high": away.high}
                rows.append(_place(job, protocol, cutoff, labels) | numbers)
    return pd.DataFrame(rows)


def _place(job: Job, protocol: str, cutoff: int, labels: Mapping[str, str]) -> dict[str, Any]:
    """What says where a number of a table belongs."""
    method = job.method
    where = {"data": labels[job.data], "per_user": job.per_user, "protocol": protocol, "cutoff": cutoff}
    return where | {"method": method.name, "label": method.label, "family": method.family, "at": method.at}


def _but_for_splits(jobs: Iterable[Job]) -> list[Job]:
    """One of all jobs that differ in the split alone."""
    return list({(job.data, job.per_user, job.method.name): job for job in jobs}.values())
