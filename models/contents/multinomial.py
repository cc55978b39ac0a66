"""Multinomial content: which words make up a text of given length?"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro import distributions as dist
from torch import Tensor

from models.contents.base import ContentLikelihood
from models.observations import SparseRows
from pyro_cvae.errors import InputError


class _MultinomialLogProb(torch.autograd.Function):
    """sum_w x_w [l_w - logsumexp(l)] of sparse x and dense logits l, with one dense temporary each way."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
        top = logits.amax(-1)
        unnormalized = (logits - top[:, None]).exp_()  # kept for the gradient, so that there is one exp in all
        mass = unnormalized.sum(-1)
        ctx.save_for_backward(unnormalized, mass, rows, columns, values)
        norm = mass.log() + top
        return torch.zeros_like(norm).index_add_(0, rows, values * (logits[rows, columns] - norm[rows]))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        unnormalized, mass, rows, columns, values = ctx.saved_tensors
        totals = torch.zeros_like(mass).index_add_(0, rows, values)
        out = unnormalized * (-grad * totals / mass)[:, None]
        out.view(-1).index_add_(0, rows * out.shape[1] + columns, values * grad[rows])
        return out, None, None, None


class Multinomial(ContentLikelihood):
    """x_j ~ Multinomial(n_j, softmax(l_j)) for word counts x; the length n_j is given, not drawn.

    log p(x | l) = log n! - sum_w log x_w! + sum_w x_w (l_w - logsumexp(l)).
    """

    param_names: ClassVar[tuple[str, ...]] = ("logits",)
    default_scaling: ClassVar[str] = "none"

    def distribution(self, **params: Tensor) -> dist.Distribution:
        """One word of the text: texts of different lengths are drawn by :meth:`sample`."""
        return dist.Multinomial(total_count=1, logits=params["logits"], validate_args=False)

    def log_prob(self, obs: SparseRows, params: dict[str, Tensor]) -> Tensor:
        """Log p(x_j | n_j, l_j) in nats, (n_items,)."""
        coefficient = torch.lgamma(obs.totals + 1).index_add(0, obs.rows, -torch.lgamma(obs.values + 1))
        return coefficient + _MultinomialLogProb.apply(params["logits"], obs.rows, obs.columns, obs.values)

    def check(self, obs: SparseRows) -> None:
        """Every value must be a whole number, 0 or more."""
        if not bool(((obs.values >= 0) & (obs.values == obs.values.round())).all()):
            raise InputError("multinomial content must be whole counts", "use --scaling none or binary")

    def initial_bias(self, mean: Tensor) -> dict[str, Tensor]:
        """The log frequency of each word."""
        return {"logits": torch.log(mean.clamp(min=1e-8) / mean.sum().clamp(min=1e-8))}

    def sample(self, params: dict[str, Tensor], like: SparseRows) -> SparseRows:
        """Texts of the same lengths as ``like``, word by word."""
        lengths = like.totals.round().long()
        rows = torch.repeat_interleave(torch.arange(len(like), device=lengths.device), lengths)
        words = torch.distributions.Categorical(logits=params["logits"][rows]).sample()
        counts = torch.zeros_like(params["logits"])
        return SparseRows.from_dense(counts.index_put_((rows, words), counts.new_ones(()), accumulate=True))
