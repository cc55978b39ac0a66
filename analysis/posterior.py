r"""A posterior as ArviZ data: ``python -m analysis.posterior RUN --out FILE.nc``.

From a fit, or the folder of one, come joint draws of some users and items, of the scores u.v of pairs and of their
ratings, with log-likelihoods, prior, data and history, named by the data's own ids. What the groups hold is said by
``GROUPS`` in :mod:`analysis.draws.groups`; this is the command, :mod:`analysis.draws` does the work.

R is drawn by the run's own likelihood of ratings, given which cells there are and with what confidence. The paper's is
no generative model of clicks, because C depends on R in it (a where R = 1): what it draws are real numbers, no clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.commands import parse
from inference.kinds import Format
from inference.options.checking import check_file, check_least, check_new, check_words
from inference.printing import Sheet, emit
from pyro_cvae.errors import InputError, run_command
from pyro_cvae.runs import check_runs
from pyro_cvae.text import counted

if TYPE_CHECKING:
    from analysis.draws.datatree import pit, to_datatree, to_inference_data

__all__ = ["NAMES", "PosteriorOptions", "main", "pit", "to_datatree", "to_inference_data"]

NAMES = (
    *("summary", "ess", "rhat", "mcse", "loo", "loo_subsample", "loo_approximate_posterior", "loo_pit", "compare"),
    *("plot_forest", "plot_ecdf_pit", "plot_ppc_pit", "plot_ppc_dist", "plot_dist", "plot_trace", "plot_rank"),
    *("plot_khat", "plot_loo_pit"),
)
"""ArviZ's own functions that this module hands on: the names are those of 1.x, which the 0.8 parts have too."""

READERS = 'pip install "arviz>=1" netCDF4'
"""What opens the file elsewhere: neither ArviZ nor h5netcdf brings a reader of HDF5, netCDF4 and h5py are such."""


def __getattr__(name: str) -> Any:
    if name in ("pit", "to_datatree", "to_inference_data"):
        from analysis.draws import datatree

        return getattr(datatree, name)
    if name in NAMES:
        from analysis.draws.arviz_data import arviz_function

        return arviz_function(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class PosteriorOptions:
    """What is exported of a fitted model.

    Parameters:
        run: The run folder of a fit.
        out: The NetCDF file (.nc); without it only what it would hold is shown.
        draws: Joint draws in all; of MCMC a multiple of its chains.
        user: Users by their ids.
        users_from: A file of user ids, one a line.
        n_users: Users where none is named, evenly over their numbers of ratings; 0 takes all.
        item: Items by their ids.
        items_from: A file of item ids, one a line.
        n_items: Items where none is named, evenly over their numbers of training ratings; 0 takes all.
        pairs: A CSV or Parquet file with columns user and item; otherwise all pairs of the named users and items, or
            some training, test and other pairs of each user.
        user_log_likelihood: The log-likelihood of each user's ratings too, for which all items are drawn (slower).
        prior: Draws of the prior too.
        seed: Of the draws.
        max_memory: GiB that the arrays may take; more is refused.
        overwrite: Replace the file if it exists.
        format: How the list of variables is printed.
        trust: Class paths outside of the package that the run may import; see docs/security.md.
    """

    run: str
    out: str | None = None
    draws: int = 1000
    user: tuple[str, ...] = ()
    users_from: str | None = None
    n_users: int = 20
    item: tuple[str, ...] = ()
    items_from: str | None = None
    n_items: int = 20
    pairs: str | None = None
    user_log_likelihood: bool = False
    prior: bool = True
    seed: int = 0
    max_memory: float = 1.0
    overwrite: bool = False
    format: Format = "table"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_words(self)
        check_file("out", self.out, ".nc")
        if self.out is not None:
            check_new(Path(self.out), self.overwrite)
        check_least(self, {"draws": 1, "n_users": 0, "n_items": 0, "seed": 0})
        if not self.max_memory > 0:
            raise InputError(f"--max-memory is {self.max_memory:g}, but it must be above 0")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    (options,) = parse(
        "python -m analysis.posterior",
        "Export posterior draws as a NetCDF file that ArviZ, R and Julia read.",
        (PosteriorOptions,),
        argv,
        positionals=("run",),
        examples=(
            ("python -m analysis.posterior RUN --out posterior.nc", "some users and items"),
            ("python -m analysis.posterior RUN --out one.nc --user user-0001 --draws 4000", "one user"),
            ("python -m analysis.posterior RUN --out pairs.nc --pairs pairs.csv", "scores of named pairs"),
        ),
    )
    check_runs([options.run])
    import pandas as pd

    from analysis.draws.datatree import to_datatree
    from analysis.draws.netcdf import save
    from analysis.draws.selection import read_pairs
    from inference.fitting import load
    from pyro_cvae.data.delimited import read_ids

    fit = load(options.run, trust=options.trust)
    users = [*options.user, *(read_ids(options.users_from) if options.users_from else [])]
    items = [*options.item, *(read_ids(options.items_from) if options.items_from else [])]
    tree = to_datatree(
        fit,
        users or None,
        items or None,
        None if options.pairs is None else read_pairs(options.pairs),
        draws=options.draws,
        seed=options.seed,
        n_users=options.n_users,
        n_items=options.n_items,
        user_log_likelihood=options.user_log_likelihood,
        prior=options.prior,
        max_memory=options.max_memory,
    )
    title, notes = f"{fit.dataset.name}, {fit.posterior.kind}; no file, --out FILE.nc writes one", []
    if options.out is not None:
        save(tree, options.out, overwrite=options.overwrite)
        title, opened = options.out, f'open it: xarray.open_datatree("{options.out}")'
        notes = [opened, f"elsewhere: {READERS}; h5netcdf and h5py in place of netCDF4 will do"]
    emit([_sheet(tree, title)], {"variables": pd.DataFrame(_variables(tree))}, options.format, notes)


def _sheet(tree: Any, title: str) -> Sheet:
    """The groups of the data, each with its variables and their dimensions."""
    sheet = Sheet(["group", "variables"], title=title, texts=["variables"], whole=True)
    for name, group in tree.children.items():
        variables = [f"{v} ({', '.join(map(str, array.dims))})" for v, array in group.data_vars.items()]
        sheet.add_row(
            name, "; ".join(variables) if name != "history" else f"{counted(len(variables), 'column')} (epoch)"
        )
    return sheet


def _variables(tree: Any) -> list[dict[str, str]]:
    """A record for each variable of each group, with its dimensions and its shape."""
    return [
        {
            "group": name,
            "variable": str(variable),
            "dimensions": " ".join(map(str, array.dims)),
            "shape": " x ".join(map(str, array.shape)),
        }
        for name, group in tree.children.items()
        for variable, array in group.data_vars.items()
    ]


if __name__ == "__main__":
    raise SystemExit(run_command(main))
