"""Bernoulli content: is the word in the text?"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.nn import functional as F

from models.contents.base import ContentLikelihood, Params, at_least_zero, of_scaling
from models.rows import NumberRows
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Scaling


class _BernoulliLogProb(torch.autograd.Function):
    """sum_w [x_w l_w - softplus(l_w)] of sparse x and dense logits l, with one dense temporary each way."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(logits, rows, columns, values)
        total = F.softplus(logits).sum(-1).neg_()
        return total.index_add_(0, rows, values * logits[rows, columns])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        logits, rows, columns, values = ctx.saved_tensors
        out = torch.sigmoid(logits).mul_(-grad[:, None])
        out.view(-1).index_add_(0, rows * logits.shape[1] + columns, values * grad[rows])
        return out, None, None, None


class Bernoulli(ContentLikelihood):
    """x_jw ~ Bernoulli(sigmoid(l_jw)) for x in {0, 1} (paper, section 2.1).

    log p(x | l) = sum_w x_w l_w - log(1 + e^l_w): zeros cost one softplus, the words present a gather.
    """

    param_names: ClassVar[tuple[str, ...]] = ("logits",)
    default_scaling: ClassVar[Scaling] = "binary"

    def __init__(self, subsample: int = 0) -> None:
        super().__init__()
        self.subsample = at_least_zero(subsample)

    def distribution(self, **params: Tensor) -> dist.Distribution:
        """Independent Bernoullis over the words."""
        return dist.Bernoulli(logits=params["logits"]).to_event(1)

    def log_prob(self, obs: NumberRows, params: dict[str, Tensor]) -> Tensor:
        """Log p(x_j | l_j) in nats, (n_items,)."""
        return _BernoulliLogProb.apply(params["logits"], obs.rows, obs.columns, obs.values)

    def log_prob_sampled(self, obs: NumberRows, stored: Params, drawn: Params, n_features: int) -> Tensor:
        """The sum of softplus over all words by V / n times that over the drawn ones: unbiased."""
        total = F.softplus(drawn["logits"]).sum(-1) * (-n_features / drawn["logits"].shape[1])
        return total.index_add(0, obs.rows, obs.values * stored["logits"])

    def check(self, obs: NumberRows) -> None:
        """Every value must be 0 or 1."""
        if not bool(((obs.values == 0) | (obs.values == 1)).all()):
            words = "use --scaling binary, or --content-likelihood pseudo-bernoulli for values between 0 and 1"
            remedy = of_scaling(obs, words, "pseudo-bernoulli for grey values between 0 and 1, or normal")
            raise InputError("Bernoulli content must be 0 or 1", remedy)

    def initial_bias(self, mean: Tensor) -> dict[str, Tensor]:
        """The logit of each word's mean."""
        return {"logits": torch.logit(mean, eps=1e-6)}


class PseudoBernoulli(Bernoulli):
    """The paper's and its authors' choice: the Bernoulli formula on counts scaled to [0, 1].

    It has no normaliser on (0, 1), so the objective is a pseudo-ELBO and is labelled so. A draw is 0 or 1.
    """

    default_scaling: ClassVar[Scaling] = "word-max"
    pseudo: ClassVar[bool] = True

    def check(self, obs: NumberRows) -> None:
        """Every value must lie in [0, 1]."""
        if not bool(((obs.values >= 0) & (obs.values <= 1)).all()):
            remedy = of_scaling(obs, "use --scaling word-max or row-max", "normal")
            raise InputError("pseudo-Bernoulli content must lie in [0, 1]", remedy)
