"""The fit commands' frame: read the options, load the data, fit with a progress bar, report in a table."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inference.commands import parse
from inference.memory import keep_free_memory
from inference.numerals import metric
from inference.options import METHODS, Options
from inference.printing import Sheet, emit
from inference.progress import progress
from pyro_cvae.data.names import check_there
from pyro_cvae.errors import run_command
from pyro_cvae.text import counted

if TYPE_CHECKING:
    import pandas as pd

    from inference.fitted import Fit
    from inference.starting import Start
    from pyro_cvae.data.dataset import Dataset
    from pyro_cvae.data.splits import Split

DESCRIPTIONS = {
    "svi": "Fit the Collaborative Variational Autoencoder, or another model, by stochastic variational inference.",
    "coordinate": "Fit the Collaborative Variational Autoencoder, or another model, by closed-form coordinate ascent.",
    "mcmc": "Draw from the posterior of the Collaborative Variational Autoencoder, or another model, by Monte Carlo.",
}
EXAMPLES = {
    "svi": (
        ("python -m inference.svi --mode bayes", "full variational Bayes on the embedded simulated catalogue"),
        (
            "python -m inference.svi --mode map --data citeulike-t --train-per-user 10 --validation 0.2 --patience 3",
            "point estimates on real data, stopped by the validation recall",
        ),
        (
            "python -m inference.svi --data ratings.csv --items items.csv --guide structured --out runs/mine",
            "your own tables, with item uncertainty",
        ),
    ),
    "coordinate": (
        ("python -m inference.coordinate --mode map", "the paper's own algorithm on the embedded simulated catalogue"),
        (
            "python -m inference.coordinate --mode bayes --learn-precisions",
            "full covariances, lambda_u and lambda_v learned from the training ratings",
        ),
        (
            "python -m inference.coordinate --data ratings.csv --items items.csv --guide structured --out runs/mine",
            "your own tables, with item uncertainty",
        ),
        (
            "python -m inference.coordinate --start-from runs/mine --data new.csv --items items.csv --out runs/next",
            "with new ratings, users and items, from where an older fit has ended",
        ),
    ),
    "mcmc": (
        ("python -m inference.mcmc --data simulated-gaussian --factors 5", "four chains on the embedded ratings"),
        (
            "python -m inference.mcmc --data ratings.csv --items items.csv --thin 5 --out runs/mine",
            "your own tables, if they are small",
        ),
    ),
}
NAMES = {"elbo": "ELBO", "map_objective": "MAP objective", "log_joint": "log joint, mean over chains"}


def run_fit(method: str) -> int:
    """Run ``python -m inference.<method>``; returns the exit code."""

    def main() -> None:
        classes = Options.classes(method)
        command, presets = f"python -m inference.{method}", tuple(METHODS.values())
        parts = parse(command, DESCRIPTIONS[method], classes, examples=EXAMPLES[method], preset_classes=presets)
        fit_and_report(Options(*parts))

    return run_command(main)


def fit_and_report(options: Options) -> None:
    """Load, split, fit, write the run folder, print what was found."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # of several workers blocks are large, and free ones are to go
        keep_free_memory()
    check_there(options.data.data, options.data.items)
    from pyro_cvae.data.split_files import label_of

    is_first = int(os.environ.get("RANK", "0")) == 0  # of the workers that torchrun starts one speaks for all
    data, run = options.data, options.run
    level = logging.WARNING if run.quiet else logging.INFO
    logging.getLogger("pyro_cvae").setLevel(level if is_first else logging.ERROR)
    if run.out is None:
        run = replace(run, out=f"runs/{label_of(data)}-{options.fit.mode}")
        options = replace(options, run=run)
    start = _start(options)
    dataset, split = _data(options, start)
    options = options.for_contents(dataset.contents)
    from inference.algorithms.workers import leave
    from inference.fitting import fit_with  # what cannot work is refused before torch is imported

    began = time.monotonic()
    with _on_step(run.quiet or not is_first) as on_step:
        fitted = fit_with(dataset, split, options, on_step, start=start)
    if is_first:
        _report(fitted, time.monotonic() - began)
    leave()


def _data(options: Options, start: Start | None) -> tuple[Dataset, Split]:
    """The data and their split; of several workers the first of each machine reads them."""
    from pyro_cvae.data.split_files import load_data
    from pyro_cvae.data.splits import make_split

    def read() -> tuple[Dataset, Split]:
        dataset = load_data(options.data, None if start is None else start.fit.dataset)
        options.for_contents(dataset.contents)
        return dataset, make_split(dataset, options.data)

    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or start is not None:
        return read()
    from inference.one_reader import read_once
    from pyro_cvae.trust import is_path

    return read_once(read, [name for name in (options.data.tokenizer,) if is_path(name)])


def _start(options: Options) -> Start | None:
    """What ``--start-from`` names, opened: its vocabularies are those that the data are read by."""
    if options.run.start_from is None:
        return None
    from inference.starting import Start

    return Start.of(options)


@contextmanager
def _on_step(quiet: bool) -> Iterator[Callable[[int, int, dict[str, Any]], None]]:
    """A progress bar on a terminal, lines where stderr is none."""
    with progress(quiet) as tell:

        def on_step(step: int, n_steps: int, row: dict[str, Any]) -> None:
            objective = next((row[name] for name in NAMES if name in row), 0.0)
            note = f"{objective:,.0f} nats"
            if "active_units" in row:
                note += f", {counted(row['active_units'], 'active unit')}"
            if row.get("validation_recall") is not None:
                note += f", validation recall {row['validation_recall']:.3f}"
            if row.get("validation_rmse") is not None:
                note += f", validation RMSE {metric('rmse', row['validation_rmse'])}"
            tell(row["phase"], step, n_steps, note)

        yield on_step


def _held_out(split: Split) -> str:
    """The numbers of pairs that were not fitted; those of a validation part may be test pairs too."""
    n_test, n_validation = (0 if one is None else int(one.observed.sum()) for one in (split.test, split.validation))
    share = n_test / max(1, n_test + int(split.train.observed.sum()))
    return f"{n_test:,} ({share:.0%}), {n_validation:,}" if n_test or n_validation else "none"


def _report(fitted: Fit, seconds: float) -> None:
    metrics, options = fitted.metrics, fitted.options
    name = NAMES[options.objective]
    last = fitted.history[metrics["best_epoch"] - 1] if fitted.history else {}
    title = f"{fitted.dataset.name}: {options.fit.mode}, {options.kind}, {options.model.parametrization}"
    table = Sheet(["what", "value"], title=title)
    table.add_row(
        "users, items, training pairs",
        f"{fitted.dataset.n_users:,}, {fitted.dataset.n_items:,}, {int(fitted.split.train.observed.sum()):,}",
    )
    table.add_row("held out: test, validation pairs", _held_out(fitted.split))
    if options.run.start_from is not None:
        table.add_row("goes on from", options.run.start_from)
    if last:
        label = name + " (tempered fit)" * options.tempered + ", pseudo-likelihood" * fitted.model.pseudo
        table.add_row(f"{label}, nats", f"{last[options.objective]:,.0f}")
        for term in (
            "ratings",
            "content",
            "kl_u",
            "kl_v",
            "log_p_u",
            "log_p_v",
            "log_p_z",
            "log_p_m",
            "kl_z",
            "kl_above",
            "log_p_above",
            "weights",
            "precisions",
        ):
            if last.get(term) is not None and last[term] == last[term]:
                table.add_row(f"  {term}", f"{last[term]:,.0f}")
    if content := metrics.get("content"):
        table.add_row("content: active units", f"{content['active_units']:.0f} of {options.model.factors}")
        table.add_row("content: KL an item, I(x; z), nats", f"{content['kl']:.2f}, {content['mutual_information']:.2f}")
    _add_tuning(table, metrics.get("tuning"))
    for key, value in metrics.get("convergence", {}).items():
        worst = f"{value['rhat']:.3f}, {value['ess_bulk']:,.0f}, {value['ess_tail']:,.0f}"
        table.add_row(f"{key}: largest R-hat, least bulk and tail ESS", worst)
    if "protocol" in metrics:
        users = f"{metrics['protocol']}, {counted(metrics['n_users_evaluated'], 'user')}"
        for key, value in metrics.items():
            if key.startswith(("recall@", "ndcg@")):
                table.add_row(f"{key} ({users})", f"{value:.4f}")
    if not fitted.split.train.complete and not len(fitted.split.test):
        table.add_row("test metrics", "none: no pair is held out")
    for group, row in metrics.get("user_groups", {}).items():
        name = next(key for key in row if key.startswith("recall@"))
        table.add_row(f"{name} of {counted(row['n_users'], 'user')} {group}", f"{row[name]:.4f}")
    for key in ("rmse", "mae", "coverage@50", "coverage@90"):
        if key in metrics:
            table.add_row(
                f"test ratings, {key} ({counted(metrics['n_ratings_evaluated'], 'pair')})", metric(key, metrics[key])
            )
    for key, value in metrics.get("recovery", {}).items():
        table.add_row(f"true scores, {key}", f"{value:.3f}")
    table.add_row("seconds", f"{seconds:.1f}")
    notes = []
    if fitted.path:
        user = str(fitted.dataset.user_ids[0])
        flags = [f"--user={user}"] if user.startswith("-") else ["--user", user]  # alone it were an option
        then = shlex.join([str(fitted.path), *flags])
        notes = [f"run folder: {fitted.path}", f"next: python -m inference.recommend {then}"]
    emit([table], {"fit": _numbers(fitted, seconds)}, options.run.format, notes)


def _add_tuning(table: Sheet, trials: list[dict[str, Any]] | None) -> None:
    """Rows on what short fits have found, where there were any."""
    if not trials:
        return
    found = next(row for row in reversed(trials) if row["taken"] == "yes")
    power = f" n^{found['b_power']:g}" if found.get("b_power") else ""
    how = f"b {found['b']:g}{power}, shrinkages {found['user_shrinkage']:.3g} and {found['item_shrinkage']:.3g}"
    table.add_row(f"found by {counted(len(trials), 'short fit')}", how)
    if any(row["cold_scale"] != 1 for row in trials):
        scales = _scales(trials)
        table.add_row("factors of contents of unrated items", ", ".join(f"{c:.2f} {kind}" for kind, c in scales))


def _scales(trials: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """C of unchosen items, that of the trial that was taken, and of new ones, each with its kind."""
    return [(row["cold"], row["cold_scale"]) for row in trials if row["taken"] == "yes"]


def _numbers(fitted: Fit, seconds: float) -> pd.DataFrame:
    """The same for a program: one row, the terms of the last epoch and all metrics by name."""
    import pandas as pd

    last = fitted.history[fitted.metrics["best_epoch"] - 1] if fitted.history else {}
    about = {
        "run": None if fitted.path is None else str(fitted.path),
        "data": fitted.dataset.name,
        "mode": fitted.options.fit.mode,
        "posterior": fitted.options.kind,
        "n_users": fitted.dataset.n_users,
        "n_items": fitted.dataset.n_items,
        "n_train": int(fitted.split.train.observed.sum()),
        "seconds": seconds,
    }
    terms = {name: value for name, value in last.items() if name not in ("epoch", "phase", "seconds")}
    metrics = {name: value for name, value in fitted.metrics.items() if name != "tuning"}
    return pd.DataFrame([about | terms | pd.json_normalize(metrics).iloc[0].to_dict()])
