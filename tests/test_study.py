"""What the benchmarks share: splits and settings of a study, turns, paired errors, processes that are asked."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.study.arguments import add_data, add_threads, as_command, command, data_folder
from benchmarks.study.choosing import best_recall, least, reported_split, tuning_split, validation_as_test
from benchmarks.study.paired import difference, standard_error
from benchmarks.study.tables import show_rows, told
from benchmarks.study.turns import in_turns
from benchmarks.study.workers import ask, worker
from pyro_cvae.data.simulated import simulated
from pyro_cvae.errors import MachineError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dataset():
    return simulated(n_users=40, n_items=60, n_words=20, n_factors=3)


def keys(part):
    return set(part.keys[part.observed].tolist())


def test_settings_are_chosen_apart_from_what_is_reported(dataset):
    """With ten items a user on training pairs, with one on users that are marked in every split that is reported."""
    tuning, reported = tuning_split(dataset, 10, 0), reported_split(dataset, 10, 0)
    assert keys(tuning.validation) < keys(reported.train) and reported.validation is None
    assert keys(tuning.train) | keys(tuning.validation) == keys(reported.train)
    tuning, reported = tuning_split(dataset, 1, 0), reported_split(dataset, 1, 3)
    assert tuning.tuning_users.sum() == 4 and np.array_equal(tuning.tuning_users, reported.tuning_users)
    assert keys(validation_as_test(tuning).test) == keys(tuning.validation)


def test_the_best_recall_on_the_validation_part_is_chosen(dataset):
    split = tuning_split(dataset, 10, 0)
    truth = torch.zeros(40, 60)
    truth[split.validation.users, split.validation.items] = 1.0
    best, found = best_recall(lambda a, b: lambda users: a * truth[users], [(-1.0, 0), (1.0, 0), (0.0, 0)], split)
    assert best == (1.0, 0) and found[best] == (1.0, 1.0) and found[-1.0, 0][0] < 0.2


def test_the_least_loss_is_chosen_and_none_is_computed_where_there_is_no_choice():
    assert least(abs, [3.0, -1.0, 2.0]) == (-1.0, [3.0, 1.0, 2.0])
    assert least(lambda setting: 1 / 0, [{"a": 1}]) == ({"a": 1}, [0.0])


def test_differences_are_paired():
    mine, theirs = [1.0, 5.0, 9.0], [0.0, 4.0, 8.0]
    assert difference(mine, theirs) == (1.0, 0.0)
    assert np.isnan(difference([1.0], [0.0])[1])
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)


def test_turns_are_unrecorded_as_often_as_asked():
    order = []
    timers = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert in_turns(timers, 2, unrecorded=0) == {"a": [1, 4], "b": [2, 3]} and order == ["a", "b", "b", "a"]


def test_data_are_by_default_under_the_folder_that_is_named(monkeypatch, tmp_path):
    def parsed(*argv):
        parser = command("a", "%s of data\n")
        add_data(parser, "citeulike-t")
        add_threads(parser, 2)
        assert "%s of data" in parser.format_help()
        return parser.parse_args(argv)

    monkeypatch.setenv("PYRO_CVAE_DATA", str(tmp_path))
    assert parsed().data == str(tmp_path / "citeulike-t") and parsed("--threads", "0").threads == 0
    monkeypatch.delenv("PYRO_CVAE_DATA")
    assert (parsed().data, parsed().threads) == ("citeulike-t", 2)
    assert data_folder(str(tmp_path)) == tmp_path


def test_rows_are_printed_under_their_keys(capsys):
    show_rows([{"variant": "one", "seconds": 0.123456}], ".2g", title="Times")
    printed = capsys.readouterr().out
    assert "Times" in printed and "variant" in printed and "0.12" in printed and "0.123" not in printed
    assert told({"lambda_u": 10.0, "factors": 20}) == "lambda_u 10, factors 20"


def test_a_worker_that_dies_is_told():
    with worker("sys", 1) as process, pytest.raises(SystemExit, match="that was asked 'size' died"):
        ask(process, "size")


def test_every_benchmark_runs_as_a_command():
    files = [path for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()]
    assert len(files) > 30
    ends = {path.name: path.read_text().split('if __name__ == "__main__":')[1] for path in files}
    assert [name for name, end in ends.items() if "as_command(" not in end] == ["fuzz_cases.py"]  # a step of fuzz.py


def lacking():
    raise MachineError("there is no network", "connect to one")


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (lambda: [{"seconds": 1.0}], 0, ""),
        (lambda: 3, 3, ""),
        (lacking, 1, "error: there is no network; connect to one\n"),
    ],
)
def test_errors_of_a_benchmark_are_one_line(main, code, said, capsys):
    with pytest.raises(SystemExit) as ended:
        as_command(main)
    assert ended.value.code == code and capsys.readouterr().err == said


@pytest.mark.slow
def test_a_benchmark_without_its_data_says_so_in_one_line(tmp_path):
    how = [sys.executable, "-m", "benchmarks.sweeps", "--parts", "sweeps", "--data", str(tmp_path / "none")]
    done = subprocess.run(how, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no such data set" in done.stderr
