"""``--b-power``: what cannot be weighed so is refused by name, and what can is the same fit however it is told."""

import pytest
import torch

import inference
from inference.options import Options
from models.catalogue import MOST_POWER
from pyro_cvae.errors import InputError
from tests.strangers import SMALL, catalogue

TWICE = {"rating_likelihood": "confidence-normal", "rating_likelihood_args": {"b_power": 0.5}}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"b_power": 1000.0}, "--b-power is 1000.0, but it must be a number from 0 to 10"),
        ({"b_power": -0.5}, "--b-power is -0.5, but it must be a number from 0 to 10"),
        ({"b_power": float("inf")}, "--b-power is inf, but it must be a number from 0 to 10"),
        ({"b_power": 0.5, "b": 0.0}, "--b-power is 0.5, but it must be 0 with --b 0, which has no zeros to weigh"),
        ({"b_power": 0.5, "rating_likelihood": "poisson"}, "--b-power is 0.5, but it must be 0 with poisson ratings"),
        (
            {"b_power": 0.2, **TWICE},
            "--b-power is 0.2, but it must be left out, or 0.5 as --rating-likelihood.b_power is",
        ),
    ],
)
def test_a_power_that_weighs_nothing_is_refused_by_name(options, problem):
    with pytest.raises(InputError) as caught:
        Options.of("coordinate", **options)
    assert str(caught.value) == problem


def test_what_is_told_as_an_argument_or_twice_alike_is_taken():
    assert Options.of("coordinate", **TWICE).model.rating_likelihood_args == {"b_power": 0.5}
    assert Options.of("coordinate", b_power=0.5, **TWICE).model.b_power == 0.5
    assert Options.of("coordinate", b=0.0).model.b_power == 0.0


def test_the_largest_power_is_fitted_and_an_argument_is_the_same_fit():
    data, own = catalogue(), {"method": "coordinate", "mode": "map", **SMALL}
    top = inference.fit(data, b_power=MOST_POWER, **own)
    assert all(bool(one.isfinite().all()) for one in top.posterior.tensors().values())
    told, argued = inference.fit(data, b_power=0.5, **own), inference.fit(data, **TWICE, **own)
    for name, tensor in told.posterior.tensors().items():
        assert torch.equal(tensor, argued.posterior.tensors()[name]), name
    assert not torch.equal(told.posterior.tensors()["u_loc"], top.posterior.tensors()["u_loc"])
