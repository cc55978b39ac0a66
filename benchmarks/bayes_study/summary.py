"""What the rows say: means over splits, and paired differences with 95 % t-intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.bayes_study.store import Store
from benchmarks.study.paired import paired_interval

UNTOLD, TUNED, PLAIN = "map, defaults", "map, tuned", "map"
BAYES = "bayes, defaults"
METRICS = {
    "clicks": ("recall@50", "recall@300"),
    "stars": ("rmse", "log_score", "coverage"),
    "gaussian": ("rmse", "log_score", "coverage", "coverage_scores"),
    "new users": ("recall@50", "recall@300", "rmse", "log_score", "coverage"),
    "exploring": ("regret",),
}
"""Of each part."""
TIMED = ("clicks", "stars", "gaussian")
"""Parts in which seconds are those of one fit, or of choosing and one fit."""
COVERAGES = ("coverage", "coverage_scores")
"""Shares that are to be 0.9, of which no difference is told."""
HEADINGS = {
    "recall@50": "recall@50",
    "recall@300": "recall@300",
    "rmse": "RMSE",
    "log_score": "log score",
    "coverage": "90 % covers",
    "coverage_scores": "of scores",
    "regret": "regret",
}
LESS_IS_BETTER = ("rmse", "regret")


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, half its 95 % interval (NaN of one split), and how many splits."""

    mean: float
    half: float
    n: int

    @property
    def text(self) -> str:
        """As ``+0.0012 ± 0.0003``."""
        return f"{self.mean:+.4f} ± {self.half:.4f}"


def less(store: Store, where: tuple[str, str], metric: str, mine: str, theirs: str) -> Difference | None:
    """A metric of one model less that of another in a (part, case), over the splits of both; None without any."""
    ours, others = (store.of(*where, model, metric) for model in (mine, theirs))
    common = sorted(set(ours) & set(others))
    if not common:
        return None
    mean, half = paired_interval([ours[split] for split in common], [others[split] for split in common])
    return Difference(mean, half, len(common))


def cases(store: Store, part: str) -> list[str]:
    """The cases of a part in the order in which they came."""
    return list(dict.fromkeys(key.case for key in store.rows if key.part == part))


def models(store: Store, part: str, case: str) -> list[str]:
    """The models of a case, ``map`` first."""
    found = dict.fromkeys(key.model for key in store.rows if (key.part, key.case) == (part, case))
    return sorted(found, key=lambda name: not name.startswith("map"))


def table(store: Store, part: str) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a part: means, and differences from the tuned ``map`` (of ``exploring`` from ``map``)."""
    every = cases(store, part)
    there = [m for m in METRICS[part] if any(store.of(part, c, n, m) for c in every for n in models(store, part, c))]
    reference = PLAIN if part == "exploring" else TUNED
    headings, rows = ["case", "fit"], []
    for metric in there:
        headings += [HEADINGS[metric]] + [f"less {reference}"] * (metric not in COVERAGES)
    for case in every:
        for name in models(store, part, case):
            row = [case, name]
            for metric in there:
                row += _cells(store, (part, case), metric, (name, reference))
            rows.append([*row, _seconds(store, part, case, name)])
        rows.append([])
    return [*headings, "seconds"], rows[:-1]


def _cells(store: Store, where: tuple[str, str], metric: str, names: tuple[str, str]) -> list[str]:
    values = list(store.of(*where, names[0], metric).values())
    told = [f"{np.mean(values):.3f}" if metric in COVERAGES else f"{np.mean(values):.4f}"] if values else [""]
    if metric in COVERAGES:
        return told
    found = None if names[0] == names[1] else less(store, where, metric, *names)
    return [*told, found.text if found else ""]


def _seconds(store: Store, part: str, case: str, model: str) -> str:
    values = list(store.of(part, case, model, "seconds").values())
    return f"{np.mean(values):.1f}" if values and part in TIMED else ""


def costs(store: Store, parts: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """``bayes`` of which nothing is chosen beside ``map`` with defaults and tuned, and the seconds of each."""
    headings = ["part", "case", "metric", f"bayes less {UNTOLD}", f"bayes less {TUNED}", "bayes", UNTOLD, TUNED]
    rows = []
    asked = [(one, case) for one in parts if one in TIMED for case in cases(store, one)]
    for part, case in asked:
        metric = "recall@50" if store.of(part, case, BAYES, "recall@50") else "rmse"
        found = [less(store, (part, case), metric, BAYES, theirs) for theirs in (UNTOLD, TUNED)]
        if all(found):
            times = [_seconds(store, part, case, name) for name in (BAYES, UNTOLD, TUNED)]
            rows.append([part, case, HEADINGS[metric], *(one.text for one in found if one), *times])
    return headings, rows
