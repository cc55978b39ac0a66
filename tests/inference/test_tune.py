"""The search for settings: what it may see, what it stores, what it writes, and how it goes on."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import yaml

from inference.fit_command import run_fit
from inference.fitting import fit_with, load
from inference.options import Options
from inference.tune import main
from inference.tuning.options import TuneOptions
from inference.tuning.search import search, without_test
from inference.tuning.space import dimensions, settings
from inference.tuning.study import distribution_of, finished, open_study, ranked
from pyro_cvae import blame
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import Split, make_split
from pyro_cvae.errors import InputError, MachineError, run_command

SMALL: dict[str, Any] = {"mode": "map", "factors": 3, "hidden": (8,), "pretrain_epochs": 1, "epochs": 1, "threads": 1}
FLAGS = ["--mode", "map", "--factors", "3", "--hidden", "8", "--threads", "1", "--validation", "0.2"]
FLAGS += ["--pretrain-epochs", "1", "--epochs", "1"]
LAMBDAS = ("lambda_u=1:1000:log", "lambda_v=0.1:100:log")


def options(method: str = "coordinate", **more: Any) -> Options:
    return Options.of(method, **SMALL | {"validation": 0.2, "train_per_user": 5} | more)


def wanted(*searched: str, **more: Any) -> TuneOptions:
    return TuneOptions(method=more.pop("method", "coordinate"), search=searched or LAMBDAS, **more)


def new_study() -> optuna.Study:
    return optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner())


def told(study: optuna.Study) -> list[tuple[dict[str, Any], float | None, str]]:
    return [(trial.params, trial.value, trial.state.name) for trial in finished(study)]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulated(n_users=60, n_items=90, n_words=40, n_factors=3)


@pytest.fixture(autouse=True)
def silent() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


Recall = Callable[[dict[str, Any], int], float]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recall], list[dict[str, Any]]]:
    """Fits of three epochs whose validation recall is a function of the options and the epoch; returns those made."""

    def install(recall: Recall) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []

        def fit_with(dataset: Dataset, split: Split, options: Options, on_step: Any, pretrained: Any) -> Any:
            made.append(options.to_dict())
            for step in (1, 2, 3):
                on_step(step, 3, {"phase": "x", "validation_recall": recall(made[-1], step)})
            return SimpleNamespace(posterior=SimpleNamespace(score_block=recall(made[-1], 3), tells_users=False))

        def evaluate(score_block: float, split: Split, *, cutoffs: tuple[int, ...], ndcg_cutoffs: tuple[()]) -> Any:
            return SimpleNamespace(means=lambda: {f"recall@{cutoff}": score_block for cutoff in cutoffs})

        monkeypatch.setattr("inference.tuning.search.fit_with", fit_with)
        monkeypatch.setattr("inference.tuning.search.evaluate", evaluate)
        return made

    return install


# --- what is searched ------------------------------------------------------------------------------------------------


def test_ranges_and_choices_have_the_types_of_their_options() -> None:
    texts = ("lambda-u=1:1000:log", "factors=2:20", "tied=yes,no", "hidden=20 10,30", "guide=mean-field,structured")
    space = {one.name: one for one in dimensions(texts, options(mode="bayes"))}
    assert list(space) == sorted(space)
    D = optuna.distributions
    assert distribution_of(space["lambda_u"]) == D.FloatDistribution(1.0, 1000.0, log=True)
    assert distribution_of(space["factors"]) == D.IntDistribution(2, 20)
    assert space["tied"].choices == {"yes": True, "no": False}
    assert space["hidden"].choices == {"20 10": (20, 10), "30": (30,)}
    assert [space["hidden"].value("30"), space["hidden"].drawn((20, 10)), space["hidden"].drawn((5,))] == [
        (30,),
        "20 10",
        None,
    ]
    assert [space["factors"].value(7), space["factors"].drawn(3), space["factors"].drawn(50)] == [7, 3, None]


def test_a_drawn_fraction_is_short_and_stays_in_its_range() -> None:
    (one,) = dimensions(["lambda_u=1.2345641:9.8765479"], options())
    assert one.value(4.0123456789) == 4.01235
    assert (one.value(one.low), one.value(one.high)) == (one.low, one.high)  # not 1.23456, not 9.87655


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lambda_u", "--search has 'lambda_u'; write name=low:high, name=low:high:log or name=a,b,c"),
        ("lambda_u=3", "--search has 'lambda_u=3'; write"),
        ("lambda_u=1:2:3", "--search has 'lambda_u=1:2:3'; write"),
        ("tied=yes,yes", "--search has 'tied=yes,yes'; write"),
        ("=1:2", "--search has '=1:2'; write"),
        ("lambda_u=2:1", "--search has 'lambda_u=2:1'; low must be below high, and with log above 0"),
        ("b=0:1:log", "--search has 'b=0:1:log'; low must be below high, and with log above 0"),
        ("lambda_u=1:.inf", "--search has 'lambda_u=1:.inf'; low must be below high"),
        ("lambda_u=1:.nan", "--search has 'lambda_u=1:.nan'; low must be below high"),
        ("factors=1.5:3", "factors is '1.5', but it must be a whole number"),
        ("lambda_u=a:b", "lambda_u is 'a', but it must be a number"),
        ("tied=0:1", "--search has 'tied=0:1', but tied is no number; give choices, tied=a,b,c"),
        ("lambda_x=1:2", "unknown option 'lambda_x'; did you mean 'lambda_"),
        ("factor_learning_rate=1:2", "unknown option 'factor_learning_rate'; did you mean '"),
        (
            "train_per_user=1:2",
            "--search has train_per_user, which says what is fitted, not how; give --train-per-user",
        ),
        ("out=a,b", "unknown option 'out'"),
        ("lambda_u=-1:5", "--search: --lambda-u is -1.0, but it must be a finite number, 0 or more"),
        ("guide=mean-field,odd", "guide is 'odd', but it must be one of mean-field, structured"),
    ],
)
def test_a_wrong_space_is_answered_in_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        dimensions(wanted(text).search, options(mode="bayes"))
    assert str(caught.value).startswith(said)


def test_a_value_that_needs_another_of_the_space_is_allowed() -> None:
    base = options(pretrain_epochs=1)
    assert len(dimensions(("kl_warmup=0:5", "pretrain_epochs=5:9"), base)) == 2
    with pytest.raises(InputError, match=r"^--search: --kl-warmup is 5, but it must be no more than --pretrain-epochs"):
        dimensions(("kl_warmup=0:5",), base)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"search": ()}, "--search is ''"),
        ({"search": ("a=1:2", "a=3:4")}, "--search is 'a=1:2 a=3:4', but it must name one or more options, each once"),
        ({"trials": 0}, "--trials is 0, but it must be at least 1"),
        ({"timeout": 0.0}, "--timeout is 0.0, but it must be a finite number above 0"),
        ({"cutoffs": ()}, "--cutoffs is ''"),
        ({"cutoffs": (50, 0)}, "--cutoffs is '50 0', but it must be one or more numbers of 1 or more, each once"),
    ],
)
def test_wrong_options_of_the_search(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        TuneOptions(**{"method": "svi", "search": LAMBDAS} | more)
    assert str(caught.value).startswith(said)


def test_arguments_of_the_bases_likelihood_do_not_go_to_another(dataset: Dataset) -> None:
    base = options(content_likelihood="normal", content_likelihood_args={"lambda_x": 2.0})
    space = dimensions(("content_likelihood=normal,multinomial",), base)
    found = [settings({"content_likelihood": name}, space, base).model for name in ("normal", "multinomial")]
    assert [model.content_likelihood_args for model in found] == [{"lambda_x": 2.0}, {}]


# --- what it sees ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train_per_user", [5, 1])
def test_the_test_part_is_gone_before_the_first_fit(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, train_per_user: int
) -> None:
    base = options(train_per_user=train_per_user)
    split = make_split(dataset, base.data)
    assert (split.tuning_users is not None) == (train_per_user == 1)
    given: list[tuple[Dataset, Split]] = []

    def spy(dataset: Dataset, split: Split, *rest: Any) -> Any:
        given.append((dataset, split))
        return real(dataset, split, *rest)

    real = fit_with
    monkeypatch.setattr("inference.tuning.search.fit_with", spy)
    search(new_study(), wanted(trials=2), base, dataset, split)
    assert len(given) == 2
    for data, part in given:
        assert len(part.test) == 0 and data.truth is None
        assert np.array_equal(data.interactions.keys, split.train.keys)
        assert part.train is split.train and part.validation is split.validation


@pytest.mark.parametrize(
    ("method", "steep"), [("svi", "factor_learning_rate=0.03:1:log"), ("coordinate", "a=0.1:100:log")]
)
def test_other_test_pairs_change_nothing(dataset: Dataset, method: str, steep: str) -> None:
    """``steep`` changes even fits as short as these, so that trials are told apart."""
    base, how = options(method), wanted(*LAMBDAS, steep, method=method, trials=3, cutoffs=(5, 10, 20))
    split = make_split(dataset, base.data)
    none = split.test.select(np.arange(len(split.test)) < 1)
    other = replace(dataset, interactions=split.train), replace(split, test=none)
    studies = new_study(), new_study()
    search(studies[0], how, base, dataset, split)
    search(studies[1], how, base, *other)
    assert told(studies[0]) == told(studies[1])
    assert len({value for _, value, _ in told(studies[0])}) > 1


def test_without_test_keeps_the_rest(dataset: Dataset) -> None:
    split = make_split(dataset, options().data)
    data, part = without_test(dataset, split)
    assert data.content is dataset.content and part.protocol == split.protocol
    assert len(split.test) > 0 and dataset.truth is not None


def test_a_validation_part_is_needed(dataset: Dataset) -> None:
    base = options(validation=0.0)
    with pytest.raises(InputError, match="needs a validation part to look at; give --validation"):
        search(new_study(), wanted(), base, dataset, make_split(dataset, base.data))


# --- the trials ------------------------------------------------------------------------------------------------------


def test_the_first_trial_is_the_base_if_the_space_holds_it(dataset: Dataset, stub: Any) -> None:
    split = make_split(dataset, options().data)
    made = stub(lambda values, step: 0.5)
    search(new_study(), wanted("lambda_u=1:1000:log", "factors=3,4", trials=2), options(lambda_u=77.0), dataset, split)
    assert (made[0]["lambda_u"], made[0]["factors"]) == (77.0, 3)
    assert made[1]["lambda_u"] != 77.0
    search(new_study(), wanted("lambda_u=1:1000:log", "factors=4,5", trials=1), options(lambda_u=77.0), dataset, split)
    assert made[2]["lambda_u"] != 77.0


def test_a_search_finds_the_better_settings(dataset: Dataset, stub: Any) -> None:
    split, study = make_split(dataset, options().data), new_study()
    stub(lambda values, step: -abs(np.log10(values["lambda_u"]) - 2) - (values["factors"] == 4))
    search(study, wanted("lambda_u=1:100000:log", "factors=3,4", trials=40), options(), dataset, split)
    best = ranked(study)[0]
    assert best.params["factors"] == "3" and abs(np.log10(best.params["lambda_u"]) - 2) < 0.1


def test_a_weak_trial_is_stopped_but_not_at_its_last_epoch(dataset: Dataset, stub: Any) -> None:
    split = make_split(dataset, options().data)
    steps: list[int] = []
    stub(lambda values, step: -values["lambda_u"] + (100 if step < 3 and values["lambda_v"] > 10 else 0))
    studies = {pruning: new_study() for pruning in (True, False)}
    for pruning, study in studies.items():
        how = wanted("lambda_u=1:2", "lambda_v=1:20", trials=20, pruning=pruning)
        search(study, how, options(), dataset, split, on_step=lambda step, n_steps, row: steps.append(step))
    states = [state for _, _, state in told(studies[True])]
    assert set(states) == {"COMPLETE", "PRUNED"} and states[:5] == ["COMPLETE"] * 5
    for trial in finished(studies[True]):
        assert set(trial.intermediate_values) <= {1, 2}
        if trial.state.name == "PRUNED":
            earlier = [t.intermediate_values for t in finished(studies[True]) if t.number < trial.number]
            values = list(trial.intermediate_values.values())
            at = [then[len(values)] for then in earlier if len(then) >= 2]
            assert max(values) < np.median(at)
    assert {state for _, _, state in told(studies[False])} == {"COMPLETE"}


@pytest.mark.parametrize(
    "error",
    [
        MachineError("epoch 1: no finite number: ratings"),
        torch.OutOfMemoryError("too large\nmore"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("Storage size calculation overflowed with sizes=[1, 4]"),
        OverflowError("Python integer too large"),
    ],
)
def test_a_trial_that_diverges_is_stored_as_failed_and_the_search_goes_on(
    dataset: Dataset, stub: Any, error: Exception
) -> None:
    split, study = make_split(dataset, options().data), new_study()

    def recall(values: dict[str, Any], step: int) -> float:
        if values["lambda_u"] < 30:
            raise error
        return 0.5

    stub(recall)
    search(study, wanted(trials=8), options(), dataset, split)
    states = [state for _, _, state in told(study)]
    assert len(states) == 8 and set(states) == {"COMPLETE", "FAIL"}
    said = {trial.user_attrs["failed"] for trial in finished(study) if trial.state.name == "FAIL"}
    (reason,) = said
    assert reason == str(error) if isinstance(error, MachineError) else reason.startswith("out of memory")


def test_a_trial_that_needs_more_than_the_machine_has_is_told_and_the_search_goes_on(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    """On commit 3a1bb09 torch's RuntimeError ended the search, since it is no MemoryError."""
    split, study = make_split(dataset, options().data), new_study()
    search(study, wanted("factors=3,100000000", trials=6), options(), dataset, split)
    found = {trial.params["factors"]: trial.user_attrs.get("failed", "") for trial in finished(study)}
    assert found["3"] == "" and "would take" in found["100000000"] and "fewer --factors" in found["100000000"]
    assert any("failed: a fit of" in record.getMessage() for record in caplog.records)


def test_a_fit_that_diverges_in_earnest(dataset: Dataset) -> None:
    base = options("svi", mode="bayes", epochs=2)
    split, study = make_split(dataset, base.data), new_study()
    how = wanted("learning_rate=0.003,1e30", method="svi", trials=4)
    search(study, how, base, dataset, split)
    found = {trial.params["learning_rate"]: trial.user_attrs.get("failed", "") for trial in finished(study)}
    assert found["0.003"] == "" and "no finite number" in found["1e30"]


@pytest.mark.parametrize("trials", [6, 7, 20])
def test_few_choices_are_all_tried_and_the_search_ends(dataset: Dataset, stub: Any, trials: int) -> None:
    """Two trials of two choices could be of one of them."""
    split, study = make_split(dataset, options().data), new_study()
    made = stub(lambda values, step: values["factors"] + values["lambda_u"])
    how = wanted("factors=2,3,4", "lambda_u=1,2", trials=trials)
    for _ in range(2):  # the second call finds nothing to do
        search(study, how, options(), dataset, split)
        assert sorted((one["factors"], one["lambda_u"]) for one in made) == [(f, u) for f in (2, 3, 4) for u in (1, 2)]
    assert len(finished(study)) == 6 and ranked(study)[0].value == 6.0


def test_choices_that_were_tried_are_not_fitted_again(dataset: Dataset, stub: Any) -> None:
    split, study = make_split(dataset, options().data), new_study()
    made = stub(lambda values, step: float(values["factors"]))
    many = ",".join(map(str, range(2, 15)))
    search(study, wanted(f"factors={many}", trials=12), options(), dataset, split)
    tried = [values["factors"] for values in made]
    assert len(finished(study)) == 12 and len(set(tried)) == len(tried)
    assert ranked(study)[0].value == max(tried)


def test_the_time_ends_it_before_a_trial(dataset: Dataset, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    split, study = make_split(dataset, options().data), new_study()
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr("inference.tuning.search.time", SimpleNamespace(monotonic=lambda: next(clock)))
    stub(lambda values, step: 0.5)
    search(study, wanted(trials=50, timeout=3.0), options(), dataset, split)
    assert len(finished(study)) == 3  # at 50, 100 and 150 seconds


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(dataset: Dataset) -> None:
    base, how = options(), wanted(trials=13, cutoffs=(10,))
    split, whole, parts = make_split(dataset, base.data), new_study(), new_study()
    search(whole, how, base, dataset, split)
    for done in (0, 4, 11):  # trials before the one that is interrupted

        def on_step(step: int, n_steps: int, row: dict[str, Any], done: int = done) -> None:
            if len(finished(parts)) == done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(parts, how, base, dataset, split, on_step=on_step)
    search(parts, how, base, dataset, split)
    assert told(parts) == told(whole)
    assert len(parts.trials) == 16 and [trial.state.name for trial in parts.trials].count("FAIL") == 3


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tuned(*more: str, method: str = "coordinate", n: int = 2) -> None:
    main([method, "--search", *LAMBDAS, "--trials", str(n), *FLAGS, "--out", "best.yaml", *more])


def test_the_file_fits_to_the_same_recall(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned("--lambda-u", "50", "--lambda-v", "20", "--cutoffs", "50", "300", "--hidden", "9", n=3)
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == ["settings: best.yaml", "next: python -m inference.coordinate --config best.yaml"]
    text = (folder / "best.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert comments[0].startswith("# Found by python -m inference.tune coordinate --search lambda_u=1:1000:log")
    found = re.fullmatch(
        r"# recall@50 (\S+), recall@300 (\S+) on the validation part \(--validation 0.2\).", comments[1]
    )
    assert found
    assert re.fullmatch(r"# The best of trials: 3 \(3 finished\); it is number [012]\.", comments[2])
    assert re.fullmatch(r"# pyro-cvae \S+; data [0-9a-f]{64}; split [0-9a-f]{64}\.", comments[-1])
    held = yaml.safe_load(text)
    assert set(held) == {"mode", "factors", "hidden", "pretrain_epochs", "epochs", "lambda_u", "lambda_v"}
    assert held["hidden"] == [9] and "hidden: [9]" in text

    again = ["--validation", "0.2", "--threads", "1", "--quiet", "--out"]
    monkeypatch.setattr(sys, "argv", ["x", "--config", "best.yaml", *again, "run"])
    assert run_fit("coordinate") == 0
    recall = load("run").history[-1]["validation_recall"]
    assert f"{recall:.4f}" == found[2]
    with open_study(folder / "best.db", _identity(folder)) as study:
        best = ranked(study)[0]
    assert abs(best.user_attrs["recalls"]["recall@300"] - recall) < 1e-12
    assert best.value == pytest.approx((best.user_attrs["recalls"]["recall@50"] + recall) / 2, abs=1e-12)


def _identity(folder: Path) -> dict[str, Any]:
    """Of the stored study, without a check."""
    with _stored(folder) as study:
        return study.user_attrs["identity"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two trials."""
    path = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        tuned(n=2)
    return path / "best.db"


def answer(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and error of the same search with one more trial."""
    code = run_command(lambda: tuned(n=3))
    return code, capsys.readouterr().err


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("how", ["flipped", "cut", "zeros"])
def test_a_damaged_storage_is_one_line(
    stored: Path, folder: Path, how: str, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """On commit 3a1bb09 flipped bits came out as nine kinds of traceback."""
    raw = bytearray(stored.read_bytes())
    at = int(share * len(raw))
    if how == "cut":
        del raw[at:]
    else:
        for place in range(at, min(at + 4096, len(raw))):
            raw[place] = 0 if how == "zeros" else raw[place] ^ 0x11
    (folder / "best.db").write_bytes(raw)
    code, said = answer(capsys)
    assert code in (0, 2) and (code == 0 or said.startswith("error: best.db: "))
    assert "Traceback" not in said and (code == 0 or said.count("\n") == 1)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE trial_params SET distribution_json = 'nonsense'", "cannot hold the trials"),
        ("UPDATE trial_params SET distribution_json = replace(distribution_json, '1000.0', '7.0')", "contained"),
        ("UPDATE trial_user_attributes SET value_json = '[1, 2]' WHERE key = 'recalls'", "trial 0 is damaged"),
        ("UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'recalls'", "cannot hold the trials"),
        ("UPDATE trial_values SET value = 9e999", "cannot hold the trials"),
        ("UPDATE trials SET state = 'NONE'", "cannot hold the trials"),
        ("UPDATE trials SET number = number + 5", "cannot hold the trials"),
        ("UPDATE study_user_attributes SET value_json = '7'", "cannot hold the trials"),
        ("UPDATE study_directions SET direction = 'MINIMIZE'", "its direction is not maximize"),
        ("UPDATE alembic_version SET version_num = 'v9'", "cannot hold the trials"),
        ("DROP TABLE trial_values", "best.db"),
        ("CREATE VIEW endless AS SELECT 1", "is damaged, or no file of trials"),
    ],
)
def test_a_storage_with_other_content_is_one_line(
    stored: Path, folder: Path, statement: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "best.db").write_bytes(stored.read_bytes())
    with closing(sqlite3.connect(folder / "best.db")) as connection, connection:
        connection.execute(statement)
    code, said = answer(capsys)
    assert code == 2 and words in said and said.count("\n") == 1, said


def test_a_storage_that_is_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("best.db")
    assert answer(capsys) == (2, "error: best.db: is a pipe, not a regular file; write it to a file first\n")


def test_the_same_command_goes_on_up_to_its_trials(folder: Path, stub: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stub(lambda values, step: values["lambda_u"])
    tuned(n=2)
    first = _values(folder)
    tuned("--device", "cpu", "--no-pruning", n=4)
    assert len(first) == 2 and len(_values(folder)) == 4 and _values(folder)[:2] == first
    tuned(n=4)
    assert len(_values(folder)) == 4
    main(["coordinate", "--search", *reversed(LAMBDAS), "--trials", "4", *FLAGS, "--out=b.yaml", "--storage=best.db"])
    assert len(_values(folder)) == 4
    capsys.readouterr()


def _values(folder: Path) -> list[float | None]:
    with _stored(folder) as study:
        return [trial.value for trial in study.trials]


@contextmanager
def _stored(folder: Path) -> Iterator[optuna.Study]:
    """The stored study; its connection is closed, which Python 3.13 asks for."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'best.db'}")
    try:
        yield optuna.load_study(study_name="tune", storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def test_lists_that_count_are_at_most_half_of_a_small_catalogue(
    folder: Path, stub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(lambda values, step: 0.5)
    tuned("--data", "simulated-gaussian", "--cutoffs", "20", "300", n=1)  # of 200 items
    assert "recall@20  recall@100 " in capsys.readouterr().out
    assert "recall@100" in (folder / "best.yaml").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--cutoffs", "50"), "--cutoffs 300, not 50"),
        (("--epochs", "2"), "--epochs 1, not 2"),
        (("--hidden", "9", "8"), "--hidden 8, not 9 8"),
        (("--split-seed", "1"), "--split-seed 0, not 1"),
        (("--data", "simulated-gaussian"), "--data simulated, not simulated-gaussian"),
        (("--learn-precisions", "--mode", "bayes"), "--learn-precisions False, not True"),
    ],
)
def test_another_search_in_the_same_storage_is_refused(
    folder: Path, stub: Any, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(lambda values, step: 0.5)
    tuned(n=1)
    before = (folder / "best.yaml").read_text()
    with pytest.raises(InputError) as caught:
        tuned(*more)
    assert str(caught.value) == f"best.db: its trials were made with {said}; give the same again, or another --storage"
    assert (folder / "best.yaml").read_text() == before
    with pytest.raises(InputError, match=r"made with --search lambda_u=1:1000:log lambda_v=0.1:100:log, not b=0:1;"):
        main(["coordinate", "--search", "b=0:1", *FLAGS, "--out", "best.yaml"])
    with pytest.raises(InputError, match="made with "):
        tuned(method="svi")


def test_other_data_of_the_same_name_are_refused(folder: Path, stub: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stub(lambda values, step: 0.5)
    pairs = [f"{user},{(user + step) % 12}" for user in range(12) for step in (0, 1, 3, 5, 6)]
    items = "item,text\n" + "".join(f"{item},{'comet nebula' if item % 2 else 'sail mast'}\n" for item in range(12))
    (folder / "items.csv").write_text(items)
    mine = ("--data", "pairs.csv", "--items", "items.csv", "--train-per-user", "3")
    (folder / "pairs.csv").write_text("\n".join(["user,item", *pairs]))
    tuned(*mine, n=1)
    (folder / "pairs.csv").write_text("\n".join(["user,item", *pairs[:-1]]))
    with pytest.raises(InputError, match=r"its trials were made with data fingerprint [0-9a-f]{64}, not [0-9a-f]{64};"):
        tuned(*mine, n=2)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ValueError("enough")])
def test_what_the_caller_raises_ends_the_search_though_a_plug_in_was_imported(
    dataset: Dataset, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blame, "_plugins", {"my_plug_ins"})

    def on_step(step: int, n_steps: int, row: dict[str, Any]) -> None:
        raise error

    study, base = new_study(), options()
    with pytest.raises(type(error)) as raised:
        search(study, wanted(trials=4), base, dataset, make_split(dataset, base.data), on_step=on_step)
    assert raised.value is error and len(study.trials) == 1
    assert not finished(study), "the settings are not to blame"


@pytest.mark.parametrize("plugins", [set(), {"my_plug_ins"}])
def test_ctrl_c_leaves_the_best_so_far(
    plugins: set[str], folder: Path, stub: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(blame, "_plugins", plugins)

    def recall(values: dict[str, Any], step: int) -> float:
        if len(made) == 3 and armed:
            armed.clear()
            raise KeyboardInterrupt
        return values["lambda_u"] + step

    armed = [True]
    made = stub(recall)
    assert run_command(lambda: tuned(n=6)) == 130
    assert (
        "The best of trials: 2 (2 finished)" in (folder / "best.yaml").read_text()
        and "next: python" in capsys.readouterr().out
    )
    best = max(values["lambda_u"] for values in made[:2])
    assert yaml.safe_load((folder / "best.yaml").read_text())["lambda_u"] == best
    tuned("--no-pruning", n=6)
    assert made[2] == made[3] and len(made) == 7
    assert "trials: 6 (6 finished)" in (folder / "best.yaml").read_text()


def test_at_one_item_a_user_the_validation_part_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned("--train-per-user", "1", n=1)
    held = yaml.safe_load((folder / "best.yaml").read_text())
    assert (held["validation"], held["train_per_user"]) == (0.2, 1)
    assert ": with the validation part held back." in (folder / "best.yaml").read_text()


def test_early_stopping_keeps_the_validation_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned("--patience", "2", n=1)
    assert yaml.safe_load((folder / "best.yaml").read_text())["validation"] == 0.2


def test_presets_and_files_are_the_base(folder: Path, stub: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = stub(lambda values, step: 0.5)
    (folder / "mine.yaml").write_text("lambda_v: 20\nvalidation: 0.1\nout: runs/mine\nquiet: true\noverwrite: true\n")
    main(["coordinate", "--search", *LAMBDAS, "--trials=1", "--preset=paper", "--config=mine.yaml", "--lambda-u=3"])
    assert (made[0]["lambda_u"], made[0]["lambda_v"], made[0]["a"], made[0]["validation"]) == (3.0, 20.0, 1.0, 0.1)
    assert (made[0]["out"], made[0]["overwrite"]) == (None, False)
    held = yaml.safe_load((folder / "runs" / "tune-simulated-coordinate.yaml").read_text())
    assert (held["a"], held["content_likelihood"]) == (1.0, "pseudo-bernoulli") and "out" not in held
    assert (folder / "runs" / "tune-simulated-coordinate.db").is_file()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "{svi,coordinate}, --search is missing; give it first"),
        (["coordinate"], "--search is missing"),
        (["coordinat", "--search", "b=0:1"], "{svi,coordinate} is 'coordinat', but it must be one of svi, coordinate"),
        (["coordinate", "--search", "b=0:1"], "--validation is 0.0, but the search needs a validation part; give"),
        (["svi", "--search", "b=0:1", "--search", "a=1:2"], "--search is given twice; give all searched options after"),
        (["svi", "--search", "sweeps=1:2", "--validation=0.2"], "unknown option 'sweeps'"),
        (["svi", "--search", "b=0:1", "--validation=0.2", "--sweeps=3"], "unknown option --sweeps; did you mean"),
        (["svi", "--search", "b=0:1", "--validation=0.2", "--resume"], "unknown option --resume"),
        (["svi", "--search", "b=0:1", "--validation=0.2", "--out=there.yaml"], "there.yaml: is there already, but no"),
        (
            ["svi", "--search", "b=0:1", "--validation=0.2", "--storage=there.yaml"],
            "there.yaml: is no file of trials (SQLite); choose another --storage",
        ),
    ],
)
def test_a_wrong_call_is_answered_in_one_line(folder: Path, argv: list[str], said: str) -> None:
    (folder / "there.yaml").write_text("mine: 1\n" * 100)
    with pytest.raises(InputError) as caught:
        main(argv)
    assert str(caught.value).startswith(said)
    assert (folder / "there.yaml").read_text() == "mine: 1\n" * 100


def test_where_no_trial_works_the_last_reason_is_said(folder: Path, stub: Any) -> None:
    def recall(values: dict[str, Any], step: int) -> float:
        raise MachineError("epoch 1: no finite number")

    stub(recall)
    with pytest.raises(InputError, match=r"best.db: no trial has worked: epoch 1: no finite number; search elsewhere"):
        tuned()
    assert not (folder / "best.yaml").exists()


@pytest.mark.parametrize("argv", [["--help"], ["svi", "--search", "b=0:1", "--dato", "x"]])
def test_help_and_a_wrong_option_answer_without_torch_and_optuna(argv: list[str]) -> None:
    code = (
        "import sys; from inference.tune import main; from pyro_cvae.errors import run_command\n"
        "try: code = run_command(main)\nexcept SystemExit as end: code = end.code\n"
        "assert not {'torch', 'optuna', 'pandas', 'scipy', 'sqlalchemy'} & set(sys.modules)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    if argv == ["--help"]:
        assert done.returncode == 0 and "--search" in done.stdout and "paper: " in done.stdout
    else:
        assert (done.returncode, done.stderr) == (2, "error: unknown option --dato; did you mean --data?\n")
