"""When does Bayes pay? ``python -m benchmarks.when_bayes``: points beside posteriors, part by part, on paired splits.

Parts: ``clicks`` (citeulike-t), ``stars`` (MovieLens-100k with few and many ratings a user), ``gaussian`` (simulated
ratings with known truth), ``new-users`` (folded in with 1, 3 and 10 items), ``exploring`` (regret). Settings are chosen
on validation parts of training ratings. Each finished (part, case, split, model) is a line of ``rows.csv`` in the
folder ``--out``; the same command goes on where a stopped one was. Intervals are 95 % t-intervals of the mean over
splits of paired differences.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.study.arguments import add_data, add_threads, as_command, command, compute_with

if TYPE_CHECKING:
    from benchmarks.bayes_study.store import Store

PARTS = ("clicks", "stars", "gaussian", "new-users", "exploring")


def main(argv: list[str] | None = None) -> None:
    """Measure what is not there yet, print a table a part, draw the figure."""
    parser = command("when_bayes", __doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which parts")
    parser.add_argument("--splits", type=int, default=3, help="splits, data sets or sets of worlds")
    parser.add_argument("--out", type=Path, default=Path("runs/when-bayes"), help="folder of the rows")
    parser.add_argument("--figure", type=Path, help="a .png file for the forest plot")
    parser.add_argument("--films", type=Path, help="folder with ml-100k.inter and ml-100k.item (default: the cache)")
    add_data(parser, "citeulike-t")
    add_threads(parser, 1)
    arguments = parser.parse_args(argv)
    compute_with(arguments.threads)
    logging.getLogger("pyro_cvae").setLevel(logging.ERROR)  # the same contents are trained on again and again
    from benchmarks.bayes_study.parts import measure
    from benchmarks.bayes_study.store import Store

    store = Store(arguments.out, {"data": str(arguments.data), "films": str(arguments.films or "the cache")})
    for part in arguments.parts:
        measure(store, part, arguments)
    tell(store, [part.replace("-", " ") for part in arguments.parts])
    if arguments.figure:
        from benchmarks.bayes_study.figure import draw

        draw(store, arguments.figure)


def tell(store: Store, parts: list[str]) -> None:
    """Print a table of each part, and what the choice of settings costs."""
    from benchmarks.bayes_study.summary import costs, table
    from benchmarks.study.tables import show

    for part in parts:
        headings, rows = table(store, part)
        show(headings, rows, left=2, width=180, title=part)
    headings, rows = costs(store, parts)
    if rows:
        show(headings, rows, left=3, width=180, title="what choosing costs; the last columns are CPU seconds")


if __name__ == "__main__":
    as_command(main)
