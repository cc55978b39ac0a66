r"""Does it pay to explore? Rankings in a feedback loop with known truth: ``python -m analysis.bandit``.

Truth is drawn from the model's own story with real-valued ratings (``simulated-gaussian``'s precisions), and every
policy knows all of it but u, z and v:

    u_i ~ N(0, I / lambda_u),  mu_j ~ N(0, (1 - s^2) I),  z_j ~ N(mu_j, s^2 I),  v_j ~ N(z_j, I / lambda_v),
    R_ij ~ N(u_i.v_j, 1 / a) of the items shown; what was not shown is missing (b = 0).

mu_j and s are what an encoder at the truth says of the text; ``content``, 1 - s^2, is the share of z that the text
tells. In each round new items enter, every user is shown a slate and rates it; then q(U) and q(V) are updated in closed
form (three sweeps of :mod:`inference.algorithms.half_steps` over all ratings, from the last q(V)). An item is shown to
a user once (an article) or again whenever it ranks high (a song), each time with a rating of its own.

Policies: ``random``; ``map``, the mean of point estimates; ``greedy``, the posterior mean; ``ucb``, mean + sd;
``thompson``, a posterior draw a user. Regret is the true score that a policy's slates have less than those of an oracle
that always shows each user the best items it may, summed over rounds, by user; no policy can do better. Truth, ratings
and first ratings of a replication are the same for all policies, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.exploring.options import BASELINE, POLICIES, BanditOptions
from inference.commands import parse
from inference.printing import Sheet, emit, write_frame
from pyro_cvae.errors import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    (options,) = parse(
        "python -m analysis.bandit",
        "Thompson ranking, UCB, greedy, MAP and random showing in a simulated feedback loop with known truth.",
        (BanditOptions,),
        argv,
        examples=(
            ("python -m analysis.bandit --figure bandit.png", "the figure of the documentation, in some minutes"),
            ("python -m analysis.bandit --content 0.5 --slate 1 --replications 10", "one setting"),
        ),
    )
    from analysis.exploring.play import simulate
    from analysis.exploring.regret import draw, summarise
    from inference.threads import torch_threads

    with torch_threads(1):  # the matrices are small
        found = simulate(options)
    title = f"cumulative regret a user after {options.rounds} rounds, {options.replications} worlds, 95 % intervals"
    summary = summarise(found)
    shown = Sheet(["content", "shows", "slate", "policy", "regret", "less greedy's, paired"], title=title)
    for row in summary.itertuples():
        difference = "" if row.policy == BASELINE else f"{row.more:+.2f} ± {row.more_half:.2f}"
        cells = (
            f"{row.content:g}",
            row.shows,
            str(row.slate),
            row.policy,
            f"{row.regret:.2f} ± {row.regret_half:.2f}",
            difference,
        )
        shown.add_row(*cells)
        if row.policy == POLICIES[-1]:
            shown.add_rule()
    emit([shown], {"regret": summary}, options.format)
    if options.out is not None:
        write_frame(found, options.out)
    if options.figure is not None:
        draw(found, options.figure)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
