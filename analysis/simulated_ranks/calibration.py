"""One round of simulation-based calibration: simulate, draw, rank."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from analysis.simulated_ranks.options import BREAKS, SBCOptions
from analysis.simulated_ranks.ranks import Ranks
from analysis.simulated_ranks.simulation import Prior, latent, simulate
from inference.algorithms.convergence import diagnose
from inference.algorithms.mcmc import MCMC, log_densities
from inference.options import Options
from inference.threads import torch_threads
from models.base import FactorModel
from models.observations import Observations


def posterior_draws(
    model: FactorModel,
    observations: Observations,
    options: SBCOptions,
    seed: int,
    broken: str = "",
    factor: float = 2.0,
) -> Iterator[dict[str, Tensor]]:
    """Draws of u, v and any z of all blocks by :class:`inference.algorithms.mcmc.MCMC`, started at draws of the prior.

    ``broken`` names a precision that the sampler, not the simulation, takes ``factor`` times.
    """
    times = {name: factor if name == broken else 1.0 for name in BREAKS}
    if broken == "a":
        columns = observations.columns
        observations = replace(observations, columns=replace(columns, confidences=factor * columns.confidences))
    believed = deepcopy(model)
    believed.set_precisions(model.lambda_u * times["lambda_u"], model.lambda_v * times["lambda_v"], 1.0)
    steps = {"draws": options.draws, "warmup": options.warmup, "thin": options.thin, "max_memory": 8.0}
    chosen = Options.of(
        "mcmc", model=options.model, factors=model.n_factors, pretrain_epochs=0, dtype="float64", chains=1, **steps
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        sampler = MCMC(lambda: believed, observations, chosen)
        state = sampler.joint(sampler.pretraining(believed))  # no start_alive: the networks are held at the truth
        for _ in range(sampler.n_steps):
            state, _ = sampler.step(state)
    for index in range(state.n_stored):
        yield {name: state.stored[name][0, index] for name in latent(model)}


def quantities(model: FactorModel, observations: Observations, n: int, **drawn: Tensor) -> dict[str, Tensor]:
    """What is ranked, of each of ``n`` blocks, (n,), from u, v and any z.

    Log densities by the Pyro program, the norm of UV', five u.v; without z lengths of a u and a v.
    """
    batch = observations.batch(torch.arange(model.n_items))
    with torch.no_grad():
        densities = {name: part.view(n, -1).sum(-1) for name, part in log_densities(model, batch, drawn).items()}
    u, v = (drawn[name].view(n, -1, model.n_factors) for name in "uv")
    scores = u @ v.mT
    found = {"log p(R|U,V)": densities["R"], "log p(U)": densities["u"]}
    if model.item_prior.latent:
        found |= {"log p(V|Z)": densities["v"], "log p(Z,X)": densities["z"] + densities["x"]}
    else:
        found |= {"log p(V)": densities["v"], "|u1|": u[:, 0].norm(dim=-1), "|v1|": v[:, 0].norm(dim=-1)}
    found["norm of UV'"] = scores.square().sum((-1, -2)).sqrt()
    return found | {f"u{k}.v{k}": scores[:, k - 1, k - 1] for k in range(1, 6)}


def calibrate(options: SBCOptions, seed: int, broken: str = "") -> Ranks:
    """Simulate, draw, and rank: one round of simulation-based calibration with a seed of its own."""
    with torch_threads(1):  # a second one only waits: no array here is large
        return _calibrate(options, seed, broken)


def _calibrate(options: SBCOptions, seed: int, broken: str) -> Ranks:
    n = options.simulations
    model, observations, truth = simulate(
        Prior(options.model, a=options.a, b=options.a / 10, words=options.words), n, seed
    )
    true = quantities(model, observations, n, **truth)
    drawn = [
        torch.stack(list(quantities(model, observations, n, **draw).values()), -1)
        for draw in posterior_draws(model, observations, options, seed + 1, broken)
    ]
    draws = torch.stack(drawn)  # (n_draws, n_simulations, n_quantities)
    ranks = (draws < torch.stack(list(true.values()), -1)).sum(0)
    ess = diagnose(draws.flatten(1)[None]).ess_bulk.view(n, -1).mean(0)
    return Ranks(tuple(true), ranks.numpy(), options.draws, ess.numpy())
