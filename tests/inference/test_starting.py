"""``--start-from``: networks and settings are kept, rows go by their ids, and sweeps end where a refit does."""

import csv
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import inference
from inference.fit_command import run_fit
from inference.starting import FIXED
from models.build import new_rows
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.simulated import simulated_stars
from pyro_cvae.data.splits import nothing_held_out
from pyro_cvae.errors import InputError
from pyro_cvae.runs import open_run
from pyro_cvae.runs.manifest import write_manifest
from tests.inference.test_resume import tables

ROOT = Path(__file__).resolve().parents[2]
GIVEN = {"lambda_u": 2.0, "lambda_v": 0.5, "a": 1.0, "b": 0.1}
SMALL = {
    **{"method": "coordinate", "mode": "map", "factors": 3, "hidden": (6,), "pretrain_epochs": 4, "epochs": 0},
    **{"batch_size": 16, "threads": 1, "split": "none", "dtype": "float64"},
}
PAIRS, ITEMS = tables(30, 45)
NOT_YET_U, NOT_YET_I = {"user-3", "user-11"}, {"item-7", "item-20", "item-44"}
HOW = {"method": "coordinate", "mode": "map", "threads": 1}


def tables_of(pairs, items):
    users, rated = zip(*pairs, strict=True)
    ids, texts = zip(*items, strict=True)
    return {"user": users, "item": rated}, {"item": ids, "text": texts}


def data(pairs=PAIRS, items=ITEMS):
    return from_frames(*tables_of(pairs, items), name="small")


def before(share=0.8):
    """Some of the pairs, and the users and items that were there then."""
    rng = np.random.default_rng(1)
    pairs = [pair for pair in PAIRS if pair[0] not in NOT_YET_U and pair[1] not in NOT_YET_I]
    pairs = [pair for pair in pairs if rng.random() < share]
    return pairs, [item for item in ITEMS if item[0] not in NOT_YET_I]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return inference.fit(data(*before()), **SMALL, **GIVEN, sweeps=60, out=tmp_path_factory.mktemp("old") / "run")


def by_id(fit, side):
    """Means of u, v or z by external id."""
    ids = fit.dataset.user_ids if side == "u" else fit.dataset.item_ids
    return dict(zip(ids.tolist(), getattr(fit.posterior, f"{side}_loc").numpy(), strict=True))


def farthest(one, other, side, ids=None):
    mine, theirs = by_id(one, side), by_id(other, side)
    ids = mine.keys() & theirs.keys() if ids is None else ids
    return max(float(np.abs(mine[key] - theirs[key]).max()) for key in ids)


# --- where it ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [{"mode": "map"}, {"mode": "bayes"}, {"mode": "bayes", "guide": "structured"}])
def test_it_ends_where_a_fit_of_everything_does(kind):
    """Networks are of the contents alone: with the same texts and seed a refit has the same ones."""
    some = [pair for pair in before()[0] if pair[1] != "item-1"]
    options = SMALL | GIVEN | kind
    first = inference.fit(data(some, ITEMS), **options, sweeps=5)
    full = inference.fit(data(), **options, sweeps=400)
    more = inference.fit(data(), **HOW | kind, start_from=first, sweeps=400)
    assert torch.equal(first.posterior.z_loc, full.posterior.z_loc)
    for side in "uv":
        assert farthest(more, full, side) < 1e-4 * farthest(first, full, side)
    for name in ("ratings", "log_p_u", "log_p_v") if kind["mode"] == "map" else ("ratings", "kl_u", "kl_v"):
        assert more.history[-1][name] == pytest.approx(full.history[-1][name], rel=1e-6)


def test_one_sweep_goes_a_long_way(old):
    """On the data that it was fitted to, v stays where it was; from nothing it is far away after as many sweeps."""
    again = inference.fit(old.dataset, **HOW, start_from=old, sweeps=1)
    anew = inference.fit(old.dataset, **SMALL, **GIVEN, sweeps=1)
    assert len(again.history) == 1 and farthest(again, old, "v") < 0.02 * farthest(anew, old, "v")


def test_rows_go_by_their_ids(old):
    """In another order, and with ids that are new, the same items have the same factors."""
    shuffled = np.random.default_rng(2).permutation(len(ITEMS))
    one = inference.fit(data(), **HOW, start_from=old, sweeps=2)
    other = inference.fit(data(PAIRS[::-1], [ITEMS[row] for row in shuffled]), **HOW, start_from=old, sweeps=2)
    assert one.dataset.item_ids.tolist() != other.dataset.item_ids.tolist()
    for side in "uvz":
        assert farthest(one, other, side) < 1e-9
    assert set(by_id(one, "u")) - set(by_id(old, "u")) == NOT_YET_U


def test_whole_numbers_and_texts_that_spell_them_are_the_same_ids():
    pairs = [(int(user[5:]), int(item[5:])) for user, item in PAIRS]
    items = [(int(item[5:]), text) for item, text in ITEMS]
    first = inference.fit(data(pairs, items), **SMALL, **GIVEN, sweeps=60)
    texts = [(f"{user}", f"{item}") for user, item in pairs], [(f"{item}", text) for item, text in items]
    again = inference.fit(data(*texts), **HOW, start_from=first, sweeps=1)
    assert max(np.abs(by_id(again, "v")[f"{key}"] - v).max() for key, v in by_id(first, "v").items()) < 0.02


def test_stars_on_another_scale_go_on_too():
    """New ratings have another mean and spread, on which a fit is made; biases, noise and v know it."""
    stars = simulated_stars()
    pairs = stars.interactions
    some = replace(stars, truth=None, interactions=pairs.select(pairs.ratings < 5))
    small = {"rating_likelihood": "normal", "model": "pmf", "factors": 3, "threads": 1, "split": "none"}
    first = inference.fit(some, method="coordinate", mode="map", **small, epochs=0, sweeps=40)
    scores = [first.posterior.score_block(np.arange(50)).numpy()]
    for ratings in (some, replace(stars, truth=None)):
        fit = inference.fit(ratings, **HOW, start_from=first, sweeps=1)
        assert fit.model.precisions() == pytest.approx(first.model.precisions(), rel=1e-5)
        scores.append(fit.posterior.score_block(np.arange(50)).numpy())
    moved = [np.sqrt(np.mean((one - scores[0]) ** 2)) for one in scores[1:]]
    assert moved[0] < 0.02 < moved[1] < 1.0, "the first are the same ratings, the second have the fives too"


@pytest.mark.parametrize(
    ("factor", "shift", "doubted"), [(1, 0, False), (1, 0.5, False), (1e6, 0, True), (1, -20, True)]
)
def test_ratings_in_other_units_are_doubted(factor, shift, doubted, caplog):
    stars = replace(simulated_stars(), truth=None)
    own = {"rating_likelihood": "normal", "model": "pmf", "factors": 2, "threads": 1, "split": "none", "sweeps": 1}
    own |= {"method": "coordinate", "mode": "map", "epochs": 0}
    first = inference.fit(stars, **own)
    other = replace(stars.interactions, ratings=factor * stars.interactions.ratings + shift)
    caplog.clear()
    inference.fit(replace(stars, interactions=other), **own, start_from=first)
    assert ("if they are in other units" in caplog.text) == doubted


# --- what is read ----------------------------------------------------------------------------------------------------


def test_texts_are_read_as_the_run_read_them(old):
    """An item of the same text has the same z; one whose text has changed, and a new one, that of the run's encoder."""
    changed = dict(ITEMS) | {"item-2": "violin melody zebra zebra"}
    pairs, items = tables_of(PAIRS, list(changed.items()))
    fit = inference.fit(pairs, items=items, **HOW, start_from=old.path, sweeps=1)
    assert fit.dataset.content.vocabulary == old.dataset.content.vocabulary
    same = set(by_id(old, "z")) - {"item-2"}
    assert farthest(fit, old, "z", same) < 1e-12 < farthest(fit, old, "z", {"item-2"})
    anew = ["item-2", *sorted(NOT_YET_I)]
    encoded = old.encode_content(old.dataset.content.of([changed[item] for item in anew]))[0]
    for item, z in zip(anew, encoded.numpy(), strict=True):
        assert np.abs(by_id(fit, "z")[item] - z).max() < 1e-12
    cold = fit.dataset.item_ids[fit.split.train.item_counts == 0].tolist()
    assert "item-44" in cold and np.abs(by_id(fit, "v")["item-44"] - by_id(fit, "z")["item-44"]).max() < 1e-12


def test_a_data_set_with_a_vocabulary_of_its_own_is_counted_in_the_columns_of_the_run(old, caplog):
    own = data(PAIRS, [(item, text + " zebra") for item, text in ITEMS])
    assert own.content.vocabulary != old.dataset.content.vocabulary
    with caplog.at_level(logging.INFO, "pyro_cvae"):
        fit = inference.fit(own, **HOW, start_from=old, sweeps=1)
    assert farthest(fit, old, "z") < 1e-12
    told = [record.message for record in caplog.records]
    assert any("words are among the" in one for one in told) and any(
        "28 of 30 users and 42 of 45" in one for one in told
    )


def test_the_new_run_is_one_like_any_other(old, tmp_path):
    fit = inference.fit(data(), **HOW, start_from=old.path, sweeps=60, out=tmp_path / "next")
    loaded = inference.load(fit.path)
    for name, tensor in fit.posterior.tensors().items():
        assert torch.equal(tensor, loaded.posterior.tensors()[name]), name
    text = fit.dataset.content.of(["comet orbit"])
    assert torch.equal(fit.encode(text)[0], loaded.encode(text)[0]) and torch.equal(
        fit.encode(text)[0], old.encode(text)[0]
    )
    config = open_run(fit.path).config
    assert config["started_from"] == "run"
    manifest = old.path / "manifest.json"
    assert config["fingerprints"]["start"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    third = inference.fit(data(), **HOW, start_from=fit, sweeps=1, out=tmp_path / "third")
    assert open_run(third.path).config["options"]["start_from"] == "next", "a fit at hand is named, not its place"
    assert farthest(third, fit, "v") < 0.05


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned():
    """A fit that has found b, shrinkages and c."""
    fit = inference.fit(data(*before(1.0)), **SMALL, tune=4, sweeps=3)
    model = fit.model
    model.scale_contents(torch.as_tensor(fit.split.train.item_counts == 0), 2.0, 3.0)
    model.ratings.weigh_zeros(0.3, 0.6)
    return fit


def test_what_a_run_has_found_is_taken_over(tuned):
    fit = inference.fit(data(), **HOW, start_from=tuned, sweeps=1)
    assert fit.options.fit.tune == 0 and fit.metrics["tuning"] == tuned.metrics["tuning"]
    assert fit.model.precisions() == tuned.model.precisions() and fit.model.ratings.b == pytest.approx(0.3)
    assert fit.model.ratings.b_power == pytest.approx(0.6)
    scale = fit.model.content_scale.numpy()
    unrated = fit.split.train.item_counts == 0
    assert (scale[:-1] == np.where(unrated, 2.0, 1.0)).all() and scale[-1] == 3.0
    cold = fit.dataset.item_ids[unrated].tolist()
    assert np.abs(by_id(fit, "v")[cold[0]] - 2 * by_id(fit, "z")[cold[0]]).max() < 1e-12


def test_what_options_say_is_not(tuned):
    found = tuned.model.precisions()
    fit = inference.fit(data(), **HOW, start_from=tuned, sweeps=1, b=0.02, cold_scale=1.5)
    assert fit.model.ratings.b == 0.02 and fit.model.precisions() == found
    assert fit.model.ratings.b_power == pytest.approx(0.6)
    other = inference.fit(data(), **HOW, start_from=tuned, sweeps=1, b_power=0.25).model.ratings
    assert other.b_power == 0.25 and other.b == pytest.approx(0.3)
    assert fit.model.scale_of_new_items == 1.5 and "tuning" not in fit.metrics
    fit = inference.fit(data(), **HOW, start_from=tuned, sweeps=1, lambda_u=7.0)
    assert fit.model.lambda_u == 7.0 and fit.model.lambda_v == found["lambda_v"]
    one, two = (inference.fit(data(), **HOW, start_from=tuned, sweeps=1, user_shrinkage=s).model for s in (8.0, 16.0))
    assert two.lambda_u == pytest.approx(2 * one.lambda_u) and one.lambda_v == found["lambda_v"]


def test_settings_are_looked_for_again_where_that_is_asked(tuned):
    fit = inference.fit(data(), **HOW, start_from=tuned, sweeps=1, tune=2)
    first, taken = fit.metrics["tuning"][0], next(row for row in tuned.metrics["tuning"] if row["taken"] == "yes")
    assert first["b"] == pytest.approx(0.3) and first["user_shrinkage"] == taken["user_shrinkage"]
    assert fit.options.fit.tune == 2 and fit.metrics["tuning"] != tuned.metrics["tuning"]


def test_networks_go_on_learning_where_that_is_asked(old):
    held = inference.fit(data(), **HOW, start_from=old, sweeps=1)
    moved = inference.fit(data(), **HOW, start_from=old, sweeps=1, epochs=2, learning_rate=0.01)
    assert [row["phase"] for row in moved.history] == ["joint", "joint", "sweep"]
    assert farthest(held, old, "z") < 1e-12 < farthest(moved, old, "z") < 1.0


@pytest.mark.parametrize("kind", [{"mode": "map"}, {"mode": "bayes", "parametrization": "non-centred"}])
def test_gradients_begin_where_the_run_was(old, kind):
    how = {"method": "svi", "threads": 1, "start_from": old, "epochs": 1, "factor_learning_rate": 1e-6} | kind
    fit = inference.fit(old.dataset, **how)
    assert fit.options.fit.learning_rate == 0 and farthest(fit, old, "z") < 1e-12
    rated = old.dataset.item_ids[old.split.train.item_counts > 0].tolist()
    assert farthest(fit, old, "v", rated) < 1e-4 and farthest(fit, old, "u") < 1e-4


def test_another_mode_and_another_algorithm(old):
    sure = inference.fit(old.dataset, **HOW | {"mode": "bayes"}, start_from=old, sweeps=20, guide="structured")
    points = inference.fit(old.dataset, **HOW, start_from=sure, sweeps=100)
    best = inference.fit(old.dataset, **HOW, start_from=old, sweeps=100)
    assert points.options.kind == "point" and farthest(points, best, "v") < 0.5 * farthest(sure, best, "v")
    gradients = inference.fit(old.dataset, method="svi", mode="bayes", threads=1, start_from=sure, guide="mean-field")
    assert gradients.options.fit.epochs == 20, "a run of sweeps has no epochs to take over"
    apart = {"method": "svi", "mode": "map", "parametrization": "non-centred", "epochs": 1, "threads": 1}
    other = inference.fit(old.dataset, start_from=old, **apart)
    back = inference.fit(old.dataset, **HOW, start_from=other, sweeps=2)
    assert back.options.model.parametrization == "centred"


# --- the command, files ----------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs ``inference.coordinate`` in a folder with the tables; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for name, (pairs, items) in {"old": before(), "new": (PAIRS, ITEMS)}.items():
        for kind, header, rows in (("pairs", ("user", "item"), pairs), ("items", ("item", "text"), items)):
            with open(f"{name}-{kind}.csv", "w", newline="") as stream:
                csv.writer(stream).writerows([header, *rows])

    def run(*words, method="coordinate"):
        monkeypatch.setattr(sys, "argv", ["x", *words])
        try:
            code = run_fit(method)
        except SystemExit as error:
            code = error.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


OLD = ["--data", "old-pairs.csv", "--items", "old-items.csv", "--split", "none", "--mode", "map", "--factors", "3"]
OLD += ["--hidden", "6", "--pretrain-epochs", "2", "--epochs", "1", "--sweeps", "2", "--tokenizer", "unicode-words"]
NEW = ["--data", "new-pairs.csv", "--items", "new-items.csv", "--threads", "1", "--quiet"]


def test_by_the_command_and_by_files(command):
    assert command(*OLD, "--threads", "1", "--quiet", "--out", "run")[0] == 0
    code, out, err = command(*NEW, "--start-from", "run", "--out", "next")
    assert code == 0 and "goes on from" in out, err
    options = open_run("next").config["options"]
    taken = {"factors": 3, "hidden": [6], "sweeps": 2, "mode": "map", "tokenizer": "unicode-words", "split": "none"}
    assert {name: options[name] for name in taken} == taken
    assert (options["epochs"], options["pretrain_epochs"], options["tune"]) == (0, 0, 0)
    assert (options["start_from"], options["data"]) == ("run", "new-pairs.csv")

    # a file of a fit from nothing says nothing of epochs; one that says start_from does
    code, whole, _ = command(*OLD, "--print-config")
    with open("mine.yaml", "w") as stream:
        stream.write(whole)
    code, _, err = command("--config", "mine.yaml", *NEW, "--start-from", "run", "--out", "by-file")
    assert code == 0, err
    assert open_run("by-file").config["options"]["epochs"] == 0
    with open("next.yaml", "w") as stream:
        stream.write("start_from: run\nepochs: 1\nsweeps: 1\nout: by-yaml\n")
    assert command("--config", "next.yaml", *NEW)[0] == 0
    assert [row["phase"] for row in inference.load("by-yaml").history] == ["joint", "sweep"]
    assert command(*NEW, "--preset", "best", "--start-from", "run", "--out", "by-preset")[0] == 0
    one, two = (inference.load(name).posterior.v_loc for name in ("next", "by-preset"))
    assert torch.equal(one, two), "what the run says wins over a preset"
    code, printed, _ = command(*NEW, "--start-from", "run", "--print-config")
    assert "start_from: run" in printed and "factors: 3" in printed and "epochs: 0" in printed


def test_a_killed_fit_goes_on(old, tmp_path, killed):
    options = HOW | {"start_from": old.path, "sweeps": 5, "checkpoint_seconds": 0.0}
    whole = inference.fit(data(), **options)
    with killed(3):
        inference.fit(data(), **options, out=tmp_path / "next")
    fit = inference.fit(data(), **options, out=tmp_path / "next", resume=True)
    for name, tensor in whole.posterior.tensors().items():
        assert torch.equal(tensor, fit.posterior.tensors()[name]), name
    with killed(3):
        inference.fit(data(), **options, out=tmp_path / "other")
    copy = tmp_path / "copy"
    shutil.copytree(old.path, copy)
    (copy / "metrics.json").write_text((copy / "metrics.json").read_text().replace("\n}", ' ,"more": 1\n}'))
    sign(copy)
    with pytest.raises(InputError, match=r"--start-from is .*, but the run was begun with"):
        inference.fit(data(), **options | {"start_from": copy}, out=tmp_path / "other", resume=True)
    shutil.copytree(copy, old.path.with_name("moved"))
    kept = old.path.with_name("kept")
    old.path.rename(kept)
    try:
        copy.rename(old.path)
        with pytest.raises(InputError, match="the start has changed since the run was begun"):
            inference.fit(data(), **options, out=tmp_path / "other", resume=True)
    finally:
        shutil.rmtree(old.path)
        kept.rename(old.path)


def sign(folder):
    """A right manifest over whatever is in a run folder."""
    write_manifest(folder, [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"])


# --- what cannot be --------------------------------------------------------------------------------------------------

OTHER = {
    **{
        "model": "pmf",
        "factors": 4,
        "content_likelihood": "bernoulli",
        "content": "text",
        "scaling": "binary",
        "tokenizer": "bigrams",
    },
    **{"balance": True, "network": "mlp", "hidden": (5,), "activation": "tanh", "radius": 2.0, "tied": False},
    **{"encoder_input": "same", "rating_likelihood": "normal", "biases": "on"},
}


@pytest.mark.parametrize("name", [name for name in FIXED if not name.endswith("_args")])
def test_another_model_is_refused_before_the_data_are_read(old, name):
    with pytest.raises(InputError) as error:
        inference.fit({"user": []}, **HOW, start_from=old, **{name: OTHER[name]})
    assert f"--{name.replace('_', '-')} is {OTHER[name]!r}, but the run to go on from has" in str(error.value)
    assert "without --start-from" in str(error.value)


def test_other_refusals(old, tmp_path):
    with pytest.raises(InputError, match="--pretrain-epochs is 3, but it must be 0 with --start-from"):
        inference.fit(data(), **HOW, start_from=old, pretrain_epochs=3)
    with pytest.raises(InputError, match=r"--start-from is not of inference\.mcmc"):
        inference.fit(data(), method="mcmc", start_from=old)
    with pytest.raises(InputError, match="there is no such run folder"):
        inference.fit(data(), **HOW, start_from=tmp_path / "nowhere")
    drawn = {"pretrain_epochs": 1, "draws": 2, "warmup": 2, "chains": 1, "factors": 2, "hidden": (4,), "threads": 1}
    draws = inference.fit(data(), method="mcmc", split="none", **drawn)
    with pytest.raises(InputError, match=r"stored draws of inference\.mcmc are no point to go on from"):
        inference.fit(data(), **HOW, start_from=draws)
    topics = inference.fit(data(), **SMALL | {"model": "ctr"}, sweeps=1)
    with pytest.raises(InputError, match="CTR has learned theta of every item, which new items have not"):
        inference.fit(data(), **HOW, start_from=topics)
    with pytest.raises(InputError, match="the content text is words of 9, that of the run words of 15"):
        counts = replace(data().content.select(slice(None)), vocabulary=None, vectorizer=None)
        inference.fit(replace(data(), content=type(counts)(counts.counts[:, :9])), **HOW, start_from=old)


def test_data_without_the_content_of_the_run(old):
    users, items = zip(*PAIRS, strict=True)
    with pytest.raises(InputError, match="the run is of the content text, which the data have not; give it"):
        inference.fit({"user": users, "item": items}, **HOW, start_from=old)


def test_an_item_without_a_text_is_one_of_no_words(old):
    pairs, items = tables_of(PAIRS, [(item, "" if item == "item-2" else text) for item, text in ITEMS])
    fit = inference.fit(pairs, items=items, **HOW, start_from=old, sweeps=1)
    blank = old.dataset.content.of([""]).counts
    rows = new_rows(old.model, old.dataset, old.options.model.content, blank, old.scalings).to(dtype=torch.float64)
    with torch.no_grad():
        empty = old.model.item_prior.encode(rows)[0].numpy()[0]
    assert np.abs(by_id(fit, "z")["item-2"] - empty).max() < 1e-12


def test_test_pairs_that_the_run_was_fitted_to_are_told(old, caplog):
    with caplog.at_level(logging.WARNING, "pyro_cvae"):
        inference.fit(data(), **HOW, start_from=old, sweeps=1, split="per-user", train_per_user=5)
    told = [record.message for record in caplog.records if "training pairs of the run" in record.message]
    assert len(told) == 1 and int(told[0].split()[0]) > 50
    caplog.clear()
    known = {(user, item) for user, item in before()[0]}
    split = nothing_held_out(whole := data())
    pairs = whole.interactions
    there = [(whole.user_ids[u], whole.item_ids[i]) in known for u, i in zip(pairs.users, pairs.items, strict=True)]
    fresh = replace(split, train=pairs.select(there), test=pairs.select(~np.array(there)))
    with caplog.at_level(logging.WARNING, "pyro_cvae"):
        inference.fit(whole, fresh, **HOW, start_from=old, sweeps=1)
    assert not [record for record in caplog.records if "training pairs of the run" in record.message]


# --- a stranger's run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "evil_module.Model"),
        ("network", "evil_module:Networks"),
        ("content_likelihood_args", {"words": "evil_module.Words"}),
        ("rating_likelihood", "evil_module.Ratings"),
        ("tokenizer", "evil_module.tokenize"),
    ],
)
def test_a_class_that_a_run_names_is_not_imported(old, tmp_path, monkeypatch, command, field, value):
    (tmp_path / "evil_module.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    theirs = tmp_path / "theirs"
    shutil.copytree(old.path, theirs)
    config = json.loads((theirs / "config.json").read_text())
    config["options"][field] = value
    config["options"] |= {"data": "/etc/passwd", "contents": ["x=words:/etc/passwd"], "content_likelihood": "auto"}
    (theirs / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    sign(theirs)
    code, _, err = command(*NEW, "--start-from", "theirs", "--out", "mine")
    assert code == 2 and "error: theirs: the run asks for evil_module" in err and "if you trust it" in err
    with pytest.raises(InputError, match="the run asks for evil_module"):
        inference.fit(data(), **HOW, start_from=theirs)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "mine").exists()


def test_places_of_a_run_are_not_read(old, tmp_path):
    """Neither its data nor files of contents, nor what a manifest does not list or a config has no type for."""
    theirs = tmp_path / "theirs"
    shutil.copytree(old.path, theirs)
    path = theirs / "config.json"
    config = json.loads(path.read_text())
    config["options"] |= {"data": "/etc/passwd", "items": "/etc/passwd", "train_file": "/etc/passwd"}
    path.write_text(json.dumps(config, indent=1) + "\n")
    with pytest.raises(InputError, match=r"config.json: (has .* bytes|is damaged)"):
        inference.fit(data(), **HOW, start_from=theirs)
    sign(theirs)
    options = inference.fit(data(), **HOW, start_from=theirs, sweeps=1).options
    assert (options.data.data, options.data.items, options.data.train_file) == ("simulated", None, None)
    config["options"]["factors"] = "many"
    path.write_text(json.dumps(config, indent=1) + "\n")
    sign(theirs)
    with pytest.raises(InputError, match=r"config.json: factors is 'many', which it cannot be"):
        inference.fit(data(), **HOW, start_from=theirs)


# --- the page --------------------------------------------------------------------------------------------------------


def test_what_the_page_of_production_shows(command):
    """Its commands from `Fit` on, on small tables, and its lines of Python."""
    page = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
    section = page.partition("## New ratings")[2].partition("\n## ")[0]
    lines = re.findall(r"^    python -m inference\.coordinate (.*--(?:out|start-from) .*)$", page, re.M)
    assert len(lines) == 3 and "--start-from" in lines[1] and "--log jsonl" in lines[2]
    os.makedirs("runs")
    small = [
        "--mode",
        "map",
        "--factors",
        "3",
        "--hidden",
        "6",
        "--pretrain-epochs",
        "2",
        "--epochs",
        "1",
        "--tune",
        "2",
    ]
    code, printed, _ = command(
        "--data", "pairs.csv", "--items", "items.csv", "--split", "none", *small, "--print-config"
    )
    assert code == 0
    with open("mine.yaml", "w") as stream:
        stream.write(printed)
    for when, line in zip(("old", "new", "new"), lines, strict=True):
        for kind in ("pairs", "items"):
            shutil.copy(f"{when}-{kind}.csv", f"{kind}.csv")
        code, _, err = command(*line.replace(" tensorboard mlflow", "").split(), "--threads", "1")
        assert code == 0, err
    assert len(inference.load("runs/2025-06-08").dataset.user_ids) == 30
    ratings, items = tables_of(PAIRS, ITEMS)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    names = {"ratings": ratings, "items": items}
    exec(code, names)  # the page's own
    assert len(names["fit"].history) == 2 and names["fit"].options.run.start_from == "2025-06-01"
