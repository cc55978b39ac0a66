"""Buffers of likelihoods are part of a fit: a run folder and a checkpoint give them back, and the kits ask for it."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import inference
from inference.fitting import Fit
from models.contents.poisson import Poisson
from models.ratings.normal import Normal
from models.testing import check_likelihood, check_rating_likelihood
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.errors import InputError

SMALL = {"factors": 2, "hidden": (4,), "pretrain_epochs": 1, "epochs": 1, "threads": 1}
PLUGINS = '''
import torch
from models.contents.poisson import Poisson
from models.ratings.normal import Normal


class Drawn(Poisson):
    """A buffer that is drawn, one that is set by what is looked at, and one that no run has to keep."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.randn(3))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("largest", None)
        self.register_buffer("table", torch.arange(4.0), persistent=False)

    def check(self, obs):
        super().check(obs)

    def log_prob(self, obs, params):
        if self.training:
            self.seen += 1
            self.largest = torch.as_tensor(float(self.seen) * 2)
        return super().log_prob(obs, params)


class Offset(Normal):
    """A buffer of a likelihood of ratings, moved in every closed-form sweep."""

    def __init__(self, tau=1.0):
        super().__init__(tau)
        self.register_buffer("offset", torch.randn(()))

    def learn(self, mean_square):
        super().learn(mean_square)
        self.offset += 1
'''
NAME = "likelihoods_with_buffers"


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield f"{NAME}.Drawn", f"{NAME}.Offset"
    sys.modules.pop(NAME, None)


def state(fit: Fit) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in fit.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
        assert tensor.dtype == other[name].dtype, name


@pytest.mark.parametrize("method", ["svi", "coordinate"])
def test_a_run_folder_gives_every_buffer_back(method, plugins, tmp_path):
    content, rating = plugins
    dataset = load_dataset("simulated-stars")
    options = SMALL | {"content_likelihood": content, "rating_likelihood": rating}
    fit = inference.fit(dataset, method=method, out=tmp_path / "run", **options)
    fitted = state(fit)
    assert int(fitted["item_prior.content.seen"]) > 0
    for seed in (1, 2):  # the constructors draw others each time
        torch.manual_seed(seed)
        same(state(inference.load(tmp_path / "run", trust=plugins)), fitted)


class Stopped(Exception):
    """What ends a fit."""


@pytest.mark.parametrize("method", ["svi", "coordinate"])
def test_a_fit_that_was_stopped_goes_on_with_its_buffers(method, plugins, tmp_path):
    def stop(step, n_steps, row):
        if step == 3:
            raise Stopped

    dataset = load_dataset("simulated")
    options = SMALL | {"content_likelihood": plugins[0], "epochs": 3, "checkpoint_seconds": 0.0}
    inference.fit(dataset, method=method, out=tmp_path / "whole", **options)
    with pytest.raises(Stopped):
        inference.fit(dataset, method=method, out=tmp_path / "stopped", on_step=stop, **options)
    inference.fit(dataset, method=method, out=tmp_path / "stopped", resume=True, **options)
    same(*(state(inference.load(tmp_path / name, trust=plugins)) for name in ("whole", "stopped")))


def test_a_run_without_a_buffer_of_its_model_is_refused(plugins, tmp_path):
    from safetensors.torch import load_file, save_file

    from pyro_cvae.runs.manifest import write_manifest

    run = tmp_path / "run"
    inference.fit(load_dataset("simulated"), out=run, content_likelihood=plugins[0], **SMALL)
    tensors = load_file(run / "posterior.safetensors")
    for name, changed, words in (
        ("network.content.level", None, "holds no tensor of the model's content.level"),
        ("network.content.level", torch.zeros(4), "content.level has shape .4,., but its options say .3,."),
        ("network.content.seen", torch.zeros(()), "content.seen are int64 of shape"),
        ("network.content.other", torch.zeros(()), "a tensor content.other, which the model has not"),
    ):
        others = {key: tensor for key, tensor in tensors.items() if key != name}
        save_file(others | ({} if changed is None else {name: changed}), run / "posterior.safetensors")
        files = [path for path in run.rglob("*") if path.is_file() and path.name != "manifest.json"]
        write_manifest(run, files)
        with pytest.raises(InputError, match=words) as refused:
            inference.load(run, trust=plugins)
        assert Path(str(refused.value.path)).name == "posterior.safetensors"


class Centre(Poisson):
    """What the data set is kept in a plain tensor, which no run knows."""

    def __init__(self):
        super().__init__()
        self.centre = torch.zeros(())

    def start(self, variance):
        self.centre = torch.tensor(variance)

    def log_prob(self, obs, params):
        return super().log_prob(obs, {name: value + self.centre for name, value in params.items()})


class KeptCentre(Centre):
    """The same in a buffer."""

    def __init__(self):
        super().__init__()
        del self.centre
        self.register_buffer("centre", torch.zeros(()))

    def start(self, variance):
        self.centre.fill_(variance)


class Growing(Poisson):
    """A buffer whose shape the data decide: a fresh instance does not take it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def start(self, variance):
        self.seen = torch.zeros(5)


class Noise(Normal):
    """A noise that a sweep sets, in a plain tensor."""

    def __init__(self, tau: float = 1.0):
        super().__init__(tau, learned=False)
        self.shift = torch.zeros(())

    def learn(self, mean_square):
        self.shift = mean_square.log()

    @property
    def tau(self):
        return (self.log_tau - self.shift).exp()


class KeptNoise(Noise):
    """The same in a buffer."""

    def __init__(self, tau: float = 1.0):
        super().__init__(tau)
        del self.shift
        self.register_buffer("shift", torch.zeros(()))

    def learn(self, mean_square):
        self.shift.copy_(mean_square.log())


def test_the_kits_tell_what_a_run_keeps_from_what_it_loses():
    check_likelihood(KeptCentre)
    check_rating_likelihood(KeptNoise)
    with pytest.raises(AssertionError, match="Centre: a copy with its arguments, parameters and buffers is another"):
        check_likelihood(Centre)
    with pytest.raises(AssertionError, match=r"Growing: a fresh instance does not take .* register_buffer"):
        check_likelihood(Growing)
    with pytest.raises(AssertionError, match="Noise: a copy with its arguments, parameters and buffers is another"):
        check_rating_likelihood(Noise)


def test_tied_and_non_persistent_tensors_are_kept_once_or_not_at_all():
    from models.state import fill, kept

    def make() -> nn.Module:
        made = nn.Module()
        made.one = nn.Linear(2, 2)
        made.two = nn.Linear(2, 2)
        made.two.weight = made.one.weight
        made.register_buffer("drawn", torch.randn(2))
        made.register_buffer("table", torch.randn(2), persistent=False)
        return made

    first, second = make(), make()
    found = kept(first)
    assert set(found) == {"one.weight", "one.bias", "two.bias", "drawn"}
    fill(second, found)
    assert torch.equal(second.two.weight, first.one.weight)
    assert torch.equal(second.drawn, first.drawn)
    assert not torch.equal(second.table, first.table)


@pytest.mark.parametrize("where", ["tensors", "meta"])
def test_a_checkpoint_of_something_else_is_one_line(where, tmp_path):
    from pyro_cvae.runs.manifest import write_manifest
    from tests.strangers import edit_json, edit_tensors

    def stop(step, n_steps, row):
        if step == 2:
            raise Stopped

    dataset, options = load_dataset("simulated"), SMALL | {"epochs": 3, "checkpoint_seconds": 0.0}
    with pytest.raises(Stopped):
        inference.fit(dataset, out=tmp_path / "run", on_step=stop, **options)
    for folder in (tmp_path / "run.partial" / "checkpoint").iterdir():
        if where == "meta":
            edit_json(folder / "meta.json", lambda meta: meta.update(state=[], best={}))
        else:
            edit_tensors(folder / "tensors.safetensors", lambda tensors: {"x": next(iter(tensors.values()))})
        write_manifest(folder, [folder / "tensors.safetensors", folder / "meta.json"])
    with pytest.raises(InputError, match="start anew with --overwrite"):
        inference.fit(dataset, out=tmp_path / "run", resume=True, **options)
