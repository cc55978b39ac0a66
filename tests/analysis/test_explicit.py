"""Explicit ratings in every command: errors, intervals and rivals against pandas, scipy and dense algebra."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from analysis import calibration
from analysis import compare as compare_module
from analysis import report as report_module
from analysis.compare import CompareOptions, compare, shrinkage
from analysis.comparison.intervals import bootstrap, intervals
from analysis.coverage import coverage
from analysis.error_correlation import error_correlation
from analysis.reliability import reliability
from inference.evaluate import main as evaluate_command
from inference.evaluation.comparison import predictor
from inference.evaluation.rating_rivals import mean_and_biases, mean_rating
from inference.evaluation.ratings import (
    METRICS,
    RatingEvaluation,
    evaluate_ratings,
    rating_metrics,
    root_mean_square_error,
)
from inference.fitting import Fit, load
from inference.options import Options
from inference.recommending import recommend
from inference.tune import main as tune_command
from inference.tuning.options import TuneOptions
from inference.tuning.search import search
from inference.tuning.space import dimensions
from inference.tuning.study import ranked
from pyro_cvae.errors import InputError
from tests.analysis.kinds import KINDS, SMALL, small_fit, stars


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {"structured": ("stars", {}), "plain": ("stars without biases", {}), "map": ("stars", {"mode": "map"})}
    for name, (kind, more) in made.items():
        more = more | {"guide": "mean-field"} if more else more
        small_fit(kind, out=folder / name, **more)
    small_fit("clicks by a bound", out=folder / "clicks")
    return {path.name: path for path in folder.iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def fit(runs: dict[str, Path]) -> Fit:
    return load(runs["structured"])


def by_hand(fit: Fit) -> pd.DataFrame:
    """Each test pair with its prediction: var(u.v) from dense covariances, and the noise."""
    test, train, q = fit.split.test, fit.split.train, fit.posterior
    rows = []
    for i, j, r in zip(test.users.tolist(), test.items.tolist(), test.ratings.tolist(), strict=True):
        u, v = q.u_loc[i], q.v_loc[j]
        variance = 0.0
        if not q.is_point:
            s_u, s_v = q.covariance("u", i), q.covariance("v", j)
            variance = float(u @ s_v @ u + v @ s_u @ v + (s_u * s_v).sum())
        given = train.ratings[train.observed]
        mean = min(max(float(u @ v), given.min()), given.max())
        sd = (variance + float(torch.exp(-fit.model.ratings.log_tau.detach()))) ** 0.5
        half = {level: norm.ppf(0.5 + level / 2) * sd for level in (0.5, 0.9)}
        rows.append((i, j, r, mean, sd, (r - mean) ** 2, abs(r - mean), norm(mean, sd).logpdf(r)))
        rows[-1] += tuple(float(mean - half[level] <= r <= mean + half[level]) for level in (0.5, 0.9))
    names = ["user", "item", "r", "rating", "sd", "squared_error", "absolute_error", "log_density"]
    return pd.DataFrame(rows, columns=[*names, "coverage@50", "coverage@90"])


# --- evaluation and rivals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["structured", "plain", "map"])
def test_errors_and_coverage_are_those_of_pandas(runs, name):
    fit = load(runs[name])
    table, found = by_hand(fit), evaluate_ratings(predictor(fit), fit.split)
    means = table[list(found.metrics)].mean().to_numpy()
    expected = dict(zip(METRICS, [means[0] ** 0.5, *means[1:]], strict=True))
    assert found.means() == pytest.approx(expected, rel=1e-9)
    stored = {name: fit.metrics[name] for name in METRICS}
    assert stored == pytest.approx(expected, rel=1e-9)
    posterior, likelihood = fit.posterior, fit.model.ratings
    again = rating_metrics(posterior, likelihood, fit.split.test, fit.split.train)
    assert again == pytest.approx(expected | {"n_ratings_evaluated": len(table)}, rel=1e-9)
    by_user = table.groupby("user")[list(found.metrics)].mean()
    assert found.per_user["user"].tolist() == by_user.index.tolist()
    np.testing.assert_allclose(found.per_user[list(found.metrics)], by_user, rtol=1e-9)
    counts = np.bincount(fit.split.train.items[fit.split.train.observed], minlength=fit.dataset.n_items)
    median = np.median(counts[counts > 0])
    warm = table[(counts[table["item"]] <= median) & (counts[table["item"]] > 0)]
    assert found.groups.loc["warm", "n_pairs"] == len(warm)
    assert found.groups.loc["warm", "rmse"] == pytest.approx(warm["squared_error"].mean() ** 0.5, rel=1e-9)


def test_ratings_below_0_count(fit):
    """Ratings less 3 are predicted by scores less 3: nothing is to change in the groups of items."""
    lower = {
        name: replace(part, ratings=part.ratings - 3)
        for name, part in (("train", fit.split.train), ("test", fit.split.test))
    }
    found = evaluate_ratings(
        lambda *pairs: (predictor(fit)(*pairs)[0] - 3, predictor(fit)(*pairs)[1]), replace(fit.split, **lower)
    )
    pd.testing.assert_frame_equal(found.groups, evaluate_ratings(predictor(fit), fit.split).groups, rtol=1e-9)


def test_tuning_users_are_left_out_of_the_headline(fit):
    tuning = np.arange(fit.dataset.n_users) % 3 == 0
    found = evaluate_ratings(predictor(fit), replace(fit.split, tuning_users=tuning))
    table = by_hand(fit)
    kept = table[~tuning[table["user"]]]
    assert found.n_users_evaluated == kept["user"].nunique()
    assert found.means()["rmse"] == pytest.approx(kept["squared_error"].mean() ** 0.5, rel=1e-9)
    assert found.all_user_means()["mae"] == pytest.approx(table["absolute_error"].mean(), rel=1e-9)
    assert found.groups["n_pairs"].sum() == len(kept)
    with pytest.raises(InputError, match="no rating is held out"):
        evaluate_ratings(predictor(fit), replace(fit.split, tuning_users=np.ones(fit.dataset.n_users, bool)))


def test_the_rivals_are_mean_and_ridge(fit):
    """Ridge by its dense normal equations, the intercept free, the penalty that which cross-validation likes best."""
    train, n_users = fit.split.train.select(fit.split.train.observed), fit.dataset.n_users
    users, items = fit.split.test.users, fit.split.test.items
    mean, sd = mean_rating(fit.dataset, fit.split)(users, items)
    assert set(mean) == {train.ratings.mean()} and set(sd) == {train.ratings.std()}

    def one_hot(users: Any, items: Any) -> Any:
        return np.hstack([np.eye(n_users)[users], np.eye(fit.dataset.n_items)[items], np.ones((len(users), 1))])

    def solved(at: Any, penalty: float) -> Any:
        x = one_hot(train.users[at], train.items[at])
        weight = np.diag([penalty] * (x.shape[1] - 1) + [0.0])
        return np.linalg.solve(x.T @ x + weight, x.T @ train.ratings[at])

    from sklearn.model_selection import KFold

    errors = {}
    for penalty in (0.5, 1, 2, 4, 8, 16, 32):
        parts = []
        for learn, look in KFold(5, shuffle=True, random_state=0).split(train.ratings):
            away = one_hot(train.users[look], train.items[look]) @ solved(learn, penalty) - train.ratings[look]
            parts.append(np.sqrt(np.mean(away**2)))
        errors[penalty] = np.mean(parts)
    best = min(errors, key=errors.__getitem__)
    assert 0.5 < best < 32
    expected = one_hot(users, items) @ solved(slice(None), best)
    mean, sd = mean_and_biases(fit.dataset, fit.split)(users, items)
    np.testing.assert_allclose(mean, expected.clip(train.ratings.min(), train.ratings.max()), rtol=1e-6)
    np.testing.assert_allclose(sd, errors[best], rtol=1e-6)


def test_evaluate_prints_errors_and_rivals(runs, tmp_path, capsys):
    files = ["--out", str(tmp_path / "means.csv"), "--per-user", str(tmp_path / "users.csv")]
    evaluate_command([str(runs["structured"]), str(runs["map"]), str(runs["clicks"]), "--rivals", *files])
    said = capsys.readouterr().out
    assert "RMSE" in said and "in 90 %" in said and "mean and biases" in said and "recall@13" in said
    table = pd.read_csv(tmp_path / "means.csv")
    mine = table[(table["model"] == str(runs["structured"])) & (table["items"] == "all")].iloc[0]
    assert mine["rmse"] == pytest.approx(load(runs["structured"]).metrics["rmse"], rel=1e-9)
    assert np.isnan(mine["recall@13"]) and mine["n_pairs"] == len(load(runs["structured"]).split.test)
    users = pd.read_csv(tmp_path / "users.csv")
    assert {"squared_error", "recall@13"} <= set(users)
    assert users.loc[users["model"] == "mean", "squared_error"].notna().all()


# --- compare ---------------------------------------------------------------------------------------------------------


def fake(errors: Any, counts: Any) -> RatingEvaluation:
    columns = {"user": np.arange(len(counts)), "tuning": False, "n_test": counts}
    names = ("squared_error", "absolute_error", "log_density", "coverage@50", "coverage@90")
    return RatingEvaluation(pd.DataFrame(columns | dict.fromkeys(names, errors)), pd.DataFrame())


def test_means_and_differences_are_over_pairs():
    """Ratios of sums over the drawn users, by an explicit bootstrap of pairs kept with their users."""
    rng = np.random.default_rng(0)
    counts, first, second = rng.integers(1, 9, 30), rng.gamma(2.0, size=30), rng.gamma(2.2, size=30)
    means, paired = intervals({"one": fake(first, counts), "two": fake(second, counts)}, 400, 0.9, 3)
    rmse = means[(means["model"] == "two") & (means["metric"] == "rmse")].iloc[0]
    assert rmse["mean"] == pytest.approx((np.repeat(second, counts)).mean() ** 0.5, rel=1e-12)
    row = paired[paired["metric"] == "squared_error"].iloc[0]
    difference = second - first
    assert row["mean"] == pytest.approx(np.repeat(difference, counts).mean(), rel=1e-12)
    assert row["better"] == (difference < 0).mean() and row["worse"] == (difference > 0).mean()
    assert paired[paired["metric"] == "log_density"].iloc[0]["better"] == (difference > 0).mean()
    assert set(paired["metric"]) == {"squared_error", "absolute_error", "log_density"}
    drawn = np.random.default_rng(3)
    found = []
    for start in range(0, 400, 256):
        for users in drawn.integers(30, size=(min(256, 400 - start), 30)):
            found.append(np.concatenate([np.repeat(difference[user], counts[user]) for user in users]).mean())
    np.testing.assert_allclose([row["low"], row["high"]], np.quantile(found, [0.05, 0.95]), rtol=1e-10)
    low, high = bootstrap(difference[:, None], 400, 0.9, 3, np.ones(30))
    np.testing.assert_allclose([low, high], bootstrap(difference[:, None], 400, 0.9, 3), rtol=1e-12)


@pytest.mark.statistical
def test_the_standard_error_of_a_ratio_is_its_spread(failure_rate):
    """Over 2,000 simulated sets of 200 users whose counts and errors depend on each other."""
    rng, values, stated = np.random.default_rng(1), [], []
    for _ in range(2000):
        counts = rng.integers(1, 20, 200)
        first, second = rng.gamma(2.0, size=200) / counts**0.5, rng.gamma(2.0, size=200)
        row = intervals({"one": fake(first, counts), "two": fake(second, counts)}, 2, 0.9, 0)[1].iloc[0]
        values.append(row["mean"])
        stated.append(row["se"])
    bound = norm.isf(failure_rate / 2)
    ratio = np.std(values, ddof=1) / np.sqrt(np.mean(np.square(stated)))
    assert abs(ratio**2 - 1) < bound * (2 / 1999) ** 0.5 + 0.01  # 0.01: linearised, of order 1 / n_users


def test_runs_of_ratings_are_compared_by_their_errors(runs, tmp_path, capsys):
    out = tmp_path / "compared"
    chosen = [str(runs[name]) for name in ("structured", "plain", "map")]
    compare_module.main([*chosen, "--out", str(out), "--rivals", "--resamples", "50", "--draws", "4", "--users", "5"])
    said = capsys.readouterr().out
    assert "rmse" in said and "squared_error" in said and "recall@" not in said and "mean and biases" in said
    assert {path.name for path in out.iterdir()} == {
        *("runs.csv", "errors.csv", "differences.csv", "shrinkage.csv", "stability.csv", "compare.png")
    }
    errors = pd.read_csv(out / "errors.csv").set_index(["model", "metric"])["mean"]
    for name in ("structured", "plain", "map"):
        assert errors[name, "rmse"] == pytest.approx(load(runs[name]).metrics["rmse"], rel=1e-9)
    assert pd.read_csv(out / "runs.csv")["biases"].tolist() == ["on", "off", "on"]
    assert pd.read_csv(out / "runs.csv")["factors"].tolist() == [2, 2, 2]
    compare_module.main([*chosen, "--out", str(out), "--resamples", "20", "--draws", "2", "--overwrite"])
    with pytest.raises(InputError, match="other data"):
        compare(CompareOptions((chosen[0], str(runs["clicks"])), ""))


def test_a_run_that_ranks_is_not_compared_with_one_that_predicts(runs, tmp_path):
    import inference

    known = load(runs["structured"])
    options = {name: value for name, value in SMALL.items() if name != "sweeps"}
    inference.fit(known.dataset, known.split, **options, sweeps=1, out=tmp_path / "ranks")
    for order in ((runs["structured"], tmp_path / "ranks"), (tmp_path / "ranks", runs["structured"])):
        with pytest.raises(InputError, match="compare runs of explicit ratings with each other"):
            compare(CompareOptions(tuple(map(str, order)), ""))


def test_the_spread_of_v_leaves_biases_out(fit):
    q = fit.posterior
    table = shrinkage(q, np.zeros(fit.dataset.n_items, int), n_pairs=50)
    by_item = [float(q.covariance("v", j)[:2, :2].trace() / 2) ** 0.5 for j in range(fit.dataset.n_items)]
    assert table["sd_v"].iloc[0] == pytest.approx(np.median(by_item), rel=1e-9)


# --- report, calibration, recommend, tune ----------------------------------------------------------------------------


def test_the_report_has_errors_in_place_of_recall(runs, tmp_path):
    out = tmp_path / "report.html"
    report_module.main([str(runs["structured"]), str(runs["map"]), "--out", str(out), "--users", "2", "--draws", "20"])
    page = out.read_text()
    rmse = load(runs["structured"]).metrics["rmse"]
    assert f"{rmse:.3f}" in page and "RMSE of hot, warm and cold items" in page and "Has rated" in page
    assert "recall" not in page.lower() and "Corrected" not in page and "noise of standard deviation" in page
    assert "biases of precision 3" in page and "squared error by training ratings of the user" in page


def test_the_report_of_clicks_by_their_probabilities(runs, tmp_path):
    out = tmp_path / "report.html"
    report_module.main([str(runs["clicks"]), "--out", str(out), "--users", "1", "--draws", "20"])
    page = out.read_text()
    assert "recall@13" in page and "bernoulli-bound likelihood, biases of precision 3" in page
    assert "clipped score" not in page


def test_coverage_of_held_out_ratings_needs_no_truth(fit):
    found = coverage(fit, draws=400)
    assert list(found.pits) == ["held-out rating"]
    test, table = fit.split.test, by_hand(fit)
    c = np.where(np.isnan(test.confidences), 1.0, test.confidences / fit.split.train.weight_unit)
    noise = float(torch.exp(-fit.model.ratings.log_tau.detach()))
    sd = np.sqrt(table["sd"] ** 2 - noise + noise / c)
    q = fit.posterior
    mean = (q.u_loc[test.users.tolist()] * q.v_loc[test.items.tolist()]).sum(-1).numpy()
    inside = np.abs(test.ratings - mean) <= norm.ppf(0.95) * sd
    row = found.table.iloc[0]
    assert row["n_cells"] == len(test) and row["normal@90"] == pytest.approx(inside.mean(), rel=1e-12)
    assert abs(row["covered@90"] - row["normal@90"]) < 0.1


def test_what_ranks_is_refused_and_errors_are_correlated(fit, runs, tmp_path, capsys):
    with pytest.raises(InputError, match="predicted as numbers"):
        reliability(fit)
    found = error_correlation(fit, resamples=20)
    assert found.outcome == "held-out rating" and found.n_pairs == len(fit.split.test)
    mean, sd = fit.posterior.score(fit.split.test.users.tolist(), fit.split.test.items.tolist())
    from scipy.stats import spearmanr

    expected = spearmanr((fit.split.test.ratings - mean.numpy()) ** 2, sd.numpy()).statistic
    assert found.table["spearman"].iloc[0] == pytest.approx(expected, abs=1e-9)
    names = [str(runs[name]) for name in ("structured", "map", "plain")]
    calibration.main([*names, "--out", str(tmp_path), "--draws", "50", "--resamples", "20"])
    assert "held-out rating" in capsys.readouterr().out
    assert (tmp_path / "coverage.png").exists() and not (tmp_path / "reliability.csv").exists()


def test_clicks_have_the_models_own_probability(runs):
    fit = load(runs["clicks"])
    found = reliability(fit, top=5, reserve=0.4, resamples=20)
    assert "model's own" in found.scores.index and "clipped score" not in found.scores.index
    assert 0 < found.scores.loc["model's own", "mean"] < 1
    assert error_correlation(fit, resamples=20, reserve=0.3).outcome == "matched"


def test_lists_have_the_rating_and_its_interval(runs, fit):
    user = fit.dataset.user_ids[3]
    table = recommend(fit, [user], 5, interval=0.9)
    predicted = fit.predict([user] * 5, table["item"], 0.9)
    for name, column in {"rating": "mean", "rating_sd": "sd", "low": "low", "high": "high"}.items():
        np.testing.assert_allclose(table[name], predicted[column], rtol=1e-12)
    assert (table["rating_sd"] > table["sd"]).all()
    point = recommend(load(runs["map"]), [user], 5)
    np.testing.assert_allclose(point["rating_sd"], point["rating_sd"].iloc[0])
    assert "rating" not in recommend(load(runs["clicks"]), [load(runs["clicks"]).dataset.user_ids[0]], 3)


def test_intervals_of_predictions_have_the_level_that_is_asked(fit):
    pairs = [fit.dataset.user_ids[3]] * 4, fit.dataset.item_ids[:4]
    for level in (0.5, 0.95):
        found = fit.predict(*pairs, level=level)
        half = norm.ppf(0.5 + level / 2) * found["sd"]
        np.testing.assert_allclose(found["high"], found["mean"] + half, rtol=1e-6)
        np.testing.assert_allclose(found["low"], found["mean"] - half, rtol=1e-6)


def test_early_stopping_keeps_the_smallest_validation_rmse():
    how: dict[str, Any] = {"epochs": 40, "patience": 3, "validate_every": 1, "factor_learning_rate": 0.3}
    stopped = small_fit("stars by gradients", lambda_u=0.01, lambda_v=0.01, **how)
    errors = {row["epoch"]: row["validation_rmse"] for row in stopped.history if "validation_rmse" in row}
    best = min(errors, key=errors.__getitem__)
    assert 3 < best == stopped.metrics["best_epoch"] and len(stopped.history) == best + 3 < 42
    found = root_mean_square_error(stopped.posterior, stopped.split.validation, stopped.split.train)
    assert found == errors[best]


def test_tune_minimises_the_validation_rmse(monkeypatch):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = stars()
    from pyro_cvae.data.splits import held_out_cells, with_validation

    split = with_validation(held_out_cells(known, 0.25, 0), 0.2, 0)
    chosen = SMALL | KINDS["stars"] | {"validation": 0.2, "validate_every": 1}
    options = Options.of(**chosen)
    how = TuneOptions(method="coordinate", search=("lambda_v=0.01:1000:log",), trials=4, pruning=False)
    study = optuna.create_study(direction="minimize")
    seen: list[float] = []
    search(study, how, options, known, split, on_step=lambda k, n, row: seen.append(row.get("validation_rmse", 9)))
    best = ranked(study)
    assert [trial.value for trial in best] == sorted(trial.value for trial in study.trials)
    assert best[0].value < best[-1].value and set(best[0].user_attrs["recalls"]) == {"rmse"}
    assert min(abs(best[0].value - value) for value in seen) < 1e-12
    with pytest.raises(InputError, match="search with each by itself"):
        dimensions(("rating_likelihood=normal,poisson",), options)


def test_the_tune_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stars().save("stars")
    flags = "--split cells --validation 0.2 --rating-likelihood normal --factors 2 --hidden 8 --pretrain-epochs 1"
    flags += " --epochs 1 --threads 1 --quiet --trials 2 --search lambda_v=0.1:100:log --out best.yaml"
    tune_command(["coordinate", "--data", "stars", *flags.split()])
    storage = optuna.storages.RDBStorage("sqlite:///best.db")
    (study,) = optuna.get_all_study_summaries(storage)
    storage.remove_session()
    storage.engine.dispose()  # Python 3.13 warns of a connection that is left open
    assert study.direction.name == "MINIMIZE" and study.best_trial is not None
    assert "rmse" in capsys.readouterr().out
    assert f"# rmse {study.best_trial.value:.4f} on the validation part" in Path("best.yaml").read_text()


def test_a_stand_in_without_a_model_counts_positives():
    from analysis.over_users import predicts_ratings

    assert not predicts_ratings(SimpleNamespace(model=None))
