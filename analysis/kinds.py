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
Part = Literal["fig4", "fig5", "fig6", "fig7", "table1", "all"]
"""A figure or table of the paper; see :mod:`analysis.paper`."""
Claimed = Literal["above", "below", "similar", "at least"]
"""What a sentence says of a number: its side of nothing, that it is nothing, or its least size."""
Judgement = Literal["holds", "does not", "cannot be told", "not measured"]
"""What measurements say of a sentence."""
