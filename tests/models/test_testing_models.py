"""The kit takes right models and pairs of networks, and names what is wrong with planted ones."""

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from models.base import ItemPrior
from models.catalogue import NETWORKS
from models.cvae import CVAE, VAE
from models.networks.making import pair_class
from models.networks.mlp import MLPDecoder, MLPEncoder
from models.networks.mlp_pair import MLPPair
from models.pmf import PMF
from models.priors import NormalPrior
from models.testing import check_model, check_network
from pyro_cvae.data.simulated import simulated_gaussian
from tests.models import own_models


def grouped():
    """Users whose ids begin with a country."""
    data = simulated_gaussian(n_users=8, n_items=9, n_words=12, n_factors=3)
    return replace(data, user_ids=np.array([f"{'de' if i % 3 else 'fr'}-{i}" for i in range(8)], object))


@pytest.mark.parametrize("model", [CVAE, PMF, own_models.StatedMean, own_models.ShiftedItems])
def test_right_models(model):
    check_model(model)


@pytest.mark.parametrize("model", [own_models.GroupedPMF, own_models.GroupedCVAE, own_models.LaplaceGroups])
def test_right_models_with_sites_above(model):
    check_model(model, dataset=grouped(), lambda_g=2.0)


class OldPrecision(PMF):
    """Reads lambda_u once."""

    def prior_of_users(self, above=None):
        if not hasattr(self, "first"):
            self.first = self.lambda_u
        return NormalPrior(self._zeros(self.width), self.first)


class Narrow(PMF):
    """Forgets the bias."""

    def prior_of_users(self, above=None):
        return NormalPrior(self._zeros(self.n_factors), self.lambda_u)


class Unsaved(PMF):
    """Draws its prior mean anew in every process."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.centre = torch.randn(self.width)

    def prior_of_users(self, above=None):
        return NormalPrior(self.centre.to(self._zeros(1)), self.lambda_u)


class ItemsOutside(PMF):
    """Draws v outside of the plate."""

    def forward(self, batch):
        with pyro.plate("users", self.n_users):
            u = self.factors_of_users()
        loc = torch.zeros(len(batch.items), self.width)
        v = pyro.sample("v", dist.Normal(loc, self.lambda_v**-0.5).to_event(2))
        with pyro.plate("items", self.n_items, subsample=batch.items):
            self.ratings_of(u, v, batch)


class MissesItsSite(CVAE):
    """Says that m is drawn, and draws nothing."""

    class Prior(VAE):
        def forward(self, batch):
            return self.encode(batch.inputs)[0]

    def __init__(self, n_users, n_items, n_factors, item_prior, ratings, **options):
        own = self.Prior(n_factors, item_prior.encoder, item_prior.decoder, item_prior.content)
        super().__init__(n_users, n_items, n_factors, own, ratings, **options)


class NamesNetworks(CVAE):
    """Takes the networks one by one, which are in the item prior."""

    def __init__(self, n_users, n_items, n_factors, encoder, decoder, content, ratings, **options):
        super().__init__(n_users, n_items, n_factors, VAE(n_factors, encoder, decoder, content), ratings, **options)


class Certain(PMF):
    """An item prior that is uncertain of what it does not draw."""

    class Prior(ItemPrior):
        def forward(self, batch):
            return torch.zeros(len(batch.items), 3)

        def encode(self, inputs):
            return torch.zeros(len(inputs), 3), torch.ones(len(inputs), 3)

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.item_prior = self.Prior()


class OtherRatings(PMF):
    """R at twice the score."""

    def forward(self, batch):
        with pyro.plate("users", self.n_users):
            u = self.factors_of_users()
        with pyro.plate("items", self.n_items, subsample=batch.items):
            v = self.factors_of_items(self.item_prior(batch), batch)
            self.ratings_of(2 * u, v, batch)


PLANTED = [
    (own_models.HiddenMean, "draws u from another prior than prior_of_users"),
    (own_models.HiddenSite, "draws scale outside of above"),
    (own_models.NoPlate, "draws u outside of the plate users"),
    (own_models.Twice, "does not move one to one with m"),
    (own_models.OtherPrecision, "whose precision is not the model's lambda_u"),
    (OldPrecision, "prior_of_users keeps an old precision"),
    (Narrow, "its story fails"),
    (Unsaved, "of a copy with its parameters and buffers is another"),
    (ItemsOutside, "draws v outside of the plate items"),
    (MissesItsSite, "has no site z"),
    (NamesNetworks, "cannot be built .*missing 2 required positional arguments"),
    (Certain, "is uncertain of an m that the story does not draw"),
    (OtherRatings, "observes R from another distribution"),
]


@pytest.mark.parametrize(("model", "words"), PLANTED, ids=[model.__name__ for model, _ in PLANTED])
def test_planted_mistakes(model, words):
    with pytest.raises(AssertionError, match=words):
        check_model(model)


def test_what_is_no_model_or_pair():
    with pytest.raises(AssertionError, match=r"derive it from models\.FactorModel"):
        check_model(nn.Linear)
    with pytest.raises(AssertionError, match=r"derive it from models\.networks\.NetworkPair"):
        check_network(nn.Linear)


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_packages_own_pairs(name):
    check_network(pair_class(name))


class Attention(MLPPair):
    """A pair of one's own with an argument: features are weighted before the perceptron reads them."""

    reads = ("words",)

    class Reader(MLPEncoder):
        reads = ("words",)

        def __init__(self, *args, sharpness):
            super().__init__(*args)
            self.attention = nn.Parameter(torch.zeros(self.weights[0].shape[0], 1))
            self.sharpness = sharpness

        def hidden(self, content):
            table = self.weights[0] * torch.sigmoid(self.sharpness * self.attention)
            h = self.activation(content.bag(table) + self.biases[0])
            for weight, bias in zip(list(self.weights)[1:], list(self.biases)[1:], strict=True):
                h = self.activation(h @ weight + bias)
            return h

    def __init__(self, sharpness: float = 1.0):
        self.sharpness = sharpness

    def make(self, form, heads, options):
        o = options
        sizes = form.n_features, o.factors, o.hidden, o.activation, o.radius
        encoder = self.Reader(*sizes, sharpness=self.sharpness)
        return encoder, MLPDecoder(form.n_features, o.factors, o.hidden, o.activation, heads)


class Batched(Attention):
    """Batch statistics: what is said of an item depends on the others."""

    class Reader(Attention.Reader):
        def forward(self, content):
            loc, scale = super().forward(content)
            return loc - loc.mean(0), scale


class Negative(Attention):
    class Reader(Attention.Reader):
        def forward(self, content):
            loc, scale = super().forward(content)
            return loc, -scale


class Idle(Attention):
    class Reader(Attention.Reader):
        def hidden(self, content):
            return MLPEncoder.hidden(self, content)


class Headless(Attention):
    def make(self, form, heads, options):
        return super().make(form, ("something",), options)


class Wandering(Attention):
    def start(self, encoder, *others):
        encoder.loc.bias.copy_(torch.as_tensor(np.random.default_rng().normal(size=len(encoder.loc.bias))))


class Older(Attention):
    def start(self, encoder, decoder, likelihood, content, inputs, how, sample):
        encoder.loc.bias.zero_()


def test_a_pair_of_ones_own():
    check_network(Attention, sharpness=2.0)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (Batched, "depends on the items beside it"),
        (Negative, "a standard deviation is 0 or less"),
        (Idle, "no finite gradient reaches attention"),
        (Headless, "its decoder has the heads something"),
        (Wandering, "start is another with the same random state"),
        (Older, "its start fails .*take encoder, decoder and a Start"),
    ],
)
def test_planted_mistakes_of_networks(pair, words):
    with pytest.raises(AssertionError, match=words):
        check_network(pair)
