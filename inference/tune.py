"""Choosing settings by the validation recall: ``python -m inference.tune svi|coordinate --search NAME=LOW:HIGH ...``.

Of explicit ratings the root mean square error on the validation part is what is made small.

Each trial is a fit of the training ratings without their validation part; the test part is taken away before the first
one. optuna's tree-structured Parzen estimator (Bergstra et al., *Algorithms for Hyper-Parameter Optimization*, NeurIPS
2011) draws the settings. Every trial is stored as it ends, and its draw depends on the seed and the trials before it
alone: a search that was stopped goes on to the same trials. What is found is a YAML file that the fit commands take.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inference.commands import option_of, parse, read_value, version
from inference.options import METHODS, DataOptions, Options, RunOptions
from inference.printing import Sheet, check_format, emit
from inference.progress import Lines
from inference.study import open_study
from pyro_cvae.errors import InputError, as_known, run_command

if TYPE_CHECKING:
    import optuna

    from inference.fitting import Pretrained
    from pyro_cvae.data.dataset import Dataset
    from pyro_cvae.data.splits import Split

    OnStep = Callable[[int, int, dict[str, Any]], None]

log = logging.getLogger("pyro_cvae")

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
_RUN_KEYS = tuple(f.name for f in fields(RunOptions))
_MACHINE_KEYS = ("device", "threads")
"""Options of the machine: another one may go on with the search, and the settings found do not hold them."""
_READING_KEYS = ("min_rating", "columns", "separator", "encoding", "tokenizer", "html")
"""How tables are read, which the fingerprint of the data tells."""


@dataclass(frozen=True)
class TuneOptions:
    """What is searched, how long, and where the settings go.

    Parameters:
        method: The inference module, svi or coordinate; all its options but those of the run folder are taken, too.
        search: What is searched: name=low:high, name=low:high:log (whole numbers where the option is one), name=a,b,c.
        trials: Number of fits in all, those of an earlier call with the same storage among them.
        timeout: Minutes after which no further trial begins.
        cutoffs: The M of recall@M on the validation part; with several, their mean is what counts. Of explicit ratings
            the RMSE counts, whatever they are.
        pruning: Stop a trial whose validation recall is below the median of earlier ones at the same epoch, or RMSE
            above it.
        out: The YAML file for the best settings; by default runs/tune-DATA-METHOD.yaml.
        storage: The SQLite file of all trials; by default beside the YAML file, with the suffix .db.
        quiet: No progress bar; where stderr is no terminal, no lines of progress.
        format: How the best trials are printed (table, csv, json).
    """

    method: Literal["svi", "coordinate"]
    search: tuple[str, ...]
    trials: int = 50
    timeout: float | None = None
    cutoffs: tuple[int, ...] = (300,)
    pruning: bool = True
    out: str | None = None
    storage: str | None = None
    quiet: bool = False
    format: str = "table"

    def __post_init__(self) -> None:
        check_format(self.format)
        names = [_pieces(text)[0] for text in self.search]
        if not names or len(set(names)) < len(names):
            raise InputError(f"--search is {' '.join(self.search)!r}, but it must name one or more options, each once")
        if self.trials < 1:
            raise InputError(f"--trials is {self.trials}, but it must be at least 1")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise InputError(f"--timeout is {self.timeout}, but it must be a finite number above 0")
        if not self.cutoffs or min(self.cutoffs) < 1 or len(set(self.cutoffs)) < len(self.cutoffs):
            given = " ".join(map(str, self.cutoffs))
            raise InputError(f"--cutoffs is {given!r}, but it must be one or more numbers of 1 or more, each once")


# --- the space -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dimension:
    """One searched option: a range of numbers, or choices, by the text that the user gave for each."""

    name: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: dict[str, Any] = field(default_factory=dict)

    @property
    def distribution(self) -> optuna.distributions.BaseDistribution:
        """As optuna has it; whole numbers where both ends are."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(tuple(self.choices))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    @property
    def ends(self) -> list[Any]:
        """All choices, or the two ends."""
        return list(self.choices.values()) or [self.low, self.high]

    def value(self, drawn: Any) -> Any:
        """The option's value for what optuna drew: fractions are rounded to six digits, to be read by people."""
        if self.choices:
            return self.choices[drawn]
        return min(max(float(f"{drawn:.6g}"), self.low), self.high) if isinstance(drawn, float) else drawn

    def drawn(self, value: Any) -> Any:
        """The inverse; ``None`` for a value outside."""
        if self.choices:
            return next((text for text, choice in self.choices.items() if choice == value), None)
        return value if self.low <= value <= self.high else None


def _pieces(text: str) -> tuple[str, list[str], bool]:
    """Name, words, and whether they are a range."""
    name, _, rest = text.partition("=")
    is_range = ":" in rest and "," not in rest
    pieces = [piece.strip() for piece in rest.split(":" if is_range else ",")]
    whole = len(pieces) == 2 or (len(pieces) == 3 and pieces[2] == "log") if is_range else len(pieces) >= 2
    if not name or not whole or not all(pieces) or (not is_range and len(set(pieces)) < len(pieces)):
        raise InputError(f"--search has {text!r}", "write name=low:high, name=low:high:log or name=a,b,c")
    return name.strip().replace("-", "_"), pieces, is_range


def dimensions(search: Sequence[str], base: Options) -> tuple[Dimension, ...]:
    """The searched space by name, from the texts of ``--search``, checked against the options of ``base``.

    Raises InputError for a name that is no option of the model or the fit, for a value of the wrong type, and for one
    that the option can take neither beside the base settings nor beside the lowest or highest of the other options.
    """
    classes = Options.classes(base.method_name)[:-1]
    found = []
    for text in search:
        name, pieces, is_range = _pieces(text)
        option = option_of(classes, name)
        if option.owner is DataOptions and name != "scaling":
            raise InputError(f"--search has {name}, which says what is fitted, not how", f"give {option.flag} instead")
        if name.startswith("rating_likelihood"):
            problem = f"--search has {name}, with which precisions and biases have other defaults"
            raise InputError(problem, "search with each by itself, given as an option")
        if not is_range:
            found.append(Dimension(name, choices={piece: read_value(classes, name, piece) for piece in pieces}))
            continue
        if not option.is_number:
            raise InputError(f"--search has {text!r}, but {name} is no number", f"give choices, {name}=a,b,c")
        low, high = (read_value(classes, name, piece) for piece in pieces[:2])
        if not -math.inf < low < high < math.inf or ("log" in pieces and low <= 0):
            raise InputError(f"--search has {text!r}", "low must be below high, and with log above 0")
        found.append(Dimension(name, low, high, "log" in pieces))
    backgrounds = [{}, *({one.name: one.ends[end] for one in found} for end in (0, -1))]
    for one in found:
        for value in one.ends:
            problems = [_problem(base, beside | {one.name: value}) for beside in backgrounds]
            if all(problems):
                raise InputError(f"--search: {problems[0]}")
    return tuple(sorted(found, key=lambda one: one.name))


def _problem(base: Options, values: dict[str, Any]) -> str:
    try:
        _with(base, values)
    except InputError as error:
        return str(error)
    return ""


def _with(base: Options, values: dict[str, Any]) -> Options:
    """The base settings with other values."""
    if values.get("content_likelihood", base.model.content_likelihood) != base.model.content_likelihood:
        values = {"content_likelihood_args": {}} | values  # those of the base belong to its own class
    return Options.of(base.method_name, **base.to_dict() | values)


# --- the search ------------------------------------------------------------------------------------------------------


def without_test(dataset: Dataset, split: Split) -> tuple[Dataset, Split]:
    """The same data and split with nothing in them that a test figure is made of: no test pair, no true scores."""
    import numpy as np

    nothing = split.test.select(np.zeros(len(split.test), bool))
    return replace(dataset, interactions=split.train, truth=None), replace(split, test=nothing)


def is_explicit(base: Options) -> bool:
    """True where ratings are predicted as numbers, and their error counts."""
    from models.build import rating_likelihood

    return rating_likelihood(base.model).explicit


def identity_of(tune: TuneOptions, base: Options, dataset: Dataset, split: Split) -> dict[str, Any]:
    """All that the value of a trial depends on, as JSON."""
    skipped = _RUN_KEYS + _MACHINE_KEYS + _READING_KEYS
    options = {name: value for name, value in base.to_dict().items() if name not in skipped}
    prints = {"data fingerprint": dataset.fingerprint(), "split fingerprint": split.fingerprint()}
    of_tune = {"method": tune.method, "--search": sorted(tune.search), "--cutoffs": sorted(tune.cutoffs)}
    plain = {f"--{n.replace('_', '-')}": list(v) if isinstance(v, tuple) else v for n, v in options.items()}
    return plain | of_tune | prints


def search(
    study: optuna.Study,
    tune: TuneOptions,
    base: Options,
    dataset: Dataset,
    split: Split,
    on_trial: Callable[[optuna.Study], None] = lambda study: None,
    on_step: OnStep = lambda step, n_steps, row: None,
) -> None:
    """Run trials until the study has ``tune.trials`` of them, or until the time is up; the first is ``base`` itself.

    A trial that fails for its settings (it diverges, or there is not enough memory) is stored as failed, with the
    reason, and the search goes on. Of explicit ratings the study must minimise. ``on_trial`` is called before each
    trial, ``on_step`` as in a fit. Raises InputError without a validation part.
    """
    import numpy as np
    import optuna
    import torch

    from inference.fitting import Pretrained

    if split.validation is None or not len(split.validation):
        raise InputError("the search needs a validation part to look at", "give --validation, for instance 0.2")
    space = dimensions(tune.search, base)
    dataset, split = without_test(dataset, split)
    start = {one.name: one.drawn(base.to_dict()[one.name]) for one in space}
    ends = math.inf if tune.timeout is None else time.monotonic() + 60 * tune.timeout
    states, pretrained = optuna.trial.TrialState, Pretrained()
    while (done := len(finished(study))) < tune.trials and time.monotonic() < ends:
        if not done and None not in start.values():
            study.enqueue_trial(start)
        seed = np.random.SeedSequence([base.fit.seed, done]).generate_state(1)[0]
        study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        on_trial(study)
        trial = study.ask({one.name: one.distribution for one in space})
        try:
            chosen = settings(trial.params, space, base)
            recalls = _measured(trial, tune, chosen, dataset, split, on_step, pretrained)
        except optuna.TrialPruned:
            study.tell(trial, state=states.PRUNED)
        except BaseException as error:
            known = error if isinstance(error, torch.linalg.LinAlgError) else as_known(error)
            to_blame = known is not None and not isinstance(error, OSError)  # a full disk is not of these settings
            if to_blame:  # without a reason it does not count, and the same is drawn again
                reason = str(known).splitlines()[0][:500]
                trial.set_user_attr("failed", reason)
                log.warning("trial %d failed: %s", trial.number, reason)
            study.tell(trial, state=states.FAIL)
            if not to_blame:
                raise
        else:
            trial.set_user_attr("recalls", recalls)
            study.tell(trial, sum(recalls.values()) / len(recalls))


def _measured(
    trial: optuna.Trial,
    tune: TuneOptions,
    options: Options,
    dataset: Dataset,
    split: Split,
    on_step: OnStep,
    pretrained: Pretrained,
) -> dict[str, float]:
    """recall@M of one fit on the validation part, or the RMSE; raises TrialPruned out of the fit."""
    import optuna

    from inference.average import list_scores
    from inference.evaluate import evaluate, root_mean_square_error
    from inference.fitting import fit_with

    explicit = is_explicit(options)
    watched = "validation_rmse" if explicit else "validation_recall"
    same = [old for old in finished(trial.study) if old.params == trial.params and "recalls" in old.user_attrs]
    if same:  # choices are few: a fit is not done twice
        return same[0].user_attrs["recalls"]

    def watch(step: int, n_steps: int, row: dict[str, Any]) -> None:
        on_step(step, n_steps, row)
        if tune.pruning and step < n_steps and watched in row:
            trial.report(row[watched], step)
            if trial.should_prune():
                raise optuna.TrialPruned

    posterior = fit_with(dataset, split, options, watch, pretrained).posterior
    assert split.validation is not None
    if explicit:
        return {"rmse": root_mean_square_error(posterior, split.validation, split.train)}
    as_test = replace(split, test=split.validation, validation=None, tuning_users=None)
    return evaluate(list_scores(posterior, split.train), as_test, cutoffs=tune.cutoffs, ndcg_cutoffs=()).means()


def settings(params: dict[str, Any], space: Sequence[Dimension], base: Options) -> Options:
    """The options of a trial."""
    return _with(base, {one.name: one.value(params[one.name]) for one in space})


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that count: ended, stopped early, or failed for a reason; not those that were interrupted."""
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in ended if trial.state != TrialState.FAIL or "failed" in trial.user_attrs]


def ranked(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials with a value, the best first, the earlier one where two are equal."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = 1 if study.direction.name == "MINIMIZE" else -1
    return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


# --- what is left ----------------------------------------------------------------------------------------------------


def keeps_validation(split: Split, options: Options) -> bool:
    """Whether a fit with the settings found needs the validation part again; otherwise it takes all training ratings.

    At one training item a user the part was made of test pairs, whose users the headline mean leaves out; and early
    stopping needs one to look at.
    """
    return split.tuning_users is not None or options.fit.patience > 0 or options.data.validation_file is not None


def write_settings(
    path: Path, study: optuna.Study, tune: TuneOptions, base: Options, split: Split, command: str
) -> None:
    """Write the best settings for ``--config``: what was searched, and what differs from the defaults.

    The comments say how they were found. The file is replaced whole or not at all.
    """
    import yaml

    best, identity = ranked(study)[0], study.user_attrs["identity"]
    space = dimensions(tune.search, base)
    options = settings(best.params, space, base)
    keep = keeps_validation(split, options)
    default, searched = Options.of(base.method_name).to_dict(), {one.name for one in space}
    left_out = (*_RUN_KEYS, *_MACHINE_KEYS, *(() if keep else ("validation",)))
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.to_dict().items()
        if (name in searched or value != default[name]) and name not in left_out
    }
    recalls = ", ".join(f"{name} {value:.4f}" for name, value in best.user_attrs["recalls"].items())
    comments = (
        f"Found by {command}",
        f"{recalls} on the validation part ({_validation_words(base)}).",
        f"The best of trials: {_counts(study)}; it is number {best.number}.",
        f"Fit with {_fit_command(tune, path)}: " + ("with" if keep else "without") + " the validation part held back.",
        f"pyro-cvae {version()}; data {identity['data fingerprint']}; split {identity['split fingerprint']}.",
    )
    text = "".join(f"# {' '.join(line.split())}\n" for line in comments)
    for name, value in values.items():  # one line each, lists among them
        flow = None if isinstance(value, list | dict) else False
        text += yaml.safe_dump({name: value}, allow_unicode=True, default_flow_style=flow, width=1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    from pyro_cvae.data.files import whole_file

    with whole_file(path) as new:
        new.write_text(text, encoding="utf-8")


def _validation_words(base: Options) -> str:
    """Where the validation part is from."""
    data = base.data
    if data.validation_file is not None:
        return f"--validation-file {data.validation_file}"
    return f"--validation {data.validation:g}"


def _fit_command(tune: TuneOptions, path: Path) -> str:
    return f"python -m inference.{tune.method} --config {shlex.quote(os.fspath(path))}"


def _counts(study: optuna.Study) -> str:
    states = [trial.state.name for trial in finished(study)]
    words = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed"}
    parts = [f"{states.count(state)} {word}" for state, word in words.items() if state in states]
    return f"{len(states)} ({', '.join(parts)})"


# --- the command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Search, write the YAML file, print the best trials."""
    words = list(sys.argv[1:] if argv is None else argv)
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
        passed_over=_RUN_KEYS,
    )
    if tune.method != method:
        raise InputError(f"{method!r} is read as the method, but {tune.method!r} is it", "give the method first")
    base = Options(data, model, fit, own, RunOptions())
    if not data.validation and data.validation_file is None:
        raise InputError("--validation is 0.0, but the search needs a validation part", "give --validation 0.2")
    from pyro_cvae.data.split_files import label_of, load_data

    name = f"runs/tune-{label_of(data)}-{method}.yaml"
    out = Path(name if tune.out is None else tune.out)
    path = out.with_suffix(".db") if tune.storage is None else Path(tune.storage)
    if out.exists() and not path.exists():
        raise InputError("is there already, but no trials are", "choose another --out, or remove it", path=out)
    dimensions(tune.search, base)

    from pyro_cvae.data.splits import make_split

    dataset = load_data(base.data)
    base = base.for_contents(dataset.contents)
    split = make_split(dataset, data)
    identity = identity_of(tune, base, dataset, split)
    space = {one.name: one.distribution for one in dimensions(tune.search, base)}
    with open_study(path, identity, "minimize" if is_explicit(base) else "maximize", space) as study:
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
            raise InputError(f"no trial has worked{reason}", "search elsewhere, with another --storage", path=path)


@contextmanager
def _progress(tune: TuneOptions) -> Iterator[tuple[Callable[[optuna.Study], None], OnStep]]:
    """A bar for the trials and one for the fit, on a terminal; lines where stderr is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = console.is_terminal and not tune.quiet
    lines = Lines() if not console.is_terminal and not tune.quiet else None
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not shown) as bar:
        trials = bar.add_task("trials", total=tune.trials, note="")
        fit = bar.add_task("fit", total=None, note="")

        def on_trial(study: optuna.Study) -> None:
            measure = "RMSE" if study.direction.name == "MINIMIZE" else "recall"
            best = f"best validation {measure} {ranked(study)[0].value:.4f}" if ranked(study) else ""
            done = len(finished(study))
            bar.update(trials, completed=done, note=best)
            if lines:
                lines.tell("trials", f"{done}/{tune.trials} {best}".rstrip(), always=True)

        def on_step(step: int, n_steps: int, row: dict[str, Any]) -> None:
            looked = {"recall": row.get("validation_recall"), "RMSE": row.get("validation_rmse")}
            note = "".join(f"validation {name} {value:.4f}" for name, value in looked.items() if value is not None)
            bar.update(fit, description=row["phase"], completed=step, total=n_steps, note=note)
            if lines:
                lines.tell(f"  {row['phase']}", f"{step}/{n_steps} {note}".rstrip())

        yield on_trial, on_step


def _report(study: optuna.Study, tune: TuneOptions, base: Options, out: Path) -> None:
    import pandas as pd

    space, best = dimensions(tune.search, base), ranked(study)
    title = f"trials: {_counts(study)}"
    names = list(best[0].user_attrs["recalls"])
    table = Sheet(["trial", *names, *(one.name for one in space), "seconds"], title=title)
    records = []
    for trial in best[:10]:
        values = settings(trial.params, space, base).to_dict()
        recalls = [f"{trial.user_attrs['recalls'][name]:.4f}" for name in names]
        shown = [" ".join(map(str, v)) if isinstance(v := values[one.name], tuple) else f"{v}" for one in space]
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        table.add_row(str(trial.number), *recalls, *shown, f"{seconds:.1f}")
        looked = trial.user_attrs["recalls"] | {one.name: values[one.name] for one in space}
        records.append({"trial": trial.number, **looked, "seconds": seconds})
    notes = [f"settings: {out}", f"next: {_fit_command(tune, out)}"]
    emit([table], {"trials": pd.DataFrame(records)}, tune.format, notes)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
