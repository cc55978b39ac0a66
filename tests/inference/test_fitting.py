"""Kept pre-trained networks, and precisions that come back from a run folder."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import inference
from inference.fitting import PRETRAINING, Pretrained, fit_with
from inference.options import METHODS, Options
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import make_split

SMALL: dict[str, Any] = {
    "factors": 3,
    "hidden": (8,),
    "pretrain_epochs": 2,
    "epochs": 2,
    "train_per_user": 5,
    "threads": 1,
}
OTHERS: dict[str, Any] = {
    "scaling": "binary", "factors": 4, "content_likelihood": "bernoulli", "content_likelihood_args": {"subsample": 9},
    "hidden": (7,), "activation": "tanh", "radius": 1.0, "tied": False, "encoder_input": "same", "lambda_r": 0.5,
    "lambda_w": 0.1, "pretrain_epochs": 3, "batch_size": 50, "pretrain_learning_rate": 0.02, "kl_weight": 0.5,
    "kl_warmup": 1, "word_dropout": 0.1, "start": "svd", "seed": 1, "device": "cuda", "dtype": "float64",
    "rating_likelihood": "normal", "rating_likelihood_args": {"learned": False}, "biases": "on",
    "content": "tags", "balance": True, "network": "mlp", "part_dropout": 0.2, "model": "my.Model",
    "model_args": {"rate": 1.0}, "network_args": {"rate": 1.0},
}  # fmt: skip
"""Another value of every option on which pre-training depends."""
AFTERWARDS: dict[str, dict[str, Any]] = {
    "svi": {
        "lambda_u": 2.0, "lambda_v": 7.0, "a": 3.0, "b": 0.1, "unrated": "zeros", "guide": "structured", "epochs": 3,
        "learning_rate": 0.01, "factor_learning_rate": 0.1, "init_scale": 0.2, "parametrization": "non-centred",
        "train_per_user": 3, "split_seed": 1, "validation": 0.2,
    },
    "coordinate": {
        "lambda_u": 2.0, "lambda_v": 7.0, "a": 3.0, "b": 0.1, "unrated": "zeros", "guide": "structured", "epochs": 0,
        "sweeps": 3, "diagonal": True, "learn_precisions": True, "train_per_user": 3, "validation": 0.2,
    },
    "mcmc": {
        "lambda_u": 2.0, "lambda_v": 7.0, "a": 3.0, "b": 0.1, "unrated": "zeros", "epochs": 0, "draws": 3, "warmup": 1,
        "chains": 3, "thin": 2, "leapfrog": 3, "train_per_user": 3, "validation": 0.2,
    },
}  # fmt: skip
"""Another value of options that matter only after it."""
SHORT: dict[str, dict[str, Any]] = {
    "svi": {},
    "coordinate": {"sweeps": 1},
    "mcmc": {"draws": 2, "warmup": 2, "chains": 2},
}
TEMPERED = {"lambda_r", "kl_weight"}
"""Options that inference.mcmc refuses."""


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulated(n_users=60, n_items=90, n_words=40, n_factors=3)


def options(method: str, **more: Any) -> Options:
    return Options.of(method, **SMALL | SHORT.get(method, {}) | more)


def fitted(dataset: Dataset, chosen: Options, pretrained: Pretrained | None) -> tuple[list[int], Any]:
    """The epochs that were made, and the fit."""
    steps: list[int] = []
    split = make_split(dataset, chosen.data)
    return steps, fit_with(dataset, split, chosen, lambda step, n_steps, row: steps.append(step), pretrained)


def assert_same(one: Any, two: Any) -> None:
    """Bit for bit: posterior, networks, metrics, and the history of what the fits did themselves."""
    for tensors, others in (
        (one.posterior.tensors(), two.posterior.tensors()),
        (dict(one.model.named_parameters()), dict(two.model.named_parameters())),
    ):
        assert tensors.keys() == others.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, others[name]), name
    assert one.metrics == two.metrics
    assert len(one.history) == len(two.history)
    for row, other in zip(one.history, two.history, strict=True):
        if row["phase"] != "content":
            assert {**row, "seconds": 0} == {**other, "seconds": 0}


# --- kept networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_fits_that_go_on_from_kept_networks_are_those_that_pretrain_for_themselves(
    dataset: Dataset, method: str
) -> None:
    kept = Pretrained()
    assert fitted(dataset, options(method), kept)[0][0] == 1
    for name, value in AFTERWARDS[method].items():
        chosen = options(method, **{name: value})
        steps, fit = fitted(dataset, chosen, kept)
        assert steps == list(range(SMALL["pretrain_epochs"] + 1, len(fit.history) + 1)), f"{name} pre-trained again"
        alone, itself = fitted(dataset, chosen, None)
        assert alone[0] == 1
        assert_same(fit, itself)


@pytest.mark.parametrize("method", METHODS)
def test_keeping_networks_changes_nothing_for_the_fit_that_made_them_nor_for_later_ones(
    dataset: Dataset, method: str
) -> None:
    kept = Pretrained()
    fits = [fitted(dataset, options(method), kept)[1] for _ in range(3)]
    _, itself = fitted(dataset, options(method), None)
    for fit in fits:
        assert_same(fit, itself)


@pytest.mark.parametrize("method", METHODS)
def test_a_changed_pretraining_pretrains_again_and_the_latest_is_kept(dataset: Dataset, method: str) -> None:
    kept, other = Pretrained(), {"hidden": (7,)}
    fitted(dataset, options(method), kept)
    steps, fit = fitted(dataset, options(method, **other), kept)
    assert steps[0] == 1
    assert_same(fit, fitted(dataset, options(method, **other), None)[1])
    assert fitted(dataset, options(method, lambda_v=9.0, **other), kept)[0][0] == SMALL["pretrain_epochs"] + 1
    assert fitted(dataset, options(method), kept)[0][0] == 1


@pytest.mark.parametrize("method", METHODS)
def test_what_networks_are_kept_by(dataset: Dataset, method: str) -> None:
    """By every option that is named, by the data and by the module; by no other option."""
    assert set(PRETRAINING) == set(OTHERS) and len(set(PRETRAINING)) == len(PRETRAINING)
    base = options(method)
    assert set(PRETRAINING) <= base.to_dict().keys()
    assert not set(PRETRAINING) & AFTERWARDS[method].keys()
    kept = Pretrained()
    nothing, (step, keep) = kept.of(base, dataset)
    assert nothing is None and step == SMALL["pretrain_epochs"]
    keep({"state.parameter": torch.arange(3.0)}, {"epoch": 2})

    def known(chosen: Options, data: Dataset = dataset) -> bool:
        snapshot, then = kept.of(chosen, data)
        assert (snapshot is None) == (then is not None)
        return snapshot is not None

    assert known(base)
    for name, value in OTHERS.items():
        if method == "mcmc" and name in (*TEMPERED, "biases", "rating_likelihood"):
            continue
        assert base.to_dict()[name] != value
        assert not known(options(method, **{name: value})), name
    for name, value in AFTERWARDS[method].items():
        assert base.to_dict()[name] != value
        assert known(options(method, **{name: value})), name
    assert not known(base, simulated(n_users=60, n_items=90, n_words=40, n_factors=3, seed=1))
    assert not known(options("svi" if method == "coordinate" else "coordinate"))


def test_what_is_kept_is_nobodys_own(dataset: Dataset) -> None:
    kept, base = Pretrained(), options("svi")
    _, then = kept.of(base, dataset)
    assert then is not None
    tensors, meta = {"state.parameter": torch.zeros(3)}, {"history": [{"epoch": 1}]}
    then[1](tensors, meta)
    tensors["state.parameter"].add_(1)
    meta["history"].append({"epoch": 2})
    for _ in range(2):
        snapshot, _ = kept.of(base, dataset)
        assert snapshot is not None
        assert not snapshot[0]["state.parameter"].any() and snapshot[1] == {"history": [{"epoch": 1}]}
        snapshot[0]["state.parameter"].add_(1)
        snapshot[1]["history"].clear()


@pytest.mark.parametrize("method", METHODS)
def test_without_pretraining_nothing_is_kept(dataset: Dataset, method: str) -> None:
    kept, chosen = Pretrained(), options(method, pretrain_epochs=0)
    for _ in range(2):
        assert fitted(dataset, chosen, kept)[0][0] == 1


def test_a_run_that_is_resumed_goes_on_from_its_own_checkpoint(dataset: Dataset, tmp_path: Any) -> None:
    kept, chosen = Pretrained(), options("svi")
    fitted(dataset, chosen, kept)
    stopped = replace(chosen, run=replace(chosen.run, out=str(tmp_path / "run"), checkpoint_seconds=0.0))

    def die(step: int, n_steps: int, row: dict[str, Any]) -> None:
        if step == 4:
            raise KeyboardInterrupt

    split = make_split(dataset, chosen.data)
    with pytest.raises(KeyboardInterrupt):
        fit_with(dataset, split, stopped, die)
    steps, fit = fitted(dataset, replace(stopped, run=replace(stopped.run, resume=True)), kept)
    assert steps == [4]
    assert_same(fit, fitted(dataset, chosen, None)[1])


# --- precisions ------------------------------------------------------------------------------------------------------


def test_learned_precisions_are_in_the_metrics_and_come_back(dataset: Dataset, tmp_path: Any) -> None:
    fit = inference.fit(
        dataset, method="coordinate", learn_precisions=True, sweeps=3, lambda_u=2.0, **SMALL, out=tmp_path / "run"
    )
    held = inference.fit(dataset, method="coordinate", sweeps=3, lambda_u=2.0, **SMALL)
    learned = {name: getattr(fit.model, name) for name in ("lambda_u", "lambda_v")}
    assert fit.metrics["precisions"] == learned
    assert abs(learned["lambda_u"] - 2.0) > 0.01 and abs(learned["lambda_v"] - held.model.lambda_v) > 0.01
    again = inference.load(tmp_path / "run")
    assert {name: getattr(again.model, name) for name in learned} == learned
    assert again.metrics["precisions"] == learned
    assert float(again.posterior.lambda_v) == learned["lambda_v"]


def test_precisions_that_were_given_are_those_of_the_options(dataset: Dataset, tmp_path: Any) -> None:
    fit = inference.fit(dataset, lambda_u=2.0, lambda_v=7.0, **SMALL, out=tmp_path / "run")
    again = inference.load(tmp_path / "run")
    for found in (fit, again):
        assert found.metrics["precisions"] == {"lambda_u": 2.0, "lambda_v": 7.0}
        assert (found.model.lambda_u, found.model.lambda_v) == (2.0, 7.0)


def test_a_fit_prints_as_one_line():
    """A notebook that shows one would otherwise print every array."""
    fit = inference.fit(simulated(n_users=20, n_items=30), factors=3, hidden=(6,), pretrain_epochs=0, epochs=1)
    assert repr(fit) == "Fit(simulated: mean-field, 3 factors)"
