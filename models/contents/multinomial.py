"""Multinomial content: which words make up a text of given length?"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro import distributions as dist
from torch import Tensor

from models.contents.base import ContentLikelihood, Params, at_least_zero, of_scaling, whole_counts
from models.rows import NumberRows, SparseRows
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Scaling


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
    default_scaling: ClassVar[Scaling] = "none"
    unbiased: ClassVar[bool] = False
    of_shares: ClassVar[bool] = True

    def __init__(self, subsample: int = 0) -> None:
        super().__init__()
        self.subsample = at_least_zero(subsample)

    def distribution(self, **params: Tensor) -> dist.Distribution:
        """One word of the text: texts of different lengths are drawn by :meth:`sample`."""
        return dist.Multinomial(total_count=1, logits=params["logits"], validate_args=False)

    def log_prob(self, obs: NumberRows, params: dict[str, Tensor]) -> Tensor:
        """Log p(x_j | n_j, l_j) in nats, (n_items,)."""
        return self._coefficient(obs) + _MultinomialLogProb.apply(params["logits"], obs.rows, obs.columns, obs.values)

    def log_prob_sampled(self, obs: NumberRows, stored: Params, drawn: Params, n_features: int) -> Tensor:
        """The normaliser's sum from the drawn words alone: sum_w exp(l_w) by V / n sum over drawn exp(l_w).

        This sum is unbiased, its log is too small by about half its relative variance, so that the estimate of
        log p(x | l) is too large (``docs/benchmarks.md`` has both measured). Source: Bengio and Senecal, 2003.
        """
        norm = torch.logsumexp(drawn["logits"], -1) + math.log(n_features / drawn["logits"].shape[1])
        cells = obs.values * stored["logits"]
        return self._coefficient(obs).index_add(0, obs.rows, cells) - obs.totals * norm

    def check(self, obs: NumberRows) -> None:
        """Every value must be a whole number, 0 or more."""
        whole_counts(obs, "multinomial")

    @staticmethod
    def _coefficient(obs: NumberRows) -> Tensor:
        return torch.lgamma(obs.totals + 1).index_add(0, obs.rows, -torch.lgamma(obs.values + 1))

    def initial_bias(self, mean: Tensor) -> dict[str, Tensor]:
        """The log frequency of each word."""
        return {"logits": torch.log(mean.clamp(min=1e-8) / mean.sum().clamp(min=1e-8))}

    def sample(self, params: dict[str, Tensor], like: NumberRows) -> SparseRows:
        """Texts of the same lengths as ``like``, word by word."""
        lengths = like.totals.round().long()
        longest = max(1, int(lengths.max())) if len(lengths) else 1
        words = torch.multinomial(params["logits"].softmax(-1), longest, replacement=True)
        rows, places = (torch.arange(longest, device=lengths.device) < lengths[:, None]).nonzero(as_tuple=True)
        counts = torch.zeros_like(params["logits"])
        counts.index_put_((rows, words[rows, places]), counts.new_ones(()), accumulate=True)
        return SparseRows.from_dense(counts)


class PseudoMultinomial(Multinomial):
    """The multinomial formula on weighted counts, by default ``tfidf-counts``: rare words count for more.

    It has no normaliser over such values, so the objective is a pseudo-ELBO and is labelled so. A draw has whole counts
    and the rounded length.
    """

    default_scaling: ClassVar[Scaling] = "tfidf-counts"
    pseudo: ClassVar[bool] = True

    def check(self, obs: NumberRows) -> None:
        """Every value must be 0 or more."""
        if not bool((obs.values >= 0).all()):
            remedy = of_scaling(obs, "use --scaling tfidf-counts or none", "normal")
            raise InputError("pseudo-multinomial content must be 0 or more", remedy)
