"""A fit as a model of RecTools, in its own cross-validation and by its own metrics. `make peers` runs this."""

import numpy as np
import pandas as pd
import pytest

import inference
from inference.recommending import fold_in, recommend, similar_items
from pyro_cvae.errors import InputError

pytest.importorskip("rectools", reason="RecTools is not installed beside these pins: make peers, docs/adapters.md")

from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import MAP, Recall
from rectools.model_selection import LastNSplitter, cross_validate
from rectools.models import PopularModel, model_from_config

from inference.adapters.rectools import CVAEModel
from tests.test_likelihoods_page import ROOT, blocks

OPTIONS = {"method": "coordinate", "factors": 4, "hidden": (8,), "pretrain_epochs": 2, "epochs": 3, "threads": 1}
PMF = {"method": "coordinate", "model": "pmf", "factors": 4, "threads": 1}
WORDS = ("comet", "nebula", "sail", "mast", "oven", "pastry", "lemma", "proof")


def tables(whole=False):
    rng = np.random.default_rng(0)
    user_of, item_of = (lambda u: 7 * u, lambda j: 100 + j) if whole else (lambda u: f"u{u}", lambda j: f"i{j}")
    pairs = [(u, int(j)) for u in range(30) for j in rng.choice(27, 8, replace=False)]
    interactions = pd.DataFrame(
        {
            Columns.User: [user_of(u) for u, _ in pairs],
            Columns.Item: [item_of(j) for _, j in pairs],
            Columns.Weight: rng.integers(1, 6, len(pairs)).astype(float),
            Columns.Datetime: pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.permutation(len(pairs)), "h"),
        }
    )
    texts = [" ".join(rng.choice(WORDS, 8)) for _ in range(30)]
    return interactions, pd.DataFrame({"item": [item_of(j) for j in range(30)], "text": texts})


def own_fit(interactions, items, weights="confidence", **more):
    value = "rating" if weights == "rating" else "weight"
    names = {"user_id": "user", "item_id": "item", "weight": value, "datetime": "time"}
    chosen = more if items is None else OPTIONS | more
    return inference.fit(interactions.rename(columns=names), "none", items=items, **chosen)


def check(theirs, own, users, k, key="user_id", of="user"):
    assert list(theirs[key].unique()) == users
    for user in users:
        mine, one = own[own[of] == user].head(k), theirs[theirs[key] == user]
        assert one["item_id"].tolist() == mine["item"].tolist() and one["rank"].tolist() == list(
            range(1, len(mine) + 1)
        )
        np.testing.assert_allclose(one["score"], mine["score"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("options", [{"mode": "map"}, {"mode": "bayes"}])
def test_the_model_fits_and_lists_as_we_do(whole, options):
    interactions, items = tables(whole)
    dataset = Dataset.construct(interactions)
    model = CVAEModel(OPTIONS | options, items).fit(dataset)
    fit, users = own_fit(interactions, items, **options), interactions["user_id"].unique().tolist()[3:6]
    known = interactions["item_id"].unique().tolist()  # RecTools knows of no other item
    theirs = model.recommend(users, dataset, 5, filter_viewed=True)
    check(theirs, recommend(fit, users, 30, candidates=known), users, 5)
    seen = model.recommend(users, dataset, 5, filter_viewed=False, items_to_recommend=known[:9])
    check(seen, recommend(fit, users, 30, candidates=known[:9], keep_seen=True), users, 5)
    targets = known[2:5]
    like = model.recommend_to_items(targets, dataset, 4)
    check(like, similar_items(fit, targets, 4, candidates=known), targets, 4, "target_item_id", "to")
    itself = model.recommend_to_items(targets, dataset, 1, filter_itself=False)
    assert itself["item_id"].tolist() == targets and itself["score"].tolist() == [1, 1, 1]


def test_items_without_interactions_are_listed_where_rectools_has_features_of_them():
    interactions, items = tables()
    features = pd.DataFrame({"id": items["item"], "feature": "kind", "value": "book"})
    dataset = Dataset.construct(interactions, item_features_df=features, cat_item_features=["kind"])
    model = CVAEModel(OPTIONS, items).fit(dataset)
    theirs = model.recommend(["u1"], dataset, 30, filter_viewed=True)
    check(theirs, recommend(own_fit(interactions, items), ["u1"], 30), ["u1"], 30)
    assert {"i27", "i28", "i29"} <= set(theirs["item_id"])
    like = model.recommend_to_items(["i28"], dataset, 3)
    check(like, similar_items(own_fit(interactions, items), ["i28"], 3), ["i28"], 3, "target_item_id", "to")


@pytest.mark.parametrize("weights", ["confidence", "rating"])
def test_users_of_a_later_data_set_are_folded_in(weights):
    interactions, items = tables()
    options = {"rating_likelihood": "normal"} if weights == "rating" else {}
    old, new = interactions[interactions["user_id"] != "u7"], interactions[interactions["user_id"] == "u7"]
    model = CVAEModel(OPTIONS | options, items, weights).fit(Dataset.construct(old))
    value = {"rating": "ratings", "confidence": "confidences"}[weights]
    more = fold_in(own_fit(old, items, weights, **options), new["user_id"], new["item_id"], **{value: new["weight"]})
    theirs = model.recommend(["u3", "u7"], Dataset.construct(interactions), 5, filter_viewed=True)
    known = interactions["item_id"].unique().tolist()
    check(theirs, recommend(more, ["u3", "u7"], 30, candidates=known), ["u3", "u7"], 5)


def test_warm_users_get_the_average_list_and_cold_ones_are_refused():
    interactions, items = tables()
    features = pd.DataFrame({"id": ["u1", "warm"], "feature": "sex", "value": "x"})
    dataset = Dataset.construct(
        interactions[interactions["user_id"].isin(["u1", "u2"])], user_features_df=features, cat_user_features=["sex"]
    )
    fit = own_fit(interactions, items)
    model = CVAEModel.of(fit)
    known = dataset.item_id_map.external_ids.tolist()
    theirs = model.recommend(["warm"], dataset, 5, filter_viewed=True)
    check(theirs, recommend(fit, ["warm"], 30, candidates=known, unknown="prior"), ["warm"], 5)
    with pytest.raises(ValueError, match="cold"):
        model.recommend(["cold"], dataset, 5, filter_viewed=True)
    with pytest.raises(InputError, match="the model is of a fit that is there"):
        model.fit(dataset)


def test_rectools_own_cross_validation_measures_the_lists_that_we_make():
    interactions, _ = tables()
    interactions["weight"] = 1.0
    splitter, dataset = LastNSplitter(3, n_splits=1), Dataset.construct(interactions)
    models = {"fit": CVAEModel(PMF), "popular": PopularModel()}
    metrics = {"recall": Recall(6), "map": MAP(6)}
    measured = cross_validate(dataset, splitter, metrics, models, k=6, filter_viewed=True)["metrics"]
    recall = {row["model"]: row["recall"] for row in measured}
    ((train, test, _),) = splitter.split(dataset.interactions)
    raw = dataset.get_raw_interactions()
    table = recommend(own_fit(raw.iloc[train], None, **PMF), raw["user_id"].unique(), 6)
    hit = table.merge(raw.iloc[test], left_on=["user", "item"], right_on=["user_id", "item_id"])
    counted = raw.iloc[test].groupby("user_id").size()
    own = (hit.groupby("user").size().reindex(counted.index, fill_value=0) / counted).mean()
    assert recall["fit"] == pytest.approx(own, abs=1e-9) and 0 < own < 1 and recall["popular"] != recall["fit"]


def test_the_model_is_made_from_a_config_and_says_its_own(tmp_path):
    interactions, items = tables()
    items.to_csv(tmp_path / "items.csv", index=False)
    config = {
        "cls": "inference.adapters.rectools.CVAEModel",
        "options": {"mode": "map"},
        "items": str(tmp_path / "items.csv"),
    }
    model = model_from_config(config)
    assert type(model) is CVAEModel
    said = model.get_config(simple_types=True)
    assert {name: said[name] for name in config} == config and said["weights"] == "confidence"
    model.options = OPTIONS
    dataset = Dataset.construct(interactions)
    theirs = model.fit(dataset).recommend(["u4"], dataset, 3, filter_viewed=True)
    own = recommend(own_fit(interactions, items), ["u4"], 3, candidates=dataset.item_id_map.external_ids.tolist())
    check(theirs, own, ["u4"], 3)
    with pytest.raises(InputError, match="a table has no place in a config"):
        CVAEModel(items=items).get_config()


def test_the_page_runs():
    interactions, items = tables()
    (block,) = [one for one in blocks("python", (ROOT / "docs" / "adapters.md").read_text()) if "rectools" in one]
    space = {"frame": interactions, "users": ["u1", "u2"], "texts": items}
    exec(block, space)
    assert space["lists"].groupby("user_id").size().to_dict() == {"u1": 10, "u2": 10}
