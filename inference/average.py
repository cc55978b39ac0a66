"""Users of whom a fit knows nothing: those without a training pair, and strangers, get the average user's list.

The prior of u_i has mean 0, and a product with it ranks nothing: every item scores 0. What a fit has learned of a user
of whom it knows nothing is the population: u is drawn from a mixture of q(u_i) over the users with training pairs, of
weights w_i. Its mean ranks, E[u].E[v], which is the mean over these users of their own scores; its covariance is

    mean_i(S_i) + mean_i((m_i - m)(m_i - m)'),    m = mean_i(m_i),    q(u_i) = N(m_i, S_i),

all means weighted. Of stars w_i is the same of everybody. Of choices (all ratings are alike) w_i ~ n_i^(-1/2), n_i the
user's training pairs: scores grow with them, so that under equal weights the few who chose most would decide what all
strangers are shown. Where pairs have times, those who came last count most
(:func:`inference.mixing.weights_of_counts`): what is chosen changes, and a stranger comes after everybody.
``benchmarks.otherdata`` measures what both are worth.

Where a model has a prior of u of its own, such as a mean for each group of users, its users without training pairs are
ranked by it. Strangers still get the average user's list.

A Normal with these two moments stands for the mixture, so that intervals and probabilities are those of somebody, not
of nobody in particular. The posterior of the fit itself stays what the model says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inference.draws import Draws
from inference.mixing import POWER, last_times, weights_of_counts
from inference.predicted import Predicted, predicted, score_moments
from models.gaussians import Gaussians

if TYPE_CHECKING:
    from inference.posterior import Posterior
    from models.ratings import RatingLikelihood
    from pyro_cvae.data.interactions import Interactions

    Part = tuple[np.ndarray, Posterior, np.ndarray]

ScoreBlock = Callable[[np.ndarray], Tensor]
"""Scores of a block of users, (n_block,) rows to (n_block, n_items)."""
ROWS_AT_ONCE = 2**16
"""Users whose moments are in float64 at once."""
SEED_OF_SPREAD = 20261128
"""Seed of the users whose spread the draws of an average user have."""


def weights_of(train: Interactions, power: float = POWER) -> Tensor:
    """Weights w_i of the average user, which add up to 1, float64 (n_users,); 0 of users without training pairs.

    Where nobody has a training pair, they are the same of everybody.
    """
    rated = train.ratings[train.observed]
    alike = len(rated) > 0 and bool((rated == rated[0]).all())
    counts = torch.from_numpy(train.user_counts)
    if not alike:
        return weights_of_counts(counts, 0.0)
    pairs = train.select(train.observed)
    times = None if pairs.times is None else torch.from_numpy(np.asarray(pairs.times, np.float64))
    return weights_of_counts(counts, power, last_times(torch.from_numpy(pairs.users), times, train.n_users))


def without_pairs(train: Interactions) -> np.ndarray:
    """True for the users without an observed training pair, bool (n_users,); a missing cell (confidence 0) is none."""
    return train.user_counts == 0


def lacking_users(posterior: Posterior, train: Interactions) -> np.ndarray:
    """True for the users who get the average user's list, bool (n_users,): those of whom nothing is known."""
    lacking = without_pairs(train)
    return np.zeros_like(lacking) if posterior.tells_users else lacking


def average_user(posterior: Posterior, train: Interactions) -> Posterior:
    """The posterior with one user in place of all, the average of those with training pairs; see the module.

    Of stored draws it is, draw by draw, their mean and what one of them, another in each draw, is away from it. Where
    nobody has a training pair, it is the average of all.
    """
    weights = weights_of(train)
    dtype = posterior.u.loc.dtype
    if isinstance(posterior, Draws):
        u = _drawn(posterior.u_draws, weights)
        return replace(posterior, u=Gaussians(u.mean(0, keepdim=True)), u_draws=u[:, None])
    users, parts = posterior.u, [slice(at, at + ROWS_AT_ONCE) for at in range(0, len(posterior.u), ROWS_AT_ONCE)]
    mean = torch.stack([weights[part] @ users.loc[part].double() for part in parts]).sum(0)
    average = Gaussians(mean.to(dtype)[None])
    if users.is_point:
        return replace(posterior, u=average)
    somebody = users.loc[int(weights.argmax())]
    differs = [((users.loc[part] != somebody) & (weights[part] > 0)[:, None]).any(0) for part in parts]
    certain = ~torch.stack(differs).any(0)  # the same of everybody, as what the items' biases meet

    def away(part: slice) -> Tensor:
        return (users.loc[part].double() - mean).masked_fill(certain, 0.0)

    if users.variance is not None:
        moments = [weights[part] @ (users.variance[part].double() + away(part).square()) for part in parts]
        average = replace(average, variance=torch.stack(moments).sum(0).to(dtype)[None])
    elif users.covariance is not None:
        own = replace(users, loc=torch.zeros_like(users.loc)).second_moment(weights).double()
        between = torch.stack([(weights[part] * away(part).mT) @ away(part) for part in parts])
        average = replace(average, covariance=(own + between.sum(0)).to(dtype)[None])
    return replace(posterior, u=average)


def _drawn(draws: Tensor, weights: Tensor) -> Tensor:
    """The average user in each of the draws (n_draws, n_users, width), (n_draws, width)."""
    mean = torch.einsum("dnk,n->dk", draws, weights.to(draws.dtype))
    generator = torch.Generator().manual_seed(SEED_OF_SPREAD)
    somebody = torch.multinomial(weights, len(draws), replacement=True, generator=generator)
    away = draws[torch.arange(len(draws)), somebody] - mean
    return mean + away - away.mean(0)  # centred: which users stand for the spread is no matter to the mean


def list_scores(posterior: Posterior, train: Interactions) -> ScoreBlock:
    """Scores that rank: ``posterior.score_block``, for users without training pairs those of the average user."""
    if posterior.tells_users:
        return posterior.score_block
    return filled(posterior.score_block, train, lambda weights: average_user(posterior, train).score_block([0]))


def filled(score_block: ScoreBlock, train: Interactions, average: Callable[[Tensor], Tensor]) -> ScoreBlock:
    """The same scores, for users without pairs those of ``average``, by the weights (n_users,) of the others."""
    lacking = without_pairs(train)
    if not lacking.any() or lacking.all():
        return score_block
    mean = average(weights_of(train))

    def for_everybody(users: np.ndarray) -> Tensor:
        return torch.where(torch.from_numpy(lacking[users])[:, None], mean, score_block(users))

    return for_everybody


def parts_of(posterior: Posterior, train: Interactions, users: np.ndarray) -> Iterator[Part]:
    """Rows of users of many pairs (n_pairs,) in at most two parts: where they are, a posterior, and their rows in it.

    The posterior is the one given, or for users without training pairs that of the average user.
    """
    lacking = lacking_users(posterior, train)[users]
    if not lacking.all():
        yield np.flatnonzero(~lacking), posterior, users[~lacking]
    if lacking.any():
        at = np.flatnonzero(lacking)
        yield at, average_user(posterior, train), np.zeros(len(at), np.int64)


def predictions(
    posterior: Posterior,
    likelihood: RatingLikelihood,
    users: np.ndarray,
    items: np.ndarray,
    train: Interactions,
    within: bool = True,
) -> Predicted:
    """New ratings of pairs of rows, (n_pairs,), for users without pairs too, which are the average user's.

    ``within`` keeps means within the range of the training ratings.
    """
    mean, variance = torch.zeros(2, len(users), dtype=torch.float64)
    for at, some, rows in parts_of(posterior, train, users):
        mean[at], variance[at] = score_moments(some, rows, items[at])
    return predicted(likelihood, mean, variance, train if within else None)
