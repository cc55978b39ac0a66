"""Recommendations: the ranking, what is left out of it, its uncertainty, and the command."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.recommend import main, recommend, similar_items
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
    return {kind: inference.fit(dataset, **OPTIONS | chosen) for kind, chosen in kinds.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    inference.fit(make_dataset(), **OPTIONS, out=out)
    return out


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command; gives exit code, stdout and stderr."""

    def run_it(*argv):
        monkeypatch.setattr(sys, "argv", ["inference.recommend", *map(str, argv)])
        monkeypatch.setenv("COLUMNS", "160")
        code = run_command(main)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_it


def brute_force(fit, user, top, left_out):
    """The best items of a user by numpy in float64, as (ids, scores)."""
    row = fit.dataset.user_ids.tolist().index(user)
    u, v = fit.posterior.u_loc.double().numpy(), fit.posterior.v_loc.double().numpy()
    scores = v @ u[row]
    order = [j for j in np.argsort(-scores) if fit.dataset.item_ids[j] not in left_out][:top]
    return [fit.dataset.item_ids[j] for j in order], scores[order]


def seen_by(fit, user):
    row = fit.dataset.user_ids.tolist().index(user)
    return set(fit.dataset.item_ids[fit.split.train.items[fit.split.train.users == row]])


@pytest.mark.parametrize("kind", ["map", "mean-field", "structured"])
def test_the_ranking_is_that_of_brute_force_without_training_items(fits, kind):
    fit = fits[kind]
    users = [f"user-{n}" for n in (3, 0, 11)]
    table = recommend(fit, users, 7, block_size=2)
    assert table["user"].tolist() == [user for user in users for _ in range(7)]
    for user in users:
        mine = table[table["user"] == user]
        assert len(seen_by(fit, user)) == 5
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
        assert mine["sd"].isna().all()


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
                slope = fit.options.model.lambda_v * given
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
    assert kept.columns.tolist() == ["user", "rank", "item", "title", "score", "sd", "group"]
    for name in ("user", "rank", "item", "title", "group"):
        assert kept[name].tolist() == expected[name].tolist()
    for name in ("score", "sd"):
        np.testing.assert_allclose(kept[name], expected[name], rtol=1e-6)
    assert not list(tmp_path.glob(".*"))
