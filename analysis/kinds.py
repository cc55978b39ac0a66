"""Kinds of what is said of an analysis by a word: a ``Literal`` each; ``typing.get_args`` gives its words."""

from typing import Literal

DrawnFrom = Literal["posterior", "prior"]
"""Where draws are from."""
Shows = Literal["once", "again"]
"""How often a simulated user may be shown an item."""
Policy = Literal["random", "map", "greedy", "ucb", "thompson"]
"""How a simulated recommender chooses; see :mod:`analysis.bandit`."""
