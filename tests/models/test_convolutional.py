"""Convolutional networks: sizes that come back exactly, single images, and digits."""

import numpy as np
import pytest
import torch

import inference
from benchmarks.floors import pictures
from models.networks.convolutional import sizes
from models.networks.making import make_networks
from models.rows import DenseRows, Form
from pyro_cvae.errors import InputError


class Options:
    factors, hidden, activation, tied, radius, network = 3, (7,), "tanh", True, 0.0, "auto"


class Heads:
    param_names = ("loc", "log_scale")


@pytest.mark.parametrize(
    "size", [(1, 4, 4), (1, 5, 4), (3, 7, 9), (1, 8, 8), (2, 28, 28), (1, 33, 18), (1, 4, 50), (3, 64, 65)]
)
def test_images_come_back_in_their_size(size):
    encoder, decoder = make_networks(Form("images", size), Heads(), Options)
    torch.manual_seed(0)
    rows = DenseRows(torch.rand(4, *size))
    loc, scale = encoder(rows)
    assert loc.shape == scale.shape == (4, 3) and bool((scale > 0).all())
    params = decoder(loc)
    assert {name: value.shape for name, value in params.items()} == dict.fromkeys(
        ("loc", "log_scale"), torch.Size((4, int(np.prod(size))))
    )
    columns = torch.tensor([3, 0])
    torch.testing.assert_close(decoder(loc, columns)["loc"], params["loc"][:, columns])
    for item in range(4):
        one = encoder(rows.select(torch.tensor([item])))[0]
        torch.testing.assert_close(one[0], loc[item], rtol=1e-4, atol=1e-5)
    every = [*encoder.parameters(), *decoder.parameters()]
    total = encoder(rows)[1].sum() + sum(value.square().sum() for value in decoder(encoder(rows)[0]).values())
    assert all(bool(gradient.any()) for gradient in torch.autograd.grad(total, every))


def test_every_convolution_halves_and_too_small_images_are_refused():
    assert sizes((1, 28, 27)) == [(1, 28, 27), (32, 14, 14), (64, 7, 7), (64, 4, 4)]
    with pytest.raises(InputError, match=r"images of 3 x 9 are too small for convolutions; .* --network mlp"):
        sizes((1, 3, 9))


@pytest.mark.parametrize("network", ["mlp", "convolutional"])
def test_items_without_a_picture_are_at_the_prior(network):
    """How well the others rank is asked of several seeds in tests/test_floors.py."""
    data = pictures()
    fit = inference.fit(
        data, method="coordinate", mode="map", content="pictures", content_likelihood="pseudo-bernoulli",
        network=network, factors=3, hidden=(20,), pretrain_epochs=2, epochs=1, threads=1, activation="tanh",
    )  # fmt: skip
    assert type(fit.model.encoder.experts["pictures"]).__name__.lower().startswith(network)
    there = torch.as_tensor(data.others["pictures"].present)
    assert not fit.posterior.z_loc[~there].any() and bool(fit.posterior.z_loc[there].any(1).all())


def test_grey_values_are_no_bernoulli():
    with pytest.raises(
        InputError, match=r"pictures: Bernoulli content must be 0 or 1; .*pseudo-bernoulli .* or normal"
    ):
        inference.fit(pictures(), content="pictures", content_likelihood="bernoulli", factors=3, hidden=(8,))
