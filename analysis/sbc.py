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

from analysis.simulated_ranks.options import SBCOptions
from inference.commands import parse
from inference.printing import Sheet, emit, show
from inference.progress import track
from pyro_cvae.errors import run_command
from pyro_cvae.text import counted


def main() -> None:
    """The command line."""
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

    from analysis.simulated_ranks.calibration import calibrate
    from analysis.simulated_ranks.ranks import LEVEL, plot

    ranks = calibrate(options, options.seed)
    outside = ranks.outside()
    sizes = f"{counted(options.simulations, 'simulation')}, {counted(options.draws, 'draw')} each"
    title = f"{sizes}, {LEVEL:.0%} band over all quantities"
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
