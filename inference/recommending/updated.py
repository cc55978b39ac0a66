"""A fit with users folded in and items added, which everything that ranks takes like a fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from inference.draws import Draws
from inference.fitting import Fit
from pyro_cvae.data.dataset import typed_ids
from pyro_cvae.errors import InputError


@dataclass(eq=False, repr=False)
class UpdatedFit(Fit):
    """A fit with users folded in and items added; ``model``, ``history`` and ``metrics`` are those of the fit.

    ``fitted`` is the fit before any update; ``folded_in``, bool (n_users,), marks the users whose posterior is the
    closed form given the items'. Added items are the rows from ``fitted.dataset.n_items`` on.
    """

    fitted: Fit | None = None
    folded_in: np.ndarray | None = None

    def encode_content(self, content: Any) -> tuple[Tensor, Tensor]:
        """As of the fit before any update, whose contents say what form new ones must have."""
        return fitted_part(self).encode_content(content) if self.fitted is not None else super().encode_content(content)


def fitted_part(fit: Fit) -> Fit:
    """The fit before any update."""
    return fit if not isinstance(fit, UpdatedFit) or fit.fitted is None else fit.fitted


_WEIGHTS: WeakKeyDictionary[Fit, Tensor | None] = WeakKeyDictionary()


def zero_weights(fit: Fit) -> Tensor | None:
    """Weights of the zeros of each item by its training ratings, float64 (n_items,); ``None`` is 1 for all.

    As :meth:`models.ratings.RatingLikelihood.zero_weights`, once for a fit. Added items, that nobody has rated, have 1.
    """
    base = fitted_part(fit)
    if base not in _WEIGHTS:
        train, ratings = base.split.train, base.model.ratings
        if not ratings.b_power:
            return None
        there = train.precisions(ratings.default_confidence, ratings.weight_unit) > 0
        counts = np.bincount(train.items[there], minlength=base.dataset.n_items)
        _WEIGHTS[base] = ratings.zero_weights(torch.from_numpy(counts))
    weights = _WEIGHTS[base]
    if weights is None:
        return None
    return torch.cat([weights.double(), torch.ones(fit.dataset.n_items - len(weights), dtype=torch.float64)])


def folded_in(fit: Fit) -> np.ndarray:
    """True for the users that were folded in, bool (n_users,)."""
    mask = fit.folded_in if isinstance(fit, UpdatedFit) else None
    return np.zeros(fit.dataset.n_users, bool) if mask is None else mask


def updated(fit: Fit, **changes: Any) -> UpdatedFit:
    """The fit with other parts; the fit before any update stays known."""
    return UpdatedFit(**vars(fit) | {"fitted": fitted_part(fit)} | changes)


def refuse_draws(fit: Fit) -> None:
    """InputError for the stored draws of inference.mcmc, of which no posterior of new rows follows."""
    if isinstance(fit.posterior, Draws):
        problem = "stored draws of inference.mcmc have no closed form for users or items that were not in the fit"
        raise InputError(problem, "fit again with them, or with inference.coordinate")


def extended(known: np.ndarray, new: Sequence[Any], kind: str) -> np.ndarray:
    """The ids with new ones behind, all of one type; InputError where they are not."""
    whole = known.dtype.kind == "i"
    for one in new:
        is_integer = isinstance(one, int | np.integer) and not isinstance(one, bool)
        if is_integer != whole or not (is_integer or isinstance(one, str)):
            must = "a whole number" if whole else "text"
            raise InputError(f"{kind} id {one!r} is not {must}, as the ids of the fit are", "rename it")
    return np.concatenate([known, typed_ids(list(new), f"{kind}_ids")]) if len(new) else known


def unused_id(known: np.ndarray, name: str) -> Any:
    """An id that is none of these, of their type: the next whole number, or a text longer than all of them.

    The text begins with ``name`` where that is the longest already.
    """
    return int(known.max()) + 1 if known.dtype.kind == "i" else max([name, *known], key=len) + "+"
