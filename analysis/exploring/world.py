"""One replication's truth, what was rated of it, and the closed-form updates; the story is :mod:`analysis.bandit`'s."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from analysis.exploring.options import BanditOptions
from inference.algorithms.cells import Cells
from inference.algorithms.half_steps import half_step
from inference.estimates import check_draws
from models.gaussians import Gaussians

SWEEPS = 3


@dataclass(frozen=True, eq=False)
class World:
    """One replication's truth.

    Shapes: ``mu`` (n_items, n_factors), what the texts tell; ``scores`` u.v (n_users, n_items); ``noise`` of a rating
    before the first round and in each round, (rounds + 1, n_users, n_items), all small; ``first`` bool (n_users,
    n_items), what was rated before the first round; ``spread`` s.
    """

    mu: torch.Tensor
    scores: torch.Tensor
    noise: torch.Tensor
    first: torch.Tensor
    spread: float


@dataclass(frozen=True, eq=False)
class Ratings:
    """What was rated so far: how often, and the sum of the ratings, (n_users, n_items) each."""

    counts: torch.Tensor
    sums: torch.Tensor

    def with_round(self, world: World, number: int, shown: torch.Tensor) -> Ratings:
        """With the ratings of what is shown in a round, bool (n_users, n_items); round 0 is before the first."""
        return Ratings(self.counts + shown, self.sums + shown * (world.scores + world.noise[number]))


def draw_world(options: BanditOptions, content: float, seed: int) -> World:
    """A world of the story; the same ``seed`` gives the same u, noise and first ratings at any ``content``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    size, n = options.factors, options.n_items
    numbers = options.users * n + (options.users + 3 * n) * size
    check_draws(options.rounds + 4, numbers, "rounds of so many users and items")
    spread = (1 - content) ** 0.5
    u = normal(options.users, size) / options.lambda_u**0.5
    mu = content**0.5 * normal(n, size)
    v = mu + spread * normal(n, size) + normal(n, size) / options.lambda_v**0.5
    scores = u @ v.mT
    noise = normal(options.rounds + 1, options.users, n) / options.a**0.5
    order = torch.rand(options.users, options.first_items, generator=generator).argsort(1)
    first = torch.zeros(options.users, n, dtype=torch.bool)
    first[:, : options.first_items] = order < options.first_ratings
    return World(mu, scores, noise, first, spread)


def update(
    options: BanditOptions, world: World, rated: Ratings, items: Gaussians | None, family: str
) -> tuple[Gaussians, Gaussians]:
    """q(U) and q(V) given all ratings, from the last q(V); ``family`` is "full" or "point".

    z is integrated out: v_j has the prior N(mu_j, s^2 + 1 / lambda_v).
    """
    of_users = _cells(options, rated.counts, rated.sums)
    of_items = _cells(options, rated.counts.mT, rated.sums.mT)
    prior = 1 / (world.spread**2 + 1 / options.lambda_v)
    all_users, all_items = (torch.ones(n, dtype=torch.bool) for n in rated.counts.shape)
    if items is None:
        items = Gaussians(world.mu)
        if family == "full":
            covariance = torch.eye(options.factors, dtype=torch.float64)[None] / prior
            items = Gaussians(world.mu, covariance=covariance, block=torch.zeros(len(world.mu), dtype=torch.int64))
    for _ in range(SWEEPS):
        users = half_step(of_users, items, all_items, 0.0, options.lambda_u, family=family).rows
        items = half_step(of_items, users, all_users, 0.0, prior, world.mu, family=family).rows
    return users, items


def _cells(options: BanditOptions, counts: torch.Tensor, sums: torch.Tensor) -> Cells:
    """The cells of one side; n ratings of a cell are one with n times the precision and their mean."""
    rows, others = counts.nonzero(as_tuple=True)
    lengths = torch.bincount(rows, minlength=len(counts))
    indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    weights, targets = (options.a * part[rows, others] for part in (counts, sums))
    return Cells(indptr, others, weights, targets, torch.ones(len(counts), dtype=torch.bool))
