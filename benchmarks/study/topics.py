"""Small tables that no model of ours generates: people choose by topics, by popularity and by what no text tells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.frames import from_frames

SMOOTH = 0.02
"""What a user's share of an item's topics is raised by, so that its logarithm is finite."""
TASTES = 4
"""Coordinates of tastes that no text tells."""
WORDS_A_TOPIC = 40
COMMON = 0.2
"""Share of a text's words that are of no topic."""


@dataclass(frozen=True)
class Shape:
    """The size of a table, and how users choose.

    Users choose ``n_choices`` items in the mean, without replacement, each with a probability that goes with
    (pi_i.theta_j + 0.02)^sharpness exp(popularity_j + taste_i.t_j). Topics of items theta_j and of users pi_i are from
    Dirichlet distributions, ``popularity`` is the standard deviation of that of items. A text has ``n_words`` words in
    the mean, of its item's topics.
    """

    n_users: int
    n_items: int
    n_choices: int
    n_topics: int
    n_words: int
    popularity: float
    sharpness: float


SHAPES = {
    "club": Shape(100, 80, 8, 4, 6, 0.7, 2.0),
    "baskets": Shape(600, 200, 15, 8, 3, 1.0, 1.5),
    "library": Shape(300, 500, 20, 10, 15, 0.7, 2.0),
    "games": Shape(1500, 400, 25, 6, 2, 1.2, 1.2),
    "jobs": Shape(800, 1500, 12, 15, 40, 0.5, 2.5),
}


def drawn(shape: Shape, seed: int) -> Dataset:
    """A data set of this shape."""
    rng = np.random.default_rng(seed)
    topics_of_items = rng.dirichlet(np.full(shape.n_topics, 0.15), shape.n_items)
    topics_of_users = rng.dirichlet(np.full(shape.n_topics, 0.2), shape.n_users)
    untold = rng.normal(0, 0.4, (shape.n_users, TASTES)) @ rng.normal(size=(TASTES, shape.n_items))
    appeal = shape.sharpness * np.log(topics_of_users @ topics_of_items.T + SMOOTH) + untold
    appeal += rng.normal(0, shape.popularity, shape.n_items)
    ranked = np.argsort(-(appeal + rng.gumbel(size=appeal.shape)), 1)  # the first n are n draws without replacement
    n_chosen = np.clip(rng.poisson(shape.n_choices, shape.n_users), 2, shape.n_items)
    users, places = np.nonzero(np.arange(shape.n_items) < n_chosen[:, None])
    n_vocabulary = WORDS_A_TOPIC * shape.n_topics
    words_of_topics = rng.dirichlet(np.full(n_vocabulary, 0.05), shape.n_topics)
    words_of_items = (1 - COMMON) * topics_of_items @ words_of_topics + COMMON / n_vocabulary
    lengths = np.maximum(1, rng.poisson(shape.n_words, shape.n_items))
    words = [rng.choice(n_vocabulary, n, p=p / p.sum()) for n, p in zip(lengths, words_of_items, strict=True)]
    texts = [" ".join(f"word{number}" for number in one) for one in words]
    interactions = {"user": users, "item": ranked[users, places]}
    return from_frames(interactions, {"item": np.arange(shape.n_items), "text": texts})
