"""Networks of dense contents start in the units of their heads, which may be logits or logs; of sequences at bags."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.utils.extmath import randomized_svd

from models.build import content_likelihood
from models.contents.multinomial import Multinomial
from models.networks.base import Encoder, Start
from models.networks.making import make_networks
from models.networks.mlp_pair import start_mlp
from models.networks.of_data import leading_directions
from models.networks.product import ProductEncoder
from models.networks.spread import rank
from models.rows import DenseRows, PartRows, SparseRows, TokenRows


class Options:
    factors, hidden, activation, radius, tied, network = 3, (10,), "tanh", 0.0, False, "auto"


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
        start_mlp(encoder, decoder, Start(rows, rows, likelihood, "whitened", 400))
        head = decoder(torch.randn(2000, 3, dtype=torch.float64))[likelihood.param_names[0]]
    if name == "normal":
        wide, known = head.std(0).norm(), 0.5 * x.std(0).norm()
        assert abs(wide / known - 1) < 0.1
    else:
        assert 0.1 < float(head.std(0).mean()) < 2.0
        assert x.std(0).max() > (10 if name != "bernoulli" else 0)


@pytest.mark.parametrize("network", ["recurrent", "convolutional"])
@pytest.mark.parametrize("start", ["whitened", "svd"])
def test_sequences_start_at_the_singular_vectors_of_their_bags(start, network):
    """In svd mu is the bag's truncated SVD at one scale, its directions as wide as they were; not when whitened."""
    torch.manual_seed(0)
    topics = torch.randn(500, 3, dtype=torch.float64) @ torch.randn(3, 30, dtype=torch.float64)
    lists = [torch.multinomial((2 * row).softmax(0), 12, replacement=True).tolist() for row in topics]
    rows, likelihood = TokenRows.from_lists(lists, 30), content_likelihood("tokens", {})
    options = type("Chosen", (Options,), {"network": network})
    encoder, decoder = (net.double() for net in make_networks(rows.form, likelihood, options))
    encoder.start(decoder, Start(rows, rows, likelihood, start, 500))
    with torch.no_grad():
        mu, sigma = encoder(rows)
        logits = decoder(torch.randn(2000, 3, dtype=torch.float64))["logits"]
    assert torch.allclose(sigma, torch.full_like(sigma, 0.5)) and 0.5 < float(logits.std(0).mean()) < 2
    counts = np.array([np.bincount(one, minlength=30) for one in lists])
    tfidf = TfidfTransformer(sublinear_tf=True).fit(counts)
    right = TruncatedSVD(10, algorithm="arpack", random_state=0).fit(tfidf.transform(counts)).components_
    bag = counts * tfidf.idf_ / np.sqrt(12) @ right[:3].T
    likeness = np.abs(np.corrcoef(bag.T, mu.T.numpy())[:3, 3:])
    if start == "svd":
        assert likeness.diagonal() == pytest.approx(np.ones(3), abs=1e-3)
        assert mu.std(0).square().mean().sqrt() == pytest.approx(0.5, rel=1e-6)
        assert (mu.std(0) / mu.std(0)[0]).numpy() == pytest.approx(bag.std(0) / bag.std(0)[0], rel=0.01)
    else:
        assert mu.mean(0).abs().max() < 1e-9 and mu.std(0).numpy() == pytest.approx(np.ones(3))
        assert likeness.max() < 0.9, "mixed"


@pytest.mark.parametrize("hidden", [(30,), (30, 25)])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_what_all_texts_share_is_in_mu_as_their_other_directions_are(hidden, activation):
    """Of 20 directions the first is many times as long as the mean one, and no activation may flatten it."""
    torch.manual_seed(0)
    topics = 0.5 * torch.randn(400, 5, dtype=torch.float64) @ torch.randn(5, 60, dtype=torch.float64)
    topics[:, :10] += 4.0  # words of all texts
    counts = torch.stack([torch.bincount(torch.multinomial(row.softmax(0), 40, True), minlength=60) for row in topics])
    unit = torch.nn.functional.normalize(counts.double().log1p())
    rows, likelihood = SparseRows.from_dense(unit), Multinomial()
    options = type("Chosen", (Options,), {"factors": 20, "hidden": hidden, "activation": activation})
    encoder, decoder = (net.double() for net in make_networks(rows.form, likelihood, options))
    with torch.no_grad():
        start_mlp(encoder, decoder, Start(rows, rows, likelihood, "svd", 400))
        mu = encoder(rows)[0]
    singular, right = torch.linalg.svd(unit, full_matrices=False)[1:]
    assert singular[0] > 3 * singular[:20].square().mean().sqrt()
    lengths = mu.square().sum(0).sqrt()[:5] / singular[:5]
    assert (lengths / lengths.mean() - 1).abs().max() < 0.06, lengths
    ratio = mu[:, 0] / (unit @ right[0])
    assert ratio.std() < 0.05 * ratio.mean().abs()


def test_an_expert_without_a_linear_layer_of_means_is_not_turned():
    """A stranger's encoder of one of several contents need not call a layer ``loc``; the others are turned to it."""

    class Squared(Encoder):
        reads = ("vectors",)

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.eye(3, dtype=torch.float64))

        def forward(self, content):
            loc = content.dense() @ self.weight
            return loc, torch.ones_like(loc)

    class Linear(Squared):
        def __init__(self, turned):
            super().__init__()
            self.loc = torch.nn.Linear(3, 3, bias=False, dtype=torch.float64)
            self.loc.weight.data = turned.clone()

        def forward(self, content):
            loc = self.loc(content.dense())
            return loc, torch.ones_like(loc)

    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    rows = DenseRows.from_numpy(torch.randn(50, 3).double().numpy(), torch.float64)
    inputs = PartRows({"a": rows, "b": rows}, {name: torch.ones(50, dtype=torch.bool) for name in "ab"})
    for experts, turned in (
        ({"a": Squared(), "b": Linear(rotation)}, True),
        ({"a": Linear(rotation), "b": Squared()}, False),
    ):
        ProductEncoder(experts, 3).align(inputs)
        assert torch.allclose(experts["a"](rows)[0], experts["b"](rows)[0]) == turned


@pytest.mark.parametrize("shape", [(90, 40), (40, 90)])
@pytest.mark.parametrize("rank_is", [5, 40])
def test_leading_directions_are_those_of_a_randomized_svd(shape, rank_is):
    """Against scikit-learn's: singular values, directions and their signs, of tall, wide, sparse and poor matrices."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((shape[0], rank_is)) @ rng.standard_normal((rank_is, shape[1]))
    for matrix in (dense, sparse.csr_matrix(dense)):
        _, wanted, right = randomized_svd(matrix, 8, n_iter=1, random_state=3)
        singular, found = leading_directions(matrix, 8, 1, 3)
        there = min(8, rank_is)
        assert rank(singular) == there
        assert np.allclose(singular[:there], wanted[:there], rtol=1e-10)
        assert np.allclose(found[:there], right[:there], atol=1e-8)
        assert np.isfinite(found).all()
