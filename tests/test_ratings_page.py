"""The walk-through of docs/ratings.md, executed as it is written, in a folder outside the package."""

import re
import shlex
from pathlib import Path

import pytest

import inference
from models.catalogue import RATINGS
from tests.test_likelihoods_page import ROOT, blocks, run

PAGE = (ROOT / "docs" / "ratings.md").read_text(encoding="utf-8")


def test_the_class_conforms(tmp_path: Path) -> None:
    module, check = blocks("python", PAGE)
    (tmp_path / "my_ratings.py").write_text(module, encoding="utf-8")
    assert run(tmp_path, "-W", "error", "-c", check) == ""
    with pytest.raises(AssertionError, match=r"StudentStars: .*log_scale is a plain tensor"):
        broken = module.replace("nn.Parameter(torch.tensor(math.log(scale)))", "torch.zeros((), requires_grad=True)")
        (tmp_path / "my_ratings.py").write_text(broken, encoding="utf-8")
        run(tmp_path, "-c", check)


def test_the_table_has_every_likelihood_of_the_package() -> None:
    assert set(re.findall(r"^\| `(\w[\w-]*)` \|", PAGE, re.M)) == set(RATINGS)


@pytest.mark.slow
def test_the_commands_fit_it_in_both_modes_and_compare_the_runs(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_ratings.py").write_text(blocks("python", PAGE)[0], encoding="utf-8")
    (shell,) = blocks("bash", PAGE)
    commands = shell.replace("\\\n", " ").strip().splitlines()
    assert len(commands) == 4
    printed = []
    for command in commands:
        python, *arguments = shlex.split(command)
        assert python == "python"
        printed.append(run(tmp_path, *arguments))
    assert "t-map" in printed[2] and "t-bayes" in printed[2]
    assert "held-out rating" in printed[3] and (tmp_path / "calibrated" / "coverage.png").exists()
    monkeypatch.syspath_prepend(tmp_path)
    for mode in ("map", "bayes"):
        fit = inference.load(tmp_path / "runs" / f"t-{mode}", trust=["my_ratings.StudentStars"])
        assert type(fit.model.ratings).__name__ == "StudentStars"
        assert fit.metrics["recovery"]["correlation"] > 0.6
        assert 0.7 < fit.metrics["rmse"] < 1.1
        scale = float(fit.model.ratings.log_scale.detach().exp())
        assert scale == pytest.approx(0.7, abs=1e-6) if mode == "map" else 0.4 < scale < 0.99
