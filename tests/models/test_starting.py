"""Networks of dense contents start in the units of their heads, which may be logits or logs."""

import pytest
import torch

from models.build import content_likelihood
from models.networks import make_networks
from models.rows import DenseRows
from models.starting import start_mlp


class Options:
    factors, hidden, activation, radius, tied, network = 3, (10,), "tanh", 0.0, False, "mlp"


@pytest.mark.parametrize("name", ["poisson", "negative-binomial", "bernoulli", "normal"])
def test_decoder_of_vectors_starts_half_as_wide_as_the_content(name):
    """Over items a Normal's means vary half as much as x; logs of rates stay moderate however large the counts."""
    torch.manual_seed(0)
    z = torch.randn(400, 3, dtype=torch.float64)
    score = 1.5 * z @ torch.randn(3, 12, dtype=torch.float64)
    x = {
        "poisson": lambda: torch.poisson(score.exp()),
        "negative-binomial": lambda: torch.poisson(score.exp()),
        "bernoulli": lambda: (torch.rand_like(score) < score.sigmoid()).double(),
        "normal": lambda: 100 + 10 * score,
    }[name]()
    rows, likelihood = DenseRows.from_numpy(x.numpy(), torch.float64), content_likelihood(name, {})
    encoder, decoder = (net.double() for net in make_networks(rows.form, likelihood, Options))
    with torch.no_grad():
        start_mlp(encoder, decoder, likelihood, rows, rows, "whitened", 400)
        head = decoder(torch.randn(2000, 3, dtype=torch.float64))[likelihood.param_names[0]]
    if name == "normal":
        wide, known = head.std(0).norm(), 0.5 * x.std(0).norm()
        assert abs(wide / known - 1) < 0.1
    else:
        assert 0.1 < float(head.std(0).mean()) < 2.0
        assert x.std(0).max() > (10 if name != "bernoulli" else 0)
