"""Simulation-based calibration: simulations, quantities and band by brute force; then the sampler, whole and broken."""

from dataclasses import replace
from itertools import product
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from analysis import sbc
from analysis.simulated_ranks import calibration
from analysis.simulated_ranks.calibration import calibrate, quantities
from analysis.simulated_ranks.options import BREAKS, SBCOptions
from analysis.simulated_ranks.ranks import Ranks, ecdf_band
from analysis.simulated_ranks.simulation import Prior, simulate
from inference.algorithms.cells import Cells
from inference.algorithms.half_steps import half_step
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.pmf import PMF
from pyro_cvae.errors import InputError, run_command

PRIOR = Prior()
ALONE = Prior("pmf")


def test_blocks_share_nothing_and_every_cell_of_a_block_is_stored():
    model, observations, truth = simulate(PRIOR, 3, 0)
    columns = observations.columns
    assert (columns.items // PRIOR.n_items == columns.users // PRIOR.n_users).all()
    assert len(columns.users) == 3 * PRIOR.n_users * PRIOR.n_items and model.ratings.background == 0
    assert set(columns.confidences.tolist()) == {PRIOR.a, PRIOR.b}
    assert {name: tuple(value.shape) for name, value in truth.items()} == {"u": (18, 2), "v": (21, 2), "z": (21, 2)}
    again, other = simulate(PRIOR, 3, 0), simulate(PRIOR, 3, 1)
    assert torch.equal(again[1].columns.ratings, columns.ratings) and torch.equal(again[2]["z"], truth["z"])
    assert not torch.equal(other[1].columns.ratings, columns.ratings)
    assert observations.content.totals.min() >= 1 and observations.content.totals.std() > 1


def test_ratings_alone_have_no_content():
    model, observations, truth = simulate(ALONE, 3, 0)
    assert isinstance(model, PMF) and (model.lambda_u, model.lambda_v) == (ALONE.lambda_u, ALONE.lambda_v)
    assert {name: tuple(value.shape) for name, value in truth.items()} == {"u": (18, 2), "v": (21, 2)}
    assert observations.content.n_outputs == 0 and (PRIOR.lambda_v, ALONE.lambda_v) == (4.0, 1.0)


def test_quantities_of_ratings_alone_stay_when_factors_turn():
    """What is ranked is the same for (u Q, v Q) with any orthogonal Q, and what numpy says of one block."""
    n = 3
    model, observations, truth = simulate(ALONE, n, 0)
    found = quantities(model, observations, n, **truth)
    turn, _ = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    turned = quantities(model, observations, n, **{name: value @ turn for name, value in truth.items()})
    for name, value in found.items():
        torch.testing.assert_close(turned[name], value, rtol=1e-10, atol=1e-10)
    ratings, confidences = (part.view(n, ALONE.n_items, n, ALONE.n_users) for part in observations.columns.dense(0.0))
    u, v = (value.view(n, -1, 2)[1] for value in truth.values())
    expected = {
        "log p(R|U,V)": Normal(v @ u.mT, confidences[1, :, 1].rsqrt()).log_prob(ratings[1, :, 1]).sum(),
        "log p(U)": Normal(0.0, ALONE.lambda_u**-0.5).log_prob(u).sum(),
        "log p(V)": Normal(0.0, ALONE.lambda_v**-0.5).log_prob(v).sum(),
        "|u1|": u[0].norm(),
        "|v1|": v[0].norm(),
        "norm of UV'": torch.linalg.matrix_norm(u @ v.mT),
    } | {f"u{k}.v{k}": u[k - 1] @ v[k - 1] for k in range(1, 6)}
    assert list(expected) == list(found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name][1], value, rtol=1e-10, atol=1e-10)


@pytest.mark.statistical
def test_what_is_simulated_has_the_priors_moments(failure_rate):
    """Standardised u, v - z, z and ratings have variance 1 and mean 0: eight comparisons, two-sided."""
    _, observations, truth = simulate(PRIOR, 500, 0)
    columns = observations.columns
    scores = (truth["u"][columns.users] * truth["v"][columns.items]).sum(-1)
    parts = [truth["u"] * PRIOR.lambda_u**0.5, (truth["v"] - truth["z"]) * PRIOR.lambda_v**0.5, truth["z"]]
    parts.append((columns.ratings - scores) * columns.confidences.sqrt())
    bound = -Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 16, dtype=torch.float64))
    for part in parts:
        n = part.numel()
        assert part.mean().abs() < bound / n**0.5
        assert (part.square().mean() - 1).abs() < bound * (2 / n) ** 0.5


def test_quantities_are_those_of_each_block_alone():
    n = 3
    model, observations, truth = simulate(PRIOR, n, 0)
    found = quantities(model, observations, n, **truth)
    ratings, confidences = (part.view(n, PRIOR.n_items, n, PRIOR.n_users) for part in observations.columns.dense(0.0))
    x = observations.content.dense().view(n, PRIOR.n_items, -1)
    for block in range(n):
        u, v, z = (value.view(n, -1, 2)[block] for value in truth.values())
        r, c = ratings[block, :, block], confidences[block, :, block]
        logits = model.decoder(z)["logits"].detach()
        texts = torch.stack([
            torch.distributions.Multinomial(int(row.sum()), logits=own).log_prob(row)
            for row, own in zip(x[block], logits, strict=True)
        ])  # fmt: skip
        expected = {
            "log p(R|U,V)": Normal(v @ u.mT, c.rsqrt()).log_prob(r).sum(),
            "log p(U)": Normal(0.0, PRIOR.lambda_u**-0.5).log_prob(u).sum(),
            "log p(V|Z)": Normal(z, PRIOR.lambda_v**-0.5).log_prob(v).sum(),
            "log p(Z,X)": Normal(0.0, 1.0).log_prob(z).sum() + texts.sum(),
            "norm of UV'": torch.linalg.matrix_norm(u @ v.mT),
        } | {f"u{k}.v{k}": u[k - 1] @ v[k - 1] for k in range(1, 6)}
        assert list(expected) == list(found)
        for name, value in expected.items():
            torch.testing.assert_close(found[name][block], value, rtol=1e-10, atol=1e-10)


def test_the_conditional_of_a_block_is_that_of_its_own_data_set():
    """With b = 0 in the whole and b = PRIOR.b in the part, which must not matter where every cell is stored."""
    n, block = 4, 2
    model, observations, truth = simulate(PRIOR, n, 0)
    columns = observations.columns
    cells = Cells.of_users(columns, 0.0)
    whole = half_step(cells, Gaussians(truth["v"]), columns.observed, 0.0, model.lambda_u, family="full").rows
    items = torch.arange(PRIOR.n_items) + block * PRIOR.n_items
    part = columns.select(items)
    own = RatingColumns(
        part.indptr, part.users - block * PRIOR.n_users, part.ratings, part.confidences, part.observed, PRIOR.n_users
    )
    v = Gaussians(truth["v"][items])
    alone = half_step(Cells.of_users(own, PRIOR.b), v, own.observed, PRIOR.b, model.lambda_u, family="full").rows
    rows = torch.arange(PRIOR.n_users) + block * PRIOR.n_users
    torch.testing.assert_close(whole.loc[rows], alone.loc)
    torch.testing.assert_close(whole.covariance[whole.block[rows]], alone.covariance[alone.block])


# --- ranks and their band --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "n_draws", "level"), [(4, 3, 0.9), (5, 2, 0.8), (3, 4, 0.5)])
def test_the_band_is_the_narrowest_of_its_kind_by_enumeration(n, n_draws, level):
    """Over all possible ranks: coverage at least the level, and less than it for the next narrower common tail."""
    band = ecdf_band(n, n_draws, level)
    x = np.arange(1, n_draws + 1) / (n_draws + 1)
    ecdfs = np.array([
        [np.mean(np.array(ranks) < k) for k in range(1, n_draws + 1)] for ranks in product(range(n_draws + 1), repeat=n)
    ])  # fmt: skip

    def coverage(band):
        return ((ecdfs - x >= band[:, 0] - 1e-9) & (ecdfs - x <= band[:, 1] + 1e-9)).all(1).mean()

    assert coverage(band) >= level
    chances = np.array([[np.mean(np.abs(ecdfs[:, k] * n - c) < 1e-9) for c in range(n + 1)] for k in range(n_draws)])
    below, above = chances.cumsum(1), chances[:, ::-1].cumsum(1)[:, ::-1]
    tails = np.unique(np.concatenate([below.ravel(), above.ravel()]).round(12))
    coverages = []
    for tail in tails[tails < 0.5]:  # central intervals of every other common tail: smallest c with P(<= c) > tail
        low = np.array([np.argmax(row > tail + 1e-9) for row in below]) / n - x
        high = np.array([n - np.argmax(row[::-1] > tail + 1e-9) for row in above]) / n - x
        coverages.append((coverage(np.stack([low, high], -1)), (high - low).sum()))
    assert min(width for covered, width in coverages if covered >= level) >= (band[:, 1] - band[:, 0]).sum() - 1e-9


@pytest.mark.statistical
def test_the_band_of_the_real_size_holds_what_it_says(failure_rate):
    """20,000 sets of 200 uniform ranks: the share inside is the exact coverage, at least the level, two-sided."""
    rng = np.random.default_rng(0)
    level, n, n_draws = 0.9, 200, 99
    counts = rng.multinomial(n, np.full(n_draws + 1, 1 / (n_draws + 1)), size=20_000).cumsum(1)[:, :-1]
    band, x = ecdf_band(n, n_draws, level), np.arange(1, n_draws + 1) / (n_draws + 1)
    away = counts / n - x
    share = ((away >= band[:, 0] - 1e-9) & (away <= band[:, 1] + 1e-9)).all(1).mean()
    bound = -Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2, dtype=torch.float64))
    error = float(bound) * (level * (1 - level) / 20_000) ** 0.5
    assert level - error <= share <= level + 0.01 + error  # the counts are whole, so that not every level is met


def test_differences_and_what_is_outside():
    ranks = np.stack([np.arange(40) % 10, np.full(40, 9), np.arange(40) % 2], -1)
    found = Ranks(("even", "top", "bottom"), ranks, 9, np.full(3, 9.0))
    for k, row in enumerate(found.differences(), 1):
        assert row.tolist() == pytest.approx([np.mean(ranks[:, q] < k) - k / 10 for q in range(3)])
    assert found.outside() == ["top", "bottom"]
    assert np.array_equal(found.band(0.99), ecdf_band(40, 9, 1 - 0.01 / 3))


def test_true_values_are_ranked_among_the_draws(monkeypatch):
    """By a sampler that gives the truth moved up and down in turns: half of the draws are below it."""
    options = SBCOptions(simulations=10, draws=10)

    def around(model, observations, options, seed, broken):
        _, _, truth = simulate(PRIOR, 10, seed - 1)
        for index in range(10):
            yield {name: value * (1.01 if index < 3 else 0.99) for name, value in truth.items()}

    monkeypatch.setattr(calibration, "posterior_draws", around)
    found = calibrate(options, seed=5)
    norm = found.names.index("norm of UV'")
    assert found.ranks.shape == (10, 10) and (found.ranks[:, norm] == 7).all()
    assert (found.ranks[:, found.names.index("log p(U)")] == 3).all()


# --- the sampler -----------------------------------------------------------------------------------------------------

OPTIONS = SBCOptions(simulations=200, draws=49, thin=3, warmup=20)


@pytest.mark.statistical
@pytest.mark.slow
@pytest.mark.parametrize("model", ["cvae", "pmf"])
def test_the_sampler_is_calibrated(failure_rate, model):
    found = calibrate(replace(OPTIONS, model=model), seed=0)
    assert found.outside(1 - failure_rate) == []
    assert found.ess.min() > 25


@pytest.mark.statistical
@pytest.mark.slow
@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("model", ["cvae", "pmf"])
def test_a_sampler_with_twice_a_precision_is_caught(model, broken):
    assert calibrate(replace(OPTIONS, model=model), seed=1, broken=broken).outside()


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["cvae", "pmf"])
def test_the_command_prints_a_table_and_draws(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "set_num_threads", Mock())
    argv = ["--simulations", "10", "--draws", "9", "--thin", "1", "--warmup", "2", "--broken-seeds", "2"]
    monkeypatch.setattr("sys.argv", ["analysis.sbc", "--model", model, *argv, "--out", str(tmp_path / "sbc.png")])
    assert run_command(sbc.main) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "10 simulations, 9 draws each, 99% band" in said and "log p(R|U,V)" in said and "of 2 caught" in said
    assert (tmp_path / "sbc.png").stat().st_size > 10_000 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": "svd"}, "--model is 'svd', but it must be one of cvae, pmf"),
        ({"simulations": 5}, "--simulations is 5, but it must be at least 10"),
        ({"draws": 3}, "--draws is 3"),
        ({"broken_seeds": -1}, "--broken-seeds is -1, but it must be at least 0"),
        ({"broken": "lambda_w"}, "--broken is 'lambda_w', but it must be one of lambda_u, lambda_v, a"),
        ({"words": 0.5}, "--words is 0.5"),
        ({"a": 0.0}, "--a 0; use 1 or more words"),
        ({"seed": -1}, "--seed is -1"),
        ({"out": "sbc.pdf"}, "--out is 'sbc.pdf', but it must end in .png"),
        ({"out": "nowhere/sbc.png"}, "--out: no such folder"),
    ],
)
def test_options_that_are_wrong(wrong, words):
    with pytest.raises(InputError, match=words):
        SBCOptions(**wrong)
