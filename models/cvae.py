r"""The Collaborative Variational Autoencoder as one Pyro program: the only statement of the joint density.

Source: X. Li and J. She, Collaborative Variational Autoencoder for Recommender Systems, KDD 2017, section 2.1.

For the generation network
    theta ~ N(0, lambda_w^-1 I)                      weights and biases
For each user i
    u_i ~ N(0, lambda_u^-1 I)
For each item j
    z_j  ~ N(0, I)                                   latent content
    x_j  ~ p_theta(x_j | z_j)                        content, through the generation network
    v†_j ~ N(0, lambda_v^-1 I)                       latent collaborative part
    v_j  = v†_j + z_j                                latent item
For each user i and item j
    R_ij ~ N(s_ij, C_ij^-1),  s_ij = u_i.v_j         rating, with confidence C_ij as its precision

The paper factorises p(V | Z) = prod_j N(v_j; z_j, lambda_v^-1 I): v is drawn and v† = v - z follows. This "centred"
form is the default. "non-centred" draws v† and computes v. The densities are the same, the MAP estimates and the
mean-field posteriors are not.

R may have another likelihood (:mod:`models.ratings`), x too (:mod:`models.contents`), and scores may have biases
(:mod:`models.base`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor

from models.base import FactorModel, ItemPrior
from models.contents import ContentLikelihood
from models.networks import Decoder, Encoder
from models.networks.base import log_normal
from models.networks.making import make_networks
from models.observations import Batch


class VAE(ItemPrior):
    """m_j = z_j: the content of an item as a variational autoencoder.

    Parameters: ``lambda_w`` the precision of the networks' weights; ``lambda_r`` the factor of the content's terms
    log p(x|z) and KL(q(z)||p(z)) (paper, section 3.4; with any value but 1 the objective is no evidence bound). The
    ``encoder`` is the guide's; it lives here because tied weights belong to both networks. While ``prior_by_decay`` is
    true an optimiser's weight decay stands for the gradient of log p(theta), and the site "theta" is left out.
    """

    site: ClassVar[str] = "z"
    drawn: ClassVar[bool] = True
    latent: ClassVar[bool] = True
    trained: ClassVar[bool] = True
    generates: ClassVar[bool] = True

    def __init__(
        self,
        n_factors: int,
        encoder: Encoder,
        decoder: Decoder,
        content: ContentLikelihood,
        lambda_w: float = 1.0,
        lambda_r: float = 1.0,
    ) -> None:
        super().__init__()
        self.n_factors = n_factors
        self.encoder, self.decoder, self.content = encoder, decoder, content
        self.lambda_w, self.lambda_r = lambda_w, lambda_r
        self.prior_by_decay = False

    @classmethod
    def made(cls, n_items: int, form: Any, likelihood: Any, options: Any) -> VAE:
        """Encoder and decoder as the options say, at a random start."""
        o = options
        networks = make_networks(form, likelihood, o)
        return cls(o.factors, *networks, likelihood, lambda_w=o.lambda_w or 1.0, lambda_r=o.lambda_r or 1.0)

    def weights(self) -> None:
        """The site theta, as a factor."""
        if not self.prior_by_decay:
            pyro.factor("theta", self.log_prior_weights())

    def forward(self, batch: Batch) -> Tensor:
        """The sites z and x of the minibatch; z."""
        with poutine.scale(scale=self.lambda_r):
            nothing = next(self.decoder.parameters()).new_zeros(self.n_factors)
            z = pyro.sample("z", dist.Normal(nothing, 1.0).to_event(1))
            x = self.content.conditional(self.decoder, z, batch.content, sampled=self.training)
            pyro.sample("x", x, obs=batch.content)
        return z

    def encode(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z_j | x_j), (n_items, n_factors) each."""
        return self.encoder(inputs)

    def encode_new(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """The same, of an item that was not in the fit; N(0, I), the prior, of one whose contents are blank.

        An encoder has a mean for blank texts too. A ``radius`` makes it as long as any other, so that all users would
        have an item of which nothing is known high in their lists, or low.
        """
        loc, scale = self.encode(inputs)
        blank = inputs.blank.to(loc.device)[:, None]
        return torch.where(blank, 0.0, loc), torch.where(blank, 1.0, scale)

    def guide(self, batch: Batch) -> TorchDistribution:
        """q(z_j | x_j) = N(mu(x_j), diag(sigma(x_j)^2)) by the encoder (paper, section 2.1)."""
        return dist.Normal(*self.encode(batch.inputs)).to_event(1)

    def draw(self, n: int, m: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of N(0, I)."""
        return torch.randn(n, *m.shape, generator=generator, dtype=m.dtype)

    def start(self, start: Any) -> None:
        """By the pair of networks, each part of a product by its own."""
        self.encoder.start(self.decoder, start)

    def log_prior_weights(self) -> Tensor:
        """Log p(theta) = sum over weights and biases of log N(w; 0, 1/lambda_w), tied weights once, in nats."""
        return log_normal(self.decoder, self.lambda_w)

    def encoder_penalty(self) -> Tensor:
        """The same for weights that only the encoder has: a penalty of the fit, no part of p(R, X, U, V, Z)."""
        return log_normal(self.encoder, self.lambda_w, without=self.decoder)

    def weight_terms(self) -> dict[str, Tensor]:
        """Log p(theta) and the encoder's penalty as parts of the objective, in nats."""
        return {"weights": self.log_prior_weights().double(), "penalty": self.encoder_penalty().double()}


class CVAE(FactorModel):
    """p(R, X, U, V, Z, theta) of the module's docstring, over a minibatch of items and all users.

    Parameters as of :class:`models.base.FactorModel`; its ``item_prior`` is a :class:`VAE`.
    """

    has_content: ClassVar[bool] = True
    item_prior: VAE

    def forward(self, batch: Batch) -> None:
        """The generative story; sites theta, u, z, x, v, v_dagger, R, of which x and R are observed."""
        self.item_prior.weights()
        above = self.above()
        with pyro.plate("users", self.n_users):
            u = self.factors_of_users(above)
        with pyro.plate("items", self.n_items, subsample=batch.items):
            z = self.item_prior(batch)
            v = self.factors_of_items(z, batch, above)
            self.ratings_of(u, v, batch)
