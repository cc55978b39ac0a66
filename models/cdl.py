r"""Collaborative deep learning: items lie around the code that a denoising autoencoder makes of their content.

Source: H. Wang, N. Wang and D.-Y. Yeung, Collaborative Deep Learning for Recommender Systems, KDD 2015, sections 3.2,
3.3, with lambda_s infinite, as the authors take it: layers are functions of those before them.

For the networks
    theta ~ N(0, lambda_w^-1 I)                      weights and biases of encoder and decoder
For each user i
    u_i ~ N(0, lambda_u^-1 I)
For each item j
    y_j = x_j with each word lost with probability   corrupted content, which is given
          ``noise``
    m_j = encoder(y_j)                               code
    x_j ~ p_theta(x_j | m_j)                         clean content, through the decoder
    v_j ~ N(m_j, lambda_v^-1 I)                      latent item
For each user i and item j
    R_ij ~ N(s_ij, C_ij^-1),  s_ij = u_i.v_j         rating, with confidence C_ij as its precision

In the paper p(x | m) is N(decoder(m), lambda_n^-1 I): ``--content-likelihood normal --content-likelihood.lambda_x
1000``. It is the :class:`~models.cvae.CVAE` whose z_j is a function of the content and not drawn.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyro
import torch
from pyro import poutine
from torch import Tensor

from models.base import FactorModel, ItemPrior
from models.contents import ContentLikelihood
from models.corruption import corrupt
from models.networks import Decoder, Encoder
from models.networks.base import log_normal
from models.networks.making import make_networks
from models.observations import Batch


class Autoencoder(ItemPrior):
    """m_j: the code of a denoising autoencoder of an item's content.

    Parameters: ``noise`` the share of the content that the encoder is not shown while it is trained; ``lambda_w`` the
    precision of the networks' weights; ``lambda_r`` the factor of log p(x | m). Of the encoder its means are the code.
    """

    site: ClassVar[str] = "m"
    trained: ClassVar[bool] = True
    generates: ClassVar[bool] = True

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        content: ContentLikelihood,
        noise: float = 0.3,
        lambda_w: float = 1.0,
        lambda_r: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.content = encoder, decoder, content
        self.noise, self.lambda_w, self.lambda_r = noise, lambda_w, lambda_r
        self.prior_by_decay = False

    @classmethod
    def made(cls, n_items: int, form: Any, likelihood: Any, options: Any) -> Autoencoder:
        """Encoder and decoder as the options say, at a random start."""
        networks = make_networks(form, likelihood, options)
        return cls(*networks, likelihood, lambda_w=options.lambda_w or 1.0, lambda_r=options.lambda_r or 1.0)

    def weights(self) -> None:
        """The site theta, as a factor."""
        if not self.prior_by_decay:
            pyro.factor("theta", self.log_prior_weights())

    def forward(self, batch: Batch) -> Tensor:
        """The sites m and x of the minibatch; m."""
        corrupted = corrupt(batch.inputs, self.noise) if self.training else batch.inputs
        m = pyro.deterministic("m", self.encoder(corrupted)[0], event_dim=1)
        with poutine.scale(scale=self.lambda_r):
            x = self.content.conditional(self.decoder, m, batch.content, sampled=self.training)
            pyro.sample("x", x, obs=batch.content)
        return m

    def encode(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """The code of the whole content, known for certain, (n_items, n_factors) each."""
        m = self.encoder(inputs)[0]
        return m, torch.zeros_like(m)

    def start(self, start: Any) -> None:
        """By the pair of networks, each part of a product by its own."""
        self.encoder.start(self.decoder, start)

    def log_prior_weights(self) -> Tensor:
        """Log p(theta) of all weights and biases of both networks, tied weights once, in nats."""
        return log_normal(self.decoder, self.lambda_w) + log_normal(self.encoder, self.lambda_w, without=self.decoder)

    def weight_terms(self) -> dict[str, Tensor]:
        """Log p(theta), in nats."""
        return {"weights": self.log_prior_weights().double()}


class CDL(FactorModel):
    """p(R, X, U, V, theta) of the module's docstring, over a minibatch of items and all users.

    Parameters as of :class:`models.base.FactorModel`; ``noise`` is the share of the content that is lost in training.
    """

    has_content: ClassVar[bool] = True
    reads_by: ClassVar[type[ItemPrior]] = Autoencoder
    item_prior: Autoencoder

    def __init__(self, *sizes: Any, noise: float = 0.3, **options: Any) -> None:
        super().__init__(*sizes, **options)
        if not 0 <= noise < 1:
            raise ValueError(f"noise is {noise:g}, but it must be at least 0 and below 1")
        self.item_prior.noise = noise

    def forward(self, batch: Batch) -> None:
        """The generative story; sites theta, u, m, x, v, v_dagger, R, of which x and R are observed, m a function."""
        self.item_prior.weights()
        above = self.above()
        with pyro.plate("users", self.n_users):
            u = self.factors_of_users(above)
        with pyro.plate("items", self.n_items, subsample=batch.items):
            m = self.item_prior(batch)
            v = self.factors_of_items(m, batch, above)
            self.ratings_of(u, v, batch)
