"""A fit as a model of RecTools (``rectools`` 0.19)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from inference.fitted import Fit
from inference.fitting import fit as fit_to
from inference.recommending.lists import recommend, similar_items
from inference.recommending.users import fold_in
from pyro_cvae.data.frames import read_table
from pyro_cvae.errors import InputError, MachineError

try:
    from pydantic import Field
    from rectools import Columns
    from rectools.dataset import Dataset as RecToolsDataset
    from rectools.models.base import ModelBase, ModelConfig
except ImportError:
    raise MachineError("rectools is not installed", "docs/adapters.md says how it is installed beside this") from None

Weights = Literal["confidence", "rating"]
Triplet = tuple[np.ndarray, np.ndarray, np.ndarray]


class CVAEModelConfig(ModelConfig):
    """What a :class:`CVAEModel` is made of."""

    options: dict[str, Any] = Field(default_factory=dict)
    items: str | None = None
    weights: Weights = "confidence"


class CVAEModel(ModelBase[CVAEModelConfig]):
    """A model of this package for RecTools.

    Parameters:
        options: Keywords of :func:`inference.fit`: ``method``, ``mode``, ``preset``, ``factors`` and so on.
        items: The table of the items' texts (``item``, ``text``, ``title``), which a data set of RecTools has no place
            for: a file, or a table as :func:`pyro_cvae.data.frames.from_frames` takes it. Without it the model must be
            one that reads no content, for instance ``options={"model": "pmf"}``.
        weights: What RecTools' column ``weight`` is: how much a pair counts, or the rating.

    All interactions are fitted. Lists are ranked by E[u].E[v]. Users of the fit are ranked by the fit; other users with
    interactions in the data set that is asked with are folded in from all of these. Warm users, of whom there are
    features alone, get the average user's list; cold ones are refused. Only items that both the fit and RecTools' data
    set know are listed, those without an interaction too.
    """

    recommends_for_warm = True
    recommends_for_cold = False
    config_class = CVAEModelConfig

    def __init__(
        self,
        options: dict[str, Any] | None = None,
        items: Any = None,
        weights: Weights = "confidence",
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose=verbose)
        self.options, self.items, self.weights = dict(options or {}), items, weights
        self.wrapped: Fit | None = None
        self.given = False

    @classmethod
    def of(cls, fit: Fit) -> CVAEModel:
        """The model of a fit that is there, which is not fitted again."""
        model = cls()
        model.wrapped, model.given, model.is_fitted = fit, True, True
        return model

    def _get_config(self) -> CVAEModelConfig:
        if self.items is not None and not isinstance(self.items, str | Path):
            raise InputError("a table has no place in a config", "give items as the path of a file")
        path = None if self.items is None else str(self.items)
        parts = {"options": self.options, "items": path, "weights": self.weights}
        return CVAEModelConfig(cls=type(self), verbose=self.verbose, **parts)

    @classmethod
    def _from_config(cls, config: CVAEModelConfig) -> CVAEModel:
        return cls(config.options, config.items, config.weights, config.verbose)

    def _fit(self, dataset: RecToolsDataset, *args: Any, **kwargs: Any) -> None:
        if self.given:
            raise InputError("the model is of a fit that is there", "make CVAEModel(options, items) to fit anew")
        raw = dataset.get_raw_interactions()
        value = "rating" if self.weights == "rating" else "weight"
        names = {Columns.User: "user", Columns.Item: "item", Columns.Weight: value, Columns.Datetime: "time"}
        pairs = {ours: raw[name].tolist() for name, ours in names.items()}
        items = dict(read_table(self.items).columns) if isinstance(self.items, str | Path) else self.items
        self.wrapped = fit_to(pairs, "none", items=items, **self.options)

    def _recommend_u2i(
        self, user_ids: Any, dataset: RecToolsDataset, k: int, filter_viewed: bool, sorted_item_ids_to_recommend: Any
    ) -> Triplet:
        users = dataset.user_id_map.convert_to_external(user_ids).tolist()
        fit = self._with_users(dataset, user_ids, users)
        viewed = None
        if filter_viewed:
            pairs = self._pairs(dataset, user_ids, users)
            viewed = {name: pairs[name] for name in ("user", "item")}
        return self._listed(fit, users, dataset, k, sorted_item_ids_to_recommend, viewed)

    def _recommend_u2i_warm(
        self, user_ids: Any, dataset: RecToolsDataset, k: int, sorted_item_ids_to_recommend: Any
    ) -> Triplet:
        users = dataset.user_id_map.convert_to_external(user_ids).tolist()
        return self._listed(self._known(), users, dataset, k, sorted_item_ids_to_recommend, None)

    def _recommend_i2i(
        self, target_ids: Any, dataset: RecToolsDataset, k: int, sorted_item_ids_to_recommend: Any
    ) -> Triplet:
        candidates = self._candidates(dataset, sorted_item_ids_to_recommend)
        targets = dataset.item_id_map.convert_to_external(target_ids).tolist()
        table = similar_items(self._known(), targets, k, candidates=candidates)
        own = [target for target in targets if target in set(candidates)]  # RecTools takes an item out by itself
        itself = pd.DataFrame({"to": own, "rank": 0, "item": own, "score": 1.0})
        whole = pd.concat([itself, table[["to", "rank", "item", "score"]]])
        whole["place"] = whole["to"].map({target: place for place, target in enumerate(targets)})
        whole = whole.sort_values(["place", "rank"]).groupby("to", sort=False).head(k)
        return (
            dataset.item_id_map.convert_to_internal(whole["to"].to_numpy()),
            dataset.item_id_map.convert_to_internal(whole["item"].to_numpy()),
            whole["score"].to_numpy(np.float32),
        )

    def _recommend_i2i_warm(
        self, target_ids: Any, dataset: RecToolsDataset, k: int, sorted_item_ids_to_recommend: Any
    ) -> Triplet:
        return self._recommend_i2i(target_ids, dataset, k, sorted_item_ids_to_recommend)

    def _listed(
        self, fit: Fit, users: list[Any], dataset: RecToolsDataset, k: int, chosen: Any, viewed: Any
    ) -> Triplet:
        """Lists of users as RecTools takes them: users, items and scores, its own ids."""
        candidates = self._candidates(dataset, chosen)
        table = recommend(fit, users, k, candidates=candidates, keep_seen=True, exclude_pairs=viewed, unknown="prior")
        ids = table["user"].to_numpy(dataset.user_id_map.external_dtype)
        return (
            dataset.user_id_map.convert_to_internal(ids),
            dataset.item_id_map.convert_to_internal(table["item"].to_numpy()),
            table["score"].to_numpy(np.float32),
        )

    def _known(self) -> Fit:
        assert self.wrapped is not None
        return self.wrapped

    def _candidates(self, dataset: RecToolsDataset, chosen: Any) -> list[Any]:
        """The items that may be listed: those of RecTools, or the chosen ones of them, that the fit knows."""
        rows = dataset.item_id_map.internal_ids if chosen is None else chosen
        items = dataset.item_id_map.convert_to_external(rows).tolist()
        known = self._known().dataset.item_rows(items, unknown="prior") >= 0
        return [item for item, there in zip(items, known, strict=True) if there]

    def _pairs(self, dataset: RecToolsDataset, user_ids: Any, users: list[Any]) -> dict[str, list[Any]]:
        """What some users have in RecTools' data set, and its weight, of the items that the fit knows."""
        cells = dataset.get_user_item_matrix(include_weights=True)[user_ids].tocoo()
        items = dataset.item_id_map.convert_to_external(cells.col).tolist()
        kept = np.flatnonzero(self._known().dataset.item_rows(items, unknown="prior") >= 0).tolist()
        found = {"user": [users[cells.row[at]] for at in kept], "item": [items[at] for at in kept]}
        return found | {"weight": cells.data[kept].tolist()}

    def _with_users(self, dataset: RecToolsDataset, user_ids: Any, users: list[Any]) -> Fit:
        """The fit with the users folded in that it does not know, from what they have in RecTools' data set."""
        fit = self._known()
        strangers = np.flatnonzero(fit.dataset.user_rows(users, unknown="prior") < 0)
        if not len(strangers):
            return fit
        pairs = self._pairs(dataset, np.asarray(user_ids)[strangers], [users[at] for at in strangers])
        if not pairs["user"]:
            return fit
        if self.weights == "rating":
            return fold_in(fit, pairs["user"], pairs["item"], ratings=pairs["weight"])
        return fold_in(fit, pairs["user"], pairs["item"], confidences=pairs["weight"])
