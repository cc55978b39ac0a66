"""What a score is worth by group of items: against brute force over all pairs, and where groups are known to differ."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from analysis.diagnostics import diagnose
from analysis.page.tables import slope_table
from analysis.soundness.diagnosis import write
from analysis.soundness.slopes import slopes
from pyro_cvae.data.simulated import simulated, simulated_stars
from pyro_cvae.data.splits import GROUPS, item_groups, per_user

SIZES = {"n_users": 60, "n_items": 150, "n_words": 60, "n_factors": 3}
OPTIONS = {"factors": 3, "hidden": (6,), "lambda_u": 1.0, "pretrain_epochs": 2, "epochs": 0, "sweeps": 2}
KINDS = {
    "map": {"method": "coordinate", "mode": "map", "train_per_user": 3},
    "bayes": {"method": "coordinate", "mode": "bayes", "train_per_user": 3},
    "validation": {"method": "coordinate", "mode": "map", "train_per_user": 6, "validation": 0.2},
    "tuning users": {"method": "coordinate", "mode": "map", "train_per_user": 1, "validation": 0.2},
    "scaled": {"method": "coordinate", "mode": "map", "train_per_user": 3, "cold_scale": 1.5},
}


@pytest.fixture(scope="module", params=KINDS)
def fit(request):
    return inference.fit(simulated(**SIZES, clicks_per_user=16.0), **OPTIONS | KINDS[request.param])


def brute_force(fit, top):
    """The same with one matrix of all users and items."""
    split, scores = fit.split, (fit.posterior.u.loc @ fit.posterior.v.loc.mT).double().numpy()
    test = split.test.csr().toarray() > 0
    known = split.train.csr().toarray() > 0
    if split.validation is not None:
        known |= split.validation.csr().toarray() > 0
    known &= ~test
    users = test.any(1)
    if split.tuning_users is not None:
        users &= ~split.tuning_users
    there = ~split.train.csr().toarray().any(1)
    scores[there] = scores[~there].mean(0)
    order = np.argsort(-np.where(known, -np.inf, scores), 1, kind="stable")[:, :top]
    listed = np.zeros_like(known)
    np.put_along_axis(listed, order, True, 1)
    listed &= ~known
    rows, groups = {}, item_groups(split.train)
    for index, name in enumerate(GROUPS):
        cells = (users[:, None] & (groups == index)[None]) & ~known
        s, r = np.where(cells, scores, 0), (cells & test).astype(float)
        slope = (s * r).sum() / (s * s).sum()
        error = np.sqrt((((s * r) - slope * s * s).sum(1) ** 2).sum()) / (s * s).sum()
        shown = listed & cells
        share = shown.sum() / (listed & users[:, None]).sum()
        rows[name] = {"n_pairs": r.sum(), "slope": slope, "standard_error": error, "listed": share}
        rows[name]["hit"] = (shown & test).sum() / shown.sum()
    return pd.DataFrame.from_dict(rows, orient="index")


def test_the_sums_over_all_pairs_are_those_of_brute_force(fit):
    found, expected = slopes(fit, top=20), brute_force(fit, 20)
    assert list(found.index) == list(expected.index)
    for column in expected:
        np.testing.assert_allclose(found[column], expected[column], rtol=2e-5, err_msg=column)


def test_scores_of_cold_items_that_are_twice_as_large_have_half_the_slope():
    data = simulated(**SIZES, clicks_per_user=16.0)
    options = OPTIONS | KINDS["map"]
    once, twice = (slopes(inference.fit(data, **options, cold_scale=c), top=20) for c in (1.0, 2.0))
    assert once["scale"].tolist() == [1, 1, 1] and twice["scale"].tolist() == [1, 1, 2]
    assert twice.loc["cold", "slope"] == pytest.approx(once.loc["cold", "slope"] / 2, rel=1e-5)
    assert twice.loc["hot", "slope"] == once.loc["hot", "slope"]
    assert twice.loc["cold", "listed"] > once.loc["cold", "listed"]


def test_true_scores_of_ratings_with_noise_have_slope_one():
    """R = u.v plus noise that knows nothing: within three standard errors in at least 19 of 20 simulations."""
    rng, right = np.random.default_rng(0), 0
    data = simulated(**SIZES, clicks_per_user=16.0)
    fit = inference.fit(data, **OPTIONS | KINDS["map"])
    split = per_user(data, 3, 0)
    for _ in range(20):
        u, v = rng.uniform(0.2, 0.8, (60, 3)), rng.uniform(0.2, 0.8, (150, 3))
        chance = u @ v.T / 2
        chosen = (rng.random(chance.shape) < chance) & (split.train.csr().toarray() == 0)
        users, items = chosen.nonzero()
        test = replace(split.test, users=users, items=items, ratings=np.ones(len(users)), times=None, confidences=None)
        halves = replace(
            fit.posterior,
            u=replace(fit.posterior.u, loc=torch.from_numpy(u)),
            v=replace(fit.posterior.v, loc=torch.from_numpy(v / 2)),
        )
        found = slopes(replace(fit, posterior=halves, split=replace(split, test=test)))
        right += bool(((found["slope"] - 1).abs() < 3 * found["standard_error"]).all())
    assert right >= 19


def test_diagnostics_say_it_and_leave_explicit_ratings_out(fit, tmp_path):
    found = diagnose(fit, n_users=5, draws=100, check_users=5, check_texts=5, check_draws=10)
    row = found.summary.set_index("what").loc["cold items: slope"]
    table = found.slopes.loc["cold"]
    assert row["value"] == f"{table['slope']:.3g} ± {table['standard_error']:.1g}"
    assert ("content counts 1.50 times" in row["note"]) == (table["scale"] == 1.5)
    stored = pd.read_csv(write(found, tmp_path / "out") / "slopes.csv", index_col="group")
    pd.testing.assert_frame_equal(stored, found.slopes, check_dtype=False)


def test_nothing_is_said_of_stars_and_where_nothing_is_held_out():
    small = {"n_users": 5, "draws": 100, "check_users": 5, "check_texts": 5, "check_draws": 10}
    plain = {"method": "coordinate", "mode": "map"}
    stars = inference.fit(
        simulated_stars(n_users=30, n_items=50, n_words=40), **OPTIONS, rating_likelihood="normal", **plain
    )
    whole = inference.fit(simulated(**SIZES), **OPTIONS, **plain, split="none")
    assert diagnose(stars, **small).slopes is None and diagnose(whole, **small).slopes is None


def test_items_that_nobody_is_shown_and_scores_of_nothing_are_told_by_a_dash():
    """Without content the cold items of a matrix factorisation all score 0."""
    fit = inference.fit(
        simulated(**SIZES, clicks_per_user=16.0), method="coordinate", mode="map", model="pmf", factors=3,
        lambda_u=1.0, lambda_v=1.0, sweeps=2, train_per_user=3,
    )  # fmt: skip
    found = slopes(fit, top=10)
    assert np.isnan(found.loc["cold", "slope"]) and np.isfinite(found.loc["hot", "slope"])
    table = slope_table({"pmf": {"slopes": found}})
    cells = {row["what"]: dict(zip(table["head"], row["cells"], strict=True)) for row in table["rows"]}
    assert cells["slope"]["cold"] == "-" and "nan" not in str(table)
    assert (cells["listed"]["cold"] == "-") == (found.loc["cold", "listed"] == 0)
