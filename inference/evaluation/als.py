"""The rival ALS, by the package ``implicit``, with settings chosen as a user would choose them.

Settings are chosen on a validation part of the training ratings, never on test pairs. The validation part is that of
the split, or where it has none a seeded fifth of each user's training pairs. Where no user has two of them there is
nothing to choose on, and the settings are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from inference.evaluation.rankings import evaluate
from pyro_cvae.data.interactions import pairs_matrix
from pyro_cvae.data.splits import Split, with_validation
from pyro_cvae.errors import MachineError
from pyro_cvae.protocol import choosing
from pyro_cvae.text import counted

CUTOFFS = (50, 300)
"""Settings are chosen by the mean of recall at these."""
MOST_USERS = 1000
"""Users, a seeded sample, whose validation pairs are looked at."""
MOST_WORK = 1e11
"""Multiplications that the larger numbers of factors may take together, so that choosing ends on any data."""
ITERATIONS = 8
FEW_FACTORS, MORE_FACTORS = 10, (50, 200)
ALPHAS, REGULARIZATIONS = (1.0, 3.0, 10.0, 30.0, 100.0), (1.0, 10.0, 100.0)


def chosen_pairs(split: Split) -> Any:
    """The positive training pairs, sparse (n_users, n_items)."""
    return pairs_matrix(split.train.select(split.train.positive))


def als_factors(
    split: Split,
    n_factors: int = 50,
    a: float = 1.0,
    b: float = 0.01,
    precision: float = 0.1,
    iterations: int = 15,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """User (n_users, n_factors) and item factors (n_items, n_factors) of weighted ALS, by the package ``implicit``.

    It minimises sum_ij C_ij (R_ij - u_i.v_j)^2 + precision (|U|^2 + |V|^2), C = a at the positive pairs and b at all
    other cells (Hu, Koren and Volinsky, ICDM 2008), by exact half-steps, items last. ``implicit`` counts in units of b:
    alpha = a / b, regularization = precision / b. It uses as many threads as torch does. Raises MachineError where
    the package is not installed.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError:
        raise MachineError("this rival needs the package implicit", "install it with: pip install implicit") from None
    with threadpool_limits(1, "blas"):  # two pools of threads are slow; the constructor warns of them
        model = AlternatingLeastSquares(
            factors=n_factors,
            alpha=a / b,
            regularization=precision / b,
            iterations=iterations,
            use_cg=False,
            num_threads=torch.get_num_threads(),
            random_state=seed,
        )
        model.fit(chosen_pairs(split), show_progress=False)
    return torch.from_numpy(model.user_factors), torch.from_numpy(model.item_factors)


@dataclass(frozen=True)
class ALSSettings:
    """Of ``implicit``'s ALS: factors, confidence ``alpha`` of a chosen pair in units of that of all others, penalty.

    The defaults are the paper's K, a / b and lambda_u / b.
    """

    factors: int = 50
    alpha: float = 100.0
    regularization: float = 10.0
    chosen: str = "fixed, since no user has two training pairs to choose them on"

    def __str__(self) -> str:
        own = f"{counted(self.factors, 'factor')}, alpha {self.alpha:g}, regularization {self.regularization:g}"
        return f"{own}: {self.chosen}"


_CHOSEN: dict[str, ALSSettings] = {}  # by the fingerprint of the split, for this process


def als_settings(split: Split) -> ALSSettings:
    """The settings of ALS that rank the validation part best.

    All pairs of ``ALPHAS`` and ``REGULARIZATIONS`` are tried with few factors, the best three of them with more, as far
    as the data have twice as many rows and these fits cost no more than ``MOST_WORK``.
    """
    key = split.fingerprint()
    if key not in _CHOSEN:
        held_out = validation_split(split)
        _CHOSEN[key] = ALSSettings() if held_out is None else _best(held_out)
    return _CHOSEN[key]


def _best(split: Split) -> ALSSettings:
    users = np.unique(split.test.users[split.test.positive])
    if len(users) > MOST_USERS:
        users = np.sort(np.random.default_rng(0).permutation(users)[:MOST_USERS])
    tried = {(FEW_FACTORS, alpha, penalty): 0.0 for alpha in ALPHAS for penalty in REGULARIZATIONS}
    for settings in tried:
        tried[settings] = _recall(split, users, *settings)
    best, work = sorted(tried, key=lambda one: -tried[one])[:3], 0.0
    rated = min(int((counts > 0).sum()) for counts in (split.train.user_counts, split.train.item_counts))
    for factors in (one for one in MORE_FACTORS if 2 * one <= rated):
        for _, alpha, penalty in best:
            work += _work(split, factors)
            if work <= MOST_WORK:
                tried[factors, alpha, penalty] = _recall(split, users, factors, alpha, penalty)
    factors, alpha, penalty = max(tried, key=lambda one: tried[one])
    how = f"the best of {len(tried)} by recall on a validation part of the training ratings"
    return ALSSettings(factors, alpha, penalty, how)


def _recall(split: Split, users: np.ndarray, factors: int, alpha: float, penalty: float) -> float:
    u, v = als_factors(split, factors, alpha, 1.0, penalty, ITERATIONS)

    def scores(rows: np.ndarray) -> torch.Tensor:
        return u[torch.from_numpy(rows)] @ v.T

    measured = evaluate(scores, split, cutoffs=choosing(CUTOFFS, split.train.n_items), users=users, ndcg_cutoffs=())
    return sum(measured.all_user_means().values())


def _work(split: Split, factors: int) -> float:
    """Multiplications of a fit: a Gram matrix for each pair, a linear system for each row."""
    rows = split.train.n_users + split.train.n_items
    return ITERATIONS * (2.0 * len(split.train) * factors**2 + rows * factors**3 / 3)


def validation_split(split: Split) -> Split | None:
    """The training pairs with a validation part of them as test, or ``None`` where there is nothing to look at."""
    held_out = split
    if split.validation is None or not split.validation.positive.any():
        if split.train.user_counts.max(initial=0) < 2:
            return None
        held_out = with_validation(replace(split, validation=None, tuning_users=None), 0.2, 0, tell=False)
    validation = held_out.validation
    if validation is None or not validation.positive.any() or not held_out.train.positive.any():
        return None
    return replace(held_out, test=validation, validation=None, tuning_users=None)
