"""Pareto k where it is known, predictive checks of right and wrong models, traces, content and the command."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from sklearn.metrics import roc_auc_score
from torch.distributions import MultivariateNormal, Normal

import inference
from analysis import posterior
from analysis.diagnostics import content_units, diagnose, main, traces
from analysis.draws import streams
from analysis.draws.pairs import pairs_by_kind, seen_cells, spread_rows
from analysis.draws.user_rows import UserRows
from analysis.soundness import pareto
from analysis.soundness.check import Check, plot_checks
from analysis.soundness.diagnosis import Diagnosis, write
from analysis.soundness.pareto import good_k, log_ratios, pareto_k
from analysis.soundness.predictive import predictive_checks
from analysis.soundness.rating_checks import BACKGROUND_OF_A_USER
from analysis.soundness.text_checks import _word_statistics
from inference.fitting import Fit
from inference.posterior import Posterior, content_diagnostics
from models.gaussians import Gaussians
from models.observations import RatingColumns, SparseRows
from pyro_cvae.data.simulated import simulated, simulated_gaussian
from pyro_cvae.errors import InputError, run_command

SMALL: dict[str, Any] = {
    "method": "coordinate", "factors": 3, "hidden": (8,), "pretrain_epochs": 2, "epochs": 2, "sweeps": 3,
    "lambda_u": 1.0, "lambda_v": 5.0, "a": 1.0, "b": 0.01, "dtype": "float64", "threads": 1,
}  # fmt: skip
QUICK: dict[str, int] = {"n_users": 6, "draws": 200, "check_users": 10, "check_texts": 10, "check_draws": 30}
CLICKS = {"train_per_user": 4, "a": 4.0, "b": 0.2, "guide": "structured"}


def numbers_data() -> Any:
    return simulated_gaussian(n_users=14, n_items=17, n_words=30, n_factors=3)


def clicks_data() -> Any:
    return simulated(n_users=15, n_items=60, n_words=30, n_factors=3, clicks_per_user=14)


@pytest.fixture(scope="module")
def fits() -> dict[str, Fit]:
    return {
        "full": inference.fit(numbers_data(), **SMALL),
        "structured": inference.fit(numbers_data(), **SMALL, guide="structured"),
        "diagonal": inference.fit(numbers_data(), **SMALL, diagonal=True),
        "clicks": inference.fit(clicks_data(), **SMALL | CLICKS),
        "popular": inference.fit(clicks_data(), **SMALL | CLICKS, b_power=0.7),
        "point": inference.fit(clicks_data(), **SMALL | CLICKS | {"guide": "mean-field"}, mode="map"),
    }


def columns_of(fit: Fit) -> RatingColumns:
    options = fit.options.model
    columns = RatingColumns.from_interactions(fit.split.train, options.a, options.unrated, torch.float64)
    return fit.model.ratings.weighed(columns)


def conditional(fit: Fit, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and precisions of p(u_i | R_i, V) of all users, dense."""
    ratings, confidences = columns_of(fit).dense(fit.options.model.b)
    precision = torch.einsum("ji,jk,jl->ikl", confidences, v, v) + fit.model.lambda_u * torch.eye(v.shape[1])
    shift = torch.einsum("ji,jk->ik", confidences * ratings, v)
    return torch.linalg.solve(precision, shift), precision


def known(fit: Fit, loc: torch.Tensor, v: torch.Tensor, **spread: torch.Tensor) -> Fit:
    """The fit with V a point and q(u) as given."""
    users, items = Gaussians(loc, **spread), Gaussians(v, torch.zeros_like(v))
    return replace(fit, posterior=Posterior("mean-field", users, items, fit.posterior.z))


# --- Pareto k --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "clicks", "popular"])
def test_exact_q_of_u_has_constant_ratios(fits, kind):
    """V a point and q(u_i) = p(u_i | R_i, V): every log ratio is 0, k has no tail, the KL is 0."""
    fit = fits[kind]
    v = fit.posterior.v_loc
    mean, precision = conditional(fit, v)
    n_users = len(mean)
    exact = known(fit, mean, v, covariance=torch.linalg.inv(precision))
    ratios = log_ratios(exact, np.arange(n_users), 50, 0)
    np.testing.assert_allclose(ratios, 0, atol=1e-11)
    table = pareto_k(exact, n_users=0, draws=50)
    assert (table["k"] == -np.inf).all()
    np.testing.assert_allclose(table["ess"], 1)
    assert table["user"].tolist() == fit.dataset.user_ids.tolist()
    assert table["n_ratings"].tolist() == fit.split.train.user_counts.tolist()


@pytest.mark.parametrize("kind", ["full", "structured", "diagonal", "clicks", "popular"])
@pytest.mark.parametrize("at_once", [2**24, 200])
def test_ratios_are_joint_over_evidence_over_q(fits, kind, at_once, monkeypatch):
    """log p(R_i | u, V) + log p(u) - log p(R_i | V) - log q(u), each term a dense Normal, at the draws themselves."""
    fit, users, seed = fits[kind], np.array([5, 0, 11]), 4
    monkeypatch.setattr(pareto, "FLOATS_AT_ONCE", at_once)
    monkeypatch.setattr(streams, "FLOATS_AT_ONCE", at_once)
    n = 6
    found = log_ratios(fit, users, n, seed)
    in_one_go = max(1, at_once // (7 * 9))
    cells = UserRows.of(fit, users)
    u, v = torch.zeros(n, 3, 3).double(), torch.zeros(n, len(cells.items), 3).double()
    for number, start in enumerate(range(0, n, in_one_go)):
        size = min(in_one_go, n - start)
        own = int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)
        for block, draws, part in streams.draw_blocks(fit.posterior, users, cells.items, size, own):
            at = slice(start + draws.start, start + draws.stop)
            u[at], v[at, block] = part["u"], part["v"]
    ratings, confidences = (part.mT for part in columns_of(fit).dense(fit.options.model.b))
    lambda_u = fit.model.lambda_u
    for place, user in enumerate(users.tolist()):
        there = (confidences[user] > 0)[cells.items]
        r, c = ratings[user][cells.items][there], confidences[user][cells.items][there]
        q = MultivariateNormal(fit.posterior.u_loc[user], fit.posterior.covariance("u", user))
        for draw in range(n):
            at, vs = u[draw, place], v[draw][there]
            joint = Normal(vs @ at, c**-0.5).log_prob(r).sum() + Normal(0.0, lambda_u**-0.5).log_prob(at).sum()
            evidence = MultivariateNormal(torch.zeros_like(r), torch.diag(1 / c) + vs @ vs.mT / lambda_u).log_prob(r)
            assert found[draw, place] == pytest.approx(float(joint - evidence - q.log_prob(at)), abs=1e-9)


@pytest.mark.statistical
def test_a_diagonal_q_of_correlated_factors_has_the_known_k_and_kl(fits, failure_rate):
    """With precision L and the mean-field optimum q = N(m, D^-1), D = diag(L), of one user and V a point:

    the KL is -1/2 log det(D^-1/2 L D^-1/2) exactly, and the ratios' tail has the index
    k = 1 - min eigenvalue of D^-1/2 L D^-1/2, which is 0 without correlation and grows with it. The estimate of k is
    low by up to 0.15, since the tail's logarithm dies slowly; the KL is compared two-sided.
    """
    fit, n = fits["full"], 4000
    found = []
    for rho in (0.3, 0.6, 0.9):
        base = torch.randn(17, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        root = torch.linalg.cholesky((1 - rho) * torch.eye(3).double() + rho)
        v = 3 * base @ root.mT
        mean, precision = conditional(fit, v)
        diagonal = precision.diagonal(dim1=-2, dim2=-1)
        table = pareto_k(known(fit, mean, v, variance=1 / diagonal), n_users=0, draws=n, seed=2)
        scaled = precision * (diagonal[:, :, None] * diagonal[:, None, :]) ** -0.5
        kl = -0.5 * torch.logdet(scaled)
        k = 1 - torch.linalg.eigvalsh(scaled)[:, 0]
        ratios = log_ratios(known(fit, mean, v, variance=1 / diagonal), np.arange(14), n, 2)
        bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2 / (3 * 14))))
        assert (np.abs(table["kl"] - kl.numpy()) < bound * ratios.std(0) / n**0.5).all()
        assert k.mean() - 0.15 < table["k"].mean() < k.mean() + 0.1
        found.append(table["k"].mean())
    assert found == sorted(found) and found[2] > 0.7 > found[0]


def test_the_limit_of_k_is_that_of_arviz(fits):
    """ArviZ keeps the limit of so many draws in what ``loo`` returns."""
    for draws in (200, 1000, 4000):
        tree = posterior.to_datatree(fits["full"], draws=draws, n_users=2, n_items=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert good_k(draws) == pytest.approx(posterior.loo(tree, var_name="R").good_k, rel=1e-12)


def test_what_has_no_q_has_no_k(fits):
    with pytest.raises(InputError, match=r"is a point.*--mode bayes"):
        pareto_k(fits["point"])
    draws = pytest.importorskip("inference.draws")
    u, v = torch.randn(4, 14, 3), torch.randn(4, 17, 3)
    chains = replace(fits["full"], posterior=draws.Draws.of(u.double(), v.double(), v.double(), n_chains=2))
    with pytest.raises(InputError, match="R-hat"):
        pareto_k(chains)
    found = diagnose(chains, **QUICK)
    assert found.pareto_k is None and len(found.checks["posterior"][0].replicated) == 4


# --- predictive checks -----------------------------------------------------------------------------------------------


def at_truth(scale: float = 1.0, **changes: Any) -> Fit:
    """A "posterior" without spread at the truth that simulated ratings were drawn from, u times ``scale``."""
    data = simulated_gaussian(n_users=40, n_items=60, n_words=30, n_factors=3, **changes)
    fit = inference.fit(data, **SMALL | {"lambda_v": 10.0})
    truth = {name: torch.as_tensor(data.truth[name]) for name in "uvz"}
    return known(fit, scale * truth["u"], truth["v"], variance=torch.zeros_like(truth["u"]))


@pytest.mark.statistical
def test_checks_pass_the_model_that_drew_the_data_and_fail_others(failure_rate):
    """At the truth each discrepancy is a draw of its own replicates (two-sided, of three); with u doubled far off."""
    right = {check.name: check for check in predictive_checks(at_truth(), draws=2000, n_texts=2)}
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 6)))
    for name in ("mean of stored ratings", "squares of stored ratings", "squares of held-out ratings"):
        away = right[name].observed[0] - right[name].replicated.mean()
        assert abs(away) < bound * right[name].replicated.std(), name
    wrong = {check.name: check.p for check in predictive_checks(at_truth(2.0), draws=200, n_texts=2)}
    assert wrong["squares of stored ratings"] == wrong["squares of held-out ratings"] == 0
    squares = right["squares of stored ratings"]
    assert np.ptp(squares.observed) < 1e-8 * squares.observed[0]  # the truth is a point


def test_discrepancies_are_those_of_the_data(fits):
    """Means, their spread and squares of stored cells, by pandas, from the truth held as a posterior."""
    fit = at_truth()
    found = {check.name: check for check in predictive_checks(fit, draws=3, n_users=0, n_texts=2)}
    train = fit.split.train
    kinds = pairs_by_kind(fit, np.arange(40), BACKGROUND_OF_A_USER, 0)["train"]
    at = np.flatnonzero(np.isin(train.keys, kinds[0] * 60 + kinds[1]))
    table = pd.DataFrame({"user": train.users[at], "r": train.ratings[at], "c": train.confidences[at]})
    table["score"] = fit.dataset.truth["scores"][train.users[at], train.items[at]]
    means = table.groupby("user")["r"].mean()
    assert found["mean of stored ratings"].observed[0] == pytest.approx(means.mean(), rel=1e-12)
    assert found["spread between users"].observed[0] == pytest.approx(means.std(ddof=0), rel=1e-12)
    squares = (table["c"] * (table["r"] - table["score"]) ** 2).sum()
    assert found["squares of stored ratings"].observed[0] == pytest.approx(squares, rel=1e-10)


def test_the_auc_of_held_out_items_is_that_of_scikit_learn(fits, monkeypatch):
    """At a posterior without spread, mean over users; drawn with hardly any noise the model ranks its choice first."""
    fit = fits["clicks"]
    q = fit.posterior
    sharp = known(fit, q.u_loc, q.v_loc, variance=torch.zeros_like(q.u_loc))
    monkeypatch.setattr(fit.model.ratings, "a", 1e12)
    checks = {check.name: check for check in predictive_checks(sharp, draws=4, n_users=0, n_texts=2)}
    found = checks["rank of held-out items (AUC)"]
    kinds = pairs_by_kind(fit, np.arange(15), BACKGROUND_OF_A_USER, 0)
    table = pd.concat(
        pd.DataFrame({"user": users, "score": q.mean_score(users, items).numpy(), "held": kind == "test"})
        for kind, (users, items) in kinds.items()
        if kind != "train"
    )
    aucs = [
        roc_auc_score(mine["held"], mine["score"]) for _, mine in table.groupby("user") if mine["held"].nunique() == 2
    ]
    assert len(aucs) == 15
    np.testing.assert_allclose(found.observed, np.mean(aucs), rtol=1e-12)
    np.testing.assert_allclose(found.replicated, 1)


def test_word_statistics_of_a_dense_table():
    counts = torch.tensor([[2, 0, 1, 0], [1, 1, 0, 0], [3, 0, 0, 0]], dtype=torch.float64)
    assert _word_statistics(SparseRows.from_dense(counts)) == pytest.approx((5 / 3, 2 / 3, 1.0))


@pytest.mark.parametrize("content", ["multinomial", "bernoulli", "pseudo-bernoulli", "normal"])
def test_texts_are_checked_where_they_are_made_of_words(content):
    fit = inference.fit(clicks_data(), **SMALL | CLICKS | {"content_likelihood": content})
    names = [check.name for check in predictive_checks(fit, draws=5, n_users=3, n_texts=0)]
    assert ("different words of a text" in names) == (content != "normal")
    checks = {check.name: check for check in predictive_checks(fit, "prior", draws=40, n_users=3, n_texts=0)}
    if content != "normal":
        observed = np.diff(fit.dataset.content.counts.indptr)
        assert checks["different words of a text"].observed[0] == pytest.approx(observed[observed > 0].mean())
    state = torch.get_rng_state()
    predictive_checks(fit, "prior", draws=2, n_users=3, n_texts=2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.statistical
def test_the_prior_draws_what_the_prior_says(fits, failure_rate):
    """Mean square of C-weighted zeros under the prior: b E (u.v)^2 = b K (1 + 1/lambda_v) / lambda_u, two-sided."""
    fit = fits["clicks"]
    found = {c.name: c for c in predictive_checks(fit, "prior", draws=4000, n_users=1, n_texts=2)}
    squares = found["squares of zeros"].observed
    user = spread_rows(fit.dataset.interactions.user_counts, 1)
    kinds = pairs_by_kind(fit, user, BACKGROUND_OF_A_USER, 0)
    seen = seen_cells(fit, *kinds["neither"])
    assert 0 < len(seen) <= len(kinds["neither"][0])
    expected = 0.2 * 3 * 1.2 * len(seen)
    bound = -float(Normal(0.0, 1.0).icdf(torch.tensor(failure_rate / 2)))
    assert abs(squares.mean() - expected) < bound * squares.std() / 4000**0.5


def test_a_p_value_counts_ties_half():
    check = Check("", "", np.array([1.0, 1, 1, 1]), np.array([0.0, 1, 2, 3]))
    assert check.p == 0.625


def test_wrong_sources_are_refused(fits):
    with pytest.raises(InputError, match="'likelihood' is no source"):
        predictive_checks(fits["full"], "likelihood")
    with pytest.raises(InputError, match=r"is a point.*--mode bayes"):
        predictive_checks(fits["point"])
    assert len(predictive_checks(fits["point"], "prior", draws=3, n_users=3, n_texts=2)) == 7


# --- traces and content ----------------------------------------------------------------------------------------------


def test_no_panel_holds_two_objectives(fits):
    """An objective's phases stand apart, a panel each; every term that was logged is drawn once, with its values."""
    for kind, called in (("clicks", "ELBO"), ("point", "MAP objective")):
        fit = fits[kind]
        panels = [axes for axes in traces(fit).axes if axes.get_visible()]
        titles = [axes.get_title() for axes in panels]
        phases = list(dict.fromkeys(row["phase"] for row in fit.history))
        assert titles[: len(phases)] == [f"{called} ({phase})" for phase in phases]
        assert not any(("MAP" if called == "ELBO" else "ELBO") in title for title in titles)
        for axes, phase in zip(panels, phases, strict=False):
            (line,) = axes.get_lines()
            values = [row[fit.options.objective] for row in fit.history if row["phase"] == phase]
            assert line.get_ydata().tolist() == values
        ratings = panels[titles.index("E log p(R | U, V)")]
        drawn = np.concatenate([line.get_ydata() for line in ratings.get_lines()])
        assert drawn.tolist() == [row["ratings"] for row in fit.history if np.isfinite(row.get("ratings", np.nan))]


def test_tempered_and_pseudo_objectives_are_called_so():
    tempered = inference.fit(
        clicks_data(), **SMALL | CLICKS | {"kl_weight": 0.5, "content_likelihood": "pseudo-multinomial"}
    )
    titles = [axes.get_title() for axes in traces(tempered).axes]
    assert titles[0] == "pseudo-ELBO of a tempered fit (content)"
    assert diagnose(tempered, **QUICK).summary["what"][0] == "pseudo-ELBO of a tempered fit"
    with pytest.raises(InputError, match="no history"):
        traces(replace(tempered, history=[]))


def test_content_units_agree_with_the_diagnostics_of_the_content(fits):
    table, drawn = content_units(fits["clicks"])
    q = fits["clicks"].posterior
    known_values = content_diagnostics(q.z_loc, q.z_scale, n_draws=0)
    assert table["kl"].sum() == pytest.approx(known_values["kl"], rel=1e-12)
    assert (table["eigenvalue"] > 0.01).sum() == known_values["active_units"]
    assert table["eigenvalue"].sum() == pytest.approx(float(q.z_loc.var(0).sum()), rel=1e-12)
    assert len(drawn.axes) == 2


# --- all of it -------------------------------------------------------------------------------------------------------


def test_a_diagnosis_holds_all_parts(fits):
    found = diagnose(fits["clicks"], **QUICK)
    assert set(found.figures) == {"traces", "content", "pareto-k", "posterior-checks", "prior-checks"}
    assert found.pareto_k is not None and len(found.pareto_k) == 6
    assert found.pareto_k["k"].notna().all()
    assert [check.name for check in found.checks["posterior"]][4] == "rank of held-out items (AUC)"
    summary = found.summary.set_index("what")
    assert summary.loc["active units", "value"].endswith("of 3")
    again = diagnose(fits["clicks"], **QUICK)
    pd.testing.assert_frame_equal(found.summary, again.summary)


def test_a_diagnosis_of_a_point_says_what_it_cannot_say(fits):
    found = diagnose(fits["point"], **QUICK)
    assert found.pareto_k is None and set(found.checks) == {"prior"}
    assert "--mode bayes" in found.summary.set_index("what").loc["Pareto k", "note"]
    assert set(found.figures) == {"traces", "content", "prior-checks"}


def test_figures_of_few_checks(fits):
    checks = predictive_checks(fits["full"], draws=5, n_users=3, n_texts=2)[:1]
    assert [axes.get_visible() for axes in plot_checks(checks).axes] == [True]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    inference.fit(clicks_data(), **SMALL | CLICKS, out=out)
    return out


def command(run: Any, *argv: Any) -> int:
    quick = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return run_command(lambda: main([str(run), *map(str, argv), *quick]))


def test_the_command_leaves_figures_and_tables(run, tmp_path, capsys):
    out = tmp_path / "diagnostics"
    assert command(run, "--out", out) == 0
    assert "Pareto k below 0.57" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diagnostics"]
    names = {"traces", "content", "pareto-k", "posterior-checks", "prior-checks"}
    tables = {"summary.csv", "pareto-k.csv", "checks.csv", "slopes.csv"}
    assert {path.name for path in out.iterdir()} == {f"{name}.png" for name in names} | tables
    for name in names:
        assert imread(out / f"{name}.png").std() > 0.01
    assert pd.read_csv(out / "pareto-k.csv")["user"].str.startswith("user-").all()
    assert set(pd.read_csv(out / "checks.csv")["source"]) == {"posterior", "prior"}
    assert command(run, "--out", out) == 2
    assert "exists already" in capsys.readouterr().err
    write(Diagnosis(pd.DataFrame({"what": ["new"]}), None, {}), out)
    assert (out / "summary.csv").read_text() == "what\nnew\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diagnostics"]


def test_wrong_options_are_told_in_one_line(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for argv, said in (
        (["--out", tmp_path / "file"], "this is not a folder"),
        (["--out", tmp_path / "no" / "where"], "no such folder"),
        (["--seed", "-1"], "--seed is -1, but it must be at least 0"),
    ):
        assert command(run, *argv) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert run_command(lambda: main([str(run), "--draws", "99"])) == 2
    assert "at least 100" in capsys.readouterr().err
