r"""Is the fit sound? Traces, content, Pareto k, predictive checks: ``python -m analysis.diagnostics RUN --out FOLDER``.

- Traces: the objective and its named terms by epoch.
- Content: which units of q(z|x) are alive.
- Pareto k: how far q(u_i) is from what the items say about the user, for each user.
- Predictive checks: discrepancies of the data beside those of data drawn from posterior or prior.

C depends on R in the paper (a where R = 1), so that its ratings, real numbers, are drawn given the exposure: which
cells are stored, with what confidence. Of clicks and counts whose zeros are data whole rows of users are drawn.

This is the command, :mod:`analysis.soundness` does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.commands import parse
from inference.kinds import Format
from inference.options.checking import check_least, check_new, check_parent, check_words
from inference.printing import Sheet, emit
from inference.progress import Lines, progress
from pyro_cvae.errors import InputError, run_command
from pyro_cvae.runs import check_runs

if TYPE_CHECKING:
    from analysis.soundness.content import content_units
    from analysis.soundness.diagnosis import diagnose
    from analysis.soundness.objective import traces

__all__ = ["DiagnosticsOptions", "content_units", "diagnose", "main", "traces"]


def __getattr__(name: str) -> Any:
    if name == "content_units":
        from analysis.soundness import content

        return content.content_units
    if name == "diagnose":
        from analysis.soundness import diagnosis

        return diagnosis.diagnose
    if name == "traces":
        from analysis.soundness import objective

        return objective.traces
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class DiagnosticsOptions:
    """What is looked at.

    Parameters:
        run: The run folder of a fit.
        out: A folder for the figures (PNG) and tables (CSV); without it only the summary is shown.
        n_users: Users whose Pareto k is computed, evenly over their numbers of ratings; 0 takes all.
        draws: Draws for it.
        check_users: Users of the predictive checks; 0 takes all.
        check_texts: Texts of the predictive checks; 0 takes all.
        check_draws: Draws of the predictive checks.
        seed: Of the draws.
        overwrite: Write into a folder that exists.
        format: How the summary is printed.
        trust: Class paths outside of the package that the run may import; see docs/security.md.
    """

    run: str
    out: str | None = None
    n_users: int = 50
    draws: int = 1000
    check_users: int = 200
    check_texts: int = 100
    check_draws: int = 200
    seed: int = 0
    overwrite: bool = False
    format: Format = "table"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_words(self)
        least = {"n_users": 0, "draws": 100, "check_users": 0, "check_texts": 0, "check_draws": 10, "seed": 0}
        check_least(self, least)
        if self.out is not None:
            out = Path(self.out)
            if out.exists() and not out.is_dir():
                raise InputError("this is not a folder", "choose another --out", path=out)
            check_new(out, self.overwrite)
            check_parent("out", self.out)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    (options,) = parse(
        "python -m analysis.diagnostics",
        "Say whether a fit is sound: traces, content, Pareto k of users, predictive checks.",
        (DiagnosticsOptions,),
        argv,
        positionals=("run",),
        examples=(("python -m analysis.diagnostics RUN --out diagnostics", "the summary, figures and tables"),),
    )
    check_runs([options.run])
    from analysis.soundness.diagnosis import diagnose, write
    from inference.fitting import load

    fit = load(options.run, trust=options.trust)
    with progress(lines=Lines(free=0), transient=True) as tell:
        diagnosis = diagnose(
            fit,
            n_users=options.n_users,
            draws=options.draws,
            check_users=options.check_users,
            check_texts=options.check_texts,
            check_draws=options.check_draws,
            seed=options.seed,
            on_part=lambda part: tell(f"{part} ...", 0, None, ""),
        )
    if options.out is not None:
        write(diagnosis, options.out)
    sheet = Sheet(
        ["what", "value", "note"], title=f"{fit.dataset.name}, {fit.posterior.kind}", texts=["note"], whole=True
    )
    for row in diagnosis.summary.itertuples(index=False):
        sheet.add_row(*map(str, row))
    emit([sheet], {"summary": diagnosis.summary}, options.format)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
