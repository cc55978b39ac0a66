"""Options of one algorithm alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inference.kinds import Gather, Method
from inference.options.checking import check, check_words


@dataclass(frozen=True)
class SVIOptions:
    """Of stochastic variational inference alone: the gradient steps of u and v.

    Parameters:
        factor_learning_rate: Adam's step of u and v, in standard deviations of their priors, and of the rating
            likelihood's own parameters.
        init_scale: Standard deviations of q(u) and q(v) at the start, in those of their priors.
    """

    factor_learning_rate: float = 0.03
    init_scale: float = 0.4

    def __post_init__(self) -> None:
        for name in ("factor_learning_rate", "init_scale"):
            check(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number above 0")


@dataclass(frozen=True)
class CoordinateOptions:
    """Of coordinate ascent alone: the closed-form sweeps over u and v.

    Parameters:
        sweeps: Sweeps over u and v at the end, with the networks held; after each epoch there is one besides.
        diagonal: In bayes, diagonal covariances of u and v in place of full ones, for less time and memory.
        max_memory: GiB that full covariances may take; above it the diagonal ones are taken, and named so.
        learn_precisions: In bayes, learn lambda_u and lambda_v within the sweeps.
        precision_prior: Weight of the Gamma priors around --lambda-u and --lambda-v, in shares of the data.
        gather: Of several workers, without full covariances: users that one gets for its items, all or those needed.
    """

    sweeps: int = 10
    diagonal: bool = False
    max_memory: float = 4.0
    learn_precisions: bool = False
    precision_prior: float = 1.0
    gather: Gather = "all"

    def __post_init__(self) -> None:
        check_words(self)
        check(self.sweeps >= 1, "sweeps", self.sweeps, "at least 1")
        for name in ("max_memory", "precision_prior"):
            check(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number above 0")


@dataclass(frozen=True)
class MCMCOptions:
    """Of Markov chain Monte Carlo alone: the networks are held after pre-training, --epochs counts for nothing.

    Parameters:
        draws: Stored draws of each chain.
        warmup: Steps before the first of them, in which Hamiltonian steps find their sizes.
        chains: Independent chains.
        thin: Sweeps over u, v and z in a step, of which the last is stored.
        leapfrog: Gradients of a Hamiltonian step of z.
        max_memory: GiB that the chains may take; data that need more are refused.
    """

    draws: int = 1000
    warmup: int = 300
    chains: int = 4
    thin: int = 1
    leapfrog: int = 5
    max_memory: float = 2.0

    def __post_init__(self) -> None:
        for name in ("draws", "warmup", "chains", "thin", "leapfrog"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        check(0 < self.max_memory < math.inf, "max_memory", self.max_memory, "a finite number above 0")


METHODS: dict[Method, type[SVIOptions] | type[CoordinateOptions] | type[MCMCOptions]] = {
    "svi": SVIOptions,
    "coordinate": CoordinateOptions,
    "mcmc": MCMCOptions,
}
"""The inference modules and their own options."""
