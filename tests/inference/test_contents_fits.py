"""Other kinds of content from the command line: fitted in both modes, stored, opened, recommended from."""

import dataclasses
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.fit_command import run_fit
from inference.updates import add_items
from models.contents.normal import Normal
from models.rows import TokenRows
from pyro_cvae.data.contents import Tokens, Vectors
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import held_out_items
from pyro_cvae.errors import InputError

N_ITEMS = 300
SMALL = ["--factors", "3", "--hidden", "20", "--a", "1", "--b", "0.01", "--lambda-u", "1", "--lambda-v", "10"]
SMALL += ["--split", "items", "--test-fraction", "0.25", "--epochs", "5", "--threads", "1", "--quiet"]
CASES = {
    "tokens": [
        "--content",
        "phrase",
        "--content-likelihood",
        "tokens",
        "--pretrain-epochs",
        "30",
        "--learning-rate",
        "0",
    ],
    "convolutional": [
        *("--content", "pictures", "--content-likelihood", "normal", "--content-likelihood.learned", "true"),
        *("--network", "convolutional", "--activation", "tanh", "--pretrain-epochs", "30"),
    ],
    "product": [
        *("--content-likelihood", "product", "--content-likelihood.phrase", "tokens", "--part-dropout", "0.2"),
        *("--content-likelihood.pictures", "normal", "--content-likelihood.pictures.learned", "true"),
        *("--content-likelihood.text", "multinomial", "--pretrain-epochs", "30"),
    ],
}
LEAST = {"tokens": 0.35, "convolutional": 0.4, "product": 0.55}
"""Least correlation of scores and true scores over held-out items that have the content, mean over users."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Tables of items with a text, a phrase that a tenth of them lacks, and pictures; and the truth."""
    folder = tmp_path_factory.mktemp("tables")
    dataset = simulated(n_users=100, n_items=N_ITEMS, n_words=60, n_factors=3, clicks_per_user=50.0)
    rng, z = np.random.default_rng(0), dataset.truth["z"]
    words = np.array([f"word{index:02d}" for index in range(30)])
    logits = 2 * z @ rng.standard_normal((3, 30))
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    phrases = [" ".join(rng.choice(words, size=1 + rng.poisson(7), p=row)) for row in p]
    lacking = rng.random(N_ITEMS) < 0.1
    names = np.array(dataset.content.vocabulary)
    texts = [" ".join(np.repeat(names[row.indices], row.data.astype(int))) for row in dataset.content.counts]
    phrases = ["" if lack else phrase for phrase, lack in zip(phrases, lacking, strict=True)]
    items = pd.DataFrame({"item": dataset.item_ids, "text": texts, "phrase": phrases})
    items.to_csv(folder / "items.csv", index=False)
    pairs = dataset.interactions
    users, chosen = dataset.user_ids[pairs.users], dataset.item_ids[pairs.items]
    pd.DataFrame({"user": users, "item": chosen}).to_csv(folder / "ratings.csv", index=False)
    waves = rng.standard_normal((3, 6 * 5))
    np.save(folder / "pictures.npy", (1 / (1 + np.exp(-z @ waves))).reshape(N_ITEMS, 1, 6, 5).astype(np.float32))
    return folder, dataset, lacking


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("method", "mode"),
    [("coordinate", "map"), *(pytest.param(m, "bayes", marks=pytest.mark.slow) for m in ("coordinate", "svi"))],
)
def test_a_fit_from_the_command_line(tables, case, method, mode, tmp_path, monkeypatch, capsys):
    folder, truth, lacking = tables
    data = ["--data", f"{folder}/ratings.csv", "--items", f"{folder}/items.csv"]
    data += ["--contents", "phrase=tokens:", f"pictures={folder}/pictures.npy"]
    out = tmp_path / "run"
    argv = [*data, *SMALL, *CASES[case], "--mode", mode, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [method, *argv, *(["--epochs", "30"] if method == "svi" else [])])
    assert run_fit(method) == 0, capsys.readouterr().err
    assert "next: python -m inference.recommend" in capsys.readouterr().out
    fit = inference.load(out)
    assert fit.metrics["content"]["active_units"] == 3 and fit.metrics["content"]["mutual_information"] > 0.8
    order = truth.user_rows(fit.dataset.user_ids.tolist()), truth.item_rows(fit.dataset.item_ids.tolist())
    true = truth.truth["scores"][np.ix_(*order)]
    lacks = lacking[order[1]] if case == "tokens" else np.zeros(N_ITEMS, bool)
    cold = np.setdiff1d(np.flatnonzero(~lacks), fit.split.train.items)
    found = fit.posterior.score_block(np.arange(fit.dataset.n_users)).double().numpy()
    value = np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(found[:, cold], true[:, cold], strict=True)])
    assert value > LEAST[case] * (0.5 if method == "svi" else 1)
    if case == "tokens":
        assert not fit.posterior.z_loc[torch.as_tensor(lacks)].any(), "an item without a phrase is at the prior"
    monkeypatch.setattr(sys, "argv", ["recommend", str(out), "--user", str(fit.dataset.user_ids[0])])
    from inference.recommend import main

    main()
    assert str(fit.dataset.item_ids[0])[:5] in capsys.readouterr().out


def sequences():
    """A data set whose only other content are sequences."""
    found = simulated(n_users=60, n_items=90, n_words=40, n_factors=3)
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 8, rng.poisson(4)).tolist() for _ in range(90)]
    indptr = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    tokens = np.array([token for one in lists for token in one], np.int32)
    content = Tokens(indptr, tokens, tuple("?abcdefg"), np.ones(90, bool))
    return dataclasses.replace(found, others={"letters": content})


TINY = {"factors": 3, "hidden": (8,), "pretrain_epochs": 2, "epochs": 1, "threads": 1, "content": "letters"}


def test_chains_draw_from_the_posterior_given_sequences():
    options = TINY | {"content_likelihood": "tokens", "draws": 4, "warmup": 4, "chains": 2}
    fit = inference.fit(sequences(), method="mcmc", **options)
    assert all(np.isfinite(row["log_joint"]) for row in fit.history if "log_joint" in row)
    assert torch.isfinite(fit.posterior.v_loc).all()


def test_new_sequences_are_encoded_as_in_the_fit_and_not_added_by_texts():
    dataset = sequences()
    fit = inference.fit(dataset, content_likelihood="tokens", **TINY)
    old = dataset.others["letters"]
    stop = int(old.indptr[5])
    new = dataclasses.replace(old, indptr=old.indptr[:6], tokens=old.tokens[:stop], present=np.ones(5, bool))
    loc, _ = fit.encode(new)
    torch.testing.assert_close(loc, fit.posterior.z_loc[:5], rtol=1e-4, atol=1e-5)
    rows = TokenRows.from_numpy(new.indptr, new.tokens, 8)
    torch.testing.assert_close(loc, fit.model.encoder(rows)[0].detach())
    with pytest.raises(InputError, match=r"items are added from their texts, and the fit is of letters"):
        add_items(fit, ["new"], texts=["some text"])
    with pytest.raises(InputError, match="the new letters are tokens of 9, the fit's tokens of 8"):
        fit.encode(dataclasses.replace(new, vocabulary=tuple("?abcdefgh")))


def test_a_likelihood_by_instance_or_class_is_made_again_from_the_run_folder(tmp_path):
    dataset = simulated(n_users=60, n_items=90, n_words=40, n_factors=3)
    values = np.random.default_rng(0).standard_normal((90, 6)).astype(np.float32)
    dataset = dataclasses.replace(dataset, others={"vectors": Vectors(values, np.ones(90, bool))})
    options = TINY | {"content": "vectors"}
    fit = inference.fit(dataset, content_likelihood=Normal(3.0, learned=True), out=tmp_path / "run", **options)
    assert fit.options.model.content_likelihood_args == {"lambda_x": 3.0, "learned": True}
    again = inference.load(tmp_path / "run")
    learned = [float(one.model.content.lambda_x.detach()) for one in (again, fit)]
    assert learned[0] == learned[1] != 3.0
    assert inference.fit(dataset, content_likelihood=Normal, **options).options.model.content_likelihood == "normal"


class Mine(Normal):
    """A class that a program of its own may have."""


def test_a_class_of_a_program_that_is_gone_is_named(tmp_path, monkeypatch):
    dataset = simulated(n_users=60, n_items=90, n_words=40, n_factors=3)
    main = sys.modules["__main__"]
    monkeypatch.setattr(Mine, "__module__", "__main__")
    monkeypatch.setattr(main, "Mine", Mine, raising=False)
    options = TINY | {"content": ""}
    inference.fit(dataset, content_likelihood=Mine(), out=tmp_path / "run", **options)
    monkeypatch.delattr(main, "Mine")
    with pytest.raises(InputError, match=r"likelihood Mine was defined in a notebook or a program .*into a module"):
        inference.load(tmp_path / "run")

    class Inside(Normal):
        """A class that no path names."""

    with pytest.raises(InputError, match="the class Inside is defined inside a function; define it in a module"):
        inference.fit(dataset, content_likelihood=Inside, **options)


def test_a_fit_of_sequences_goes_on_where_it_was_stopped(tmp_path):
    dataset = sequences()
    split = held_out_items(dataset, 0.2, 0)
    whole = inference.fit(dataset, split, content_likelihood="tokens", dtype="float64", **TINY)

    class Stop(Exception):
        """As if the machine went away."""

    def stop(step, n_steps, row):
        if step == 2:
            raise Stop

    options = TINY | {"content_likelihood": "tokens", "dtype": "float64", "checkpoint_seconds": 0}
    with pytest.raises(Stop):
        inference.fit(dataset, split, out=tmp_path / "run", on_step=stop, **options)
    resumed = inference.fit(dataset, split, out=tmp_path / "run", resume=True, **options)
    for name, value in whole.posterior.tensors().items():
        assert torch.equal(value, resumed.posterior.tensors()[name]), name
