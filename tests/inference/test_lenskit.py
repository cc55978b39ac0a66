"""A fit as the scorer of LensKit's own pipelines, measured by its own metrics. `make peers` runs this."""

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.recommending import fold_in, recommend

pytest.importorskip("lenskit", reason="LensKit is not installed beside these pins: make peers, docs/adapters.md")

from lenskit.batch import recommend as recommend_all
from lenskit.data import DatasetBuilder, ItemList, RecQuery
from lenskit.metrics import NDCG, Recall, RunAnalysis
from lenskit.pipeline import RecPipelineBuilder, predict_pipeline, topn_pipeline
from lenskit.splitting import SampleN, sample_users

from inference.adapters.lenskit import CVAEScorer, tables_of
from tests.test_likelihoods_page import ROOT, blocks

OPTIONS = {"method": "coordinate", "factors": 4, "hidden": (8,), "pretrain_epochs": 2, "epochs": 3, "threads": 1}
N_USERS, N_ITEMS = 40, 30
WORDS = ("comet", "nebula", "sail", "mast", "oven", "pastry", "lemma", "proof")


def tables(stars=False, whole=False):
    rng = np.random.default_rng(0)
    user_of, item_of = (lambda u: 7 * u, lambda j: 100 + j) if whole else (lambda u: f"u{u}", lambda j: f"i{j}")
    pairs = [(u, int(j)) for u in range(N_USERS) for j in rng.choice(N_ITEMS - 3, 8, replace=False)]
    interactions = {"user_id": [user_of(u) for u, _ in pairs], "item_id": [item_of(j) for _, j in pairs]}
    if stars:
        interactions["rating"] = rng.integers(1, 6, len(pairs)).astype(float).tolist()
    texts = [" ".join(rng.choice(WORDS, 8)) for _ in range(N_ITEMS)]
    items = {"item_id": [item_of(j) for j in range(N_ITEMS)], "text": texts, "title": [t.title() for t in texts]}
    return pd.DataFrame(interactions), pd.DataFrame(items)


def lenskit_data(interactions, items=None):
    builder = DatasetBuilder("small")
    if items is not None:
        builder.add_entities("item", items["item_id"].tolist())
        for name in ("text", "title"):
            builder.add_scalar_attribute("item", name, items["item_id"].tolist(), items[name].tolist())
    builder.add_interactions(
        "rating" if "rating" in interactions else "click",
        interactions,
        entities=["user", "item"],
        missing="insert",
        default=True,
    )
    return builder.build()


def own_fit(interactions, items, **more):
    """The fit of the same tables, the items in the order that LensKit gives them."""
    names, order = {"user_id": "user", "item_id": "item"}, lenskit_data(interactions, items).items.ids().tolist()
    items = items.set_index("item_id").loc[order].reset_index().rename(columns=names)
    return inference.fit(interactions.rename(columns=names), "none", items=items, **OPTIONS | more)


@pytest.fixture(autouse=True)
def threads():
    """LensKit sets torch's threads when it starts."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("mode", ["map", "bayes"])
def test_the_pipeline_trains_and_lists_as_we_do(whole, mode):
    interactions, items = tables(whole=whole)
    pipeline = topn_pipeline(CVAEScorer(options=OPTIONS | {"mode": mode}), n=6)
    pipeline.train(lenskit_data(interactions, items))
    users = sorted(interactions["user_id"].unique().tolist())[3:6]
    mine = recommend(own_fit(interactions, items, mode=mode), users, N_ITEMS)
    lists = recommend_all(pipeline, users, n=6)
    cold = set(items["item_id"]) - set(interactions["item_id"])
    for user in users:
        (theirs,) = [one for key, one in lists.items() if key.user_id == user]
        own = mine[mine["user"] == user]
        own = own[~own["item"].isin(cold)].head(6)  # LensKit's candidates are the items that somebody has
        assert theirs.ids().tolist() == own["item"].tolist()
        np.testing.assert_allclose(theirs.scores(), own["score"], rtol=1e-4)
        if mode == "bayes":
            np.testing.assert_allclose(theirs.field("sd"), own["sd"], rtol=1e-4)
    assert (theirs.field("sd") is None) == (mode == "map")


def test_a_fit_that_is_there_stays_and_scores_items_that_nobody_has():
    interactions, items = tables()
    fit = own_fit(interactions, items)
    scorer = CVAEScorer.of(fit)
    pipeline = topn_pipeline(scorer, n=6)
    pipeline.train(lenskit_data(interactions.head(20), items))
    asked = ItemList(item_ids=["i29", "i3", "nothing"])  # a cold one, a known one, an unknown one
    scores = pipeline.run("scorer", query="u3", items=asked).scores()
    table = recommend(fit, ["u3"], 3, candidates=["i29", "i3"], keep_seen=True).set_index("item")["score"]
    np.testing.assert_allclose(scores[:2], [table["i29"], table["i3"]], rtol=1e-5)
    assert np.isnan(scores[2])


def test_new_users_are_folded_in_from_what_the_query_has():
    interactions, items = tables()
    fit = own_fit(interactions, items)
    pipeline = topn_pipeline(CVAEScorer.of(fit), n=5)
    pipeline.train(lenskit_data(interactions, items))
    liked, asked = ["i1", "i4", "i9"], ItemList(item_ids=[f"i{j}" for j in range(N_ITEMS)])
    query = RecQuery(user_id="stranger", history_items=ItemList(item_ids=[*liked, "nothing"]))
    scores = pipeline.run("scorer", query=query, items=asked).scores()
    more = recommend(fold_in(fit, ["new"] * 3, liked), ["new"], N_ITEMS, keep_seen=True).set_index("item")["score"]
    np.testing.assert_allclose(scores, more[asked.ids().tolist()], rtol=1e-4, atol=1e-6)
    for nobody in ("stranger", RecQuery(user_id="x", history_items=ItemList(item_ids=["nothing"]))):
        assert np.isnan(pipeline.run("scorer", query=nobody, items=asked).scores()).all()


def test_ratings_are_predicted_on_their_scale_and_measured():
    interactions, items = tables(stars=True)
    options = {"rating_likelihood": "normal", "mode": "bayes"}
    pipeline = predict_pipeline(CVAEScorer(options=OPTIONS | options), fallback=False)
    pipeline.train(lenskit_data(interactions, items))
    fit = own_fit(interactions, items, **options)
    asked = ItemList(item_ids=["i3", "i7"])
    found = pipeline.run("rating-predictor", query="u3", items=asked)
    own = recommend(fit, ["u3"], 9, candidates=["i3", "i7"], keep_seen=True).set_index("item")
    np.testing.assert_allclose(found.scores(), own.loc[["i3", "i7"], "rating"], rtol=1e-4)
    np.testing.assert_allclose(found.field("sd"), own.loc[["i3", "i7"], "rating_sd"], rtol=1e-4)


def test_a_run_folder_is_opened_by_name(tmp_path):
    interactions, items = tables()
    fit = own_fit(interactions, items, out=tmp_path / "run")
    builder = RecPipelineBuilder()
    builder.scorer(CVAEScorer, {"run": str(tmp_path / "run")})
    builder.ranker(n=4)
    pipeline = builder.build()
    pipeline.train(lenskit_data(interactions, items))
    listed = pipeline.run("recommender", query="u5").ids().tolist()
    own = recommend(fit, ["u5"], N_ITEMS)["item"]
    assert listed == [one for one in own if one not in ("i27", "i28", "i29")][:4]


def test_without_texts_a_model_that_reads_none():
    interactions, items = tables()
    data = lenskit_data(interactions)
    assert tables_of(data)[1] is None and tables_of(lenskit_data(interactions, items))[1]["title"][0].istitle()
    pipeline = topn_pipeline(CVAEScorer(options={"method": "coordinate", "model": "pmf", "factors": 4, "threads": 1}))
    pipeline.train(data)
    assert len(pipeline.run("recommender", query="u5", n=4)) == 4


def test_lenskit_s_own_evaluation_measures_the_lists_that_we_make():
    interactions, items = tables()
    split = sample_users(lenskit_data(interactions, items), 20, SampleN(3, rng=1), rng=2)
    pipeline = topn_pipeline(CVAEScorer(options=OPTIONS), n=6)
    pipeline.train(split.train)
    measured = RunAnalysis()
    measured.add_metric(Recall(6))
    measured.add_metric(NDCG(6))
    found = measured.measure(recommend_all(pipeline, split.test), split.test).list_metrics()
    train = split.train.interaction_table(format="pandas", original_ids=True)[["user_id", "item_id"]]
    fit, had = own_fit(train, items), train["item_id"].unique().tolist()
    for key, held_out in split.test.items():
        listed = recommend(fit, [key.user_id], 6, candidates=had)["item"]
        own = listed.isin(held_out.ids().tolist()).sum() / len(held_out)
        assert found.loc[key.user_id, "Recall@6"] == pytest.approx(own)
    assert 0 < found["Recall@6"].mean() < 1 and len(found) == 20


def test_the_page_runs():
    interactions, _ = tables()
    (block,) = [one for one in blocks("python", (ROOT / "docs" / "adapters.md").read_text()) if "lenskit" in one]
    space = {"frame": interactions, "users": ["u1", "u2"]}
    exec(block, space)
    assert [len(one) for one in space["lists"].lists()] == [10, 10]
