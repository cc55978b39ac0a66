"""Numbers in the units of the ratings are told with digits, however small or large these units are."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import inference
from analysis.compare import main as compare_command
from analysis.page.making import report
from analysis.page.options import ReportOptions
from analysis.soundness.diagnosis import diagnose
from inference import evaluate, recommend
from inference.fit_command import _report
from inference.numerals import metric, number
from inference.printing import sheet_of
from pyro_cvae.data.frames import from_frames

NOTHING = re.compile(r"(?<![\d.])[-+]?0\.0+(?![\de.])")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0, "0.000"), (1.23456, "1.235"), (0.0123, "0.012"), (0.00123, "1.230e-03"), (-4.5e-7, "-4.500e-07"),
        (2.5e6, "2500000.000"), (3e13, "3.000e+13"), (float("nan"), "-"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_a_number_keeps_its_digits(value, told):
    assert number(value) == told


def test_what_stands_beside_a_larger_number_has_its_decimals():
    assert number(0.0001, 3, size=2.0) == "0.000" and number(0.0001, 3, size=0.005, sign="+") == "+1.000e-04"
    assert (metric("rmse", 1e-6), metric("RMSE", 1e-6), metric("recall@50", 1e-6)) == (*["1.000e-06"] * 2, "0.0000")
    rows = sheet_of(pd.DataFrame({"item": [1, 2], "sd": [1e-6, np.nan], "score": [2.0, 1e-6]})).rows
    assert rows == [["1", "1.000e-06", "2.000"], ["2", "", "0.000"]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A fit of stars of some millionths."""
    rng = np.random.default_rng(0)
    pairs = [(u, j) for u in range(30) for j in rng.choice(25, 9, replace=False)]
    ratings = {"user": [u for u, _ in pairs], "item": [j for _, j in pairs]}
    ratings["rating"] = (1 + rng.integers(0, 5, len(pairs))) * 1e-6
    items = {"item": range(25), "text": [" ".join(rng.choice(["oak", "elm", "ash", "fir"], 5)) for _ in range(25)]}
    given = {"factors": 2, "hidden": (4,), "pretrain_epochs": 1, "epochs": 1, "split": "cells", "quiet": True}
    given |= {"rating_likelihood": "normal", "method": "coordinate", "mode": "bayes", "threads": 1}
    return inference.fit(
        from_frames(ratings, items, ratings="stars"), **given, out=tmp_path_factory.mktemp("runs") / "tiny"
    )


def test_no_table_tells_tiny_ratings_as_nothing(tiny, answer, capsys):
    _report(tiny, 1.0)
    fitted = capsys.readouterr().out
    told = [next(line for line in fitted.splitlines() if name in line) for name in ("rmse", "mae")]
    for command, words in (
        (evaluate.main, [tiny.path]),
        (recommend.main, [tiny.path, "--user", "3", "--top", "3", "--interval", "0.9", "--ranking", "ucb"]),
        (compare_command, [tiny.path, "--resamples", "20"]),
    ):
        code, said, _ = answer(command, *words)
        assert code == 0
        told.append(said.partition("Posterior sd")[0])
    assert not NOTHING.findall("\n".join(told))
    numbers = diagnose(tiny, n_users=5, draws=100, check_users=5, check_texts=5, check_draws=10).summary
    values = numbers.set_index("what")["value"]
    assert not NOTHING.findall(values["noise of a rating"] + values["item biases"])


def test_the_page_of_tiny_ratings_shows_them(tiny):
    page = report(ReportOptions((str(tiny.path),), draws=20, users=1))
    assert "noise of standard deviation 0.000" not in page and "mean 0.000" not in page
    card = re.search(r"RMSE.*?(\d\.\d+(e-\d+)?)", re.sub(r"<svg.*?</svg>", "", page, flags=re.S), re.S)
    assert card and card[2] == "e-06"
