"""Plug-ins whose methods do not fit what they are called with are refused by name."""

import functools

import pytest

from models.catalogue import PLUGINS
from models.making import base_of, class_of
from models.networks import NetworkPair
from models.signatures import check_methods
from pyro_cvae.errors import InputError


class Base:
    def act(self, first, second=None): ...

    @staticmethod
    def still(one): ...

    def _private(self): ...


Base.act.__module__ = Base.still.__module__ = "models.base"


def of(**methods):
    return type("Mine", (Base,), methods)


@pytest.mark.parametrize(
    "methods",
    [
        {},
        {"act": lambda self, first: 0},
        {"act": lambda self, first, second: 0},
        {"act": lambda self, *everything: 0},
        {"act": lambda self, first, second=None, third=None: 0},
        {"act": staticmethod(lambda first, second: 0)},
        {"act": classmethod(lambda cls, first, second: 0)},
        {"act": functools.partialmethod(lambda self, third, first, second: 0, 1)},
        {"still": lambda self, one: 0},
        {"still": staticmethod(lambda one: 0)},
        {"_private": lambda self, one, two: 0},
        {"act": None},
    ],
)
def test_what_fits_a_call_is_taken(methods):
    if "still" in methods and not isinstance(methods["still"], staticmethod):
        methods = {"still": staticmethod(functools.partial(methods["still"], None))}
    check_methods(of(**methods), Base)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("act", lambda self: 0),
        ("act", lambda self, first, second, third: 0),
        ("act", lambda self, first, *, second: 0),
        ("act", staticmethod(lambda: 0)),
        ("still", staticmethod(lambda one, two: 0)),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, method):
    with pytest.raises(InputError, match=rf"Mine\.{name} does not take what it is called with, \(\w+(, second)?\)"):
        check_methods(of(**{name: method}), Base)


class OfAnotherTime(NetworkPair):
    def make(self, form, heads, options): ...

    def start(self, encoder, decoder, content, inputs, likelihood, how, sample): ...


def test_a_class_path_is_looked_at_before_anything_is_made():
    with pytest.raises(
        InputError, match=r"OfAnotherTime\.start .* \(encoder, decoder, start\); give it the parameters"
    ):
        class_of("network", f"{__name__}.OfAnotherTime")


@pytest.mark.parametrize("field", PLUGINS)
def test_the_packages_own_plug_ins_fit(field):
    for name in PLUGINS[field].own:
        assert issubclass(class_of(field, name), base_of(field))
