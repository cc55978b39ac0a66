"""Metrics of fitted models on the test part of their split, beside what a user would pick instead.

``python -m inference.evaluate RUN... --rivals`` prints a table for each data set and split
(:mod:`inference.evaluation`). Fits of explicit ratings are not ranked: their tables have errors and coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.commands import parse
from inference.kinds import Format
from inference.options.checking import check_cutoffs, check_file, check_least, check_words
from inference.printing import Sheet, emit, write_frame
from pyro_cvae.errors import run_command
from pyro_cvae.protocol import CUTOFFS, Protocol
from pyro_cvae.runs import check_runs


@dataclass(frozen=True)
class EvaluateOptions:
    """Which runs are compared, how, and where the numbers go.

    Parameters:
        runs: Run folders, as the fit commands leave them.
        rivals: Put popularity, TF-IDF cosine, truncated-SVD cosine and implicit's ALS into the same table, of explicit
            ratings their mean, and the mean with biases by ridge.
        protocol: corrected takes training items out of the ranking; paper leaves them in and counts them as hits.
        cutoffs: The M of recall@M; one of all items or more is half of them, since its recall would be 1.
        candidates: A file of the items that are ranked: a table with a column item, and if there user, for candidates
            of each user, test items among them; or one id a line. By default all items.
        out: A .csv or .parquet file for the means, by model, users and group of items.
        per_user: A .csv or .parquet file for the metrics of every user.
        threads: Number of threads; all that torch takes by itself if not given.
        block_size: Users scored at once.
        format: How the tables are printed.
        trust: Class paths outside of the package that the runs may import; see docs/security.md.
        csv_safe: Put an apostrophe before texts in CSV that a spreadsheet program would take for formulas.
    """

    runs: tuple[str, ...]
    rivals: bool = False
    protocol: Protocol = "corrected"
    cutoffs: tuple[int, ...] = CUTOFFS
    candidates: str | None = None
    out: str | None = None
    per_user: str | None = None
    threads: int | None = None
    block_size: int = 256
    format: Format = "table"
    trust: tuple[str, ...] = ()
    csv_safe: bool = False

    def __post_init__(self) -> None:
        check_words(self)
        check_cutoffs(self.cutoffs)
        check_least(self, {"threads": 1, "block_size": 1})
        for flag, file in (("out", self.out), ("per_user", self.per_user)):
            check_file(flag, file, ".csv", ".parquet")


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m inference.evaluate``."""
    (options,) = parse(
        "python -m inference.evaluate",
        "Metrics of fitted models on the test part of their split, in one table for each data set and split: of their "
        "rankings, or of explicit ratings errors and coverage.",
        (EvaluateOptions,),
        argv,
        positionals=("runs",),
        examples=(
            ("python -m inference.evaluate runs/bayes --rivals", "a run beside what one would pick instead"),
            ("python -m inference.evaluate runs/map runs/bayes --out table.csv", "two runs, the numbers kept"),
        ),
    )
    check_runs(options.runs)
    from inference.evaluation.comparison import compare
    from inference.evaluation.tables import means_frame, per_user_frame, rating_report, report

    comparisons = compare(
        options.runs,
        rivals=options.rivals,
        protocol=options.protocol,
        cutoffs=options.cutoffs,
        candidates=options.candidates,
        threads=options.threads,
        block_size=options.block_size,
        trust=options.trust,
    )
    parts: list[Sheet | str] = []
    for comparison in comparisons:
        parts += rating_report(comparison) if comparison.explicit else report(comparison, options.protocol)
    emit(parts, {"means": means_frame(comparisons)}, options.format, safe=options.csv_safe)
    if options.out is not None:
        write_frame(means_frame(comparisons), options.out, options.csv_safe)
    if options.per_user is not None:
        write_frame(per_user_frame(comparisons), options.per_user, options.csv_safe)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
