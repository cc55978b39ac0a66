r"""The Collaborative Variational Autoencoder as one Pyro program: the only statement of the joint density.

Source: X. Li and J. She, Collaborative Variational Autoencoder for Recommender Systems, KDD 2017, section 2.1.

For each user i
    u_i ~ N(0, lambda_u^-1 I)
For each item j
    z_j  ~ N(0, I)                                   latent content
    v†_j ~ N(0, lambda_v^-1 I)                       latent collaborative part
    v_j  = v†_j + z_j                                latent item
    x_j  ~ p_theta(x_j | z_j)                        content, through the generation network
For each user i and item j
    R_ij ~ N(u_i.v_j, C_ij^-1)                       rating, with confidence C_ij as its precision
For the generation network
    theta ~ N(0, lambda_w^-1 I)                      weights and biases

The paper factorises p(V | Z) = prod_j N(v_j; z_j, lambda_v^-1 I): v is drawn and v† = v - z follows. This "centred"
form is the default. "non-centred" draws v† and computes v. The densities are the same, the MAP estimates and the
mean-field posteriors are not.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from models.contents import ContentDistribution, ContentLikelihood, SubsampledContent
from models.networks import Decoder, Encoder
from models.observations import Batch, SparseRows
from models.ratings import RatingLikelihood

pyro.settings.set(module_local_params=True)  # parameters live in their modules: two models in one notebook are two


class CVAE(PyroModule):
    """p(R, X, U, V, Z, theta) of the module's docstring, over a minibatch of items and all users.

    Parameters: ``lambda_u``, ``lambda_v``, ``lambda_w`` precisions; ``lambda_r`` the factor of the content's terms
    log p(x|z) and KL(q(z)||p(z)) (paper, section 3.4; with any value but 1 the objective is no evidence bound);
    ``parametrization`` "centred" or "non-centred". The ``encoder`` is the guide's; it lives here because tied weights
    belong to both networks. While ``prior_by_decay`` is true an optimiser's weight decay stands for the gradient of
    log p(theta), and the site "theta" is left out.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        n_factors: int,
        encoder: Encoder,
        decoder: Decoder,
        content: ContentLikelihood,
        ratings: RatingLikelihood,
        lambda_u: float = 0.1,
        lambda_v: float = 10.0,
        lambda_w: float = 1.0,
        lambda_r: float = 1.0,
        parametrization: str = "centred",
    ) -> None:
        super().__init__()
        self.prior_by_decay = False
        self.n_users, self.n_items, self.n_factors = n_users, n_items, n_factors
        self.encoder, self.decoder = encoder, decoder
        self.content, self.ratings = content, ratings
        self.lambda_u, self.lambda_v, self.lambda_w, self.lambda_r = lambda_u, lambda_v, lambda_w, lambda_r
        self.parametrization = parametrization

    @property
    def item_site(self) -> str:
        """The item site that is drawn: "v" when centred, "v_dagger" when not."""
        return "v" if self.parametrization == "centred" else "v_dagger"

    def forward(self, batch: Batch) -> None:
        """The generative story; sites theta, u, z, x, v, v_dagger, R, of which x and R are observed."""
        self._weights()
        with pyro.plate("users", self.n_users):
            u = pyro.sample("u", dist.Normal(self._zeros(), self.lambda_u**-0.5).to_event(1))
        with pyro.plate("items", self.n_items, subsample=batch.items):
            z = self._content(batch)
            if self.parametrization == "centred":
                v = pyro.sample("v", dist.Normal(z, self.lambda_v**-0.5).to_event(1))
                pyro.deterministic("v_dagger", v - z, event_dim=1)
            else:
                v_dagger = pyro.sample("v_dagger", dist.Normal(self._zeros(), self.lambda_v**-0.5).to_event(1))
                v = pyro.deterministic("v", v_dagger + z, event_dim=1)
            pyro.sample("R", self.ratings.distribution(u, v, batch.columns), obs=batch.columns)

    def content_only(self, batch: Batch) -> None:
        """The part of the story without ratings, for pre-training: sites theta, z, x."""
        self._weights()
        with pyro.plate("items", self.n_items, subsample=batch.items):
            self._content(batch)

    def _weights(self) -> None:
        if not self.prior_by_decay:
            pyro.factor("theta", self.log_prior_weights())

    def _content(self, batch: Batch) -> Tensor:
        with poutine.scale(scale=self.lambda_r):
            z = pyro.sample("z", dist.Normal(self._zeros(), 1.0).to_event(1))
            pyro.sample("x", self._text(z, batch.content), obs=batch.content)
        return z

    def _text(self, z: Tensor, content: SparseRows) -> ContentDistribution | SubsampledContent:
        """p(x | z); in training mode from words drawn for this step, where the likelihood says so."""
        n_drawn, n_features = self.content.subsample, content.n_columns
        if self.training and 0 < n_drawn < n_features:
            columns = torch.randperm(n_features, device=z.device)[:n_drawn]
            return SubsampledContent(self.content, self.decoder, z, columns, n_features)
        return ContentDistribution(self.content, self.decoder(z), content)

    def _zeros(self) -> Tensor:
        return next(self.decoder.parameters()).new_zeros(self.n_factors)

    def log_prior_weights(self) -> Tensor:
        """Log p(theta) = sum over weights and biases of log N(w; 0, 1/lambda_w), tied weights once, in nats."""
        return _log_normal(self.decoder, self.lambda_w)

    def encoder_penalty(self) -> Tensor:
        """The same for weights that only the encoder has: a penalty of the fit, no part of p(R, X, U, V, Z)."""
        return _log_normal(self.encoder, self.lambda_w, without=self.decoder)


def _log_normal(network: nn.Module, precision: float, without: nn.Module | None = None) -> Tensor:
    others = set() if without is None else set(without.parameters())
    weights = [w for w in network.parameters() if w not in others]
    square = torch.stack([w.square().sum() for w in weights]).sum()
    count = sum(w.numel() for w in weights)
    return 0.5 * (count * math.log(precision / (2 * math.pi)) - precision * square)
