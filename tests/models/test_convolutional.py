"""Convolutional networks: sizes that come back exactly, single images, and digits."""

import numpy as np
import pytest
import torch

import inference
from models.networks import make_networks
from models.networks.convolutional import sizes
from models.rows import DenseRows, Form
from pyro_cvae.data.contents import Images
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import held_out_items
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


@pytest.fixture(scope="module")
def pictures():
    """Items with a picture of 8 x 7 grey values that their z tells, of which a tenth are missing."""
    import dataclasses

    found = simulated(n_users=100, n_items=400, n_words=60, n_factors=3, clicks_per_user=50.0)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:8, :7]
    waves = [np.sin(0.9 * rows + shift) * np.cos(0.7 * columns - shift) for shift in range(3)]
    grey = 1 / (1 + np.exp(-np.tensordot(found.truth["z"], np.stack(waves), 1)))
    values = (255 * grey.clip(0, 1)).astype(np.uint8)[:, None]
    there = rng.random(400) < 0.9
    values[~there] = 0
    return dataclasses.replace(found, others={"pictures": Images(values, there)})


@pytest.mark.parametrize("network", ["mlp", "convolutional"])
@pytest.mark.parametrize(("likelihood", "arguments"), [("normal", {"learned": True}), ("pseudo-bernoulli", {})])
def test_cold_pictures_rank_by_what_they_show(pictures, network, likelihood, arguments):
    split = held_out_items(pictures, 0.25, 0)
    fit = inference.fit(
        pictures, split, method="coordinate", mode="map", content="pictures", content_likelihood=likelihood,
        content_likelihood_args=arguments, network=network, factors=3, hidden=(20,), a=1.0, b=0.01, lambda_u=1.0,
        lambda_v=10.0, pretrain_epochs=40, epochs=5, threads=1, activation="tanh",
    )  # fmt: skip
    assert type(fit.model.encoder.experts["pictures"]).__name__.lower().startswith(network)
    assert fit.metrics["content"]["active_units"] == 3
    there = pictures.others["pictures"].present
    cold = np.setdiff1d(np.flatnonzero(there), split.train.items)
    found, true = fit.posterior.score_block(np.arange(100)).double().numpy(), pictures.truth["scores"]
    per_user = [np.corrcoef(*pair)[0, 1] for pair in zip(found[:, cold], true[:, cold], strict=True)]
    assert np.mean(per_user) > (0.5 if likelihood == "normal" else 0.3)
    without = fit.posterior.z_loc[~torch.as_tensor(there)]
    assert not without.any(), "an item without a picture is at the prior"


def test_grey_values_are_no_bernoulli(pictures):
    with pytest.raises(
        InputError, match=r"pictures: Bernoulli content must be 0 or 1; .*pseudo-bernoulli .* or normal"
    ):
        inference.fit(pictures, content="pictures", content_likelihood="bernoulli", factors=3, hidden=(8,))
