"""The command: what it prints and writes, what it refuses, and what it finds on real data."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

import inference
from analysis.calibration import coverage, error_correlation, main, reliability
from analysis.error_correlation import _rank_correlations
from analysis.recalibration import Recalibration
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.simulated import simulated, simulated_gaussian, simulated_stars

OPTIONS = {"factors": 3, "hidden": (6,), "pretrain_epochs": 1, "epochs": 1, "sweeps": 4, "method": "coordinate"}
GAUSSIAN = {"a": 1.0, "b": 0.01, "lambda_u": 1.0, "lambda_v": 10.0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    gaussian = simulated_gaussian(n_users=25, n_items=30, n_words=40, n_factors=3)
    clicks = simulated(n_users=80, n_items=60, n_words=40, n_factors=3, clicks_per_user=20.0)
    for mode, changes in (("map", {"mode": "map"}), ("full", {})):
        inference.fit(gaussian, **OPTIONS | GAUSSIAN | changes, out=folder / f"gaussian-{mode}")
        inference.fit(clicks, **OPTIONS | changes, train_per_user=6, lambda_u=10.0, out=folder / f"clicks-{mode}")
    return folder


@pytest.fixture
def call(answer):
    return partial(answer, main)


QUICK = ("--draws", 50, "--resamples", 50, "--top", 10, "--reserve", 0.3)


def test_all_runs_in_one_folder(runs, call, tmp_path):
    """Both kinds of data, with and without uncertainty: tables, figures, recalibrations that can be used."""
    names = ("gaussian-map", "gaussian-full", "clicks-map", "clicks-full")
    out = tmp_path / "made" / "calibration"
    code, said, error = call(*(runs / name for name in names), "--out", out, *QUICK)
    assert (code, error) == (0, "")
    assert all(name in said for name in names) and "no uncertainty" in said and "PIT p" in said
    tables = ("coverage", "reliability", "reliability-bins", "reliability-groups", "candidates", "error-correlation")
    files = {"coverage.png", "reliability.png", *(f"{table}.csv" for table in tables)}
    assert {path.name for path in out.iterdir()} == files | {
        "recalibration-clicks-map.json",
        "recalibration-clicks-full.json",
    }
    coverage = pd.read_csv(out / "coverage.csv")
    assert coverage.loc[coverage["run"] == "gaussian-map", "covered@90"].isna().all()
    assert coverage.loc[coverage["run"] == "gaussian-full", "covered@90"].between(0, 1).all()
    assert (out / "coverage.png").read_bytes().startswith(b"\x89PNG")

    fit = inference.load(runs / "clicks-full")
    found = reliability(fit, top=10, reserve=0.3, resamples=50)
    stored = Recalibration.from_json(json.loads((out / "recalibration-clicks-full.json").read_text()))
    assert stored == found.recalibration
    kept = pd.read_csv(out / "reliability.csv").set_index(["run", "prediction"])
    for prediction, row in found.scores.iterrows():
        assert kept.loc[("clicks-full", prediction), "brier"] == pytest.approx(row["brier"], rel=1e-12)

    before = (out / "recalibration-clicks-full.json").read_bytes()
    assert call(runs / "clicks-full", "--out", out, *QUICK)[0] == 0
    assert before == (out / "recalibration-clicks-full.json").read_bytes()
    assert set(pd.read_csv(out / "reliability.csv")["run"]) == {"clicks-full"}


def test_runs_of_one_name_are_told_apart_by_their_paths(runs, call, tmp_path):
    run = runs / "clicks-map"
    other = tmp_path / "clicks-map"
    other.symlink_to(run)
    code, _, error = call(run, other, "--out", tmp_path / "out", *QUICK)
    assert (code, error) == (0, "")
    assert set(pd.read_csv(tmp_path / "out" / "reliability.csv")["run"]) == {str(run), str(other)}
    assert len(list((tmp_path / "out").glob("recalibration-*.json"))) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--top", 0), "--top is 0"),
        (("--reserve", 1), "--reserve is 1"),
        (("--draws", 5), "--draws is 5"),
        (("--bins", 1), "--bins is 1"),
        (("--threads", 0), "--threads is 0"),
        (("--seed", -1), "--seed is -1"),
    ],
)
def test_wrong_options_are_one_line_and_leave_nothing(runs, call, tmp_path, words, said):
    code, out, error = call(runs / "clicks-map", "--out", tmp_path / "out", *words)
    assert code == 2 and out == "" and said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_asked_names_the_run(runs, call, tmp_path):
    """A run that is not there, a folder that is a file, lists without a hit."""
    assert "no such run folder" in call(tmp_path / "none", "--out", tmp_path / "out")[2]
    (tmp_path / "file").write_text("")
    code, _, error = call(runs / "clicks-map", "--out", tmp_path / "file")
    assert code == 2 and "--out is a file" in error
    code, _, error = call(runs / "clicks-map", "--out", tmp_path / "out", "--reserve", 0.99999)
    assert code == 2 and str(runs / "clicks-map") in error and "held-out positives" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.realdata
def test_probabilities_on_citeulike_t_come_true(data_folder):
    """Recalibrated on a tenth of the users: error below 0.01, better than the base rate and than popularity.

    Raw probabilities are far off. sd adds next to nothing to the skill, and the rank correlation of squared error with
    sd given score and popularity is small: what docs/calibration.md says.
    """
    folder = data_folder / "citeulike-t"
    sizes = {"factors": 50, "hidden": (50,), "radius": 9.0, "epochs": 0}
    precisions = {"lambda_u": 40_000.0, "lambda_v": 1.2, "a": 100.0, "b": 0.7, "tune": 0}
    fit = inference.fit(
        load_dataset(folder),
        method="coordinate",
        preset="best",
        mode="bayes",
        diagonal=True,
        train_file=str(folder / "cf-train-10-users.dat"),
        **sizes,
        **precisions,
    )
    found = reliability(fit, "diagonal", resamples=200)
    row, raw = found.scores.loc["recalibrated"], found.scores.loc[["clipped score", "weights undone"]]
    assert row["calibration_error"] <= 0.01
    assert (raw["calibration_error"] > 0.05).all() and (raw["skill"] < 0).all()
    assert row["skill_low"] > 0 and row["skill_over_popularity_low"] > 0
    assert abs(found.sd_gain.value) < 0.005
    assert found.n_reserved == 260 and found.n_users == 2338
    correlation = error_correlation(fit, "diagonal", resamples=200)
    first = correlation.table.iloc[0]
    assert correlation.n_unmatched < 0.01 * correlation.n_pairs
    assert abs(first["partial"]) < 0.1 and np.isfinite([first["partial_low"], first["partial_high"]]).all()


def test_users_without_training_pairs_are_asked_as_they_are_told():
    """Their intervals are those of the average user, which predictions and metrics have, too."""
    stars = replace(simulated_stars(n_users=40, n_items=30, n_words=40), truth=None)
    pairs = stars.interactions
    stars = replace(stars, interactions=replace(pairs, times=pairs.users.astype(float)))
    given = {"factors": 2, "hidden": (5,), "pretrain_epochs": 1, "epochs": 1, "split": "time", "quiet": True}
    fit = inference.fit(stars, method="coordinate", rating_likelihood="normal", threads=1, **given)
    assert (fit.split.train.user_counts[fit.split.test.users] == 0).all()
    found = coverage(fit, draws=50).table.set_index("by").loc["all"]
    for percent in ("50", "90"):
        assert found[f"normal@{percent}"] == pytest.approx(fit.metrics[f"coverage@{percent}"], abs=1e-9)


def test_scores_that_do_not_vary_have_correlations_without_a_warning():
    """As those of unrated items in a model without contents."""
    some, users = np.random.default_rng(0).random((2, 60)), np.repeat(np.arange(6), 10)
    for interval in _rank_correlations(*some, np.zeros(60), np.zeros(60, int), users, 20, 0):
        assert interval.value == pytest.approx(np.corrcoef(rankdata(some[0]), rankdata(some[1]))[0, 1])
