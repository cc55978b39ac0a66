r"""Are the uncertainties right? ``python -m analysis.calibration RUN [RUN ...] [--out FOLDER]``.

Three questions, each a function of a fit with a frozen result:

- :func:`coverage`, where the truth is known (data drawn from the model): how often do intervals of u.v and of held-out
  ratings hold the truth, and are the truth's places among the posterior's draws uniform? Of explicit ratings the same
  of the held-out ones, without a known truth.
- :func:`reliability`, on clicks: is P(an item of the top list is a held-out positive) what happens? Scores become
  probabilities by a :class:`Recalibration` that is fitted on users who are then left out of every figure.
- :func:`error_correlation`: are errors larger where the posterior standard deviation is, beyond what score and
  popularity tell?

Only what any posterior answers is asked (scores with their sd, draws of scores), so draws of MCMC serve as well.

This is the command, :mod:`analysis.calibrated` does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.calibrated.options import CalibrationOptions
from inference.commands import parse
from inference.printing import emit
from pyro_cvae.errors import run_command
from pyro_cvae.runs import check_runs

if TYPE_CHECKING:
    from analysis.coverage import Coverage, coverage, draw_coverage
    from analysis.error_correlation import ErrorCorrelation, error_correlation
    from analysis.over_users import Interval
    from analysis.recalibration import Recalibration
    from analysis.reliability import Reliability, draw_reliability, reliability

__all__ = [
    "CalibrationOptions",
    "Coverage",
    "ErrorCorrelation",
    "Interval",
    "Recalibration",
    "Reliability",
    "coverage",
    "draw_coverage",
    "draw_reliability",
    "error_correlation",
    "main",
    "reliability",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from analysis import coverage, error_correlation, over_users, recalibration, reliability

    rooms = (coverage, error_correlation, over_users, recalibration, reliability)
    return next(getattr(room, name) for room in rooms if hasattr(room, name))


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m analysis.calibration``."""
    (options,) = parse(
        "python -m analysis.calibration",
        "Interval coverage where the truth is known, and of explicit ratings; on clicks, whether P(listed item is a "
        "held-out positive) comes true; whether errors follow the posterior sd.",
        (CalibrationOptions,),
        argv,
        positionals=("runs",),
        examples=(
            ("python -m analysis.calibration runs/simulated-gaussian-bayes --out calibration", "interval coverage"),
            ("python -m analysis.calibration runs/map runs/bayes --out calibration", "two fits of clicks"),
        ),
    )
    check_runs(options.runs)
    from analysis.calibrated import tables
    from analysis.calibrated.making import calibrate

    found, notes = calibrate(options), []
    if options.out is not None:
        tables.write(Path(options.out), *found)
        notes = [f"tables, figures and recalibrations: {options.out}"]
    emit(tables.sheets(*found), tables.frames(*found), options.format, notes)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
