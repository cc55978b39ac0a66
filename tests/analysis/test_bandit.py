"""The simulated feedback loop: its truth, its updates, its oracle, its pairing, and the command."""

import sys
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.bandit import main
from analysis.exploring.options import POLICIES, BanditOptions
from analysis.exploring.play import play, simulate
from analysis.exploring.regret import summarise
from analysis.exploring.world import Ratings, World, draw_world, update
from pyro_cvae.errors import InputError, run_command

SMALL = BanditOptions(rounds=4, replications=3, users=12, first_items=20, new_items=3, factors=3, a=0.7)


def rated_of(world):
    nothing = torch.zeros_like(world.scores)
    return Ratings(nothing, nothing).with_round(world, 0, world.first)


@pytest.mark.statistical
def test_worlds_have_the_storys_moments(failure_rate):
    """Two-sided: variances of u.v, of mu and of a rating's noise over many worlds."""
    from scipy.stats import norm

    n, content = 4000, 0.3
    options = BanditOptions(rounds=1, users=1, first_items=1, factors=3, lambda_u=2, a=0.7, first_ratings=0, slate=(1,))
    worlds = [draw_world(options, content, seed) for seed in range(n)]
    score = np.array([world.scores.item() for world in worlds])
    mu = np.array([world.mu[0, 0].item() for world in worlds])
    noise = np.array([world.noise[1, 0, 0].item() for world in worlds])
    bound = norm.isf(failure_rate / (2 * 3))
    for found, variance in ((score, 3 / 2 * (1 + 1 / 10)), (mu, content), (noise, 1 / 0.7)):
        square = found**2
        assert abs(square.mean() - variance) < bound * square.std(ddof=1) / n**0.5


def test_first_ratings_are_of_first_items():
    world = draw_world(SMALL, 0.5, 3)
    assert (world.first.sum(1) == SMALL.first_ratings).all() and not world.first[:, 20:].any()
    assert world.scores.shape == (12, SMALL.n_items) == (12, 29)
    other = draw_world(SMALL, 0.9, 3)  # the same but for what the texts tell
    assert torch.equal(world.first, other.first) and torch.equal(world.noise, other.noise)


@pytest.mark.parametrize("family", ["point", "full"])
def test_an_update_is_the_closed_form_of_every_rating(family):
    """Rating by rating, those of one cell too, around mu with the spread of z: the fixed point of both conditionals."""
    options, world = SMALL, draw_world(SMALL, 0.4, 1)
    rated = rated_of(world).with_round(world, 1, world.first).with_round(world, 2, torch.rand(12, 29) < 0.2)
    ratings = [  # as a list of single ratings
        (i, j, (world.scores + world.noise[number])[i, j])
        for number, shown in ((0, world.first), (1, world.first), (2, (rated.counts - 2 * world.first) > 0))
        for i, j in shown.nonzero().tolist()
    ]
    assert rated.counts.sum() == len(ratings)
    items = None
    for _ in range({"point": 400, "full": 150}[family]):
        users, items = update(options, world, rated, items, family)
    prior = 1 / (0.6 + 1 / options.lambda_v)

    def moments(rows, row):
        second = torch.outer(rows.loc[row], rows.loc[row])
        return rows.loc[row], second if family == "point" else second + rows.covariance[rows.block[row]]

    for rows, side, other, precision, mean in (
        (users, 0, items, 1.0, 0 * world.mu),
        (items, 1, users, prior, world.mu),
    ):
        for row in range(0, len(rows.loc), 5):
            total, shift = precision * torch.eye(3).double(), precision * mean[row]
            for rating in ratings:
                if rating[side] == row:
                    loc, second = moments(other, rating[1 - side])
                    total, shift = total + options.a * second, shift + options.a * rating[2] * loc
            torch.testing.assert_close(rows.loc[row], torch.linalg.solve(total, shift), rtol=1e-7, atol=1e-9)
            if family == "full":
                found = rows.covariance[rows.block[row]]
                torch.testing.assert_close(found, torch.linalg.inv(total), rtol=1e-7, atol=1e-9)


def test_the_oracle_has_the_largest_total():
    """Against every order in which three rounds may show five items, of which two enter late, each once."""
    options = BanditOptions(
        rounds=3, replications=2, users=2, first_items=3, new_items=1, first_ratings=0, slate=(1,), factors=2
    )
    for seed in range(20):
        world = draw_world(options, 0.5, seed)
        best = play(options, world, "once", 1, "oracle", 0)
        for prefix in (1, 2, 3):
            allowed = [order for order in permutations(range(5), prefix) if all(j < 3 + t for t, j in enumerate(order))]
            totals = world.scores[:, torch.tensor(allowed)].sum(-1)
            torch.testing.assert_close(best[:prefix].sum(), totals.max(1).values.mean())
        again = play(options, world, "again", 1, "oracle", 0)
        expected = torch.stack([world.scores[:, : 3 + t].max(1).values.mean() for t in range(3)])
        torch.testing.assert_close(again, expected)


@pytest.mark.parametrize("shows", ["once", "again"])
def test_policies_that_know_everything_have_no_regret(shows):
    """With precise ratings of everything that is there, mean, MAP, UCB and draws all rank as the oracle does."""
    options = BanditOptions(
        rounds=3, users=15, first_items=30, new_items=0, first_ratings=20, factors=3, a=1e8, slate=(2,), lambda_v=1e3
    )
    world = draw_world(options, 0.999, 2)
    best = play(options, world, shows, 2, "oracle", 0)
    for policy in POLICIES[1:]:
        torch.testing.assert_close(play(options, world, shows, 2, policy, 0), best, rtol=1e-3, atol=1e-3)
    assert (play(options, world, shows, 2, "random", 0) < best - 0.5).all()


def test_once_is_once_and_new_items_wait():
    """Scores fall with the item's number: an oracle that shows once walks through the catalogue as items enter."""
    options = BanditOptions(rounds=3, users=2, first_items=7, new_items=1, first_ratings=0, slate=(2,), factors=2)
    scores = torch.tensor([6.0, 5, 4, 3, 2, 1, 0, 10, 20]).double().expand(2, 9)
    world = World(torch.zeros(9, 2).double(), scores, torch.zeros(4, 2, 9).double(), torch.zeros(2, 9).bool(), 0.5)
    assert play(options, world, "once", 2, "oracle", 0).tolist() == [11.0, 14.0, 23.0]
    assert play(options, world, "again", 2, "oracle", 0).tolist() == [11.0, 16.0, 30.0]


@pytest.mark.slow
def test_differences_are_paired(monkeypatch):
    """The same world for all policies: UCB without an addition is greedy, to the bit; another seed is another world."""
    monkeypatch.setattr("inference.recommending.ranking.score_sds", lambda posterior, users: torch.zeros(1).double())
    found = simulate(SMALL)
    keys = ["content", "shows", "slate", "replication", "round"]
    table = found.pivot(index=keys, columns="policy", values="regret")
    assert (table["ucb"] == table["greedy"]).all() and (table["thompson"] != table["greedy"]).any()
    assert len(found) == 2 * 2 * 2 * len(POLICIES) * 3 * 4
    assert (table > -1e-9).all().all()  # of every policy, in every round
    assert table.groupby("replication")["random"].mean().nunique() == 3


def test_a_summary_is_that_of_paired_differences():
    from scipy.stats import ttest_1samp

    rows = [
        {
            "content": 0.5,
            "shows": "once",
            "slate": 1,
            "policy": policy,
            "replication": n,
            "round": r,
            "regret": r * value,
        }
        for number, policy in enumerate(POLICIES)
        for n, value in enumerate([1.0 + number, 4.0 + number**2, 6.0 - number])
        for r in (1, 2)
    ]
    found = pd.DataFrame(rows)
    table = summarise(found).set_index("policy")
    last = found[found["round"] == 2].pivot(index="replication", columns="policy", values="regret")
    for policy in POLICIES:
        assert table.loc[policy, "regret"] == pytest.approx(last[policy].mean())
        difference = last[policy] - last["greedy"]
        assert table.loc[policy, "more"] == pytest.approx(difference.mean())
        if policy != "greedy":
            interval = ttest_1samp(difference, 0).confidence_interval(0.95)
            assert table.loc[policy, "more_half"] == pytest.approx((interval.high - interval.low) / 2)


def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    sizes = ["--rounds", "2", "--replications", "2", "--users", "8", "--first-items", "20"]
    setting = ["--content", "0.5", "--slate", "1", "--shows", "once"]
    files = ["--out", str(tmp_path / "regret.csv"), "--figure", str(tmp_path / "regret.png")]
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", ["analysis.bandit", *sizes, *setting, *files])
    assert run_command(main) == 0
    said = capsys.readouterr().out
    found = pd.read_csv(tmp_path / "regret.csv")
    for row in summarise(found).itertuples():
        (line,) = (line for line in said.splitlines() if f" {row.policy} " in line)
        assert f"{row.regret:.2f} ± {row.regret_half:.2f}" in line
    assert (tmp_path / "regret.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["regret.csv", "regret.png"]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"rounds": 0}, "--rounds is 0"),
        ({"a": 0.0}, "--a is 0"),
        ({"replications": 1}, "--replications is 1"),
        ({"content": (1.0,)}, "--content"),
        ({"slate": (0,)}, "--slate"),
        ({"shows": ("twice",)}, "--shows is 'twice'"),
        ({"seed": -1}, "--seed"),
        ({"first_items": 9}, "more than there are"),
        ({"slate": (30,)}, "more than there are"),
        ({"out": "a.txt"}, "must end in .csv"),
        ({"figure": "nowhere/a.png"}, "no such folder"),
    ],
)
def test_a_simulation_that_cannot_be(wrong, problem):
    with pytest.raises(InputError, match=problem):
        BanditOptions(**wrong)
