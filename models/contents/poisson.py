"""Poisson content: how often does each word occur, lengths of texts included?"""

from __future__ import annotations

from typing import ClassVar

import torch
from pyro import distributions as dist
from torch import Tensor

from models.contents.base import ContentLikelihood, Params, at_least_zero, whole_counts
from models.rows import NumberRows
from pyro_cvae.kinds import Scaling


class Poisson(ContentLikelihood):
    """x_jw ~ Poisson(exp(l_jw)) for counts x; the length of a text is drawn with it.

    log p(x | l) = sum over stored of [x l - log x!] - sum_w e^l_w: zeros cost one exp and need no dense copy of x.
    """

    param_names: ClassVar[tuple[str, ...]] = ("log_rate",)
    default_scaling: ClassVar[Scaling] = "none"

    def __init__(self, subsample: int = 0) -> None:
        super().__init__()
        self.subsample = at_least_zero(subsample)

    def distribution(self, **params: Tensor) -> dist.Distribution:
        """Independent Poissons over the words."""
        return dist.Poisson(params["log_rate"].exp()).to_event(1)

    def log_prob(self, obs: NumberRows, params: dict[str, Tensor]) -> Tensor:
        """Log p(x_j | l_j) in nats, (n_items,)."""
        log_rate = params["log_rate"]
        return self._of(obs, log_rate[obs.rows, obs.columns], log_rate.exp().sum(-1))

    def log_prob_sampled(self, obs: NumberRows, stored: Params, drawn: Params, n_features: int) -> Tensor:
        """The sum of rates over all words by V / n times that over the drawn ones: unbiased."""
        log_rate = drawn["log_rate"]
        return self._of(obs, stored["log_rate"], log_rate.exp().sum(-1) * (n_features / log_rate.shape[1]))

    @staticmethod
    def _of(obs: NumberRows, stored: Tensor, rates: Tensor) -> Tensor:
        return (-rates).index_add(0, obs.rows, obs.values * stored - torch.lgamma(obs.values + 1))

    def check(self, obs: NumberRows) -> None:
        """Every value must be a whole number, 0 or more."""
        whole_counts(obs, "Poisson")

    def initial_bias(self, mean: Tensor) -> dict[str, Tensor]:
        """The log of each word's mean."""
        return {"log_rate": mean.clamp(min=1e-8).log()}
