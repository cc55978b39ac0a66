"""The trials: each a fit of the training ratings without their validation part, and what it is worth there."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import TrialState

from inference.average import list_scores
from inference.evaluation.rankings import evaluate
from inference.evaluation.ratings import root_mean_square_error
from inference.fitting import Pretrained, fit_with
from inference.options import Options
from inference.tuning.options import MACHINE_KEYS, RUN_KEYS, TuneOptions
from inference.tuning.space import dimensions, settings
from inference.tuning.study import distribution_of, few_enough, finished, untried
from models.build import rating_likelihood
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError, as_known
from pyro_cvae.protocol import choosing

OnStep = Callable[[int, int, dict[str, Any]], None]
READING_KEYS = ("min_rating", "columns", "separator", "encoding", "tokenizer", "html")
"""How tables are read, which the fingerprint of the data tells."""

log = logging.getLogger("pyro_cvae")


def without_test(dataset: Dataset, split: Split) -> tuple[Dataset, Split]:
    """The same data and split with nothing in them that a test figure is made of: no test pair, no true scores."""
    nothing = split.test.select(np.zeros(len(split.test), bool))
    return replace(dataset, interactions=split.train, truth=None), replace(split, test=nothing)


def is_explicit(base: Options) -> bool:
    """True where ratings are predicted as numbers, and their error counts."""
    return rating_likelihood(base.model).explicit


def identity_of(tune: TuneOptions, base: Options, dataset: Dataset, split: Split) -> dict[str, Any]:
    """All that the value of a trial depends on, as JSON."""
    skipped = RUN_KEYS + MACHINE_KEYS + READING_KEYS
    options = {name: value for name, value in base.to_dict().items() if name not in skipped}
    prints = {"data fingerprint": dataset.fingerprint(), "split fingerprint": split.fingerprint()}
    of_tune = {"method": tune.method, "--search": sorted(tune.search), "--cutoffs": sorted(tune.cutoffs)}
    lengths = list(choosing(tune.cutoffs, dataset.n_items))
    of_tune |= {"lists of lengths": lengths} if lengths != of_tune["--cutoffs"] else {}
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
    reason, and the search goes on. Where there are no more combinations of choices than trials, each is tried once, and
    the search ends. Of explicit ratings the study must minimise. ``on_trial`` is called before each
    trial, ``on_step`` as in a fit. Raises InputError without a validation part.
    """
    if split.validation is None or not len(split.validation):
        raise InputError("the search needs a validation part to look at", "give --validation, for instance 0.2")
    space = dimensions(tune.search, base)
    drawing = {one.name: distribution_of(one) for one in space}
    worth, callback = _Worth(tune, *without_test(dataset, split), Pretrained()), _Callback(on_step)
    start = {one.name: one.drawn(base.to_dict()[one.name]) for one in space}
    ends = math.inf if tune.timeout is None else time.monotonic() + 60 * tune.timeout
    while (done := len(finished(study))) < tune.trials and time.monotonic() < ends:
        first = not done and None not in start.values()
        if first:
            study.enqueue_trial(start)
        seed = np.random.SeedSequence([base.fit.seed, done]).generate_state(1)[0]
        if few_enough(space, tune.trials) and not first:
            left = untried(study, space)
            if not left:
                break
            study.enqueue_trial(left[int(seed) % len(left)])
        study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        on_trial(study)
        trial = study.ask(drawing)
        try:
            recalls = worth.of(trial, settings(trial.params, space, base), callback)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except BaseException as error:
            if error is callback.raised:
                study.tell(trial, state=TrialState.FAIL)
                raise
            if not _store_failure(study, trial, error):
                raise
        else:
            trial.set_user_attr("recalls", recalls)
            study.tell(trial, sum(recalls.values()) / len(recalls))


@dataclass
class _Callback:
    """The caller's ``on_step``, and what it has raised: that ends a search, and is no fault of a trial's settings."""

    on_step: OnStep
    raised: BaseException | None = None

    def __call__(self, step: int, n_steps: int, row: dict[str, Any]) -> None:
        try:
            self.on_step(step, n_steps, row)
        except BaseException as error:
            self.raised = error
            raise


def _store_failure(study: optuna.Study, trial: optuna.Trial, error: BaseException) -> bool:
    """Tell the study that a trial has failed; True where the settings are to blame, and the search goes on."""
    known = error if isinstance(error, torch.linalg.LinAlgError) else as_known(error)
    to_blame = known is not None and not isinstance(error, OSError)  # a full disk is not of these settings
    if to_blame:  # without a reason it does not count, and the same is drawn again
        reason = str(known).splitlines()[0][:500]
        trial.set_user_attr("failed", reason)
        log.warning("trial %d failed: %s", trial.number, reason)
    study.tell(trial, state=TrialState.FAIL)
    return to_blame


@dataclass(frozen=True)
class _Worth:
    """What trials are measured by: the data without their test part, and what their pretraining shares."""

    tune: TuneOptions
    dataset: Dataset
    split: Split
    pretrained: Pretrained

    def of(self, trial: optuna.Trial, options: Options, on_step: OnStep) -> dict[str, float]:
        """recall@M of one fit on the validation part, or the RMSE; raises TrialPruned out of the fit."""
        tune, split, explicit = self.tune, self.split, is_explicit(options)
        watched = "validation_rmse" if explicit else "validation_recall"
        before = [old for old in finished(trial.study) if old.params == trial.params and "recalls" in old.user_attrs]
        if before:  # choices are few: a fit is not done twice
            return before[0].user_attrs["recalls"]

        def watch(step: int, n_steps: int, row: dict[str, Any]) -> None:
            on_step(step, n_steps, row)
            if tune.pruning and step < n_steps and watched in row:
                trial.report(row[watched], step)
                if trial.should_prune():
                    raise optuna.TrialPruned

        posterior = fit_with(self.dataset, split, options, watch, self.pretrained).posterior
        assert split.validation is not None
        if explicit:
            return {"rmse": root_mean_square_error(posterior, split.validation, split.train)}
        as_test = replace(split, test=split.validation, validation=None, tuning_users=None)
        cutoffs = choosing(tune.cutoffs, split.train.n_items)
        return evaluate(list_scores(posterior, split.train), as_test, cutoffs=cutoffs, ndcg_cutoffs=()).means()
