"""``--log``: each epoch is told as it passes, and once, in files that their own readers read."""

import csv
import json
import logging
import sys

import pytest

import inference
from inference.fit_command import run_fit
from inference.logs import JsonLines, telling
from inference.options import RunOptions
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.runs import RunWriter, open_run
from tests.strangers import catalogue

SMALL = {
    **{"method": "coordinate", "mode": "map", "factors": 2, "hidden": (4,), "pretrain_epochs": 2, "epochs": 2},
    **{"train_per_user": 3, "validation": 0.3, "validate_every": 1, "sweeps": 3, "threads": 1, "checkpoint_seconds": 0},
}
N_EPOCHS = 7


@pytest.fixture(scope="module")
def dataset():
    return catalogue()


@pytest.fixture
def tensorboard():
    reason = "the extra tensorboard is not installed"
    return pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason).EventAccumulator


@pytest.fixture
def mlflow(monkeypatch, tmp_path):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def scalars(reader, folder):
    """Values by epoch and tag, as TensorBoard reads them."""
    events = reader(str(folder))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def nearly(pairs, history, tag):
    """Whether these pairs of epoch and value, in float32, are the column of the history."""
    wanted = [(row["epoch"], row[tag]) for row in history if tag in row]
    assert [step for step, _ in pairs] == [epoch for epoch, _ in wanted], tag
    assert [value for _, value in pairs] == pytest.approx([value for _, value in wanted], rel=1e-6), tag


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


# --- lines of JSON ---------------------------------------------------------------------------------------------------


def test_the_run_folder_has_the_history_as_lines(dataset, tmp_path):
    fit = inference.fit(dataset, **SMALL, out=tmp_path / "run", log=["jsonl"])
    assert rows_of(fit.path / "log.jsonl") == json.loads(json.dumps(fit.history)) and len(fit.history) == N_EPOCHS
    assert {"map_objective", "ratings", "content", "log_p_v", "validation_recall"} <= rows_of(fit.path / "log.jsonl")[
        -1
    ].keys()
    assert "log.jsonl" in open_run(fit.path).files and inference.load(fit.path).history
    assert not (inference.fit(dataset, **SMALL, out=tmp_path / "none").path / "log.jsonl").exists()


def test_a_line_is_there_when_its_epoch_has_passed(dataset, tmp_path):
    seen = []

    def look(step, n_steps, row):
        seen.append(len(rows_of(tmp_path / "log.jsonl")))

    inference.fit(dataset, **SMALL, log=[f"jsonl={tmp_path / 'log.jsonl'}"], on_step=look)
    assert seen == list(range(1, N_EPOCHS + 1))


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_killed_fit_goes_on_with_its_lines(dataset, tmp_path, monkeypatch, stop):
    """The checkpoint is older than what the log has: it was killed two epochs later."""
    write = RunWriter.checkpoint

    def seldom(writer, tensors, meta):
        if meta["epoch"] == stop:
            write(writer, tensors, meta)
        if meta["epoch"] == stop + 1:
            with open(writer.path / "log.jsonl", "a") as stream:
                stream.write('{"epoch": 4, "ph')  # and in the middle of a line
            writer.close()
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunWriter, "checkpoint", seldom)
        inference.fit(dataset, **SMALL, out=out, log=["jsonl"])
    fit = inference.fit(dataset, **SMALL, out=out, log=["jsonl"], resume=True)
    assert rows_of(out / "log.jsonl") == json.loads(json.dumps(fit.history))
    assert [row["epoch"] for row in fit.history] == list(range(1, N_EPOCHS + 1))
    whole = inference.fit(dataset, **SMALL)
    assert without_seconds(rows_of(out / "log.jsonl")) == json.loads(json.dumps(without_seconds(whole.history)))


def test_a_log_may_begin_when_a_fit_is_resumed(dataset, tmp_path, killed):
    with killed(3):
        inference.fit(dataset, **SMALL, out=tmp_path / "run")
    inference.fit(dataset, **SMALL, out=tmp_path / "run", resume=True, log=["jsonl"])
    assert [row["epoch"] for row in rows_of(tmp_path / "run" / "log.jsonl")] == list(range(1, N_EPOCHS + 1))


def test_nothing_of_anybody_is_replaced(dataset, tmp_path):
    mine, log = tmp_path / "mine.txt", tmp_path / "log.jsonl"
    mine.write_text("precious")
    for more in ({}, {"overwrite": True}):
        with pytest.raises(InputError, match=r"mine.txt: exists, and --log would replace it"):
            inference.fit(dataset, **SMALL, out=tmp_path / "run", log=[f"jsonl={mine}"], **more)
    assert mine.read_text() == "precious" and not list(tmp_path.glob("run*"))
    inference.fit(dataset, **SMALL, log=[f"jsonl={log}"])
    with pytest.raises(InputError, match="would replace it"):
        inference.fit(dataset, **SMALL, log=[f"jsonl={log}"])
    inference.fit(dataset, **SMALL | {"sweeps": 1}, log=[f"jsonl={log}"], overwrite=True)
    assert len(rows_of(log)) == N_EPOCHS - 2


def test_numbers_that_json_has_not(tmp_path):
    path = tmp_path / "log.jsonl"
    with telling([JsonLines(str(path), False, False)], None, []) as (tell, _):
        tell({"epoch": 1, "phase": "sweep", "elbo": float("nan"), "ratings": -1.5})
    assert rows_of(path) == [{"epoch": 1, "phase": "sweep", "elbo": None, "ratings": -1.5}]


def test_a_log_that_cannot_be_written_is_left(dataset, tmp_path, monkeypatch, caplog):
    def full(log, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JsonLines, "tell", full)
    with caplog.at_level(logging.WARNING, "pyro_cvae"):
        fit = inference.fit(dataset, **SMALL, log=[f"jsonl={tmp_path / 'log.jsonl'}"])
    told = [record.message for record in caplog.records if "goes on without it" in record.message]
    assert len(fit.history) == N_EPOCHS and len(told) == 1 and "No space left" in told[0]


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (["csv"], "--log is 'csv', but it must be one or more of jsonl, tensorboard, mlflow"),
        (["jsonl="], "--log is 'jsonl='"),
        (["mlflow=sqlite:///a.db"], "--log is 'mlflow=sqlite:///a.db'"),
        (["jsonl", "jsonl=a.jsonl"], "--log has jsonl twice"),
        (["jsonl=nowhere/at/all.jsonl"], "nowhere/at: --log: no such folder"),
    ],
)
def test_wrong_words(log, problem):
    with pytest.raises(InputError) as error:
        RunOptions(log=tuple(log))
    assert problem in str(error.value)


def test_a_log_in_the_run_folder_needs_one(dataset):
    with pytest.raises(InputError, match="jsonl goes into the run folder, and there is none; give out, or jsonl=PATH"):
        inference.fit(dataset, **SMALL, log=["jsonl"])


@pytest.mark.parametrize(
    ("kind", "module"), [("tensorboard", "tensorboard.compat.proto.event_pb2"), ("mlflow", "mlflow.entities")]
)
def test_an_extra_that_is_missing_is_named_before_anything_is_written(dataset, tmp_path, monkeypatch, kind, module):
    for name in (kind, module):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MachineError, match=rf"--log {kind} needs the extra {kind} .*\.\[{kind}\]"):
        inference.fit(dataset, **SMALL, out=tmp_path / "run", log=[kind])
    assert not list(tmp_path.iterdir())


def test_the_command_and_a_file_say_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "log: [jsonl]\nfactors: 2\nhidden: [4]\npretrain_epochs: 1\nepochs: 1\nsweeps: 1\n"
    )
    for out, more in (("a", ["--config", "mine.yaml"]), ("b", ["--config", "mine.yaml", "--log", "jsonl=other.jsonl"])):
        monkeypatch.setattr(sys, "argv", ["x", *more, "--mode", "map", "--out", out, "--quiet", "--threads", "1"])
        assert run_fit("coordinate") == 0, capsys.readouterr().err
    with open(tmp_path / "a" / "history.csv", newline="") as stream:
        assert len(rows_of(tmp_path / "a" / "log.jsonl")) == len(list(csv.DictReader(stream))) == 3
    assert len(rows_of(tmp_path / "other.jsonl")) == 3 and not (tmp_path / "b" / "log.jsonl").exists()


# --- TensorBoard -----------------------------------------------------------------------------------------------------


def test_tensorboard_reads_the_history(dataset, tmp_path, tensorboard):
    fit = inference.fit(dataset, **SMALL, out=tmp_path / "run", log=["tensorboard"])
    found = scalars(tensorboard, fit.path / "tensorboard")
    assert {"map_objective", "ratings", "content", "validation_recall", "seconds"} <= found.keys()
    for tag, pairs in found.items():
        nearly(pairs, fit.history, tag)
    assert inference.load(fit.path).history, "the run folder with events in it is opened"


@pytest.mark.parametrize("stop", [2, 5])
def test_a_killed_fit_goes_on_in_tensorboard(dataset, tmp_path, monkeypatch, tensorboard, stop):
    write = RunWriter.checkpoint

    def seldom(writer, tensors, meta):
        if meta["epoch"] == stop:
            write(writer, tensors, meta)
        if meta["epoch"] == stop + 1:
            writer.close()
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunWriter, "checkpoint", seldom)
        inference.fit(dataset, **SMALL, out=out, log=["tensorboard"])
    partial = scalars(tensorboard, tmp_path / "run.partial" / "tensorboard")
    assert [step for step, _ in partial["map_objective"]] == list(range(1, stop + 2)), "events are there as epochs pass"
    fit = inference.fit(dataset, **SMALL, out=out, log=["tensorboard"], resume=True)
    for tag, pairs in scalars(tensorboard, out / "tensorboard").items():
        nearly(pairs, fit.history, tag)


def test_events_of_another_fit_are_not_mixed_in(dataset, tmp_path, tensorboard):
    here = [f"tensorboard={tmp_path / 'events'}"]
    inference.fit(dataset, **SMALL, log=here)
    with pytest.raises(InputError, match="holds events of another fit"):
        inference.fit(dataset, **SMALL, log=here)
    fit = inference.fit(dataset, **SMALL | {"seed": 1}, log=here, overwrite=True)
    nearly(scalars(tensorboard, tmp_path / "events")["map_objective"], fit.history, "map_objective")


# --- MLflow ----------------------------------------------------------------------------------------------------------

ITS_OWN = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, which MLflow's store uses


def told_to(client, name, tag):
    """Pairs of epoch and value of the one run of that name."""
    (experiment,) = [one for one in client.search_experiments() if one.name == "pyro-cvae"]
    (run,) = [one for one in client.search_runs([experiment.experiment_id]) if one.info.run_name == name]
    return run, [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, tag)]


@ITS_OWN
def test_mlflow_reads_the_history(dataset, tmp_path, mlflow):
    fit = inference.fit(dataset, **SMALL, out=tmp_path / "run", log=["mlflow"])
    for tag in ("map_objective", "ratings", "validation_recall", "lambda_v"):
        run, pairs = told_to(mlflow, "run", tag)
        nearly(pairs, fit.history, tag)
    assert run.info.status == "FINISHED" and run.data.params["factors"] == "2"
    (recall,) = [name for name in fit.metrics if name.startswith("recall@")]  # of few items there is one
    assert run.data.metrics[recall.replace("@", "_at_")] == fit.metrics[recall]
    assert json.loads((fit.path / "mlflow.json").read_text()) == {"run_id": run.info.run_id}


@ITS_OWN
def test_a_killed_fit_goes_on_in_mlflow(dataset, tmp_path, mlflow, monkeypatch):
    write = RunWriter.checkpoint

    def seldom(writer, tensors, meta):
        if meta["epoch"] == 3:
            write(writer, tensors, meta)
        if meta["epoch"] == 5:
            writer.close()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunWriter, "checkpoint", seldom)
        inference.fit(dataset, **SMALL, out=tmp_path / "run", log=["mlflow"])
    run, pairs = told_to(mlflow, "run", "map_objective")
    assert run.info.status == "KILLED" and [step for step, _ in pairs] == [1, 2, 3, 4, 5]
    fit = inference.fit(dataset, **SMALL, out=tmp_path / "run", log=["mlflow"], resume=True)
    run, pairs = told_to(mlflow, "run", "map_objective")
    nearly(pairs, fit.history, "map_objective")
    assert run.info.status == "FINISHED"


@ITS_OWN
def test_a_store_that_cannot_be_reached_is_told_before_anything_is_written(dataset, tmp_path, mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at-all")
    with pytest.raises(MachineError, match=r"MLflow: .*; check MLFLOW_TRACKING_URI"):
        inference.fit(dataset, **SMALL, out=tmp_path / "run", log=["mlflow"])
    assert not list(tmp_path.glob("run*"))
