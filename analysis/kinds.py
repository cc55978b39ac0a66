"""Kinds of what is said of an analysis by a word: a ``Literal`` each; ``typing.get_args`` gives its words."""

from typing import Literal

DrawnFrom = Literal["posterior", "prior"]
"""Where draws are from."""
Broken = Literal["lambda_u", "lambda_v", "a"]
"""The precision that a broken sampler takes twice; see :mod:`analysis.sbc`."""
Shows = Literal["once", "again"]
"""How often a simulated user may be shown an item."""
Policy = Literal["random", "map", "greedy", "ucb", "thompson"]
"""How a simulated recommender chooses; see :mod:`analysis.bandit`."""
