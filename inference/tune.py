"""Choosing settings by the validation recall: ``python -m inference.tune svi|coordinate --search NAME=LOW:HIGH ...``.

Of explicit ratings the root mean square error on the validation part is what is made small.

Each trial is a fit of the training ratings without their validation part; the test part is taken away before the first
one. optuna's tree-structured Parzen estimator (Bergstra et al., *Algorithms for Hyper-Parameter Optimization*, NeurIPS
2011) draws the settings. Every trial is stored as it ends, and its draw depends on the seed and the trials before it
alone: a search that was stopped goes on to the same trials. What is found is a YAML file that the fit commands take.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.commands import parse
from inference.numerals import metric
from inference.options import METHODS, DataOptions, Options, RunOptions
from inference.printing import Sheet, emit
from inference.progress import Lines
from inference.tuning.options import RUN_KEYS, TuneOptions
from pyro_cvae.data.names import check_there
from pyro_cvae.errors import InputError, run_command

if TYPE_CHECKING:
    import optuna

    from inference.tuning.search import OnStep

DESCRIPTION = (
    "Search settings by the recall on the validation part of the training ratings, or of explicit ratings by the RMSE; "
    "never looks at test pairs."
)
EXAMPLES = (
    (
        "python -m inference.tune coordinate --search lambda_u=1:1000:log lambda_v=0.1:100:log --validation 0.2",
        "two precisions on the embedded simulated catalogue",
    ),
    (
        "python -m inference.tune svi --preset paper --data citeulike-t --validation 0.2 --search factors=50,100,200 "
        "'hidden=200 100,400' word_dropout=0:0.7 --trials 100 --timeout 600 --out mine.yaml",
        "from the paper's settings, at most ten hours; the same command goes on where it was stopped",
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Search, write the YAML file, print the best trials."""
    words = list(sys.argv[1:] if argv is None else argv)
    tune, base = _asked(words)
    data = base.data
    if not data.validation and data.validation_file is None:
        raise InputError("--validation is 0.0, but the search needs a validation part", "give --validation 0.2")
    check_there(data.data, data.items)
    out, storage = _places(tune, data)
    from inference.tuning.space import dimensions

    dimensions(tune.search, base)
    from pyro_cvae.data.split_files import load_data
    from pyro_cvae.data.splits import make_split

    dataset = load_data(data)
    base = base.for_contents(dataset.contents)
    split = make_split(dataset, data)
    from inference.tuning.search import identity_of, is_explicit, search
    from inference.tuning.settings import write_settings
    from inference.tuning.study import distribution_of, finished, open_study, ranked

    identity = identity_of(tune, base, dataset, split)
    space = {one.name: distribution_of(one) for one in dimensions(tune.search, base)}
    with open_study(storage, identity, "minimize" if is_explicit(base) else "maximize", space) as study:
        try:
            with _progress(tune) as (on_trial, on_step):
                search(study, tune, base, dataset, split, on_trial, on_step)
        finally:
            if ranked(study):
                command = shlex.join(["python", "-m", "inference.tune", *words])
                write_settings(out, study, tune, base, split, command)
                _report(study, tune, base, out)
        if not ranked(study):
            failed = [trial.user_attrs["failed"] for trial in finished(study) if "failed" in trial.user_attrs]
            reason = f": {failed[-1]}" if failed else ""
            raise InputError(f"no trial has worked{reason}", "search elsewhere, with another --storage", path=storage)


def _asked(words: Sequence[str]) -> tuple[TuneOptions, Options]:
    """What is searched, and the settings that the search begins with."""
    method = next((word for word in words if word in METHODS), "coordinate")
    if sum(word.partition("=")[0] == "--search" for word in words) > 1:
        raise InputError("--search is given twice", "give all searched options after one --search")
    tune, data, model, fit, own = parse(
        "python -m inference.tune",
        DESCRIPTION,
        (TuneOptions, *Options.classes(method)[:-1]),
        words,
        positionals=("method",),
        examples=EXAMPLES,
        preset_classes=tuple(METHODS.values()),
        passed_over=RUN_KEYS,
    )
    if tune.method != method:
        raise InputError(f"{method!r} is read as the method, but {tune.method!r} is it", "give the method first")
    return tune, Options(data, model, replace(fit, tune=0), own, RunOptions())


def _places(tune: TuneOptions, data: DataOptions) -> tuple[Path, Path]:
    """The YAML file of the settings and the SQLite file of the trials; InputError where there is the first alone."""
    from pyro_cvae.data.split_files import label_of

    out = Path(f"runs/tune-{label_of(data)}-{tune.method}.yaml" if tune.out is None else tune.out)
    storage = out.with_suffix(".db") if tune.storage is None else Path(tune.storage)
    if out.exists() and not storage.exists():
        raise InputError("is there already, but no trials are", "choose another --out, or remove it", path=out)
    return out, storage


@contextmanager
def _progress(tune: TuneOptions) -> Iterator[tuple[Callable[[optuna.Study], None], OnStep]]:
    """A bar for the trials and one for the fit, on a terminal; lines where stderr is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from inference.tuning.study import finished, ranked

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = console.is_terminal and not tune.quiet
    lines = Lines() if not console.is_terminal and not tune.quiet else None
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not shown) as bar:
        trials = bar.add_task("trials", total=tune.trials, note="")
        fit = bar.add_task("fit", total=None, note="")

        def on_trial(study: optuna.Study) -> None:
            measure = "RMSE" if study.direction.name == "MINIMIZE" else "recall"
            values = [trial.value for trial in ranked(study)[:1] if trial.value is not None]
            best = "".join(f"best validation {measure} {metric(measure, value)}" for value in values)
            done = len(finished(study))
            bar.update(trials, completed=done, note=best)
            if lines:
                lines.tell("trials", f"{done}/{tune.trials} {best}".rstrip(), always=True)

        def on_step(step: int, n_steps: int, row: dict[str, Any]) -> None:
            looked = {"recall": row.get("validation_recall"), "RMSE": row.get("validation_rmse")}
            note = "".join(
                f"validation {name} {metric(name, value)}" for name, value in looked.items() if value is not None
            )
            bar.update(fit, description=row["phase"], completed=step, total=n_steps, note=note)
            if lines:
                lines.tell(f"  {row['phase']}", f"{step}/{n_steps} {note}".rstrip())

        yield on_trial, on_step


def _report(study: optuna.Study, tune: TuneOptions, base: Options, out: Path) -> None:
    """Print the ten best trials, and how to fit with the best."""
    import pandas as pd

    from inference.tuning.settings import fit_command
    from inference.tuning.space import dimensions, settings
    from inference.tuning.study import counts, ranked

    space, best = dimensions(tune.search, base), ranked(study)
    title = f"trials: {counts(study)}"
    names = list(best[0].user_attrs["recalls"])
    table = Sheet(["trial", *names, *(one.name for one in space), "seconds"], title=title)
    records = []
    for trial in best[:10]:
        values = settings(trial.params, space, base).to_dict()
        recalls = [metric(name, trial.user_attrs["recalls"][name]) for name in names]
        shown = [" ".join(map(str, v)) if isinstance(v := values[one.name], tuple) else f"{v}" for one in space]
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        table.add_row(str(trial.number), *recalls, *shown, f"{seconds:.1f}")
        looked = trial.user_attrs["recalls"] | {one.name: values[one.name] for one in space}
        records.append({"trial": trial.number, **looked, "seconds": seconds})
    notes = [f"settings: {out}", f"next: {fit_command(tune, out)}"]
    emit([table], {"trials": pd.DataFrame(records)}, tune.format, notes)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
