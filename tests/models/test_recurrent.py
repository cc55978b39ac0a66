"""Recurrent networks: packed sequences against one at a time, draws, and a latent that stays alive."""

import numpy as np
import pytest
import torch

from models.contents.tokens import Tokens
from models.networks.recurrent import RecurrentDecoder, RecurrentEncoder
from models.rows import TokenRows

LENGTHS = (4, 0, 7, 1, 2, 7)
N_TOKENS, N_FACTORS = 6, 3


def networks(**encoder):
    torch.manual_seed(0)
    inward = RecurrentEncoder(N_TOKENS, N_FACTORS, 5, **encoder).double()
    outward = RecurrentDecoder(N_TOKENS, N_FACTORS, 5).double()
    with torch.no_grad():
        for parameter in (*inward.parameters(), *outward.parameters()):
            parameter.add_(0.5 * torch.randn_like(parameter))
    rows = TokenRows.from_lists([torch.randint(N_TOKENS, (n,)).tolist() for n in LENGTHS], N_TOKENS)
    return inward, outward, rows


def by_hand(gru, inputs, state, suffix=""):
    """States of gated recurrent units from their equations, (n_steps, width)."""
    w_i, w_h, b_i, b_h = (
        getattr(gru, name + "_l0" + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    found = []
    for x in inputs:
        (r_i, z_i, n_i), (r_h, z_h, n_h) = (w_i @ x + b_i).chunk(3), (w_h @ state + b_h).chunk(3)
        reset, update = torch.sigmoid(r_i + r_h), torch.sigmoid(z_i + z_h)
        state = (1 - update) * torch.tanh(n_i + reset * n_h) + update * state
        found.append(state)
    return torch.stack(found)


@pytest.mark.parametrize("radius", [0.0, 2.0])
def test_the_encoder_of_packed_sequences_reads_each_as_if_alone(radius):
    encoder, _, rows = networks(radius=radius)
    loc, scale = encoder(rows)
    for item, part in enumerate(rows.tokens.split(rows.lengths.tolist())):
        words = encoder.embedding[torch.cat([part, torch.tensor([N_TOKENS])])]
        zero = torch.zeros(5, dtype=torch.float64)
        ahead, back = by_hand(encoder.gru, words, zero)[-1], by_hand(encoder.gru, words.flip(0), zero, "_reverse")[-1]
        bag = words[:-1].sum(0) / max(1, len(part)) ** 0.5
        h = torch.cat([bag, ahead, back])
        mean = encoder.loc(h)
        if radius:
            mean = radius * mean / mean.norm()
        torch.testing.assert_close(loc[item], mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(scale[item], (0.5 * encoder.log_variance(h)).exp(), rtol=1e-10, atol=1e-12)


def test_the_decoder_of_packed_sequences_predicts_each_as_if_alone():
    _, decoder, rows = networks()
    told = torch.where(torch.arange(len(rows.tokens)) % 3 == 0, -1, rows.tokens)
    rows = TokenRows(rows.indptr, rows.tokens, N_TOKENS, told)
    z = torch.randn(len(rows), N_FACTORS, dtype=torch.float64)
    logits = decoder.given(z, rows)["logits"].split((rows.lengths + 1).tolist())
    for item, part in enumerate(told.split(rows.lengths.tolist())):
        inputs = torch.cat([torch.tensor([N_TOKENS]), torch.where(part < 0, N_TOKENS + 1, part)])
        states = by_hand(decoder.gru, decoder.told[inputs], torch.tanh(decoder.begin(z[item])))
        h = states @ decoder.mix.weight.T + torch.tanh(decoder.inner(z[item]))
        wanted = h @ decoder.outputs["logits"].T + decoder.output_biases["logits"]
        torch.testing.assert_close(logits[item], wanted, rtol=1e-10, atol=1e-12)


def test_gradients_of_a_batch_are_the_sums_of_those_of_its_sequences():
    _, decoder, rows = networks()
    z = torch.randn(len(rows), N_FACTORS, dtype=torch.float64)
    likelihood, weights = Tokens(), list(decoder.parameters())

    def gradients(chosen):
        part = rows.select(chosen)
        return torch.autograd.grad(likelihood.log_prob(part, decoder.given(z[chosen], part)).sum(), weights)

    alone = [gradients(torch.tensor([item])) for item in range(len(rows))]
    for together, *each in zip(gradients(torch.arange(len(rows))), *alone, strict=True):
        torch.testing.assert_close(together, torch.stack(each).sum(0), rtol=1e-10, atol=1e-12)


def test_no_sequence_is_cut_short():
    encoder, decoder, _ = networks()
    long = torch.randint(N_TOKENS, (3000,)).tolist()
    rows = TokenRows.from_lists([long, [1], long[:-1]], N_TOKENS)
    z = torch.randn(3, N_FACTORS, dtype=torch.float64)
    assert len(decoder.given(z, rows)["logits"]) == 3001 + 2 + 3000
    (loc, _) = encoder(rows)
    assert not torch.equal(loc[0], loc[2])


def test_a_draw_of_nobody_and_of_the_hopeless(monkeypatch):
    _, decoder, rows = networks()
    assert len(decoder.draw(Tokens(), torch.zeros(0, N_FACTORS, dtype=torch.float64), rows)) == 0
    monkeypatch.setattr("models.networks.recurrent.LONGEST_DRAW", 30)
    with torch.no_grad():
        decoder.output_biases["logits"][-1] = -1e9  # no end
    from pyro_cvae.errors import InputError

    with pytest.raises(InputError, match="more than 30 tokens"):
        decoder.draw(Tokens(), torch.zeros(2, N_FACTORS, dtype=torch.float64), rows)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("network", ["recurrent", "convolutional"])
def test_the_latent_of_real_titles_stays_alive_and_without_the_start_it_dies(network, data_folder, monkeypatch):
    """Titles of citeulike-a, a third of them, four epochs: KL and mutual information of titles that were held out."""
    from inference.algorithms import networks as fitting
    from inference.algorithms.svi import SVI
    from inference.options import Options
    from inference.posterior import content_diagnostics
    from models.build import content_likelihood, make_model, rows_of
    from models.observations import Observations, RatingColumns
    from pyro_cvae.data.contents import Tokens as TokensContent
    from pyro_cvae.data.interactions import Interactions

    torch.set_num_threads(1)
    lines = (data_folder / "citeulike-a" / "titles.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    rows = rows_of(TokensContent.fit(lines[::3]), None)
    held, train = rows.select(torch.arange(500)), rows.select(torch.arange(500, len(rows)))
    pairs = Interactions.from_arrays(np.zeros(2, int), np.arange(2), n_users=1, n_items=len(train))
    observations = Observations(train, train, RatingColumns.from_interactions(pairs, 1.0))

    def measured():
        chosen = {"content_likelihood": "tokens", "network": network}
        options = Options.of("svi", mode="map", pretrain_epochs=4, threads=1, **chosen)
        make = lambda: make_model(1, len(train), train.form, content_likelihood("tokens", {}), options.model)  # noqa: E731
        torch.manual_seed(0)
        svi = SVI(make, observations, options)
        state = svi.init()
        for _ in range(4):
            state, _ = svi.step(state)
        with torch.no_grad():
            return content_diagnostics(*state.model.encoder(held))

    alive = measured()
    assert alive["kl"] > 2 and alive["mutual_information"] > 2 and alive["active_units"] >= 25
    monkeypatch.setattr(fitting, "start_alive", lambda *given: None)
    monkeypatch.setattr(RecurrentDecoder, "topic", lambda self, z: 0 * torch.tanh(self.inner(z)))
    monkeypatch.setattr(fitting, "TOKEN_DROPOUT", 0.0)
    dead = measured()
    assert dead["kl"] < 1 and dead["mutual_information"] < 1
