"""Presets: what they may hold, who wins over them, and what is said of an unknown one."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import inference
from inference import presets
from inference.commands import parse
from inference.options import METHODS, DataOptions, FitOptions, ModelOptions, Options, RunOptions
from models.catalogue import MODELS
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.errors import InputError

CLASSES = tuple(METHODS.values())
MINE = "# Of the tests.\nfactors: 7\nsweeps: 3\nfactor_learning_rate: 0.5\nlambda_u: 4\n"


def read(*argv: str, method: str = "svi") -> dict[str, Any]:
    parts = parse("python -m x", "X.", Options.classes(method), argv, preset_classes=CLASSES)
    return Options(*parts).to_dict()


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of presets with one called `mine`, in place of the package's."""
    (tmp_path / "mine.yaml").write_text(MINE)
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", presets.names())
def test_the_packages_presets_say_how_and_not_what(name: str) -> None:
    held = yaml.safe_load(presets.path(name).read_text())
    what = {f.name for part in (DataOptions, RunOptions) for f in fields(part)} - {"scaling"} | {"mode", "device"}
    known = {f.name for part in (DataOptions, ModelOptions, FitOptions, *CLASSES) for f in fields(part)}
    assert held.keys() <= known - what
    staged = MODELS[held.get("model", "cvae")].phases[0] == "ratings"  # coordinate alone fits these
    for method in ["coordinate"] if staged else ["coordinate", "svi"]:  # mcmc refuses tempered ones, such as "best"
        found = read("--preset", name, method=method)
        assert {key: found[key] for key in held.keys() & found.keys()} == {
            key: tuple(value) if isinstance(value, list) else value for key, value in held.items() if key in found
        }
    assert presets.names()[name].endswith(".") and len(presets.names()[name]) > 20


def test_the_papers_settings() -> None:
    found = read("--preset", "paper")
    assert (found["lambda_u"], found["lambda_v"], found["a"], found["b"], found["factors"]) == (0.1, 10, 1, 0.01, 50)
    assert (found["content_likelihood_args"]["words"], found["unrated"]) == ("pseudo-bernoulli", "zeros")


def test_presets_are_installed_with_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["inference.presets"] == ["*.yaml"]


def test_flags_over_files_over_presets_over_defaults(mine: Path) -> None:
    config = mine / "config.yml"
    config.write_text("lambda_u: 5\na: 6\n")
    default = read()
    assert read("--preset", "mine") == default | {"factors": 7, "factor_learning_rate": 0.5, "lambda_u": 4.0}
    assert read("--config", str(config), "--preset=mine", "--a", "8") == default | {
        "factors": 7,
        "factor_learning_rate": 0.5,
        "lambda_u": 5.0,
        "a": 8.0,
    }


def test_what_a_preset_says_of_clicks_does_not_hold_for_stars(mine: Path) -> None:
    default, config = read(), mine / "config.yml"
    config.write_text("rating_likelihood: normal\n")
    for argv in (["--rating-likelihood", "normal"], ["--rating-likelihood=normal"], ["--config", str(config)]):
        found = read("--preset", "mine", *argv)
        assert (found["lambda_u"], found["factors"]) == (default["lambda_u"], 7)
        assert read("--preset", "mine", *argv, "--lambda-u", "4")["lambda_u"] == 4
    again = read("--preset", "mine", "--config", str(config), "--rating-likelihood", "confidence-normal")
    assert again["lambda_u"] == 4
    few: dict[str, Any] = {"pretrain_epochs": 0, "epochs": 1, "threads": 1, "hidden": (5,)}
    data = load_dataset("simulated")
    likelihood = {"rating_likelihood": "bernoulli"}
    fitted = inference.fit(data, preset="mine", **likelihood, **few)
    assert fitted.options.model.lambda_u == default["lambda_u"]
    (mine / "mine.yaml").write_text(MINE + "rating_likelihood: bernoulli\n")
    assert inference.fit(data, preset="mine", **likelihood, **few).options.model.lambda_u == 4
    assert read("--preset", "mine", "--rating-likelihood", "bernoulli")["lambda_u"] == 4
    assert read("--preset", "mine", "--rating-likelihood", "normal")["lambda_u"] == default["lambda_u"]


def test_an_option_of_the_other_method_is_passed_over_in_a_preset_only(mine: Path) -> None:
    found = read("--preset", "mine", method="coordinate")
    assert found["sweeps"] == 3 and "factor_learning_rate" not in found
    with pytest.raises(InputError, match=r"mine.yaml:3: unknown key sweeps"):
        read("--config", str(mine / "mine.yaml"))
    (mine / "mine.yaml").write_text("# Wrong.\nfactor: 7\n")
    with pytest.raises(InputError, match=r"mine.yaml:2: unknown key factor; did you mean factors\?"):
        read("--preset", "mine")


def test_an_unknown_preset_is_answered_with_the_names(mine: Path) -> None:
    (mine / "other.yaml").write_text("# Other.\n")
    for wrong in ("best", "../mine", ""):
        with pytest.raises(InputError) as caught:
            read("--preset", wrong)
        assert str(caught.value) == f"there is no preset {wrong!r}; use one of mine, other"
    with pytest.raises(InputError, match=r"^unknown option --preset; "):
        parse("python -m x", "X.", (DataOptions,), ["--preset", "mine"])


def test_help_lists_the_presets(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    assert "mine: Of the tests." in " ".join(capsys.readouterr().out.split())


def test_from_python_keywords_win(mine: Path) -> None:
    few: dict[str, Any] = {"pretrain_epochs": 0, "epochs": 1, "threads": 1}
    fitted = inference.fit(load_dataset("simulated"), preset="mine", lambda_u=9.0, **few)
    options = fitted.options.to_dict()
    assert (options["factors"], options["lambda_u"], options["factor_learning_rate"]) == (7, 9.0, 0.5)
    with pytest.raises(InputError, match="there is no preset 'best'; use one of mine"):
        inference.fit(load_dataset("simulated"), preset="best")
    with pytest.raises(InputError, match=r"unknown option 'lambda_x'; did you mean 'lambda_[uvrw]'"):
        inference.fit(load_dataset("simulated"), preset="mine", lambda_x=1)


def test_arguments_of_a_likelihood_go_with_its_name(mine: Path) -> None:
    (mine / "mine.yaml").write_text("# X.\ncontent_likelihood: normal\ncontent_likelihood_args: {lambda_x: 2}\n")
    assert read("--preset", "mine")["content_likelihood_args"] == {"lambda_x": 2.0}
    assert read("--preset", "mine", "--content-likelihood", "multinomial")["content_likelihood_args"] == {}
    fitted = inference.fit(
        load_dataset("simulated"),
        preset="mine",
        content_likelihood="multinomial",
        pretrain_epochs=0,
        epochs=1,
        threads=1,
    )
    assert fitted.options.model.content_likelihood_args == {}
