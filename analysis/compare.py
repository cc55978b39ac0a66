"""Fits of one data set and split side by side: ``python -m analysis.compare RUN RUN ... [--out FOLDER]``.

How well each ranks, or of explicit ratings how far its predictions are off, with intervals over users, and by how much
it differs from the first run user by user; what the fit
maximised and how long that took; how the posterior spread shrinks with the number of ratings; how stable the lists are,
from run to run and from one posterior draw to the next. Any posterior that answers ``score_block``, ``score``,
``covariance``, ``select`` and ``draws`` can stand here; runs are opened one after the other, scores come in blocks.

This is the command, :mod:`analysis.comparison` does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.comparison.options import CompareOptions
from analysis.comparison.progress import progress
from analysis.comparison.result import FIGURE, FRAMES
from inference.commands import parse
from inference.printing import emit
from pyro_cvae.errors import run_command
from pyro_cvae.runs import check_runs
from pyro_cvae.whole import whole_folder

if TYPE_CHECKING:
    from analysis.comparison.figures import draw_differences, draw_recall
    from analysis.comparison.shrinkage import shrinkage
    from analysis.comparison.side_by_side import compare

__all__ = ["CompareOptions", "compare", "draw_differences", "draw_recall", "main", "shrinkage"]


def __getattr__(name: str) -> Any:
    if name == "compare":
        from analysis.comparison import side_by_side

        return side_by_side.compare
    if name == "shrinkage":
        from analysis.comparison import shrinkage as spread

        return spread.shrinkage
    if name in ("draw_differences", "draw_recall"):
        from analysis.comparison import figures

        return getattr(figures, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m analysis.compare``."""
    (options,) = parse(
        "python -m analysis.compare",
        "Fits of one data set and split side by side: recall (of explicit ratings errors and coverage) with intervals, "
        "differences user by user, objectives and seconds, posterior spread by the number of ratings, stability of the "
        "lists.",
        (CompareOptions,),
        argv,
        positionals=("runs",),
        examples=(
            ("python -m analysis.compare runs/map runs/bayes", "bayes beside map"),
            ("python -m analysis.compare runs/map runs/bayes --rivals --out compared", "and simple rivals, in files"),
        ),
    )
    check_runs(options.runs)
    from analysis.comparison.folder import write
    from analysis.comparison.side_by_side import compare
    from analysis.comparison.tables import tables

    notes = []
    if options.out is None:
        with progress() as on_step:
            comparison = compare(options, on_step)
    else:
        own = [*(f"{name}.csv" for name in (*FRAMES, "errors")), FIGURE]
        with whole_folder(options.out, options.overwrite, own) as folder:
            with progress() as on_step:
                comparison = compare(options, on_step)
            write(comparison, folder)
        notes = [f"Tables and {FIGURE}: {options.out}"]
    frames = {file: getattr(comparison, name) for name, file in comparison.files.items()}
    emit(tables(comparison), frames, options.format, notes)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
