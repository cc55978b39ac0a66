"""The parts by name, with the data that each needs."""

from __future__ import annotations

from typing import Any

from benchmarks import stars as stars_study
from benchmarks.bayes_study import clicks, exploring, gaussian, new_users, stars
from benchmarks.bayes_study.store import Store
from benchmarks.study.movielens import fetch
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset


def films(arguments: Any) -> Dataset:
    """MovieLens-100k with its stars."""
    return stars_study.read(arguments.films or fetch())


def measure(store: Store, part: str, arguments: Any) -> None:
    """Measure what is not there yet of a part."""
    splits, threads = arguments.splits, arguments.threads
    if part == "clicks":
        clicks.run(store, load_dataset(arguments.data), splits, threads)
    elif part == "stars":
        stars.run(store, films(arguments), splits, threads)
    elif part == "gaussian":
        gaussian.run(store, splits, threads)
    elif part == "new-users":
        new_users.run(store, new_users.kind_of_stars(films(arguments), threads), splits)
        new_users.run(store, new_users.kind_of_clicks(load_dataset(arguments.data), threads), splits)
    else:
        exploring.run(store, splits)
