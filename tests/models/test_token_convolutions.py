"""Convolutions of sequences of tokens: all in one line against one at a time from their equations, start, refusals."""

import pytest
import torch

from models.contents.making import content_likelihood
from models.networks.base import Start
from models.networks.convolutional import ConvolutionalEncoder
from models.networks.making import make_networks
from models.networks.recurrent import RecurrentDecoder
from models.networks.token_convolutions import ConvolutionalTokenEncoder, along
from models.rows import Form, TokenRows
from pyro_cvae.errors import InputError

LENGTHS = (4, 0, 7, 1, 2, 7, 0)
N_TOKENS, N_FACTORS, WIDTH = 6, 3, 5


class Options:
    factors, hidden, activation, radius, tied, network = N_FACTORS, (9, WIDTH), "tanh", 0.0, True, "convolutional"


def encoder_and_rows(activation="tanh", **encoder):
    """An encoder at random, biases too, so that a gap that is not cleared would be seen."""
    torch.manual_seed(0)
    inward = ConvolutionalTokenEncoder(N_TOKENS, N_FACTORS, WIDTH, activation, **encoder).double()
    with torch.no_grad():
        for parameter in inward.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    rows = TokenRows.from_lists([torch.randint(N_TOKENS, (n,)).tolist() for n in LENGTHS], N_TOKENS)
    return inward, rows


def by_hand(layer, h):
    """A convolution of width 3 from its equation, zeros around the positions, (n_positions, width)."""
    found = []
    for place in range(len(h)):
        near = [h[at] if 0 <= at < len(h) else torch.zeros_like(h[0]) for at in (place - 1, place, place + 1)]
        found.append(layer.bias + sum(layer.weight[:, :, tap] @ one for tap, one in enumerate(near)))
    return torch.stack(found)


@pytest.mark.parametrize("radius", [0.0, 2.0])
def test_all_sequences_in_one_line_are_read_as_each_alone(radius):
    encoder, rows = encoder_and_rows(radius=radius)
    loc, scale = encoder(rows)
    for item, part in enumerate(rows.tokens.split(rows.lengths.tolist())):
        words = encoder.embedding[torch.cat([part, torch.tensor([N_TOKENS])])]
        h = words
        for layer in encoder.convolutions:
            h = torch.tanh(by_hand(layer, h))
        bag = words[:-1].sum(0) / max(1, len(part)) ** 0.5
        h = torch.cat([bag, torch.tanh(encoder.dense(torch.cat([h.max(0).values, h.mean(0)])))])
        mean = encoder.loc(h)
        if radius:
            mean = radius * mean / mean.norm()
        torch.testing.assert_close(loc[item], mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(scale[item], (0.5 * encoder.log_variance(h)).exp(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "softplus"])
def test_what_is_said_of_an_item_does_not_depend_on_its_minibatch(activation):
    """In another order, alone, and beside a sequence of any length; gradients are the sums of those of each."""
    encoder, rows = encoder_and_rows(activation)
    weights = list(encoder.parameters())

    def said(part):
        return torch.cat(encoder(part), -1)

    whole = said(rows)
    for chosen in ([6, 2, 2, 0, 5, 1, 3, 4], [1], [3], [1, 6], [2]):
        torch.testing.assert_close(said(rows.select(torch.tensor(chosen))), whole[chosen], rtol=1e-10, atol=1e-10)
    lists = [part.tolist() for part in rows.tokens.split(rows.lengths.tolist())]
    long = torch.randint(N_TOKENS, (3000,)).tolist()
    beside = TokenRows.from_lists([long, *lists, long[:-1]], N_TOKENS)
    found = said(beside)
    torch.testing.assert_close(found[1:-1], whole, rtol=1e-10, atol=1e-10)
    assert not torch.equal(found[0], found[-1]), "no sequence is cut short"
    alone = [torch.autograd.grad(said(rows.select(torch.tensor([item]))).sum(), weights) for item in range(len(rows))]
    for together, *each in zip(torch.autograd.grad(whole.sum(), weights), *alone, strict=True):
        assert bool(together.any())
        torch.testing.assert_close(together, torch.stack(each).sum(0), rtol=1e-10, atol=1e-10)


def test_the_order_of_tokens_is_read():
    encoder, _ = encoder_and_rows()
    loc, _ = encoder(TokenRows.from_lists([[1, 2, 3, 4], [4, 2, 3, 1], [1, 2, 3, 4]], N_TOKENS))
    torch.testing.assert_close(loc[0], loc[2], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(loc[0], loc[1], atol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_the_pair_of_tokens_has_the_recurrent_decoder(tied):
    options = type("Chosen", (Options,), {"tied": tied})
    encoder, decoder = make_networks(Form("tokens", (N_TOKENS,)), content_likelihood("tokens", {}), options)
    assert (type(encoder), type(decoder)) == (ConvolutionalTokenEncoder, RecurrentDecoder)
    assert encoder.embedding.shape == (N_TOKENS + 1, WIDTH)
    assert (decoder.outputs["logits"] is encoder.embedding) == tied


def test_a_named_network_is_taken_for_each_part_that_it_reads():
    forms = {"titles": Form("tokens", (N_TOKENS,)), "covers": Form("images", (1, 8, 8)), "tags": Form("words", (4,))}
    likelihood = content_likelihood("product", {"titles": "tokens", "covers": "normal", "tags": "bernoulli"})
    encoder, _ = make_networks(forms, likelihood, Options)
    kinds = [type(encoder.experts[name]) for name in ("titles", "covers")]
    assert kinds == [ConvolutionalTokenEncoder, ConvolutionalEncoder]
    assert type(encoder.experts["tags"]).__name__ == "MLPEncoder"


@pytest.mark.parametrize(("kind", "likelihood"), [("words", "multinomial"), ("vectors", "normal")])
def test_other_kinds_are_refused(kind, likelihood):
    with pytest.raises(InputError, match=f"convolutional cannot read {kind}, only images, tokens; use --network auto"):
        make_networks(Form(kind, (5,)), content_likelihood(likelihood, {}), Options)


def test_layers_start_at_mean_0_and_variance_1_and_say_nothing_yet():
    """Over the positions, or sequences, that are there; the embeddings are those of the bag's start."""
    torch.manual_seed(0)
    rows = TokenRows.from_lists([torch.randint(30, (n % 9,)).tolist() for n in range(400)], 30)
    likelihood = content_likelihood("tokens", {})
    encoder, decoder = (net.double() for net in make_networks(rows.form, likelihood, Options))
    encoder.start(decoder, Start(rows, rows, likelihood, "whitened", 6400))
    with torch.no_grad():
        h, there = encoder.line(rows)
        pres = []
        for layer in encoder.convolutions:
            pres.append(along(layer, h)[there])
            h = torch.tanh(along(layer, h)) * there[:, None]
        pres.append(encoder.dense(encoder.pooled(h[there], rows)))
        for pre in pres:
            assert pre.mean(0).abs().max() < 1e-9
            torch.testing.assert_close(pre.std(0), torch.ones(WIDTH, dtype=torch.float64), rtol=1e-9, atol=0)
        loc, _ = encoder(rows)
        encoder.dense.weight.zero_()
        torch.testing.assert_close(encoder(rows)[0], loc, rtol=1e-10, atol=1e-10)


def test_sequences_that_say_nothing_start_at_finite_numbers():
    """All empty, all the same, and a single one."""
    for lists in ([[]] * 5, [[2, 3]] * 5, [[1]], [[], [0]]):
        rows, likelihood = TokenRows.from_lists(lists, N_TOKENS), content_likelihood("tokens", {})
        torch.manual_seed(0)
        encoder, decoder = make_networks(rows.form, likelihood, Options)
        encoder.start(decoder, Start(rows, rows, likelihood))
        with torch.no_grad():
            loc, scale = encoder(rows)
        assert bool(torch.isfinite(torch.cat([loc, scale])).all()) and float(loc.abs().max()) < 100
        assert all(float(p.detach().abs().max()) < 1e4 for p in encoder.parameters())
