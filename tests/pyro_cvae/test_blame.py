"""Whose code raised an error: a plug-in's is one line that names it, the package's own stays a traceback."""

import math
import sysconfig
from pathlib import Path
from types import ModuleType

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from models.ratings import RatingLikelihood
from models.ratings.base import mean_rating
from pyro_cvae import blame
from pyro_cvae.blame import note_plugin, plugin_failure
from pyro_cvae.errors import InputError, MachineError, as_known, run_command


class Mine(RatingLikelihood):
    """Does in its cell what it is told to."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def cell(self, score, confidence):
        return self.act()


@pytest.fixture(autouse=True)
def imported(monkeypatch):
    """A plug-in was imported by its path, as commands do."""
    monkeypatch.setattr(blame, "_plugins", {"my_plug_ins"})


def raised(act):
    """What the package's ``log_prob``, which calls the plug-in's ``cell``, lets through."""
    with pytest.raises(Exception) as caught:
        Mine(act).log_prob(torch.zeros(2), torch.zeros(2), torch.ones(2))
    return caught.value


def throw(error):
    raise error


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: throw(ValueError("no")), "ValueError: no"),
        (lambda: throw(KeyError("no")), "KeyError: 'no'"),
        (lambda: throw(NotImplementedError()), "NotImplementedError"),
        (lambda: throw(RuntimeError("first\nsecond")), "RuntimeError: first"),
        (lambda: throw(FileNotFoundError(2, "Not there", "x.csv")), "FileNotFoundError: [Errno 2] Not there: 'x.csv'"),
        (lambda: math.exp(1e9), "OverflowError: math range error"),
        (lambda: torch.nn.Linear(3, 2)(torch.zeros(4)), "RuntimeError: mat1 and mat2"),
    ],
)  # fmt: skip
def test_what_a_plug_in_raises_or_a_library_that_it_calls_names_the_method(act, said):
    known = as_known(raised(act))
    assert isinstance(known, InputError)
    assert str(known).startswith(f"{__name__}.Mine.cell failed: {said}")
    assert str(known).endswith("; mend it; PYRO_CVAE_DEBUG=1 shows the traceback") and "\n" not in str(known)


def test_our_own_errors_and_memory_are_what_they_were():
    own = InputError("bad", "mend")
    assert as_known(raised(lambda: throw(own))) is own
    assert isinstance(as_known(raised(lambda: torch.empty(2**50))), MachineError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_who_stops_a_program_within_a_plug_in_stops_it(error):
    with pytest.raises(type(error)) as caught:
        Mine(lambda: throw(error)).log_prob(torch.zeros(2), torch.zeros(2), torch.ones(2))
    assert plugin_failure(caught.value) is None and as_known(caught.value) is None


def test_what_the_package_raises_is_its_own_also_below_a_plug_in():
    assert plugin_failure(raised(lambda: None)) is None  # the package finds no log_prob on None
    assert as_known(raised(lambda: mean_rating(None, None))) is None


def test_a_program_around_the_package_is_no_plug_in():
    def main():
        raise ValueError("my own")

    with pytest.raises(ValueError, match="my own"):
        run_command(main)


def test_without_a_plug_in_none_has_failed(monkeypatch):
    error = raised(lambda: throw(ValueError("no")))
    assert plugin_failure(error) is not None
    monkeypatch.setattr(blame, "_plugins", set())
    assert plugin_failure(error) is None and as_known(error) is None


def test_pyros_shapes_are_left_out():
    def program():
        pyro.sample("x", dist.Normal(0.0, 1.0))
        Mine(lambda: throw(ValueError("no"))).log_prob(torch.zeros(2), torch.zeros(2), torch.ones(2))

    with pytest.raises(ValueError, match="Trace Shapes") as caught:
        poutine.trace(program).get_trace()
    assert plugin_failure(caught.value) == f"{__name__}.Mine.cell failed: ValueError: no"


def test_pyros_shapes_are_left_out_of_our_own_errors():
    own = InputError("bad", "mend")
    shaped = InputError("bad; mend\nTrace Shapes:\n Sample Sites:")
    shaped.__cause__ = own
    assert as_known(shaped) is own


def test_a_plug_in_may_be_installed_beside_libraries():
    module = ModuleType("installed_plug_in_of_the_test")
    file = Path(sysconfig.get_paths()["purelib"]) / f"{module.__name__}.py"
    text = "class Cell:\n    def cell(self, score, confidence):\n        raise ValueError('no')"
    exec(compile(text, str(file), "exec"), vars(module))

    def failure():
        with pytest.raises(ValueError, match="no") as caught:
            RatingLikelihood.log_prob(module.Cell(), torch.zeros(2), torch.zeros(2), torch.ones(2))
        return plugin_failure(caught.value)

    assert failure() is None  # as any library's
    note_plugin(f"{module.__name__}")
    assert failure() == f"{module.__name__}.Cell.cell failed: ValueError: no"
