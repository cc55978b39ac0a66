"""The comparison of runs: every number against a second computation, what is refused, and what the folder holds."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import inference
from analysis.compare import CompareOptions, compare, main, shrinkage
from analysis.comparison import shrinkage as spread
from analysis.comparison import stability
from analysis.comparison.figures import draw
from analysis.comparison.intervals import bootstrap, intervals
from analysis.comparison.result import FIGURE, FRAMES
from analysis.comparison.runs import comparability
from analysis.comparison.shrinkage import ignores_content, item_sd
from analysis.comparison.stability import agreement, drawn_lists, some_users, top_lists
from analysis.comparison.tables import tables
from inference.evaluation.rankings import Evaluation, evaluate
from inference.evaluation.rivals import popularity, tfidf
from models.contents.product import Product
from pyro_cvae.data.content import Content
from pyro_cvae.data.interactions import pairs_matrix
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import per_user, with_validation
from pyro_cvae.errors import InputError
from pyro_cvae.whole import whole_folder

ROOT = Path(__file__).parents[2]
FILES = {*(f"{name}.csv" for name in FRAMES), FIGURE}
SIZES = {"n_users": 40, "n_items": 90, "n_words": 60, "n_factors": 3}
OPTIONS = {"factors": 3, "hidden": (6,), "train_per_user": 8, "lambda_u": 1.0, "pretrain_epochs": 2, "epochs": 3}
KINDS = {
    "map": {"method": "coordinate", "mode": "map", "sweeps": 2},
    "full": {"method": "coordinate", "mode": "bayes", "sweeps": 2},
    "structured": {"method": "coordinate", "mode": "bayes", "guide": "structured", "sweeps": 2, "dtype": "float64"},
    "svi": {"method": "svi", "mode": "bayes", "kl_weight": 0.5},
}


def dataset():
    return simulated(**SIZES, clicks_per_user=20.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of one data set and split, and two that may not stand beside them."""
    folder = tmp_path_factory.mktemp("runs")
    for name, chosen in KINDS.items():
        inference.fit(dataset(), **OPTIONS | chosen, out=folder / name)
    inference.fit(dataset(), **OPTIONS | {"split_seed": 1}, out=folder / "other-split")
    inference.fit(simulated(1, **SIZES, clicks_per_user=20.0), **OPTIONS, out=folder / "other-data")
    return folder


@pytest.fixture(scope="module")
def fits(folder):
    return {name: inference.load(folder / name) for name in KINDS}


def options(folder, *names, **changes):
    runs = tuple(str(folder / name) for name in names)
    return CompareOptions(runs, "unused", **{"cutoffs": (5, 20), "top": 10, "users": 15, "draws": 6} | changes)


@pytest.fixture(scope="module")
def comparison(folder):
    return compare(options(folder, *KINDS, rivals=True))


def test_rivals_have_all_the_contents_that_the_runs_read(tmp_path):
    whole = dataset()
    columns = [whole.content.counts[:, part] for part in (slice(0, 30), slice(30, None))]
    text, more = (Content(part) for part in columns)
    both = replace(whole, content=text, others={"more": more}, truth=None)
    for name, likelihood in {"of-both": Product(text="multinomial", more="multinomial"), "text": "multinomial"}.items():
        inference.fit(both, **OPTIONS | KINDS["map"] | {"content_likelihood": likelihood}, out=tmp_path / name)
    of_text, of_both, together = (
        compare(options(tmp_path, *names), rivals=["tfidf"]) for names in (["text"], ["of-both"], ["text", "of-both"])
    )
    assert "tfidf: of text, more, side by side." in of_both.notes and not any("tfidf" in n for n in of_text.notes)
    found = [one.evaluations["tfidf"].means() for one in (of_text, of_both, together)]
    split = per_user(both, OPTIONS["train_per_user"], 0)
    expected = evaluate(tfidf(both, split, ["text", "more"]), split, cutoffs=(5, 20)).means()
    assert found[1] == found[2] == expected and found[0] != expected


# --- metrics over users ----------------------------------------------------------------------------------------------


def test_means_and_paired_differences_are_those_of_brute_force():
    """With users that were spent on tuning, who are in no mean."""
    split = with_validation(per_user(dataset(), 1, 0), 0.3, 0)
    scores = torch.randn(2, SIZES["n_users"], SIZES["n_items"])
    found = {
        name: evaluate(lambda users, s=s: s[torch.as_tensor(users)], split, cutoffs=(5, 20))
        for name, s in zip(("first", "second"), scores, strict=True)
    }
    means, differences = intervals(found, 500, 0.9, 3)
    one, two = (found[name].per_user.set_index("user") for name in ("first", "second"))
    users = [user for user in one.index if not split.tuning_users[user]]
    assert 0 < len(users) < len(one)
    for metric in ("recall@5", "recall@20", "ndcg@100"):
        paired = [two.loc[user, metric] - one.loc[user, metric] for user in users]
        row = differences.set_index("metric").loc[metric]
        assert row["reference"] == "first" and row["model"] == "second"
        assert row["mean"] == pytest.approx(sum(paired) / len(users), rel=1e-12)
        assert row["se"] == pytest.approx(stats.sem(paired), rel=1e-12)
        assert row["better"] == sum(d > 0 for d in paired) / len(users)
        assert row["worse"] == sum(d < 0 for d in paired) / len(users)
        assert row["n_users"] == len(users)
        rng = np.random.default_rng(3)  # the same users drawn, averaged one sample after the other
        resampled = [np.mean(np.array(paired)[drawn]) for drawn in np.vstack(_draws(rng, 500, len(users)))]
        assert [row["low"], row["high"]] == pytest.approx(np.quantile(resampled, [0.05, 0.95]), rel=1e-12)
        mean = means[(means["model"] == "second") & (means["metric"] == metric)].iloc[0]
        assert mean["mean"] == pytest.approx(found["second"].means()[metric], rel=1e-12)
        assert mean["low"] < mean["mean"] < mean["high"]


def _draws(rng, n, n_users):
    return [rng.integers(n_users, size=(min(256, n - start), n_users)) for start in range(0, n, 256)]


@pytest.mark.statistical
def test_bootstrap_intervals_cover_as_they_should(failure_rate):
    """Of Normal values the percentile interval tends to mean ± z sqrt((n-1)/n) s / sqrt(n), whose coverage is known.

    t = (mean - truth) / (s / sqrt(n)) has n - 1 degrees of freedom. 2,000 intervals, each end by itself.
    """
    n_users, n_sets, level = 50, 2000, 0.9
    rng = np.random.default_rng(0)
    ends = [bootstrap(rng.normal(2.0, 3.0, (n_users, 20)), 4000, level, seed) for seed in range(n_sets // 20)]
    low, high = (np.concatenate(side) for side in zip(*ends, strict=True))
    miss = stats.t.sf(stats.norm.ppf(0.5 + level / 2) * ((n_users - 1) / n_users) ** 0.5, n_users - 1)
    bound = stats.norm.isf(failure_rate / 4) * (miss * (1 - miss) / n_sets) ** 0.5
    assert abs((low > 2.0).mean() - miss) < bound
    assert abs((high < 2.0).mean() - miss) < bound


def test_one_user_has_no_standard_error():
    frame = pd.DataFrame({"user": [0], "tuning": [False], "recall@5": [0.5]})
    one = Evaluation("corrected", frame, pd.DataFrame(), ("recall@5",))
    means, differences = intervals({"a": one, "b": one}, 10)
    assert np.isnan(differences["se"]).all() and (means["low"] == 0.5).all()


# --- spread by ratings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["full", "structured", "svi"])
def test_spread_by_ratings_is_that_of_the_covariances(fits, name):
    posterior = fits[name].posterior
    ratings = np.bincount(fits[name].split.train.items, minlength=SIZES["n_items"])
    table = shrinkage(posterior, ratings).set_index("from")
    assert table["n_items"].sum() == SIZES["n_items"]
    expected = np.array([torch.trace(posterior.covariance("v", j)).item() / 3 for j in range(SIZES["n_items"])]) ** 0.5
    for low, high in ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15)):
        items = [j for j in range(SIZES["n_items"]) if low <= ratings[j] <= high]
        if not items:
            assert low not in table.index
            continue
        row = table.loc[low]
        assert row["n_items"] == len(items) and row["to"] == max(ratings[j] for j in items)
        quantiles = np.quantile(expected[items], [0.1, 0.5, 0.9])
        assert [row["sd_v_q10"], row["sd_v"], row["sd_v_q90"]] == pytest.approx(quantiles, rel=1e-5)
    assert {0, 1, 4} <= set(table.index)


def test_spread_of_scores_is_the_formula(fits):
    """One user and one item a bin, so that every pair of the bin is the same pair."""
    fit = fits["structured"]
    items = [3, 7]
    part = fit.posterior.select(users=[5], items=items)
    table = shrinkage(part, np.array([0, 20]), n_pairs=4)
    u, s_u = fit.posterior.u_loc[5], fit.posterior.covariance("u", 5)
    for row, item in zip(table.itertuples(), items, strict=True):
        v, s_v = fit.posterior.v_loc[item], fit.posterior.covariance("v", item)
        variance = (u @ s_v @ u + v @ s_u @ v + (s_u * s_v).sum()).item()
        assert row.sd_score == pytest.approx(variance**0.5, rel=1e-10)
        assert row.item_share == pytest.approx(1 - (v @ s_u @ v).item() / variance, rel=1e-10)


def test_under_mean_field_the_spread_knows_nothing_of_the_text(fits, monkeypatch):
    """What the figure warns of: all cold items are alike in it; and blocks do not change the numbers."""
    ratings = np.bincount(fits["svi"].split.train.items, minlength=SIZES["n_items"])
    cold = ratings == 0
    for name in ("full", "svi"):
        assert ignores_content(fits[name].posterior)
        np.testing.assert_allclose(item_sd(fits[name].posterior)[cold], fits[name].model.lambda_v ** -0.5, rtol=1e-6)
    structured = fits["structured"].posterior
    assert not ignores_content(structured)
    whole = item_sd(structured)
    assert whole[cold].std() > 1e-4
    monkeypatch.setattr(spread, "FLOATS_AT_ONCE", 40)
    np.testing.assert_array_equal(item_sd(structured), whole)


def test_a_point_has_no_spread(fits, folder):
    with pytest.raises(InputError, match="--mode bayes"):
        shrinkage(fits["map"].posterior, np.zeros(SIZES["n_items"]))
    alone = compare(options(folder, "map"))
    assert len(alone.shrinkage) == len(alone.differences) == len(alone.stability) == 0
    assert any("map: a point estimate" in note and "--mode bayes" in note for note in alone.notes)
    assert draw(alone) is not None and len(tables(alone)) > 2


# --- stability -------------------------------------------------------------------------------------------------------


def test_agreement_is_that_of_sets_and_of_kendalltau():
    generator = np.random.default_rng(0)
    first, second = (torch.as_tensor(np.stack([generator.permutation(12)[:7] for _ in range(300)])) for _ in range(2))
    first[0], second[0] = torch.arange(7), torch.arange(7)
    first[1], second[1] = torch.arange(7), torch.arange(6, -1, -1)
    first[2], second[2] = torch.arange(7), torch.tensor([0, 7, 8, 9, 10, 11, -1])
    first[3], second[3] = torch.tensor([4, 5, 6, -1, -1, -1, -1]), torch.tensor([5, 4, 9, -1, -1, -1, -1])
    overlap, tau = agreement(first, second)
    assert tau[:2].tolist() == [1.0, -1.0] and np.isnan(tau[2]) and overlap[2] == 1 / 7
    assert overlap[3] == 2 / 3 and tau[3] == -1.0
    for i in range(4, 300):
        a, b = first[i].tolist(), second[i].tolist()
        common = [item for item in a if item in b]
        assert overlap[i] == pytest.approx(len(common) / 7)
        if len(common) > 1:
            expected = stats.kendalltau([a.index(j) for j in common], [b.index(j) for j in common]).statistic
            assert tau[i] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["full", "structured", "svi"])
def test_lists_of_means_and_draws_are_those_of_brute_force(fits, name, monkeypatch):
    fit = fits[name]
    users = np.array([3, 9, 31])
    known = pairs_matrix(fit.split.train)[users]
    monkeypatch.setattr(stability, "FLOATS_AT_ONCE", 8 * fit.posterior.v_loc.numel())
    lists = drawn_lists(fit.posterior, users, known, 10, 5, seed=4)
    draws = list(fit.posterior.select(users=users).draws(5, 4, 2))
    u, v = (torch.cat([part[side] for part in draws]) for side in "uv")
    scores = torch.cat([(fit.posterior.u_loc[users] @ fit.posterior.v_loc.mT)[None], u @ v.mT])
    found = [top_lists(fit.posterior.score_block, users, known, 10, block_size=2), *lists]
    assert len(found) == 6
    for mine, score in zip(found, scores, strict=True):
        for row, user in enumerate(users):
            seen = set(fit.split.train.items[fit.split.train.users == user])
            best = [j for j in np.argsort(-score[row].numpy()) if j not in seen][:10]
            assert mine[row].tolist() == best
    assert not torch.equal(lists[0], lists[1])


def test_a_list_ends_where_the_candidates_do(fits):
    split = fits["map"].split
    known = pairs_matrix(split.train)[[0]]
    found = top_lists(fits["map"].posterior.score_block, np.array([0]), known, 200)
    assert found.shape == (1, 90)
    assert set(found[0].tolist()) == {-1, *range(90)} - set(split.train.items[split.train.users == 0])
    assert (found[0] == -1).sum() == 8


def test_users_are_headline_users_and_the_seed_chooses_them():
    split = with_validation(per_user(dataset(), 1, 0), 0.3, 0)
    found = evaluate(popularity(dataset(), split), split)
    assert not split.tuning_users[some_users(found, 1000, 0)].any()
    assert len(some_users(found, 5, 0)) == 5
    assert some_users(found, 5, 0).tolist() == some_users(found, 5, 0).tolist() != some_users(found, 5, 1).tolist()


# --- the whole -------------------------------------------------------------------------------------------------------


def test_a_comparison_has_every_number(comparison, fits):
    assert comparison.runs["model"].tolist() == list(KINDS)
    for name, fit in fits.items():
        means = comparison.recall[comparison.recall["model"] == name].set_index("metric")["mean"]
        expected = evaluate(fit.posterior.score_block, fit.split, cutoffs=(5, 20)).means()
        assert means.to_dict() == pytest.approx(expected, rel=1e-12)
        row = comparison.runs.set_index("model").loc[name]
        assert row["value"] == fit.history[-1][row["objective"]]
        assert row["seconds"] == pytest.approx(sum(epoch["seconds"] for epoch in fit.history))
    assert set(comparison.shrinkage["model"]) == {"full", "structured", "svi"}
    assert comparison.shrinkage.groupby("model")["artefact"].first().to_dict() == {
        "full": True,
        "structured": False,
        "svi": True,
    }
    pairs = set(zip(comparison.stability["first"], comparison.stability["second"], strict=True))
    assert {("full", "between its draws"), ("svi", "its posterior draws"), ("map", "full")} <= pairs
    assert ("map", "between its draws") not in pairs
    assert {"popularity", "tfidf", "als"} <= set(comparison.recall["model"])
    assert comparison.differences["reference"].unique().tolist() == ["map"]
    assert comparison.stability["overlap"].between(0, 1).all()


def test_stability_of_draws_is_that_of_brute_force(comparison, fits):
    """Six draws: three pairs of far apart ones, and each with the means."""
    fit = fits["full"]
    users = some_users(evaluate(fit.posterior.score_block, fit.split), 15, 0)
    known = pairs_matrix(fit.split.train)[users]
    lists = [set(row) for part in drawn_lists(fit.posterior, users, known, 10, 6, 0) for row in part.tolist()]
    means = [set(row) for row in top_lists(fit.posterior.score_block, users, known, 10).tolist()]
    drawn = [lists[15 * k : 15 * (k + 1)] for k in range(6)]
    shares = {
        "between its draws": [len(a & b) / 10 for k in range(3) for a, b in zip(drawn[k], drawn[k + 3], strict=True)],
        "its posterior draws": [len(a & b) / 10 for k in range(6) for a, b in zip(drawn[k], means, strict=True)],
    }
    found = comparison.stability[comparison.stability["first"] == "full"].set_index("second")
    for second, values in shares.items():
        by_user = np.array(values).reshape(-1, 15).mean(0)
        assert found.loc[second, "overlap"] == pytest.approx(by_user.mean(), rel=1e-12)
        assert found.loc[second, "overlap_se"] == pytest.approx(stats.sem(by_user), rel=1e-12)


def test_the_two_objectives_share_neither_column_nor_axis(comparison):
    runs = comparison.runs.set_index("model")
    assert runs["objective"].to_dict() == {"map": "map_objective", "full": "elbo", "structured": "elbo", "svi": "elbo"}
    assert runs["tempered"].to_dict() == {"map": False, "full": False, "structured": False, "svi": True}
    fits_table = tables(comparison)[1]
    cells = dict(zip(fits_table.columns, zip(*fits_table.rows, strict=True), strict=True))
    assert [bool(cell) for cell in cells["MAP objective, nats"]] == [True, False, False, False]
    assert [bool(cell) for cell in cells["ELBO, nats"]] == [False, True, True, True]
    assert [cell.endswith("(tempered)") for cell in cells["ELBO, nats"]] == [False, False, False, True]
    shown = {}
    for axes in draw(comparison).axes:
        shown.setdefault(axes.get_ylabel(), []).append([line.get_label() for line in axes.get_lines()])
    assert shown["MAP objective, nats"] == [["map"]]
    assert shown["ELBO, nats"] == [["full", "structured", "svi (tempered)"]]
    (labels,) = shown["posterior sd of v (root mean square over factors)"]
    assert labels == ["full: artefact of mean field", "structured", "svi: artefact of mean field"]


def test_objectives_of_different_things_are_named(comparison):
    runs = comparison.runs.copy()
    assert any("svi: a tempered fit" in note for note in comparability(runs))
    assert any("MAP objective and ELBO are different numbers" in note for note in comparability(runs))
    runs.loc[1, "content"] = "bernoulli"
    assert any("the runs differ in content" in note for note in comparability(runs))


def test_runs_of_other_data_or_splits_are_refused(folder):
    for name, what in (("other-split", "another split"), ("other-data", "other data")):
        with pytest.raises(InputError, match=f"{name}: was fitted to {what} than .*map"):
            compare(options(folder, "map", name))
    with pytest.raises(InputError, match="is given twice"):
        compare(options(folder, "map", "map"))


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"cutoffs": ()}, "--cutoffs"),
        ({"level": 1.0}, "--level"),
        ({"draws": 1}, "--draws"),
        ({"top": 0}, "--top"),
        ({"block_size": 0}, "--block-size"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_wrong_options_are_refused(changes, flag):
    with pytest.raises(InputError, match=flag):
        CompareOptions(("run",), "out", **changes)


# --- the command and its folder --------------------------------------------------------------------------------------


@pytest.fixture
def call(answer):
    return partial(answer, main)


SMALL = ("--cutoffs", "5", "20", "--users", "10", "--draws", "4", "--resamples", "200")


def test_the_command_leaves_tables_and_figure(folder, tmp_path, call):
    out = tmp_path / "compared"
    code, said, err = call(folder / "map", folder / "structured", "--out", out, *SMALL)
    assert (code, err) == (0, "")
    assert {entry.name for entry in out.iterdir()} == FILES
    assert [entry.name for entry in tmp_path.iterdir()] == ["compared"]
    assert "corrected protocol, 40 users" in said and "Difference to map" in said
    expected = compare(options(folder, "map", "structured", users=10, draws=4, resamples=200, top=50))
    for name in ("recall", "differences", "stability"):
        pd.testing.assert_frame_equal(pd.read_csv(out / f"{name}.csv"), getattr(expected, name))
    before = {entry.name: entry.read_bytes() for entry in out.iterdir()}
    code, said, err = call(folder / "map", "--out", out, *SMALL)
    assert code == 2 and "exists already" in err and "--overwrite" in err and len(err.splitlines()) == 1
    assert {entry.name: entry.read_bytes() for entry in out.iterdir()} == before
    assert call(folder / "map", "--out", out, "--overwrite", *SMALL)[0] == 0
    assert (pd.read_csv(out / "runs.csv")["model"] == "map").all()


def test_a_failure_leaves_what_was_there(folder, tmp_path, call):
    out = tmp_path / "compared"
    assert call(folder / "map", "--out", out, *SMALL)[0] == 0
    before = {entry.name: entry.read_bytes() for entry in out.iterdir()}
    code, _, err = call(folder / "map", folder / "other-split", "--out", out, "--overwrite", *SMALL)
    assert code == 2 and "another split" in err and len(err.splitlines()) == 1
    assert {entry.name: entry.read_bytes() for entry in out.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["compared"]
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "new", False, ()):
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["compared"]


def test_a_folder_of_something_else_is_never_replaced(folder, tmp_path, call):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for out in (tmp_path / "mine", folder / "map", tmp_path / "mine" / "thesis.tex"):
        code, _, err = call(folder / "map", "--out", out, "--overwrite", *SMALL)
        assert code == 2 and "not a folder of this command" in err
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"
    code, _, err = call(folder / "map", "--out", tmp_path / "none" / "out", *SMALL)
    assert code == 2 and "no such folder" in err


def test_names_are_shown_as_they_are(folder, tmp_path, call):
    """Names that rich and matplotlib would read as their own language."""
    strange = tmp_path / "_[red]$x_1$[b]"
    strange.symlink_to(folder / "full")
    code, said, _ = call(folder / "map", strange, "--out", tmp_path / "out", *SMALL)
    assert code == 0 and "_[red]$x_1$[b]" in said


def test_help_answers_without_torch():
    code = (
        "import sys; from analysis.compare import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip().endswith("False") and "--rivals" in done.stdout


def test_without_a_folder_the_tables_are_printed_and_nothing_is_written(folder, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said, err = call(folder / "map", folder / "structured", *SMALL)
    assert (code, err) == (0, "")
    assert "corrected protocol, 40 users" in said
    assert "Difference to map" in said
    code, said, _ = call(folder / "map", folder / "structured", *SMALL, "--format", "json")
    expected = compare(options(folder, "map", "structured", users=10, draws=4, resamples=200, top=50))
    assert code == 0
    pd.testing.assert_frame_equal(pd.DataFrame(json.loads(said)["recall"]), expected.recall, check_dtype=False)
    assert list(tmp_path.iterdir()) == []
