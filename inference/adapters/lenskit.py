"""A fit as the scorer of a LensKit pipeline (``lenskit`` 2025.6 and later)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from inference.fitted import Fit
from inference.fitting import fit as fit_to
from inference.loading import load
from inference.posterior import Posterior
from inference.predicted import predicted, score_moments
from inference.recommending.asked import lacks_pairs
from inference.recommending.users import posterior_of_lists
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.errors import InputError, MachineError

try:
    from lenskit.data import Dataset as LensKitDataset
    from lenskit.data import ItemList, QueryInput, RecQuery
    from lenskit.pipeline import Component
    from lenskit.training import Trainable, TrainingOptions
except ImportError:
    raise MachineError("lenskit is not installed", "docs/adapters.md says how it is installed beside this") from None

PAIRS = {"user_id": "user", "item_id": "item", "rating": "rating", "timestamp": "time"}
ITEMS = {"item_id": "item", "text": "text", "title": "title"}


@dataclass
class CVAEScorerConfig:
    """What a scorer is trained with.

    Parameters:
        run: A run folder that is opened in place of a fit.
        options: Keywords of :func:`inference.fit`: ``method``, ``mode``, ``preset``, ``factors`` and so on.
    """

    run: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


class CVAEScorer(Component[ItemList], Trainable):
    """Scores items for users by a fit of this package.

    ``train`` fits to the interactions of LensKit's data set, all of them, with the attributes ``text`` and ``title`` of
    its items if there are any, or opens ``config.run``. A scorer of :meth:`of` has its fit already and keeps it.

    The score is E[u].E[v], or the mean of a new rating where the fit is of explicit ratings. With a posterior there is
    a field ``sd``, the standard deviation of either. A user of the fit is scored by the fit, whatever history the query
    brings. Another one is folded in from that history, which must be all that they have chosen
    (:func:`inference.recommending.fold_in`). Items that the fit does not know, and all items for a user of whom nothing
    is known, are scored NaN, so that a fallback can take them.
    """

    config: CVAEScorerConfig
    fit: Fit | None = None
    given: bool = False

    @classmethod
    def of(cls, fit: Fit) -> CVAEScorer:
        """The scorer of a fit that is there; training leaves it as it is."""
        scorer = cls()
        scorer.fit, scorer.given = fit, True
        return scorer

    def train(self, data: LensKitDataset, options: TrainingOptions | None = None) -> None:
        """Fit, or open the run; raises InputError for what :func:`inference.fit` refuses."""
        if self.given or (self.fit is not None and options is not None and not options.retrain):
            return
        if self.config.run is not None:
            self.fit = load(self.config.run)
            return
        pairs, items = tables_of(data)
        self.fit = fit_to(pairs, "none", items=items, **self.config.options)

    def __call__(self, query: QueryInput, items: ItemList) -> ItemList:
        """The items with a score each."""
        if self.fit is None:
            raise InputError("the scorer is not trained", "call train, or make it by CVAEScorer.of(fit)")
        columns = {name: np.full(len(items), np.nan, np.float32) for name in ("scores", "sd")}
        posterior = self._posterior(RecQuery.create(query))
        rows = self.fit.dataset.item_rows(items.ids().tolist(), unknown="prior")
        known = np.flatnonzero(rows >= 0)
        if posterior is not None and len(known):
            mean, sd = scores_of(self.fit, posterior, rows[known])
            columns["scores"][known] = mean
            columns["sd"][known] = sd
        return ItemList(items, **columns if not self.fit.posterior.is_point else {"scores": columns["scores"]})

    def _posterior(self, query: RecQuery) -> Posterior | None:
        """The posterior of the one user that is asked for; ``None`` where nothing is known of them."""
        assert self.fit is not None
        if query.user_id is not None:
            rows = self.fit.dataset.user_rows([query.user_id], unknown="drop")
            if len(rows) and not lacks_pairs(self.fit, rows).any():
                return self.fit.posterior.select(users=rows)
        history = query.history_items
        if history is None or not self.fit.model.ratings.conjugate:
            return None
        rows = self.fit.dataset.item_rows(history.ids().tolist(), unknown="prior")
        if not (rows >= 0).any():
            return None
        ratings = history.field("rating") if self.fit.model.ratings.explicit else None
        pairs = Interactions.from_arrays(
            np.zeros((rows >= 0).sum(), np.int64),
            rows[rows >= 0],
            n_users=1,
            n_items=self.fit.dataset.n_items,
            ratings=None if ratings is None else np.asarray(ratings, np.float64)[rows >= 0],
        )
        return replace(self.fit.posterior, u=posterior_of_lists(self.fit, pairs))


def tables_of(data: LensKitDataset) -> tuple[dict[str, list[Any]], dict[str, list[Any]] | None]:
    """LensKit's interactions and, if its items have texts or titles, its items, by our names of the columns."""
    pairs = _columns(data.interaction_table(format="arrow", original_ids=True), PAIRS)
    items = _columns(data.entities("item").arrow(), ITEMS)
    return pairs, items if len(items) > 1 else None


def _columns(table: Any, names: dict[str, str]) -> dict[str, list[Any]]:
    return {ours: table.column(name).to_pylist() for name, ours in names.items() if name in table.column_names}


def scores_of(fit: Fit, posterior: Posterior, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the first user's scores, or ratings, of some items, float64 (n_items,) each."""
    mean, variance = score_moments(posterior, np.zeros(len(rows), np.int64), torch.as_tensor(rows))
    if fit.model.ratings.explicit:
        rating = predicted(fit.model.ratings, mean, variance, fit.split.train)
        return rating.mean.numpy(), rating.sd.numpy()
    return mean.numpy(), variance.sqrt().numpy()
