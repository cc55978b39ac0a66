"""Models as somebody writes them: users in groups, another prior of u, and stories that are not what they state."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import nn

from models.cvae import CVAE
from models.deepmusic import DeepMusic
from models.pmf import PMF
from models.priors import NOTHING, NormalPrior


class GroupsOf:
    """Users in groups, told by how their ids begin: u_i ~ N(mu_g(i), 1 / lambda_u), mu_g ~ N(0, 1 / lambda_g)."""

    def __init__(self, *sizes, lambda_g=1.0, **options):
        super().__init__(*sizes, **options)
        self.lambda_g = lambda_g
        self.groups, self.group = (), torch.zeros(self.n_users, dtype=torch.int64)

    def of_data(self, dataset):
        begin = [str(one).split("-")[0] for one in dataset.user_ids]
        self.groups = tuple(sorted(set(begin)))
        self.group = torch.tensor([self.groups.index(one) for one in begin])

    def above(self):
        like = super().prior_of_users().loc
        with pyro.plate("groups", len(self.groups)):
            return {"mu": pyro.sample("mu", dist.Normal(torch.zeros_like(like), self.lambda_g**-0.5).to_event(1))}

    def prior_of_users(self, above):
        return NormalPrior(above["mu"][self.group], self.lambda_u)


class GroupedPMF(GroupsOf, PMF):
    """Groups, no content."""


class GroupedCVAE(GroupsOf, CVAE):
    """Groups beside contents."""


class StatedMean(CVAE):
    """u_i ~ N(3, 1 / lambda_u), stated where the algorithms read it."""

    def prior_of_users(self, above=None):
        standard = super().prior_of_users()
        return NormalPrior(torch.full_like(standard.loc, 3.0), standard.precision)


class HiddenMean(CVAE):
    """The same, in the program alone."""

    def forward(self, batch):
        self.item_prior.weights()
        with pyro.plate("users", self.n_users):
            u = pyro.sample("u", dist.Normal(torch.full((self.width,), 3.0), self.lambda_u**-0.5).to_event(1))
        with pyro.plate("items", self.n_items, subsample=batch.items):
            v = self.factors_of_items(self.item_prior(batch), batch)
            self.ratings_of(u, v, batch)


class HiddenSite(PMF):
    """A latent site that above() does not tell of."""

    def forward(self, batch):
        scale = pyro.sample("scale", dist.Normal(0.0, 1.0))
        with pyro.plate("users", self.n_users):
            u = self.factors_of_users()
        with pyro.plate("items", self.n_items, subsample=batch.items):
            v = self.factors_of_items(self.item_prior(batch), batch)
            self.ratings_of(u * scale, v, batch)


class NoPlate(PMF):
    """u outside of its plate."""

    def forward(self, batch):
        loc = torch.zeros(self.n_users, self.width)
        u = pyro.sample("u", dist.Normal(loc, self.lambda_u**-0.5).to_event(2))
        with pyro.plate("items", self.n_items, subsample=batch.items):
            v = self.factors_of_items(self.item_prior(batch), batch)
            self.ratings_of(u, v, batch)


class ShiftedItems(CVAE):
    """v_j ~ N(z_j + 1/2 on every second item, 1 / lambda_v)."""

    def prior_of_items(self, m, above=None, items=None):
        standard = super().prior_of_items(m)
        rows = torch.arange(self.n_items) if items is None else items
        shift = 0.5 * (rows % 2)[:, None].to(m)
        width = torch.zeros(self.width).to(m)
        width[: self.n_factors] = 1.0
        return NormalPrior(standard.loc + shift * width, standard.precision)


class Twice(CVAE):
    """v around 2 z, which q(v|z) and the closed form cannot have."""

    def prior_of_items(self, m, above=None, items=None):
        standard = super().prior_of_items(m)
        return NormalPrior(2 * standard.loc, standard.precision)


class OtherPrecision(PMF):
    """A precision that is not the model's lambda_u."""

    def prior_of_users(self, above=None):
        standard = super().prior_of_users()
        return NormalPrior(standard.loc, 2 * standard.precision)


class LaplaceGroups(GroupedPMF):
    """Means of groups that are not Normal, so that the closed form cannot have them."""

    def above(self):
        like = PMF.prior_of_users(self).loc
        with pyro.plate("groups", len(self.groups)):
            return {"mu": pyro.sample("mu", dist.Laplace(torch.zeros_like(like), 1.0).to_event(1))}


class Music(DeepMusic):
    """DeepMusic under a name of its own, of which options know nothing."""


class Told(PMF):
    """Its users' features are observed given u: ``told`` says of them what no algorithm reads."""

    @staticmethod
    def told(u):
        pyro.sample("features", dist.Normal(u, 0.1).to_event(1), obs=torch.full_like(u, 3.0))

    def factors_of_users(self, above=NOTHING):
        u = super().factors_of_users(above)
        self.told(u)
        return u


class Shrunk(Told):
    """A factor on u beside its prior."""

    @staticmethod
    def told(u):
        pyro.factor("sparse", -u.abs().sum(-1))


class Parametric(Told):
    """A parameter of nobody's."""

    @staticmethod
    def told(u):
        pyro.param("slope", torch.zeros(3).to(u))


class ToldAbove(GroupedPMF):
    """Means of groups that are observed with noise."""

    def above(self):
        drawn = super().above()
        with pyro.plate("observed groups", len(self.groups)):
            pyro.sample("seen", dist.Normal(drawn["mu"], 0.1).to_event(1), obs=torch.ones_like(drawn["mu"]))
        return drawn


class Weighted(PMF):
    """Ratings that count half."""

    def ratings_of(self, u, v, batch):
        with poutine.scale(scale=0.5):
            super().ratings_of(u, v, batch)


class Masked(PMF):
    """Every second user without a prior."""

    def factors_of_users(self, above=NOTHING):
        with poutine.mask(mask=torch.arange(self.n_users) % 2 == 0):
            return super().factors_of_users(above)


class Busy(PMF):
    """A precision for each user."""

    def prior_of_users(self, above=NOTHING):
        return NormalPrior(self._zeros(self.width), torch.linspace(1, 2, self.n_users).to(self._zeros(1))[:, None])


class Regressed(PMF):
    """u_i ~ N(w f_i, 1 / lambda_u), with f_i a feature of the user's and w learned."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.w = nn.Parameter(torch.zeros(self.width))

    def prior_of_users(self, above=NOTHING):
        feature = torch.where(torch.arange(self.n_users) % 2 == 0, 1.0, -1.0).to(self.w)
        return NormalPrior(feature[:, None] * self.w, self.lambda_u)


class Recorded(PMF):
    """Keeps a function of u in the trace, which says nothing more."""

    def factors_of_users(self, above=NOTHING):
        u = super().factors_of_users(above)
        pyro.deterministic("length", u.norm(dim=-1))
        return u
