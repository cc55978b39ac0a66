"""The factors of a fit for other programs: ``python -m inference.export RUN --format parquet --out FOLDER``.

Users and items become vectors whose plain inner products are the scores that this package's lists rank by, with their
ids, the pairs that lists leave out, and what else the posterior knows of them (:mod:`inference.exporting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.commands import parse
from inference.kinds import Export
from inference.options.checking import check_new, check_parent, check_words
from inference.printing import Sheet, emit
from pyro_cvae.errors import run_command
from pyro_cvae.runs import check_runs

READ = {
    "parquet": "read it: pandas.read_parquet('{out}/items.parquet'), polars and Arrow likewise",
    "npz": "read it: numpy.load('{out}/factors.npz', allow_pickle=False)",
    "faiss": "read it: faiss.read_index('{out}/items.faiss'); row n is row n of items.parquet",
}


@dataclass(frozen=True)
class ExportOptions:
    """What is exported of a fitted model, and where it goes.

    Parameters:
        run: The run folder of a fit.
        out: The folder to be made; without it only what it would hold is shown.
        format: Its files (parquet: tables of users, items and seen pairs; npz: arrays of numpy; faiss: an index of the
            items by inner product, with tables beside it).
        overwrite: Replace the folder, if it is of this command.
        trust: Class paths outside of the package that the run may import; see docs/security.md.
    """

    run: str
    out: str | None = None
    format: Export = "parquet"
    overwrite: bool = False
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_words(self)
        if self.out is not None:
            check_new(Path(self.out), self.overwrite)
            check_parent("out", self.out)


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m inference.export``."""
    (options,) = parse(
        "python -m inference.export",
        "Write the vectors of users and items, whose inner products are the scores of the lists, for other programs.\n"
        "A list is the items of the largest inner products, less the user's rows of the table 'seen'.",
        (ExportOptions,),
        argv,
        positionals=("run",),
        examples=(
            ("python -m inference.export RUN --out factors", "tables users, items and seen, as Parquet"),
            ("python -m inference.export RUN --format npz --out factors", "arrays for numpy, without pickle"),
            (
                "python -m inference.export RUN --format faiss --out index",
                "an index of the items, by faiss-cpu",
            ),
            ("python -m inference.export RUN", "what it would hold; nothing is written"),
        ),
    )
    check_runs([options.run])
    from inference.exporting.factors import factors_of
    from inference.exporting.folder import MANIFEST, check_format, export_factors, manifest_of, parts_of
    from inference.fitting import load

    check_format(options.format)
    fit, notes = load(options.run, trust=options.trust), []
    if options.out is None:
        factors = factors_of(fit)
        told = manifest_of(fit, factors, parts_of(factors, options.format), options.format)
        title = f"{fit.dataset.name}, {fit.posterior.kind}; no files, --out FOLDER writes them"
    else:
        told, title = export_factors(fit, options.out, options.format, overwrite=options.overwrite), options.out
        notes = [READ[options.format].format(out=options.out), f"what the columns are: {options.out}/{MANIFEST}"]
    emit([_sheet(told, title)], {}, notes=notes)


def _sheet(told: dict[str, Any], title: str) -> Sheet:
    """A row for each array of each file."""
    sheet = Sheet(["file", "column", "shape", "type"], title=title)
    for file, arrays in told["files"].items():
        for name, array in arrays.items():
            sheet.add_row(file, name, " x ".join(map(str, array["shape"])), array["dtype"])
    return sheet


if __name__ == "__main__":
    raise SystemExit(run_command(main))
