"""Every flag of every option class is a keyword of ``inference.fit``, in Python's own types."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import inference
from inference import fitting
from inference.options import METHODS, Options
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.splits import by_time
from pyro_cvae.errors import InputError

SMALL = {"factors": 2, "hidden": (4,), "pretrain_epochs": 1, "epochs": 1}
OTHER = {  # a value that is not the default, and that goes with the defaults of all others
    **{"data": "mine.csv", "items": "items.csv", "contents": ("titles",), "ratings": "clicks", "split": "time"},
    **{"scaling": "binary", "content_likelihood": "bernoulli", "content": "text", "network": "mlp", "hidden": (9, 5)},
    **{"activation": "tanh", "encoder_input": "same", "rating_likelihood": "normal", "biases": "on"},
    **{"unrated": "zeros", "parametrization": "non-centred", "mode": "map", "guide": "structured", "start": "svd"},
    **{"device": "cuda", "dtype": "float64", "out": "folder", "word_dropout": 0.25, "kl_warmup": 3, "validation": 0.3},
    **{"kl_weight": 0.5, "radius": 2.0, "part_dropout": 0.5, "test_fraction": 0.3, "learning_rate": 0.5},
    **{"pretrain_learning_rate": 0.5, "precision_prior": 2.0, "columns": ("user=userId",), "min_rating": 4.0},
    **{"cold": "new", "cold_scale": 1.0, "hide": "latest"},
}
BESIDE = {  # what a value needs of the other options
    "content_likelihood": {"scaling": "none"},
    "start": {"hidden": (60, 50)},
    "kl_warmup": {"pretrain_epochs": 4},
    "rating_likelihood": {"biases": "off"},
}
REFUSED = {  # by the algorithm, at any value but the default
    "svi": (),
    "coordinate": ("parametrization",),
    "mcmc": ("mode", "guide", "lambda_r", "kl_weight", "patience", "parametrization", "biases", "tune"),
}
FILES = ("train_file", "validation_file", "test_file")
FLAGS = [(method, field) for method in METHODS for cls in Options.classes(method) for field in fields(cls)]


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    n = 60
    pairs = {"user": [f"u{k % 7}" for k in range(n)], "item": [f"i{k % 9}" for k in range(n)], "time": list(range(n))}
    texts = [" ".join(rng.choice(["comet", "sail", "oven", "lemma"], 5)) for _ in range(9)]
    return from_frames(pairs, {"item": [f"i{k}" for k in range(9)], "text": texts, "title": texts})


@pytest.fixture
def chosen(monkeypatch):
    """What ``fit`` hands to the algorithm: the data set, the split and the options."""
    monkeypatch.setattr(fitting, "fit_with", lambda dataset, split, options, on_step: (dataset, split, options))
    return inference.fit


def value_of(field):
    if field.name in OTHER:
        return OTHER[field.name]
    default = field.default
    if isinstance(default, bool):
        return not default
    if not isinstance(default, int | float):  # of a choice that OTHER does not know
        return default
    return default + (1 if isinstance(default, int) else 0.5)


@pytest.mark.parametrize(("method", "field"), FLAGS, ids=[f"{m}-{f.name}" for m, f in FLAGS])
def test_every_flag_is_a_keyword(chosen, dataset, method, field):
    if field.name.endswith("_args") or field.name in FILES or field.name in REFUSED[method]:
        return  # of a likelihood of one's own, or of files: tested there
    given = value_of(field)
    _, _, options = chosen(dataset, method=method, **BESIDE.get(field.name, {}) | {field.name: given})
    assert options.to_dict()[field.name] == given


def test_a_split_is_named_or_given(chosen, dataset):
    by_name = chosen(dataset, split="time", test_fraction=0.3)[1]
    assert by_name.fingerprint() == by_time(dataset, 0.3).fingerprint()
    assert chosen(dataset, "items")[1].protocol["kind"] == "items"
    given = by_time(dataset, 0.5)
    assert chosen(dataset, given)[1] is given and chosen(dataset, split=given)[1] is given
    assert chosen(dataset)[1].protocol["kind"] == "per-user"
    with pytest.raises(InputError, match=r"^split is 'tim', but it must be one of"):
        chosen(dataset, split="tim")


def test_a_fit_by_the_name_of_a_split(dataset):
    fit = inference.fit(dataset, split="time", **SMALL)
    assert fit.split.protocol["kind"] == "time" and fit.metrics["n_users_evaluated"] > 0


def test_values_come_in_pythons_types(chosen, dataset):
    wanted = {"hidden": [4, np.int64(3)], "factors": np.int64(2), "a": np.float32(2), "out": Path("x") / "y"}
    options = chosen(dataset, **wanted)[2].to_dict()
    assert options["hidden"] == (4, 3) and options["factors"] == 2 and options["out"] == "x/y"
    assert type(options["factors"]) is int and type(options["a"]) is float
    for name, value, problem in (
        ("factors", "many", "factors is 'many', but it must be a whole number"),
        ("hidden", 6, "hidden is 6, but it must be a list"),
        ("tied", "perhaps", "tied is 'perhaps', but it must be true or false"),
        ("factor", 3, "unknown option 'factor'; did you mean 'factors'"),
    ):
        with pytest.raises(InputError, match=problem):
            chosen(dataset, **{name: value})


def test_contents_that_the_data_have_not_yet_are_read(chosen, dataset):
    assert "titles" in chosen(dataset, contents=["titles"])[0].contents
    with_titles = chosen(dataset, contents=["titles"])[0]
    assert chosen(with_titles, contents=["titles"])[0] is with_titles
    with pytest.raises(InputError, match="all 1: they are clicks"):
        chosen(dataset, ratings="stars")
