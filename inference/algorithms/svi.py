"""Stochastic variational inference over the Pyro model: ``python -m inference.svi --mode map|bayes``.

First the content alone (pre-training), then everything together, by Adam over minibatches of items that are exact over
users. ``map`` has points (AutoDelta) for u and v, ``bayes`` mean-field Normals or the structured q(v|z); z is
amortised by the encoder in both.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from pyro.infer.autoguide import AutoDelta, AutoGuideList
from torch import Tensor, nn

from inference.algorithms.above import start_above
from inference.algorithms.base import StepInfo
from inference.algorithms.cells import Cells
from inference.algorithms.elbo import NamedELBO, constant, total
from inference.algorithms.guides import (
    ITEM_SITES,
    NormalRows,
    above_of,
    check_guide,
    item_conditional,
    make_guide,
    prior_sd,
    rows_of,
)
from inference.algorithms.networks import NetworkFit, NetworkState, adam, encode
from inference.algorithms.sides import start_of_items, update_users
from inference.options import SVIOptions
from inference.posterior import Posterior, content_diagnostics, flat_above
from models.base import FactorModel
from models.gaussians import Gaussians
from models.item_prior import Pull
from models.observations import Batch
from models.priors import NormalPrior


class SVI(NetworkFit[NetworkState]):
    """Pre-training of the content VAE, then joint training of everything, both by Adam on the named ELBO."""

    def check(self, model: FactorModel) -> None:
        """InputError where the model is fitted in stages."""
        self.refuse_stages(model)

    def pretraining(self, model: FactorModel) -> NetworkState:
        """A guide of z alone and an optimiser of the networks; what has no guide is refused here, before any work."""
        check_guide(model, self.options.kind)
        guide = self.content_guide(model)
        if not self.options.fit.epochs:
            logging.getLogger("pyro_cvae").warning(
                "--epochs is 0: u and v are not fitted; give some, or use inference.coordinate"
            )
        optimizer = self._adam(model, guide, self.options.fit.pretrain_learning_rate)
        return NetworkState(model, guide, optimizer, 0, joint=False)

    def joint(self, state: NetworkState, found: dict[str, float] | None = None) -> NetworkState:
        """q(v) starts at the means of q(z|x), q(u) at a draw of the prior; structured, at what suits these means.

        There q(v|z) is at its optimum given u from the first step on: around a draw of u the ratings would pull z after
        that draw, away from what the contents have said of it.
        """
        model, method = state.model, self._method
        self.start_ratings(state, found)
        with torch.no_grad():
            above = start_above(model)
            prior = model.prior_of_items(encode(model, self.observations, self.workers)[0], above)
            v_loc = start_of_items(model, prior).loc
            users = model.prior_of_users(above)
            away = model.lambda_u**-0.5 * torch.randn(model.n_users, model.width).to(v_loc)
            if model.mean is not None:
                away[:, -1] = 0.0
            u_loc = users.loc + away
            if self.options.kind == "structured":
                columns, site = self.observations.columns, model.ratings.site(self.observations.columns)
                cells = Cells.of_users(columns, site)
                u_loc = update_users(model, site, cells, Gaussians(v_loc), columns.observed, "point", above).rows.loc
            if self.warm is not None:
                u_loc = self.warm.of_users(model, u_loc, self.scale)
                v_loc = self.warm.of_items(model, v_loc, self.scale)
        if model.item_site != "v":
            v_loc = torch.zeros_like(v_loc) if self.warm is None else v_loc - prior.loc
        guide = make_guide(model, self.options.kind, self.observations, u_loc, v_loc, method.init_scale)
        optimizer = self._adam(model, guide, self.joint_rate)
        return NetworkState(model, guide, optimizer, state.epoch, joint=True)

    @property
    def _method(self) -> SVIOptions:
        assert isinstance(self.options.method, SVIOptions)
        return self.options.method

    def _adam(self, model: FactorModel, guide: AutoGuideList, learning_rate: float) -> torch.optim.Optimizer:
        """Adam with ``learning_rate`` for the networks; for factors the step is in prior standard deviations.

        The ratings' own parameters (a global mean, a noise, a bound's) and the model's move with the factors.
        """
        size = self._method.factor_learning_rate
        networks = {id(parameter) for parameter in model.parameters()}
        factors: dict[float, list[nn.Parameter]] = {}
        for name, parameter in guide.named_parameters():
            if id(parameter) not in networks:
                is_log_scale = name.endswith("scale_unconstrained")
                site = model.item_site if name.split(".")[0] in self._parts_of_items(guide) else "u"
                sd = 1.0 if is_log_scale else prior_sd(model, site)
                factors.setdefault(size * sd, []).append(parameter)
        own = [*model.ratings.parameters(), *([] if model.mean is None else [model.mean])]
        own += model.further_parameters.values()
        if own:
            factors.setdefault(size, []).extend(own)
        return adam(model, learning_rate, factors)

    @staticmethod
    def _parts_of_items(guide: AutoGuideList) -> set[str]:
        """Numbers of the guide's parts that draw the items' site."""
        of_items = (isinstance(part, NormalRows) and part.site != "u" for part in guide)
        points = (isinstance(part, AutoDelta) and any(hasattr(part, site) for site in ITEM_SITES) for part in guide)
        return {str(number) for number, of in enumerate(zip(of_items, points, strict=True)) if any(of)}

    def moves(self, state: NetworkState) -> bool:
        """U and v too, once there are ratings."""
        return state.joint or super().moves(state)

    @torch.no_grad()
    def pull(self, state: NetworkState) -> Pull | None:
        """q(V) as the guide has it."""
        if not state.joint:
            return None
        model, m = state.model, encode(state.model, self.observations, self.workers)[0]
        first = self.observations.batch(torch.arange(min(2, model.n_items), device=m.device))
        above = {name: loc for name, (loc, _) in above_of(state.guide, model, first).items()}
        prior, items = model.prior_of_items(m, above), rows_of(state.guide, model.item_site).loc
        away = items - prior.loc if model.item_site == "v" else items
        return Pull(m + away[:, : model.n_factors], prior.precision, self.observations.columns.observed)

    def terms(self, elbo: NamedELBO, state: NetworkState, batch: Batch) -> dict[str, Tensor]:
        """The content's parts in pre-training, all parts in joint training."""
        if state.joint:
            return elbo.terms(state.model, state.guide, batch)
        return elbo.content_terms(state.model, state.guide, batch)

    def step(self, state: NetworkState) -> tuple[NetworkState, StepInfo]:
        """One epoch: every item once; the objective is reported untempered and with log p(R)'s normaliser."""
        if not state.joint and state.epoch == self.options.fit.pretrain_epochs:
            state = self.joint(state)
        terms, kl_weight = self.epoch(state)
        if state.joint:
            terms["ratings"] += constant(state.model, self.observations)
            terms = self.scale.terms(terms, state.model, self.n_ratings)
        found = {"kl_weight": kl_weight}
        if state.model.item_prior.latent:
            found = content_diagnostics(*encode(state.model, self.observations, self.workers), n_draws=0) | found
        return state, StepInfo("joint" if state.joint else "content", total(terms), terms, found)

    @torch.no_grad()
    def posterior(self, state: NetworkState) -> Posterior:
        """q(U), q(V), q(Z) of all users and items."""
        if not state.joint:
            state = self.joint(state)
        model, kind = state.model, self.options.kind
        z_loc, z_scale = encode(model, self.observations, self.workers)
        users, z = rows_of(state.guide, "u"), Gaussians(z_loc, z_scale.square())
        first = self.observations.batch(torch.arange(min(2, len(z_loc)), device=z_loc.device))
        above = above_of(state.guide, model, first)
        prior = model.prior_of_items(z_loc, {name: loc for name, (loc, _) in above.items()})
        if kind == "structured":
            items = self._structured_items(model, users, prior.loc)
        else:
            items = self._unrated_at_their_optimum(model, rows_of(state.guide, model.item_site), prior)
            if model.item_site == "v_dagger":
                of_z = torch.nn.functional.pad(prior.of_content(z_scale.square()), (0, model.width - model.n_factors))
                items = Gaussians(items.loc + prior.loc, None if items.variance is None else items.variance + of_z)
        common: dict[str, Any] = {"above": flat_above(above), "has_content": model.has_content}
        common |= {"content_scale": prior.slope, "tells_users": model.tells_users()}
        if model.mean is not None:
            common["v_pad"] = model.of_items(prior.loc[:1])[0, -2:]
        rows = model.in_scores("u", users), model.in_scores("v", items), z
        posterior = Posterior(kind, *rows, prior.precision, model.parametrization, **common)
        return self.scale.posterior(posterior.detached())

    def _unrated_at_their_optimum(self, model: FactorModel, items: Gaussians, prior: NormalPrior) -> Gaussians:
        """Items without a column: given q(z), the best q(v) is N(mu, 1/lambda_v), the best q(v†) its prior."""
        unrated = ~self.observations.columns.observed[:, None]
        loc = torch.where(unrated, prior.loc if model.item_site == "v" else 0.0, items.loc)
        if items.variance is None:
            return Gaussians(loc)
        return Gaussians(loc, torch.where(unrated, 1 / prior.precision, items.variance))

    def _structured_items(self, model: FactorModel, users: Gaussians, around: Tensor) -> Gaussians:
        """The rows of v given z at its mean; unrated items share the last covariance."""
        rated = self.observations.columns.indptr.diff() > 0
        means, blocks = [], []
        for batch in self.observations.partition(self.batch_size, shuffle=False):
            tril, shift = item_conditional(model, users, batch)
            right = (shift + model.lambda_v * around[batch.items])[..., None]
            means.append(torch.cholesky_solve(right, tril).squeeze(-1))
            alone = ~rated[batch.items]
            blocks.append((torch.cholesky_inverse(tril[~alone]), torch.cholesky_inverse(tril[alone][:1])))
        shared = torch.cat([one for _, one in blocks])[:1]
        block = torch.where(rated, rated.cumsum(0) - 1, int(rated.sum()))
        return Gaussians(torch.cat(means), covariance=torch.cat([*(own for own, _ in blocks), shared]), block=block)
