"""``--split none``: all pairs are fitted, nothing is evaluated, and each command says so or works."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

import inference
from inference import evaluate, tune
from inference.fit_command import run_fit
from inference.recommending import recommend
from pyro_cvae.errors import run_command

SMALL = ["--factors", "2", "--hidden", "4", "--epochs", "1", "--pretrain-epochs", "1", "--quiet"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    rows = [(f"u{i}", f"i{j}") for i in range(8) for j in rng.choice(20, 12, replace=False)]
    pd.DataFrame(rows, columns=["user", "item"]).to_csv(folder / "ratings.csv", index=False)
    texts = [" ".join(rng.choice(["comet", "sail", "oven", "lemma"], 5)) for _ in range(20)]
    pd.DataFrame({"item": [f"i{j}" for j in range(20)], "text": texts}).to_csv(folder / "items.csv", index=False)
    return folder


@pytest.fixture
def call(monkeypatch, capsys, tables):
    def run_it(main, *argv):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, argv)])
        code = main("svi") if main is run_fit else run_command(main)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_it


def data(tables):
    return ["--data", tables / "ratings.csv", "--items", tables / "items.csv"]


def test_a_fit_for_use(call, tables, tmp_path):
    out = tmp_path / "run"
    code, said, _ = call(run_fit, *data(tables), "--split", "none", "--out", out, *SMALL)
    assert code == 0 and "recall@" not in said
    told = " ".join(said.split())
    assert "held out: test, validation pairs none" in told and "test metrics none: no pair is held out" in told
    fit = inference.load(out)
    assert len(fit.split.train) == len(fit.dataset.interactions) == 96 and not len(fit.split.test)
    assert not any(name.startswith("recall@") for name in json.loads((out / "metrics.json").read_text("utf-8")))
    code, said, problem = call(evaluate.main, out, "--rivals")
    assert (code, said) == (2, "") and problem.count("\n") == 1 and str(out) in problem
    assert "all pairs were fitted (--split none)" in problem and "fit again with another --split" in problem


@pytest.mark.parametrize("command", ["compare", "report", "calibration"])
def test_analysis_of_such_a_run_is_refused_in_one_line(call, tables, tmp_path, command):
    import importlib

    main = importlib.import_module(f"analysis.{command}").main
    out = tmp_path / "run"
    assert call(run_fit, *data(tables), "--split", "none", "--out", out, *SMALL)[0] == 0
    code, _, problem = call(main, out, "--out", tmp_path / "made.html")
    assert code == 2 and "(--split none)" in problem.splitlines()[-1] and "Traceback" not in problem
    assert not (tmp_path / "made.html").exists()


def test_settings_are_searched_on_a_validation_part_of_all_pairs(call, tables, tmp_path):
    out = tmp_path / "best.yaml"
    search = ["svi", "--search", "lambda_u=1,100", "--trials", "2", "--cutoffs", "5", "--out", out]
    code, _, problem = call(tune.main, *search, *data(tables), "--split", "none", *SMALL)
    assert code == 2 and "needs a validation part" in problem
    code, _, problem = call(tune.main, *search, *data(tables), "--split", "none", "--validation", "0.3", *SMALL)
    assert code == 0, problem
    assert yaml.safe_load(out.read_text("utf-8"))["split"] == "none"


@pytest.mark.parametrize("split", ["none", "per-user", "items", "cells"])
def test_a_list_leaves_out_all_that_a_user_has_chosen(call, tables, tmp_path, split):
    out = tmp_path / "run"
    more = ["--train-per-user", "4", "--validation", "0.5"] if split == "per-user" else []
    code, said, _ = call(run_fit, *data(tables), "--split", split, "--out", out, *more, *SMALL)
    assert code == 0 and "held out: test, validation pairs" in said
    fit = inference.load(out)
    chosen = pd.read_csv(tables / "ratings.csv")
    table = recommend(fit, fit.dataset.user_ids, 20)
    own = table.merge(chosen, on=["user", "item"])
    assert len(own) == 0 and len(table) == 8 * 20 - len(chosen)
    evaluated = recommend(fit, fit.dataset.user_ids, 20, keep_test=True).merge(chosen, on=["user", "item"])
    assert len(evaluated) == len(fit.split.test)
    assert len(recommend(fit, fit.dataset.user_ids, 20, keep_seen=True)) == 8 * 20
