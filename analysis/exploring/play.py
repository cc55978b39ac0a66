"""Rounds of showing, rating and updating, by every policy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix

from analysis.exploring.options import POLICIES, BanditOptions
from analysis.exploring.world import Ratings, World, draw_world, update
from analysis.kinds import Shows
from inference.kinds import Ranking
from inference.posterior import Posterior
from inference.progress import track
from inference.recommending.ranking import Candidates, best_items
from models.gaussians import Gaussians


def play(options: BanditOptions, world: World, shows: Shows, slate: int, policy: str, seed: int) -> torch.Tensor:
    """True score of what is shown in each round, summed over the slate, mean over users, (rounds,).

    ``policy`` is one of POLICIES, or "oracle", which knows the truth.
    """
    generator = torch.Generator().manual_seed(seed)
    nothing = torch.zeros_like(world.scores)
    rated, items, gained = Ratings(nothing, nothing).with_round(world, 0, world.first), None, []
    entered = torch.zeros(options.n_items, dtype=torch.bool)
    everyone = torch.arange(options.users)
    for number in range(options.rounds):
        entered[: options.first_items + number * options.new_items] = True
        candidates = Candidates(entered, csr_matrix(rated.counts.numpy()) if shows == "once" else None)
        if policy in ("random", "oracle"):
            scores = torch.rand(nothing.shape, generator=generator) if policy == "random" else world.scores
            chosen = candidates.mask(scores, everyone).topk(slate).indices
        else:
            users, items = update(options, world, rated, items, "point" if policy == "map" else "full")
            z = Gaussians(world.mu, torch.full_like(world.mu, world.spread**2))
            posterior = Posterior("point" if policy == "map" else "full", users, items, z)
            ranking: Ranking = "thompson" if policy == "thompson" else "ucb" if policy == "ucb" else "mean"
            own_seed = int(torch.randint(2**62, (1,), generator=generator))
            chosen = best_items(posterior, everyone, slate, candidates, ranking, seed=own_seed)[1]
        gained.append(world.scores.gather(1, chosen).sum(1).mean())
        shown = torch.zeros_like(world.first).scatter(1, chosen, True)
        rated = rated.with_round(world, number + 1, shown)
    return torch.stack(gained)


def simulate(options: BanditOptions) -> pd.DataFrame:
    """Cumulative regret by user: columns content, shows, slate, policy, replication, round, regret."""
    jobs = [*product(options.content, options.shows, options.slate, range(options.replications))]
    parts = []
    for content, shows, slate, number in track(jobs, "worlds"):
        seed, own = (
            int(state >> 1) for state in np.random.SeedSequence([options.seed, number]).generate_state(2, np.uint64)
        )
        world = draw_world(options, content, seed)
        best = play(options, world, shows, slate, "oracle", own)
        for policy in POLICIES:
            regret = (best - play(options, world, shows, slate, policy, own)).cumsum(0).numpy()
            columns = {"content": content, "shows": shows, "slate": slate, "policy": policy, "replication": number}
            parts.append(pd.DataFrame(columns | {"round": np.arange(1, options.rounds + 1), "regret": regret}))
    return pd.concat(parts, ignore_index=True)
