"""Two hundred malformed files, options, run folders and storages through the commands.

The cases are forked, and a fork of a process that has computed with several threads hangs when it computes: every test
here asks for them in a fresh process.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from benchmarks import fuzz, fuzz_cases
from benchmarks.fuzz_cases import BANDIT, KINDS, MCMC, ON_RUNS, SVI, TABLES, TUNE, Case

GOOD = [
    (*SVI, *TABLES),
    (*SVI, "--data", "pairs.parquet", "--items", "items.parquet"),
    (*SVI, *TABLES, "--contents", "v=v.npy"),
    (*SVI, *TABLES, "--contents", "v=v.npz"),
    (*SVI, *TABLES, "--config", "options.yaml"),
    (*SVI, *TABLES, "--contents", "p=pictures"),
    (*SVI, "--train-per-user", "1", "--data", "atomic"),
    (*SVI, "--train-per-user", "1", "--data", "cite"),
    *ON_RUNS,
    (*TUNE, "--trials", "3"),
    BANDIT,
    MCMC,
]


def in_a_fresh_process(work: Callable[..., Any], *given: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def of_good_inputs() -> dict[int, fuzz.Outcome]:
    fuzz.case = lambda seed: Case("good", GOOD[seed], lambda folder: None)
    return fuzz.run_cases(list(range(len(GOOD))), workers=2)


def of_one_that_does(code: str) -> fuzz.Outcome:
    import sys

    import inference.doctor
    from pyro_cvae.errors import InputError

    names = {"InputError": InputError, "sys": sys}
    inference.doctor.main = lambda: exec(code, names)
    fuzz.case = lambda seed: Case("bad", ("inference.doctor",), lambda folder: None)
    fuzz.prepare = lambda folder: (folder / "pairs.csv").write_text("x")
    return fuzz.run_cases([0])[0]


@pytest.mark.slow
def test_no_malformed_input_breaks_the_contract_of_the_commands() -> None:
    outcomes = in_a_fresh_process(fuzz.run_cases, list(range(200)), 2)
    wrong = {seed: (outcome.wrong, outcome.said[-300:]) for seed, outcome in outcomes.items() if outcome.wrong}
    assert not wrong
    assert {fuzz_cases.case(seed).kind for seed in outcomes} == set(KINDS)


@pytest.mark.slow
def test_the_inputs_are_good_before_they_are_damaged() -> None:
    """What is refused is refused for its damage."""
    outcomes = in_a_fresh_process(of_good_inputs)
    assert {seed: outcome.said for seed, outcome in outcomes.items() if outcome.code or outcome.wrong} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError", "a traceback"),
        ("import os; os.abort()", "exit code -6"),
        ("x = b'x' * (3 * 2**29)", "it took 1.5 GiB"),
        ("open('.new-x', 'w').close()", "left .new-x"),
        ("open('pairs.csv', 'w').close(); raise InputError('no')", "is another"),
        ("print('error: a', file=sys.stderr); raise InputError('no')", "2 lines of error"),
    ],
)
def test_a_broken_contract_is_seen(code: str, said: str) -> None:
    assert said in in_a_fresh_process(of_one_that_does, code).wrong
