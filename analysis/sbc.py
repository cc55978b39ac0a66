r"""Simulation-based calibration of the sampler: ``python -m analysis.sbc``.

u, v, z, texts x and ratings R are drawn from the Pyro program, the networks and the exposure C given; then
:mod:`inference.mcmc` draws from p(u, v, z | R, x). If it draws from the posterior, the rank of a true quantity among L
independent draws of it is uniform on 0, ..., L. All simulations are one data set for the sampler, made of blocks that
share no user, no item and no cell: with b = 0 a cell that is not stored is no observation. What runs is therefore the
sampler as it is, not a copy of it.

With ``--model pmf`` there are no z and no texts, and v lies around 0. Single factors of it may turn and change their
signs; densities, lengths and scores do not, and these are what is ranked.

C is drawn before R and is a given, since in this model it may not depend on R for R to be drawn at all; every cell of a
block is stored, with its C.

Sources: S. Talts and others, Validating Bayesian inference algorithms with simulation-based calibration, 2018;
T. Säilynoja, P.-C. Bürkner, A. Vehtari, Graphical test for discrete uniformity, Statistics and Computing 32 (2022).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from analysis.kinds import Broken
from inference.kinds import Format
from inference.options.checking import check_file, check_least, check_seed, check_words, choice
from inference.printing import Sheet, emit, show
from inference.progress import track
from models.catalogue import MODELS
from pyro_cvae.errors import InputError, run_command

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from models.base import FactorModel
    from models.observations import Observations

BREAKS = get_args(Broken)
LEVEL = 0.99


@dataclass(frozen=True)
class SBCOptions:
    """How much is simulated, and how the sampler runs.

    Parameters:
        model: The story that is simulated (cvae, pmf).
        simulations: Data sets that are simulated.
        draws: Draws of each posterior that a true value is ranked among.
        thin: Sweeps between two of them.
        warmup: Steps of as many sweeps before the first.
        seed: Of everything random; broken samplers take the seeds from it on.
        broken: The precision that broken samplers take twice.
        broken_seeds: Broken samplers that are run, each on simulations of its own.
        words: Mean length of a simulated text, of cvae.
        a: Precision of a rating where the user was exposed; a tenth of it elsewhere.
        out: A PNG of the ECDFs, none by default.
        format: How the table is printed.
    """

    model: str = "cvae"
    simulations: int = 200
    draws: int = 99
    thin: int = 4
    warmup: int = 20
    seed: int = 0
    broken: Broken = "lambda_u"
    broken_seeds: int = 100
    words: float = 60.0
    a: float = 1.0
    out: str | None = None
    format: Format = "table"

    def __post_init__(self) -> None:
        check_words(self)
        choice("model", self.model, MODELS)
        check_least(self, {"simulations": 10, "draws": 9, "thin": 1, "warmup": 1, "broken_seeds": 0})
        if not (self.words >= 1 and 0 < self.a < float("inf")):
            raise InputError(f"--words is {self.words:g} and --a {self.a:g}", "use 1 or more words, and a precision a")
        check_seed(self.seed)
        check_file("out", self.out, ".png")


@dataclass(frozen=True)
class Prior:
    """One simulated data set: its sizes, and the precisions that it is drawn with.

    ``exposure`` is the share of cells with precision ``a``, the others having ``b``; ``words`` the mean length of a
    text. ``lambda_v`` is by default 4 around contents, and 1 where there are none.
    """

    model: str = "cvae"
    n_users: int = 6
    n_items: int = 7
    n_factors: int = 2
    n_features: int = 15
    lambda_u: float = 1.0
    lambda_v: float = 0.0
    a: float = 1.0
    b: float = 0.1
    exposure: float = 0.5
    words: float = 60.0

    def __post_init__(self) -> None:
        if not self.lambda_v:
            object.__setattr__(self, "lambda_v", 4.0 if self.has_content else 1.0)

    @property
    def has_content(self) -> bool:
        """Whether items have a z and a text."""
        return MODELS[self.model].has_content


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of true quantities among the draws, (n_simulations, n_quantities), each from 0 to ``n_draws``.

    ``ess`` is each quantity's mean effective sample size over the simulations.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    n_draws: int
    ess: np.ndarray

    def differences(self) -> np.ndarray:
        """ECDF minus the uniform one at 1 / (L + 1), ..., L / (L + 1), (n_draws, n_quantities)."""
        import numpy as np

        below = np.arange(1, self.n_draws + 1)
        ecdf = (self.ranks[None] < below[:, None, None]).mean(1)
        return ecdf - (below / (self.n_draws + 1))[:, None]

    def band(self, level: float = LEVEL) -> np.ndarray:
        """Where the differences of all quantities are at once, with this probability or more, (n_draws, 2).

        A simultaneous band of each at level 1 - (1 - level) / n_quantities: however they depend on one another.
        """
        return ecdf_band(len(self.ranks), self.n_draws, 1 - (1 - level) / len(self.names))

    def outside(self, level: float = LEVEL) -> list[str]:
        """Quantities whose ECDF leaves the band."""
        import numpy as np

        band, found = self.band(level), self.differences()
        left = ((found < band[:, :1] - 1e-12) | (found > band[:, 1:] + 1e-12)).any(0)
        return [self.names[index] for index in np.flatnonzero(left)]


def simulate(prior: Prior, n: int, seed: int) -> tuple[FactorModel, Observations, dict[str, Tensor]]:
    """``n`` data sets drawn from the Pyro program as blocks of one: the model, what is observed, and true u, v, z.

    Without content there is no z.
    """
    import torch
    from pyro import poutine

    from models.build import make_model
    from models.contents.multinomial import Multinomial
    from models.observations import Observations, RatingColumns, SparseRows
    from models.rows import AnyRows, NoRows

    n_users, n_items = n * prior.n_users, n * prior.n_items
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(seed)
        form, likelihood = (prior.n_features, Multinomial()) if prior.has_content else (None, None)
        model = make_model(n_users, n_items, form, likelihood, _ModelOptions(prior)).double().eval()
        for name, parameter in model.named_parameters():
            encodes = name.startswith(("encoder.loc", "encoder.log_variance"))
            parameter.copy_(torch.zeros_like(parameter) if encodes else torch.randn_like(parameter))
        texts: AnyRows = NoRows(n_items)
        if prior.has_content:
            lengths = torch.zeros(n_items, prior.n_features, dtype=torch.float64)
            lengths[:, 0] = 1 + torch.poisson(torch.full((n_items,), prior.words - 1.0, dtype=torch.float64))
            texts = SparseRows.from_dense(lengths)
        items = torch.arange(n_items)
        users = (items[:, None] // prior.n_items * prior.n_users + torch.arange(prior.n_users)).flatten()
        exposed = torch.rand(len(users), dtype=torch.float64) < prior.exposure
        columns = RatingColumns(
            torch.arange(n_items + 1) * prior.n_users,
            users,
            torch.zeros(len(users), dtype=torch.float64),
            torch.tensor([prior.b, prior.a], dtype=torch.float64)[exposed.long()],
            torch.ones(n_items, dtype=torch.bool),
            n_users,
        )
        drawn = poutine.trace(poutine.uncondition(model)).get_trace(Observations(texts, texts, columns).batch(items))
        every = drawn.nodes["R"]["value"].ratings.view(n_items, n_users)
        columns = replace(columns, ratings=every[columns.items, columns.users])
        if prior.has_content:
            texts = drawn.nodes["x"]["value"].to(dtype=torch.float64)
    return model, Observations(texts, texts, columns), {name: drawn.nodes[name]["value"] for name in latent(model)}


def latent(model: FactorModel) -> str:
    """Names of the sites that are drawn: u, v and, with contents, z."""
    return "uvz" if model.item_prior.latent else "uv"


class _ModelOptions:
    """The model's options of :func:`models.build.make_model`; cells that are not stored are missing."""

    hidden, activation, tied, radius, parametrization = (5,), "tanh", False, 0.0, "centred"
    lambda_w, lambda_r, b, lambda_b, biases = 1.0, 1.0, 0.0, 1.0, "off"
    rating_likelihood: ClassVar[str] = "confidence-normal"
    rating_likelihood_args: ClassVar[dict[str, Any]] = {}
    network = "auto"

    def __init__(self, prior: Prior) -> None:
        self.model = prior.model
        self.factors, self.a = prior.n_factors, prior.a
        self.lambda_u, self.lambda_v = prior.lambda_u, prior.lambda_v


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
    import torch

    from inference.algorithms.mcmc import MCMC
    from inference.options import Options

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
    import torch

    from inference.algorithms.mcmc import log_densities

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
    from inference.threads import torch_threads

    with torch_threads(1):  # a second one only waits: no array here is large
        return _calibrate(options, seed, broken)


def _calibrate(options: SBCOptions, seed: int, broken: str) -> Ranks:
    import torch

    from inference.algorithms.convergence import diagnose

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


def ecdf_band(n: int, n_draws: int, level: float) -> np.ndarray:
    """Simultaneous band of ECDF minus uniform of ``n`` ranks that are uniform on 0, ..., n_draws, (n_draws, 2).

    At x = k / (n_draws + 1) the count below is Binomial(n, x). The band is made of these binomials' central intervals
    at one common level, the smallest at which all counts are inside with probability ``level`` or more; that
    probability is exact, by recursion over k. Source: Säilynoja, Bürkner and Vehtari (2022), section 2.2.
    """
    import numpy as np
    from scipy.stats import binom

    counts, x = np.arange(n + 1), np.arange(1, n_draws + 1) / (n_draws + 1)
    steps = 1 / (n_draws + 1 - np.arange(n_draws))  # chance of being below the next point, if not below this one
    more = counts[None, :] - counts[:, None]
    moves = np.stack([binom.pmf(more, n - counts[:, None], step) for step in steps])

    def interval(tail: float) -> tuple[np.ndarray, np.ndarray]:
        return binom.ppf(tail, n, x), binom.isf(tail, n, x)

    def inside(tail: float) -> float:
        lower, upper = interval(tail)
        chance = (counts == 0).astype(float)
        for move, low, high in zip(moves, lower, upper, strict=True):
            chance = (chance @ move) * ((counts >= low) & (counts <= high))
        return float(chance.sum())

    low, high = 0.0, (1 - level) / 2  # the wider band is at the smaller tail
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) >= level else (low, middle)
    return np.stack(interval(low), -1) / n - x[:, None]


def plot(found: dict[str, Ranks], path: str, level: float = LEVEL) -> Path:
    """ECDF differences of all quantities with their band, an axes for each of ``found`` by its title."""
    import numpy as np

    from analysis.plots import colors, figure, save

    drawn, axes = figure(len(found), width=6.0, height=4.2)
    for index, (ax, (title, ranks)) in enumerate(zip(axes[0], found.items(), strict=True)):
        x = np.arange(1, ranks.n_draws + 1) / (ranks.n_draws + 1)
        band = ranks.band(level)
        ax.fill_between(x, band[:, 0], band[:, 1], color="#dddddd", step="mid", label=f"{level:.0%} of all at once")
        lines = list(zip(ranks.names, ranks.differences().T, colors(ranks.names), strict=True))
        for number, (name, difference, color) in enumerate(lines):
            style = "-" if number < len(lines) - 5 else "--"
            ax.step(x, difference, where="mid", color=color, linestyle=style, linewidth=1.2, label=name)
        ax.set(title=title, xlabel="rank of the truth / (draws + 1)", xlim=(0, 1))
        if index == 0:
            ax.set_ylabel("ECDF - uniform")
            ax.legend(fontsize=7, ncols=3, loc="lower center")
            ax.set_ylim(-0.24, 0.16)
    return save(drawn, path)


def main() -> None:
    """The command line."""
    from inference.commands import parse

    (options,) = parse(
        "python -m analysis.sbc",
        "Simulation-based calibration of inference.mcmc, and of samplers with one precision taken twice.",
        (SBCOptions,),
        examples=(
            ("python -m analysis.sbc --broken-seeds 1 --out sbc.png", "200 simulations, and a broken sampler beside"),
            ("python -m analysis.sbc --model pmf", "ratings alone: probabilistic matrix factorisation"),
            ("python -m analysis.sbc --broken lambda_v", "how many of 100 samplers with 2 lambda_v are caught"),
        ),
    )
    import pandas as pd

    ranks = calibrate(options, options.seed)
    outside = ranks.outside()
    title = f"{options.simulations} simulations, {options.draws} draws each, {LEVEL:.0%} band over all quantities"
    heads = ["quantity", "largest |ECDF - uniform|", "within the band", "effective draws, mean"]
    table, records = Sheet(heads, title=title), []
    for name, away, ess in zip(ranks.names, abs(ranks.differences()).max(0), ranks.ess, strict=True):
        table.add_row(name, f"{away:.3f}", "no" if name in outside else "yes", f"{ess:.0f}")
        records.append({"quantity": name, "away": away, "within": name not in outside, "effective_draws": ess})
    emit([table], {"quantities": pd.DataFrame(records)}, options.format)
    stream = sys.stdout if options.format == "table" else sys.stderr
    seeds = [options.seed + 1000 * (1 + index) for index in range(options.broken_seeds)]
    shown, caught = {"the sampler": ranks}, 0
    for seed in track(seeds, "broken samplers"):
        broken = calibrate(options, seed, options.broken)
        shown.setdefault(f"with {options.broken} taken twice", broken)
        caught += bool(broken.outside())
    if seeds:
        show(f"with {options.broken} taken twice: {caught} of {len(seeds)} caught", stream)
    if options.out:
        show(f"figure: {plot(shown, options.out)}", stream)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
