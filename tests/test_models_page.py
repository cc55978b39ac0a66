"""The walk-through of docs/models.md, executed as it is written, in a folder outside the package."""

import re
import shlex

import pytest

import inference
from models.catalogue import MODELS
from tests.test_likelihoods_page import ROOT, blocks, run

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
MODULE, CHECK, TABLE, PAIR, STOCK = blocks("python", PAGE)
(SHELL,) = blocks("bash", PAGE)


def test_the_class_conforms(tmp_path):
    (tmp_path / "my_models.py").write_text(MODULE, encoding="utf-8")
    assert run(tmp_path, "-W", "error", "-c", CHECK) == ""


def test_a_planted_mistake_is_named(tmp_path):
    wrong = MODULE.replace(
        'NormalPrior(above["mu"][self.group], self.lambda_u)', 'NormalPrior(above["mu"][self.group], 1.0)'
    )
    (tmp_path / "my_models.py").write_text(wrong, encoding="utf-8")
    with pytest.raises(AssertionError, match="whose precision is not the model's lambda_u"):
        run(tmp_path, "-c", CHECK)


def test_the_pair_of_networks_conforms(tmp_path):
    (tmp_path / "my_module.py").write_text(PAIR, encoding="utf-8")
    code = "from models.testing import check_network; from my_module import Wide; check_network(Wide, times=3)"
    assert run(tmp_path, "-c", code) == ""


def test_the_table_has_every_model_of_the_package():
    assert re.findall(r"^\| `(\w+)`", PAGE, re.M) == ["--model"[2:], *MODELS][-len(MODELS) :]


@pytest.mark.slow
def test_the_commands_fit_it_everywhere_and_all_commands_take_its_runs(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(MODULE, encoding="utf-8")
    run(tmp_path, "-c", TABLE)
    for command in SHELL.strip().splitlines():
        python, *arguments = shlex.split(command)
        assert python == "python"
        run(tmp_path, *arguments)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("map", "bayes", "closed-map", "closed", "chains"):
        fit = inference.load(tmp_path / "runs" / name, trust=["my_models.Groups"])
        scores = fit.posterior.score_block(list(range(40)))
        german = fit.model.group == 0
        first = [int(str(item).split("-")[1]) < 30 for item in fit.dataset.item_ids]
        of_first, of_second = (scores[:, [one == half for one in first]].mean(1) for half in (True, False))
        assert float((of_first > of_second)[german].float().mean()) > 0.85, name
        assert float((of_first < of_second)[~german].float().mean()) > 0.85, name
        assert set(fit.above) == {"mu"} and fit.above["mu"].shape == (2, 4)
    closed = inference.load(tmp_path / "runs" / "closed", trust=["my_models.Groups"])
    assert closed.model.lambda_g == 2
    from inference.recommending import fold_in

    folded = fold_in(closed, ["de-new", "fr-new"], ["item-1", "item-40"])
    prior = closed.model.prior_of_users(closed.above).loc
    theirs = folded.posterior.u_loc[-2:]
    german = prior[closed.model.group == 0][0]
    assert float((theirs[0] - german).norm()) < float((theirs[1] - german).norm())


@pytest.mark.slow
def test_pyros_own_tools(tmp_path):
    run(tmp_path, "-c", STOCK)
