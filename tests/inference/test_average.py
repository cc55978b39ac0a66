"""Users without training pairs: the average user's list, in every family, marked, and counted apart in evaluation."""

import dataclasses
import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.evaluate import main as evaluate_command
from inference.evaluation.rankings import evaluate
from inference.evaluation.rivals import rival
from inference.mixing import weights_of_counts
from inference.recommend import main
from inference.recommending import compare_items, fold_in, recommend
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.splits import by_time
from pyro_cvae.errors import run_command

N_ITEMS, EARLY, LATE = 25, [f"early-{n}" for n in range(10)], ["late-0", "late-1", "late-2"]
WORDS = ("comet", "nebula", "sail", "mast", "oven", "pastry", "lemma", "proof")
SMALL = {"factors": 3, "hidden": (6,), "pretrain_epochs": 2, "epochs": 2, "quiet": True}
CHAIN = {"method": "mcmc", "draws": 60, "warmup": 20, "chains": 2, "pretrain_epochs": 2, "hidden": (6,), "factors": 3}
KINDS = {
    "map": {"mode": "map", "method": "coordinate"},
    "mean-field": {},
    "structured": {"guide": "structured"},
    "full": {"method": "coordinate"},
    "full-structured": {"method": "coordinate", "guide": "structured"},
    "diagonal": {"method": "coordinate", "diagonal": True},
    "clicks": {"rating_likelihood": "bernoulli"},
    "bound": {"method": "coordinate", "rating_likelihood": "bernoulli-bound"},
    "counts": {"rating_likelihood": "poisson"},
    "stars": {"method": "coordinate", "rating_likelihood": "normal"},
    "stars-without-biases": {"method": "coordinate", "rating_likelihood": "normal", "biases": "off", "lambda_u": 0.01},
    "draws": CHAIN,
}


def make_dataset(weights=False):
    """Ten users who chose early, with tastes, and three who came after the split; the last item is nobody's."""
    rng = np.random.default_rng(0)
    rows = [(user, j, 0.0) for n, user in enumerate(EARLY) for j in rng.permutation(16 + n % 8)[:8]]
    rows += [(user, j, 1.0) for user in LATE for j in rng.permutation(N_ITEMS - 1)[:6]]
    users, items, times = map(list, zip(*rows, strict=True))
    table = {"user": users, "item": [f"item-{j}" for j in items], "time": times}
    table["rating"] = rng.integers(1, 6, len(rows)).astype(float)
    if weights:  # what the late ones chose early is not known
        table = {name: [*column, column[0]] for name, column in table.items()}
        table["user"][-1], table["item"][-1] = LATE[0], "item-24"
        table["weight"] = [1.0] * len(rows) + [0.0]
    texts = [" ".join(rng.choice(WORDS, 7)) for _ in range(N_ITEMS)]
    return table, {"item": [f"item-{j}" for j in range(N_ITEMS)], "text": texts}


@pytest.fixture(scope="module")
def fits():
    table, items = make_dataset()
    datasets = {how: from_frames(table, items, ratings=how) for how in ("clicks", "stars")}

    def fit(kind):
        dataset = datasets["stars" if kind.startswith("stars") else "clicks"]
        return inference.fit(dataset, by_time(dataset, 0.1), **({} if KINDS[kind] is CHAIN else SMALL) | KINDS[kind])

    made = {}
    return lambda kind: made[kind] if kind in made else made.setdefault(kind, fit(kind))


def scores_of_early(fit):
    """Posterior mean scores of the users with training pairs, float64 (10, n_items)."""
    rows = fit.dataset.user_rows(EARLY)
    return fit.posterior.score_block(rows).double().numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_no_training_pair_gets_the_mean_of_the_scores_of_those_who_have(fits, kind):
    fit = fits(kind)
    assert not fit.split.train.user_counts[fit.dataset.user_rows(LATE)].any()
    expected = scores_of_early(fit).mean(0)
    table = recommend(fit, [*LATE, EARLY[0]], N_ITEMS, keep_seen=True).set_index("user")
    for user in LATE:
        mine = table.loc[user]
        error = abs(mine["score"] - expected[fit.dataset.item_rows(mine["item"])])
        if kind == "draws":  # in which u and v depend on each other; 120 of them
            assert (error < 4 * mine["sd"] / 120**0.5).all()
        else:
            assert (error < 1e-4 * mine["score"].abs() + 1e-6).all()
        assert set(mine["origin"]) == {"average"}
        assert (np.diff(mine["score"]) <= 0).all() and mine["score"].nunique() > 20
        assert mine["sd"].isna().all() == fit.posterior.is_point
    assert set(table.loc[EARLY[0], "origin"]) == {"fit"}


@pytest.mark.parametrize("kind", ["full", "full-structured"])
def test_the_spread_is_that_of_somebody(fits, kind):
    """By the moments of the mixture of all users: var = mean(sd_i^2 + mean_i^2) - mean^2, pair by pair."""
    fit = fits(kind)
    mean, sd = fit.posterior.score(torch.tensor(fit.dataset.user_rows(EARLY))[:, None], torch.arange(N_ITEMS))
    mean, sd = mean.double().numpy(), sd.double().numpy()
    expected = (sd**2 + mean**2).mean(0) - mean.mean(0) ** 2
    table = recommend(fit, LATE[:1], N_ITEMS, keep_seen=True, interval=0.9, top_probability=3)
    np.testing.assert_allclose(table["sd"] ** 2, expected[fit.dataset.item_rows(table["item"])], rtol=1e-4)
    assert (table["low"] < table["score"]).all() and table["p_top_3"].sum() == pytest.approx(3)


@pytest.mark.parametrize("kind", ["mean-field", "full", "draws"])
def test_draws_of_an_average_user_have_its_mean_and_rank(fits, kind):
    from inference.average import average_user

    fit = fits(kind)
    average = average_user(fit.posterior, fit.split.train)
    known = fit.posterior.u_loc[torch.as_tensor(fit.dataset.user_rows(EARLY))]
    torch.testing.assert_close(average.u_loc[0], known.mean(0), rtol=1e-5, atol=1e-6)
    for ranking in ("thompson", "ucb"):
        table = recommend(fit, [*LATE, "nobody"], 5, ranking=ranking, unknown="prior", seed=3)
        assert set(table["origin"]) == {"average"} and np.isfinite(table[ranking]).all()
        assert (table.groupby("user", sort=False)[ranking].diff().dropna() <= 0).all()
    drawn = [recommend(fit, LATE[:1], 5, ranking="thompson", seed=seed)["item"].tolist() for seed in range(6)]
    assert len(set(map(tuple, drawn))) > 1
    above = compare_items(fit, [*LATE, "nobody"], [("item-1", "item-2")], unknown="prior")
    assert above["user"].tolist() == [*LATE, "nobody"] and above["p_above"].between(0, 1).all()
    assert np.ptp(above["p_above"]) < 5 * (2 * 0.25 / 4000) ** 0.5


def test_a_user_of_missing_cells_alone_is_nobody_known():
    table, items = make_dataset(weights=True)
    dataset = from_frames(table, items)
    split = by_time(dataset, 0.1)
    late = dataset.user_rows(LATE[:1])[0]
    assert (split.train.users == late).sum() == 1 and split.train.user_counts[late] == 0
    fit = inference.fit(dataset, split, **SMALL | KINDS["map"])
    mine = recommend(fit, LATE[:1], N_ITEMS, keep_seen=True)
    expected = scores_of_early(fit).mean(0)
    np.testing.assert_allclose(mine["score"], expected[dataset.item_rows(mine["item"])], rtol=1e-4, atol=1e-6)
    assert set(mine["origin"]) == {"average"}


@pytest.mark.parametrize("kind", ["map", "full", "bound"])
def test_a_folded_in_user_without_a_list_is_nobody_known_whoever_is_beside(fits, kind):
    fit = fits(kind)
    folded = fold_in(fit, ["new", EARLY[1], "other"], ["no item", "item-3", "item-4"], unknown="drop")
    table = recommend(folded, ["new", EARLY[1], LATE[0]], N_ITEMS, keep_seen=True).set_index("user")
    assert table["origin"].groupby("user").unique().str[0].to_dict() == {
        "new": "average",
        EARLY[1]: "folded in",
        LATE[0]: "average",
    }
    expected = scores_of_early(fit).mean(0)
    for user in ("new", LATE[0]):
        mine = table.loc[user]
        np.testing.assert_allclose(mine["score"], expected[fit.dataset.item_rows(mine["item"])], rtol=1e-4, atol=1e-6)


def test_predicted_ratings_of_nobody_known_are_the_average_users(fits):
    fit = fits("stars-without-biases")
    low, high = fit.split.train.ratings.min(), fit.split.train.ratings.max()
    items = [f"item-{j}" for j in range(N_ITEMS)]
    assert (np.ptp(scores_of_early(fit).mean(0).clip(low, high))) > 0.1
    mean = fit.predict(["late-1"] * N_ITEMS, items)["mean"]
    np.testing.assert_allclose(mean, scores_of_early(fit).mean(0).clip(low, high), rtol=1e-4)
    mixed = fit.predict(["late-1", EARLY[2]] * 2, ["item-1", "item-1", "item-2", "item-2"])
    alone = fit.predict([EARLY[2]] * 2, ["item-1", "item-2"])
    np.testing.assert_allclose(mixed["mean"][1::2], alone["mean"], rtol=1e-12)
    np.testing.assert_allclose(mixed["sd"][1::2], alone["sd"], rtol=1e-12)
    np.testing.assert_allclose(mixed["mean"][::2], mean[[1, 2]], rtol=1e-12)


def test_evaluation_ranks_them_by_the_average_and_counts_them_apart(fits):
    fit = fits("map")
    scores = fit.posterior.score_block(np.arange(fit.dataset.n_users)).clone()
    late = fit.dataset.user_rows(LATE)
    scores[torch.from_numpy(late)] = torch.as_tensor(scores_of_early(fit).mean(0)).float()
    expected = evaluate(lambda users: scores[torch.from_numpy(users)], fit.split)
    name = next(name for name in fit.metrics if name.startswith("recall@"))
    assert fit.metrics[name] == pytest.approx(expected.means()[name])
    assert fit.metrics["ndcg@100"] == pytest.approx(expected.means()["ndcg@100"], rel=1e-6)
    assert set(expected.per_user["user"]) == set(late) and (expected.per_user["n_train"] == 0).all()
    apart = fit.metrics["user_groups"]["without training pairs"]
    assert (apart["n_users"], apart["n_pairs"]) == (3, 18) and apart["ndcg@100"] == fit.metrics["ndcg@100"]


def test_both_groups_have_their_own_means():
    table, items = make_dataset()
    table["time"][3] = 2.0  # one early user with a late choice
    dataset = from_frames(table, items)
    fit = inference.fit(dataset, by_time(dataset, 0.1), **SMALL | KINDS["map"])
    groups = fit.metrics["user_groups"]
    sizes = {name: (group["n_users"], group["n_pairs"]) for name, group in groups.items()}
    assert sizes == {"with training pairs": (1, 1), "without training pairs": (3, 18)}
    weighted = sum(group["n_users"] * group["ndcg@100"] for group in groups.values()) / 4
    assert weighted == pytest.approx(fit.metrics["ndcg@100"])


def test_the_command_says_who_got_the_average_users_list(fits, tmp_path, monkeypatch, capsys):
    dataset = fits("map").dataset
    run = tmp_path / "run"
    inference.fit(dataset, by_time(dataset, 0.1), out=run, **SMALL | KINDS["map"])
    monkeypatch.setenv("COLUMNS", "160")

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["inference.recommend", str(run), *map(str, argv)])
        assert run_command(main) == 0
        return capsys.readouterr()

    said = call("--user", LATE[0], EARLY[0], "--top", 2)
    assert "1 of 2 users without a training pair: the average user's list (origin: average)" in said.out
    assert said.out.count(" average") == 2 + 2
    said = call("--user", LATE[0], EARLY[0], "--top", 2, "--format", "json")
    assert [row["origin"] for row in json.loads(said.out)] == ["average"] * 2 + ["fit"] * 2
    assert "without a training pair: the average user's list" in said.err
    said = call("--user", EARLY[0], "--top", 2)
    assert "average" not in said.out + said.err
    call("--user", LATE[0], EARLY[0], "nobody", "--unknown", "prior", "--top", 2, "--out", tmp_path / "lists.csv")
    kept = pd.read_csv(tmp_path / "lists.csv")
    assert kept["origin"].tolist() == ["average"] * 2 + ["fit"] * 2 + ["average"] * 2


@pytest.mark.parametrize("ratings", ["clicks", "stars"])
def test_who_chose_much_does_not_decide_what_strangers_are_shown(ratings):
    """Of choices a user counts with the root of one over the number of pairs, of stars everybody alike."""
    table, items = make_dataset()
    kept = [n for n, user in enumerate(table["user"]) if user not in EARLY[:4] or n % 8 < 2]
    dataset = from_frames({name: [column[n] for n in kept] for name, column in table.items()}, items, ratings=ratings)
    more = {"rating_likelihood": "normal"} if ratings == "stars" else {}
    fit = inference.fit(dataset, by_time(dataset, 0.1), **SMALL | KINDS["map"] | more)
    counts = np.array([2.0] * 4 + [8.0] * 6)
    weights = counts**-0.5 if ratings == "clicks" else np.ones(10)
    expected = weights / weights.sum() @ scores_of_early(fit)
    mine = recommend(fit, LATE[:1], N_ITEMS, keep_seen=True)
    wanted = expected[fit.dataset.item_rows(mine["item"])]
    np.testing.assert_allclose(mine["score"], wanted, rtol=1e-4, atol=1e-6)
    assert np.abs(expected - scores_of_early(fit).mean(0)).max() > 1e-3 or ratings == "stars"


def test_who_came_last_counts_most_where_pairs_have_times():
    counts = torch.tensor([4, 1, 0, 9, 1] + [1] * 2000)
    last = torch.tensor([5.0, 5.0, np.nan, 7.0, np.nan] + [0.0] * 2000, dtype=torch.float64)
    later = np.array([2.0, 2.0, 0.0, 0.5, 2003.5] + [1003.0] * 2000)
    expected = np.where(counts > 0, counts.clamp(min=1).numpy() ** -0.5 * np.exp(-later / (2004 / 8)), 0.0)
    found = weights_of_counts(counts, last=last)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-12)
    few = weights_of_counts(torch.ones(5), last=torch.arange(5.0))
    np.testing.assert_allclose(few / few[-1], np.exp(-np.arange(5)[::-1] / 100), rtol=1e-12)
    for times in (torch.zeros(5), torch.full((5,), torch.nan), None):
        assert torch.allclose(weights_of_counts(torch.ones(5), last=times), torch.full((5,), 0.2, dtype=torch.float64))


def test_strangers_get_the_list_of_those_who_came_last():
    table, items = make_dataset()
    days = {user: 86400.0 * n for n, user in enumerate(EARLY)}
    table["time"] = [days.get(user, 1e9) + n / 1e3 for n, user in enumerate(table["user"])]
    dataset = from_frames(table, items)
    fit = inference.fit(dataset, by_time(dataset, 18 / 98), **SMALL | KINDS["map"])
    weights = np.exp(-(9.5 - np.arange(10)) / 100)
    expected = weights / weights.sum() @ scores_of_early(fit)
    mine = recommend(fit, LATE[:1], N_ITEMS, keep_seen=True)
    np.testing.assert_allclose(mine["score"], expected[fit.dataset.item_rows(mine["item"])], rtol=1e-4, atol=1e-6)


def test_a_rival_gives_strangers_the_list_of_the_same_weights():
    table, items = make_dataset()
    kept = [n for n, user in enumerate(table["user"]) if user not in EARLY[:4] or n % 8 < 2]
    dataset = from_frames({name: [column[n] for n in kept] for name, column in table.items()}, items)
    split = by_time(dataset, 0.1)
    early, late = dataset.user_rows(EARLY), dataset.user_rows(LATE)
    weights = np.array([2.0] * 4 + [8.0] * 6) ** -0.5
    for name in ("tfidf", "svd-50", "svd-300-prior"):
        scores = rival(name)(dataset, split)
        expected = weights / weights.sum() @ scores(early).double().numpy()
        np.testing.assert_allclose(scores(late[:1])[0], expected, rtol=1e-3, atol=1e-5)


def test_where_nobody_is_known_the_average_is_of_all(fits):
    from inference.average import average_user

    posterior, train = fits("full").posterior, fits("full").split.train
    nothing = dataclasses.replace(train.select(np.zeros(len(train), bool)))
    torch.testing.assert_close(average_user(posterior, nothing).u_loc[0], posterior.u_loc.mean(0))


@pytest.mark.parametrize("kind", ["map", "stars"])
def test_the_evaluation_counts_and_shows_them_apart(tmp_path, capsys, kind):
    table, items = make_dataset()
    table["time"][3] = table["time"][11] = 2.0
    dataset = from_frames(table, items, ratings="stars" if kind == "stars" else "clicks")
    inference.fit(dataset, by_time(dataset, 0.1), out=tmp_path / "run", **SMALL | KINDS[kind])
    evaluate_command([str(tmp_path / "run"), "--rivals", "--cutoffs", "5", "--out", str(tmp_path / "means.csv")])
    said = capsys.readouterr().out
    assert "Users with and without training pairs" in said and "average user's list" in said
    means = pd.read_csv(tmp_path / "means.csv").set_index(["model", "users", "items"])
    measure = "rmse" if kind == "stars" else "recall@5"
    for model in ("popularity", "als", str(tmp_path / "run")) if kind == "map" else ("mean", str(tmp_path / "run")):
        known, late = (means.loc[(model, f"{what} training pairs", "all")] for what in ("with", "without"))
        assert (late["n_users"], late["n_pairs"], known["n_users"]) == (3, 18, 2)
        whole = means.loc[(model, "headline", "all")]
        if kind == "map":
            assert (3 * late[measure] + 2 * known[measure]) / 5 == pytest.approx(whole[measure])
        else:
            assert (18 * late[measure] ** 2 + 2 * known[measure] ** 2) / 20 == pytest.approx(whole[measure] ** 2)
