"""Kinds that are said by a word: the choices of options are the words of a type, and stand in one place."""

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from inference import kinds
from inference.algorithms import guides
from inference.options import METHODS, Options
from inference.options.checking import check_words
from inference.recommending.options import ListOptions
from models.catalogue import NUMBERS
from models.testing_networks import LIKELIHOODS
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import ContentKind, TextKind

OF_KINDS = [
    (part, field, get_args(hint))
    for part in {cls: None for method in METHODS for cls in Options.classes(method)} | {ListOptions: None}
    for field, hint in get_type_hints(part).items()
    if get_origin(hint) is Literal
]


@pytest.mark.parametrize(("part", "field", "words"), OF_KINDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_another_word_is_refused_with_all_that_there_are(part, field, words):
    refusal = f"^--{field.replace('_', '-')} is 'nonsense', but it must be one of {', '.join(words)}$"
    with pytest.raises(InputError, match=refusal):
        part(**{field: "nonsense"})


def test_these_options_are_said_by_a_word():
    of_the_fit = {"mode", "guide", "start", "dtype", "format", "ratings", "html", "split", "scaling", "hide", "kernel"}
    of_the_model = {"activation", "encoder_input", "biases", "cold", "unrated", "parametrization"}
    others = {"gather", "unknown", "ranking", "index"}
    assert {field for _, field, _ in OF_KINDS} == of_the_fit | of_the_model | others


def test_several_words_are_each_checked():
    @dataclasses.dataclass
    class Several:
        shows: tuple[Literal["once", "again"], ...]

    check_words(Several(("once", "again")))
    with pytest.raises(InputError, match="--shows is 'twice', but it must be one of once, again"):
        check_words(Several(("once", "twice")))


def test_words_are_those_of_the_tables_by_them():
    assert tuple(METHODS) == get_args(kinds.Method)
    assert set(guides.KINDS) == {"point", *get_args(kinds.Guide)} < set(get_args(kinds.PosteriorKind))
    assert {*NUMBERS, *get_args(TextKind)} == set(get_args(ContentKind)) == set(LIKELIHOODS)
