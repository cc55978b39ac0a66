"""Negative binomial content: counts that vary more than a Poisson's, by a learned dispersion."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional as F

from models.contents.base import ContentLikelihood, Params, at_least_zero, whole_counts
from models.rows import NumberRows
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Scaling


class NegativeBinomial(ContentLikelihood):
    """x_jw of mean m = exp(l_jw) and variance m + m^2 / r for counts x; 1 / r is the ``dispersion``, learned.

    With s_w = l_w - log r, log p(x | l) = - r sum_w log(1 + e^s_w)
    + sum over stored of [log Gamma(x + r) - log Gamma(r) - log x! + x (s - log(1 + e^s))].
    One dispersion serves all words; ``dispersion`` is where it starts. At 0 this would be the Poisson.
    """

    param_names: ClassVar[tuple[str, ...]] = ("log_mean",)
    default_scaling: ClassVar[Scaling] = "none"

    def __init__(self, dispersion: float = 1.0, subsample: int = 0) -> None:
        super().__init__()
        if not 0 < dispersion < math.inf:
            raise InputError(f"dispersion = {dispersion:g} is none to start at", "use a number above 0, or poisson")
        self.subsample = at_least_zero(subsample)
        self.log_dispersion = nn.Parameter(torch.tensor(math.log(dispersion)))

    def distribution(self, **params: Tensor) -> dist.Distribution:
        """Independent negative binomials over the words."""
        log_mean = params["log_mean"]
        r = (-self.log_dispersion).exp().expand_as(log_mean)
        return dist.NegativeBinomial(r, logits=log_mean + self.log_dispersion).to_event(1)

    def log_prob(self, obs: NumberRows, params: dict[str, Tensor]) -> Tensor:
        """Log p(x_j | l_j) in nats, (n_items,)."""
        log_mean = params["log_mean"]
        zeros = F.softplus(log_mean + self.log_dispersion).sum(-1)
        return self._of(obs, log_mean[obs.rows, obs.columns], zeros)

    def log_prob_sampled(self, obs: NumberRows, stored: Params, drawn: Params, n_features: int) -> Tensor:
        """The sum of softplus over all words by V / n times that over the drawn ones: unbiased."""
        log_mean = drawn["log_mean"]
        zeros = F.softplus(log_mean + self.log_dispersion).sum(-1) * (n_features / log_mean.shape[1])
        return self._of(obs, stored["log_mean"], zeros)

    def _of(self, obs: NumberRows, stored: Tensor, zeros: Tensor) -> Tensor:
        x, r = obs.values, (-self.log_dispersion).exp()
        # In float32 the difference of two log Gammas is lost where r is large, that is near the Poisson.
        coefficient = torch.lgamma(x.double() + r.double()) - torch.lgamma(r.double())
        present = coefficient.to(stored) - torch.lgamma(x + 1) + x * F.logsigmoid(stored + self.log_dispersion)
        return (-r * zeros).index_add(0, obs.rows, present)

    def check(self, obs: NumberRows) -> None:
        """Every value must be a whole number, 0 or more."""
        whole_counts(obs, "negative binomial")

    def initial_bias(self, mean: Tensor) -> dict[str, Tensor]:
        """The log of each word's mean."""
        return {"log_mean": mean.clamp(min=1e-8).log()}
