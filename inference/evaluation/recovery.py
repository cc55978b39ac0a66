"""How well a fit finds the truth of a simulation."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import norm

from inference.posterior import Posterior
from pyro_cvae.data.splits import Split


def recovery(posterior: Posterior, split: Split, truth: dict[str, np.ndarray]) -> dict[str, float]:
    """How well the true scores of a simulation are found, on cells that no training rating covers.

    ``correlation`` of true and posterior-mean scores; where ratings were drawn from the model (``truth`` has its
    precisions a, b) and the posterior has uncertainty, the shares of true scores within the central 50 % and 90 %
    intervals, ``coverage@50`` and ``coverage@90``. Clicks are no draws of the model: no interval is right for them.
    Where ratings cover all cells nothing can be said. Shape: ``truth["scores"]`` (n_users, n_items), small.
    """
    scores = truth["scores"]
    seen = split.train.select(split.train.observed)
    unseen = np.ones(scores.shape, dtype=bool)
    unseen[seen.users, seen.items] = False
    users, items = unseen.nonzero()
    if len(users) < 2:
        return {}
    true = torch.as_tensor(scores[users, items])
    if posterior.is_point or "a" not in truth:
        mean, sd = posterior.mean_score(users, items), None
    else:
        n_parts = max(1, min(64, len(users)))
        pairs = zip(*(np.array_split(x, n_parts) for x in (users, items)), strict=True)
        parts = [posterior.score(u, i) for u, i in pairs]
        mean, sd = (torch.cat(part) for part in zip(*parts, strict=True))
    found = {"correlation": float(torch.corrcoef(torch.stack([mean.double(), true.double()]))[0, 1])}
    if sd is not None:
        for level in (0.5, 0.9):
            half = norm.ppf(0.5 + level / 2) * sd
            found[f"coverage@{level * 100:.0f}"] = float(((true - mean).abs() <= half).double().mean())
    return found
