r"""DeepMusic: items lie around what a network makes of their content, learned from the factors that ratings give.

Source: A. van den Oord, S. Dieleman and B. Schrauwen, Deep Content-Based Music Recommendation, NIPS 2013, sections 3
and 5.

For the network
    theta ~ N(0, lambda_w^-1 I)                      weights and biases
For each user i
    u_i ~ N(0, lambda_u^-1 I)
For each item j
    m_j = network(x_j)                               regression on content, which is given
    v_j ~ N(m_j, lambda_v^-1 I)                      latent item
For each user i and item j
    R_ij ~ N(s_ij, C_ij^-1),  s_ij = u_i.v_j         rating, with confidence C_ij as its precision

The fit is coordinate ascent on this density, from a network that says m_j = 0, block by block: weighted matrix
factorisation of the ratings first, then the network is trained on the factors of the rated items, then u and v once
more. It is the :class:`~models.cvae.CVAE` whose z_j is a function of the content and which makes no content.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor, nn

from models.base import FactorModel, ItemPrior
from models.contents import ContentLikelihood
from models.networks import Decoder, Encoder
from models.networks.base import log_normal
from models.networks.making import make_networks
from models.observations import Batch

USUAL = {"tokens": "convolutional"}
"""Networks that are taken where none are named: two convolutions of sequences, as in the paper."""


class Regression(ItemPrior):
    """m_j = W f(x_j) + b, f the encoder's means; W and b are 0 before they are trained, and so is m.

    Parameters: ``decoder`` belongs to the encoder, which it helps to start, and is let go then; ``content`` says which
    contents are read, its density is not asked for; ``lambda_w`` is the precision of the networks' weights.
    """

    site: ClassVar[str] = "m"
    trained: ClassVar[bool] = True
    phases: ClassVar[tuple[str, ...]] = ("ratings", "content")

    def __init__(
        self, n_factors: int, encoder: Encoder, decoder: Decoder, content: ContentLikelihood, lambda_w: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder, self.content, self.lambda_w = encoder, content, lambda_w
        self.outward = nn.Linear(n_factors, n_factors)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)
        self.prior_by_decay = False
        self._to_start = [decoder]  # a list, so that it is none of this module's own

    @classmethod
    def made(cls, n_items: int, form: Any, likelihood: Any, options: Any) -> Regression:
        """The encoder of a pair of networks as the options say, at a random start."""
        networks = make_networks(form, likelihood, options, USUAL)
        return cls(options.factors, *networks, likelihood, options.lambda_w or 1.0)

    def weights(self) -> None:
        """The site theta, as a factor."""
        if not self.prior_by_decay:
            pyro.factor("theta", self.log_prior_weights())

    def forward(self, batch: Batch) -> Tensor:
        """The site m of the minibatch; m."""
        return pyro.deterministic("m", self.outward(self.encoder(batch.inputs)[0]), event_dim=1)

    def encode(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """What the network says, known for certain, (n_items, n_factors) each."""
        m = self.outward(self.encoder(inputs)[0])
        return m, torch.zeros_like(m)

    def start(self, start: Any) -> None:
        """By the pair of networks; m stays 0."""
        for decoder in self._to_start:
            self.encoder.start(decoder.to(self.outward.weight), start)
        self._to_start = []

    def networks(self) -> list[nn.Module]:
        """The encoder and W, b."""
        return [self.encoder, self.outward]

    def log_prior_weights(self) -> Tensor:
        """Log p(theta) of all weights and biases, in nats."""
        return log_normal(nn.ModuleList(self.networks()), self.lambda_w)

    def weight_terms(self) -> dict[str, Tensor]:
        """Log p(theta), in nats."""
        return {"weights": self.log_prior_weights().double()}


class DeepMusic(FactorModel):
    """p(R, U, V, theta | X) of the module's docstring, over a minibatch of items and all users.

    Parameters as of :class:`models.base.FactorModel`.
    """

    has_content: ClassVar[bool] = True
    reads_by: ClassVar[type[ItemPrior]] = Regression
    item_prior: Regression

    def forward(self, batch: Batch) -> None:
        """The generative story; sites theta, u, m, v, v_dagger, R, of which R is observed and m a function."""
        self.item_prior.weights()
        above = self.above()
        with pyro.plate("users", self.n_users):
            u = self.factors_of_users(above)
        with pyro.plate("items", self.n_items, subsample=batch.items):
            m = self.item_prior(batch)
            v = self.factors_of_items(m, batch, above)
            self.ratings_of(u, v, batch)
