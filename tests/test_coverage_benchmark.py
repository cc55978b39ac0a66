"""The simulator's own decoder, as benchmarks.coverage puts it into a fit."""

import numpy as np
import torch
from scipy import special, stats

from benchmarks.coverage import Known, covered, with_decoder
from inference.algorithms.mcmc import MCMC
from pyro_cvae.data.simulated import gaussian_decoder, simulated_gaussian


def counts_off(counts, z, decoder):
    """P(chi-square of the words' totals is as large) if texts are drawn at softmax(W z + bias)."""
    weights, bias = decoder
    expected = (counts.sum(1)[:, None] * special.softmax(z @ weights.T + bias, axis=1)).sum(0)
    return stats.chi2.sf(((counts.sum(0) - expected) ** 2 / expected).sum(), len(expected) - 1)


def test_texts_are_draws_of_the_decoder():
    dataset = simulated_gaussian(3)
    counts, z = np.asarray(dataset.content.counts.todense()), dataset.truth["z"]
    assert counts_off(counts, z, gaussian_decoder(3)) > 1e-3
    assert counts_off(counts, z, gaussian_decoder(4)) < 1e-10


def test_the_decoder_of_a_fit_is_the_one_given():
    weights, bias = gaussian_decoder(3)
    known, z = Known(weights, bias).double(), torch.randn(6, 5, dtype=torch.float64)
    wanted = z @ torch.as_tensor(weights).mT + torch.as_tensor(bias)
    torch.testing.assert_close(known(z)["logits"], wanted, rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in known.parameters())
    assert issubclass(with_decoder((weights, bias)), MCMC)


def test_shares_are_of_intervals_of_growing_level(monkeypatch):
    from benchmarks import coverage

    short = {"pretrain_epochs": 1, "warmup": 2, "draws": 10, "chains": 1}
    monkeypatch.setattr(coverage, "OPTIONS", coverage.OPTIONS | short)
    shares = covered(0, known=True)
    assert 0 < shares[0] < shares[1] < shares[2] < 1
