r"""Markov chain Monte Carlo: ``python -m inference.mcmc``, the yardstick for the variational modes on small data.

The networks are pre-trained on the contents as in every other mode and then held; of the rest the chains draw from the
posterior itself, with nothing factorised and no encoder between x and z. A sweep is a Gibbs step in two blocks:

    U    | V, R        u_i ~ N(P_i^-1 V C_i R_i, P_i^-1),  P_i = V C_i V' + lambda_u I           (paper, section 2.2)
    Z, V | U, R, X     z_j by Hamiltonian Monte Carlo with v_j integrated out, then
                       v_j ~ N(S_j (U C_j R_j + lambda_v z_j), S_j),  S_j = (U C_j U' + lambda_v I)^-1

With v_j integrated out, what the ratings say of z_j is quadratic,

    log p(z_j | U, R, x_j) = log p(z_j) + log p(x_j | z_j) - 1/2 z_j'(lambda_v I - lambda_v^2 S_j) z_j
                             + lambda_v z_j'm_j + const

with m_j = S_j U C_j R_j, so that the chains do not creep along the narrow ridge v = z. Given U the items are
independent: each has its own step size and is accepted by itself, which one acceptance of all of them, as
``pyro.infer.HMC`` makes it, could not afford. The integrator is Pyro's, and log p(z) + log p(x|z) is read from the
Pyro program. C is a given of the model, drawn before R: see ``models/ratings/confidence_normal.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro import poutine
from pyro.ops.integrator import velocity_verlet
from torch import Tensor

from inference.algorithms.above import best_above, check_above, start_above
from inference.algorithms.base import Snapshot, StepInfo
from inference.algorithms.cells import Cells
from inference.algorithms.elbo import NamedELBO, total
from inference.algorithms.half_steps import half_step
from inference.algorithms.networks import NetworkFit, NetworkState, adam, encode
from inference.algorithms.sides import background_of
from inference.draws import Draws
from inference.options import MCMCOptions, Options
from inference.posterior import content_diagnostics
from models.base import FactorModel
from models.build import content_likelihood_of
from models.gaussians import Gaussians
from models.observations import Batch, Observations
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

ACCEPTANCE = 0.8
"""Mean acceptance of Hamiltonian steps that their sizes are brought to."""
TRAJECTORY = 0.5 * math.pi
"""Longest trajectory in units of a standard deviation: a quarter of a Normal's period, where draws depend least."""
SITES = {"R": "ratings", "x": "content", "u": "log_p_u", "v": "log_p_v", "z": "log_p_z", "topics": "log_p_m"}
"""Sites of the Pyro program, and what their log densities are called."""


@dataclass
class State(NetworkState):
    """Networks, the chains' present u, v, z (n_chains, n_rows, n_factors), and what has been stored of them.

    ``log_step`` (n_chains, n_items) are the Hamiltonian steps' sizes, ``content_precision`` (n_items, n_factors) that
    of q(z|x); ``stored`` has u, v, z (n_chains, draws, n_rows, n_factors) and log_joint (n_chains, draws): the first
    ``n_stored`` draws of each. ``above`` (n_chains, ...) are the sites above u and v, by name.
    """

    chains: dict[str, Tensor] = field(default_factory=dict)
    log_step: Tensor | None = None
    content_precision: Tensor | None = None
    stored: dict[str, Tensor] = field(default_factory=dict)
    above: dict[str, Tensor] = field(default_factory=dict)
    n_stored: int = 0
    n_sweeps: int = 0


class MCMC(NetworkFit[State]):
    """Gibbs and Hamiltonian steps over the same model as :class:`inference.algorithms.svi.SVI`, the networks held.

    A step is ``thin`` sweeps of all chains; after ``warmup`` steps each is stored. Raises InputError for a content
    without a normaliser, for more than ``max_memory`` GiB, and for a ratings likelihood without a Gaussian site.
    """

    def __init__(self, make: Callable[[], FactorModel], observations: Observations, options: Options) -> None:
        super().__init__(make, observations, options)
        has_content = len(observations.content) and observations.content.n_outputs
        likelihood = content_likelihood_of(options.model) if has_content else None
        if likelihood is not None and likelihood.pseudo:
            name = options.model.content_likelihood
            problem = f"{name} content has no normaliser, and so no posterior for inference.mcmc to draw from"
            raise InputError(problem, "use another --content-likelihood, or inference.coordinate or inference.svi")
        self._check_memory()

    def _check_memory(self) -> None:
        method, model, columns = self._method, self.options.model, self.observations.columns
        n_users, n_items, content = columns.n_users, self.observations.n_items, self.observations.content
        stored = 2 * method.draws * (n_users + 2 * n_items) * model.factors  # once more when they become a posterior
        at_work = 6 * content.n_outputs + 6 * (n_users + n_items) * model.factors**2
        size = torch.empty(0, dtype=getattr(torch, self.options.fit.dtype)).element_size()
        needed = method.chains * (stored + at_work) * size / 2**30
        if needed > method.max_memory:
            raise InputError(
                f"{counted(method.chains, 'chain')} with {counted(method.draws, 'stored draw')} of "
                f"{counted(n_users, 'user')} and {counted(n_items, 'item')} "
                f"take {needed:.1f} GiB, above --max-memory {method.max_memory:g}: inference.mcmc is for small data",
                "use inference.coordinate or inference.svi, or fewer --draws or --chains",
            )

    @property
    def _method(self) -> MCMCOptions:
        assert isinstance(self.options.method, MCMCOptions)
        return self.options.method

    @property
    def n_steps(self) -> int:
        """Epochs of pre-training, then steps before and after the first stored draw."""
        return self.options.fit.pretrain_epochs + self._method.warmup + self._method.draws

    def validates(self, state: State) -> bool:
        """Only stored draws count."""
        return state.n_stored > 0

    def check(self, model: FactorModel) -> None:
        """InputError where the ratings have no exact Gaussian site, or scores have biases."""
        if not (model.ratings.conjugate and model.ratings.exact and model.mean is None):
            raise model.ratings.refuse("inference.mcmc")
        self.refuse_stages(model)
        self.refuse_parameters(model, "inference.mcmc")
        if self.workers.size > 1:
            raise InputError("inference.mcmc has one worker alone", "start it without torchrun")

    def pretraining(self, model: FactorModel) -> State:
        """A guide of z alone and an optimiser of the networks."""
        check_above(model)
        guide = self.content_guide(model)
        return State(model, guide, adam(model, self.options.fit.pretrain_learning_rate), 0, joint=False)

    @torch.no_grad()
    def joint(self, state: State, found: dict[str, float] | None = None) -> State:
        """The chains begin at draws of q(z|x), of v around them, and of the prior of u."""
        model, method = state.model, self._method
        self.start_ratings(state, found)
        loc, scale = encode(model, self.observations)
        above = {name: value.expand(method.chains, *value.shape) for name, value in start_above(model).items()}
        z = loc + scale * torch.randn(method.chains, *loc.shape).to(loc)
        v = torch.stack([self._prior_of_items(model, z[c], above, c) for c in range(method.chains)])
        v = v + model.lambda_v**-0.5 * torch.randn_like(z)
        noise = torch.randn(method.chains, model.n_users, model.n_factors).to(loc)
        u = torch.stack([self._prior_of_users(model, above, c) for c in range(method.chains)])
        u = u + model.lambda_u**-0.5 * noise
        chains = {"u": u, "v": v, "z": z}
        log_step = torch.full(z.shape[:2], self._longest_step).to(loc)
        stored = {name: draw.new_empty(method.chains, method.draws, *draw.shape[1:]) for name, draw in chains.items()}
        stored["log_joint"] = torch.empty(method.chains, method.draws, dtype=torch.float64, device=loc.device)
        optimizer = adam(model, self.joint_rate)
        stored |= {
            name: value.new_empty(method.chains, method.draws, *value.shape[1:]) for name, value in above.items()
        }
        above = {name: value.clone() for name, value in above.items()}
        self._prepare(model)
        precision = scale.square().reciprocal()
        return State(model, state.guide, optimizer, state.epoch, True, chains, log_step, precision, stored, above)

    @staticmethod
    def _prior_of_users(model: FactorModel, above: dict[str, Tensor], chain: int) -> Tensor:
        """Prior means of u in a chain, (n_users, n_factors)."""
        prior = model.prior_of_users({name: value[chain] for name, value in above.items()})
        return prior.loc.expand(model.n_users, -1)

    @staticmethod
    def _prior_of_items(model: FactorModel, z: Tensor, above: dict[str, Tensor], chain: int) -> Tensor:
        """Prior means of v in a chain, (n_items, n_factors)."""
        return model.prior_of_items(z, {name: value[chain] for name, value in above.items()}).loc

    @property
    def _longest_step(self) -> float:
        return math.log(TRAJECTORY / self._method.leapfrog)

    def _prepare(self, model: FactorModel) -> None:
        """What every sweep reads of the data: cells of both sides, the contents of all chains."""
        columns = self.observations.columns
        self.site = model.ratings.site(columns)
        self.item_cells, self.user_cells = (of(columns, self.site) for of in (Cells.of_items, Cells.of_users))
        items = torch.arange(self.observations.n_items, device=self.observations.content.device)
        self.catalogue = self.observations.batch(items)
        if model.item_prior.latent:
            self.copies = copies(self.catalogue, self._method.chains)

    def terms(self, elbo: NamedELBO, state: State, batch: Batch) -> dict[str, Tensor]:
        """The content's parts: the networks are trained on nothing else."""
        return elbo.content_terms(state.model, state.guide, batch)

    def step(self, state: State) -> tuple[State, StepInfo]:
        """An epoch of the content alone; then ``thin`` sweeps, of which the last is stored once all are warm."""
        if not state.joint and state.epoch == self.options.fit.pretrain_epochs:
            state = self.joint(state)
        if not state.joint:
            content, kl_weight = self.epoch(state)
            found = {}
            if state.model.item_prior.latent:
                found = content_diagnostics(*encode(state.model, self.observations), n_draws=0)
            return state, StepInfo("content", total(content), content, found | {"kl_weight": kl_weight})
        state.model.eval()  # all words, always
        phase = "warm-up" if self._warming(state) else "draws"
        acceptance = torch.stack([self.sweep(state) for _ in range(self._method.thin)]).mean(0)
        terms = self._log_joint(state)
        log_joint = torch.stack(list(terms.values())).sum(0)
        if phase == "draws":
            for name, draw in (state.chains | state.above | {"log_joint": log_joint}).items():
                state.stored[name][:, state.n_stored] = draw
            state.n_stored += 1
        state.model.train()
        means = {name: float(value.mean()) for name, value in terms.items()}
        found = {}
        if state.model.item_prior.latent:
            found = {"acceptance": float(acceptance.mean()), "least_acceptance": float(acceptance.min())}
        return state, StepInfo(phase, float(log_joint.mean()), means, found)

    def _warming(self, state: State) -> bool:
        return state.n_sweeps < self._method.warmup * self._method.thin

    @torch.no_grad()
    def sweep(self, state: State) -> Tensor:
        """U given V, then Z and V given U, of every chain; acceptance of each item's Hamiltonian step, as log_step."""
        model, chains = state.model, state.chains
        users, items = self.user_cells, self.item_cells
        of_zeros = [background_of(self.site, of_users) for of_users in (True, False)]
        given_u, shifts = [], []
        for chain in range(len(chains["u"])):
            of_users = model.prior_of_users({name: value[chain] for name, value in state.above.items()})
            own = of_users.precision, of_users.rows(model.n_users)
            v = Gaussians(chains["v"][chain])
            chains["u"][chain] = draw_rows(half_step(users, v, items.observed, of_zeros[0], *own, family="full").rows)
            u = Gaussians(chains["u"][chain])
            given_u.append(half_step(items, u, users.observed, of_zeros[1], model.lambda_v, family="full").rows)
            nothing = torch.zeros_like(chains["v"][chain])
            shifts.append(self._prior_of_items(model, nothing, state.above, chain))
        covariance = torch.stack([rows.covariances() for rows in given_u])
        loc, shift = torch.stack([rows.loc for rows in given_u]), torch.stack(shifts)
        if bool(shift.any()):  # v around z + shift: what q(v) is at z = 0
            loc = loc + model.lambda_v * (covariance @ shift[..., None]).squeeze(-1)
        acceptance = torch.ones_like(chains["z"][..., 0])
        if model.item_prior.latent:
            acceptance = self._draw_content(state, loc, covariance, shift)
        slope = model.lambda_v * (covariance @ chains["z"][..., None]).squeeze(-1)
        for chain, rows in enumerate(given_u):
            chains["v"][chain] = draw_rows(replace(rows, loc=loc[chain])) + slope[chain]
            if state.above:
                self._draw_above(state, chain)
        state.n_sweeps += 1
        return acceptance

    def _draw_above(self, state: State, chain: int) -> None:
        """The sites above u and v given them, in closed form."""
        values = {name: value[chain] for name, value in state.above.items()}
        u, v, z = (state.chains[name][chain] for name in "uvz")
        best = best_above(state.model, values, u, v, z)
        for name, value in best.draw().items():
            state.above[name][chain] = value

    def _draw_content(self, state: State, loc: Tensor, covariance: Tensor, shift: Tensor | None = None) -> Tensor:
        """A Hamiltonian step of z with v integrated out; before the first stored draw its sizes are adapted.

        Shapes: ``loc`` (n_chains, n_items, n_factors) and ``covariance`` of v_j given z_j = 0 and U, where the prior
        mean of v_j is ``shift``.
        """
        model, z = state.model, state.chains["z"]
        assert state.log_step is not None and state.content_precision is not None
        pull, quadratic = coupling(loc.flatten(0, 1), covariance.flatten(0, 1), model.lambda_v)
        if shift is not None:
            pull = pull - model.lambda_v * shift.flatten(0, 1)
        own = quadratic.diagonal(dim1=-2, dim2=-1).view_as(z)
        scale = (state.content_precision + own).rsqrt().flatten(0, 1)
        jitter = 0.8 + 0.4 * torch.rand_like(state.log_step)

        def log_density(z: Tensor) -> Tensor:
            ratings = (pull * z).sum(-1) - 0.5 * ((quadratic @ z[..., None]).squeeze(-1) * z).sum(-1)
            return content_log_density(model, z, self.copies) + ratings

        size = (jitter * state.log_step.exp()).flatten()
        drawn, acceptance = hamiltonian(log_density, z.flatten(0, 1), scale, size, self._method.leapfrog)
        state.chains["z"] = drawn.view_as(z)
        acceptance = acceptance.view_as(state.log_step)
        if self._warming(state):
            gain = (1 + state.n_sweeps) ** -0.6
            state.log_step = (state.log_step + gain * (acceptance - ACCEPTANCE)).clamp(max=self._longest_step)
        return acceptance

    @torch.no_grad()
    def _log_joint(self, state: State) -> dict[str, Tensor]:
        """Log p(R|U,V), p(X|Z), p(U), p(V|Z) and p(Z) of every chain in nats and float64, (n_chains,) each."""
        n_chains = len(state.chains["u"])
        sites = {name: value for name, value in state.chains.items() if name != "z"} | state.above
        if state.model.item_prior.drawn:
            sites[state.model.item_prior.site] = state.chains["z"]
        values = [{name: value[chain] for name, value in sites.items()} for chain in range(n_chains)]
        found = [
            {name: part.double().sum() for name, part in log_densities(state.model, self.catalogue, given).items()}
            for given in values
        ]
        parts: Any = {}
        for name in found[0]:
            label = SITES.get(name, "log_p_above")
            parts[label] = parts.get(label, 0.0) + torch.stack([chain[name] for chain in found])
        own: Any = self.scale.terms(parts, state.model, self.n_ratings)
        return dict(own)

    @torch.no_grad()
    def posterior(self, state: State) -> Draws:
        """The stored draws; before the first of them, where the chains are."""
        if not state.joint:
            state = self.joint(state)
        parts = {name: draws[:, : state.n_stored] for name, draws in state.stored.items()}
        if not state.n_stored:
            log_joint = torch.stack(list(self._log_joint(state).values())).sum(0)
            now = state.chains | state.above | {"log_joint": log_joint}
            parts = {name: draw[:, None] for name, draw in now.items()}
        n_chains = len(parts["u"])
        flat = {name: draws.flatten(0, 1).detach().cpu().clone() for name, draws in parts.items()}
        z = flat["z"] if state.model.has_content else None
        above = {f"{name}_draws": flat[name] for name in state.above}
        drawn = Draws.of(flat["u"], flat["v"], z, flat["log_joint"], n_chains, state.model.lambda_v, above)
        known: Any = replace(self.scale.posterior(drawn), tells_users=state.model.tells_users())
        return known

    def snapshot(self, state: State) -> Snapshot:
        """Networks and optimiser, the chains, their step sizes and what has been stored."""
        tensors, meta = super().snapshot(state)
        if state.joint:
            assert state.log_step is not None
            tensors |= {f"chains.{name}": draw for name, draw in (state.chains | state.above).items()}
            tensors["log_step"] = state.log_step
            made = {name: draws[:, : state.n_stored].contiguous() for name, draws in state.stored.items()}
            tensors |= {f"stored.{name}": draws for name, draws in made.items()}
        return tensors, meta | {"n_stored": state.n_stored, "n_sweeps": state.n_sweeps}

    def restore(self, snapshot: Snapshot) -> State:
        """The state of a snapshot."""
        tensors, meta = snapshot
        state = super().restore(snapshot)
        state.n_stored, state.n_sweeps = meta["n_stored"], meta["n_sweeps"]
        if state.joint:
            state.log_step = tensors["log_step"].clone()
            for name, draw in (state.chains | state.above).items():
                draw.copy_(tensors[f"chains.{name}"])
            for name, draws in state.stored.items():
                draws[:, : state.n_stored] = tensors[f"stored.{name}"]
            self._prepare(state.model)
            state.content_precision = encode(state.model, self.observations)[1].square().reciprocal()
        return state


def draw_rows(rows: Gaussians) -> Tensor:
    """A draw of every row of one side, (n_rows, n_factors)."""
    return rows.moved(torch.randn_like(rows.loc), rows.root())


def coupling(loc: Tensor, covariance: Tensor, lambda_v: float) -> tuple[Tensor, Tensor]:
    """What the ratings say of z with v integrated out: exp(h'z - 1/2 z'Qz), see the module's docstring.

    Shapes: ``loc`` m (n_rows, n_factors) and ``covariance`` S (n_rows, n_factors, n_factors) of v given z = 0; h
    (n_rows, n_factors), Q (n_rows, n_factors, n_factors).
    """
    eye = torch.eye(loc.shape[-1], dtype=loc.dtype, device=loc.device)
    return lambda_v * loc, lambda_v * (eye - lambda_v * covariance)


def content_log_density(model: FactorModel, z: Tensor, batch: Batch) -> Tensor:
    """Log p(z_j) + log p(x_j | z_j) of the Pyro program's items in nats, (n_items,)."""
    trace = poutine.trace(poutine.condition(model.content_only, data={"z": z})).get_trace(batch)
    trace.compute_log_prob(lambda name, site: name in ("z", "x"))
    return trace.nodes["z"]["unscaled_log_prob"] + trace.nodes["x"]["unscaled_log_prob"]


def log_densities(model: FactorModel, batch: Batch, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Log densities of the Pyro program's sites in nats, a row each, with the latent ones ``given``.

    Of u (n_users,), of v, z, R and x (n_items,), of a site above u and v its own batch shape.
    """
    with model.sparse():
        trace = poutine.trace(poutine.condition(model, data=given)).get_trace(batch)
        names = [name for name in (*SITES, *model.sites_above(poutine.trace(model.above).get_trace()))]
        names = [name for name in names if name in trace.nodes]
        trace.compute_log_prob(lambda name, site: name in names)
    return {name: trace.nodes[name]["unscaled_log_prob"] for name in names}


def copies(batch: Batch, n: int) -> Batch:
    """The contents of ``n`` catalogues, one after the other, as one; without ratings."""
    rows = torch.arange(len(batch.content), device=batch.items.device).repeat(n)
    columns = batch.columns.select(rows[:0])
    return Batch(batch.items.repeat(n), batch.content.select(rows), batch.inputs.select(rows[:0]), columns)


@torch.enable_grad()
def hamiltonian(
    log_density: Callable[[Tensor], Tensor], z: Tensor, scale: Tensor, size: Tensor, n_leapfrog: int
) -> tuple[Tensor, Tensor]:
    """A Hamiltonian step of many rows that are independent of one another, each accepted or not by itself.

    Parameters: ``log_density`` of rows (n_rows, n_factors) in nats, (n_rows,); ``scale`` (n_rows, n_factors) standard
    deviations as they are guessed, the masses being 1 / scale^2; ``size`` (n_rows,) of the ``n_leapfrog`` leapfrog
    steps, in these. Returns the rows and the probabilities of acceptance (n_rows,). Source: R. Neal, MCMC using
    Hamiltonian dynamics, Handbook of Markov Chain Monte Carlo, 2011.
    """
    momentum = torch.randn_like(z) / scale

    def energy(z: Tensor, momentum: Tensor) -> Tensor:
        return 0.5 * (momentum * scale).square().sum(-1) - log_density(z)

    with torch.no_grad():
        before = energy(z, momentum)
    moved, pushed, _, _ = velocity_verlet(
        {"z": z.clone()},
        {"z": momentum},
        lambda sites: -log_density(sites["z"]).sum(),
        lambda momenta: {"z": momenta["z"] * scale.square()},
        size[:, None],
        n_leapfrog,
    )
    with torch.no_grad():
        acceptance = (before - energy(moved["z"], pushed["z"])).exp().clamp(max=1.0).nan_to_num(0.0)
        taken = torch.rand_like(acceptance) < acceptance
        return torch.where(taken[:, None], moved["z"], z), acceptance
