"""Networks: single cells of the decoder, and means of a given length from the encoder."""

import pytest
import torch

from models.networks import mlp
from models.networks.base import Decoder
from models.networks.mlp import ACTIVATIONS, MLPDecoder, MLPEncoder
from models.observations import SparseRows
from tests.models.toy import N_FACTORS, N_ITEMS, N_WORDS, toy_observations

HIDDEN = (6, 5)
EMPTY = 4  # the item whose text has no words


def networks(tied=True, heads=("logits", "scale"), **encoder):
    """Both networks in float64, with random biases."""
    torch.manual_seed(0)
    inward = MLPEncoder(N_WORDS, N_FACTORS, HIDDEN, **encoder).double()
    outward = MLPDecoder(N_WORDS, N_FACTORS, HIDDEN, heads=heads, tied_to=inward if tied else None).double()
    with torch.no_grad():
        for parameter in (*inward.parameters(), *outward.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return inward, outward


# --- the decoder at single cells -------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [MLPDecoder.at, Decoder.at])
@pytest.mark.parametrize("tied", [True, False])
def test_single_cells_are_those_of_all_features_with_their_gradients(at, tied):
    _, decoder = networks(tied)
    z = torch.randn(N_ITEMS, N_FACTORS, dtype=torch.float64, requires_grad=True)
    content, drawn = toy_observations().content, torch.tensor([3, 11, 0, 5])
    rows, columns = content.rows, content.columns
    found = at(decoder, z, rows, columns, drawn)
    dense = decoder(z)
    expected = {n: p[rows, columns] for n, p in dense.items()}, {n: p[:, drawn] for n, p in dense.items()}
    assert found[0].keys() == found[1].keys() == {"logits", "scale"}
    assert set(drawn.tolist()) & set(columns.tolist()), "no word is both in a text and drawn"

    def gradients(parts):
        torch.manual_seed(1)
        loss = sum((torch.randn_like(p) * p).sum() for part in parts for p in part.values())
        return torch.autograd.grad(loss, [z, *decoder.parameters()])

    for ours, theirs in zip(found, expected, strict=True):
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients(found), gradients(expected), strict=True):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_single_cells_of_a_batch_without_words():
    _, decoder = networks()
    none = torch.zeros(0, dtype=torch.int64)
    z = torch.randn(2, N_FACTORS, dtype=torch.float64)
    cells, features = decoder.at(z, none, none, torch.tensor([7]))
    assert cells["logits"].shape == (0,)
    torch.testing.assert_close(features["logits"], decoder(z)["logits"][:, [7]], rtol=1e-12, atol=0)


# --- means of one length ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_mean_has_the_radius_and_the_direction_it_would_have_without(activation):
    free, _ = networks(activation=activation)
    held, _ = networks(activation=activation, radius=2.5)
    content = toy_observations().content
    (mu, scale), (own, own_scale) = held(content), free(content)
    torch.testing.assert_close(mu.norm(dim=-1), torch.full((N_ITEMS,), 2.5, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(mu, 2.5 * own / own.norm(dim=-1, keepdim=True), rtol=1e-12, atol=0)
    torch.testing.assert_close(scale, own_scale, rtol=0, atol=0)


def test_the_gradient_flows_along_the_sphere_alone():
    encoder, _ = networks(radius=2.5)
    mu, _ = encoder(toy_observations().content)
    torch.manual_seed(1)
    target = torch.randn_like(mu)
    inward = [*encoder.weights, *encoder.biases, *encoder.loc.parameters()]
    for gradient in torch.autograd.grad((mu * target).sum(), inward, retain_graph=True):
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 1e-3
    for gradient in torch.autograd.grad(mu.square().sum(), inward):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_a_text_that_says_nothing_has_a_mean_of_zero_and_pulls_no_harder_than_others():
    """With odd activations and no biases, as the start "svd" leaves them, an empty text has no direction at all."""
    encoder, _ = networks(activation="tanh", radius=2.5)
    with torch.no_grad():
        for bias in (*encoder.biases, encoder.loc.bias):
            bias.zero_()
    content = toy_observations().content
    mu, _ = encoder(content)
    assert not content.dense()[EMPTY].any() and not mu[EMPTY].any()
    assert torch.isfinite(mu).all()
    (empty,) = torch.autograd.grad(mu[EMPTY].sum(), encoder.loc.bias, retain_graph=True)
    others = [torch.autograd.grad(mu[row].sum(), encoder.loc.bias, retain_graph=True)[0] for row in range(EMPTY)]
    assert empty.abs().max() <= 300 * max(gradient.abs().max() for gradient in others)


def test_an_empty_batch_of_words_is_encoded_too():
    encoder, _ = networks(radius=2.5)
    mu, scale = encoder(SparseRows.from_dense(torch.zeros(3, N_WORDS, dtype=torch.float64)))
    assert torch.isfinite(mu).all() and torch.isfinite(scale).all() and mu.shape == (3, N_FACTORS)


@pytest.mark.parametrize("n_cells", [0, 9])
def test_parameters_at_cells_and_their_gradients_are_those_of_all_features(n_cells, monkeypatch):
    """Cells in any order, some of them twice; a feature that is drawn and met; a table that the encoder has too."""
    monkeypatch.setattr(mlp, "CELLS_AT_ONCE", 4)
    torch.manual_seed(0)
    encoder = MLPEncoder(12, 3, (5,), "tanh").double()
    decoder = MLPDecoder(12, 3, (5,), "tanh", ("logits", "scale"), encoder).double()
    for bias in decoder.output_biases.values():
        torch.nn.init.normal_(bias)
    rows, columns = torch.randint(4, (n_cells,)), torch.randint(6, (n_cells,))
    drawn, parameters = torch.tensor([3, 0, 11]), list(decoder.parameters())

    def gradients(way):
        z = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3).requires_grad_()
        cells, features = way(decoder, z, rows, columns, drawn)
        total = sum((value.sin().sum() for part in (cells, features) for value in part.values()), torch.zeros(()))
        return cells, features, torch.autograd.grad(total, [z, *parameters])

    found, wanted = gradients(MLPDecoder.at), gradients(Decoder.at)
    for own, all_of_them in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, all_of_them, rtol=1e-12, atol=1e-12)
