"""Why an item is in a list: shares against dense sums and against lists without one item, refusals, the command."""

import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.draws import Draws
from inference.reasons import large_rests, told_rests
from inference.recommend import main
from inference.recommending import add_items, fold_in, recommend, why
from inference.recommending.reasons import PARTS, places
from inference.recommending.words import common_words
from pyro_cvae.data.simulated import simulated, simulated_stars
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError

N_USERS, N_ITEMS, N_COLD, N_FACTORS = 30, 40, 4, 3
COMMON = {"factors": N_FACTORS, "hidden": (6,), "dtype": "float64", "pretrain_epochs": 2, "epochs": 2, "sweeps": 3}
CLICKS = COMMON | {"method": "coordinate", "lambda_u": 2.0, "lambda_v": 3.0, "a": 4.0, "b": 0.3}
STARS = COMMON | {"method": "coordinate", "rating_likelihood": "normal"}
KINDS = {
    "map": CLICKS | {"mode": "map"},
    "map, zeros": CLICKS | {"mode": "map", "unrated": "zeros"},
    "map, cold scale": CLICKS | {"mode": "map", "cold_scale": 2.5},
    "full": CLICKS,
    "full, zeros": CLICKS | {"unrated": "zeros"},
    "full, biases": CLICKS | {"biases": "on"},
    "diagonal": CLICKS | {"diagonal": True},
    "diagonal, biases": CLICKS | {"diagonal": True, "biases": "on"},
    "structured": CLICKS | {"guide": "structured"},
    "structured, biases": CLICKS | {"guide": "structured", "biases": "on"},
    "full, cold scale, biases": CLICKS | {"cold_scale": 2.5, "biases": "on"},
    "map, popular": CLICKS | {"mode": "map", "b_power": 0.7},
    "structured, biases, popular": CLICKS | {"guide": "structured", "biases": "on", "b_power": 0.7},
    "without contents": CLICKS | {"model": "pmf"},
    "svi": CLICKS | {"method": "svi", "sweeps": None},
    "svi structured": CLICKS | {"method": "svi", "guide": "structured", "sweeps": None},
    "stars map": STARS | {"mode": "map"},
    "stars": STARS,
    "stars structured": STARS | {"guide": "structured"},
    "stars without biases": STARS | {"biases": "off"},
}
BOUNDED = CLICKS | {"rating_likelihood": "bernoulli-bound"}


def clicks():
    """Clicks of which some are sure, some missing and most usual; four items are cold, a user has none."""
    data = simulated(n_users=N_USERS, n_items=N_ITEMS, n_words=60, n_factors=N_FACTORS)
    pairs = data.interactions
    pairs = pairs.select((pairs.items < N_ITEMS - N_COLD) & (pairs.users > 0))
    weights = np.random.default_rng(1).choice([0.0, 0.5, 1.0, 1.0, 3.0], len(pairs))
    return replace(data, interactions=replace(pairs, confidences=weights), truth=None)


def all_pairs(dataset):
    nothing = dataset.interactions.select(np.zeros(len(dataset.interactions), bool))
    return Split(dataset.interactions, nothing, None, None, {})


def fit_of(kind, dataset=None):
    options = {name: value for name, value in KINDS[kind].items() if value is not None}
    if dataset is None:
        dataset = simulated_stars(n_users=N_USERS, n_items=N_ITEMS) if "stars" in kind else clicks()
    return inference.fit(dataset, all_pairs(dataset), **options)


@pytest.fixture(scope="module")
def fits():
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = fit_of(kind)
        return made[kind]

    return of


def by_hand(fit, row, item):
    """Shares (n_chosen,) with their split and the parts of one score, in numpy over single items, biases by hand."""
    model, p, train, n = fit.model, fit.posterior, fit.split.train, fit.model.n_factors
    biased = model.mean is not None
    width, kappas = n + biased, (float(model.kappa_u), float(model.kappa_v))
    v = model.own("v", p.v.loc).numpy()
    covariance = model.own("v", p.v.covariances()).numpy()
    u = model.own("u", p.u.loc)[row].numpy()
    scale = np.ones(len(v)) if p.content_scale is None else p.content_scale.numpy()
    said = np.pad(scale[:, None] * p.z.loc.numpy(), ((0, 0), (0, int(biased))))
    x = np.concatenate([v[:, :n], np.full((len(v), int(biased)), kappas[0])], 1)
    f = kappas[1] * v[:, n] if biased else np.zeros(len(v))
    of_x, of_f = np.zeros((len(v), width, width)), np.zeros((len(v), width))
    of_x[:, :n, :n] = covariance[:, :n, :n]
    if biased:
        of_f[:, :n] = kappas[1] * covariance[:, :n, n]
    mine = train.users == row
    explicit = model.ratings.explicit
    a, b = (float(model.ratings.tau.detach()), 0.0) if explicit else (model.ratings.a, model.ratings.b)
    counts = np.bincount(train.items[train.confidences > 0], minlength=len(v)) if not explicit else np.ones(len(v))
    c = np.maximum(counts, 1) ** fit.options.model.b_power
    c *= b / c[counts > 0].mean()
    rated = np.bincount(train.items, minlength=len(v)) > 0
    c[~rated & (fit.options.model.unrated != "zeros")] = 0.0
    weights = np.ones(mine.sum()) if train.confidences is None else train.confidences[mine] / train.weight_unit
    r = np.zeros(len(v))
    c[train.items[mine]], r[train.items[mine]] = a * weights, train.ratings[mine]
    second = x[:, :, None] * x[:, None, :] + of_x
    inverse = np.linalg.inv(model.lambda_u * np.eye(width) + (c[:, None, None] * second).sum(0))
    g = (c * (r - f))[:, None] * x - c[:, None] * of_f
    wide = np.append(v[item, :n], np.zeros(int(biased)))
    chosen = train.items[mine][weights > 0]
    others = np.setdiff1d(np.arange(len(v)), chosen)
    front = (c * (r - f))[:, None] * said
    best = inverse @ g.sum(0)
    split = {
        "share": g @ inverse @ wide,
        "content": front @ inverse @ said[item],
        "mixed": front @ inverse @ (wide - said[item]) + (g - front) @ inverse @ said[item],
        "ratings": (g - front) @ inverse @ (wide - said[item]),
    }
    parts = {
        "chosen": split["share"][chosen].sum(),
        "unchosen": split["share"][others].sum(),
        "prior": 0.0,
        "user_bias": kappas[0] * u[n] if biased else 0.0,
        "item_bias": f[item],
        "rest": (u - best)[:n] @ v[item, :n],
    }
    return chosen, split, parts


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_sums_of_shares_and_of_parts_by_hand(fits, kind):
    fit = fits(kind)
    users = fit.dataset.user_ids[[7, 3, 12]]
    lists = recommend(fit, users, N_ITEMS, keep_seen=True)
    found = why(fit, lists["user"], lists["item"], most=None)
    np.testing.assert_allclose(found.scores["score"], lists["score"], atol=1e-9)
    np.testing.assert_allclose(found.scores[list(PARTS)].sum(axis=1), lists["score"], atol=1e-9)
    sums = found.reasons.groupby(["user", "item"])["share"].sum()
    at = pd.MultiIndex.from_frame(found.scores[["user", "item"]])
    np.testing.assert_allclose(sums[at], found.scores["chosen"], atol=1e-9)
    for number in (0, 5, N_ITEMS + 2, 3 * N_ITEMS - 1):
        row = found.scores.iloc[number]
        item = fit.dataset.item_rows([row["item"]])[0]
        chosen, split, parts = by_hand(fit, fit.dataset.user_rows([row["user"]])[0], item)
        np.testing.assert_allclose(row[list(PARTS)].astype(float), [parts[name] for name in PARTS], atol=1e-8)
        mine = found.reasons[(found.reasons["user"] == row["user"]) & (found.reasons["item"] == row["item"])]
        assert sorted(mine["because"]) == sorted(fit.dataset.item_ids[chosen])
        assert mine["reason"].tolist() == [*range(1, len(chosen) + 1)]
        assert mine["share"].is_monotonic_decreasing
        np.testing.assert_allclose(mine["percent"], 100 * mine["share"] / abs(row["score"]))
        because = fit.dataset.item_rows(mine["because"])
        names = ["share", "content", "mixed", "ratings"] if fit.model.has_content else ["share"]
        for name in names:
            np.testing.assert_allclose(mine[name], split[name][because], atol=1e-8)
        assert fit.model.has_content or mine["content"].isna().all()


def test_the_rest_goes_as_sweeps_converge():
    dataset = clicks()
    few, many = (inference.fit(dataset, all_pairs(dataset), **CLICKS | {"sweeps": n}) for n in (1, 200))
    rests = [why(fit, "user-0004", fit.dataset.item_ids, 1).scores["rest"].abs().max() for fit in (few, many)]
    assert rests[0] > 1e-3 and rests[1] < 0.01 * rests[0]


def test_a_bound_has_shares_too():
    dataset = clicks()
    fit = inference.fit(dataset, all_pairs(dataset), **BOUNDED | {"sweeps": 100})
    lists = recommend(fit, fit.dataset.user_ids[[2, 5]], 6)
    scores = why(fit, lists["user"], lists["item"]).scores
    np.testing.assert_allclose(scores[list(PARTS)].sum(axis=1), lists["score"], atol=1e-9)
    assert scores["rest"].abs().max() < 0.02 < scores["chosen"].abs().min()


@pytest.mark.parametrize("options", [{"mode": "map"}, {"guide": "structured"}])
def test_the_mean_of_a_prior_of_groups_has_a_share(options):
    dataset = clicks()
    ids = np.array([f"{'de' if row % 3 else 'fr'}-{row}" for row in range(N_USERS)], object)
    dataset = replace(dataset, user_ids=ids)
    fit = inference.fit(dataset, all_pairs(dataset), **CLICKS | options, model="tests.models.own_models.GroupedCVAE")
    lists = recommend(fit, ids[[4, 5, 6]], 8)
    found = why(fit, lists["user"], lists["item"])
    model, v, train = fit.model, fit.posterior.v, fit.split.train
    second = v.loc[:, :, None] * v.loc[:, None] + v.covariances()
    precisions, rows = train.precisions(model.ratings.a, model.ratings.weight_unit), dataset.item_rows(lists["item"])
    for user, mine in found.scores.groupby("user"):
        row = dataset.user_rows([user])[0]
        c = np.where(np.bincount(train.items, minlength=N_ITEMS) > 0, model.ratings.b, 0.0)
        c[train.items[train.users == row]] = precisions[train.users == row]
        inverse = torch.linalg.inv(
            model.lambda_u * torch.eye(N_FACTORS) + (torch.tensor(c)[:, None, None] * second).sum(0)
        )
        prior = model.lambda_u * model.prior_of_users(fit.above).loc[row]
        np.testing.assert_allclose(mine["prior"], v.loc[rows[mine.index]] @ inverse @ prior, atol=1e-9)
    assert found.scores["prior"].abs().min() > 1e-6
    np.testing.assert_allclose(found.scores[list(PARTS)].sum(axis=1), lists["score"], atol=1e-9)
    assert found.reasons["content"].notna().all()


def test_what_is_split_and_what_is_not(fits):
    fit = fits("full")
    reasons = why(fit, "user-0004", fit.dataset.item_ids[-N_COLD:]).reasons
    assert (reasons["ratings"].abs() < 1e-12).all() and (reasons["content"].abs() > 1e-6).all()
    dataset = clicks()
    own = inference.fit(dataset, all_pairs(dataset), **CLICKS, model="tests.models.own_models.ShiftedItems")
    assert why(own, "user-0004", ["item-0001"]).reasons["content"].isna().all()  # v lies around something else than c z


@pytest.mark.parametrize("kind", ["map", "full, biases"])
def test_sums_are_exact_in_single_precision_too(kind):
    fit = inference.fit(clicks(), all_pairs(clicks()), **KINDS[kind] | {"dtype": "float32"})
    lists = recommend(fit, [f"user-{number:04d}" for number in range(2, 12)], 3)
    scores = why(fit, lists["user"], lists["item"]).scores
    np.testing.assert_allclose(scores[list(PARTS)].sum(axis=1), scores["score"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores["score"], lists["score"], rtol=0, atol=1e-6)


def test_words_stand_beside_shares_that_contents_raise_alone(fits):
    fit = fits("map")
    reasons = why(fit, "user-0004", fit.dataset.item_ids, None).reasons
    raised = reasons["content"] > 0
    assert raised.any() and not raised.all()
    assert (reasons.loc[~raised, "words"] == "").all() and (reasons.loc[raised, "words"] != "").any()


def test_without_an_item_the_score_moves_against_its_share(fits):
    """With V held, what the score loses is (1 - (1 - b/c) s_ij / r) / (1 - (c - b) v_j' A^-1 v_j) times the share.

    So it goes in the share's direction unless the model already expects much more of the item than it was given.
    """
    fit, row = fits("map"), 9
    model, user = fit.model, fit.dataset.user_ids[row]
    mine = fit.split.train.select((fit.split.train.users == row) & fit.split.train.observed)
    chosen, targets = fit.dataset.item_ids[mine.items], fit.dataset.item_ids[:20]
    whole = fold_in(fit, [user] * len(mine), chosen, confidences=mine.confidences)
    scores = whole.posterior.mean_score(row, np.arange(N_ITEMS)).numpy()
    reasons = why(whole, user, targets, most=None).reasons
    v, c = fit.posterior.v.loc.numpy(), model.ratings.a * mine.confidences / model.ratings.weight_unit
    weights = np.where(np.bincount(fit.split.train.items, minlength=N_ITEMS) > 0, model.ratings.b, 0.0)
    weights[mine.items] = c
    inverse = np.linalg.inv(model.lambda_u * np.eye(N_FACTORS) + (v.T * weights) @ v)
    same = 0
    for at, name in enumerate(chosen):
        left = np.arange(len(mine)) != at
        less = fold_in(fit, [user] * left.sum(), chosen[left], confidences=mine.confidences[left])
        lost = scores[:20] - less.posterior.mean_score(row, np.arange(20)).numpy()
        share = reasons[reasons["because"] == name].set_index("item")["share"][targets].to_numpy()
        x, more = v[mine.items[at]], c[at] - model.ratings.b
        expected = 1 - more / c[at] * scores[mine.items[at]]
        np.testing.assert_allclose(lost, share * expected / (1 - more * x @ inverse @ x), atol=1e-9)
        same += expected > 0
    assert same > 0.8 * len(chosen)


def test_folded_in_users_and_added_items(fits):
    fit = fits("structured")
    more = add_items(fit, ["fresh"], counts=fit.dataset.content.counts[:1])
    more = fold_in(more, ["ann"] * 3, ["item-0003", "item-0040", "fresh"], confidences=[1.0, 2.0, 1.0])
    lists = recommend(more, ["ann", "user-0005"], 50)
    found = why(more, lists["user"], lists["item"], most=None)
    np.testing.assert_allclose(found.scores["score"], lists["score"], atol=1e-9)
    np.testing.assert_allclose(found.scores[list(PARTS)].sum(axis=1), lists["score"], atol=1e-9)
    of_ann = found.scores[found.scores["user"] == "ann"]
    assert of_ann["rest"].abs().max() < 1e-12  # a folded-in user is at the conditional
    assert set(found.reasons.loc[found.reasons["user"] == "ann", "because"]) == {"item-0003", "item-0040", "fresh"}
    assert "fresh" in set(found.scores.loc[found.scores["user"] == "user-0005", "item"])


def test_blocks_of_users_are_no_matter(fits, monkeypatch):
    fit = fits("full")
    lists = recommend(fit, fit.dataset.user_ids[[7, 3, 12, 5]], 3).sample(frac=1, random_state=0)
    whole = why(fit, lists["user"], lists["item"])
    assert whole.scores["item"].tolist() == lists["item"].tolist()
    monkeypatch.setattr("inference.recommending.reasons.FLOATS_AT_ONCE", 50)
    monkeypatch.setattr("inference.recommending.words.PAIRS_AT_ONCE", 5)
    parts = why(fit, lists["user"], lists["item"])
    pd.testing.assert_frame_equal(whole.scores, parts.scores)
    pd.testing.assert_frame_equal(whole.reasons, parts.reasons)
    nothing = why(fit, [], [])
    assert len(nothing.scores) == len(nothing.reasons) == 0
    assert list(nothing.reasons) == list(whole.reasons)


def test_places():
    assert places(np.array([4, 4, 1, 7, 7, 7])).tolist() == [0, 1, 0, 0, 1, 2]
    assert places(np.zeros(0, int)).tolist() == []


# --- words ------------------------------------------------------------------------------------------------------------


def test_words_are_those_that_the_decoder_raises_in_both(fits):
    fit = fits("map")
    z, counts = fit.posterior.z.loc, fit.dataset.content.counts.toarray()
    first, second = np.array([0, 3, 9]), np.array([5, 5, 11])
    found = common_words(fit, first, second, 3)

    def log_p(rows):
        return torch.log_softmax(fit.model.decoder(rows)["logits"], -1).detach().numpy()

    usual = log_p(z.mean(0, keepdim=True))
    for a, b, told in zip(first, second, found, strict=True):
        raised = np.minimum(log_p(z[[a]]), log_p(z[[b]]))[0] - usual[0]
        raised[(counts[a] + counts[b]) == 0] = -1
        best = [at for at in np.argsort(-raised)[:3] if raised[at] > 0]
        assert told == ", ".join(fit.dataset.content.vocabulary[at] for at in best)


def test_without_a_vocabulary_or_contents_there_are_no_words(fits):
    assert common_words(fits("without contents"), np.array([0]), np.array([1])) is None
    assert why(fits("without contents"), "user-0004", ["item-0001"]).reasons["words"].isna().all()
    fit = fit_of("map")
    fit.dataset = replace(fit.dataset, content=replace(fit.dataset.content, vocabulary=None, vectorizer=None))
    assert common_words(fit, np.array([0]), np.array([1])) is None
    normal = inference.fit(clicks(), **CLICKS | {"content_likelihood": "normal", "mode": "map"})
    assert common_words(normal, np.array([0]), np.array([1])) is None


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["bernoulli", "poisson"])
def test_a_likelihood_without_a_closed_form_is_refused_by_name(likelihood):
    short = COMMON | {"method": "svi", "rating_likelihood": likelihood, "epochs": 1, "pretrain_epochs": 1}
    del short["sweeps"]
    fit = inference.fit(simulated(n_users=N_USERS, n_items=N_ITEMS, n_words=60, n_factors=N_FACTORS), **short)
    name = type(fit.model.ratings).__name__
    with pytest.raises(InputError, match=f"^{name} has no closed form, which --why needs") as caught:
        why(fit, "user-0004", ["item-0001"])
    assert "--rating-likelihood confidence-normal, normal, bernoulli-bound" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_draws_strangers_and_users_without_pairs_are_refused(fits):
    fit = fits("map")
    with pytest.raises(InputError, match="user 'user-0001' has no training pair: the list is the average user's"):
        why(fit, ["user-0004", "user-0001"], ["item-0001", "item-0002"])
    with pytest.raises(InputError, match="no user has the id 'nobody'"):
        why(fit, "nobody", ["item-0001"])
    with pytest.raises(InputError, match="no item has the id 'nothing'"):
        why(fit, "user-0004", ["nothing"])
    with pytest.raises(InputError, match="1 user and 2 items are no pairs"):
        why(fit, ["user-0004"], ["item-0001", "item-0002"])
    p = fit.posterior
    drawn = replace_posterior(fit, Draws.of(p.u.loc[None], p.v.loc[None], p.z.loc[None]))
    with pytest.raises(InputError, match=r"stored draws of inference.mcmc have no closed form of u, which --why needs"):
        why(drawn, "user-0004", ["item-0001"])


def replace_posterior(fit, posterior):
    return type(fit)(**vars(fit) | {"posterior": posterior})


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    dataset = clicks()
    inference.fit(dataset, all_pairs(dataset), **CLICKS | {"dtype": "float32"}, out=out)
    return out


@pytest.fixture
def call(monkeypatch, answer):
    monkeypatch.setenv("COLUMNS", "80")
    return partial(answer, main)


def test_the_command_tells_reasons(run, call):
    code, said, err = call(run, "--user", "user-0004", "user-0009", "--top", 2, "--why", 2)
    assert (code, err) == (0, "")
    lines = said.splitlines()
    at = [number for number, line in enumerate(lines) if line.startswith("Why these, for user-0")]
    assert [lines[number].split()[3][:9] for number in at] == ["user-0004", "user-0009"]
    assert lines[at[0] + 1].split() == ["rank", "share", "content", "mixed", "ratings", "because", "words"]
    found = why(inference.load(run), ["user-0004"] * 2, recommend(inference.load(run), ["user-0004"], 2)["item"], 2)
    first = lines[at[0] + 2].split()
    reason = found.reasons.iloc[0]
    assert first[:2] == ["1", f"{reason['percent']:.0f}%"] and first[5] == reason["because"]
    assert "(the user's other items)" in said
    shares = [int(line[4:].split()[0].rstrip("%")) for line in lines[at[0] + 2 : at[1] - 1] if line.strip()]
    starts = [n for n, line in enumerate(lines[at[0] + 2 : at[1] - 1]) if line.strip()[0] in "12" and line[:4].strip()]
    assert abs(sum(shares[: starts[1]]) - 100) <= 3  # all that an item's score is made of, but for rounding


def test_json_csv_and_files_have_them_as_fields(run, call, tmp_path):
    asked = (run, "--user", "user-0004", "user-0001", "--top", 2, "--why", 2)
    code, said, err = call(*asked, "--format", "json")
    tables = json.loads(said)
    assert code == 0 and list(tables) == ["recommendations", "scores", "reasons"]
    assert err.count("\n") == 1 and "the average user's list (origin: average), for which there are no reasons" in err
    assert {row["user"] for row in tables["reasons"]} == {"user-0004"}
    assert len(tables["recommendations"]) == 4 and len(tables["scores"]) == 2 and len(tables["reasons"]) == 4
    for row in tables["scores"]:
        assert abs(sum(row[part] for part in PARTS) - row["score"]) < 1e-6
    for row in tables["reasons"]:
        assert abs(row["content"] + row["mixed"] + row["ratings"] - row["share"]) < 1e-9
        assert isinstance(row["words"], str)
    code, said, _ = call(*asked, "--format", "csv")
    reasons = pd.read_csv(io.StringIO(said.split("\n\n")[2]))
    np.testing.assert_allclose(reasons["share"], [row["share"] for row in tables["reasons"]])
    code, said, err = call(*asked, "--out", tmp_path / "lists.csv")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "lists.reasons.csv", "lists.scores.csv"]
    assert pd.read_csv(tmp_path / "lists.reasons.csv")["because"].tolist() == reasons["because"].tolist()
    assert "4 rows: " in said and "lists.reasons.csv" in said


def test_large_rests_are_told(call, tmp_path):
    scores = pd.DataFrame({"score": [1.0, -2.0, 3.0], "rest": [0.2, 0.1, -0.4]})
    assert (large_rests(scores), large_rests(scores[1:2])) == (2, 0)
    assert told_rests(2, 3, "svi")[0].startswith("the rest of 2 of 3 scores is more than 10% of them: the fit has not")
    assert told_rests(0, 3, "svi") == []
    inference.fit(clicks(), factors=3, hidden=(6,), epochs=1, pretrain_epochs=1, mode="map", out=tmp_path / "run")
    code, said, _ = call(tmp_path / "run", "--user", "user-0004", "--top", 2, "--why", 1)
    assert code == 0 and "(rest: the fit has not converged)" in said and "the rest of 2 of 2 scores" in said


def test_a_new_user_has_reasons(run, call):
    code, said, err = call(run, "--likes", "item-0003", "item-0007", "--top", 1, "--why", 5, "--format", "json")
    assert (code, err) == (0, "")
    reasons = json.loads(said)["reasons"]
    assert {row["because"] for row in reasons} == {"item-0003", "item-0007"}
    assert {row["user"] for row in reasons} == {"new user"}
    code, said, _ = call(run, "--user", "user-0001", "--top", 1, "--why", 1)
    assert code == 0 and "no reasons" in said and "Why these" not in said


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (("--user", "user-0004", "--why", "-1"), "--why is -1, but it must be at least 0"),
        (("--similar", "item-0001", "--why", "3"), "--why gives the reasons of lists"),
        (
            ("--user", "user-0004", "--above", "item-0001", "item-0002", "--why", "3"),
            "--why gives the reasons of lists",
        ),
    ],
)
def test_a_wrong_wish_is_answered_in_one_line(run, call, argv, problem):
    code, out, err = call(run, *argv)
    assert (code, out) == (2, "") and err.count("\n") == 1 and problem in err


def test_a_missing_cell_is_no_reason(fits):
    """It takes its zero away (as by hand above) and is not told."""
    fit = fits("map")
    train, row = fit.split.train, fit.dataset.user_rows(["user-0004"])[0]
    missing = set(fit.dataset.item_ids[train.items[(train.users == row) & (train.confidences == 0)]])
    told = set(why(fit, "user-0004", ["item-0001"], most=None).reasons["because"])
    assert missing and told and not missing & told
