"""How far q(u_i) is from what the ratings and items say about a user: Pareto k, user by user."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from analysis.draws.pairs import spread_rows
from analysis.draws.psis import psis
from analysis.draws.streams import draw_blocks
from analysis.draws.user_rows import UserRows
from analysis.plots import figure
from inference.fitting import Fit
from pyro_cvae.errors import InputError

FLOATS_AT_ONCE = 2**24


def pareto_k(
    fit: Fit, users: np.ndarray | None = None, *, n_users: int = 50, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How far q(u_i) is from p(u_i | R_i, V), with V drawn from q: a row a user, columns user, n_ratings, k, ess, kl.

    A draw (u_i, V) from q(u_i) q(V) has the log ratio

        log p(R_i | u_i, V) + log p(u_i) - log p(R_i | V) - log q(u_i) = log p(u_i | R_i, V) - log q(u_i),

    the target being q(V) p(u_i | R_i, V): q with this user's part made exact. The division by p(R_i | V) keeps R_i from
    being counted twice, q(V) having seen it already. ``k`` is the Pareto k of the ratios: up to :func:`good_k`, u_i and
    u_i.v_j from q can be reweighted to the target; above it q(u_i), the same whatever V is, is too far from it. ``ess``
    is the effective share of the draws, ``kl`` the mean of minus the log ratio, an estimate in nats of
    E_q(V) KL(q(u_i) || p(u_i | R_i, V)). If V is a point and q(u_i) has a full covariance all ratios are 1 and k is
    -inf. Nothing is said of q(V) itself, or of all latents together: with millions of them that k is always bad.
    u_i has the user's bias in it, if there is one.

    Where the ratings are not Normal p(R_i | V) is not known, and V is one and the same draw from q for all draws of
    u_i (its mean would leave out the spread of V, which q(u_i) has in its precision): the target is p(u_i | R_i, V),
    and ``kl`` comes from ratios that are divided by their own mean, so that it is low where k is bad.

    ``users`` are rows; by default ``n_users`` evenly over their numbers of ratings. Raises InputError for a posterior
    that has no density: a point, or the draws of MCMC. Sources: Yao et al., Yes, but did it work? Evaluating
    variational inference, ICML 2018; Vehtari et al., Pareto smoothed importance sampling, JMLR 2024.
    """
    need_density(fit)
    counts = fit.split.train.user_counts
    rows = spread_rows(fit.dataset.interactions.user_counts, n_users) if users is None else np.asarray(users)
    ratios = log_ratios(fit, rows, draws, seed)
    top = ratios - ratios.max(0)
    weights = np.exp(top) / np.exp(top).sum(0)
    columns = {
        "n_ratings": counts[rows],
        "k": psis(ratios),
        "ess": 1 / (weights**2).sum(0) / draws,
        "kl": -ratios.mean(0),
    }
    return pd.DataFrame({"user": fit.dataset.user_ids[rows]} | columns)


def good_k(draws: int) -> float:
    """Up to which k the ratios of so many draws can be trusted: min(1 - 1 / log10(draws), 0.7), 0.667 of 1,000.

    Source: Vehtari et al., Pareto smoothed importance sampling, JMLR 2024.
    """
    return min(1 - 1 / math.log10(draws), 0.7)


def need_density(fit: Fit) -> None:
    """InputError for a posterior without a density q(u_i): a point, or the draws of MCMC."""
    if fit.posterior.is_point:
        raise InputError("a MAP fit is a point: no draws, no Pareto k", "fit with --mode bayes")
    if hasattr(fit.posterior, "chains"):
        raise InputError("draws of MCMC have no q whose Pareto k could be asked for", "look at their R-hat and ESS")


@torch.no_grad()
def log_ratios(fit: Fit, users: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Log p(u_i | R_i, V) - log q(u_i) in nats of draws from q, (n_draws, n_users), in float64; see :func:`pareto_k`.

    Of Normal ratings the background costs no pass over all pairs: with x_j = (v_j, 1) where there are biases, otherwise
    v_j, and c_j the item's bias, the precision of p(u_i | R_i, V) is lambda_u I + G + sum over stored cells of
    (c - b_j) x_j x_j', with G = sum_j b_j x_j x_j', and the ratings are R - c_j.
    """
    cells = UserRows.of(fit, users)
    loc, tril = _own_normal(fit, users)
    if not cells.gaussian:
        return _ratios_at_a_draw(fit, cells, users, loc, tril, draws, seed)
    at_once = max(1, FLOATS_AT_ONCE // ((2 * len(users) + 1) * fit.model.width**2))
    ratios = []
    for number, start in enumerate(range(0, draws, at_once)):
        own = int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)
        u, mean, factor = _given_items(fit, cells, users, min(at_once, draws - start), own)
        away = (factor.mT @ (u - mean)[..., None]).squeeze(-1)
        target = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * away.square().sum(-1)
        inside = torch.linalg.solve_triangular(tril, (u - loc)[..., None], upper=False).squeeze(-1)
        own_density = -tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * inside.square().sum(-1)
        ratios.append(target - own_density)
    return torch.cat(ratios).numpy()


def _given_items(fit: Fit, cells: UserRows, users: np.ndarray, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of u_i from q, with mean and Cholesky factor of the precision of p(u_i | R_i, V), V of the same draw.

    Shapes: u and mean (n_draws, n_users, width), the factor (n_draws, n_users, width, width), with the users' biases.
    """
    model, width = fit.model, fit.model.width
    precision = (model.lambda_u * torch.eye(width, dtype=torch.float64)).repeat(n, len(users), 1, 1)
    gram, pull = torch.zeros(n, width, width, dtype=torch.float64), torch.zeros(n, 1, width, dtype=torch.float64)
    shift = torch.zeros(n, len(users), width, dtype=torch.float64)
    u = torch.zeros_like(shift)
    for block, draws, drawn in draw_blocks(fit.posterior, users, cells.items, n, seed):
        u[draws] = drawn["u"][..., :width].double()
        x, bias = drawn["v"][..., :width], None
        b = cells.zeros(block, x.dtype)
        weighted = b[:, None] * x
        gram[draws] += (weighted.mT @ x).double()
        if model.mean is not None:
            bias = model.kappa_v * drawn["v"][..., -1]
            pull[draws] += (bias[:, None] @ weighted).double()
        user, item, rating, confidence = cells.cells(block, torch.float64)
        step = max(1, FLOATS_AT_ONCE // (4 * width**2 * (draws.stop - draws.start)))
        for some in torch.arange(len(user)).split(step):
            here = x[:, item[some]].double()
            excess = confidence[some] - b[item[some]].double()
            precision[draws].index_add_(1, user[some], (excess[:, None] * here)[..., :, None] * here[..., None, :])
            target = confidence[some] * rating[some]
            if bias is not None:
                target = target - excess * bias[:, item[some]].double()
            shift[draws].index_add_(1, user[some], target[..., None] * here)
    precision += gram[:, None]
    shift += model.lambda_u * _prior_mean(fit, users) - pull
    factor = torch.linalg.cholesky(precision)
    return u, torch.cholesky_solve(shift[..., None], factor).squeeze(-1), factor


def _prior_mean(fit: Fit, users: np.ndarray) -> Tensor:
    """Prior means of u, (n_users, width) or (width,), with what is above them at its posterior mean."""
    loc = fit.model.prior_of_users(fit.above).loc.double()
    return loc[torch.as_tensor(users)] if loc.dim() == 2 else loc


def _own_normal(fit: Fit, users: np.ndarray) -> tuple[Tensor, Tensor]:
    """Means (n_users, width) and Cholesky factors of q(u_i), with the bias, without what has no variance."""
    rows = torch.as_tensor(users)
    loc = fit.model.own("u", fit.posterior.mean("u")[rows]).double()
    return loc, torch.linalg.cholesky(fit.model.own("u", fit.posterior.covariance("u", rows)).double())


def _ratios_at_a_draw(
    fit: Fit, cells: UserRows, users: np.ndarray, loc: Tensor, tril: Tensor, draws: int, seed: int
) -> np.ndarray:
    """The same of any likelihood with V one draw from q, over their own mean, (n_draws, n_users)."""
    model, width = fit.model, loc.shape[1]
    noise = torch.randn((draws, *loc.shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u = loc + torch.einsum("rkl,nrl->nrk", tril, noise)
    rows = model.of_users(u.flatten(0, 1)).view(draws, len(users), -1)
    v = torch.cat([drawn["v"] for _, _, drawn in draw_blocks(fit.posterior, users[:0], cells.items, 1, seed)], 1)
    v = v.double().expand(draws, -1, -1)
    away = u - _prior_mean(fit, users)
    target = cells.log_prob(slice(0, len(cells.items)), rows, v) - 0.5 * model.lambda_u * away.square().sum(-1)
    target = target + 0.5 * width * math.log(model.lambda_u)
    own = -tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * noise.square().sum(-1)
    ratios = target - own
    return (ratios - ratios.logsumexp(0) + math.log(draws)).numpy()


def plot_pareto_k(table: pd.DataFrame, limit: float = 0.7) -> Any:
    """A figure of k, with the limit up to which it can be trusted, and of the KL by the number of training ratings."""
    drawn, axes = figure(2, 1, width=4.6, height=3.2)
    left, right = axes[0]
    jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(table))
    at = table["n_ratings"] + jitter
    lowest = table["k"].replace(-np.inf, np.nan).min()
    left.plot(at, table["k"].replace(-np.inf, lowest), ".")
    left.axhline(limit, color="#ee6677", linestyle="--", label=f"above {limit:.2f} q is too far away")
    left.set(xlabel="training ratings of the user", ylabel="Pareto k")
    left.legend(fontsize=8)
    right.plot(at, table["kl"], ".")
    right.set(xlabel="training ratings of the user", ylabel="KL(q(u) || p(u | R, V)), nats")
    for panel in axes[0]:
        panel.set_xlim(table["n_ratings"].min() - 0.7, table["n_ratings"].max() + 0.7)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return drawn
