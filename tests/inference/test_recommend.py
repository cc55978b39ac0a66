"""Recommendations: the ranking, what is left out of it, its uncertainty, and the command."""

import csv
import io
import json
import shlex
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.fit_command import _report
from inference.recommend import main
from inference.recommending import add_items, compare_items, fold_in, recommend, similar_items
from inference.recommending.ranking import (
    Candidates,
    _shares,
    above_probabilities,
    best_items,
    score_sds,
    thompson_scores,
    top_probabilities,
)
from pyro_cvae.data.frames import from_frames
from pyro_cvae.errors import InputError, run_command

N_USERS, N_ITEMS, N_COLD = 12, 30, 4
WORDS = ("comet", "nebula", "sail", "mast", "oven", "pastry", "lemma", "proof")
OPTIONS = {"factors": 3, "hidden": (6,), "train_per_user": 5, "lambda_u": 1.0, "pretrain_epochs": 2, "epochs": 4}


def make_dataset(text_ids=True):
    rng = np.random.default_rng(0)
    user_of, item_of = (lambda n: f"user-{n}", lambda n: f"item-{n}") if text_ids else (lambda n: 7 * n, lambda n: -n)
    pairs = [(u, j) for u in range(N_USERS) for j in rng.choice(N_ITEMS - N_COLD, 9, replace=False)]
    return from_frames(
        {"user": [user_of(u) for u, _ in pairs], "item": [item_of(int(j)) for _, j in pairs]},
        {
            "item": [item_of(j) for j in range(N_ITEMS)],
            "text": [" ".join(rng.choice(WORDS, 7)) for _ in range(N_ITEMS)],
            "title": [f"[red]title {j}[/] [/nothing] \\" for j in range(N_ITEMS)],
        },
        name="[bold]small[/x]",
    )


@pytest.fixture(scope="module")
def fits():
    dataset = make_dataset()
    kinds = {"map": {"mode": "map"}, "mean-field": {}, "structured": {"guide": "structured"}}
    kinds |= {"full": {"method": "coordinate"}, "both": {"method": "coordinate", "guide": "structured"}}
    return {kind: inference.fit(dataset, **OPTIONS | chosen) for kind, chosen in kinds.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    inference.fit(make_dataset(), **OPTIONS, out=out)
    return out


@pytest.fixture
def call(monkeypatch, answer):
    monkeypatch.setenv("COLUMNS", "160")
    return partial(answer, main)


def brute_force(fit, user, top, left_out):
    """The best items of a user by numpy in float64, as (ids, scores)."""
    row = fit.dataset.user_ids.tolist().index(user)
    u, v = fit.posterior.u_loc.double().numpy(), fit.posterior.v_loc.double().numpy()
    scores = v @ u[row]
    order = [j for j in np.argsort(-scores) if fit.dataset.item_ids[j] not in left_out][:top]
    return [fit.dataset.item_ids[j] for j in order], scores[order]


def seen_by(fit, user):
    """All that a user is known to have chosen, in training or test."""
    row, pairs = fit.dataset.user_ids.tolist().index(user), fit.dataset.interactions
    return set(fit.dataset.item_ids[pairs.items[pairs.users == row]])


@pytest.mark.parametrize("kind", ["map", "mean-field", "structured"])
def test_the_ranking_is_that_of_brute_force_without_known_items(fits, kind):
    fit = fits[kind]
    users = [f"user-{n}" for n in (3, 0, 11)]
    table = recommend(fit, users, 7, block_size=2)
    assert table["user"].tolist() == [user for user in users for _ in range(7)]
    for user in users:
        mine = table[table["user"] == user]
        assert len(seen_by(fit, user)) == 9
        items, scores = brute_force(fit, user, 7, seen_by(fit, user))
        assert mine["item"].tolist() == items
        assert mine["rank"].tolist() == [*range(1, 8)]
        np.testing.assert_allclose(mine["score"], scores, rtol=1e-5, atol=1e-6)
        kept = recommend(fit, [user], 7, keep_seen=True)
        assert kept["item"].tolist() == brute_force(fit, user, 7, ())[0]


def test_a_list_longer_than_the_catalogue_ends_with_it(fits):
    fit = fits["mean-field"]
    table = recommend(fit, ["user-0"], 1000)
    assert set(table["item"]) == set(fit.dataset.item_ids) - seen_by(fit, "user-0")
    assert np.isfinite(table["score"]).all() and np.isfinite(table["sd"]).all()
    assert len(recommend(fit, ["user-0"], 1000, keep_seen=True)) == N_ITEMS


def test_candidates_and_exclusions(fits):
    fit = fits["mean-field"]
    candidates = {f"item-{n}" for n in (1, 2, 5, 8, 28, 29)}
    others = set(fit.dataset.item_ids) - candidates
    for exclude in ((), ("item-2", "item-29", "item-7")):
        table = recommend(fit, ["user-4"], 10, candidates=candidates, exclude=exclude, keep_seen=True)
        assert table["item"].tolist() == brute_force(fit, "user-4", 10, others | set(exclude))[0]
    with pytest.raises(InputError, match="no item is left"):
        recommend(fit, ["user-4"], candidates=["item-1"], exclude=["item-1"])
    with pytest.raises(InputError, match="no item has the id 'item-99'"):
        recommend(fit, ["user-4"], candidates=["item-99"])
    with pytest.raises(InputError, match="no item has the id 'item-98'"):
        recommend(fit, ["user-4"], exclude=["item-98"])


def test_cold_items_are_ranked_and_marked(fits):
    for fit in fits.values():
        table = recommend(fit, ["user-1"], N_ITEMS, keep_seen=True).set_index("item")
        trained = np.bincount(fit.split.train.items, minlength=N_ITEMS)
        cold = {f"item-{j}" for j in range(N_ITEMS) if trained[j] == 0}
        assert {f"item-{N_ITEMS - n}" for n in range(1, N_COLD + 1)} <= cold
        assert set(table.index[table["group"] == "cold"]) == cold
        middle = np.median(trained[trained > 0])
        hot = {f"item-{j}" for j in range(N_ITEMS) if trained[j] > middle}
        assert set(table.index[table["group"] == "hot"]) == hot
        assert set(table["group"]) == {"hot", "warm", "cold"}


def test_unknown_users(fits):
    fit = fits["mean-field"]
    with pytest.raises(InputError, match="no user has the id 'nobody'; ids of users look like 'user-0'"):
        recommend(fit, ["user-0", "nobody"])
    dropped = recommend(fit, ["nobody", "user-0"], 3, unknown="drop")
    pd.testing.assert_frame_equal(dropped, recommend(fit, ["user-0"], 3))
    assert len(recommend(fit, ["nobody"], 3, unknown="drop")) == 0
    table = recommend(fit, ["nobody", "user-0", "no one"], 3, unknown="prior")
    assert table["user"].tolist() == [name for name in ("user-0", "nobody", "no one") for _ in range(3)]
    average = fit.posterior.v_loc.numpy() @ fit.posterior.u_loc.numpy().mean(0)
    best = np.argsort(-average)[:3]
    for name in ("nobody", "no one"):
        mine = table[table["user"] == name]
        assert mine["item"].tolist() == fit.dataset.item_ids[best].tolist()
        np.testing.assert_allclose(mine["score"], average[best], rtol=1e-5)
        assert np.isfinite(mine["sd"]).all() and set(mine["origin"]) == {"average"}


def test_similar_items(fits):
    fit = fits["structured"]
    v = fit.posterior.v_loc.double().numpy()
    unit = v / np.linalg.norm(v, axis=1, keepdims=True)
    table = similar_items(fit, ["item-3", "item-28"], 5)
    for item in (3, 28):
        cosine = unit @ unit[item]
        cosine[item] = -2
        best = np.argsort(-cosine)[:5]
        mine = table[table["to"] == f"item-{item}"]
        assert mine["item"].tolist() == fit.dataset.item_ids[best].tolist()
        np.testing.assert_allclose(mine["score"], cosine[best], rtol=1e-5, atol=1e-6)
    few = similar_items(fit, ["item-3"], 5, candidates=["item-3", "item-4", "item-5", "item-6"], exclude=["item-5"])
    assert set(few["item"]) == {"item-4", "item-6"}  # never itself
    with pytest.raises(InputError, match="no item has the id 'item-99'"):
        similar_items(fit, ["item-99"])
    assert similar_items(fit, ["item-99", "item-3"], 2, unknown="drop")["to"].tolist() == ["item-3"] * 2


def test_whole_numbers_as_ids(tmp_path, call):
    fit = inference.fit(make_dataset(text_ids=False), **OPTIONS, out=tmp_path / "run")
    table = recommend(fit, [14, "21"], 4)
    assert table["item"].dtype == np.int64
    assert table["item"].tolist()[:4] == brute_force(fit, 14, 4, seen_by(fit, 14))[0]
    (tmp_path / "users.txt").write_text("14\n\n21\n14\n", encoding="utf-8")
    out = tmp_path / "lists.parquet"
    assert call(tmp_path / "run", "--users-from", tmp_path / "users.txt", "--top", "4", "--out", out)[0] == 0
    kept = pd.read_parquet(out)
    assert kept["user"].tolist() == [14] * 4 + [21] * 4 and kept["item"].dtype == np.int64
    assert kept["item"].tolist() == table["item"].tolist()
    (tmp_path / "users.txt").write_text("--5\n²\nbob\n14\n", encoding="utf-8")
    argv = (tmp_path / "run", "--users-from", tmp_path / "users.txt", "--top", "2", "--out", out)
    assert call(*argv)[0] == 2
    assert call(*argv, "--unknown", "prior")[0] == 0
    assert pd.read_parquet(out)["user"].tolist() == ["14", "14", "--5", "--5", "²", "²", "bob", "bob"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.parquet", "run", "users.txt"]


def test_sd_is_the_closed_form_and_a_point_has_none(fits):
    """By hand, (n_factors, n_factors) matrices of one pair: m_u' S_v m_u + m_v' S_u m_v + tr(S_u S_v)."""
    assert recommend(fits["map"], ["user-2"])["sd"].isna().all()
    for kind in ("mean-field", "structured"):
        fit = fits[kind]
        q = {name: tensor.double().numpy() for name, tensor in fit.posterior.tensors().items()}
        for row in recommend(fit, ["user-2"], N_ITEMS).itertuples():
            i, j = fit.dataset.user_rows([row.user])[0], fit.dataset.item_rows([row.item])[0]
            u, v, of_u = q["u_loc"][i], q["v_loc"][j], np.diag(q["u_scale"][i] ** 2)
            if kind == "mean-field":
                of_v = np.diag(q["v_scale"][j] ** 2)
            else:
                given = q["v_covariance"][int(q["v_block"][j])]
                slope = fit.model.lambda_v * given
                of_v = given + slope @ np.diag(q["z_scale"][j] ** 2) @ slope.T
            variance = u @ of_v @ u + v @ of_u @ v + np.trace(of_u @ of_v)
            np.testing.assert_allclose(row.sd, variance**0.5, rtol=1e-5)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["mean-field", "structured"])
def test_sd_is_that_of_draws(fits, kind, failure_rate):
    """The mean of n squared deviations around the true mean, against their own standard error, for each item."""
    from scipy.stats import norm

    fit, n = fits[kind], 20_000
    table = recommend(fit, ["user-2"], N_ITEMS)
    draws = fit.posterior.sample(n, seed=1)
    u, v = draws["u"][:, fit.dataset.user_rows(["user-2"])[0]], draws["v"][:, fit.dataset.item_rows(table["item"])]
    scores = torch.einsum("nk,njk->nj", u.double(), v.double()).numpy()
    bound = norm.isf(failure_rate / (4 * len(table)))  # two-sided, means and variances
    expected = table["score"].to_numpy(), table["sd"].to_numpy() ** 2
    for found, truth in zip((scores, (scores - expected[0]) ** 2), expected, strict=True):
        error = found.std(0, ddof=1) / n**0.5
        assert np.all(np.abs(found.mean(0) - truth) < bound * error)


def test_the_command_prints_titles_as_they_are(run, call):
    code, out, err = call(run, "--user", "user-3", "--top", "3")
    fit = inference.load(run)
    assert (code, err) == (0, "")
    for row in recommend(fit, ["user-3"], 3).itertuples():
        (line,) = (line for line in out.splitlines() if f" {row.item} " in line)
        assert row.title in line and row.title.startswith("[red]title ")
        assert f"{row.score:.3f}" in line and f"{row.sd:.3f}" in line and row.group in line
    assert "[bold]small[/x]" in out
    code, out, err = call(run, "--similar", "item-3", "--top", "2")
    assert (code, err) == (0, "") and out.count("[red]title ") == 2


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_command_writes_tables(run, call, tmp_path, suffix):
    for name, text in {"users": "user-5\nuser-1\n", "few": "item-1\nitem-2\nitem-3\n", "not": "item-2\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    out = tmp_path / f"lists{suffix}"
    files = ("--users-from", tmp_path / "users", "--candidates", tmp_path / "few", "--exclude", tmp_path / "not")
    code, said, err = call(run, "--user", "user-2", *files, "--keep-seen", "--out", out)
    assert (code, err) == (0, "") and said.startswith("6 rows: ")
    kept = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    expected = recommend(
        inference.load(run), ["user-2", "user-5", "user-1"], candidates=["item-1", "item-3"], keep_seen=True
    )
    assert kept.columns.tolist() == ["user", "rank", "item", "title", "score", "sd", "group", "origin"]
    for name in ("user", "rank", "item", "title", "group"):
        assert kept[name].tolist() == expected[name].tolist()
    for name in ("score", "sd"):
        np.testing.assert_allclose(kept[name], expected[name], rtol=1e-6)
    assert not list(tmp_path.glob(".*"))


# --- uncertainty -----------------------------------------------------------------------------------------------------

UNSURE = ["mean-field", "structured", "full", "both"]


def test_the_interval_is_the_normals(fits):
    from scipy.stats import norm

    table = recommend(fits["full"], ["user-2", "user-5"], 8, interval=0.8)
    for column, share in (("low", 0.1), ("high", 0.9)):
        expected = norm.ppf(share, table["score"].astype(float), table["sd"].astype(float))
        np.testing.assert_allclose(table[column], expected, rtol=1e-5, atol=1e-6)
    assert table.columns.tolist() == [
        *("user", "rank", "item", "title", "score", "sd", "low", "high", "group", "origin")
    ]


@pytest.mark.parametrize("kind", UNSURE)
def test_standard_deviations_over_all_items_are_those_of_pairs(fits, kind, monkeypatch):
    posterior, users = fits[kind].posterior, [3, 0, 3, 11]
    _, sd = posterior.score(torch.tensor(users)[:, None], torch.arange(N_ITEMS))
    torch.testing.assert_close(score_sds(posterior, users), sd, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr("inference.recommending.ranking.FLOATS_AT_ONCE", 7 * 16 * 9)  # seven items at once
    torch.testing.assert_close(score_sds(posterior, users), sd, rtol=1e-5, atol=1e-6)


def in_the_best(scores, m):
    """Whether each score is among the m best of its row, as a share where it is tied, by counts alone."""
    above, equal = (
        (relation(scores[..., None, :], scores[..., :, None])).sum(-1) for relation in (np.greater, np.equal)
    )
    return np.clip((m - above) / equal, 0, 1)


@pytest.mark.parametrize("kind", UNSURE)
def test_the_chance_to_be_listed_is_the_share_of_draws(fits, kind, monkeypatch):
    """The same draws, in parts of three, ranked by brute force; blocks of two users; seen and forbidden items out."""
    fit, n, m = fits[kind], 50, 4
    monkeypatch.setattr("inference.recommending.ranking.FEW_USERS", 2)
    monkeypatch.setattr("inference.recommending.ranking.SCORES_AT_ONCE", 2 * N_ITEMS)
    monkeypatch.setattr("inference.recommending.ranking.FLOATS_AT_ONCE", 3 * (3 + 4 * N_ITEMS) * 3)
    users, exclude = ["user-3", "user-0", "user-11"], ["item-2", "item-29"]
    table = recommend(fit, users, N_ITEMS, top_probability=m, draws=n, seed=7, exclude=exclude)
    parts = fit.posterior.select(users=fit.dataset.user_rows(users)).draws(n, 7, 3)
    scores = np.concatenate([torch.einsum("nik,njk->nij", part["u"], part["v"]).numpy() for part in parts])
    for number, user in enumerate(users):
        mine = table[table["user"] == user].set_index("item")["p_top_4"]
        rows = [j for j, item in enumerate(fit.dataset.item_ids) if item not in {*seen_by(fit, user), *exclude}]
        assert set(mine.index) == set(fit.dataset.item_ids[rows])
        expected = in_the_best(scores[:, number, rows], m).mean(0)
        np.testing.assert_allclose(mine.loc[fit.dataset.item_ids[rows]], expected, atol=1e-12)
        assert mine.sum() == pytest.approx(m)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", UNSURE)
def test_the_chance_to_be_listed_is_the_same_by_draws_given_u(fits, kind, monkeypatch, failure_rate):
    """Two ways to draw, two-sided, for every candidate of two users; given u, in parts that divide users."""
    from scipy.stats import norm

    n, users, found = 3000, ["user-3", "user-11"], []
    for few, seed in ((0, 1), (8, 2)):
        monkeypatch.setattr("inference.recommending.ranking.FEW_USERS", few)
        monkeypatch.setattr("inference.recommending.ranking.SCORES_AT_ONCE", (2 if few == 0 else 2**12 - 1) * N_ITEMS)
        table = recommend(fits[kind], users, N_ITEMS, top_probability=4, draws=n, seed=seed)
        found.append(table["p_top_4"].to_numpy())
    pooled = (found[0] + found[1]) / 2
    error = np.sqrt(2 * pooled * (1 - pooled) / n)
    assert (abs(found[0] - found[1]) <= norm.isf(failure_rate / (2 * len(pooled) * len(UNSURE))) * error).all()
    assert found[1].sum() == pytest.approx(8)


def test_ties_share_the_last_places():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (50, 9)).astype(float)
    for m in (1, 3, 8, 9, 20):
        found = _shares(torch.tensor(scores), torch.tensor(scores), m).numpy()
        np.testing.assert_allclose(found, in_the_best(scores, m))
        np.testing.assert_allclose(found.sum(1), min(m, 9))


@pytest.mark.statistical
@pytest.mark.parametrize("kind", UNSURE)
def test_the_chance_to_be_above_is_that_given_the_user(fits, kind, failure_rate):
    """Given u, u.(v_i - v_j) is Normal; averaged over draws of u this is exact, and the draws' share must agree."""
    from scipy.stats import norm

    fit, n = fits[kind], 20_000
    posterior, users = fit.posterior, fit.dataset.user_ids.tolist()
    pairs = [("item-1", "item-28"), ("item-28", "item-1"), ("item-5", "item-9")]
    table = compare_items(fit, users, pairs, draws=n, seed=1)
    assert table.columns.tolist() == ["user", "item", "other", "p_above"] and len(table) == 3 * N_USERS
    u = posterior.sample(4000, seed=2)["u"].double().numpy()
    bound = norm.isf(failure_rate / (2 * len(table) * len(UNSURE)))
    for first, second in pairs:
        i, j = fit.dataset.item_rows([first, second])
        spread = (posterior.covariance("v", int(i)) + posterior.covariance("v", int(j))).double().numpy()
        away = (posterior.v_loc[i] - posterior.v_loc[j]).double().numpy()
        given = norm.cdf(u @ away / np.einsum("nik,kl,nil->ni", u, spread, u) ** 0.5)
        mine = table[(table["item"] == first) & (table["other"] == second)]
        assert mine["user"].tolist() == users
        error = (given.var(0) / len(given) + given.mean(0) * (1 - given.mean(0)) / n) ** 0.5
        assert (abs(mine["p_above"] - given.mean(0)) < bound * error).all()
    ahead, behind = (table.loc[(table["item"] == one), "p_above"].to_numpy() for one in ("item-1", "item-28"))
    np.testing.assert_allclose(ahead + behind, 1)


def test_no_draws_are_no_probability(fits):
    for ask in ({"top_probability": 3}, {"pairs": [("item-1", "item-2")]}):
        with pytest.raises(InputError, match="from 0 draws"):
            (compare_items if "pairs" in ask else recommend)(fits["full"], ["user-1"], **ask, draws=0)


def test_an_item_is_as_often_above_itself_as_below(fits):
    assert (above_probabilities(fits["both"].posterior, [0, 1], 5, 5, 10, 0) == 0.5).all()


@pytest.mark.parametrize("kind", UNSURE)
def test_ucb_is_mean_and_spread(fits, kind):
    fit = fits[kind]
    table = recommend(fit, ["user-2", "user-7"], 6, ranking="ucb", kappa=2.5, block_size=1)
    for user in ("user-2", "user-7"):
        mine, row = table[table["user"] == user], fit.dataset.user_rows([user])[0]
        mean, sd = fit.posterior.score(int(row), torch.arange(N_ITEMS))
        index = (mean + 2.5 * sd).double().numpy()
        order = [j for j in np.argsort(-index) if fit.dataset.item_ids[j] not in seen_by(fit, user)][:6]
        assert mine["item"].tolist() == fit.dataset.item_ids[order].tolist()
        for column, expected in (("ucb", index), ("score", mean.numpy()), ("sd", sd.numpy())):
            np.testing.assert_allclose(mine[column], expected[order], rtol=1e-4, atol=1e-6)
    same = recommend(fit, ["user-2"], 6, ranking="ucb", kappa=0.0)
    assert same["item"].tolist() == recommend(fit, ["user-2"], 6)["item"].tolist()


def test_a_thompson_list_is_in_the_order_of_its_draw(fits):
    fit = fits["both"]
    users = fit.dataset.user_ids.tolist()
    table = recommend(fit, users, 6, ranking="thompson", seed=4)
    values, items = best_items(
        fit.posterior, range(N_USERS), N_ITEMS, Candidates(torch.ones(N_ITEMS, dtype=torch.bool)), "thompson", seed=4
    )
    for number, user in enumerate(users):
        mine = table[table["user"] == user]
        drawn = dict(zip(fit.dataset.item_ids[items[number].numpy()], values[number].tolist(), strict=True))
        order = [item for item in drawn if item not in seen_by(fit, user)][:6]
        assert mine["item"].tolist() == order
        np.testing.assert_allclose(mine["thompson"], [drawn[item] for item in order])
        np.testing.assert_allclose(
            mine["score"], fit.posterior.mean_score(number, fit.dataset.item_rows(mine["item"])), rtol=1e-6
        )
    pd.testing.assert_frame_equal(table, recommend(fit, users, 6, ranking="thompson", seed=4))
    assert table["item"].tolist() != recommend(fit, users, 6, ranking="thompson", seed=5)["item"].tolist()


@pytest.mark.statistical
@pytest.mark.parametrize("kind", UNSURE)
def test_thompson_draws_are_the_posteriors_and_independent_between_users(fits, kind, failure_rate):
    """Two-sided: mean and variance of each score; covariance of two items of a user, m_j' S_u m_l; none between users.

    One user is asked for n times over, since users are drawn independently.
    """
    from scipy.stats import norm

    posterior, n = fits[kind].posterior, 20_000
    drawn = thompson_scores(posterior, torch.full((n,), 3), seed=0).double().numpy()
    mean, sd = (part.double().numpy() for part in posterior.score(3, torch.arange(N_ITEMS)))
    v, s_u = posterior.v_loc.double().numpy(), posterior.covariance("u", 3).double().numpy()
    products = (drawn - mean)[:, :, None] * (drawn - mean)[:, None, :]
    between = v @ s_u @ v.T
    truth = np.where(np.eye(N_ITEMS, dtype=bool), sd**2, between)
    neighbours = (drawn[1:] - mean) * (drawn[:-1] - mean)
    bound = norm.isf(failure_rate / (2 * len(UNSURE) * (N_ITEMS**2 + 2 * N_ITEMS)))
    for found, expected in ((drawn, mean), (products, truth), (neighbours, 0.0)):
        assert (abs(found.mean(0) - expected) < bound * found.std(0, ddof=1) / len(found) ** 0.5).all()


def test_a_point_refuses_all_uncertainty(fits, tmp_path, call):
    fit = fits["map"]
    for asked in ({"interval": 0.9}, {"top_probability": 5}, {"ranking": "ucb"}, {"ranking": "thompson"}):
        with pytest.raises(InputError, match="no uncertainty") as caught:
            recommend(fit, ["user-1"], **asked)
        assert "--mode bayes" in str(caught.value)
    candidates = Candidates(torch.ones(N_ITEMS, dtype=torch.bool))
    for ask in (
        lambda: compare_items(fit, ["user-1"], [("item-1", "item-2")]),
        lambda: thompson_scores(fit.posterior, [0], 0),
        lambda: score_sds(fit.posterior, [0]),
        lambda: top_probabilities(fit.posterior, [0], torch.tensor([[1]]), 3, candidates, 5, 0),
    ):
        with pytest.raises(InputError, match="no uncertainty"):
            ask()
    inference.fit(make_dataset(), **OPTIONS, mode="map", out=tmp_path / "run")
    for asked in (("--interval", 0.9), ("--top-probability", 3), ("--ranking", "ucb"), ("--above", "item-1", "item-2")):
        code, out, err = call(tmp_path / "run", "--user", "user-1", *asked)
        assert (code, out) == (2, "") and err.count("\n") == 1 and "--mode bayes" in err
    code, out, _ = call(tmp_path / "run", "--likes", "item-1", "item-4")  # a point can be folded in
    assert code == 0 and "folded in" in out


# --- users folded in and items added, through the command ------------------------------------------------------------


def test_likes_are_a_new_user(run, call, tmp_path):
    out = tmp_path / "list.csv"
    likes = ["item-3", "item-7", "item-29"]
    code, _, err = call(run, "--likes", *likes, "--top", 5, "--interval", 0.9, "--out", out)
    assert (code, err) == (0, "")
    kept = pd.read_csv(out)
    assert set(kept["user"]) == {"new user"} and set(kept["origin"]) == {"folded in"}
    expected = recommend(fold_in(inference.load(run), ["me"] * 3, likes), ["me"], 5, interval=0.9)
    assert kept["item"].tolist() == expected["item"].tolist() and not set(likes) & set(kept["item"])
    for column in ("score", "sd", "low", "high"):
        np.testing.assert_allclose(kept[column], expected[column], rtol=1e-6)


def test_history_and_new_items_from_files(run, call, tmp_path):
    """Whole lists from a table with weights, one user known; items from a table of texts, of which one is chosen."""
    (tmp_path / "history.csv").write_text(
        "user,item,weight\nann,item-3,1\nann,fresh,2\nuser-5,item-1,1\n", encoding="utf-8"
    )
    (tmp_path / "items.csv").write_text(
        'item,text,title\nfresh,"comet nebula","A [b] sail"\nother,oven,Lemma\n', encoding="utf-8"
    )
    out = tmp_path / "lists.parquet"
    files = ("--history", tmp_path / "history.csv", "--new-items", tmp_path / "items.csv")
    code, _, err = call(run, *files, "--user", "user-2", "--top", 40, "--out", out)
    assert (code, err) == (0, "")
    kept = pd.read_parquet(out)
    fit = add_items(inference.load(run), ["fresh", "other"], ["comet nebula", "oven"], titles=["A [b] sail", "Lemma"])
    fit = fold_in(fit, ["ann", "ann", "user-5"], ["item-3", "fresh", "item-1"], confidences=[1.0, 2.0, 1.0])
    expected = recommend(fit, ["user-2", "user-5", "ann"], 40)
    for column in ("user", "rank", "item", "title", "group", "origin"):
        assert kept[column].tolist() == expected[column].tolist()
    assert set(zip(kept["user"], kept["origin"], strict=True)) == {
        ("user-2", "fit"),
        ("user-5", "folded in"),
        ("ann", "folded in"),
    }
    assert set(kept.loc[kept["group"] == "new", "item"]) == {"fresh", "other"}
    code, said, err = call(run, *files, "--top", 40)
    assert (code, err) == (0, "") and "A [b] sail" in said and "user-2" not in said
    code, said, err = call(run, "--new-items", tmp_path / "items.csv", "--similar", "fresh", "--top", 2)
    assert (code, err) == (0, "") and said.count("fresh") == 2


def test_pairs_of_items_through_the_command(run, call, tmp_path):
    out = tmp_path / "pairs.csv"
    asked = ("--user", "user-1", "user-2", "--above", "item-1", "item-2", "item-28", "item-3", "--draws", 100)
    assert call(run, *asked, "--seed", 3, "--out", out)[0] == 0
    expected = compare_items(
        inference.load(run), ["user-1", "user-2"], [("item-1", "item-2"), ("item-28", "item-3")], draws=100, seed=3
    )
    kept = pd.read_csv(out)
    assert kept[["user", "item", "other"]].values.tolist() == expected[["user", "item", "other"]].values.tolist()
    np.testing.assert_allclose(kept["p_above"], expected["p_above"])


def test_whole_numbers_stay_whole_numbers(tmp_path, call):
    inference.fit(make_dataset(text_ids=False), **OPTIONS, out=tmp_path / "run")
    (tmp_path / "history.csv").write_text("user,item\n900,-3\n7,-4\n900,-5\n", encoding="utf-8")
    out = tmp_path / "lists.parquet"
    assert call(tmp_path / "run", "--history", tmp_path / "history.csv", "--top", 2, "--out", out)[0] == 0
    kept = pd.read_parquet(out)
    assert kept["user"].tolist() == [7, 7, 900, 900] and kept["item"].dtype == np.int64
    assert call(tmp_path / "run", "--likes", "-3", "-4", "--top", 2, "--out", out)[0] == 0
    assert pd.read_parquet(out)["user"].tolist() == ["new user"] * 2
    (tmp_path / "history.csv").write_text("user,item\nann,-3\n", encoding="utf-8")
    code, _, err = call(tmp_path / "run", "--history", tmp_path / "history.csv")
    assert code == 2 and "'ann' is not a whole number" in err and "history.csv" in err


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("--user", "user-1", "--interval", "1.5"), "--interval is 1.5"),
        (("--user", "user-1", "--top-probability", "0"), "--top-probability is 0"),
        (("--user", "user-1", "--ranking", "best"), "--ranking is 'best'"),
        (("--user", "user-1", "--kappa", "-1"), "--kappa is -1"),
        (("--user", "user-1", "--draws", "-1"), "--draws is -1"),
        (("--user", "user-1", "--seed", "-1"), "--seed is -1"),
        (("--user", "user-1", "--above", "item-1"), "--above has 1 item,"),
        (("--above", "item-1", "item-2"), "nobody is named"),
        (("--user", "user-1", "--above", "item-1", "item-99"), "no item has the id 'item-99'"),
        (("--likes", "item-1", "--user", "user-1"), "--likes is about one new user alone"),
        (("--similar", "item-1", "--likes", "item-2"), "--similar is about items"),
        (("--likes", "item-99"), "no item has the id 'item-99'"),
        (("--history", "HISTORY"), "no item has the id 'item-77'"),
        (("--history", "missing.csv"), "no such file"),
        (("--new-items", "HISTORY", "--user", "user-1"), "has no column text"),
    ],
)
def test_a_wrong_wish_is_answered_in_one_line(run, call, tmp_path, argv, problem):
    (tmp_path / "history.csv").write_text("user,item\nann,item-1\nann,item-77\n", encoding="utf-8")
    argv = [str(tmp_path / "history.csv") if word == "HISTORY" else word for word in argv]
    code, out, err = call(run, *argv)
    assert (code, out) == (2, "") and err.count("\n") == 1 and problem in err
    if str(tmp_path / "history.csv") in argv:
        assert "history.csv" in err


def test_unknown_ids_in_lists_may_be_left_out(run, call, tmp_path):
    (tmp_path / "history.csv").write_text("user,item\nann,item-1\nann,item-77\n", encoding="utf-8")
    out = tmp_path / "list.csv"
    assert call(run, "--history", tmp_path / "history.csv", "--unknown", "drop", "--top", 3, "--out", out)[0] == 0
    expected = recommend(fold_in(inference.load(run), ["ann"], ["item-1"]), ["ann"], 3)
    assert pd.read_csv(out)["item"].tolist() == expected["item"].tolist()
    asked = ("--user", "user-1", "ghost", "--above", "item-1", "item-2", "item-1", "item-77", "--unknown", "drop")
    assert call(run, *asked, "--out", out)[0] == 0
    assert len(pd.read_csv(out)) == 1


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_pipe_cuts_no_number_and_no_id(run, monkeypatch, capsys, width):
    monkeypatch.setattr(sys, "argv", ["inference.recommend", str(run), "--user", "user-3", "--interval", "0.9"])
    monkeypatch.setenv("COLUMNS", str(width))
    assert run_command(main) == 0
    said = capsys.readouterr().out
    expected = recommend(inference.load(run), ["user-3"], 10, interval=0.9)
    lines = said.splitlines()[2:]
    assert len(lines) == len(expected) == 10
    for line, row in zip(lines, expected.itertuples(), strict=True):
        assert line.split()[:3] == ["user-3", str(row.rank), row.item]
        numbers = [f"{value:.3f}" for value in (row.score, row.sd, row.low, row.high)]
        assert all(number in line.split() for number in numbers), line


def test_a_column_that_says_nothing_is_not_printed(run, call):
    heading = call(run, "--user", "user-3")[1].splitlines()[1].split()
    assert "sd" in heading and "origin" not in heading
    assert "sd" not in call(run, "--similar", "item-3")[1].splitlines()[1].split()
    assert "sd" in call(run, "--similar", "item-3", "--format", "csv")[1].splitlines()[0].split(",")


def test_lists_as_json_and_csv(run, call):
    expected = recommend(inference.load(run), ["user-3", "user-0"], 4)
    code, said, _ = call(run, "--user", "user-3", "user-0", "--top", "4", "--format", "json")
    assert code == 0
    assert [row["item"] for row in json.loads(said)] == expected["item"].tolist()
    code, said, _ = call(run, "--user", "user-3", "user-0", "--top", "4", "--format", "csv")
    read = pd.read_csv(io.StringIO(said))
    assert (code, read["item"].tolist()) == (0, expected["item"].tolist())
    np.testing.assert_allclose(read["score"], expected["score"], rtol=1e-6)


def test_lists_of_nothing_say_so(call, run, tmp_path):
    alone = from_frames(
        {"user": ["a", "b"] * 2, "item": ["x", "x", "y", "y"]}, {"item": ["x", "y"], "text": ["oak elm", "ash fir"]}
    )
    whole = inference.fit(alone, **OPTIONS | {"split": "none", "mode": "map"}, out=tmp_path / "whole").path
    for words in (
        ["--user", "a"],
        ["--user", "a", "--format", "csv"],
        ["--everybody", "--out", tmp_path / "lists.csv"],
    ):
        code, said, err = call(whole, *words)
        assert code == 0 and "nothing is left to be listed" in said + err
    assert "nothing is left" not in "".join(call(run, "--user", "user-1", "--unknown", "prior")[1:])


@pytest.mark.parametrize("user", ["-x", "--help", "-5", "a'b $c", "plain"])
def test_the_line_that_a_fit_ends_with_asks_for_a_user(user, tmp_path, call, capsys):
    """Also where an id looks like an option."""
    pairs = {"user": [user, user, "z", "z"], "item": list("xyyz")}
    items = {"item": list("xyz"), "text": ["oak elm", "ash fir", "yew oak"]}
    given = OPTIONS | {"split": "none", "mode": "map"}
    fit = inference.fit(from_frames(pairs, items), **given, out=tmp_path / "of whom")
    fit.dataset.user_ids[:] = sorted(fit.dataset.user_ids, key=lambda one: one != user)
    _report(fit, 1.0)
    told = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(told.partition("inference.recommend ")[2])
    code, said, _ = call(*words, "--format", "csv")
    assert code == 0 and [row["user"] for row in csv.DictReader(io.StringIO(said))] == [user]
