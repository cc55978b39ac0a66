"""Going on from a fit with other data: ``--start-from RUN`` and ``inference.fit(dataset, start_from=...)``.

Networks, scalings, vocabularies, precisions and c are those of the run. Users and items are matched by their external
ids, v of those that are known begins where it was, that of others at its prior's mean. All items are encoded anew, from
the contents that the new data have. What is taken of the run's options, :mod:`inference.commands.starting` says.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.algorithms.warm import Warm, WarmRows
from inference.commands import paths_in
from inference.draws import Draws
from inference.fitted import Fit
from inference.loading import load
from inference.options import Options
from models.base import FactorModel
from models.build import contents_of, model_class
from models.state import buffers, fill, kept
from pyro_cvae.data.aligned import aligned, places_of
from pyro_cvae.data.content import Content
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError, shown
from pyro_cvae.text import counted

log = logging.getLogger("pyro_cvae")

FIXED = (
    *("model", "model_args", "factors", "content_likelihood", "content_likelihood_args", "balance", "content"),
    *("scaling", "tokenizer", "network", "network_args", "hidden", "activation", "radius", "tied", "encoder_input"),
    *("rating_likelihood", "rating_likelihood_args", "biases"),
)
"""Options that say what the networks and the posterior are of: with another value of one there is no going on."""
SETTINGS = {
    "lambda_u": ("lambda_u", "user_shrinkage", "a"),
    "lambda_v": ("lambda_v", "item_shrinkage", "a"),
    "lambda_b": ("lambda_b", "a"),
}
"""Precisions, and the options of which another value asks for another one than the run has."""


@dataclass(frozen=True, eq=False)
class Start:
    """A fit that another one goes on from.

    ``name`` is that of its run folder, if there is one; ``digest`` the SHA-256 (hex) of the folder's ``manifest.json``,
    which holds those of all its files, or of the tensors of a fit without one.
    """

    fit: Fit
    name: str | None
    digest: str

    @classmethod
    def of(cls, options: Options, fit: Fit | None = None) -> Start | None:
        """What options start from, or the ``fit`` at hand; ``None`` where they start from nothing.

        A run is opened as every run is (:mod:`pyro_cvae.trust`): it may import the classes that options name, which are
        the caller's own words. Raises InputError where the fit cannot go on with these options.
        """
        if options.run.start_from is None:
            return None
        if fit is None:
            fit = load(options.run.start_from, trust=paths_in(options))
        fit = getattr(fit, "fitted", None) or fit  # what was folded in is in the new data, or it is not meant
        if isinstance(fit.posterior, Draws):
            problem = "stored draws of inference.mcmc are no point to go on from"
            raise InputError(problem, "start from a run of inference.coordinate or inference.svi", path=fit.path)
        manifest = None if fit.path is None else fit.path / "manifest.json"
        there = manifest is not None and manifest.is_file()
        digest = hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest and there else _digest(fit)
        start = cls(fit, fit.path.name if fit.path else None, digest)
        start.check(options)
        return start

    def record(self, config: dict[str, Any]) -> None:
        """Let the config of a new run say what it started from; a resumed one has to start from the same."""
        config["started_from"] = self.name
        config["fingerprints"]["start"] = self.digest

    def check(self, options: Options) -> None:
        """InputError for the first option that the run's networks or posterior are not of."""
        cls = model_class(options.model.model)
        meant = options.for_model(cls.has_content, cls.is_staged())
        if model_class(self.fit.options.model.model).has_content:
            meant = meant.for_contents(self.fit.dataset.contents)
        now, before = meant.to_dict(), self.fit.options.to_dict()
        for name in FIXED:
            if now[name] != before[name]:
                problem = (
                    f"--{name.replace('_', '-')} is {shown(now[name])}, but the run to go on from has "
                    f"{shown(before[name])}"
                )
                raise InputError(problem, "leave it out, or fit from nothing, without --start-from", path=self.fit.path)
        if own := sorted(self._of_single_items()):
            problem = f"{type(self.fit.model).__name__} has learned {own[0]} of every item, which new items have not"
            raise InputError(problem, "fit from nothing, without --start-from", path=self.fit.path)

    def _of_single_items(self) -> list[str]:
        """Tensors of the item prior with a row for each item."""
        own, n_items = buffers(self.fit.model.item_prior), self.fit.dataset.n_items
        return [name for name, tensor in own.items() if tensor.dim() and len(tensor) == n_items]

    def aligned(self, dataset: Dataset) -> Dataset:
        """The data with contents in the form that the run knows; InputError where one is missing or of another form."""
        fit = self.fit
        dataset = aligned(dataset, fit.dataset)
        if not fit.model.has_content:
            return dataset
        chosen, _, several = contents_of(fit.dataset, fit.model.content, fit.options.model.content)
        for name in chosen:
            if name not in dataset.contents:
                problem = f"the run is of the content {name}, which the data have not"
                raise InputError(problem, "give it, as --items or --contents did for the run", path=fit.path)
        if several == bool(fit.options.model.content_likelihood == "product"):
            return dataset if several else _without_gaps(dataset, next(iter(chosen)))
        if all(dataset.contents[name].present.all() for name in chosen):
            problem = f"the run is of items that may lack {', '.join(chosen)}, and here all have it"
            raise InputError(problem, "fit from nothing, without --start-from", path=fit.path)
        return dataset

    def told(self, dataset: Dataset, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the run that users and items have, -1 of new ones; their numbers are told in the log.

        So is how many test pairs the run was fitted to, on which a recall says nothing.
        """
        old = self.fit.dataset
        users, items = places_of(dataset.user_ids, old.user_ids), places_of(dataset.item_ids, old.item_ids)
        known = [counted((rows >= 0).sum(), noun, of=len(rows)) for rows, noun in ((users, "user"), (items, "item"))]
        log.info("the run knows %s and %s", *known)
        if not (items >= 0).any():
            log.warning("no item of the data is in the run: check that both use the same ids")
        train, test = self.fit.split.train, split.test
        if self.fit.model.ratings.explicit:
            _doubt_units(split.train.ratings[split.train.observed], train.ratings[train.observed])
        of_users, of_items = users[test.users], items[test.items]
        both = (of_users >= 0) & (of_items >= 0)
        keys = of_users[both] * train.n_items + of_items[both]
        seen = int(np.isin(keys, train.keys[train.observed]).sum())
        if seen:
            log.warning(
                "%s among the training pairs of the run: what is measured on them is too good",
                counted(seen, "test pair", "were", of=len(test)),
            )
        return users, items

    def warm(self, users: np.ndarray, items: np.ndarray) -> Warm:
        """Means of both sides at the rows that :meth:`told` gives, and c."""
        fit, model = self.fit, self.fit.model
        parts = []
        for side, rows, kappa in (("u", users, model.kappa_u), ("v", items, model.kappa_v)):
            own = model.own(side, getattr(fit.posterior, side).loc)
            known = torch.as_tensor(rows >= 0)
            found = own[torch.as_tensor(np.maximum(rows, 0))] * known[:, None]
            n = model.n_factors
            parts.append(WarmRows(found[:, :n], kappa * found[:, n] if found.shape[1] > n else None, known))
        return Warm(parts[0], parts[1], self._scales())

    def _scales(self) -> tuple[float, float]:
        """C of unchosen and of new items."""
        scale = self.fit.model.content_scale
        if scale is None:
            return 1.0, 1.0
        unrated = torch.as_tensor(self.fit.split.train.item_counts == 0)
        new = float(scale[-1])
        return (float(scale[:-1][unrated][0]) if bool(unrated.any()) else new), new

    @torch.no_grad()
    def fill(self, model: FactorModel, options: Options, users: np.ndarray) -> None:
        """Let a new model, in the ratings' own units, have what the run has learned, but for what options ask anew."""
        old, own = self.fit.model, kept(model)
        if _radii(old) != _radii(model):
            problem = "its networks are of an older version, which gave their means other lengths"
            raise InputError(problem, "fit from nothing, without --start-from", path=self.fit.path)
        tensors = kept(old)
        tensors.pop("content_scale", None)
        for name in ("b", "b_power"):
            if self._changed(options, (name,)):
                tensors.pop(f"ratings.found_{name}", None)
        for name, tensor in list(tensors.items()):
            rows_of_users = name.startswith("ratings.") and tensor.dim() and len(tensor) == old.n_users
            if rows_of_users and name in own:
                tensors[name] = own[name].clone()
                known = torch.as_tensor(users >= 0)
                tensors[name][known] = tensor.to(own[name])[torch.as_tensor(users[users >= 0])]
        fill(model, tensors)
        anew = {name for name, asked in SETTINGS.items() if self._changed(options, asked)}
        found = {name: getattr(model if name in anew else old, name) for name in SETTINGS}
        model.set_precisions(**found)
        tuned = bool(options.fit.tune)
        model.to_find = tuple(name for name in model.to_find if tuned or name in anew)
        if not anew and not self._changed(options, ("b", "b_power", "cold_scale")):
            model.trials = list(self.fit.metrics.get("tuning", []))

    def _changed(self, options: Options, names: tuple[str, ...]) -> bool:
        now, before = options.to_dict(), self.fit.options.to_dict()
        return any(now[name] != before[name] for name in names)

    def settings(self, options: Options) -> Options:
        """The options that the algorithm is given: where ``--tune`` is asked, it begins at what the run had found."""
        taken = [row for row in self.fit.metrics.get("tuning", []) if row.get("taken") == "yes"]
        if not options.fit.tune or not taken:
            return options
        names = ("user_shrinkage", "item_shrinkage")
        found: Mapping[str, Any] = {name: taken[0][name] for name in names if not self._changed(options, (name,))}
        return replace(options, model=replace(options.model, **found))


def _without_gaps(dataset: Dataset, name: str) -> Dataset:
    """The data with an empty text for items that have none; InputError where another content is missing."""
    one = dataset.contents[name]
    if one.present.all():
        return dataset
    if not isinstance(one, Content):
        problem = f"{counted((~one.present).sum(), 'item', 'have')} no {name}, which all items of the run have"
        raise InputError(problem, "give it to all items, or fit from nothing, without --start-from")
    whole = Content(one.counts, one.vocabulary, one.vectorizer)
    return (
        replace(dataset, content=whole) if name == "text" else replace(dataset, others=dataset.others | {name: whole})
    )


def _doubt_units(now: np.ndarray, before: np.ndarray) -> None:
    """Warn where ratings are so far from those of the run that they can hardly be in its units."""
    means, spreads = ([float(f(one)) for one in (now, before)] for f in (np.mean, np.std))
    if min(spreads) > 0 and not (0.5 < spreads[0] / spreads[1] < 2 and abs(means[0] - means[1]) < 3 * spreads[1]):
        log.warning(
            "ratings have mean %.3g and standard deviation %.3g, those of the run %.3g and %.3g: if they are in other "
            "units, fit from nothing, without --start-from",
            *(means[0], spreads[0], means[1], spreads[1]),
        )


def _radii(model: FactorModel) -> list[float]:
    return [float(part.radius) for part in model.modules() if isinstance(getattr(part, "radius", None), float)]


def _digest(fit: Fit) -> str:
    found = hashlib.sha256()
    tensors: dict[str, Tensor] = fit.posterior.tensors() | kept(fit.model)
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
