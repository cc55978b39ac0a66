"""The parts by name, with the data that each needs."""

from __future__ import annotations

from typing import Any

from benchmarks import stars as stars_study
from benchmarks.bayes_study import exploring, stars
from benchmarks.bayes_study.store import Store
from benchmarks.study.movielens import fetch


def measure(store: Store, part: str, arguments: Any) -> None:
    """Measure what is not there yet of a part."""
    if part == "exploring":
        exploring.run(store, arguments.splits)
    elif part == "stars":
        stars.run(store, stars_study.read(arguments.films or fetch()), arguments.splits, arguments.threads)
