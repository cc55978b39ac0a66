"""Exports and diagnostics of every rating likelihood and of biases, against the Pyro program and dense densities."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from torch import distributions as dist
from torch.distributions import MultivariateNormal, Normal

import inference
from analysis import posterior
from analysis.calibration import main as calibration_main
from analysis.compare import main as compare_main
from analysis.diagnostics import diagnose, traces
from analysis.diagnostics import main as diagnostics_main
from analysis.draws import user_rows
from analysis.draws.pairs import pairs_by_kind
from analysis.draws.streams import draw_blocks
from analysis.draws.user_rows import UserRows
from analysis.posterior import to_datatree
from analysis.report import main as report_main
from analysis.soundness.pareto import log_ratios, pareto_k
from analysis.soundness.predictive import predictive_checks
from analysis.soundness.rating_checks import BACKGROUND_OF_A_USER
from inference.fitting import Fit
from inference.recommending import add_items, fold_in
from models.build import content_likelihood, observe
from models.gaussians import Gaussians
from pyro_cvae.data.contents import Tokens, Vectors
from pyro_cvae.data.splits import held_out_cells
from pyro_cvae.errors import InputError
from tests.analysis.kinds import KINDS, NORMAL, SMALL, WHOLE_ROWS, small_fit, stars

QUICK: dict[str, int] = {"n_users": 5, "draws": 200, "check_users": 8, "check_texts": 5, "check_draws": 20}


@pytest.fixture(scope="module")
def fits() -> dict[str, Fit]:
    return {kind: small_fit(kind) for kind in KINDS}


def columns_of(fit: Fit) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Observations, and R and C of all cells, (n_users, n_items), C = 0 where there is none."""
    likelihood = content_likelihood(fit.options.model.content_likelihood, {})
    data = observe(fit.dataset, fit.split, likelihood, fit.options.model, fit.options.data.scaling)[0]
    ratings = fit.model.ratings
    dense = data.columns.dense(ratings.background if ratings.zeros else 0.0)
    return data, *(part.mT for part in dense)


def cell_of(fit: Fit, score: torch.Tensor, confidences: torch.Tensor) -> dist.Distribution:
    """p(R | s) from torch's own distributions."""
    name = fit.options.model.rating_likelihood
    if name == "poisson":
        return dist.Poisson(score.exp())
    if name.startswith("bernoulli"):
        return dist.Bernoulli(probs=1 / (1 + (-score).exp()))
    tau = float(fit.model.ratings.log_tau.detach().exp()) if name == "normal" else 1.0
    return Normal(score, (tau * torch.where(confidences > 0, confidences, 1.0)) ** -0.5)


def latents(tree: Any, group: str = "posterior") -> dict[str, torch.Tensor]:
    return {str(name): torch.as_tensor(array.values[0]) for name, array in tree[group].data_vars.items()}


def scores_of(drawn: dict[str, torch.Tensor]) -> torch.Tensor:
    """Scores of all pairs by hand, (n_draws, n_users, n_items)."""
    scores = drawn["u"] @ drawn["v"].mT
    if "user_bias" in drawn:
        scores = scores + drawn["user_bias"][:, :, None] + drawn["item_bias"][:, None]
    return scores


def all_of(fit: Fit, **options: Any) -> Any:
    """Everybody and everything."""
    ids = fit.dataset.user_ids, fit.dataset.item_ids
    return to_datatree(fit, *ids, user_log_likelihood=True, **options)


def has_biases(fit: Fit) -> bool:
    return fit.options.model.biases == "on"


# --- exports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_log_likelihoods_are_those_of_the_pyro_model(fits, kind):
    fit = fits[kind]
    tree = all_of(fit, draws=3)
    drawn = latents(tree)
    assert has_biases(fit) == ("user_bias" in drawn) == ("item_bias" in drawn)
    assert drawn["u"].shape[2] == drawn["v"].shape[2] == drawn["z"].shape[2] == 2
    torch.testing.assert_close(drawn["v_dagger"], drawn["v"] - drawn["z"])
    scores = scores_of(drawn)
    torch.testing.assert_close(drawn["score"].view_as(scores), scores, rtol=1e-11, atol=1e-12)

    data, ratings, confidences = columns_of(fit)
    there = confidences > 0
    dense = torch.where(there, cell_of(fit, scores, confidences).log_prob(ratings), 0.0)
    found = torch.as_tensor(tree["log_likelihood"]["R_user"].values[0])
    torch.testing.assert_close(found, dense.sum(-1), rtol=1e-10, atol=1e-10)
    pairs = zip(tree["constant_data"]["cell_user"].values, tree["constant_data"]["cell_item"].values, strict=True)
    rows, columns = zip(
        *((fit.dataset.user_rows([u])[0], fit.dataset.item_rows([i])[0]) for u, i in pairs), strict=True
    )
    cells = torch.zeros_like(there)
    cells[list(rows), list(columns)] = True
    assert bool((cells == there).all())
    own = torch.as_tensor(tree["log_likelihood"]["R"].values[0])
    torch.testing.assert_close(own, dense[:, list(rows), list(columns)], rtol=1e-10, atol=1e-10)
    seen = torch.as_tensor(tree["observed_data"]["R"].values)
    assert torch.equal(seen, ratings[list(rows), list(columns)])

    model = fit.model.eval()
    batch = data.batch(torch.arange(fit.dataset.n_items))
    for draw in range(3):
        u, v, z = (drawn[name][draw] for name in "uvz")
        if has_biases(fit):
            u = torch.cat([u, drawn["user_bias"][draw][:, None] / model.kappa_u], 1)
            v = torch.cat([v, drawn["item_bias"][draw][:, None] / model.kappa_v], 1)
        around = model.prior_of_items(z).loc.detach()
        values = {"u": u, "z": z, model.item_site: v - (0 if model.item_site == "v" else around)}
        with torch.no_grad():
            site = poutine.trace(poutine.condition(model, values)).get_trace(batch).nodes["R"]
            total = site["fn"].log_prob(site["value"]).sum()
        assert float(total) == pytest.approx(float(found[draw].sum()), rel=1e-10)


@pytest.mark.parametrize("kind", ["clicks", "counts", "stored clicks", "stars"])
def test_log_likelihoods_in_small_blocks_are_the_same(fits, kind, monkeypatch):
    fit = fits[kind]
    rows = UserRows.of(fit, np.array([7, 2]))
    ((_, _, drawn),) = draw_blocks(fit.posterior, np.array([7, 2]), rows.items, 6, 0)
    whole = rows.log_prob(slice(0, len(rows.items)), drawn["u"], drawn["v"])
    monkeypatch.setattr(user_rows, "FLOATS_AT_ONCE", 60)
    halves = (slice(0, 11), slice(11, len(rows.items)))
    parts = [rows.log_prob(block, drawn["u"], drawn["v"][:, block]) for block in halves]
    torch.testing.assert_close(parts[0] + parts[1], whole, rtol=1e-12, atol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["paper with biases", "stars", "stars by gradients", "clicks by a bound", "clicks"])
def test_biases_have_the_moments_of_the_posterior(fits, kind, failure_rate):
    fit, n = fits[kind], 4000
    drawn = latents(to_datatree(fit, fit.dataset.user_ids[:6], fit.dataset.item_ids[:6], draws=n, prior=False))
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 24)))
    for side, (loc, sd) in fit.posterior.biases().items():
        found = drawn[f"{side}_bias"]
        assert bool(((found.mean(0) - loc[:6]).abs() < bound * sd[:6] / n**0.5).all())
        assert bool(((found.var(0) / sd[:6] ** 2 - 1).abs() < bound * (2 / n) ** 0.5).all())


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["stars", "clicks", "counts"])
def test_the_prior_is_the_models(fits, kind, failure_rate):
    """Means and variances of biases and latents, and a score that is made of them."""
    fit, n = fits[kind], 4000
    model = fit.options.model
    tree = to_datatree(fit, fit.dataset.user_ids[:3], fit.dataset.item_ids[:3], draws=n)
    drawn = latents(tree, "prior")
    torch.testing.assert_close(drawn["score"].view(n, 3, 3), scores_of(drawn))
    expected = {"u": (0.0, 1 / model.lambda_u), "z": (0.0, 1.0), "v_dagger": (0.0, 1 / model.lambda_v)}
    if has_biases(fit):
        mean = float(fit.model.mean.detach())
        assert abs(mean) > 0.5 and float(tree["constant_data"]["global_mean"]) == mean
        expected |= {"user_bias": (0.0, 1 / model.lambda_b), "item_bias": (mean, 1 / model.lambda_b)}
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / 60)))
    for name, (mean, variance) in expected.items():
        values = drawn[name].reshape(n, -1)
        assert bool(((values.mean(0) - mean).abs() < bound * (variance / n) ** 0.5).all()), name
        assert bool((((values - mean).square().mean(0) / variance - 1).abs() < bound * (2 / n) ** 0.5).all()), name


@pytest.mark.statistical
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("group", "dim"), [("posterior_predictive", "cell"), ("predictions", "held_out")])
def test_drawn_ratings_have_the_mean_and_variance_of_their_likelihood(fits, kind, group, dim, failure_rate):
    """Given the scores of the same draw; the sum over cells of R - E R, and of its square, two-sided."""
    fit = fits[kind]
    tree = all_of(fit, draws=60)
    given = tree["constant_data" if dim == "cell" else "predictions_constant_data"]
    pairs = {pair: p for p, pair in enumerate(tree["posterior"]["pair"].values.tolist())}
    at = [pairs[pair] for pair in tree[group][dim].values.tolist()]
    scores = torch.as_tensor(tree["posterior"]["score"].values[0])[:, at]
    cell = cell_of(fit, scores, torch.as_tensor(given["confidence"].values))
    drawn = torch.as_tensor(tree[group]["R"].values[0])
    bool(cell.support.check(drawn).all())
    away = (drawn - cell.mean) / cell.variance.sqrt()
    n, bound = away.numel(), -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 4)))
    assert n > 2000
    assert abs(float(away.mean())) < bound / n**0.5
    squares = away.square()
    assert abs(float(squares.mean()) - 1) < bound * float(squares.std()) / n**0.5


# --- Pareto k --------------------------------------------------------------------------------------------------------


def own_rows(fit: Fit, drawn: torch.Tensor) -> torch.Tensor:
    """u with the bias in units of kappa_u, from rows as wide as the items'."""
    return drawn[..., :3] if has_biases(fit) else drawn


@pytest.mark.parametrize("kind", NORMAL)
def test_ratios_are_joint_over_evidence_over_q(fits, kind):
    """With biases and learned noise: each term a dense Normal of the user's own ratings, at the draws themselves."""
    fit, users, n, seed = fits[kind], np.array([5, 0, 11]), 4, 7
    found = log_ratios(fit, users, n, seed)
    rows = UserRows.of(fit, users)
    own = int(np.random.SeedSequence((seed, 0)).generate_state(1, np.uint64)[0] >> 1)
    ((_, _, drawn),) = draw_blocks(fit.posterior, users, rows.items, n, own)
    _, ratings, confidences = columns_of(fit)
    tau = float(fit.model.ratings.log_tau.detach().exp()) if fit.model.ratings.explicit else 1.0
    lambda_u, lambda_b = fit.options.model.lambda_u, fit.options.model.lambda_b
    precisions = torch.tensor([lambda_u] * 2 + [lambda_b] * has_biases(fit), dtype=torch.float64)
    kappa = torch.ones_like(precisions)
    kappa[2:] = (lambda_u / lambda_b) ** 0.5
    for place, user in enumerate(users.tolist()):
        there = (confidences[user] > 0)[rows.items]
        r, c = ratings[user][rows.items][there], tau * confidences[user][rows.items][there]
        loc = own_rows(fit, fit.posterior.u_loc[user]) * kappa
        covariance = own_rows(fit, own_rows(fit, fit.posterior.covariance("u", user)).mT) * kappa * kappa[:, None]
        q = MultivariateNormal(loc, covariance)
        for draw in range(n):
            at = own_rows(fit, drawn["u"][draw, place]) * kappa  # (u, b)
            v = drawn["v"][draw][there]
            design, offset = v[:, :2], torch.zeros_like(r)
            if has_biases(fit):
                design = torch.cat([design, torch.ones_like(r)[:, None]], 1)
                offset = v[:, 3] * (fit.options.model.lambda_v / lambda_b) ** 0.5
            joint = Normal(design @ at + offset, c**-0.5).log_prob(r).sum()
            joint = joint + Normal(0.0, precisions**-0.5).log_prob(at).sum()
            evidence = MultivariateNormal(offset, torch.diag(1 / c) + design / precisions @ design.mT).log_prob(r)
            assert found[draw, place] == pytest.approx(float(joint - evidence - q.log_prob(at)), abs=1e-8)


def draw_of_v(fit: Fit, items: Any, seed: int) -> torch.Tensor:
    return fit.posterior.select(torch.zeros(0, dtype=torch.int64), torch.tensor(items)).sample(1, seed)["v"][0]


@pytest.mark.parametrize("kind", ["clicks by a bound", "stored clicks", "clicks", "counts"])
def test_ratios_with_v_at_a_draw_differ_as_the_densities_do(fits, kind):
    """Of two draws log p(R_i, u | V) - log q(u), cells by hand; the mean ratio is 1."""
    fit, users, n, seed = fits[kind], np.array([5, 0]), 9, 3
    found = log_ratios(fit, users, n, seed)
    np.testing.assert_allclose(np.exp(found).mean(0), 1, rtol=1e-12)
    _, ratings, confidences = columns_of(fit)
    width = fit.model.width
    loc = own_rows(fit, fit.posterior.u_loc[users])
    covariance = own_rows(fit, own_rows(fit, fit.posterior.covariance("u", users)).mT)
    tril = torch.linalg.cholesky(covariance)
    noise = torch.randn((n, 2, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u = loc + (tril @ noise[..., None]).squeeze(-1)
    rows = torch.cat([u, torch.full((n, 2, 1), fit.model.kappa_v, dtype=torch.float64)], -1) if has_biases(fit) else u
    observed = UserRows.of(fit, users).items
    v = fit.posterior.v_loc.clone()
    v[observed.tolist()] = draw_of_v(fit, observed, seed)
    scores = rows @ v.mT
    log_prob = torch.where(confidences > 0, 1.0, 0.0)[users] * cell_of(fit, scores, confidences[users]).log_prob(
        ratings[users]
    )
    target = log_prob.sum(-1) + Normal(0.0, torch.tensor(fit.model.lambda_u, dtype=torch.float64) ** -0.5).log_prob(
        u
    ).sum(-1)
    expected = (target - MultivariateNormal(loc, covariance).log_prob(u)).detach().numpy()
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-8, atol=1e-9)


# --- predictive checks -----------------------------------------------------------------------------------------------


def sharp(fit: Fit) -> Fit:
    """The fit with hardly any spread of u and v."""
    q = fit.posterior
    u, v = (Gaussians(rows.loc, torch.zeros_like(rows.loc)) for rows in (q.u, q.v))
    return replace(fit, posterior=replace(q, kind="mean-field", u=u, v=v, parametrization="centred"))


@pytest.mark.statistical
@pytest.mark.parametrize("kind", WHOLE_ROWS)
def test_whole_rows_are_drawn_at_their_means(fits, kind, failure_rate):
    """Totals of users and items of the data by hand; drawn ones at a point have the mean of their cells' sums."""
    fit, n = sharp(fits[kind]), 300
    found = {check.name: check for check in predictive_checks(fit, draws=n, n_users=0, n_texts=2)}
    _, ratings, confidences = columns_of(fit)
    there = confidences > 0
    totals = torch.where(there, ratings, 0.0)
    items = (there.sum(0) > 0).numpy()
    assert found["ratings of a user"].observed[0] == pytest.approx(float(totals.sum(1).mean()), rel=1e-12)
    assert found["spread between users"].observed[0] == pytest.approx(totals.sum(1).numpy().std(), rel=1e-12)
    assert found["spread between items"].observed[0] == pytest.approx(totals.sum(0).numpy()[items].std(), rel=1e-12)
    cell = cell_of(fit, fit.posterior.u_loc @ fit.posterior.v_loc.mT, confidences)
    mean = torch.where(there, cell.mean, 0.0).sum() / len(there)
    variance = torch.where(there, cell.variance, 0.0).sum() / len(there) ** 2
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2)))
    drawn = found["ratings of a user"].replicated
    assert abs(drawn.mean() - float(mean)) < bound * (float(variance) / n) ** 0.5


@pytest.mark.parametrize("kind", ["stars", "paper with biases", "stored clicks"])
def test_squares_are_those_of_the_cells(fits, kind):
    """C tau (R - s)^2, or Pearson's squares of clicks, by hand at a point; stars have no zeros and no ranking."""
    fit = sharp(fits[kind])
    checks = {check.name: check for check in predictive_checks(fit, draws=3, n_users=0, n_texts=2)}
    assert ("squares of zeros" in checks) == (kind == "paper with biases")
    assert ("rank of held-out items (AUC)" in checks) == (kind != "stars") != ("squares of held-out ratings" in checks)
    rows, columns = pairs_by_kind(fit, np.arange(20), BACKGROUND_OF_A_USER, 0)["train"]
    _, ratings, confidences = columns_of(fit)
    score = (fit.posterior.u_loc @ fit.posterior.v_loc.mT)[rows, columns]
    cell = cell_of(fit, score, confidences[rows, columns])
    squares = ((ratings[rows, columns] - cell.mean) ** 2 / cell.variance).sum()
    assert checks["squares of stored ratings"].observed[0] == pytest.approx(float(squares), rel=1e-9)


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_likelihood_is_diagnosed(fits, kind):
    fit = fits[kind]
    found = diagnose(fit, **QUICK)
    assert found.pareto_k is not None and np.isfinite(found.pareto_k["kl"]).all()
    what = dict(zip(found.summary["what"], found.summary["value"], strict=True))
    assert ("noise of a rating" in what) == fit.model.ratings.explicit
    assert ("user biases" in what) == has_biases(fit)
    shown = [panel.get_title() for panel in traces(fit).axes]
    assert ("validation RMSE" in shown) == fit.model.ratings.explicit != ("validation recall" in shown)


OF_CONTENTS: dict[str, dict[str, Any]] = {
    "vectors": {"content": "vectors", "content_likelihood": "normal"},
    "tokens": {"content": "phrase", "content_likelihood": "tokens"},
    "several": {
        "content_likelihood": "product",
        "content_likelihood_args": {"text": "multinomial", "vectors": "normal", "phrase": "tokens"},
    },
}


@pytest.mark.parametrize("which", OF_CONTENTS)
def test_other_contents_in_every_command(which, tmp_path):
    """Vectors, tokens, and a product with the text, parts of which items lack: checks of texts alone are left out."""
    data, rng = stars(), np.random.default_rng(3)
    n, present = data.n_items, rng.random(data.n_items) < 0.8
    lengths = np.where(present, rng.integers(1, 6, n), 0)
    indptr = np.concatenate([[0], lengths.cumsum()])
    words = ("?", "red", "green", "blue")
    phrase = Tokens(indptr, rng.integers(0, 4, indptr[-1]).astype(np.int32), words, present)
    vectors = Vectors(rng.standard_normal((n, 5)).astype(np.float32), np.ones(n, bool))
    data = replace(data, others={"vectors": vectors, "phrase": phrase})
    options = SMALL | {"rating_likelihood": "normal"} | OF_CONTENTS[which]
    fit = inference.fit(data, held_out_cells(data, 0.25, 0), **options, out=tmp_path / "run")
    found = diagnose(fit, **QUICK)
    names = [check.name for checks in found.checks.values() for check in checks]
    assert names and not any("word" in name for name in names)
    assert "no table of word counts" in found.summary.set_index("what").loc["texts", "note"]
    assert to_datatree(fit, draws=10)["posterior"].sizes["factor"] == 2
    run = str(tmp_path / "run")
    report_main([run, "--out", str(tmp_path / "report.html"), "--users", "1", "--draws", "20"])
    compare_main([run, "--out", str(tmp_path / "compared"), "--resamples", "20", "--draws", "2", "--users", "3"])
    calibration_main([run, "--out", str(tmp_path / "calibrated"), "--draws", "20", "--resamples", "20"])
    assert (tmp_path / "compared" / "errors.csv").exists() and (tmp_path / "calibrated" / "coverage.csv").exists()


def test_points_are_refused():
    fit = small_fit("clicks by a bound", mode="map")
    with pytest.raises(InputError, match="--mode bayes"):
        pareto_k(fit)
    assert {check.name for check in predictive_checks(fit, "prior", n_users=4, n_texts=3, draws=10)}


@pytest.mark.parametrize("kind", ["stars", "clicks by a bound"])
def test_the_commands(kind, tmp_path, capsys):
    small_fit(kind, out=tmp_path / "run")
    posterior.main([str(tmp_path / "run"), "--out", str(tmp_path / "p.nc"), "--draws", "20", "--user-log-likelihood"])
    assert "item_bias (chain, draw, item)" in capsys.readouterr().out
    quick = ["--draws", "100", "--n-users", "4", "--check-users", "5", "--check-texts", "4", "--check-draws", "10"]
    diagnostics_main([str(tmp_path / "run"), "--out", str(tmp_path / "d"), *quick])
    assert "Pareto k below" in capsys.readouterr().out
    assert (tmp_path / "d" / "posterior-checks.png").stat().st_size > 10_000


def test_an_added_item_has_the_prior_of_its_bias_and_what_meets_the_users_is_given():
    fit = small_fit("stars")
    added = add_items(fit, ["late"], counts=fit.dataset.content.counts[:1]).posterior
    variance = added.covariance("v", [-1])[0].diagonal()
    own = torch.full((added.n_factors,), 1 / added.lambda_v, dtype=torch.float64)
    torch.testing.assert_close(variance[:-2], added.z_scale[-1].square() + own)
    assert variance[-2] == 0
    mean, sd = (part[-1] for part in added.biases()["item"])
    torch.testing.assert_close(sd, torch.tensor(fit.options.model.lambda_b**-0.5, dtype=sd.dtype))
    torch.testing.assert_close(mean, fit.model.mean.detach())


def test_a_user_of_clicks_by_a_bound_is_folded_in_to_where_the_sweeps_end():
    """With the items held q(u) and its xi are a fixed point, whatever the start; one pass is not there."""
    fit = small_fit("clicks by a bound", epochs=0, sweeps=100)
    train = fit.split.train
    rows = np.flatnonzero(train.users == 3)
    ids = fit.dataset.user_ids[train.users[rows]], fit.dataset.item_ids[train.items[rows]]
    how = {
        "ratings": train.ratings[rows],
        "confidences": None if train.confidences is None else train.confidences[rows],
    }
    folded = fold_in(fit, *ids, **how).posterior
    torch.testing.assert_close(folded.u_loc[3], fit.posterior.u_loc[3], rtol=0.01, atol=1e-3)
    torch.testing.assert_close(folded.covariance("u", 3), fit.posterior.covariance("u", 3), rtol=0.01, atol=1e-3)
