"""The same model in plain torch, all dense: content (n_items, n_words), ratings and confidences (n_items, n_users).

The yardstick of ``benchmarks.epoch``, written as well as dense code allows: one pass over each dense block, constants
of the likelihood computed once, the same expectations in closed form, the same fused Adam.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


class DenseCVAE:
    """Joint training with multinomial content, tied weights 200-100, and points ("map") or Normals ("bayes") for u, v.

    Parameters: ``start`` tensors by name, see ``benchmarks.epoch.plain_names``; ``x`` word counts (n_items, n_words);
    ``ratings``, ``confidences`` (n_items, n_users); ``precisions`` lambda_u, lambda_v, lambda_w.
    """

    def __init__(
        self, start: dict[str, Tensor], x: Tensor, ratings: Tensor, confidences: Tensor, precisions: dict[str, float]
    ) -> None:
        self.p = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
        self.x, self.ratings, self.confidences = x, ratings, confidences
        self.lambda_u, self.lambda_v, self.lambda_w = (precisions[f"lambda_{name}"] for name in "uvw")
        self.bayes = "u_log_scale" in start
        # log of the multinomial coefficients, (n_items,); blocks so large that malloc gives them back
        self.coefficients = torch.empty(len(x))
        for rows, log in zip(x.split(1024), self.coefficients.split(1024), strict=True):
            log.copy_(torch.lgamma(rows.sum(-1) + 1) - torch.lgamma(rows + 1).sum(-1))

    def parts(self, items: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The signed parts of the objective, scaled to all items; ``noise`` (n_batch, n_factors) draws z."""
        p, x, scale = self.p, self.x[items], len(self.x) / len(items)
        h = torch.sigmoid(x @ p["table"] + p["encoder_bias_0"])
        h = torch.sigmoid(h @ p["inside"] + p["encoder_bias_1"])
        mu = F.linear(h, p["loc_weight"], p["loc_bias"])
        log_var = F.linear(h, p["log_variance_weight"], p["log_variance_bias"]).clamp(-12, 6)
        var = log_var.exp()
        z = mu + var.sqrt() * noise
        h = torch.sigmoid(F.linear(z, p["inner_weight"], p["inner_bias"]))
        h = torch.sigmoid(h @ p["inside"].mT + p["decoder_bias"])
        log_words = F.log_softmax(F.linear(h, p["table"], p["word_bias"]), -1)
        u, v = p["u"], p["v"][items]
        ratings, confidences = self.ratings[items], self.confidences[items]
        square = (ratings - v @ u.mT).square()
        u_var = v_var = None
        if self.bayes:
            u_var, v_var = (2 * p["u_log_scale"]).exp(), (2 * p["v_log_scale"][items]).exp()
            square = square + v_var @ (u.square() + u_var).mT + v.square() @ u_var.mT
        kl_v = _kl(v, v_var, mu, self.lambda_v) + 0.5 * self.lambda_v * var.sum()
        networks = [tensor for name, tensor in p.items() if name[:2] not in ("u", "v", "u_", "v_")]
        size = sum(tensor.numel() for tensor in networks)
        norm = torch.stack([tensor.square().sum() for tensor in networks]).sum()
        return {
            "content": scale * (self.coefficients[items].sum() + (x * log_words).sum()),
            "ratings": -0.5 * scale * (confidences * square).sum(),
            "u": -_kl(u, u_var, torch.zeros_like(u), self.lambda_u),
            "v": -scale * kl_v,
            "z": -0.5 * scale * (mu.square() + var - 1 - log_var).sum(),
            "weights": 0.5 * (size * math.log(self.lambda_w / (2 * math.pi)) - self.lambda_w * norm),
        }

    def epoch(self, optimizer: torch.optim.Optimizer, batch_size: int) -> None:
        """Every item once, in minibatches as those of the package."""
        order = torch.randperm(len(self.x))
        for items in order.tensor_split(-(-len(order) // batch_size)):
            noise = torch.randn(len(items), self.p["v"].shape[1])
            optimizer.zero_grad(set_to_none=True)
            loss = -torch.stack(list(self.parts(items.sort().values, noise).values())).sum() / len(self.x)
            loss.backward()
            optimizer.step()


def _kl(mean: Tensor, var: Tensor | None, prior_mean: Tensor, precision: float) -> Tensor:
    """KL(N(mean, var) || N(prior_mean, 1/precision)), for a point minus its log density; summed, in nats."""
    square = precision * (mean - prior_mean).square()
    if var is None:
        return 0.5 * (square - math.log(precision / (2 * math.pi))).sum()
    return 0.5 * (square + precision * var - 1 - math.log(precision) - var.log()).sum()
