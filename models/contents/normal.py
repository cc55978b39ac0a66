"""Normal content: real-valued features with a known or a learned precision."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from models.contents.base import ContentLikelihood, Params, at_least_zero
from models.rows import NumberRows
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Scaling


class Normal(ContentLikelihood):
    """x_jw ~ N(m_jw, 1 / lambda_x) with the precision ``lambda_x`` (paper, section 2.1), which is held or ``learned``.

    With E = sum over stored of [(x - m)^2 - m^2] + sum_w m_w^2 the zeros of a sparse x need no dense copy of it:
    log p(x | m) = n_features/2 log(lambda_x / 2 pi) - lambda_x/2 E. It is 1 where it is left out. Where it is learned,
    ``lambda_x`` is its start; left out it starts, of vectors and images, at the inverse of their mean variance: from 1,
    small numbers are noise, and their posterior collapses before the precision has risen.
    """

    param_names: ClassVar[tuple[str, ...]] = ("loc",)
    default_scaling: ClassVar[Scaling] = "tfidf"
    any_unit: ClassVar[bool] = True

    def __init__(self, lambda_x: float | None = None, learned: bool = False, subsample: int = 0) -> None:
        super().__init__()
        self.subsample = at_least_zero(subsample)
        self._given = lambda_x is not None
        lambda_x = 1.0 if lambda_x is None else lambda_x
        if not 0 < lambda_x < math.inf:
            raise InputError(f"lambda_x = {lambda_x:g} is no precision", "use a number above 0")
        self._known = float(lambda_x)
        self.log_lambda_x = nn.Parameter(torch.tensor(math.log(lambda_x))) if learned else None

    @property
    def lambda_x(self) -> float | Tensor:
        """The precision: a number, or a tensor () where it is learned."""
        return self._known if self.log_lambda_x is None else self.log_lambda_x.exp()

    def distribution(self, **params: Tensor) -> dist.Distribution:
        """Independent Normals over the features."""
        return dist.Normal(params["loc"], self.lambda_x**-0.5).to_event(1)

    def log_prob(self, obs: NumberRows, params: dict[str, Tensor]) -> Tensor:
        """Log p(x_j | m_j) in nats, (n_items,)."""
        loc = params["loc"]
        return self._density(obs, loc[obs.rows, obs.columns], loc.square().sum(-1), loc.shape[1])

    def log_prob_sampled(self, obs: NumberRows, stored: Params, drawn: Params, n_features: int) -> Tensor:
        """The sum of m^2 over all features by n_features / n times that over the drawn ones: unbiased."""
        squares = drawn["loc"].square().sum(-1) * (n_features / drawn["loc"].shape[1])
        return self._density(obs, stored["loc"], squares, n_features)

    def _density(self, obs: NumberRows, at: Tensor, squares: Tensor, n_features: int) -> Tensor:
        """Log p(x | m) from m at the stored entries and the sums of m^2 over all features, (n_items,)."""
        error = squares.index_add(0, obs.rows, obs.values * (obs.values - 2 * at))
        log_lambda_x = math.log(self._known) if self.log_lambda_x is None else self.log_lambda_x
        return 0.5 * (n_features * (log_lambda_x - math.log(2 * math.pi)) - self.lambda_x * error)

    def start(self, variance: float) -> None:
        """A learned precision that was not given starts at 1 / ``variance``, the mean variance of the features."""
        if self.log_lambda_x is not None and not self._given and variance > 0:
            with torch.no_grad():
                self.log_lambda_x.fill_(-math.log(variance))

    def initial_bias(self, mean: Tensor) -> dict[str, Tensor]:
        """The mean itself."""
        return {"loc": mean}
