"""What a fit gives: the posterior, the model and the data that it was fitted to, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from inference.average import predictions
from inference.options import Options
from inference.plain import PosteriorGuide, plain_guide, plain_model
from inference.posterior import Posterior
from models.base import FactorModel
from models.build import new_rows
from models.returns import prior_given
from pyro_cvae.data.content import ContentScaling
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted


@dataclass(eq=False, repr=False)
class Fit:
    """A fitted model with the data it was fitted to.

    ``history`` has a row an epoch; ``metrics`` the test metrics (empty without test pairs) and the content's state;
    ``path`` is the run folder, if one was written.
    """

    posterior: Posterior
    dataset: Dataset
    split: Split
    options: Options
    history: list[dict[str, Any]]
    metrics: dict[str, Any]
    model: FactorModel
    scalings: dict[str, ContentScaling]
    path: Path | None = None

    def __repr__(self) -> str:
        factors = counted(self.options.model.factors, "factor")
        return f"{type(self).__name__}({self.dataset.name}: {self.posterior.kind}, {factors})"

    def encode(self, content: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of v of items that were not in the fit, from their content.

        Such an item is N(c mu(x), c^2 sigma(x)^2 + 1/lambda_v), with c = 1 unless the fit has found another.
        ``content`` are word counts, sparse (n_new, n_features), or a content of the kind that the fit is of (Content,
        Vectors, Images, Tokens); where it is of several, a dictionary of these by name, a part left out being one that
        none of them has. Result (n_new, n_factors) each.
        """
        loc, scale = self.encode_content(content)
        loc = self.around_new_items(loc)[:, : loc.shape[1]]
        scale = self.model.scale_of_new_items * scale
        return loc, (scale.square() + 1 / self.posterior.lambda_v).sqrt()

    def encode_content(self, content: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of q(z|x) of such items, the prior's of a blank x, (n_new, n_factors) each."""
        if not self.model.has_content:
            problem = (
                f"{type(self.model).__name__} reads no content: items that were not in the fit are all alike to it"
            )
            raise InputError(problem, "fit a model that does, for instance --model cvae")
        inputs = new_rows(self.model, self.dataset, self.options.model.content, content, self.scalings)
        with torch.no_grad():
            return self.model.item_prior.encode_new(inputs.to(dtype=self.posterior.z_loc.dtype))

    def around_new_items(self, m: torch.Tensor) -> torch.Tensor:
        """Prior means of v of items that were not in the fit, given m (n_new, n_factors), as wide as the posterior's v.

        Raises InputError where the model does not say.
        """
        if type(self.model).has_standard_priors():
            return self.posterior.around(self.model.scale_of_new_items * m)
        with torch.no_grad():
            prior = self.model.prior_of_new_items(m, self.above)
            rows = prior_given(self.model, "prior_of_new_items", prior, len(m))
            return self.model.of_items(rows.loc.expand(len(m), -1))

    @property
    def above(self) -> dict[str, torch.Tensor]:
        """Posterior means of the model's sites above u and v, by name."""
        means = {}
        for name, tensor in self.posterior.above.items():
            site, _, moment = name.rpartition("_")
            if moment in ("loc", "draws"):
                means[site] = tensor if moment == "loc" else tensor.mean(0)
        return means

    @property
    def guide(self) -> PosteriorGuide:
        """The posterior as a guide of :meth:`pyro_model`, for ``pyro.infer.Predictive`` and the like."""
        return plain_guide(self)

    def pyro_model(self, items: Iterable[Any] | None = None) -> Callable[[], None]:
        """The story as a plain, dense Pyro program of no arguments, its networks held (:mod:`inference.plain`).

        ``items`` are external ids, by default of all items; :func:`inference.plain.plain_guide` takes the same.
        """
        return plain_model(self, items)

    def draw_sites(self, n: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """``n`` joint draws of the Pyro program's sites u, v, v_dagger and z, as ``pyro.infer.Predictive`` takes them.

        Shapes (n, n_rows, width): of u, v and v_dagger that of the model, n_factors and with biases one more, which is
        b / kappa_u or c / kappa_v; of z n_factors.
        """
        drawn = self.posterior.sample(n, seed)
        for name, side in (("u", "u"), ("v", "v"), ("v_dagger", "v")):
            drawn[name] = self.model.own(side, drawn[name].flatten(0, 1)).unflatten(0, drawn[name].shape[:2])
        return drawn

    def predict(self, users: Iterable[Any], items: Iterable[Any], level: float = 0.9) -> pd.DataFrame:
        """New ratings of pairs of external ids: columns user, item, mean, sd, low, high.

        ``mean`` and ``sd`` are those of a rating, the likelihood's own noise included (a click is a 1: its mean is its
        probability); of explicit ratings ``mean`` stays within the range of the training ratings. ``low`` and ``high``
        are the ends of the central interval of that probability, quantiles of the likelihood's own predictive
        distribution (:mod:`models.ratings.predictive`); of clicks and counts it holds at least as much. Of users
        without training pairs it is the average user's rating (:mod:`inference.average`). Raises InputError for
        unknown ids or lists of different lengths.
        """
        rows, columns = self.dataset.user_rows(users), self.dataset.item_rows(items)
        if len(rows) != len(columns):
            raise InputError(
                f"{counted(len(rows), 'user')} and {counted(len(columns), 'item')} are no pairs",
                "give one item for each user",
            )
        if not 0 < level < 1:
            raise InputError(f"level is {level}, but it must be between 0 and 1", "for instance 0.9")
        explicit = self.model.ratings.explicit
        new = predictions(self.posterior, self.model.ratings, rows, columns, self.split.train, explicit)
        low, high = new.distribution.interval(level)
        found = {"mean": new.mean, "sd": new.sd, "low": low, "high": high}
        ids = {"user": self.dataset.user_ids[rows], "item": self.dataset.item_ids[columns]}
        return pd.DataFrame(ids | {name: value.numpy().astype(np.float64) for name, value in found.items()})
