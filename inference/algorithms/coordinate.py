r"""Closed-form coordinate ascent: ``python -m inference.coordinate --mode map|bayes`` (paper, sections 2.2 and 2.3).

u and v are updated row by row in closed form, all rows of a side at once (:mod:`inference.algorithms.half_steps`);
encoder and decoder by minibatch gradient steps between these sweeps, with q(U) and q(V) held. ``map`` has points,
``bayes`` Normals with full covariances, diagonal ones (``--diagonal``), or q(v|z) with full covariances
(``--guide structured``).

With q(v_j) = N(n_j, T_j) held, what a network's step sees of the ratings is E[log p(v_j | z_j)], that is

    -1/2 lambda_v (|n_j - mu_j|^2 + sum_k sigma_jk^2) + const;    d/d mu_j = lambda_v (n_j - mu_j).

The paper's printed gradient (2.3) has q(v)'s precision Lambda_v there in place of lambda_v, which is no derivative of
its objective (``tests/inference/test_coordinate.py`` asks autograd). With q(v|z), v is integrated out:

    -1/2 (mu'Q mu + sum_k Q_kk sigma_k^2) + h'mu,    Q = lambda_v I - lambda_v^2 Lambda_j^-1,
                                                     h = lambda_v Lambda_j^-1 E[U] C_j R_j.

With a Gaussian bound in the place of the Normal ratings (:mod:`models.ratings.bernoulli`) a sweep ends with the bound's
own parameters; with biases (:mod:`models.cvae`) it has the global mean in it; the noise of explicit ratings is learned
in ``bayes``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from inference.algorithms.above import AboveNormal, best_above, check_above, evidence_above, start_above
from inference.algorithms.base import Snapshot, StepInfo
from inference.algorithms.elbo import NamedELBO, total
from inference.algorithms.half_steps import HalfStep
from inference.algorithms.networks import NetworkFit, NetworkState, adam, encode
from inference.algorithms.per_user import PerUser
from inference.algorithms.shards import Shard
from inference.algorithms.sides import scores_of, start_of_items
from inference.options import CoordinateOptions, Options
from inference.posterior import Posterior, content_diagnostics, flat_above
from models.base import FactorModel
from models.build import model_class
from models.gaussians import Gaussians
from models.item_prior import Pull
from models.observations import Batch, Observations
from models.priors import Above
from models.returns import learning, number_given
from pyro_cvae.errors import InputError

LOOKED = 8192
"""Items, or up to twice as many, of which diagnostics tell while networks learn contents alone."""


@dataclass
class State(NetworkState):
    """Networks, q(U) and q(V), the content's parts of the objective while the networks are held, and sweeps made.

    Of several workers each has q of its own users and of all items. ``first`` are the sweeps made before the contents
    were looked at, ``ratings`` the ratings' part of the objective at the last one. ``shift`` (n_items, width) is the
    ratings' part of the items' last half-step where q is structured, ``second`` (n_stored,) E[s^2] of the stored cells
    where a bound needs it, ``prior`` the precisions around which others are learned, ``above`` q of the sites above u
    and v, ``z`` mean and standard deviation of q(z), behind how often each parameter of the encoder had changed, and
    ``alive`` what diagnostics say of these.
    """

    users: Gaussians | None = None
    items: Gaussians | None = None
    shift: Tensor | None = None
    second: Tensor | None = None
    content: dict[str, float] = field(default_factory=dict)
    sweeps: int = 0
    first: int = 0
    ratings: dict[str, float] = field(default_factory=dict)
    prior: dict[str, float] = field(default_factory=dict)
    above: AboveNormal | None = None
    z: tuple[list[int], tuple[Tensor, Tensor]] | None = None
    alive: tuple[tuple[Tensor, Tensor], dict[str, float]] | None = None


class Coordinate(NetworkFit[State]):
    """The paper's block coordinate ascent over the same model as :class:`inference.algorithms.svi.SVI`.

    Raises InputError for a ratings likelihood without a Gaussian site.
    """

    @property
    def n_steps(self) -> int:
        """Sweeps before the contents where these are learned of factors, epochs of the networks, sweeps at the end."""
        return super().n_steps + self._method.sweeps * (1 + model_class(self.options.model.model).is_staged())

    @property
    def _method(self) -> CoordinateOptions:
        assert isinstance(self.options.method, CoordinateOptions)
        return self.options.method

    def __init__(self, make: Callable[[], FactorModel], observations: Observations, options: Options) -> None:
        super().__init__(make, observations, options)
        self.shard: Shard | None = None
        self.of_users = PerUser()

    def check(self, model: FactorModel) -> None:
        """InputError where the ratings have no Gaussian site, or something would not be learned."""
        if not model.ratings.conjugate:
            raise model.ratings.refuse("inference.coordinate")
        self.refuse_parameters(model, "inference.coordinate")
        ratings = copy.deepcopy(model.ratings)
        if self.options.fit.mode == "map":
            ratings.hold()
        if idle := ratings.idle_parameters:
            problem = f"inference.coordinate does not learn {', '.join(idle)} of {type(ratings).__name__}"
            raise InputError(problem, "state learns and define learn, or define after_sweep, or use inference.svi")
        if self.options.kind == "structured" and not model.item_prior.latent:
            raise InputError("--guide structured is q(v|z), and the model has no z", "leave --guide out")

    def pretraining(self, model: FactorModel) -> State:
        """A guide of z alone and an optimiser of the networks."""
        check_above(model)
        guide = self.content_guide(model)
        optimizer = adam(model, self.options.fit.pretrain_learning_rate)
        return State(model, guide, optimizer, 0, joint=False)

    def init(self) -> State:
        """As for every fit; without pre-training q(U) and q(V) too."""
        state = super().init()
        if state.joint:
            self._first_sweeps(state)
        return state

    def joint(self, state: State, found: dict[str, float] | None = None) -> State:
        """A fresh optimiser; q(U) and q(V) are still to come."""
        self.start_ratings(state, found)
        self._take_share(state.model)
        optimizer = adam(state.model, self.joint_rate)
        begun = State(state.model, state.guide, optimizer, state.epoch, joint=True)
        begun.prior = {name: getattr(state.model, name) for name in ("lambda_u", "lambda_v")}
        return begun

    def _take_share(self, model: FactorModel) -> None:
        """This worker's part of the ratings, and of what the likelihood has of every user."""
        if self.shard is None:
            full = self.options.kind in ("full", "structured")
            columns, ratings = self.observations.columns, model.ratings
            self.shard = Shard(columns, ratings, self.workers, full, model.width, self._method.gather)
            self.observations = replace(self.observations, columns=self.shard.columns)
        self.of_users.take(model.ratings, self.shard)

    def _encoded(self, state: State) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every z, computed once for as long as the networks stay."""
        changes = [parameter._version for parameter in state.model.item_prior.parameters()]
        if state.z is None or state.z[0] != changes:
            state.z = changes, encode(state.model, self.observations, self.workers)
        return state.z[1]

    def _alive(self, state: State) -> dict[str, float]:
        """The content's diagnostics, computed once for as long as the networks stay.

        Of many items some are looked at, at even steps, as long as contents alone are learned.
        """
        if not state.joint and state.model.item_prior.trained:
            every = max(1, self.observations.n_items // LOOKED)
            return content_diagnostics(*encode(state.model, self.observations, self.workers, every), n_draws=0)
        z = self._encoded(state)
        if state.alive is None or state.alive[0] is not z:
            state.alive = z, content_diagnostics(*z, n_draws=0)
        return dict(state.alive[1])

    @torch.no_grad()
    def _first_sweeps(self, state: State) -> None:
        """Two sweeps from v = E[z], or one from where another fit has left v, for the networks' first joint steps."""
        model, above = state.model, start_above(state.model)
        if above:
            first = torch.cat([value.flatten() for value in above.values()])
            state.above = AboveNormal(first, torch.ones_like(first), {n: value.shape for n, value in above.items()})
        state.items = start_of_items(model, model.prior_of_items(self._encoded(state)[0], above))
        if self.warm is not None:
            state.items = Gaussians(self.warm.of_items(model, state.items.loc, self.scale))
        for _ in range(2 if self.warm is None else 1):
            self.sweep(state)

    def terms(self, elbo: NamedELBO, state: State, batch: Batch) -> dict[str, Tensor]:
        """The content's parts and, once there is a q(V), what it adds."""
        if not state.joint:
            return elbo.content_terms(state.model, state.guide, batch)
        return elbo.content_terms(
            state.model, state.guide, batch, lambda mu, var: self._coupling(state, batch, mu, var)
        )

    @torch.no_grad()
    def pull(self, state: State) -> Pull | None:
        """q(V) as the last sweep left it."""
        if not state.joint or state.items is None:
            return None
        model, m = state.model, self._encoded(state)[0]
        prior = model.prior_of_items(m, self._above(state))
        away = state.items.loc - prior.loc
        return Pull(m + away[:, : model.n_factors], prior.precision, self.observations.columns.observed)

    def _coupling(self, state: State, batch: Batch, mu: Tensor, var: Tensor) -> Tensor:
        """What q(V) says of z, up to a constant: see the module's docstring, (n_items,).

        Items without a column pull at nothing: their best q(v_j) follows z_j wherever it goes.
        """
        model, items = state.model, state.items
        assert items is not None
        prior, n = model.prior_of_items(mu, self._above(state), batch.items), model.n_factors
        precision, around = prior.precision, prior.loc
        if items.spread is None:
            away = (items.loc[batch.items, :n] - around[:, :n]).square().sum(-1) * batch.columns.observed
            return 0.5 * precision * (away + prior.of_content(var).sum(-1))
        assert state.shift is not None
        slope = precision * items.given(batch.items)
        pull = around - (slope @ around[..., None]).squeeze(-1)
        own = (1 - slope.diagonal(dim1=-2, dim2=-1)[:, :n]) * var
        linear = ((slope @ state.shift[batch.items, :, None]).squeeze(-1) * around).sum(-1)
        return 0.5 * precision * ((around * pull).sum(-1) + own.sum(-1)) - linear

    def sweep(self, state: State) -> dict[str, float]:
        """q(U) given q(V), then q(V) given q(U); the named parts of the objective that depend on them, in nats."""
        model, family = state.model, {"point": "point", "mean-field": "diagonal"}.get(self.options.kind, "full")
        z_loc, z_scale = self._encoded(state)
        z_var = z_scale.square()
        assert state.items is not None
        if self._method.learn_precisions and state.users is not None:
            self._learn_precisions(state, z_loc, z_var)
        state.users = None  # its covariances make room for the new ones
        shard, above = self._shard, self._above(state)
        sites = shard.sites(model.ratings, state.second)
        u = shard.told_users(shard.step_users(model, sites, state.items, family, above).rows)
        spread = z_var if self.options.kind == "structured" else None
        v = shard.step_items(model, sites, u, model.prior_of_items(z_loc, above), spread, family)
        u = shard.untold_users(u)
        state.users, state.items = u, v.rows
        state.shift = None if v.rows.spread is None else v.shift
        self._center(state, z_loc)
        if state.above is not None:
            everybody = self.workers.rows(u.loc, shard.user_spans)
            state.above = best_above(model, above, everybody, v.rows.loc, z_loc)
            above = self._above(state)
            unrated = ~shard.observed
            v.rows.loc[unrated] = model.prior_of_items(z_loc, above).loc[unrated]
        state.ratings = {"ratings": self._ratings(state, v)}
        return state.ratings | self._priors(state)

    def _priors(self, state: State) -> dict[str, float]:
        """The objective's parts of q(U) and q(V) given the contents and of what is above them, in nats."""
        model, above = state.model, self._above(state)
        z_loc, z_scale = self._encoded(state)
        u, v = state.users, state.items
        assert u is not None and v is not None
        of_users, of_items = self._shard.prior_of_users(model, above), model.prior_of_items(z_loc, above)
        kl_u = float(self.workers.total(u.kl(of_users.precision, of_users.rows(len(u))).sum()))
        kl_v = float(v.kl(of_items.precision, of_items.loc).sum())
        if v.spread is None:
            kl_v += 0.5 * of_items.precision * float(of_items.of_content(z_scale.double().square()).sum())
        parts = {"log_p_u": -kl_u, "log_p_v": -kl_v} if u.is_point else {"kl_u": kl_u, "kl_v": kl_v}
        if state.above is not None:
            evidence = evidence_above(model, state.above, u.is_point)
            parts |= {"log_p_above": evidence} if u.is_point else {"kl_above": -evidence}
        if self._method.learn_precisions:
            parts["precisions"] = self._log_prior_precisions(model, state.prior)
        return parts

    @property
    def _shard(self) -> Shard:
        assert self.shard is not None
        return self.shard

    def _above(self, state: State) -> Above:
        """Means of the sites above u and v."""
        return {} if state.above is None else state.above.values

    def _center(self, state: State, z_loc: Tensor) -> None:
        """The global mean at its best, the mean of the rated items' biases; unrated items follow it."""
        model, items, observed = state.model, state.items, self._shard.observed
        assert items is not None
        if model.mean is not None:
            model.mean.fill_(model.kappa_v * float(items.loc[observed, -1].double().mean()))
            items.loc[~observed] = model.prior_of_items(z_loc, self._above(state)).loc[~observed]

    def _ratings(self, state: State, last: HalfStep) -> float:
        """The ratings' part of the objective in nats, after the likelihood's own parameters have been brought up."""
        model, columns = state.model, self.observations.columns
        users, items = state.users, state.items
        assert users is not None and items is not None
        summed = list[Tensor]()

        def total(value: Tensor) -> Tensor:
            summed.append(value)
            return self.workers.total(value)

        scores = scores_of(model, users, items, columns, last.form, total)
        with learning(model.ratings, "learn" if model.ratings.learns else "after_sweep"):
            value = number_given(model.ratings, "after_sweep", model.ratings.after_sweep(columns, scores), finite=False)
        if self.workers.size > 1 and not summed:
            problem = f"{type(model.ratings).__name__}.after_sweep does not sum over workers"
            raise InputError(problem, "let its sums over columns go through scores.total, or fit with one worker")
        if not model.ratings.exact:
            state.second = scores.stored[1]
        return value

    def _learn_precisions(self, state: State, z_loc: Tensor, z_var: Tensor) -> None:
        """lambda_u and lambda_v at the maximum of the ELBO, their Gamma priors in it, given q.

        The prior of a precision has its mode at the value before the first sweep and weighs as much as
        ``precision_prior`` times the rows' own evidence, so that neither precision leaves
        (0, (1 + 1 / precision_prior) times that value).
        """
        model, shard = state.model, self._shard
        assert state.users is not None and state.items is not None
        above = self._above(state)
        square_u = state.users.expected_square(shard.prior_of_users(model, above).rows(len(state.users)))
        prior = model.prior_of_items(z_loc, above)
        square_v = state.items.expected_square(prior.loc) * shard.observed
        if state.items.spread is None:
            square_v = square_v + prior.of_content(z_var).sum(-1)
        of_users, of_items = float(self.workers.total(square_u.double().sum())), float(square_v.double().sum())
        n_rated = int(shard.observed.sum())
        model.lambda_u = self._best_precision(state.prior["lambda_u"], of_users / (model.n_users * model.width))
        model.lambda_v = self._best_precision(state.prior["lambda_v"], of_items / (n_rated * model.width))

    def _best_precision(self, given: float, mean_square: float) -> float:
        weight = self._method.precision_prior
        return (1 + weight) / (mean_square + weight / given)

    def _log_prior_precisions(self, model: FactorModel, prior: dict[str, float]) -> float:
        """Log density of both Gamma priors at the present precisions, in nats."""
        rows = {"lambda_u": model.n_users, "lambda_v": int(self._shard.observed.sum())}
        value = 0.0
        for name, n_rows in rows.items():
            worth = 0.5 * self._method.precision_prior * n_rows * model.width
            numbers = (1 + worth, worth / prior[name], getattr(model, name))
            concentration, rate, precision = torch.tensor(numbers, dtype=torch.float64)
            value += float(torch.distributions.Gamma(concentration, rate).log_prob(precision))
        return value

    def step(self, state: State) -> tuple[State, StepInfo]:
        """An epoch of the networks and, once there are ratings, a sweep; at the end sweeps alone."""
        fit, model = self.options.fit, state.model
        staged, kl_weight = model.item_prior.staged, fit.kl_weight
        if not state.joint and state.epoch == fit.pretrain_epochs:
            state = self.joint(state)
        if state.joint and state.users is None:
            self._first_sweeps(state)
        trains = state.epoch < fit.pretrain_epochs + fit.epochs
        phase = "content" if staged or self.in_content(state) else "joint"
        if staged and state.first < self._method.sweeps:
            state.content = state.content or self.held_content(state)
            state.first, phase = state.first + 1, "ratings"
        elif trains and (self.in_content(state) or self.joint_rate > 0):
            state.content, kl_weight = self.epoch(state)
            state.z = None  # a fused Adam counts no change of a parameter
            state.content.pop("kl_v", None)
        else:
            if state.sweeps == 0 and (not trains or state.epoch == fit.pretrain_epochs):
                state.content = self.held_content(state)
            phase = "joint" if trains else "sweep"
            state.epoch += trains  # at a learning rate of 0 an epoch is a sweep
            state.sweeps += not trains
        terms = dict(state.content)
        if state.joint:
            with torch.no_grad():
                held = staged and phase == "content"  # factors are what the contents learn of
                own = state.ratings | self._priors(state) if held else self.sweep(state)
                terms = self.scale.terms(own, model, self.n_ratings) | terms
        found = self._alive(state) if model.item_prior.latent else {}
        found |= {"kl_weight": kl_weight, "lambda_u": model.lambda_u / self.scale.scale**2, "lambda_v": model.lambda_v}
        return state, StepInfo(phase, total(terms), terms, found)

    @torch.no_grad()
    def posterior(self, state: State) -> Posterior:
        """q(U), q(V), q(Z) of all users and items."""
        if not state.joint:
            state = self.joint(state)
        if state.users is None:
            self._first_sweeps(state)
        model = state.model
        z_loc, z_scale = self._encoded(state)
        assert state.users is not None and state.items is not None
        above = self._above(state)
        prior = model.prior_of_items(z_loc, above)
        more: dict[str, Any] = {"has_content": model.has_content, "tells_users": model.tells_users()}
        if state.above is not None:
            scales: dict[str, Any] = dict.fromkeys(above) if state.users.is_point else state.above.scales
            more["above"] = flat_above({name: (loc, scales[name]) for name, loc in above.items()})
        if model.mean is not None:
            more["v_pad"] = model.of_items(prior.loc[:1])[0, -2:]
        users, items, kind = self._shard.known_users(state.users), state.items, self.options.kind
        if users.variance is not None and items.covariance is not None:  # at the first worker users have theirs too
            items, kind = Gaussians(items.loc, items.variances()), "mean-field"
        rows = model.in_scores("u", users), model.in_scores("v", items)
        z = Gaussians(z_loc, z_scale.square())
        more["content_scale"] = prior.slope
        posterior = Posterior(kind, *rows, z, prior.precision, **more)
        known = self.scale.posterior(posterior.detached())
        if len(known.u) == model.n_users:
            return known
        return replace(known, u=known.u.mapped(*2 * [lambda row: row.expand(model.n_users, -1)]))

    def finish(self, state: State) -> FactorModel:
        """The model in the ratings' own units, with what it has of all users."""
        self.of_users.give(state.model.ratings)
        return super().finish(state)

    def replicated(self, state: State) -> list[nn.Module]:
        """All but what is of single users."""
        return [state.model.item_prior, state.guide]

    def own_part(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of what the likelihood has of every user this worker's rows."""
        return self.of_users.own(tensors, "model.ratings.")

    def snapshot(self, state: State) -> Snapshot:
        """Networks and optimiser, q(U) and q(V), learned precisions."""
        tensors, meta = super().snapshot(state)
        tensors = self.of_users.whole(tensors, "parameter.model.ratings.")
        everybody = None if state.users is None else self._shard.known_users(state.users)
        for side, rows in (("users", everybody), ("items", state.items)):
            if rows is not None:
                tensors |= {f"{side}.{name}": t for name, t in vars(rows).items() if isinstance(t, Tensor)}
        if state.shift is not None:
            tensors["sweep.shift"] = state.shift
        if state.above is not None:
            tensors |= {"above.loc": state.above.loc, "above.precision": state.above.precision}
            meta["above"] = {name: list(shape) for name, shape in state.above.shapes.items()}
        meta |= {"content": state.content, "sweeps": state.sweeps, "prior": state.prior}
        meta |= {"first": state.first, "ratings": state.ratings}
        return tensors, meta

    def restore(self, snapshot: Snapshot) -> State:
        """The state of a snapshot."""
        tensors, meta = snapshot
        state = super().restore(snapshot)
        state.content, state.sweeps, state.prior = dict(meta["content"]), meta["sweeps"], dict(meta["prior"])
        state.first, state.ratings = meta.get("first", 0), dict(meta.get("ratings", {}))
        for side in ("users", "items"):
            found = {name.removeprefix(f"{side}."): t for name, t in tensors.items() if name.startswith(f"{side}.")}
            if found:
                slope = state.model.lambda_v if "spread" in found else 0.0
                setattr(state, side, Gaussians(**found, slope=slope))
        state.shift = tensors.get("sweep.shift")
        if state.users is not None and state.items is not None:
            state.users = self._shard.own_users(state.users)
            if not state.model.ratings.exact:
                scores = scores_of(state.model, state.users, state.items, self.observations.columns)
                state.second = scores.stored[1]
        if "above" in meta:
            shapes = {name: torch.Size(shape) for name, shape in meta["above"].items()}
            state.above = AboveNormal(tensors["above.loc"], tensors["above.precision"], shapes)
        return state
