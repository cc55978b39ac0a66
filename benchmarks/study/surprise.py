"""The rivals of scikit-surprise for ratings in stars."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from pyro_cvae.data.splits import Split
from pyro_cvae.errors import MachineError

REGULARIZED = [{"reg_u": u, "reg_i": i} for u, i in product((1.0, 3.0, 6.0, 12.0), (1.0, 3.0, 6.0))]
"""Twelve settings of ``BaselineOnly``."""
FACTORISED = [
    {"n_factors": k, "reg_all": reg, "n_epochs": n} for k, reg, n in product((100, 200), (0.08, 0.1, 0.12), (50, 100))
]
"""Twelve settings of ``SVD``."""

Predictor = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""From users and items, (n_pairs,) each, to mean and standard deviation of their ratings."""


def surprise(name: str, split: Split, settings: dict[str, Any]) -> Predictor:
    """``BaselineOnly`` (ridge, alternating) or ``SVD`` (stochastic gradients) of scikit-surprise."""
    try:
        import surprise as package
    except ImportError:
        raise MachineError("the rival needs scikit-surprise", "install it: pip install -e '.[stars]'") from None
    import pandas as pd

    seen = split.train.select(split.train.observed)
    low, high = seen.ratings.min(), seen.ratings.max()
    frame = pd.DataFrame({"user": seen.users, "item": seen.items, "rating": seen.ratings})
    data = package.Dataset.load_from_df(frame, package.Reader(rating_scale=(low, high))).build_full_trainset()
    if name == "SVD":
        model = package.SVD(random_state=0, **settings)
    else:
        model = package.BaselineOnly({"method": "als", "n_epochs": 20, **settings}, verbose=False)
    model.fit(data)

    def predict(users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, None]:
        return np.array([model.predict(u, i).est for u, i in zip(users, items, strict=True)]), None

    return predict
