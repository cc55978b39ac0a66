"""An epoch of the networks: what Adam is given, what is reported, and that nothing of it stays behind."""

import pytest
import torch

from inference.algorithms.coordinate import Coordinate
from inference.algorithms.elbo import NamedELBO
from inference.algorithms.networks import hide_tokens
from inference.algorithms.svi import SVI
from inference.options import Options
from models.rows import MASKED, PartRows, SparseRows, TokenRows
from tests.models.toy import N_FACTORS, N_ITEMS, toy_model, toy_observations

TOY = {"factors": N_FACTORS, "pretrain_epochs": 1, "epochs": 2, "batch_size": N_ITEMS, "dtype": "float64"}
METHODS = {"svi": SVI, "coordinate": Coordinate}


def toy(method, joint, **changes):
    """A fit of the toy in one minibatch, before an epoch on the content alone or on everything."""
    options = Options.of(method, **TOY | {"lambda_w": 0.5})
    inference = METHODS[method](lambda: toy_model(**changes), toy_observations(), options)
    torch.manual_seed(0)
    state = inference.init()
    with torch.no_grad():  # away from the start, where some gradients are 0
        for parameter in state.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    if joint:
        state, _ = inference.step(state)
        state = inference.joint(state)
        if method == "coordinate":
            inference._first_sweeps(state)
    torch.manual_seed(1)
    return inference, state


def gradients_of_the_whole_objective(inference, state):
    """By plain autograd with log p(theta) and the encoder's penalty in it, at the draws that the epoch will make."""
    torch.manual_seed(1)
    (batch,) = inference.observations.partition(N_ITEMS)
    elbo = NamedELBO()
    terms = inference.terms(elbo, state, batch)
    assert {"weights", "penalty"} <= terms.keys()
    loss = -elbo.objective(terms) / N_ITEMS
    parameters = list(state.model.parameters())
    found = torch.autograd.grad(loss, parameters)
    torch.manual_seed(1)
    return dict(zip(parameters, found, strict=True))


CASES = pytest.mark.parametrize(
    ("method", "joint", "tied"),
    [(method, joint, tied) for method in METHODS for joint in (False, True) for tied in (True, False)],
)


@CASES
def test_weight_decay_is_the_gradient_of_the_log_prior_of_every_weight_once(method, joint, tied):
    inference, state = toy(method, joint, tied=tied, lambda_w=0.7)
    networks = set(state.model.parameters())
    assert len(networks) == 14 - 2 * tied
    wanted = gradients_of_the_whole_objective(inference, state)
    decays = {}
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            assert parameter not in decays
            decays[parameter] = group["weight_decay"]
    assert networks <= decays.keys()
    assert not any(decays[parameter] for parameter in decays.keys() - networks), "the factors have priors of their own"
    given = {}
    state.optimizer.step = lambda: given.update({p: p.grad.clone() for p in networks})
    inference.epoch(state)
    for parameter in networks:
        assert decays[parameter] == 0.7 / N_ITEMS
        with_decay = given[parameter] + decays[parameter] * parameter.detach()
        torch.testing.assert_close(with_decay, wanted[parameter], rtol=1e-10, atol=1e-12)


@CASES
def test_the_epochs_step_is_adams_with_the_whole_gradient(method, joint, tied):
    """Coupled weight decay, not AdamW's, and at the size of step that the options say."""
    inference, state = toy(method, joint, tied=tied)
    gradients = gradients_of_the_whole_objective(inference, state)
    twins = [parameter.detach().clone() for parameter in gradients]
    for twin, gradient in zip(twins, gradients.values(), strict=True):
        twin.grad = gradient
    fit = inference.options.fit
    torch.optim.Adam(twins, lr=fit.learning_rate if joint else fit.pretrain_learning_rate).step()
    before = [parameter.detach().clone() for parameter in gradients]
    inference.epoch(state)
    for parameter, twin, old in zip(gradients, twins, before, strict=True):
        assert not torch.equal(parameter, old)
        torch.testing.assert_close(parameter.detach(), twin, rtol=1e-9, atol=1e-9)


@CASES
def test_the_prior_is_reported_at_the_end_of_the_epoch_and_the_model_is_left_whole(method, joint, tied):
    inference, state = toy(method, joint, tied=tied)
    seen = []
    terms = inference.terms

    def spy(elbo, state, batch):
        found = terms(elbo, state, batch)
        seen.append((state.model.item_prior.prior_by_decay, set(found)))
        return found

    inference.terms = spy
    sums, _ = inference.epoch(state)
    assert [by_decay for by_decay, _ in seen] == [True]
    assert not seen[0][1] & {"weights", "penalty"}
    assert state.model.item_prior.prior_by_decay is False
    assert sums["weights"] == state.model.item_prior.log_prior_weights().item()
    assert sums["penalty"] == state.model.item_prior.encoder_penalty().item()
    (batch,) = inference.observations.partition(N_ITEMS)
    assert set(terms(NamedELBO(), state, batch)) == set(sums)


def test_an_epoch_hides_tokens_from_the_decoder_at_the_rate_that_is_asked():
    """Within four standard errors of 5,000 tokens; what is to be predicted, and other contents, stay."""
    rows = TokenRows.from_lists([[1, 2] * 500] * 5, 3)
    words = SparseRows.from_dense(torch.ones(5, 2))
    every = torch.ones(5, dtype=torch.bool)
    both = PartRows({"t": rows, "w": words}, {"t": every, "w": every})
    for rate in (0.1, 0.5):
        alone, part = hide_tokens(rows, rate), hide_tokens(both, rate).parts["t"]
        for found in (alone, part):
            hidden = found.told == MASKED
            assert abs(float(hidden.double().mean()) - rate) < 4 * (rate * (1 - rate) / 5000) ** 0.5
            assert torch.equal(found.tokens, rows.tokens)
    assert hide_tokens(words, 0.5) is words and hide_tokens(both, 0.5).parts["w"] is words
