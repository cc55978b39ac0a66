"""A fit is a function of its data, options and seed: killed and resumed, or run twice, it ends in the same bits."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

import inference
from inference.algorithms import networks
from inference.fit_command import run_fit
from inference.recommending.updated import zero_weights
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.splits import make_split
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.runs import RunWriter

ROOT = Path(__file__).resolve().parents[2]
THEMES = (
    ("comet", "nebula", "orbit"),
    ("sail", "mast", "rudder"),
    ("oven", "pastry", "recipe"),
    ("violin", "melody", "tempo"),
    ("lemma", "proof", "axiom"),
)
SMALL = {
    "factors": 3,
    "hidden": (6,),
    "train_per_user": 5,
    "lambda_u": 1.0,
    "pretrain_epochs": 4,
    "epochs": 5,
    "batch_size": 16,
    "threads": 1,
    "checkpoint_seconds": 0.0,
}
KINDS = {
    "map": {"mode": "map"},
    "mean-field": {"mode": "bayes", "word_dropout": 0.2, "kl_warmup": 2},
    "structured": {"mode": "bayes", "guide": "structured"},
    "non-centred": {"mode": "bayes", "parametrization": "non-centred", "content_likelihood": "bernoulli"},
    "likelihood's own": {"mode": "map", "content_likelihood": "negative-binomial"},
    "patience": {"mode": "map", "validation": 0.3, "patience": 3, "validate_every": 1, "epochs": 40},
    "coordinate-map": {"method": "coordinate", "mode": "map", "sweeps": 2},
    "coordinate-tuned": {"method": "coordinate", "mode": "map", "sweeps": 2, "tune": 3},
    "svi-tuned": {"mode": "bayes", "tune": 3},
    "coordinate-full": {"method": "coordinate", "mode": "bayes", "sweeps": 2, "learn_precisions": True},
    "coordinate-diagonal": {"method": "coordinate", "mode": "bayes", "sweeps": 2, "diagonal": True},
    "svi-ctr": {"mode": "bayes", "model": "ctr"},
    "coordinate-ctr": {"method": "coordinate", "mode": "map", "model": "ctr", "sweeps": 2},
    "coordinate-cdl": {"method": "coordinate", "mode": "map", "model": "cdl", "sweeps": 2},
    "coordinate-deepmusic": {"method": "coordinate", "mode": "bayes", "model": "deepmusic", "sweeps": 3},
    "coordinate-structured": {"method": "coordinate", "guide": "structured", "sweeps": 2, "word_dropout": 0.2},
}


def tables(n_users=25, n_items=40):
    """Rows of (user, item) and (item, text): a user likes the items of one of five themes a little more."""
    rng = np.random.default_rng(0)
    texts = [" ".join([*rng.choice(THEMES[j % 5], 6), *rng.choice(THEMES[0], 1)]) for j in range(n_items)]
    items = [(f"item-{j}", text) for j, text in enumerate(texts)]
    pairs = []
    for user in range(n_users):
        odds = np.where(np.arange(n_items) % 5 == user % 5, 4.0, 1.0)
        odds[-3:] = 0  # cold items
        pairs += [(f"user-{user}", f"item-{j}") for j in rng.choice(n_items, 10, replace=False, p=odds / odds.sum())]
    return pairs, items


@pytest.fixture(scope="module")
def dataset():
    pairs, items = tables()
    users, rated = zip(*pairs, strict=True)
    ids, texts = zip(*items, strict=True)
    return from_frames({"user": users, "item": rated}, {"item": ids, "text": texts}, name="small")


def numbers(fit):
    """Everything a fit found, times left out."""
    networks = {name: p.detach().clone() for name, p in fit.model.named_parameters()}
    history = [{name: value for name, value in row.items() if name != "seconds"} for row in fit.history]
    return fit.posterior.tensors() | networks, history, fit.metrics


def assert_same(one, two):
    """Bit for bit."""
    (tensors, history, metrics), (other, other_history, other_metrics) = one, two
    assert tensors.keys() == other.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name
    assert history == other_history
    assert metrics == other_metrics


# --- in one process --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_numbers_and_another_does_not(dataset, kind):
    one = numbers(inference.fit(dataset, **SMALL | KINDS[kind]))
    torch.rand(7)  # what others draw is no matter
    np.random.rand(7)
    assert_same(one, numbers(inference.fit(dataset, **SMALL | KINDS[kind])))
    other = numbers(inference.fit(dataset, **SMALL | KINDS[kind] | {"seed": 1}))
    assert not torch.equal(one[0]["u_loc"], other[0]["u_loc"])


@pytest.mark.parametrize(
    ("stop", "kind"),  # stopped in 4 epochs of pre-training, in 5 of everything, between 2 closed-form sweeps
    [(stop, kind) for stop in (2, 4, 7, 10) for kind in KINDS if stop < 10 or "sweeps" in KINDS[kind]],
)
def test_a_stopped_fit_goes_on_to_the_same_numbers(dataset, tmp_path, killed, kind, stop):
    options = SMALL | KINDS[kind]
    whole = numbers(inference.fit(dataset, **options, out=tmp_path / "whole"))
    with killed(stop):
        inference.fit(dataset, **options, out=tmp_path / "run")
    seen = []
    torch.rand(7)
    resumed = inference.fit(
        dataset, **options, out=tmp_path / "run", resume=True, on_step=lambda step, n_steps, row: seen.append(step)
    )
    assert_same(whole, numbers(resumed))
    assert seen[0] == stop + 1, "epochs were done again"
    assert not (tmp_path / "run.partial").exists()
    assert same_bytes(tmp_path / "whole", tmp_path / "run", "posterior.safetensors", "metrics.json")


@pytest.mark.parametrize("stop", [4, 7, 10])
@pytest.mark.parametrize("kind", ["coordinate-map", "coordinate-full", "coordinate-structured", "svi-tuned"])
def test_weights_of_zeros_that_were_found_go_on_too(dataset, tmp_path, killed, kind, stop, monkeypatch):
    def choose(model, columns, contents, options):
        model.ratings.weigh_zeros(0.3, 0.6)
        return max(contents), [{"taken": "yes", "b": 0.3, "b_power": 0.6}]

    monkeypatch.setattr(networks, "choose", choose)
    options = SMALL | KINDS[kind] | {"tune": 3}
    whole = inference.fit(dataset, **options, out=tmp_path / "whole")
    assert whole.model.ratings.b == pytest.approx(0.3) and whole.model.ratings.b_power == pytest.approx(0.6)
    if "sweeps" in options or stop < 10:
        with killed(stop):
            inference.fit(dataset, **options, out=tmp_path / "run")
        resumed = inference.fit(dataset, **options, out=tmp_path / "run", resume=True)
        assert_same(numbers(whole), numbers(resumed))
    loaded = inference.load(tmp_path / "whole")
    assert zero_weights(loaded).equal(zero_weights(whole)) and float(zero_weights(whole).std()) > 0.1
    monkeypatch.undo()
    given = inference.fit(dataset, **options | {"tune": 0, "b": 0.3, "b_power": 0.6})
    found = [fit.posterior.u_loc for fit in (whole, given)]
    assert kind == "svi-tuned" or torch.allclose(*found, rtol=1e-3, atol=1e-4)


def test_early_stopping_keeps_the_best_state_also_when_resumed_after_it(dataset, tmp_path, monkeypatch):
    options = SMALL | KINDS["patience"]
    whole = inference.fit(dataset, **options)
    best = whole.metrics["best_epoch"]
    recalls = [row.get("validation_recall", -1.0) for row in whole.history]
    assert recalls[best - 1] == max(recalls) and len(whole.history) == best + 3 < 44
    write = RunWriter.checkpoint

    def write_and_die(writer, tensors, meta):
        write(writer, tensors, meta)
        if meta["epoch"] == best + 2:  # the best state is in the checkpoint only
            writer.close()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunWriter, "checkpoint", write_and_die)
        inference.fit(dataset, **options, out=tmp_path / "run")
    assert_same(numbers(whole), numbers(inference.fit(dataset, **options, out=tmp_path / "run", resume=True)))


def test_a_fit_without_joint_epochs_is_seeded_too(dataset):
    state = torch.get_rng_state()
    one, two = (numbers(inference.fit(dataset, **SMALL | {"epochs": 0})) for _ in range(2))
    assert_same(one, two)
    assert torch.equal(torch.get_rng_state(), state)


def test_two_models_in_one_process_do_not_disturb_each_other(dataset):
    alone = {kind: numbers(inference.fit(dataset, **SMALL | KINDS[kind])) for kind in ("map", "mean-field")}
    first = []

    def fit_another(step, n_steps, row):
        if step in (2, 6):
            first.append(numbers(inference.fit(dataset, **SMALL | KINDS["mean-field"])))

    assert_same(alone["map"], numbers(inference.fit(dataset, **SMALL | KINDS["map"], on_step=fit_another)))
    assert len(first) == 2
    for other in first:
        assert_same(alone["mean-field"], other)


def test_torch_and_pyro_are_as_they_were_after_a_fit_that_ends_and_one_that_does_not(dataset, tmp_path, threads):
    torch.set_num_threads(2)
    torch.manual_seed(5)

    def surroundings():
        state = torch.get_rng_state().numpy().tobytes()
        return torch.get_default_dtype(), torch.get_num_threads(), state, list(pyro.get_param_store())

    before, numpy_before = surroundings(), np.random.get_state()[1].tolist()
    for kind in KINDS:
        fit = inference.fit(dataset, **SMALL | KINDS[kind] | {"dtype": "float64"}, out=tmp_path / kind)
        assert surroundings() == before
        inference.load(tmp_path / kind)
        assert surroundings() == before
        dtypes = {tensor.dtype for tensor in fit.posterior.tensors().values() if tensor.is_floating_point()}
        assert dtypes == {torch.float64}
    with pytest.raises(ZeroDivisionError):
        inference.fit(dataset, **SMALL | {"dtype": "float64"}, on_step=lambda step, n_steps, row: 1 // 0)
    assert surroundings() == before and surroundings()[3] == []
    assert np.random.get_state()[1].tolist() == numpy_before


def test_float64_is_nearly_the_same_fit_in_more_digits(dataset):
    options = SMALL | {"mode": "map", "factors": 2, "pretrain_epochs": 0, "epochs": 1}
    single, double = (inference.fit(dataset, **options | {"dtype": dtype}) for dtype in ("float32", "float64"))
    assert double.posterior.v_loc.dtype == torch.float64
    assert single.posterior.v_loc.dtype == torch.float32
    assert np.isfinite(double.history[-1]["map_objective"])
    again = inference.fit(dataset, **options | {"dtype": "float64"})
    assert_same(numbers(double), numbers(again))


def test_what_is_loaded_is_what_was_fitted(dataset, tmp_path):
    for kind in KINDS:
        fit = inference.fit(dataset, **SMALL | KINDS[kind], out=tmp_path / kind)
        loaded = inference.load(tmp_path / kind)
        assert_same((numbers(fit)[0], [], fit.metrics), (numbers(loaded)[0], [], loaded.metrics))
        assert loaded.options == fit.options
        counts = dataset.content.counts[:5]
        for ours, theirs in zip(fit.encode(counts), loaded.encode(counts), strict=True):
            assert torch.equal(ours, theirs)


def test_a_resume_that_would_be_another_fit_is_refused(dataset, tmp_path):
    out = tmp_path / "run"

    def die(step, n_steps, row):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inference.fit(dataset, **SMALL, out=out, on_step=die)
    for change in ({"factors": 4}, {"seed": 3}, {"mode": "map"}):
        with pytest.raises(InputError, match=f"--{next(iter(change))} is .*, but the run was begun with"):
            inference.fit(dataset, **SMALL | change, out=out, resume=True)
    pairs = dataset.interactions
    changed = dataclasses.replace(dataset, interactions=pairs.select(np.arange(len(pairs)) > 0))
    with pytest.raises(InputError, match="data have changed"):
        inference.fit(changed, **SMALL, out=out, resume=True)
    fit = inference.fit(dataset, **SMALL | {"checkpoint_seconds": 60.0}, out=out, resume=True)
    assert_same(numbers(inference.fit(dataset, **SMALL)), numbers(fit))


def test_a_number_that_is_not_finite_ends_the_fit_and_leaves_no_run(dataset, tmp_path):
    options = SMALL | {"learning_rate": 1e30, "pretrain_learning_rate": 1e30}
    with pytest.raises(MachineError, match=r"epoch .*no finite number.*; use a smaller --learning-rate"):
        inference.fit(dataset, **options, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_split_is_seeded_apart_from_the_fit(dataset):
    def split(seed):
        return make_split(dataset, inference.fitting.Options.of(split_seed=seed, train_per_user=5).data).fingerprint()

    assert split(0) == split(0) != split(1)


# --- killed processes ------------------------------------------------------------------------------------------------


def write_tables(folder):
    pairs, items = tables()
    for name, header, rows in (("pairs.csv", ("user", "item"), pairs), ("items.csv", ("item", "text"), items)):
        with open(folder / name, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([header, *rows])


def history(folder):
    with open(folder / "history.csv", encoding="utf-8", newline="") as stream:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(stream)]


def same_bytes(one, two, *names):
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def newest_epoch(partial):
    """Epoch of the newest checkpoint, 0 before the first, -1 before there is a folder."""
    if not (partial / "config.json").exists():
        return -1
    try:
        names = os.listdir(partial / "checkpoint")
    except FileNotFoundError:
        return 0
    return max((int(name[6:12]) for name in names if name.startswith("epoch-")), default=0)


N_PRETRAIN, N_JOINT = 50, 50


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    """The folder with the tables, and the arguments of the command; its run is in ``whole``."""
    folder = tmp_path_factory.mktemp("kills")
    write_tables(folder)
    argv = ["--data", "pairs.csv", "--items", "items.csv", "--train-per-user", "5", "--validation", "0.2"]
    argv += ["--factors", "3", "--hidden", "6", "--batch-size", "8", "--patience", "50", "--threads", "1", "--quiet"]
    argv += ["--pretrain-epochs", str(N_PRETRAIN), "--epochs", str(N_JOINT), "--checkpoint-seconds", "0"]
    whole = command([*argv, "--out", "whole"])
    subprocess.run(whole, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
    return folder, argv


def command(argv):
    return [sys.executable, "-m", "inference.svi", *argv]


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_killed_at_a_random_moment_and_resumed(never_killed, monkeypatch, capfd, number):
    """SIGKILL a little after the checkpoint of a random epoch of each tenth of the run."""
    folder, argv = never_killed
    rng = np.random.default_rng(number)
    moment, delay = round((number + rng.random()) / 10 * (N_PRETRAIN + N_JOINT)) - 3, rng.uniform(0, 0.03)
    out, partial = folder / f"run-{number}", folder / f"run-{number}.partial"
    process = subprocess.Popen(
        [*command(argv), "--out", out.name], cwd=folder, env=environment(), stdout=subprocess.DEVNULL
    )
    try:
        began = time.monotonic()
        while newest_epoch(partial) < moment and process.poll() is None and time.monotonic() - began < 60:
            time.sleep(0.003)
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = process.returncode == -signal.SIGKILL
    assert killed or out.exists(), "it ended by itself, but not well"
    reached = newest_epoch(partial)

    monkeypatch.chdir(folder)
    full = [*argv, "--out", out.name, "--resume"]
    if number in (2, 7):  # in a fresh process too
        code = subprocess.run(command(full), env=environment(), check=False, stdout=subprocess.DEVNULL).returncode
    else:
        monkeypatch.setattr(sys, "argv", ["inference.svi", *full])
        code = run_fit("svi")
    said = capfd.readouterr().err
    if reached < 0:  # before there was anything, or after the end
        assert code == 2 and said.count("\n") == 1 and said.startswith("error: ")
        assert ("the run is finished" in said) == out.exists()
        if not out.exists():
            monkeypatch.setattr(sys, "argv", ["inference.svi", *argv, "--out", out.name, "--overwrite"])
            assert run_fit("svi") == 0
    elif code != 0:  # between the folder and its first complete description
        assert reached == 0 and code == 2 and "--overwrite" in said
        monkeypatch.setattr(sys, "argv", ["inference.svi", *argv, "--out", out.name, "--overwrite"])
        assert run_fit("svi") == 0
    whole = folder / "whole"
    assert same_bytes(whole, out, "posterior.safetensors", "metrics.json")
    assert history(whole) == history(out) and len(history(out)) > N_PRETRAIN
    assert [entry.name for entry in folder.iterdir() if entry.name.startswith(out.name)] == [out.name]
    options = (json.loads((path / "config.json").read_text())["options"] for path in (whole, out))
    whole_options, own = ({k: v for k, v in one.items() if k not in ("out", "resume", "overwrite")} for one in options)
    assert whole_options == own
    with open(folder / "reached", "a", encoding="ascii") as log:
        log.write(f"{reached}\n")


@pytest.mark.slow
def test_the_kills_came_while_there_was_something_to_lose(never_killed):
    """Of the kills above at least half fell between the first checkpoint and the last, in both phases."""
    log = never_killed[0] / "reached"
    if not log.exists():
        pytest.skip("run with the kills")
    reached = [int(line) for line in log.read_text(encoding="ascii").split()]
    assert sum(epoch > 0 for epoch in reached) >= len(reached) / 2
    assert len(reached) < 10 or {epoch > N_PRETRAIN for epoch in reached if epoch > 0} == {True, False}
