"""Fitting a data set and opening what a fit left: ``inference.fit`` and ``inference.load``."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inference import stored
from inference.average import list_scores, predictions
from inference.base import Snapshot
from inference.base import fit as run_steps
from inference.convergence import convergence, doubts
from inference.coordinate import Coordinate
from inference.draws import Draws
from inference.estimates import check_fit
from inference.evaluation.rankings import evaluate, recall_on_validation
from inference.evaluation.ratings import rating_metrics, root_mean_square_error
from inference.keywords import options_of
from inference.liveness import doubt
from inference.mcmc import MCMC
from inference.networks import NetworkFit
from inference.options import CoordinateOptions, ModelOptions, Options
from inference.plain import PosteriorGuide, plain_guide, plain_model
from inference.posterior import Posterior, content_diagnostics
from inference.svi import SVI
from models.base import FactorModel
from models.build import (
    content_likelihood,
    forms_of,
    make_model,
    model_class,
    new_rows,
    observe,
    rating_likelihood,
    weight_unit,
)
from models.contents import ContentLikelihood
from models.ratings import RatingLikelihood
from models.state import kept
from pyro_cvae.data.content import ContentScaling
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.readers import with_contents
from pyro_cvae.data.registry import check_stars
from pyro_cvae.data.sources import parse_all
from pyro_cvae.data.splits import Split, make_split
from pyro_cvae.data.text import consent
from pyro_cvae.errors import InputError, MachineError
from pyro_cvae.runs import Run, RunWriter, open_run, run_config
from pyro_cvae.trust import Trust

if TYPE_CHECKING:
    import pandas as pd

PRETRAINING = (
    *("model", "model_args", "scaling", "factors", "content_likelihood", "content_likelihood_args", "content"),
    *("network", "network_args", "hidden"),
    *("activation", "radius", "tied", "encoder_input", "lambda_r", "lambda_w", "pretrain_epochs", "batch_size"),
    *("pretrain_learning_rate", "kl_weight", "kl_warmup", "word_dropout", "part_dropout", "start", "seed"),
    *("device", "dtype", "rating_likelihood", "rating_likelihood_args", "biases"),
)
"""Options on which the networks after pre-training depend."""
Keep = Callable[[dict[str, torch.Tensor], dict[str, Any]], None]
ALGORITHMS: dict[str, type[NetworkFit[Any]]] = {"svi": SVI, "coordinate": Coordinate, "mcmc": MCMC}


@dataclass(eq=False, repr=False)
class Fit:
    """A fitted model with the data it was fitted to.

    ``history`` has a row an epoch; ``metrics`` the test metrics (empty without test pairs) and the content's state;
    ``path`` is the run folder, if one was written.
    """

    posterior: Posterior
    dataset: Dataset
    split: Split
    options: Options
    history: list[dict[str, Any]]
    metrics: dict[str, Any]
    model: FactorModel
    scalings: dict[str, ContentScaling]
    path: Path | None = None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dataset.name}: {self.posterior.kind}, {self.options.model.factors} factors)"
        )

    def encode(self, content: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of v of items that were not in the fit, from their content.

        Such an item is N(mu(x), sigma(x)^2 + 1/lambda_v). ``content`` are word counts, sparse (n_new, n_features), or a
        content of the kind that the fit is of (Content, Vectors, Images, Tokens); where it is of several, a dictionary
        of these by name, a part left out being one that none of them has. Result (n_new, n_factors) each.
        """
        loc, scale = self.encode_content(content)
        return loc, (scale.square() + 1 / self.posterior.lambda_v).sqrt()

    def encode_content(self, content: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of q(z|x) of such items, (n_new, n_factors) each."""
        if not self.model.has_content:
            problem = (
                f"{type(self.model).__name__} reads no content: items that were not in the fit are all alike to it"
            )
            raise InputError(problem, "fit a model that does, for instance --model cvae")
        inputs = new_rows(self.model, self.dataset, self.options.model.content, content, self.scalings)
        with torch.no_grad():
            return self.model.item_prior.encode(inputs.to(dtype=self.posterior.z_loc.dtype))

    @property
    def above(self) -> dict[str, torch.Tensor]:
        """Posterior means of the model's sites above u and v, by name."""
        stored, found = self.posterior.above, {}
        for name, tensor in stored.items():
            site, _, moment = name.rpartition("_")
            if moment in ("loc", "draws"):
                found[site] = tensor if moment == "loc" else tensor.mean(0)
        return found

    @property
    def guide(self) -> PosteriorGuide:
        """The posterior as a guide of :meth:`pyro_model`, for ``pyro.infer.Predictive`` and the like."""
        return plain_guide(self)

    def pyro_model(self, items: Iterable[Any] | None = None) -> Callable[[], None]:
        """The story as a plain, dense Pyro program of no arguments, its networks held (:mod:`inference.plain`).

        ``items`` are external ids, by default of all items; :func:`inference.plain.plain_guide` takes the same.
        """
        return plain_model(self, items)

    def draw_sites(self, n: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """``n`` joint draws of the Pyro program's sites u, v, v_dagger and z, as ``pyro.infer.Predictive`` takes them.

        Shapes (n, n_rows, width): of u, v and v_dagger that of the model, n_factors and with biases one more, which is
        b / kappa_u or c / kappa_v; of z n_factors.
        """
        drawn = self.posterior.sample(n, seed)
        for name, side in (("u", "u"), ("v", "v"), ("v_dagger", "v")):
            drawn[name] = self.model.own(side, drawn[name].flatten(0, 1)).unflatten(0, drawn[name].shape[:2])
        return drawn

    def predict(self, users: Iterable[Any], items: Iterable[Any], level: float = 0.9) -> pd.DataFrame:
        """New ratings of pairs of external ids: columns user, item, mean, sd, low, high.

        ``mean`` and ``sd`` are those of a rating, the likelihood's own noise included (a click is a 1: its mean is its
        probability); of explicit ratings ``mean`` stays within the range of the training ratings. ``low`` and ``high``
        are the ends of the central interval of that probability, quantiles of the likelihood's own predictive
        distribution (:mod:`models.ratings.predictive`); of clicks and counts it holds at least as much. Of users
        without training pairs it is the average user's rating (:mod:`inference.average`). Raises InputError for
        unknown ids or lists of different lengths.
        """
        import pandas as pd

        rows, columns = self.dataset.user_rows(users), self.dataset.item_rows(items)
        if len(rows) != len(columns):
            raise InputError(f"{len(rows)} users and {len(columns)} items are no pairs", "give one item for each user")
        if not 0 < level < 1:
            raise InputError(f"level is {level}, but it must be between 0 and 1", "for instance 0.9")
        explicit = self.model.ratings.explicit
        new = predictions(self.posterior, self.model.ratings, rows, columns, self.split.train, explicit)
        low, high = new.distribution.interval(level)
        found = {"mean": new.mean, "sd": new.sd, "low": low, "high": high}
        ids = {"user": self.dataset.user_ids[rows], "item": self.dataset.item_ids[columns]}
        return pd.DataFrame(ids | {name: value.numpy().astype(np.float64) for name, value in found.items()})


def fit(
    dataset: Dataset,
    split: Split | str | None = None,
    *,
    method: str = "svi",
    mode: str = "bayes",
    preset: str | None = None,
    out: str | os.PathLike[str] | None = None,
    on_step: Callable[[int, int, dict[str, Any]], None] = lambda step, n_steps, row: None,
    **options: Any,
) -> Fit:
    """Fit a model, by default the CVAE, to a data set.

    Parameters: ``split`` a Split, or how one is made (``"time"``, ``"none"``; by default per user, with
    ``train_per_user=10``), ``method`` "svi" (gradients), "coordinate" (closed form) or "mcmc" (draws, of small data),
    ``mode`` "map" or "bayes", ``preset`` settings of the package (``--preset``), ``out`` a run folder to be written,
    ``on_step`` called after each epoch, ``options`` any flag of the command line, with underscores; they win over the
    preset. Further ``contents`` that the data set has not yet are read; ``data`` and ``items``, which say where it is
    from, are kept for the record. A likelihood, of content or ratings, may be a class or an instance too. Raises
    InputError.
    """
    if isinstance(split, str):
        options["split"] = split
    chosen = options_of(method, preset, {"mode": mode, "out": out} | options)
    if options.get("ratings") == "stars":
        check_stars(dataset)
    if sources := [one for one in parse_all(chosen.data.contents) if one.name not in dataset.contents]:
        dataset = with_contents(dataset, tuple(sources), reading=chosen.data.reading)
    made = split if isinstance(split, Split) else make_split(dataset, chosen.data)
    return fit_with(dataset, made, chosen, on_step)


def fit_with(
    dataset: Dataset,
    split: Split,
    options: Options,
    on_step: Callable[[int, int, dict[str, Any]], None] = lambda step, n_steps, row: None,
    pretrained: Pretrained | None = None,
) -> Fit:
    """The same with all options made; writes a run folder if ``options.run.out`` is given.

    ``pretrained`` keeps pre-trained networks for further fits, which then leave the pre-training out.
    """
    cls = model_class(options.model.model)
    options = options.for_model(cls.has_content).for_contents(dataset.contents)
    _check_device(options.fit.device)
    if options.fit.patience and (split.validation is None or not len(split.validation)):
        raise InputError("--patience needs a validation part to look at", "give --validation, for instance 0.1")
    check_fit(dataset.n_users, dataset.n_items, dataset.contents if cls.has_content else {}, options)
    options = _within_memory(options, dataset, split)
    likelihood = _content_likelihood(options.model) if cls.has_content else None
    rating = rating_likelihood(options.model)
    observations, scalings = observe(dataset, split, likelihood, options.model, options.data.scaling)
    unit = weight_unit(dataset, split)

    def make() -> FactorModel:
        form, parts = None, None
        if cls.has_content:
            form, parts = forms_of(dataset, _content_likelihood(options.model), options.model.content)
        model = make_model(dataset.n_users, dataset.n_items, form, parts, options.model)
        model.of_data(dataset)
        model.ratings.weight_unit = unit
        return model

    inference = ALGORITHMS[options.method_name](make, observations, options)
    config = run_config(
        options.method_name,
        options.to_dict(),
        objective=options.objective,
        tempered=options.tempered,
        dataset=dataset,
        split=split,
        pseudo_likelihood=likelihood is not None and likelihood.pseudo,
        protocol=split.protocol,
        data_name=dataset.name,
        scalings={name: scaling.to_json() for name, scaling in scalings.items()},
        weight_unit=unit,
        buffers=True,
        product_radius=True,
    )
    writer, resume = _writer(options, config, dataset, split)
    if pretrained is None or resume is not None:
        keep = None
    else:
        resume, keep = pretrained.of(options, dataset)
    result = run_steps(
        inference,
        validation=_validation(split, rating),
        checkpoint=writer.checkpoint if writer else None,
        resume=resume,
        keep=keep,
        on_step=lambda step, row: on_step(step, inference.n_steps, row),
    )
    posterior = result.posterior
    metrics: dict[str, Any] = {"best_epoch": result.best_step}
    model = inference.finish(result.state)
    model.plain = True
    fitted_rating = model.ratings
    if len(split.test) and rating.explicit:
        metrics |= rating_metrics(posterior, fitted_rating, split.test, split.train)
    elif len(split.test) and not split.train.complete:  # where every cell is a rating there is no ranking to test
        metrics |= evaluate(list_scores(posterior, split.train), split).to_metrics()
    if model.item_prior.latent:
        metrics["content"] = content_diagnostics(posterior.z_loc, posterior.z_scale)
    metrics["precisions"] = model.precisions()
    if isinstance(posterior, Draws):
        metrics["convergence"] = convergence(posterior)
        if found := doubts(metrics["convergence"], posterior.n_chains):
            remedy = "give more --draws or a larger --thin"
            logging.getLogger("pyro_cvae").warning(f"the chains disagree or are short: {found}; {remedy}")
    if dataset.truth is not None and "scores" in dataset.truth:
        metrics["recovery"] = recovery(posterior, split, dataset.truth)
    fitted = Fit(posterior, dataset, split, options, result.history, metrics, model, scalings)
    if model.item_prior.latent and (found := doubt(fitted)):
        logging.getLogger("pyro_cvae").warning(found)
    if writer:
        networks = {f"network.{name}": tensor.cpu() for name, tensor in kept(fitted.model).items()}
        writer.save_tensors("posterior", posterior.tensors() | networks)
        writer.save_history(result.history)
        writer.save_json("metrics", metrics)
        fitted.path = writer.finish()
    return fitted


def _content_likelihood(model: ModelOptions) -> ContentLikelihood:
    """The content's likelihood of the options, made anew."""
    return content_likelihood(model.content_likelihood, model.content_likelihood_args)


class Pretrained:
    """The latest networks after pre-training, for further fits that differ in what comes after it alone.

    A fit that goes on from them comes to the same numbers as one that pre-trains for itself.
    """

    def __init__(self) -> None:
        self._key, self._meta = "", ""
        self._tensors: dict[str, torch.Tensor] = {}

    def of(self, options: Options, dataset: Dataset) -> tuple[Snapshot | None, tuple[int, Keep] | None]:
        """The snapshot to go on from, if there is one; otherwise after which step to keep one, and how."""
        known = options.to_dict()
        names = {name: known[name] for name in PRETRAINING} | {"method": options.method_name}
        key = json.dumps([dataset.fingerprint(), names], sort_keys=True)
        if key == self._key:
            return (_copied(self._tensors), json.loads(self._meta)), None

        def keep(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
            self._key, self._tensors, self._meta = key, _copied(tensors), json.dumps(meta)

        return None, (options.fit.pretrain_epochs, keep)


def _copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _within_memory(options: Options, dataset: Dataset, split: Split) -> Options:
    """The diagonal family in place of full covariances that would take more than ``max_memory`` GiB, with a warning."""
    if not isinstance(options.method, CoordinateOptions) or options.kind not in ("full", "structured"):
        return options
    rated = sum(int((counts > 0).sum()) for counts in (split.train.user_counts, split.train.item_counts))
    needed = rated * options.model.factors**2 * torch.empty(0, dtype=getattr(torch, options.fit.dtype)).element_size()
    if needed <= options.method.max_memory * 2**30:
        return options
    problem = f"full covariances of {rated:,} rows with {options.model.factors} factors take {needed / 2**30:.1f} GiB"
    if options.kind == "structured":
        raise InputError(problem, "use fewer --factors, or a larger --max-memory")
    logging.getLogger("pyro_cvae").warning(f"{problem}, above --max-memory: the diagonal family is taken instead")
    return replace(options, method=replace(options.method, diagonal=True))


def recovery(posterior: Posterior, split: Split, truth: dict[str, np.ndarray]) -> dict[str, float]:
    """How well the true scores of a simulation are found, on cells that no training rating covers.

    ``correlation`` of true and posterior-mean scores; where ratings were drawn from the model (``truth`` has its
    precisions a, b) and the posterior has uncertainty, the shares of true scores within the central 50 % and 90 %
    intervals, ``coverage@50`` and ``coverage@90``. Clicks are no draws of the model: no interval is right for them.
    Shape: ``truth["scores"]`` (n_users, n_items), small.
    """
    from scipy.stats import norm

    scores = truth["scores"]
    seen = split.train.select(split.train.observed)
    unseen = np.ones(scores.shape, dtype=bool)
    unseen[seen.users, seen.items] = False
    users, items = unseen.nonzero()
    true = torch.as_tensor(scores[users, items])
    if posterior.is_point or "a" not in truth:
        mean, sd = posterior.mean_score(users, items), None
    else:
        n_parts = max(1, min(64, len(users)))
        pairs = zip(*(np.array_split(x, n_parts) for x in (users, items)), strict=True)
        parts = [posterior.score(u, i) for u, i in pairs]
        mean, sd = (torch.cat(part) for part in zip(*parts, strict=True))
    found = {"correlation": float(torch.corrcoef(torch.stack([mean.double(), true.double()]))[0, 1])}
    if sd is not None:
        for level in (0.5, 0.9):
            half = norm.ppf(0.5 + level / 2) * sd
            found[f"coverage@{level * 100:.0f}"] = float(((true - mean).abs() <= half).double().mean())
    return found


def load(path: str | os.PathLike[str] | Run, *, trust: Trust = ()) -> Fit:
    """Open a run folder: everything that :func:`fit` returned.

    A class outside of the package that the run names is imported only if it is in ``trust``, its path or a list of
    paths; see docs/security.md. Raises InputError, naming the file, if one is damaged or makes no sense.
    """
    run = path if isinstance(path, Run) else open_run(path, trust)
    consent(run.trust)  # of tokenizers, which are imported when there are new texts
    options, dataset, split = stored.stored_options(run), run.dataset(), run.split()
    stored.check_split(run, dataset, split)
    options = stored.for_data(run, options, dataset)
    tensors, metrics = run.tensors("posterior"), run.metrics()
    posterior = stored.stored_posterior(run, options, dataset, tensors)
    model = stored.stored_model(run, options, dataset, tensors)
    scalings = stored.stored_scalings(run, options, dataset, model)
    history = stored.stored_history(run, metrics)
    return Fit(posterior, dataset, split, options, history, metrics, model, scalings, run.path)


def _writer(
    options: Options, config: dict[str, Any], dataset: Dataset, split: Split
) -> tuple[RunWriter | None, Snapshot | None]:
    run = options.run
    if run.out is None:
        if run.resume:
            raise InputError("there is nothing to resume", "give the run folder with --out")
        return None, None
    if not run.resume:
        return RunWriter.start(run.out, config, dataset, split, overwrite=run.overwrite), None
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
