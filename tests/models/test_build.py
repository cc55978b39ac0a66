"""Networks started from the data: what mu is before any training, and that it stays alive."""

import numpy as np
import pytest
import torch

from inference.algorithms.networks import encode
from inference.algorithms.svi import SVI
from inference.options import Options
from inference.posterior import content_diagnostics
from models.build import content_likelihood, make_model, observe
from pyro_cvae.data import splits
from pyro_cvae.data.registry import load_dataset

N_FACTORS = 8


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("simulated")


def started(dataset, **options):
    """A fit in float64 before its first step, and its state."""
    chosen = Options.of(**{"factors": N_FACTORS, "dtype": "float64", "activation": "tanh"} | options)
    likelihood = content_likelihood(chosen.model.content_likelihood, chosen.model.content_likelihood_args)
    observations, _ = observe(dataset, splits.make_split(dataset, chosen.data), likelihood, chosen.model, "auto")
    sizes = (dataset.n_users, dataset.n_items, dataset.n_features)
    svi = SVI(lambda: make_model(*sizes, likelihood, chosen.model).double(), observations, chosen)
    torch.manual_seed(0)
    return svi, svi.init()


def projections(svi, n_components=N_FACTORS):
    """The encoder's inputs, dense, and their exact truncated SVD, (n_items, n_components)."""
    x = svi.observations.inputs.dense().numpy()
    return x, x @ np.linalg.svd(x, full_matrices=False)[2][:n_components].T


def cosines(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(rows), 1)]


@pytest.mark.parametrize("radius", [0.0, 3.0])
@pytest.mark.parametrize("hidden", [(200,), (200, 100)])
def test_svd_hands_singular_vectors_on_at_one_scale(dataset, hidden, radius):
    """All behind the table is a multiple of the identity, so that where tanh is linear mu is the SVD of the texts."""
    svi, state = started(dataset, start="svd", hidden=hidden, radius=radius)
    encoder = state.model.encoder
    whole = encoder.weights[0]
    for weight in [*list(encoder.weights)[1:], encoder.loc.weight.mT]:
        assert weight.diagonal().min() > 0
        torch.testing.assert_close(weight, torch.zeros_like(weight).fill_diagonal_(weight[0, 0].item()))
        whole = whole @ weight
    for bias in (*encoder.biases, encoder.loc.bias):
        assert not bias.any()
    whole = whole.detach().numpy()
    square = whole.T @ whole
    np.testing.assert_allclose(square / square[0, 0], np.eye(N_FACTORS), rtol=0, atol=1e-10)

    x, exact = projections(svi)
    captured = np.linalg.norm(x @ whole) ** 2 / square[0, 0]  # at most what the exact SVD captures
    assert 0.99 * np.square(exact).sum() < captured <= np.square(exact).sum() * (1 + 1e-12)
    mu, scale = encode(state.model, svi.observations)
    assert np.corrcoef(cosines(mu.numpy()), cosines(exact))[0, 1] > 0.93  # tanh bends it a little
    torch.testing.assert_close(scale, torch.full_like(scale, 0.5), rtol=1e-7, atol=0)
    if radius:
        torch.testing.assert_close(mu.norm(dim=-1), torch.full_like(mu[:, 0], radius), rtol=1e-12, atol=0)


def test_where_tanh_is_linear_svd_is_the_truncated_svd_itself(dataset):
    """Texts a hundred times shorter: the cosines of mu are the table's, and nearly the exact SVD's."""
    svi, state = started(dataset, start="svd", hidden=(200, 100))
    table = state.model.encoder.weights[0]
    with torch.no_grad():
        table.div_(100)
    mu, _ = encode(state.model, svi.observations)
    x, exact = projections(svi)
    found = cosines(mu.numpy())
    np.testing.assert_allclose(found, cosines(x @ table.detach().numpy()[:, :N_FACTORS]), rtol=0, atol=1e-3)
    assert np.corrcoef(found, cosines(exact))[0, 1] > 0.999


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_whitened_means_have_mean_0_and_variance_1_and_so_has_every_layer(dataset, activation):
    svi, state = started(dataset, hidden=(20, 12), activation=activation)
    encoder = state.model.encoder
    mu, scale = encode(state.model, svi.observations)
    h = svi.observations.inputs.dense()
    layers = [*zip(encoder.weights, encoder.biases, strict=True), (encoder.loc.weight.mT, encoder.loc.bias)]
    for weight, bias in layers:
        pre = h @ weight + bias
        torch.testing.assert_close(pre.mean(0), torch.zeros_like(bias), rtol=0, atol=1e-9)
        torch.testing.assert_close(pre.std(0), torch.ones_like(bias), rtol=1e-9, atol=0)
        h = encoder.activation(pre)
    torch.testing.assert_close(pre, mu, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scale, torch.full_like(scale, 0.5), rtol=1e-7, atol=0)


@pytest.mark.parametrize("start", ["whitened", "svd"])
def test_the_optimiser_holds_the_started_parameters(dataset, start):
    _, state = started(dataset, start=start, hidden=(20, 12))
    held = [p for group in state.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in state.model.parameters()}
    assert len(held) == len(list(state.model.parameters()))


@pytest.mark.parametrize("start", ["whitened", "svd"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_decoder_starts_at_the_frequencies_of_the_words(dataset, start, tied):
    svi, state = started(dataset, start=start, hidden=(20, 12), tied=tied)
    torch.manual_seed(1)
    with torch.no_grad():
        p = state.model.decoder(torch.randn(4000, N_FACTORS, dtype=torch.float64))["logits"]
    content = svi.observations.content
    frequency = torch.zeros(content.n_columns, dtype=torch.float64).index_add(0, content.columns, content.values) + 0.1
    expected = (frequency / frequency.sum()).log()
    found = p.mean(0) - p.mean(0).logsumexp(0)
    assert np.corrcoef(found, expected)[0, 1] > 0.99


@pytest.mark.parametrize("start", ["whitened", "svd"])
def test_nearly_every_unit_is_active_at_the_start(dataset, start):
    """20 or 19 are, at any of 20 seeds; after pre-training several seeds are asked in tests/test_floors.py."""
    svi, state = started(dataset, start=start, activation="tanh", factors=20, hidden=(40, 30))
    assert content_diagnostics(*encode(state.model, svi.observations))["active_units"] >= 15
