"""Run folders that commit 3a1bb09 wrote open, answer as its code did, and go through every command."""

import json
import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import analysis.diagnostics
import analysis.posterior
import analysis.report
import inference
import inference.evaluate
import inference.recommend
from inference.recommending import fold_in, recommend
from models.cvae import CVAE
from pyro_cvae.errors import run_command

FOLDER = Path(__file__).parents[1] / "fixtures" / "runs-of-3a1bb09"
SAID = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))
CLOSE = {"rtol": 1e-6, "atol": 1e-7}
"""Twice the rounding of float32 or so: sums may be taken in another order."""

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")


@pytest.fixture(params=SAID)
def name(request):
    return request.param


@pytest.fixture
def run(name, tmp_path):
    """A copy: what is committed stays as it is."""
    return Path(shutil.copytree(FOLDER / name, tmp_path / name))


def test_it_opens_without_a_word(name, run, caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "pyro_cvae"):
        warnings.simplefilter("error")
        fit = inference.load(run)
    assert caplog.messages == [] and isinstance(fit.model, CVAE)
    stored = json.loads((run / "config.json").read_text())["options"]
    now = fit.options.to_dict()
    for option in ("rating_likelihood", "factors", "mode", "guide", "a", "b", "biases", "lambda_u", "lambda_v"):
        assert now[option] == stored[option], option
    assert now["model"] == "cvae"


def test_scores_and_predictions_are_those_of_then(name, run):
    fit, said = inference.load(run), SAID[name]
    users, items = said["users"], said["items"]
    torch.testing.assert_close(fit.posterior.mean_score(users, items).float(), torch.tensor(said["mean"]), **CLOSE)
    if "sd" in said:
        mean, sd = fit.posterior.score(users, items)
        torch.testing.assert_close(mean.float(), torch.tensor(said["mean"]), **CLOSE)
        torch.testing.assert_close(sd.float(), torch.tensor(said["sd"]), **CLOSE)
    predicted = fit.predict(fit.dataset.user_ids[users], fit.dataset.item_ids[items])
    for column in ("mean", "sd"):
        np.testing.assert_allclose(predicted[column], said["predicted"][column], err_msg=column, **CLOSE)


@pytest.mark.parametrize("name", [name for name in SAID if "folded_in" in SAID[name]], indirect=True)
def test_a_user_who_is_folded_in_has_the_scores_of_then(name, run):
    fit = inference.load(run)
    liked = fit.dataset.item_ids[[1, 2, 20]]
    stars = [2.0, 4.5, 5.0] if fit.model.ratings.explicit else None
    folded = fold_in(fit, ["new"] * len(liked), liked, ratings=stars)
    scores = folded.posterior.score_block(folded.dataset.user_rows(["new"]))[0]
    torch.testing.assert_close(scores.float(), torch.tensor(SAID[name]["folded_in"]), rtol=1e-5, atol=1e-6)


def test_the_first_recommendation_is_the_best_item_not_yet_chosen(name, run):
    fit = inference.load(run)
    best = recommend(fit, fit.dataset.user_ids[[3]], top=1)
    scores = fit.posterior.score_block(np.array([3]))[0]
    known = fit.dataset.interactions
    scores[torch.as_tensor(known.items[known.users == 3])] = -torch.inf
    assert best["item"].tolist() == [fit.dataset.item_ids[int(scores.argmax())]]


@pytest.mark.slow
def test_commands_answer(name, run, tmp_path, monkeypatch, capsys):
    draws, few = ["--draws", "100"], ["--draws", "20"]
    commands = [
        (inference.recommend.main, [run, "--user", "user-0001"]),
        (inference.evaluate.main, [run]),
        (analysis.posterior.main, [run, "--out", tmp_path / "draws.nc", *few]),
        (analysis.report.main, [run, "--out", tmp_path / "page.html", *draws]),
        (analysis.diagnostics.main, [run, "--out", tmp_path / "sound", *draws]),
    ]
    for command, argv in commands:
        monkeypatch.setattr("sys.argv", [command.__module__, *map(str, argv)])
        code, said = run_command(command), capsys.readouterr()
        if name == "best" and command is analysis.posterior.main:
            assert code == 2 and "a MAP fit is a point" in said.err
            continue
        assert code == 0, (command.__module__, said.err)
        assert said.out, command.__module__


def test_the_folders_are_small():
    sizes = {path: sum(one.stat().st_size for one in (FOLDER / path).rglob("*") if one.is_file()) for path in SAID}
    assert max(sizes.values()) < 100_000, sizes
