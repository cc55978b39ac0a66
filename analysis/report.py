"""A fit, or two side by side, as one HTML page: ``python -m analysis.report RUN [RUN] [--out FILE.html]``.

What was fitted, whether the content posterior lives, how good the rankings are (of explicit ratings how far predictions
are off), how sure, and for which users; lists of a few users with what is known about each score. The page
(``analysis/page/report.html.j2``) needs nothing besides itself: figures are inline SVG, there is no script, no font and
no address in it, its own policy forbids to load anything, and every text from the data is escaped.

This is the command, :mod:`analysis.page` does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.comparison.progress import progress
from analysis.page.options import ReportOptions
from inference.commands import parse
from inference.printing import show
from pyro_cvae.errors import run_command
from pyro_cvae.runs import check_runs
from pyro_cvae.whole import whole_file


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m analysis.report``."""
    (options,) = parse(
        "python -m analysis.report",
        "One HTML page about a fit, or about two side by side: what was fitted, whether the content posterior lives, "
        "how good, how sure, for which users. It needs no network.",
        (ReportOptions,),
        argv,
        positionals=("runs",),
        examples=(
            ("python -m analysis.report runs/bayes", "a page about one fit, report-bayes.html"),
            ("python -m analysis.report runs/map runs/bayes --user 42 --out report.html", "two fits, one user's lists"),
        ),
    )
    check_runs(options.runs)
    from analysis.page.making import report

    with progress() as on_step:
        page = report(options, on_step)
    assert options.out is not None
    path = Path(options.out)
    with whole_file(path) as new:
        new.write_text(page, encoding="utf-8")
    show(f"{len(page.encode()) / 1024:,.0f} KiB: {path}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
