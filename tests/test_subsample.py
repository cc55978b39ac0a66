"""The benchmark of drawn words measures what it says, on a tiny run."""

import itertools

import pytest
import torch

import inference
from benchmarks import subsample
from pyro_cvae.data.simulated import simulated

SMALL = {"factors": 3, "hidden": (8,), "pretrain_epochs": 1, "epochs": 1, "train_per_user": 5, "threads": 1}
SMALL |= {"batch_size": 30, "dtype": "float64"}


@pytest.fixture(scope="module")
def dataset():
    return simulated(n_users=40, n_items=70, n_words=12, n_factors=3)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("method", ["svi", "coordinate"])
@pytest.mark.parametrize("likelihood", ["multinomial", "pseudo-multinomial"])
def test_a_run_is_measured(dataset, tmp_path, capsys, method, likelihood):
    inference.fit(dataset, method=method, content_likelihood=likelihood, out=tmp_path / "run", **SMALL)
    arguments = [str(tmp_path / "run"), "--drawn", "3", "9", "12", "--batches", "2", "--draws", "40", "--turns", "1"]
    rows = subsample.main(arguments)
    assert [row["words"] for row in rows] == ["3", "9", "all"], "as many words as there are is no draw"
    few, many, _ = rows
    assert few["bias, nats an item"] > many["bias, nats an item"] > 0, "a log of a mean is too small"
    assert few["sd of log sum"] > many["sd of log sum"] > -many["bias of log sum"] > 0
    assert all(row["seconds a step"] > 0 for row in rows) and rows[-1]["over all"] == 1
    printed = capsys.readouterr().out
    assert "sd of log sum" in printed and "40 draws, 12 words" in printed and "1 thread(s)" in printed


def test_errors_are_those_over_all_subsets(dataset, failure_rate):
    """Twelve words, two drawn: bias and standard deviation of 66 subsets by hand, and the sum itself unbiased."""
    model, observations, _ = subsample.read(inference.fit(dataset, **SMALL))
    model.encoder.log_variance.bias.data.fill_(-100.0)  # z at the encoder's mean: the clamp leaves e^-6
    (batch,) = [observations.batch(torch.arange(20))]
    n_draws = 4000
    torch.manual_seed(0)
    found = subsample.errors(model, [batch], [2], n_draws)["2"]
    torch.manual_seed(0)
    with torch.no_grad():
        loc, scale = model.encoder(batch.inputs)
        logits = model.decoder(loc + scale * torch.randn_like(loc))["logits"]
    pairs = torch.stack([logits[:, pair].logsumexp(-1) for pair in map(list, itertools.combinations(range(12), 2))])
    log_sum = pairs + torch.log(torch.tensor(6.0)) - logits.logsumexp(-1)
    log_sum, length = log_sum[:, batch.content.totals > 0], batch.content.totals[batch.content.totals > 0]
    bound = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - failure_rate / 6)).item() / n_draws**0.5
    expected = {"bias, nats an item": -log_sum * length, "bias of log sum": log_sum, "bias of sum": log_sum.expm1()}
    for name, error in expected.items():  # all items of a batch share a draw, so that their mean varies as one number
        mean = error.mean(1)
        assert abs(found[name] - mean.mean().item()) < bound * mean.std(correction=0).item(), name
    assert expected["bias of sum"].mean().item() == pytest.approx(0, abs=1e-7)
    for name, error in (("sd, nats an item", log_sum * length), ("sd of log sum", log_sum)):
        assert found[name] == pytest.approx(error.var(0, correction=0).mean().sqrt().item(), rel=0.1), name


def test_timed_steps_leave_the_model_alone_and_train(dataset):
    model, observations, algorithm = subsample.read(inference.fit(dataset, **SMALL))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    timers = subsample.steps(model, algorithm, observations.batch(torch.arange(30)), [4, 0])
    assert list(timers) == ["4", "all"] and all(timer() > 0 for timer in timers.values())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    for name, n_drawn in (("4", 4), ("all", 0)):
        (state,) = timers[name].args[0].args
        assert state.model.content.subsample == n_drawn and state.model.training
        assert all(not torch.equal(before[key], p) for key, p in state.model.named_parameters())


def test_content_without_a_normaliser_is_refused(dataset):
    with pytest.raises(SystemExit, match="Bernoulli content, which has no normaliser"):
        subsample.read(inference.fit(dataset, content_likelihood="bernoulli", **SMALL))
