r"""Is the fit sound? Traces, content, Pareto k, predictive checks: ``python -m analysis.diagnostics RUN --out FOLDER``.

- :func:`traces`: the objective and its named terms by epoch.
- :func:`content_units`: which units of q(z|x) are alive.
- :func:`pareto_k`: how far q(u_i) is from what the items say about the user, for each user.
- :func:`predictive_checks`: discrepancies of the data beside those of data drawn from posterior or prior.

C depends on R in the paper (a where R = 1), so that its ratings, real numbers, are drawn given the exposure: which
cells are stored, with what confidence. Of clicks and counts whose zeros are data whole rows of users are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.printing import Sheet, check_format, emit
from inference.progress import Lines, progress
from pyro_cvae.errors import InputError, run_command

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from inference.fitting import Fit
    from pyro_cvae.data.content import Content

BACKGROUND_OF_A_USER = 50
FLOATS_AT_ONCE = 2**24


# --- the objective ---------------------------------------------------------------------------------------------------


def traces(fit: Fit) -> Any:
    """A figure of the objective and its named terms by epoch, in nats, a panel each, a colour a phase.

    A panel holds one number alone: an ELBO and a MAP objective are different ones, and so is the objective before
    ratings are in it (phase "content"). A term is drawn as it is logged: those named kl_ are subtracted.
    """
    import numpy as np
    import pandas as pd

    from analysis.plots import CYCLE, figure
    from inference.elbo import SIGNS

    table = pd.DataFrame(fit.history)
    if table.empty:
        raise InputError("the fit has no history", "fit for an epoch or more")
    objective = fit.options.objective
    phases = list(dict.fromkeys(table["phase"]))
    panels = [(f"{_called(fit)} ({phase})", table[objective].where(table["phase"] == phase)) for phase in phases]
    shown = [name for name in table.columns if name in SIGNS or str(name).startswith("validation_")]
    panels += [(_term(name), table[name]) for name in shown if table[name].notna().any()]
    n_columns = 3
    drawn, axes = figure(n_columns, -(-len(panels) // n_columns), width=3.9, height=2.5)
    for panel, (title, values) in zip(axes.flat, panels, strict=False):
        for phase, color in zip(phases, CYCLE, strict=False):
            mine = (table["phase"] == phase) & values.notna() & np.isfinite(values)
            if mine.any():
                panel.plot(table["epoch"][mine], values[mine], ".-", color=color, markersize=4, label=phase)
        panel.set_title(title, fontsize=10)
        panel.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("epoch")
    axes.flat[len(phases)].legend(fontsize=8) if len(panels) > len(phases) else None
    return drawn


def _called(fit: Fit) -> str:
    """What the objective is to be called."""
    name = "MAP objective" if fit.options.objective == "map_objective" else "ELBO"
    name = f"pseudo-{name}" if fit.model.content.pseudo else name
    return f"{name} of a tempered fit" if fit.options.tempered else name


def _term(name: str) -> str:
    words = {
        "ratings": "E log p(R | U, V)",
        "content": "E log p(X | Z)",
        "kl_u": "KL of q(U), subtracted",
        "kl_v": "KL of q(V), subtracted",
        "kl_z": "KL of q(Z | X), subtracted",
        "log_p_u": "log p(U)",
        "log_p_v": "log p(V | Z)",
        "weights": "log p(theta)",
        "penalty": "encoder's penalty",
        "precisions": "log p of precisions",
        "validation_recall": "validation recall@300",
        "validation_rmse": "validation RMSE",
    }
    return words.get(name, name)


# --- the content -----------------------------------------------------------------------------------------------------


def content_units(fit: Fit) -> tuple[pd.DataFrame, Any]:
    """KL of each unit of q(z|x), and the eigenvalues of the means' covariance; a table and a figure.

    Columns: ``kl``, the mean over items of KL(q(z_k|x) || p(z_k)) in nats, and ``eigenvalue`` of the covariance of the
    means over items, both in falling order, so that a row pairs the k-th largest of each, not one unit with another.
    """
    import pandas as pd
    import torch

    from analysis.plots import figure

    loc, scale = fit.posterior.z_loc.double(), fit.posterior.z_scale.double()
    kl = (0.5 * (loc.square() + scale.square() - 1) - scale.log()).mean(0).sort(descending=True).values
    eigenvalues = torch.linalg.eigvalsh(torch.atleast_2d(torch.cov(loc.mT))).flip(0)
    table = pd.DataFrame({"kl": kl.numpy(), "eigenvalue": eigenvalues.numpy()}, index=pd.RangeIndex(1, 1 + len(kl)))
    drawn, axes = figure(2, 1, width=4.6, height=3.2)
    left, right = axes[0]
    left.bar(table.index, table["kl"], width=0.8)
    left.set(xlabel="unit, by its KL", ylabel="mean KL(q(z|x) || p(z)), nats")
    right.semilogy(table.index, table["eigenvalue"].clip(lower=1e-6), ".-")
    right.axhline(0.01, color="#bbbbbb", linestyle="--")
    right.set(xlabel="direction, by its eigenvalue", ylabel="variance of E[z] over items")
    alive = int((table["eigenvalue"] > 0.01).sum())
    right.set_title(f"{alive} of {len(table)} active (above 0.01)", fontsize=10)
    return table, drawn


# --- Pareto k of each user -------------------------------------------------------------------------------------------


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
    import numpy as np
    import pandas as pd

    from analysis.draws.pairs import spread_rows
    from analysis.draws.psis import psis

    _need_density(fit)
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


def _need_density(fit: Fit) -> None:
    if fit.posterior.is_point:
        raise InputError("a MAP fit is a point: no draws, no Pareto k", "fit with --mode bayes")
    if hasattr(fit.posterior, "chains"):
        raise InputError("draws of MCMC have no q whose Pareto k could be asked for", "look at their R-hat and ESS")


def log_ratios(fit: Fit, users: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Log p(u_i | R_i, V) - log q(u_i) in nats of draws from q, (n_draws, n_users), in float64; see :func:`pareto_k`.

    Of Normal ratings the background costs no pass over all pairs: with x_j = (v_j, 1) where there are biases, otherwise
    v_j, and c_j the item's bias, the precision of p(u_i | R_i, V) is lambda_u I + b G + sum over stored cells of
    (c - b) x_j x_j', with G = sum_j x_j x_j', and the ratings are R - c_j.
    """
    import numpy as np
    import torch

    from analysis.draws.streams import draw_blocks
    from analysis.draws.user_rows import UserRows

    posterior, model, cells = fit.posterior, fit.model, UserRows.of(fit, users)
    loc, tril = _own_normal(fit, users)
    if not cells.gaussian:
        return _ratios_at_a_draw(fit, cells, users, loc, tril, draws, seed)
    width = model.width
    at_once = max(1, FLOATS_AT_ONCE // ((2 * len(users) + 1) * width**2))
    parts = []
    for number, start in enumerate(range(0, draws, at_once)):
        n = min(at_once, draws - start)
        precision = (model.lambda_u * torch.eye(width, dtype=torch.float64)).repeat(n, len(users), 1, 1)
        gram, pull = torch.zeros(n, width, width, dtype=torch.float64), torch.zeros(n, 1, width, dtype=torch.float64)
        shift = torch.zeros(n, len(users), width, dtype=torch.float64)
        u = torch.zeros_like(shift)
        own = int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)
        for block, some, drawn in draw_blocks(posterior, users, cells.items, n, own):
            u[some] = drawn["u"][..., :width].double()
            x, bias = drawn["v"][..., :width], None
            gram[some] += (x.mT @ x).double()
            if model.mean is not None:
                bias = model.kappa_v * drawn["v"][..., -1]
                pull[some] += (bias[:, None] @ x).double()
            user, item, rating, confidence = cells.cells(block, torch.float64)
            step = max(1, FLOATS_AT_ONCE // (4 * width**2 * (some.stop - some.start)))
            for part in torch.arange(len(user)).split(step):
                here = x[:, item[part]].double()
                excess = confidence[part] - cells.b
                precision[some].index_add_(1, user[part], (excess[:, None] * here)[..., :, None] * here[..., None, :])
                target = confidence[part] * rating[part]
                if bias is not None:
                    target = target - excess * bias[:, item[part]].double()
                shift[some].index_add_(1, user[part], target[..., None] * here)
        precision += cells.b * gram[:, None]
        shift -= cells.b * pull
        factor = torch.linalg.cholesky(precision)
        mean = torch.cholesky_solve(shift[..., None], factor).squeeze(-1)
        away = (factor.mT @ (u - mean)[..., None]).squeeze(-1)
        target = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * away.square().sum(-1)
        inside = torch.linalg.solve_triangular(tril, (u - loc)[..., None], upper=False).squeeze(-1)
        own_density = -tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * inside.square().sum(-1)
        parts.append(target - own_density)
    return torch.cat(parts).numpy()


def _own_normal(fit: Fit, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Means (n_users, width) and Cholesky factors of q(u_i), with the bias, without what has no variance."""
    import torch

    rows = torch.as_tensor(users)
    loc = fit.model.own("u", fit.posterior.mean("u")[rows]).double()
    return loc, torch.linalg.cholesky(fit.model.own("u", fit.posterior.covariance("u", rows)).double())


def _ratios_at_a_draw(
    fit: Fit, cells: Any, users: np.ndarray, loc: torch.Tensor, tril: torch.Tensor, draws: int, seed: int
) -> np.ndarray:
    """The same of any likelihood with V one draw from q, over their own mean, (n_draws, n_users)."""
    import torch

    from analysis.draws.streams import draw_blocks

    model, width = fit.model, loc.shape[1]
    noise = torch.randn((draws, *loc.shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u = loc + torch.einsum("rkl,nrl->nrk", tril, noise)
    rows = model.of_users(u.flatten(0, 1)).view(draws, len(users), -1)
    v = torch.cat([drawn["v"] for _, _, drawn in draw_blocks(fit.posterior, users[:0], cells.items, 1, seed)], 1)
    v = v.double().expand(draws, -1, -1)
    target = cells.log_prob(slice(0, len(cells.items)), rows, v) - 0.5 * model.lambda_u * u.square().sum(-1)
    target = target + 0.5 * width * math.log(model.lambda_u)
    own = -tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * noise.square().sum(-1)
    ratios = target - own
    return (ratios - ratios.logsumexp(0) + math.log(draws)).numpy()


def plot_pareto_k(table: pd.DataFrame, limit: float = 0.7) -> Any:
    """A figure of k, with the limit up to which it can be trusted, and of the KL by the number of training ratings."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    from analysis.plots import figure

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


# --- predictive checks -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Check:
    """A discrepancy T of the data beside that of drawn data.

    Parameters:
        name: What T is.
        meaning: How to read it, one sentence.
        observed: T of the data in each draw, (n_draws,), the same number where T does not depend on the parameters.
        replicated: T of the data drawn in each draw, (n_draws,).
    """

    name: str
    meaning: str
    observed: np.ndarray
    replicated: np.ndarray

    def __str__(self) -> str:
        drawn = self.replicated
        return f"{self.observed.mean():.4g}, drawn {drawn.mean():.4g} (sd {drawn.std():.2g}), p = {self.p:.3f}"

    @property
    def p(self) -> float:
        """Predictive p-value P(T_drawn > T) + 1/2 P(T_drawn = T): near 0 or 1 the model does not give such data."""
        return float((self.replicated > self.observed).mean() + 0.5 * (self.replicated == self.observed).mean())


def predictive_checks(
    fit: Fit, source: str = "posterior", *, n_users: int = 200, n_texts: int = 100, draws: int = 200, seed: int = 0
) -> list[Check]:
    """Checks of ratings and texts against what the model would have given, ``source`` "posterior" or "prior".

    Of ``n_users`` users (evenly over their numbers of ratings) the stored cells, their held-out pairs and some cells
    that are neither; of ``n_texts`` items (evenly over theirs) the texts. A drawn R_ij comes from the run's likelihood,
    for the paper N(u_i.v_j, 1 / C_ij), with the exposure of the data. Where zeros are part of the data, as of Bernoulli
    and Poisson, whole rows of users are drawn, since "stored" then is a value, not an exposure. A drawn text has the
    length of its own; contents other than words have no check. Of MCMC no more draws are taken than are stored. Raises
    InputError for the posterior of a point; its prior can be asked for.
    """
    if source not in ("posterior", "prior"):
        raise InputError(f"{source!r} is no source of draws", "use posterior or prior")
    if source == "posterior" and fit.posterior.is_point:
        raise InputError("a MAP fit is a point: it has no posterior to check", "fit with --mode bayes")
    if source == "posterior" and hasattr(fit.posterior, "chains"):  # of MCMC no more than there are, all chains alike
        n_chains, n_stored = fit.posterior.chains("u").shape[:2]
        draws = n_chains * min(max(1, draws // n_chains), n_stored)
    return [*_rating_checks(fit, source, n_users, draws, seed), *_text_checks(fit, source, n_texts, draws, seed)]


def _rating_checks(fit: Fit, source: str, n_users: int, draws: int, seed: int) -> Iterator[Check]:
    import numpy as np

    from analysis.draws.pairs import Cells, held_out_cells, pairs_by_kind, seen_cells, spread_rows
    from analysis.draws.ratings import noise_precision

    likelihood = fit.model.ratings
    rng = np.random.default_rng((seed, 2))
    users = spread_rows(fit.dataset.interactions.user_counts, n_users)
    kinds = pairs_by_kind(fit, users, BACKGROUND_OF_A_USER, seed)
    stored, background = seen_cells(fit, *kinds["train"]), seen_cells(fit, *kinds["neither"])
    held_out, neither = held_out_cells(fit, *kinds["test"]), Cells(*kinds["neither"], *np.zeros((2, 0)))
    asked = (stored, background, held_out, neither)
    scores = _scores(fit, source, [(cells.users, cells.items) for cells in asked], draws, seed)
    if likelihood.zeros and noise_precision(likelihood) is None:
        yield from _whole_row_checks(fit, source, users, draws, seed)
    else:
        yield from _stored_checks(fit, stored, background, scores, rng)
    if not len(held_out) or source == "prior":
        return
    if fit.split.train.complete or likelihood.explicit:
        drawn, mean, variance = _drawn(fit, held_out, scores[2], rng)
        expected, spread = mean.mean(0), (mean.var(0) + variance.mean(0)) ** 0.5
        yield Check(
            "squares of held-out ratings",
            "Sum over held-out cells of (R - E R)^2 / var(R), for Normals E u.v and var(u.v) + 1/C; small p: the "
            "intervals are too narrow.",
            (((held_out.ratings - expected) / spread) ** 2).sum() * np.ones(draws),
            (((drawn - expected) / spread) ** 2).sum(1),
        )
    elif len(neither):
        yield _rank_check(fit, held_out, neither, scores[2], scores[3], rng)


def _drawn(fit: Fit, cells: Any, scores: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Drawn ratings of cells given their scores, with E[R | s] and var(R | s), (n_draws, n_cells) each."""
    import torch

    from analysis.draws.ratings import draw_ratings
    from models.ratings.cells import moments

    score = torch.as_tensor(scores)
    drawn = draw_ratings(fit.model.ratings, scores, cells.confidences, int(rng.integers(2**62)))
    with torch.no_grad():
        cell = fit.model.ratings.cell(score, torch.as_tensor(cells.confidences).to(score).expand_as(score))
        return drawn, *(part.numpy() for part in moments(cell))


def _stored_checks(
    fit: Fit, stored: Any, background: Any, scores: list[np.ndarray], rng: np.random.Generator
) -> Iterator[Check]:
    """Of ratings whose exposure is given: stored cells, and cells that are not stored where they are zeros."""
    import numpy as np

    drawn, mean, variance = _drawn(fit, stored, scores[0], rng)
    means, drawn_means = _by_user(stored.ratings[None], stored.users), _by_user(drawn, stored.users)
    same = np.ones(len(drawn))
    yield Check(
        "mean of stored ratings",
        "Mean over users of the mean of their stored R; a click is a 1, and shrinkage draws less.",
        means.mean(1) * same,
        drawn_means.mean(1),
    )
    yield Check(
        "spread between users",
        "Standard deviation over users of that mean; 0 for clicks.",
        means.std(1) * same,
        drawn_means.std(1),
    )
    yield Check(
        "squares of stored ratings",
        "Sum over stored cells of (R - E R)^2 / var(R) given u.v, for Normals C (R - u.v)^2, of the data and of drawn "
        "ratings; small p: they are fitted badly.",
        ((stored.ratings - mean) ** 2 / variance).sum(1),
        ((drawn - mean) ** 2 / variance).sum(1),
    )
    if len(background):
        drawn, mean, variance = _drawn(fit, background, scores[1], rng)
        yield Check(
            "squares of zeros",
            "The same of cells that are not stored, R = 0; p near 1: exact zeros are no draws of a Normal.",
            (mean**2 / variance).sum(1),
            ((drawn - mean) ** 2 / variance).sum(1),
        )


def _whole_row_checks(fit: Fit, source: str, users: np.ndarray, draws: int, seed: int) -> Iterator[Check]:
    """Of whole rows R_i, zeros and all: totals of users and of items."""
    import numpy as np
    import torch

    from analysis.draws.ratings import draw_ratings
    from analysis.draws.streams import draw_blocks, prior_blocks
    from analysis.draws.user_rows import UserRows

    rows, rng = UserRows.of(fit, users), np.random.default_rng((seed, 3))
    n_users, n_items = len(users), len(rows.items)
    of_user, of_item = np.zeros((draws, n_users)), np.zeros((draws, n_items))
    if source == "posterior":
        stream = draw_blocks(fit.posterior, users, rows.items, draws, seed)
    else:
        stream = prior_blocks(fit.model, n_users, n_items, draws, seed, fit.posterior.u_loc.dtype)
    for block, some, drawn in stream:
        user, item, _, confidence = rows.cells(block, torch.float64)
        missing, (u, v) = confidence == 0, (drawn[name] for name in "uv")
        step = max(1, FLOATS_AT_ONCE // max(1, 4 * n_users * v.shape[1]))
        for start in range(0, len(u), step):
            score = (u[start : start + step] @ v[start : start + step].mT).numpy()
            given = np.full(score.shape[-1], rows.b)
            ratings = draw_ratings(fit.model.ratings, score, given, int(rng.integers(2**62)))
            ratings[:, user[missing].numpy(), item[missing].numpy()] = 0
            at = slice(some.start + start, some.start + start + len(score))
            of_user[at] += ratings.sum(2)
            of_item[at, block] += ratings.sum(1)
    rating = np.where(rows.confidence > 0, rows.rating, 0.0)
    data_of_user = np.bincount(rows.user, rating, n_users)
    data_of_item = np.bincount(rows.item, rating, n_items)
    same = np.ones(draws)
    mean = "Mean over users of the sum of their R over all items, zeros and all; small p: the model draws too few."
    yield Check("ratings of a user", mean, data_of_user.mean() * same, of_user.mean(1))
    spread = "Standard deviation over users of that sum: are some as active as they are?"
    yield Check("spread between users", spread, data_of_user.std() * same, of_user.std(1))
    spread = "Standard deviation over items of the sum of R over these users: are some as popular as they are?"
    yield Check("spread between items", spread, data_of_item.std() * same, of_item.std(1))


def _rank_check(fit: Fit, held_out: Any, neither: Any, positive: Any, other: Any, rng: np.random.Generator) -> Check:
    """AUC of held-out items under drawn scores, beside that of items chosen by the drawn ratings.

    Clicks and counts tie: of these as many items are chosen one after the other with odds exp(u.v), by Gumbel noise.
    """
    import numpy as np

    from analysis.draws.ratings import noise_precision

    users = np.concatenate([held_out.users, neither.users])
    both = np.isin(users, np.intersect1d(held_out.users, neither.users))
    users, scores = users[both], np.concatenate([positive, other], axis=1)[:, both]
    chosen = (np.arange(len(both)) < len(held_out))[both]
    _, place, counts = np.unique(users, return_inverse=True, return_counts=True)
    n_chosen = np.bincount(place, chosen)
    start = np.cumsum(counts) - counts
    if noise_precision(fit.model.ratings) is None:
        ratings = scores + rng.gumbel(size=scores.shape)
    else:
        ratings = scores + rng.standard_normal(scores.shape) * fit.model.ratings.default_confidence**-0.5
    observed, replicated = np.empty(len(scores)), np.empty(len(scores))
    for draw, (score, rating) in enumerate(zip(scores, ratings, strict=True)):
        rank = _ranks(score, place, start)
        of_rating = _ranks(-rating, place, start)
        for into, picked in ((observed, chosen), (replicated, of_rating < n_chosen[place])):
            below = np.bincount(place, rank * picked) - n_chosen * (n_chosen - 1) / 2
            into[draw] = (below / (n_chosen * (counts - n_chosen))).mean()
    return Check(
        "rank of held-out items (AUC)",
        "Chance that a held-out item has a higher u.v than one that is neither; drawn: that of as many items chosen by "
        "their drawn R (of precision a, or of odds exp(u.v)), how well the model believes that it ranks; p near 1: it "
        "believes too much.",
        observed,
        replicated,
    )


def _ranks(values: np.ndarray, place: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Rank of each value among those of its user, from 0, in their own order."""
    import numpy as np

    order = np.lexsort((values, place))
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values)) - start[place[order]]
    return ranks


def _by_user(values: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Means of each user's values, (n_draws, n_users), from (n_draws, n_cells), the cells being in order of users."""
    import numpy as np

    _, start, counts = np.unique(users, return_index=True, return_counts=True)
    return np.add.reduceat(values, start, axis=1) / counts


def _scores(
    fit: Fit, source: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]], draws: int, seed: int
) -> list[np.ndarray]:
    """Joint draws of the scores of several sets of pairs, (n_draws, n_pairs) each in float64."""
    import numpy as np

    from analysis.draws.streams import draw_blocks, prior_blocks

    users, user_at = np.unique(np.concatenate([u for u, _ in pairs]), return_inverse=True)
    items, item_at = np.unique(np.concatenate([i for _, i in pairs]), return_inverse=True)
    found = np.empty((draws, len(user_at)))
    if source == "posterior":
        stream = draw_blocks(fit.posterior, users, items, draws, seed)
    else:
        stream = prior_blocks(fit.model, len(users), len(items), draws, seed, fit.posterior.u_loc.dtype)
    for block, some, drawn in stream:
        inside = np.flatnonzero((item_at >= block.start) & (item_at < block.stop))
        step = max(1, FLOATS_AT_ONCE // (2 * drawn["u"].shape[0] * drawn["u"].shape[2]))
        for part in np.array_split(inside, -(-len(inside) // step) or 1):
            u, v = drawn["u"][:, user_at[part]], drawn["v"][:, item_at[part] - block.start]
            found[some, part] = (u * v).sum(-1)
    return np.split(found, np.cumsum([len(u) for u, _ in pairs])[:-1], axis=1)


def _text_checks(fit: Fit, source: str, n_texts: int, draws: int, seed: int) -> Iterator[Check]:
    import numpy as np
    import torch

    from analysis.draws.pairs import spread_rows
    from models.observations import SparseRows

    known = _words(fit)
    if known is None:
        return
    counts = known.counts
    full = np.flatnonzero(np.diff(counts.indptr))
    items = full[spread_rows(np.diff(counts.indptr)[full], n_texts)]
    dtype = fit.posterior.z_loc.dtype
    content = SparseRows.from_csr(fit.scalings["content"].transform(counts[items]), dtype)
    chosen = fit.posterior.select(items=torch.as_tensor(items))
    words, alone, largest = np.empty(draws), np.empty(draws), np.empty(draws)
    whole = True
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        for draw, z in enumerate(_z_draws(chosen, source, draws, seed)):
            text = fit.model.decoder.draw(fit.model.content, z, content)
            assert isinstance(text, SparseRows)
            whole = whole and bool((text.values == text.values.round()).all() and (text.values >= 0).all())
            words[draw], alone[draw], largest[draw] = _word_statistics(text)
    same = np.ones(draws)
    if not whole:
        return
    of_data = _word_statistics(content)
    yield Check("different words of a text", "Mean over texts.", of_data[0] * same, words)
    yield Check(
        "words of one text alone",
        "Share, of the words that occur, of those in one text only: the tail of word frequencies.",
        of_data[1] * same,
        alone,
    )
    yield Check(
        "most common word",
        "Share of the texts that have the word that most have.",
        of_data[2] * same,
        largest,
    )


def _words(fit: Fit) -> Content | None:
    """The word counts that the fit's content is, ``None`` where it is of another kind or of several contents."""
    from models.build import contents_of
    from pyro_cvae.data.content import Content

    contents, _, several = contents_of(fit.dataset, fit.model.content, fit.options.model.content)
    content = next(iter(contents.values()))
    return None if several or not isinstance(content, Content) else content


def _z_draws(chosen: Any, source: str, draws: int, seed: int) -> Iterator[torch.Tensor]:
    import torch

    if source == "prior":
        generator = torch.Generator().manual_seed(seed)
        for _ in range(draws):
            yield torch.randn(chosen.z_loc.shape, generator=generator, dtype=chosen.z_loc.dtype)
    else:
        for part in chosen.draws(draws, seed):
            yield from part["z"]


def _word_statistics(text: Any) -> tuple[float, float, float]:
    """Mean number of different words, share of words in one text alone, share of texts with the most common word."""
    import torch

    there = text.values > 0
    frequency = torch.bincount(text.columns[there], minlength=text.n_columns)
    occurring = (frequency > 0).sum().clamp(min=1)
    n_texts = len(text)
    return float(there.sum()) / n_texts, float((frequency == 1).sum() / occurring), float(frequency.max()) / n_texts


def plot_checks(checks: Sequence[Check], title: str = "") -> Any:
    """A figure of all checks: drawn data as a histogram, the data as a line, or both as points where both vary."""
    import numpy as np

    from analysis.plots import CYCLE, figure

    n_columns = min(3, max(1, len(checks)))
    drawn, axes = figure(n_columns, -(-len(checks) // n_columns), width=3.9, height=2.9)
    for panel, check in zip(axes.flat, checks, strict=False):
        ends = np.concatenate([check.observed, check.replicated])
        panel.hist(check.replicated, bins=30, color=CYCLE[-2], label="drawn")
        if np.ptp(check.observed) > 1e-9 * np.abs(ends).max():
            panel.hist(check.observed, bins=30, color=CYCLE[0], alpha=0.6, label="data, by draw")
        else:
            panel.axvline(check.observed[0], color=CYCLE[0], linewidth=2, label="data")
        panel.set_title(f"{check.name}: p = {check.p:.3f}", fontsize=10)
        panel.set_yticks([])
        panel.grid(False)
    for panel in axes.flat[len(checks) :]:
        panel.set_visible(False)
    axes.flat[0].legend(fontsize=8)
    if title:
        drawn.suptitle(title, fontsize=11)
    return drawn


# --- all of it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the diagnostics say of a fit.

    Parameters:
        summary: One row a finding: ``what``, ``value`` (text), ``note``.
        pareto_k: The table of :func:`pareto_k`, or ``None`` where there is no q.
        checks: Predictive checks by source of the draws, "posterior" and "prior".
        figures: Matplotlib figures by name, as the files of the command are called.
    """

    summary: pd.DataFrame
    pareto_k: pd.DataFrame | None
    checks: dict[str, list[Check]]
    figures: dict[str, Any] = field(default_factory=dict)


def diagnose(
    fit: Fit,
    *,
    n_users: int = 50,
    draws: int = 1000,
    check_users: int = 200,
    check_texts: int = 100,
    check_draws: int = 200,
    seed: int = 0,
    on_part: Callable[[str], None] = lambda part: None,
) -> Diagnosis:
    """All diagnostics of a fit; of a point those that it has. No file is written.

    ``n_users`` and ``draws`` are those of :func:`pareto_k`, ``check_`` of :func:`predictive_checks`; ``on_part`` is
    called with the name of each part before it begins.
    """
    import numpy as np
    import pandas as pd

    from analysis.draws.ratings import noise_precision
    from inference.liveness import judge
    from inference.posterior import content_diagnostics

    rows: list[tuple[str, str, str]] = []
    figures: dict[str, Any] = {}
    on_part("objective and content")
    if fit.history:
        name, last = fit.options.objective, fit.history[-1]
        note = "the untempered sum of a tempered fit, no bound" if fit.options.tempered else ""
        if fit.model.content.pseudo:
            note = "with a content likelihood without a normaliser: no bound on any evidence"
        rows.append((_called(fit), f"{last[name]:,.1f} nats", note))
        figures["traces"] = traces(fit)
    if fit.model.ratings.explicit and (tau := noise_precision(fit.model.ratings)) is not None:
        rows.append(("noise of a rating", f"{tau**-0.5:.3f}", "standard deviation, in units of the ratings"))
    for side, (loc, _) in fit.posterior.biases().items():
        note = "mean and standard deviation over them" + ", the global mean included" * (side == "item")
        rows.append((f"{side} biases", f"{float(loc.mean()):.3f}, {float(loc.std(correction=0)):.3f}", note))
    _, figures["content"] = content_units(fit)
    content = content_diagnostics(fit.posterior.z_loc, fit.posterior.z_scale, seed=seed)
    n_items, n_factors = fit.posterior.z_loc.shape
    verdict = judge(fit)
    rows += [
        ("content", verdict["state"], verdict["words"]),
        ("KL(q(z|x) || p(z))", f"{content['kl']:.2f} nats", "mean over items; 0 says that the content is dead"),
        (
            "active units",
            f"{content['active_units']:.0f} of {n_factors}",
            "directions of E[z] with variance above 0.01",
        ),
        (
            "I(x; z)",
            f"{content['mutual_information']:.2f} nats",
            f"at most log of {n_items:,} items, {np.log(n_items):.2f}",
        ),
    ]
    table = None
    try:
        _need_density(fit)
    except InputError as error:
        rows.append(("Pareto k", "-", str(error)))
    else:
        on_part("Pareto k")
        table = pareto_k(fit, n_users=n_users, draws=draws, seed=seed)
        limit = good_k(draws)
        figures["pareto-k"] = plot_pareto_k(table, limit)
        good = (table["k"] < limit).mean()
        given = "one draw from q" if noise_precision(fit.model.ratings) is None else "drawn from q"
        rows += [
            (
                f"Pareto k below {limit:.2f}",
                f"{good:.0%} of {len(table)} users",
                "q(u) against p(u | R, V), V " + given,
            ),
            ("KL(q(u) || p(u | R, V))", f"{table['kl'].median():.2f} nats", "median over the same users"),
        ]
    checks = {}
    for source in ("prior",) if fit.posterior.is_point else ("posterior", "prior"):
        on_part(f"{source} predictive checks")
        checks[source] = predictive_checks(
            fit, source, n_users=check_users, n_texts=check_texts, draws=check_draws, seed=seed
        )
        figures[f"{source}-checks"] = plot_checks(checks[source], f"{source} predictive checks")
        rows += [
            (f"{source}: {check.name}", str(check), check.meaning if source == "posterior" or table is None else "")
            for check in checks[source]
        ]
    if _words(fit) is None:
        rows.append(("texts", "-", "this content is no table of word counts, and only those have predictive checks"))
    return Diagnosis(pd.DataFrame(rows, columns=["what", "value", "note"]), table, checks, figures)


# --- the command -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DiagnosticsOptions:
    """What is looked at.

    Parameters:
        run: The run folder of a fit.
        out: A folder for the figures (PNG) and tables (CSV); without it only the summary is shown.
        n_users: Users whose Pareto k is computed, evenly over their numbers of ratings; 0 takes all.
        draws: Draws for it.
        check_users: Users of the predictive checks; 0 takes all.
        check_texts: Texts of the predictive checks; 0 takes all.
        check_draws: Draws of the predictive checks.
        seed: Of the draws.
        overwrite: Write into a folder that exists.
        format: How the summary is printed (table, csv, json).
        trust: Class paths outside of the package that the run may import; see docs/security.md.
    """

    run: str
    out: str | None = None
    n_users: int = 50
    draws: int = 1000
    check_users: int = 200
    check_texts: int = 100
    check_draws: int = 200
    seed: int = 0
    overwrite: bool = False
    format: str = "table"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_format(self.format)
        least = {"n_users": 0, "draws": 100, "check_users": 0, "check_texts": 0, "check_draws": 10, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} is {getattr(self, name)}, but it must be at least {bound}")
        if self.out is not None:
            out = Path(self.out)
            if out.exists() and not out.is_dir():
                raise InputError("this is not a folder", "choose another --out", path=out)
            if out.exists() and not self.overwrite:
                raise InputError("exists already", "choose another --out, or give --overwrite", path=out)
            if not out.absolute().parent.is_dir():
                raise InputError("--out: no such folder", "make it first", path=out.parent)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from inference.commands import parse

    (options,) = parse(
        "python -m analysis.diagnostics",
        "Say whether a fit is sound: traces, content, Pareto k of users, predictive checks.",
        (DiagnosticsOptions,),
        argv,
        positionals=("run",),
        examples=(("python -m analysis.diagnostics RUN --out diagnostics", "the summary, figures and tables"),),
    )
    from inference.fitting import load

    fit = load(options.run, trust=options.trust)
    with progress(lines=Lines(free=0), transient=True) as tell:
        found = diagnose(
            fit,
            n_users=options.n_users,
            draws=options.draws,
            check_users=options.check_users,
            check_texts=options.check_texts,
            check_draws=options.check_draws,
            seed=options.seed,
            on_part=lambda part: tell(f"{part} ...", 0, None, ""),
        )
    if options.out is not None:
        write(found, options.out)
    sheet = Sheet(
        ["what", "value", "note"], title=f"{fit.dataset.name}, {fit.posterior.kind}", texts=["note"], whole=True
    )
    for row in found.summary.itertuples(index=False):
        sheet.add_row(*map(str, row))
    emit([sheet], {"summary": found.summary}, options.format)


def write(found: Diagnosis, out: str | Path) -> Path:
    """Figures as PNG, summary, Pareto k and checks as CSV, into a folder that appears whole."""
    import shutil

    import pandas as pd

    from analysis.plots import save

    out = Path(out)
    temporary = out.with_name(f".{out.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, drawn in found.figures.items():
            save(drawn, temporary / f"{name}.png")
        found.summary.to_csv(temporary / "summary.csv", index=False)
        if found.pareto_k is not None:
            found.pareto_k.to_csv(temporary / "pareto-k.csv", index=False)
        rows = [
            (source, check.name, check.observed.mean(), check.replicated.mean(), check.replicated.std(), check.p)
            for source, checks in found.checks.items()
            for check in checks
        ]
        columns = ["source", "check", "data", "drawn", "drawn sd", "p"]
        pd.DataFrame(rows, columns=columns).to_csv(temporary / "checks.csv", index=False)
        if out.exists():
            for path in temporary.iterdir():
                path.replace(out / path.name)
        else:
            temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


if __name__ == "__main__":
    raise SystemExit(run_command(main))
