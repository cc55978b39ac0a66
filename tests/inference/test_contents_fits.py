"""Other kinds of content from the command line: fitted in both modes, stored, opened, recommended from."""

import dataclasses
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.fit_command import run_fit
from inference.recommend import main
from inference.recommending import add_items
from models.contents.normal import Normal
from models.rows import TokenRows
from pyro_cvae.data.contents import Tokens, Vectors, units_of
from pyro_cvae.data.readers import read_new_items
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.sources import parse_all
from pyro_cvae.data.splits import held_out_items
from pyro_cvae.errors import InputError, run_command

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
        "6",
        "--learning-rate",
        "0",
    ],
    "tokens, convolutional": [
        *("--content", "phrase", "--content-likelihood", "tokens", "--network", "convolutional"),
        *("--pretrain-epochs", "6", "--learning-rate", "0"),
    ],
    "convolutional": [
        *("--content", "pictures", "--content-likelihood", "normal", "--content-likelihood.learned", "true"),
        *("--network", "convolutional", "--activation", "tanh", "--pretrain-epochs", "6"),
    ],
    "product": [
        *("--content-likelihood", "product", "--content-likelihood.phrase", "tokens", "--part-dropout", "0.2"),
        *("--content-likelihood.pictures", "normal", "--content-likelihood.pictures.learned", "true"),
        *("--content-likelihood.text", "multinomial", "--pretrain-epochs", "6"),
    ],
}


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


def of_numbers(values, likelihood="normal", **options):
    """A small fit of a catalogue whose only content are these columns of numbers, each in a unit of its own."""
    dataset = simulated(n_users=40, n_items=len(values), n_words=20, n_factors=2)
    numbers = Vectors(values, np.ones(len(values), bool), units_of(values))
    dataset = dataclasses.replace(dataset, others={"numbers": numbers})
    options |= {"content": "numbers", "content_likelihood": likelihood, "factors": 2, "hidden": [8], "threads": 1}
    return inference.fit(dataset, method="coordinate", mode="map", pretrain_epochs=2, epochs=1, sweeps=2, **options)


@pytest.mark.usefixtures("threads")
def test_units_of_columns_change_nothing(tmp_path):
    values = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    units = np.array([2.0**40, 2.0**-30, 1.0], np.float32)
    learned = {"content_likelihood_args": {"learned": True}}
    one, other = of_numbers(values, **learned), of_numbers(values * units, **learned, out=tmp_path / "other")
    torch.testing.assert_close(one.posterior.z_loc, other.posterior.z_loc)
    assert one.posterior.z_loc.std(0).min() > 0.01
    new = np.array([[0.5, -1.0, 2.0]], np.float32)
    kept = inference.load(tmp_path / "other")
    for fit, numbers in ((one, new), (other, new * units), (kept, new * units)):
        torch.testing.assert_close(
            fit.encode(Vectors(numbers, np.ones(1, bool)))[0], one.encode(Vectors(new, np.ones(1, bool)))[0]
        )


@pytest.mark.usefixtures("threads")
def test_a_likelihood_of_a_bounded_support_reads_columns_as_they_are():
    values = np.random.default_rng(0).integers(0, 2, (60, 3)).astype(np.float32)
    assert of_numbers(values, "bernoulli").model.content.any_unit is False


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("method", "mode"),
    [("coordinate", "map"), *(pytest.param(m, "bayes", marks=pytest.mark.slow) for m in ("coordinate", "svi"))],
)
def test_a_fit_from_the_command_line(tables, case, method, mode, tmp_path, monkeypatch, capsys):
    """How well such contents rank is asked of several seeds in tests/test_floors.py."""
    folder, truth, lacking = tables
    data = ["--data", f"{folder}/ratings.csv", "--items", f"{folder}/items.csv"]
    data += ["--contents", "phrase=tokens:", f"pictures={folder}/pictures.npy"]
    out = tmp_path / "run"
    argv = [*data, *SMALL, *CASES[case], "--mode", mode, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [method, *argv, *(["--epochs", "30"] if method == "svi" else [])])
    assert run_fit(method) == 0, capsys.readouterr().err
    assert "next: python -m inference.recommend" in capsys.readouterr().out
    fit = inference.load(out)
    assert bool(fit.posterior.score_block(np.arange(fit.dataset.n_users)).isfinite().all())
    if case.startswith("tokens"):
        reader = type(fit.model.encoder.experts["phrase"]).__name__
        assert reader == ("ConvolutionalTokenEncoder" if "convolutional" in case else "RecurrentEncoder")
        lacks = lacking[truth.item_rows(fit.dataset.item_ids.tolist())]
        assert not fit.posterior.z_loc[torch.as_tensor(lacks)].any(), "an item without a phrase is at the prior"
    monkeypatch.setattr(sys, "argv", ["recommend", str(out), "--user", str(fit.dataset.user_ids[0])])
    main()
    assert str(fit.dataset.item_ids[0])[:5] in capsys.readouterr().out


@pytest.mark.parametrize("guide", ["mean-field", "structured"])
def test_items_with_all_their_contents_are_added_by_the_command(tables, guide, tmp_path, monkeypatch, capsys):
    """Copies of items of the fit under new ids have the z of these, with a phrase or without, and are ranked by it."""
    folder, _, lacking = tables
    data = ["--data", f"{folder}/ratings.csv", "--items", f"{folder}/items.csv", "--guide", guide]
    data += ["--contents", "phrase=tokens:", f"pictures={folder}/pictures.npy", "--out", str(tmp_path / "run")]
    argv = [*data, *SMALL, *CASES["product"], "--pretrain-epochs", "3", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["coordinate", *argv])
    assert run_fit("coordinate") == 0, capsys.readouterr().err
    fit = inference.load(tmp_path / "run")
    copied = np.concatenate([np.flatnonzero(lacking)[:3], np.flatnonzero(~lacking)[:4]])
    table = pd.read_csv(folder / "items.csv").iloc[copied].assign(item=[f"new-{row}" for row in copied])
    table.to_csv(tmp_path / "new.csv", index=False)
    values = np.load(folder / "pictures.npy")[copied[1:]]  # the first has no picture
    np.savez(tmp_path / "pictures.npz", ids=np.array(table["item"][1:], str), values=values)
    phrase = "phrase"  # a column of that table, or a file of its own
    if guide == "structured":
        there = table[table["phrase"].notna()]
        there.rename(columns={"text": "words", "phrase": "text"}).to_csv(tmp_path / "phrases.csv", index=False)
        phrase = f"phrase={tmp_path}/phrases.csv"
    sources = [phrase, f"pictures={tmp_path}/pictures.npz"]
    items = read_new_items(tmp_path / "new.csv", parse_all(sources), fit.dataset)
    new, old = add_items(fit, items.item_ids, contents=items.contents).posterior, fit.posterior
    torch.testing.assert_close(new.z_loc[-6:], old.z_loc[torch.as_tensor(copied[1:])], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new.z_scale[-6:], old.z_scale[torch.as_tensor(copied[1:])], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(new.z_loc[-7], old.z_loc[copied[0]], atol=1e-3), "told by its text alone"
    without = {name: one for name, one in items.contents.items() if name != "text"}
    wordless = add_items(fit, items.item_ids, contents=without).dataset
    assert wordless.content.present.tolist() == [True] * N_ITEMS + [False] * 7
    torch.testing.assert_close(new.v_loc[-7:], new.z_loc[-7:])
    variance = new.z_scale[-7:].square() + 1 / new.lambda_v
    torch.testing.assert_close(new.covariance("v", torch.arange(N_ITEMS, N_ITEMS + 7)).diagonal(0, 1, 2), variance)
    argv = [str(tmp_path / "run"), "--user", "user-0001", "--new-items", str(tmp_path / "new.csv"), "--top", "307"]
    monkeypatch.setattr(sys, "argv", ["recommend", *argv, "--new-contents", *sources, "--out", f"{tmp_path}/list.csv"])
    main()
    ranked = pd.read_csv(tmp_path / "list.csv").set_index("item")
    assert set(ranked.index[ranked["group"] == "new"]) == set(table["item"])
    u = old.u_loc[fit.dataset.user_rows(["user-0001"])[0]]
    np.testing.assert_allclose(ranked["score"][table["item"]], (new.v_loc[-7:] @ u).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--new-contents", "phrase"], "--new-contents are of new items; name these with --new-items"),
        (["--new-items", "NEW", "--new-contents", "sound=x.npy"], "the items have no content called 'sound'"),
        (["--new-items", "NEW", "--new-contents", "letters=gone.csv"], "no such file"),
        (["--new-items", "NEW", "--new-contents", "letters"], "has no content of that name"),
        (["--new-items", "NEW", "--new-contents", "letters=OTHER"], "item 'elsewhere' is not in the data set"),
        (["--new-items", "NEW"], "new items need letters, which the fit is of; give them by --new-contents letters"),
        (["--new-items", "TWICE"], "item 'a' is there more than once"),
    ],
)
def test_new_contents_that_cannot_be_used(more, problem, run_of_sequences, tmp_path, monkeypatch, capsys):
    files = {"NEW": "item,text\na,word\n", "OTHER": "item,text\nelsewhere,abc\n", "TWICE": "item,text\na,x\na,y\n"}
    for name, written in files.items():
        (tmp_path / f"{name}.csv").write_text(written, encoding="utf-8")
        more = [word.replace(name, str(tmp_path / f"{name}.csv")) for word in more]
    monkeypatch.setattr(sys, "argv", ["recommend", str(run_of_sequences), "--user", "user-0001", *more])
    assert run_command(main) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and problem in said, said


def sequences():
    """A data set whose only other content are sequences."""
    found = simulated(n_users=60, n_items=90, n_words=40, n_factors=3)
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 8, rng.poisson(4)).tolist() for _ in range(90)]
    indptr = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    tokens = np.array([token for one in lists for token in one], np.int32)
    content = Tokens(indptr, tokens, tuple("?abcdefg"), np.ones(90, bool))
    return dataclasses.replace(found, others={"letters": content})


@pytest.fixture(scope="module")
def run_of_sequences(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    inference.fit(sequences(), content_likelihood="tokens", out=out, **TINY)
    return out


TINY = {"factors": 3, "hidden": (8,), "pretrain_epochs": 2, "epochs": 1, "threads": 1, "content": "letters"}


def test_chains_draw_from_the_posterior_given_sequences():
    options = TINY | {"content_likelihood": "tokens", "draws": 4, "warmup": 4, "chains": 2}
    fit = inference.fit(sequences(), method="mcmc", **options)
    assert all(np.isfinite(row["log_joint"]) for row in fit.history if "log_joint" in row)
    assert torch.isfinite(fit.posterior.v_loc).all()


def test_new_sequences_are_encoded_as_in_the_fit_and_added():
    dataset = sequences()
    fit = inference.fit(dataset, content_likelihood="tokens", **TINY)
    old = dataset.others["letters"]
    stop = int(old.indptr[5])
    new = dataclasses.replace(old, indptr=old.indptr[:6], tokens=old.tokens[:stop], present=np.ones(5, bool))
    loc, _ = fit.encode(new)
    torch.testing.assert_close(loc, fit.posterior.z_loc[:5], rtol=1e-4, atol=1e-5)
    rows = TokenRows.from_numpy(new.indptr, new.tokens, 8)
    torch.testing.assert_close(loc, fit.model.encoder(rows)[0].detach())
    added = add_items(fit, list("abcde"), contents={"letters": new})
    torch.testing.assert_close(added.posterior.v_loc[-5:], fit.posterior.z_loc[:5], rtol=1e-4, atol=1e-5)
    again = add_items(added, list("fghij"), contents={"letters": new}, texts=["some text"] * 5)
    torch.testing.assert_close(again.posterior.v_loc[-5:], added.posterior.v_loc[-5:])
    with pytest.raises(InputError, match=r"new items need letters, which the fit is of"):
        add_items(fit, ["new"], texts=["some text"])
    lacks = dataclasses.replace(new, indptr=np.array([0, *new.indptr[:5]]), tokens=new.tokens[: new.indptr[4]])
    lacks = dataclasses.replace(lacks, present=np.array([False, True, True, True, True]))
    with pytest.raises(InputError, match="new item 1 has no letters, which all items of the fit have"):
        add_items(fit, list("abcde"), contents={"letters": lacks})
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
