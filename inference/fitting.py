"""Fitting a data set: ``inference.fit``. What it gives is :class:`inference.fitted.Fit`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pyro import poutine

from inference.algorithms.base import Snapshot
from inference.algorithms.base import fit as run_steps
from inference.algorithms.convergence import convergence, doubts
from inference.algorithms.coordinate import Coordinate
from inference.algorithms.mcmc import MCMC
from inference.algorithms.networks import NetworkFit
from inference.algorithms.svi import SVI
from inference.algorithms.workers import here, job, restarted_job
from inference.average import list_scores
from inference.draws import Draws
from inference.estimates import check_fit
from inference.evaluation.rankings import evaluate, recall_on_validation
from inference.evaluation.ratings import rating_metrics, root_mean_square_error
from inference.evaluation.recovery import recovery
from inference.fitted import Fit
from inference.keywords import options_of
from inference.kinds import Method, Mode
from inference.liveness import doubt
from inference.loading import load
from inference.logs import logs_of, telling
from inference.options import CoordinateOptions, DataOptions, Options
from inference.posterior import Posterior, content_diagnostics
from inference.pretrained import PRETRAINING, Pretrained
from inference.starting import Start
from models.base import FactorModel
from models.build import (
    content_likelihood_of,
    model_class,
    model_of,
    observe,
    rating_likelihood,
    weight_unit,
)
from models.observations import Observations
from models.ratings import RatingLikelihood
from models.state import kept
from pyro_cvae.data.content import ContentScaling
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.readers import with_contents
from pyro_cvae.data.registry import check_stars
from pyro_cvae.data.sources import parse_all
from pyro_cvae.data.splits import Split, make_split
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.kinds import Ratings
from pyro_cvae.runs import RunWriter, run_config
from pyro_cvae.text import counted
from pyro_cvae.turns import in_turn

__all__ = ["ALGORITHMS", "PRETRAINING", "Fit", "Pretrained", "fit", "fit_with", "load"]

ALGORITHMS: dict[Method, type[NetworkFit[Any]]] = {"svi": SVI, "coordinate": Coordinate, "mcmc": MCMC}


def fit(
    dataset: Dataset | Any,
    split: Split | str | None = None,
    *,
    method: Method = "svi",
    mode: Mode = "bayes",
    preset: str | None = None,
    out: str | os.PathLike[str] | None = None,
    on_step: Callable[[int, int, dict[str, Any]], None] = lambda step, n_steps, row: None,
    **options: Any,
) -> Fit:
    """Fit a model, by default the CVAE, to a data set or to tables.

    Parameters: ``dataset`` a data set, or a table of interactions as :func:`pyro_cvae.data.frames.from_frames` takes it
    (a pandas or polars frame, an Arrow table, a mapping of column name to values), with ``items=`` the table of items;
    the options of the data (``columns``, ``ratings``, ``min_rating``, ``tokenizer``, ``contents``) say how they are
    read. ``split`` a Split, or how one is made (``"time"``, ``"none"``; by default per user, with
    ``train_per_user=10``), ``method`` "svi" (gradients), "coordinate" (closed form) or "mcmc" (draws, of small data),
    ``mode`` "map" or "bayes", ``preset`` settings of the package (``--preset``), ``out`` a run folder to be written,
    ``on_step`` called after each epoch, ``options`` any flag of the command line, with underscores; they win over the
    preset. Further ``contents`` that the data set has not yet are read; ``data``, and of a data set ``items``, which
    say where it is from, are kept for the record. A likelihood, of content or ratings, may be a class or an instance
    too. ``start_from`` is a run folder or a Fit to go on from (:mod:`inference.starting`). Raises InputError.
    """
    if isinstance(split, str):
        options["split"], split = split, None
    if split is not None and not isinstance(split, Split):
        raise InputError(f"split is no split but a {type(split).__name__}", "a table of items is given as items=TABLE")
    is_table = not isinstance(dataset, Dataset)
    items = options.pop("items", None) if is_table or _is_table(options.get("items")) else None
    old = options["start_from"] if isinstance(options.get("start_from"), Fit) else None
    if old is not None:
        options["start_from"] = "a fit" if old.path is None else old.path.name
    chosen = options_of(method, preset, {"mode": mode, "out": out} | options, *([old.options] if old else []))
    start = Start.of(chosen, old)
    if is_table:
        dataset = _of_tables(dataset, items, chosen.data, start)
    elif items is not None:
        raise InputError("items is a table, but a data set has its items already", "leave items out")
    if options.get("ratings") == "stars":
        check_stars(dataset)
    if sources := [one for one in parse_all(chosen.data.contents) if one.name not in dataset.contents]:
        reading = chosen.data.reading if start is None else replace(chosen.data.reading, like=start.fit.dataset)
        dataset = with_contents(dataset, tuple(sources), reading=reading)
    more: dict[str, Any] = {} if start is None else {"start": start}
    return fit_with(dataset, make_split(dataset, chosen.data) if split is None else split, chosen, on_step, **more)


def _is_table(value: Any) -> bool:
    """Whether ``items`` is no path for the record, but to be read."""
    return value is not None and not isinstance(value, str | os.PathLike)


def _of_tables(interactions: Any, items: Any, options: DataOptions, start: Start | None) -> Dataset:
    """The data set of the tables that stand in the place of one, read as the options say; InputError for no tables.

    Words are counted by the vocabularies of the fit that ``start`` is of.
    """
    for name, given in (("dataset", interactions), ("items", items)):
        if isinstance(given, str | os.PathLike):
            reader = "pyro_cvae.data.registry.load_dataset reads files"
            raise InputError(f"{name} is {os.fspath(given)!r}, a name or path, not a table", f"{reader} and names")
    if interactions is None:
        raise InputError("there is nothing to fit: dataset is None", "give a data set, or a table of interactions")
    ratings: Ratings = "stars" if options.ratings == "stars" else "clicks"
    contents = parse_all(options.contents)
    reading = options.reading if start is None else replace(options.reading, like=start.fit.dataset)
    return from_frames(interactions, items, ratings=ratings, contents=contents, reading=reading)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The turn of one thread, with gradients, and with no handler of the Pyro program that a fit may be called in."""
    with in_turn(), torch.inference_mode(False), torch.enable_grad(), poutine.block():
        yield


@_undisturbed()
def fit_with(
    dataset: Dataset,
    split: Split,
    options: Options,
    on_step: Callable[[int, int, dict[str, Any]], None] = lambda step, n_steps, row: None,
    pretrained: Pretrained | None = None,
    start: Start | None = None,
) -> Fit:
    """The same with all options made; writes a run folder if ``options.run.out`` is given.

    ``pretrained`` keeps pre-trained networks for further fits, which then leave the pre-training out. ``start`` is what
    ``options.run.start_from`` names, where it has been opened. Fits of several threads take turns.
    """
    workers = here()
    start = Start.of(options) if start is None else start
    dataset = dataset if start is None else start.aligned(dataset)
    options = _checked(dataset, split, options, workers.size)
    likelihood, rating = content_likelihood_of(options.model), rating_likelihood(options.model)
    known = None if start is None else start.fit.scalings
    observations, scalings = observe(dataset, split, likelihood, options.model, options.data.scaling, known)
    inference = _algorithm(observations, dataset, split, options, start)
    del observations  # workers keep what is theirs
    pseudo = likelihood is not None and likelihood.pseudo
    config = _config(options, dataset, split, scalings, pseudo)
    if start is not None:
        start.record(config)
    logs = workers.by_first(lambda: logs_of(options)) or []
    writer, resume = workers.by_first(lambda: _writer(options, config, dataset, split)) or (None, None)
    if workers.told(resume is not None):
        resume = workers.told_snapshot(*(resume or ({}, {})))
    keep = None
    if pretrained is not None and resume is None and start is None:
        resume, keep = pretrained.of(options, dataset)
    behind = [] if resume is None else resume[1]["history"]
    with telling(logs, writer.path if writer else None, behind) as (tell, tell_metrics):

        def on_row(step: int, row: dict[str, Any]) -> None:
            tell(row)
            on_step(step, inference.n_steps, row)

        checkpoint = writer.checkpoint if writer else _by_another_worker if options.run.out else None
        looked = _validation(split, rating)
        result = run_steps(
            inference, validation=looked, checkpoint=checkpoint, resume=resume, keep=keep, on_step=on_row
        )
        model = inference.finish(result.state)
        model.plain = True
        metrics: dict[str, Any] = {"best_epoch": result.best_step}
        if workers.is_first:
            metrics |= _metrics(result.posterior, model, dataset, split)
        tell_metrics(metrics)
    fitted = Fit(result.posterior, dataset, split, options, result.history, metrics, model, scalings)
    if workers.is_first and model.item_prior.latent and (sign := doubt(fitted)):
        logging.getLogger("pyro_cvae").warning(sign)
    path = workers.by_first(lambda: str(_written(writer, fitted)) if writer else None)
    path = workers.told(path)
    fitted.path = None if path is None else Path(path)
    return fitted


def _algorithm(
    observations: Observations, dataset: Dataset, split: Split, options: Options, start: Start | None
) -> NetworkFit[Any]:
    """The algorithm over a model that knows nothing yet, or what the fit knows that it goes on from."""
    unit, rows = weight_unit(dataset, split), None if start is None else start.told(dataset, split)

    def make() -> FactorModel:
        model = model_of(dataset, options.model)
        model.of_data(dataset)
        model.ratings.weight_unit = unit
        if start is not None and rows is not None:
            start.fill(model, options, rows[0])
        return model

    own = options if start is None else start.settings(options)
    inference = ALGORITHMS[options.method_name](make, observations, own)
    if start is not None and rows is not None:
        inference.warm = start.warm(*rows)
    return inference


def _by_another_worker(tensors: dict[str, Any], meta: dict[str, Any]) -> None:
    """The first worker writes the checkpoint."""


def _checked(dataset: Dataset, split: Split, options: Options, n_workers: int) -> Options:
    """The options for these data; InputError or MachineError where they cannot be fitted so."""
    cls = model_class(options.model.model)
    has_content = cls.has_content
    options = options.for_model(has_content, cls.is_staged()).for_contents(dataset.contents)
    _check_device(options.fit.device)
    if options.fit.patience and (split.validation is None or not len(split.validation)):
        raise InputError("--patience needs a validation part to look at", "give --validation, for instance 0.1")
    check_fit(dataset.n_users, dataset.n_items, dataset.contents if has_content else {}, options)
    return _within_memory(options, dataset, split, n_workers)


def _config(
    options: Options, dataset: Dataset, split: Split, scalings: dict[str, ContentScaling], pseudo: bool
) -> dict[str, Any]:
    """What a run folder's config.json says."""
    return run_config(
        options.method_name,
        options.to_dict(),
        objective=options.objective,
        tempered=options.tempered,
        dataset=dataset,
        split=split,
        pseudo_likelihood=pseudo,
        protocol=split.protocol,
        data_name=dataset.name,
        scalings={name: scaling.to_json() for name, scaling in scalings.items()},
        weight_unit=weight_unit(dataset, split),
        buffers=True,
        product_radius=True,
        free_experts=True,
    )


def _metrics(posterior: Posterior, model: FactorModel, dataset: Dataset, split: Split) -> dict[str, Any]:
    """Metrics of the test part, the content's state, precisions, the chains' convergence, and what a truth says."""
    metrics: dict[str, Any] = {}
    if len(split.test) and model.ratings.explicit:
        metrics |= rating_metrics(posterior, model.ratings, split.test, split.train)
    elif len(split.test) and not split.train.complete:  # where every cell is a rating there is no ranking to test
        metrics |= evaluate(list_scores(posterior, split.train), split).to_metrics()
    if model.item_prior.latent:
        metrics["content"] = content_diagnostics(posterior.z_loc, posterior.z_scale)
    metrics["precisions"] = model.precisions()
    if model.trials:
        metrics["tuning"] = model.trials
    if isinstance(posterior, Draws):
        metrics["convergence"] = convergence(posterior)
        if signs := doubts(metrics["convergence"], posterior.n_chains):
            remedy = "give more --draws or a larger --thin"
            logging.getLogger("pyro_cvae").warning(f"the chains disagree or are short: {signs}; {remedy}")
    if dataset.truth is not None and "scores" in dataset.truth:
        metrics["recovery"] = recovery(posterior, split, dataset.truth)
    return metrics


def _written(writer: RunWriter, fitted: Fit) -> Path:
    """The run folder, with posterior, networks, history and metrics in it."""
    networks = {f"network.{name}": tensor.cpu() for name, tensor in kept(fitted.model).items()}
    writer.save_tensors("posterior", fitted.posterior.tensors() | networks)
    writer.save_history(fitted.history)
    writer.save_json("metrics", fitted.metrics)
    return writer.finish()


def _within_memory(options: Options, dataset: Dataset, split: Split, n_workers: int) -> Options:
    """The diagonal family in place of full covariances that would take more than ``max_memory`` GiB, with a warning.

    It is of each worker, which has its own users and all items.
    """
    if not isinstance(options.method, CoordinateOptions) or options.kind not in ("full", "structured"):
        return options
    n_users, n_items = (int((counts > 0).sum()) for counts in (split.train.user_counts, split.train.item_counts))
    rated = -(-n_users // n_workers) + n_items
    needed = rated * options.model.factors**2 * torch.empty(0, dtype=getattr(torch, options.fit.dtype)).element_size()
    if needed <= options.method.max_memory * 2**30:
        return options
    what = f"{counted(rated, 'row')} with {counted(options.model.factors, 'factor')}"
    problem = f"full covariances of {what} take {needed / 2**30:.1f} GiB"
    if options.kind == "structured":
        raise InputError(problem, "use fewer --factors, or a larger --max-memory")
    logging.getLogger("pyro_cvae").warning(f"{problem}, above --max-memory: the diagonal family is taken instead")
    return replace(options, method=replace(options.method, diagonal=True))


def _writer(
    options: Options, config: dict[str, Any], dataset: Dataset, split: Split
) -> tuple[RunWriter | None, Snapshot | None]:
    run = options.run
    if run.out is None:
        if run.resume:
            raise InputError("there is nothing to resume", "give the run folder with --out")
        return None, None
    found = RunWriter.begun_by(run.out, restarted_job())
    if not run.resume and found != "resume":
        overwrite = run.overwrite or found == "overwrite"
        return RunWriter.start(run.out, config, dataset, split, overwrite=overwrite, job=job()), None
    writer = RunWriter.resume(run.out, config)
    snapshot = writer.latest_checkpoint()
    for note in writer.notes:
        logging.getLogger("pyro_cvae").warning(note)
    return writer, snapshot


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # the latter from a torch without CUDA
        raise MachineError(
            f"--device is {name!r}, which torch does not find here", "use --device cpu, or ask inference.doctor"
        ) from None


def _validation(split: Split, rating: RatingLikelihood) -> tuple[str, Callable[[Posterior], float]] | None:
    """What early stopping looks at: the recall, or of explicit ratings the root mean square error."""
    validation = split.validation
    if validation is None or not len(validation):
        return None
    if rating.explicit:
        return "validation_rmse", lambda q: root_mean_square_error(q, validation, split.train)
    return "validation_recall", lambda q: recall_on_validation(list_scores(q, split.train), split)
