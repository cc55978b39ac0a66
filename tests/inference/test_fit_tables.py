"""``inference.fit`` of tables: the very fit of the data set that ``from_frames`` makes of them, and clear refusals."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import inference
from inference.recommending import recommend
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.reading import Reading
from pyro_cvae.errors import InputError

SMALL = {"factors": 2, "hidden": (4,), "pretrain_epochs": 1, "epochs": 1, "threads": 1, "train_per_user": 3}
WORDS = ("comet", "nebula", "sail", "mast", "oven", "pastry")


def tables(user="user", item="item", text="text"):
    rng = np.random.default_rng(0)
    pairs = [(f"用户-{u}", 3 * int(j)) for u in range(8) for j in rng.choice(12, 6, replace=False)]
    users, items = map(list, zip(*pairs, strict=True))
    interactions = {user: users, item: items, "rating": rng.integers(1, 6, len(pairs)).astype(float).tolist()}
    interactions["time"] = rng.random(len(pairs)).tolist()
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(12)]
    tags = [" ".join(rng.choice(WORDS, 2)) for _ in range(12)]
    return interactions, {item: [3 * j for j in range(12)], text: texts, "title": texts, "tags": tags}


def same(one, other):
    assert one.dataset.fingerprint() == other.dataset.fingerprint()
    assert one.split.fingerprint() == other.split.fingerprint()
    mine, theirs = one.posterior.tensors(), other.posterior.tensors()
    assert mine.keys() == theirs.keys() and all((mine[name] == theirs[name]).all() for name in mine)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, dict])
@pytest.mark.parametrize("mode", ["map", "bayes"])
def test_tables_give_the_fit_of_their_data_set(make, mode):
    interactions, items = tables()
    fit = inference.fit(make(interactions), items=make(items), mode=mode, **SMALL)
    same(fit, inference.fit(from_frames(interactions, items), mode=mode, **SMALL))
    assert recommend(fit, ["用户-1"], 3)["item"].isin(items["item"]).all()


def test_the_tables_may_be_of_two_kinds():
    interactions, items = tables()
    fit = inference.fit(pl.DataFrame(interactions), items=pd.DataFrame(items), **SMALL)
    same(fit, inference.fit(from_frames(interactions, items), **SMALL))


def test_options_of_the_data_say_how_tables_are_read():
    interactions, items = tables("who", "movie", "overview")
    chosen = {"columns": ["user=who", "item=movie", "text=overview"], "min_rating": 3, "tokenizer": "unicode-words"}
    fit = inference.fit(pd.DataFrame(interactions), "time", items=pd.DataFrame(items), **chosen, **SMALL)
    names = {"user": "who", "item": "movie", "text": "overview"}
    reading = Reading(names, tokenizer="unicode-words", min_rating=3)
    same(fit, inference.fit(from_frames(interactions, items, reading=reading), "time", **SMALL))
    assert fit.options.data.split == "time"


def test_stars_are_read_as_stars():
    interactions, items = tables()
    stars = {"method": "coordinate", "rating_likelihood": "normal", "sweeps": 1} | SMALL
    fit = inference.fit(interactions, items=items, **stars)
    assert set(fit.dataset.interactions.ratings) == {1.0, 2.0, 3.0, 4.0, 5.0}
    same(fit, inference.fit(from_frames(interactions, items, ratings="stars"), **stars))


def test_a_column_of_the_items_is_a_further_content():
    interactions, items = tables()
    fit = inference.fit(pd.DataFrame(interactions), items=pd.DataFrame(items), contents=["tags", "titles"], **SMALL)
    assert list(fit.dataset.contents) == ["text", "tags", "titles"]
    assert set(fit.dataset.contents["tags"].vocabulary) == set(WORDS)


def test_interactions_alone_go_with_a_model_that_reads_no_content():
    interactions, _ = tables()
    fit = inference.fit(pd.DataFrame(interactions), method="coordinate", model="pmf", factors=2, threads=1)
    assert not fit.dataset.contents and fit.dataset.n_items == len(set(interactions["item"]))
    with pytest.raises(InputError, match="have no content of the items"):
        inference.fit(pd.DataFrame(interactions), **SMALL)


def test_a_run_of_tables_opens_again(tmp_path):
    interactions, items = tables()
    fit = inference.fit(pd.DataFrame(interactions), items=pd.DataFrame(items), out=tmp_path / "run", **SMALL)
    same(inference.load(tmp_path / "run"), fit)


def test_what_is_no_table_is_refused_in_one_line(tmp_path):
    interactions, items = tables()
    dataset, frame = from_frames(interactions, items), pd.DataFrame(items)
    wrong = [
        (("ratings.csv",), {}, r"dataset is 'ratings.csv', a name or path, not a table; .*load_dataset reads files"),
        ((tmp_path,), {}, "a name or path, not a table"),
        ((interactions,), {"items": "items.csv"}, "items is 'items.csv', a name or path, not a table"),
        ((None,), {}, "there is nothing to fit: dataset is None"),
        ((5,), {}, "interactions: int is no table; give a pandas or polars frame, or a mapping"),
        ((interactions,), {"items": 5}, "items: int is no table"),
        ((interactions, frame), {}, "split is no split but a DataFrame; a table of items is given as items=TABLE"),
        ((dataset,), {"items": frame}, "items is a table, but a data set has its items already; leave items out"),
        ((frame,), {"items": frame}, "interactions: has no column user"),
        ((interactions,), {"items": frame, "factor": 3}, "did you mean 'factors'"),
    ]
    for given, options, said in wrong:
        with pytest.raises(InputError, match=said) as refused:
            inference.fit(*given, **SMALL | options)
        assert "\n" not in str(refused.value)


def test_a_data_set_keeps_where_its_items_are_from():
    interactions, items = tables()
    fit = inference.fit(from_frames(interactions, items), data="ratings.csv", items="items.csv", **SMALL)
    assert (fit.options.data.data, fit.options.data.items) == ("ratings.csv", "items.csv")
