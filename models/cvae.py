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
    R_ij ~ N(s_ij, C_ij^-1),  s_ij = u_i.v_j         rating, with confidence C_ij as its precision
For the generation network
    theta ~ N(0, lambda_w^-1 I)                      weights and biases

The paper factorises p(V | Z) = prod_j N(v_j; z_j, lambda_v^-1 I): v is drawn and v† = v - z follows. This "centred"
form is the default. "non-centred" draws v† and computes v. The densities are the same, the MAP estimates and the
mean-field posteriors are not.

R may have another likelihood (:mod:`models.ratings`), x too (:mod:`models.contents`). With biases,

    b_i ~ N(0, lambda_b^-1),  c_j ~ N(m, lambda_b^-1)        biases of users and items, m the global mean
    s_ij = u_i.v_j + b_i + c_j

u_i and v_j have one coordinate more, b_i / kappa_u and c_j / kappa_v with kappa_u^2 = lambda_u / lambda_b and
kappa_v^2 = lambda_v / lambda_b, so that all coordinates of a row have the same prior precision.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from models.contents import ContentLikelihood
from models.networks import Decoder, Encoder
from models.observations import Batch
from models.ratings import RatingLikelihood

pyro.settings.set(module_local_params=True)  # parameters live in their modules: two models in one notebook are two


class CVAE(PyroModule):
    """p(R, X, U, V, Z, theta) of the module's docstring, over a minibatch of items and all users.

    Parameters: ``lambda_u``, ``lambda_v``, ``lambda_w`` precisions; ``lambda_r`` the factor of the content's terms
    log p(x|z) and KL(q(z)||p(z)) (paper, section 3.4; with any value but 1 the objective is no evidence bound);
    ``parametrization`` "centred" or "non-centred". The ``encoder`` is the guide's; it lives here because tied weights
    belong to both networks. ``to_find`` names precisions that are not given. With ``lambda_b`` there are biases, and
    ``mean`` is the parameter m. While ``prior_by_decay`` is true an optimiser's weight decay stands for the gradient of
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
        lambda_b: float | None = None,
    ) -> None:
        super().__init__()
        self.prior_by_decay = False
        self.kappa_u, self.kappa_v = (
            (1.0 if lambda_b is None else (own / lambda_b) ** 0.5) for own in (lambda_u, lambda_v)
        )
        self.mean = None if lambda_b is None else nn.Parameter(torch.zeros(()))
        self.n_users, self.n_items, self.n_factors = n_users, n_items, n_factors
        self.encoder, self.decoder = encoder, decoder
        self.content, self.ratings = content, ratings
        self.lambda_u, self.lambda_v, self.lambda_w, self.lambda_r = lambda_u, lambda_v, lambda_w, lambda_r
        self.parametrization = parametrization
        self.to_find: tuple[str, ...] = ()

    def precisions(self) -> dict[str, float]:
        """lambda_u, lambda_v and, with biases, kappa_u and kappa_v as they are now: given, found or learned."""
        names = ("lambda_u", "lambda_v", *(("kappa_u", "kappa_v") if self.mean is not None else ()))
        return {name: float(getattr(self, name)) for name in names}

    def set_precisions(self, lambda_u: float, lambda_v: float, lambda_b: float) -> None:
        """Other precisions of the priors; ``lambda_b`` counts where there are biases."""
        self.lambda_u, self.lambda_v = lambda_u, lambda_v
        if self.mean is not None:
            self.kappa_u, self.kappa_v = ((own / lambda_b) ** 0.5 for own in (lambda_u, lambda_v))

    @property
    def lambda_b(self) -> float:
        """Precision of the users' biases, which kappa_u holds; 1 where there are none."""
        return self.lambda_u / self.kappa_u**2

    @property
    def item_site(self) -> str:
        """The item site that is drawn: "v" when centred, "v_dagger" when not."""
        return "v" if self.parametrization == "centred" else "v_dagger"

    def forward(self, batch: Batch) -> None:
        """The generative story; sites theta, u, z, x, v, v_dagger, R, of which x and R are observed."""
        self._weights()
        with pyro.plate("users", self.n_users):
            u = pyro.sample("u", dist.Normal(self._zeros(self.width), self.lambda_u**-0.5).to_event(1))
        with pyro.plate("items", self.n_items, subsample=batch.items):
            around = self.prior_of_items(self._content(batch))
            if self.parametrization == "centred":
                v = pyro.sample("v", dist.Normal(around, self.lambda_v**-0.5).to_event(1))
                pyro.deterministic("v_dagger", v - around, event_dim=1)
            else:
                nothing = self._zeros(self.width)
                v_dagger = pyro.sample("v_dagger", dist.Normal(nothing, self.lambda_v**-0.5).to_event(1))
                v = pyro.deterministic("v", v_dagger + around, event_dim=1)
            score_of = self.of_users(u), self.of_items(v)
            pyro.sample("R", self.ratings.distribution(*score_of, batch.columns), obs=batch.columns)

    @property
    def width(self) -> int:
        """Coordinates of u and v: the factors, and the bias where there are biases."""
        return self.n_factors + (self.mean is not None)

    def prior_of_items(self, z: Tensor) -> Tensor:
        """Prior mean of v given z, (n_items, width): z, and m / kappa_v for the bias."""
        if self.mean is None:
            return z
        return torch.cat([z, (self.mean / self.kappa_v).expand(len(z), 1).to(z)], -1)

    def of_users(self, u: Tensor, constant: float | None = None) -> Tensor:
        """Users with what the items' biases are multiplied by: scores are products of these rows and :meth:`of_items`.

        Rows (u, b / kappa_u, kappa_v); ``constant`` in the place of kappa_v, 0 for standard deviations. Covariances
        (n_users, width, width) get a row and a column of it.
        """
        return self._wider(u, self.width, self.kappa_v if constant is None else constant)

    def of_items(self, v: Tensor, constant: float | None = None) -> Tensor:
        """Items likewise: rows (v, kappa_u, c / kappa_v)."""
        return self._wider(v, self.n_factors, self.kappa_u if constant is None else constant)

    def _wider(self, rows: Tensor, at: int, value: float) -> Tensor:
        if self.mean is None:
            return rows
        for dim in range(1, rows.dim()):
            before, after = rows.narrow(dim, 0, at), rows.narrow(dim, at, rows.shape[dim] - at)
            rows = torch.cat([before, torch.full_like(rows.narrow(dim, 0, 1), value), after], dim)
        return rows

    def own(self, side: str, rows: Tensor) -> Tensor:
        """The inverse of :meth:`of_users` ("u") and :meth:`of_items` ("v")."""
        if self.mean is None:
            return rows
        free = [*range(self.n_factors), self.n_factors + (side == "v")]
        return rows[:, free] if rows.dim() == 2 else rows[:, free][:, :, free]

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
            z = pyro.sample("z", dist.Normal(self._zeros(self.n_factors), 1.0).to_event(1))
            x = self.content.conditional(self.decoder, z, batch.content, sampled=self.training)
            pyro.sample("x", x, obs=batch.content)
        return z

    def _zeros(self, n: int) -> Tensor:
        return next(self.decoder.parameters()).new_zeros(n)

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
