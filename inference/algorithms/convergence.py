r"""Have the chains converged? Rank-normalised split R-hat, and bulk and tail effective sample sizes.

Source: A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, Rank-normalization, folding, and localization:
an improved R-hat for assessing convergence of MCMC, Bayesian Analysis 16 (2021). All quantities at once, by matrices:
ArviZ has the same numbers one quantity at a time, and tests hold ours to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from torch import Tensor

from inference.draws import Draws
from pyro_cvae.errors import InputError

RHAT_UP_TO, ESS_PER_CHAIN = 1.05, 100
"""Beyond these :func:`doubts` are raised. The reference asks R-hat <= 1.01 of one quantity; here the largest counts."""
QUANTITIES = 2000


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Of each quantity: ``rhat``, ``ess_bulk``, ``ess_tail``, (n_quantities,) each."""

    rhat: Tensor
    ess_bulk: Tensor
    ess_tail: Tensor

    def worst(self) -> dict[str, float]:
        """The largest R-hat and the smallest effective sample sizes."""
        smallest = {"ess_bulk": float(self.ess_bulk.min()), "ess_tail": float(self.ess_tail.min())}
        return {"rhat": float(self.rhat.max()), **smallest}


def diagnose(draws: Tensor) -> Diagnosis:
    """R-hat and effective sample sizes of draws (n_chains, n_draws, n_quantities), at least 4 draws a chain.

    A quantity that never changes has R-hat 1 and an effective sample size of all draws.
    """
    draws = draws.double()
    split = _split(draws)
    median = split.flatten(0, 1).quantile(0.5, dim=0)
    bulk = _normal_scores(split)
    rhat = torch.maximum(_rhat(bulk), _rhat(_normal_scores((split - median).abs())))
    tails = []
    for level in (0.05, 0.95):
        quantile = draws.flatten(0, 1).quantile(level, dim=0)
        tails.append(_ess(_split((draws <= quantile).double())))
    return Diagnosis(rhat, _ess(bulk), torch.minimum(*tails))


def convergence(draws: Draws) -> dict[str, dict[str, float]]:
    """The worst R-hat and effective sample sizes over log p(R, X, U, V, Z), over scores u.v, and over u, v and z.

    Of each kind at most 2,000 quantities are looked at, evenly spread. Empty for chains of fewer than 4 draws.
    Raises InputError for a posterior that is no chains.
    """
    if not hasattr(draws, "n_chains"):
        raise InputError("this posterior is no chains, of which convergence is asked", "fit with inference.mcmc")
    if len(draws) < 4 * draws.n_chains:
        return {}
    n_users, n_items = len(draws.u_loc), len(draws.v_loc)
    pairs = torch.linspace(0, n_users * n_items - 1, min(QUANTITIES, n_users * n_items), dtype=torch.float64).long()
    users, items = pairs // n_items, pairs % n_items
    parts = [draws.scores_in(slice(None), u, i) for u, i in zip(users.split(256), items.split(256), strict=True)]
    found = {"log_joint": draws.log_joint[:, None], "score": torch.cat(parts, 1)}
    for name in "uvz":
        values = getattr(draws, f"{name}_draws").flatten(1)
        found[name] = values[:, torch.linspace(0, values.shape[1] - 1, min(QUANTITIES, values.shape[1])).long()]
    return {name: diagnose(part.view(draws.n_chains, -1, part.shape[1])).worst() for name, part in found.items()}


def doubts(found: dict[str, dict[str, float]], n_chains: int) -> str:
    """What speaks against the draws of log p(R, X, U, V, Z) and of scores, in words; empty where nothing does."""
    named = [
        f"{name} has R-hat {of['rhat']:.2f} and effective sample sizes of {of['ess_bulk']:.0f} and {of['ess_tail']:.0f}"
        for name, of in found.items()
        if name in ("log_joint", "score")
        and (of["rhat"] > RHAT_UP_TO or min(of["ess_bulk"], of["ess_tail"]) < ESS_PER_CHAIN * n_chains)
    ]
    return ", ".join(named)


def _split(draws: Tensor) -> Tensor:
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: Tensor) -> Tensor:
    """Ranks over all chains as quantiles of the standard normal; ties have their mean rank."""
    flat = draws.flatten(0, 1)
    ranks = torch.as_tensor(rankdata(flat.numpy(), axis=0))
    return torch.special.ndtri((ranks - 0.375) / (len(flat) + 0.25)).view_as(draws)


def _rhat(draws: Tensor) -> Tensor:
    """Square root of (between + within) / within of the chains' variances, (n_quantities,)."""
    n = draws.shape[1]
    within, between = draws.var(1).mean(0), draws.mean(1).var(0)
    found = (between / within + (n - 1) / n).sqrt()
    return torch.where(within > 0, found, torch.where(between > 0, torch.inf, 1.0))


def _ess(draws: Tensor) -> Tensor:
    """n_draws / (-1 + 2 sum of autocorrelations), by Geyer's initial monotone positive sequence, (n_quantities,)."""
    n_chains, n = draws.shape[:2]
    away = draws - draws.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(away, 2 * n, dim=1)
    covariance = (torch.fft.irfft(spectrum.abs().square(), 2 * n, dim=1)[:, :n] / n).mean(0)
    within = covariance[0] * n / (n - 1)
    total = within * (n - 1) / n
    if n_chains > 1:
        total = total + draws.mean(1).var(0)
    rho = 1 - (within - covariance) / total
    rho[0] = 1.0
    pairs = rho[: n - n % 2].view(-1, 2, rho.shape[1]).sum(1)
    usable = torch.arange(len(pairs))[:, None] < max(1, (n - 3) // 2)
    positive = ((pairs > 0) & usable).long().cumprod(0).bool()
    summed = torch.where(positive, pairs.cummin(0).values, 0.0).sum(0)
    first = positive.sum(0).clamp(max=len(pairs) - 1)[None]  # of the first pair that is not, the even part counts once
    rest = rho[0::2].gather(0, first)[0].clamp(min=0)
    tau = (2 * summed - 1 + rest).clamp(min=1 / math.log10(n_chains * n))
    return torch.where(total > 0, n_chains * n / tau, float(n_chains * n))
