"""Content that is a sequence of tokens: which one comes next, and where does it end?"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro import distributions as dist
from torch import Tensor

from models.contents.base import ContentLikelihood, Params
from models.rows import AnyRows, TokenRows


class _LogSoftmaxAt(torch.autograd.Function):
    """l_t[x_t] - logsumexp(l_t) at every position t, with one dense temporary each way."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        top = logits.amax(-1)
        unnormalized = (logits - top[:, None]).exp_()  # kept for the gradient, so that there is one exp in all
        mass = unnormalized.sum(-1)
        ctx.save_for_backward(unnormalized, mass, targets)
        return logits.gather(-1, targets[:, None]).squeeze(-1) - mass.log() - top

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        unnormalized, mass, targets = ctx.saved_tensors
        out = unnormalized * (-grad / mass)[:, None]
        return out.scatter_add_(-1, targets[:, None], grad[:, None]), None


class Tokens(ContentLikelihood):
    """log p(x_j | z_j) = sum_t log softmax(l_jt)[x_jt], with l_jt from z_j and the tokens before t.

    t runs over the tokens and an end behind them, which is a token too: lengths are drawn with the rest. Parameters are
    those of all positions, sequence by sequence, (n_positions, n_tokens + 1); the last is the end's. A decoder gives
    them by teacher forcing (``given``) and draws token by token (``draw``).
    """

    reads: ClassVar[tuple[str, ...]] = ("tokens",)
    param_names: ClassVar[tuple[str, ...]] = ("logits",)

    def distribution(self, **params: Tensor) -> dist.Distribution:
        """The token at each position, (n_positions,)."""
        return dist.Categorical(logits=params["logits"])

    def log_prob(self, obs: TokenRows, params: Params) -> Tensor:
        """Log p(x_j | z_j) in nats, (n_items,)."""
        ended = obs.ended()
        at = _LogSoftmaxAt.apply(params["logits"], ended.tokens)
        return at.new_zeros(len(obs)).index_add(0, ended.rows, at)

    def initial_bias(self, mean: Tensor) -> dict[str, Tensor]:
        """The log frequency of each token, and of the end."""
        return {"logits": torch.log(mean.clamp(min=1e-8) / mean.sum().clamp(min=1e-8))}

    def sample(self, params: Params, like: AnyRows) -> AnyRows:
        """None: the next token's parameters depend on the token drawn before, so that the decoder draws."""
        raise NotImplementedError("a sequence is drawn token by token; use the decoder's draw")

    def draw_next(self, params: Params) -> Tensor:
        """A token for each row of the parameters, (n_rows,); the last number is the end."""
        return torch.multinomial(params["logits"].softmax(-1), 1).squeeze(-1)
