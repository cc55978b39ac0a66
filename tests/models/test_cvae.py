"""The Pyro program against a dense hand computation, and what holds in every trace."""

import dataclasses
import math

import pytest
import torch
from pyro import poutine

from models.contents import ContentDistribution, SubsampledContent
from models.contents.multinomial import Multinomial
from models.drawing import draw
from models.networks.mlp import MLPDecoder, MLPEncoder
from models.observations import SparseRows
from tests.models.toy import N_FACTORS, N_ITEMS, N_USERS, N_WORDS, toy_model, toy_observations


def trace(model, batch, values):
    conditioned = poutine.condition(model, data=values)
    return poutine.trace(conditioned).get_trace(batch)


def latents():
    torch.manual_seed(3)
    shapes = {"u": N_USERS, "v": N_ITEMS, "z": N_ITEMS}
    return {name: torch.randn(rows, N_FACTORS, dtype=torch.float64) for name, rows in shapes.items()}


def log_normal(x, mean, precision):
    return (0.5 * math.log(precision / (2 * math.pi)) - 0.5 * precision * (x - mean) ** 2).sum()


def by_hand(model, observations, values, lambda_r):
    """log p(R, X, U, V, Z, theta), densely, from the formulas of the paper."""
    u, v, z = values["u"], values["v"], values["z"]
    total = log_normal(u, 0.0, model.lambda_u) + log_normal(v, z, model.lambda_v) + lambda_r * log_normal(z, 0.0, 1.0)
    ratings, confidences = observations.columns.dense(model.ratings.b)
    for i in range(N_USERS):
        for j in range(N_ITEMS):
            c = float(confidences[j, i])
            if c > 0:
                total = total + log_normal(ratings[j, i], u[i] @ v[j], c)
    decoder, x = model.decoder, observations.content.dense()
    h = torch.sigmoid(z @ decoder.inner.weight.T + decoder.inner.bias)
    h = torch.sigmoid(h @ model.encoder.weights[1].T + decoder.biases[0])
    logits = h @ model.encoder.weights[0].T + decoder.output_biases["logits"]
    log_p = logits.log_softmax(-1)
    content = torch.lgamma(x.sum(-1) + 1).sum() - torch.lgamma(x + 1).sum() + (x * log_p).sum()
    weights = [decoder.inner.weight, decoder.inner.bias, decoder.biases[0], decoder.output_biases["logits"]]
    weights += [model.encoder.weights[0], model.encoder.weights[1]]
    return total + lambda_r * content + sum(log_normal(w, 0.0, model.lambda_w) for w in weights)


@pytest.mark.parametrize("lambda_r", [1.0, 0.3])
def test_log_joint_equals_a_dense_hand_computation(lambda_r):
    model, observations, values = toy_model(lambda_r=lambda_r), toy_observations(), latents()
    found = trace(model, observations.batch(torch.arange(N_ITEMS)), values).log_prob_sum()
    torch.testing.assert_close(found, by_hand(model, observations, values, lambda_r), rtol=1e-12, atol=0)


def test_minibatches_over_a_partition_weighted_by_their_share_equal_the_whole():
    model, observations, values = toy_model(), toy_observations(), latents()
    whole = trace(model, observations.batch(torch.arange(N_ITEMS)), values).log_prob_sum()
    parts = 0.0
    for rows in (torch.tensor([8, 1, 5]), torch.tensor([0, 2, 3, 4, 6, 7])):
        batch = observations.batch(rows)
        own = {"u": values["u"], "v": values["v"][batch.items], "z": values["z"][batch.items]}
        parts = parts + len(rows) / N_ITEMS * trace(model, batch, own).log_prob_sum()
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("parametrization", ["centred", "non-centred"])
def test_v_is_v_dagger_plus_z_in_every_trace(parametrization):
    model, observations = toy_model(parametrization=parametrization), toy_observations()
    for rows in (torch.arange(N_ITEMS), torch.tensor([1, 4])):
        sites = poutine.trace(model).get_trace(observations.batch(rows)).nodes
        value = {name: sites[name]["value"] for name in ("v", "v_dagger", "z")}
        torch.testing.assert_close(value["v"], value["v_dagger"] + value["z"], rtol=0, atol=1e-15)
        assert value["v"].shape == (len(rows), N_FACTORS)


def test_both_parametrizations_are_the_same_density():
    observations, values = toy_observations(), latents()
    batch = observations.batch(torch.arange(N_ITEMS))
    torch.manual_seed(0)
    centred = toy_model()
    torch.manual_seed(0)
    other = toy_model(parametrization="non-centred")
    shifted = {"u": values["u"], "z": values["z"], "v_dagger": values["v"] - values["z"]}
    torch.testing.assert_close(
        trace(centred, batch, values).log_prob_sum(), trace(other, batch, shifted).log_prob_sum(), rtol=1e-12, atol=0
    )


def test_prior_predictive_draws_score_themselves():
    model, observations = toy_model(), toy_observations()
    batch = observations.batch(torch.arange(N_ITEMS))
    drawn = poutine.trace(poutine.uncondition(model)).get_trace(batch).nodes
    columns, content = drawn["R"]["value"], drawn["x"]["value"]
    assert len(columns.users) == N_USERS * N_ITEMS
    torch.testing.assert_close(content.totals, batch.content.totals)
    again = dataclasses.replace(batch, columns=columns, content=content)
    assert torch.isfinite(poutine.trace(model).get_trace(again).log_prob_sum())


def test_the_drawn_model_has_the_storys_sites_and_arrows():
    source = draw(toy_model(), toy_observations().batch(torch.arange(2))).source
    arrows = {tuple(line.split()[::2]) for line in source.splitlines() if "->" in line}
    expected = {("z", "x"), ("z", "v"), ("z", "v_dagger"), ("v", "v_dagger"), ("u", "R"), ("v", "R")}
    assert arrows == expected
    assert "label=users" in source and "label=items" in source


def test_tied_weights_are_counted_once_and_the_encoders_own_are_a_penalty():
    model = toy_model()
    own = [model.decoder.inner.weight, model.decoder.inner.bias, *model.decoder.biases, model.encoder.weights[0]]
    own += [model.encoder.weights[1], *model.decoder.output_biases.values()]
    torch.testing.assert_close(
        model.item_prior.log_prior_weights(), sum(log_normal(w, 0.0, model.lambda_w) for w in own)
    )
    rest = [*model.encoder.biases, *model.encoder.loc.parameters(), *model.encoder.log_variance.parameters()]
    torch.testing.assert_close(
        model.item_prior.encoder_penalty(), sum(log_normal(w, 0.0, model.lambda_w) for w in rest)
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("hidden", [(6,), (6, 5), (7, 6, 5)])
def test_networks_of_any_depth(tied, hidden):
    torch.manual_seed(0)
    encoder = MLPEncoder(N_WORDS, N_FACTORS, hidden).double()
    decoder = MLPDecoder(N_WORDS, N_FACTORS, hidden, tied_to=encoder if tied else None).double()
    rows = toy_observations().content
    loc, scale = encoder(rows)
    dense = rows.dense()
    h = dense
    for weight, bias in zip(encoder.weights, encoder.biases, strict=True):
        h = torch.sigmoid(h @ weight + bias)
    torch.testing.assert_close(loc, encoder.loc(h))
    assert (scale > 0).all()
    logits = decoder(loc)["logits"]
    assert logits.shape == (N_ITEMS, N_WORDS)
    some = torch.tensor([3, 0, 11])
    torch.testing.assert_close(decoder(loc, columns=some)["logits"], logits[:, some])
    shared = {id(p) for p in encoder.parameters()} & {id(p) for p in decoder.parameters()}
    assert len(shared) == (len(hidden) if tied else 0)


def test_selecting_rows_keeps_their_entries():
    rows = toy_observations().content
    chosen = torch.tensor([4, 0, 8])
    torch.testing.assert_close(rows.select(chosen).dense(), rows.dense()[chosen])
    assert isinstance(rows.select(chosen), SparseRows)


# --- content from a part of the words --------------------------------------------------------------------------------


def content_site(model, values):
    conditioned = poutine.condition(model.content_only, data=values)
    batch = toy_observations().batch(torch.arange(N_ITEMS))
    return poutine.trace(conditioned).get_trace(batch).nodes["x"]


def subsampled(n_drawn):
    model = toy_model()
    model.content = Multinomial(subsample=n_drawn)
    return model, {"z": latents()["z"]}


def test_training_takes_drawn_words_and_evaluation_all():
    model, values = subsampled(5)
    content, logits = toy_observations().content, model.decoder(values["z"])["logits"]
    whole = model.content.log_prob(content, {"logits": logits})
    seen = set()
    for _ in range(3):
        fn = content_site(model, values)["fn"]
        assert isinstance(fn, SubsampledContent) and fn.batch_shape == (N_ITEMS,) and fn.event_shape == (N_WORDS,)
        drawn = fn.columns
        assert len(set(drawn.tolist())) == 5
        seen.add(tuple(drawn.tolist()))
        stored = {"logits": logits[content.rows, content.columns]}
        by_hand = model.content.log_prob_sampled(content, stored, {"logits": logits[:, drawn]}, N_WORDS)
        torch.testing.assert_close(fn.log_prob(content), by_hand, rtol=1e-12, atol=1e-12)
        assert (by_hand - whole).abs().max() > 0.1
    assert len(seen) == 3, "the words are not drawn anew"
    fn = content_site(model.eval(), values)["fn"]
    assert isinstance(fn, ContentDistribution)
    torch.testing.assert_close(fn.log_prob(content), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lambda_r", [1.0, 0.3])
def test_drawn_words_are_in_the_log_joint_of_the_whole_story(lambda_r):
    model, values = toy_model(lambda_r=lambda_r), latents()
    model.content = Multinomial(subsample=N_WORDS - 1)
    batch = toy_observations().batch(torch.arange(N_ITEMS))
    traced = trace(model, batch, values)
    found = traced.log_prob_sum()
    estimate = traced.nodes["x"]["fn"].log_prob(batch.content).sum()
    exact = model.content.log_prob(batch.content, model.decoder(values["z"])).sum()
    whole = trace(model.eval(), batch, values).log_prob_sum()
    torch.testing.assert_close(found - whole, lambda_r * (estimate - exact), rtol=1e-9, atol=1e-9)
    assert abs(estimate - exact) > 0.01


@pytest.mark.parametrize("n_drawn", [0, N_WORDS, N_WORDS + 1])
def test_as_many_words_as_there_are_is_all_of_them(n_drawn):
    model, values = subsampled(n_drawn)
    before = torch.get_rng_state()
    assert isinstance(content_site(model, values)["fn"], ContentDistribution)
    assert torch.equal(torch.get_rng_state(), before)


def test_content_is_not_drawn_from_a_part_of_the_words():
    model, _ = subsampled(5)
    batch = toy_observations().batch(torch.arange(N_ITEMS))
    with pytest.raises(NotImplementedError, match=r"call model\.eval\(\) first"):
        poutine.uncondition(model)(batch)
    poutine.uncondition(model.eval())(batch)


def test_drawn_words_are_for_the_minibatch_alone():
    model, values = subsampled(5)
    fn = content_site(model, values)["fn"]
    assert fn.expand(fn.batch_shape) is fn
    with pytest.raises(ValueError, match="cannot expand"):
        fn.expand((3,))
