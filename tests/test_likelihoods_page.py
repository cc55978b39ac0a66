"""The walk-through of docs/likelihoods.md, executed as it is written, in a folder outside the package."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import inference
from models.catalogue import CONTENTS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "likelihoods.md").read_text(encoding="utf-8")

NOT_OF_WORDS = ("product", "tokens")
"""Likelihoods whose content is not scaled, or by its parts."""


def blocks(language: str, page: str = PAGE) -> list[str]:
    """The fenced blocks of that language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_class_conforms(tmp_path: Path) -> None:
    module, check = blocks("python")
    (tmp_path / "my_module.py").write_text(module, encoding="utf-8")
    assert run(tmp_path, "-W", "error", "-c", check) == ""
    with pytest.raises(AssertionError, match=r"ZeroInflatedPoisson: .*check accepts a row of signs"):
        (tmp_path / "my_module.py").write_text(module.replace("obs.values >= 0", "obs.values >= -9"), encoding="utf-8")
        run(tmp_path, "-c", check)


def test_the_table_has_every_likelihood_of_the_package() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| ([\w-]+) \|$", PAGE, re.M)
    assert {name for name, _ in rows} == set(CONTENTS)
    from models.contents.making import content_class

    of_words = {name: content_class(name) for name in CONTENTS if name not in NOT_OF_WORDS}
    scalings = {name: cls.default_scaling.replace("none", "counts") for name, cls in of_words.items()}
    assert dict(rows) == scalings | dict.fromkeys(NOT_OF_WORDS, "-")


@pytest.mark.slow
def test_the_commands_fit_it_in_both_modes_and_compare_the_runs(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_module.py").write_text(blocks("python")[0], encoding="utf-8")
    (shell,) = blocks("bash")
    commands = shell.replace("\\\n", " ").strip().splitlines()
    assert len(commands) == 3
    for command in commands:
        python, *arguments = shlex.split(command)
        assert python == "python"
        out = run(tmp_path, *arguments)
    assert "zip-map" in out and "zip-bayes" in out
    monkeypatch.syspath_prepend(tmp_path)
    for mode in ("map", "bayes"):
        fit = inference.load(tmp_path / "runs" / f"zip-{mode}", trust=["my_module.ZeroInflatedPoisson"])
        assert type(fit.model.content).__name__ == "ZeroInflatedPoisson"
        objective = [row[fit.options.objective] for row in fit.history if row["phase"] == "content"]
        assert objective[-1] > objective[0]
        assert fit.metrics["recovery"]["correlation"] > 0.1
        assert float(fit.model.content.gate_logit.detach().sigmoid()) != pytest.approx(0.3, abs=1e-3)
    frame = pd.read_csv(tmp_path / "compared" / "runs.csv")
    assert set(frame["contents"]) == {"text"}
    assert set(frame["content"]) == {"my_module.ZeroInflatedPoisson"}
