r"""Does it pay to explore? Rankings in a feedback loop with known truth: ``python -m analysis.bandit``.

Truth is drawn from the model's own story with real-valued ratings (``simulated-gaussian``'s precisions), and every
policy knows all of it but u, z and v:

    u_i ~ N(0, I / lambda_u),  mu_j ~ N(0, (1 - s^2) I),  z_j ~ N(mu_j, s^2 I),  v_j ~ N(z_j, I / lambda_v),
    R_ij ~ N(u_i.v_j, 1 / a) of the items shown; what was not shown is missing (b = 0).

mu_j and s are what an encoder at the truth says of the text; ``content``, 1 - s^2, is the share of z that the text
tells. In each round new items enter, every user is shown a slate and rates it; then q(U) and q(V) are updated in closed
form (three sweeps of :mod:`inference.algorithms.half_steps` over all ratings, from the last q(V)). An item is shown to
a user once (an article) or again whenever it ranks high (a song), each time with a rating of its own.

Policies: ``random``; ``map``, the mean of point estimates; ``greedy``, the posterior mean; ``ucb``, mean + sd;
``thompson``, a posterior draw a user. Regret is the true score that a policy's slates have less than those of an oracle
that always shows each user the best items it may, summed over rounds, by user; no policy can do better. Truth, ratings
and first ratings of a replication are the same for all policies, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from analysis.kinds import Policy, Shows
from inference.kinds import Format, Ranking
from inference.options.checking import check, check_file, check_least, check_words
from inference.printing import Sheet, emit, write_frame
from inference.progress import track
from pyro_cvae.errors import InputError, run_command

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from inference.algorithms.half_steps import Cells
    from models.gaussians import Gaussians

POLICIES = get_args(Policy)
BASELINE = "greedy"
SWEEPS = 3


@dataclass(frozen=True)
class BanditOptions:
    """The simulation; each combination of ``content``, ``shows`` and ``slate`` is one setting.

    Parameters:
        content: Shares of z that the text tells, each between 0 and 1.
        shows: How often a user may be shown an item.
        slate: Numbers of items that each user is shown in a round.
        rounds: Rounds of showing, rating and updating.
        replications: Worlds drawn for each setting.
        users: Number of users.
        first_items: Items that are there from the beginning.
        new_items: Items that enter in each round.
        first_ratings: Ratings of each user before the first round, of random items.
        factors: Number of latent factors K.
        lambda_u: Precision of the users' prior.
        lambda_v: Precision of the items around their content.
        a: Precision of a rating.
        seed: Of everything random.
        out: A .csv file for the cumulative regret of every policy, round and replication.
        figure: A .png file for the curves.
        format: How the table is printed.
    """

    content: tuple[float, ...] = (0.2, 0.9)
    shows: tuple[Shows, ...] = ("once", "again")
    slate: tuple[int, ...] = (1, 5)
    rounds: int = 20
    replications: int = 40
    users: int = 100
    first_items: int = 50
    new_items: int = 10
    first_ratings: int = 5
    factors: int = 5
    lambda_u: float = 1.0
    lambda_v: float = 10.0
    a: float = 1.0
    seed: int = 0
    out: str | None = None
    figure: str | None = None
    format: Format = "table"

    def __post_init__(self) -> None:
        check_words(self)
        check_least(self, {"rounds": 1, "users": 1, "first_items": 1, "factors": 1})
        for name in ("lambda_u", "lambda_v", "a"):
            check(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "above 0")
        if self.replications < 2:
            raise InputError(f"--replications is {self.replications}, but an interval needs at least 2")
        if not self.content or not all(0 < share < 1 for share in self.content):
            raise InputError("--content must be one or more numbers between 0 and 1", "for instance 0.2 0.9")
        if not self.shows:
            raise InputError("--shows is empty, but it must be once, again or both")
        if not self.slate or min(self.slate) < 1:
            raise InputError("--slate must be one or more whole numbers of 1 or more", "for instance 1 5")
        needed = self.first_ratings + self.rounds * max(self.slate)
        check_least(self, {"first_ratings": 0, "new_items": 0, "seed": 0})
        if self.first_items < self.first_ratings + max(self.slate) or self.n_items < needed:
            raise InputError(f"a user is to see {needed} items, more than there are", "give more --first-items")
        for flag, file, end in (("out", self.out, ".csv"), ("figure", self.figure, ".png")):
            check_file(flag, file, end)

    @property
    def n_items(self) -> int:
        """All items that are there in the last round."""
        return self.first_items + (self.rounds - 1) * self.new_items


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
    """A world of the module's story; the same ``seed`` gives the same u, noise and first ratings at any ``content``."""
    import torch

    from inference.estimates import check_draws

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
    import torch

    from inference.algorithms.half_steps import half_step
    from models.gaussians import Gaussians

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
    import torch

    from inference.algorithms.half_steps import Cells

    rows, others = counts.nonzero(as_tuple=True)
    lengths = torch.bincount(rows, minlength=len(counts))
    indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    weights, targets = (options.a * part[rows, others] for part in (counts, sums))
    return Cells(indptr, others, weights, targets, torch.ones(len(counts), dtype=torch.bool))


def play(options: BanditOptions, world: World, shows: Shows, slate: int, policy: str, seed: int) -> torch.Tensor:
    """True score of what is shown in each round, summed over the slate, mean over users, (rounds,).

    ``policy`` is one of POLICIES, or "oracle", which knows the truth.
    """
    import torch
    from scipy.sparse import csr_matrix

    from inference.posterior import Posterior
    from inference.recommending.ranking import Candidates, best_items
    from models.gaussians import Gaussians

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
    import numpy as np
    import pandas as pd

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


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Regret after the last round, mean over replications, and the paired difference from greedy.

    One row for each setting and policy: ``regret``, ``more`` (regret less greedy's; below 0 is better than
    greedy), and half the 95 % t interval of each, ``regret_half`` and ``more_half``.
    """
    import pandas as pd

    last = found[found["round"] == found["round"].max()]
    keys, rows = ["content", "shows", "slate"], []
    for setting, part in last.groupby(keys, sort=False):
        table = part.pivot(index="replication", columns="policy", values="regret")
        for policy in POLICIES:
            regret, more = table[policy], table[policy] - table[BASELINE]
            row = {"policy": policy, "regret": regret.mean(), "regret_half": _half_interval(regret)}
            row |= {"more": more.mean(), "more_half": _half_interval(more)}
            rows.append(dict(zip(keys, setting, strict=True)) | row)
    return pd.DataFrame(rows)


def _half_interval(values: pd.Series) -> float:
    from scipy.stats import t

    from analysis.over_users import standard_error

    return float(t.ppf(0.975, len(values) - 1) * standard_error(values.to_numpy()))


def draw(found: pd.DataFrame, path: str) -> Path:
    """The curves of cumulative regret with 95 % intervals, a panel a setting; random showing is left out."""
    from analysis.plots import figure, save

    contents, shows, slates = (found[name].unique() for name in ("content", "shows", "slate"))
    drawn, axes = figure(len(shows) * len(slates), len(contents), width=3.5, height=2.9)
    for (row, content), (column, (how, slate)) in product(enumerate(contents), enumerate(product(shows, slates))):
        panel = axes[row, column]
        part = found[(found["content"] == content) & (found["shows"] == how) & (found["slate"] == slate)]
        for policy in POLICIES[1:]:
            rounds = part[part["policy"] == policy].groupby("round")["regret"]
            mean, half = rounds.mean(), rounds.agg(_half_interval)
            (line,) = panel.plot(mean.index, mean, label=policy)
            panel.fill_between(mean.index, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)
        items = "an item" if slate == 1 else f"{slate} items"
        panel.set_title(f"text tells {content:.0%}; {items} a round, {how}", fontsize=9)
        panel.set_xlabel("round")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(bottom=0)
    for panel in axes[:, 0]:
        panel.set_ylabel("cumulative regret a user")
    axes[0, 0].legend()
    return save(drawn, path)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from inference.commands import parse

    (options,) = parse(
        "python -m analysis.bandit",
        "Thompson ranking, UCB, greedy, MAP and random showing in a simulated feedback loop with known truth.",
        (BanditOptions,),
        argv,
        examples=(
            ("python -m analysis.bandit --figure bandit.png", "the figure of the documentation, in some minutes"),
            ("python -m analysis.bandit --content 0.5 --slate 1 --replications 10", "one setting"),
        ),
    )
    from inference.threads import torch_threads

    with torch_threads(1):  # the matrices are small
        found = simulate(options)
    title = f"cumulative regret a user after {options.rounds} rounds, {options.replications} worlds, 95 % intervals"
    summary = summarise(found)
    shown = Sheet(["content", "shows", "slate", "policy", "regret", "less greedy's, paired"], title=title)
    for row in summary.itertuples():
        difference = "" if row.policy == BASELINE else f"{row.more:+.2f} ± {row.more_half:.2f}"
        cells = (
            f"{row.content:g}",
            row.shows,
            str(row.slate),
            row.policy,
            f"{row.regret:.2f} ± {row.regret_half:.2f}",
            difference,
        )
        shown.add_row(*cells)
        if row.policy == POLICIES[-1]:
            shown.add_rule()
    emit([shown], {"regret": summary}, options.format)
    if options.out is not None:
        write_frame(found, options.out)
    if options.figure is not None:
        draw(found, options.figure)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
