"""Regret of showing by points and by posteriors, in the feedback loop of :mod:`analysis.bandit`.

Texts tell 20 % or 90 % of z, items are shown once or again, and a user is shown one item or five a round. All else is
as that command has it. Each split is a number of worlds of their own.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from analysis.exploring.options import BanditOptions
from analysis.exploring.play import simulate
from benchmarks.bayes_study.store import Key, Store

PART = "exploring"
WORLDS = 5
SETTINGS = tuple(product((0.2, 0.9), ("once", "again"), (1, 5)))
POLICIES = {"map": "map", "greedy": "bayes, greedy", "ucb": "bayes, ucb", "thompson": "bayes, thompson"}
"""Policies and the models that they are here."""


def case_of(content: float, shows: str, slate: int) -> str:
    """The case of a setting in words."""
    return f"text tells {content:.0%}, {slate} shown {shows}"


def run(store: Store, splits: int, settings: tuple[Any, ...] = SETTINGS, **changes: Any) -> None:
    """Measure the cumulative regret of each policy in ``WORLDS`` worlds a split."""
    changes = {"replications": WORLDS, **changes}
    for seed, setting in product(range(splits), settings):
        content, shows, slate = setting
        numbers = range(seed * changes["replications"], (seed + 1) * changes["replications"])
        keys = [Key(PART, case_of(*setting), n, model) for n in numbers for model in POLICIES.values()]
        if all(key in store.rows for key in keys):
            continue
        options = BanditOptions(content=(content,), shows=(shows,), slate=(slate,), seed=seed, **changes)
        found = simulate(options)
        last = found[found["round"] == options.rounds].set_index(["replication", "policy"])["regret"]
        for place, number in enumerate(numbers):
            for policy, model in POLICIES.items():
                regret = float(last[place, policy])
                store.measured(Key(PART, case_of(*setting), number, model), partial(dict, regret=regret))
