"""From options to a model: the content of a data set, its likelihoods and networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from models import contents, ratings
from models.base import FactorModel
from models.catalogue import CONTENTS
from models.contents.making import content_likelihood
from models.contents.product import Product
from models.cvae import VAE
from models.making import class_of, made
from models.observations import Observations, RatingColumns
from models.returns import check_cell, is_own
from models.rows import AnyRows, DenseRows, Form, Forms, NoRows, OneRows, PartRows, SparseRows, TokenRows
from pyro_cvae.data.chosen import select
from pyro_cvae.data.content import Content, ContentScaling
from pyro_cvae.data.contents import AnyContent, Tokens, Vectors
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Scaling
from pyro_cvae.text import counted

Likelihood = contents.ContentLikelihood
CHECKED_AT_ONCE = 8192
"""Rows of which the support is checked at a time: of a mapped file no more are read."""

__all__ = [
    "content_likelihood",
    "content_likelihood_of",
    "contents_of",
    "encoder_rows",
    "form_of",
    "forms_of",
    "make_model",
    "model_class",
    "model_of",
    "new_rows",
    "observe",
    "rating_likelihood",
    "rows_of",
    "weight_unit",
]


def contents_of(
    dataset: Dataset, likelihood: Likelihood, content: str = ""
) -> tuple[dict[str, AnyContent], Likelihood, bool]:
    """The contents that a likelihood is of, the likelihood of what items may lack, and whether it is of several parts.

    A product names its contents; another is of the one called ``content``, by default text, or the only one there is.
    Where an item lacks that one, a product of this one part takes its place. Raises InputError where there is no such
    content or the likelihood is no density of its kind.
    """
    named = [name for name, _ in likelihood.each()] or None
    chosen = select(dataset.contents, named, content)
    parts: Likelihood = likelihood
    if named is None and not all(one.present.all() for one in chosen.values()):
        parts = Product(**dict.fromkeys(chosen, likelihood))
    for (name, one), part in zip(chosen.items(), _each(parts, chosen), strict=True):
        if one.kind not in part.reads:
            able = [own for own, facts in CONTENTS.items() if own != "product" and one.kind in facts.reads]
            raise InputError(
                f"{type(part).__name__} is no likelihood of {one.kind}, which the content {name} is",
                "use " + ", ".join(able),
            )
        if isinstance(one, Vectors) and not part.any_unit:
            chosen[name] = replace(one, units=None)
        if one.n_items < 2 or one.n_features < 2:
            feature = "word" if one.kind == "words" else "feature"
            what = f"{counted(one.n_items, 'item')} with {counted(one.n_features, feature)}"
            remedy = "give two of each or more" + (f", or leave {name} out of --contents" if name != "text" else "")
            where = "" if name == "text" else f" in the content {name}"
            raise InputError(f"{what}{where}: no catalogue", remedy)
        if not one.present.any() or (isinstance(one, Content) and not one.counts.nnz):
            where = "" if name == "text" else f" called {name}"
            raise InputError(f"no item has any content{where}", "give a table of items with texts")
    return chosen, parts, bool(parts.each())


def _each(likelihood: Likelihood, chosen: dict[str, AnyContent]) -> list[Likelihood]:
    return [part for _, part in likelihood.each()] or [likelihood] * len(chosen)


def form_of(content: AnyContent) -> Form:
    """The form that the rows of a content have."""
    if isinstance(content, Vectors):
        return Form(content.kind, tuple(content.values.shape[1:]))
    return Form(content.kind, (content.n_features,))


def forms_of(dataset: Dataset, likelihood: Likelihood, content: str = "") -> tuple[Forms, Likelihood]:
    """The form of what the likelihood is of, and the likelihood itself, as in :func:`contents_of`."""
    chosen, parts, several = contents_of(dataset, likelihood, content)
    forms = {name: form_of(one) for name, one in chosen.items()}
    return (forms if several else next(iter(forms.values()))), parts


def rows_of(content: AnyContent, scaling: ContentScaling | None, dtype: torch.dtype = torch.float64) -> OneRows:
    """The rows of one content, those that items lack among them; word counts are scaled."""
    if isinstance(content, Content):
        assert scaling is not None
        return SparseRows.from_csr(scaling.transform(content.counts), dtype)
    if isinstance(content, Tokens):
        return TokenRows.from_numpy(content.indptr, content.tokens, content.n_features)
    return DenseRows.from_numpy(content.values, dtype, content.units)


def encoder_rows(
    chosen: dict[str, AnyContent], scalings: dict[str, ContentScaling], several: bool, which: str = "inputs"
) -> AnyRows:
    """What the encoder reads of these contents (``which`` "inputs"), or the likelihood ("content"), with the scalings.

    Shapes: of several, the parts that items lack are left out.
    """
    if not several:
        ((_, one),) = chosen.items()
        return rows_of(one, scalings.get(which))
    parts, present = {}, {}
    for name, one in chosen.items():
        present[name] = torch.as_tensor(np.array(one.present))
        rows = rows_of(one, scalings.get(f"{name}.{which}"))
        parts[name] = rows if one.present.all() else rows.select(present[name].nonzero().squeeze(-1))
    return PartRows(parts, present)


def new_rows(
    model: FactorModel, dataset: Dataset, content: str, new: Any, scalings: dict[str, ContentScaling]
) -> AnyRows:
    """What the encoder reads of items that were not in the fit, from their contents; see ``Fit.encode``."""
    chosen, _, several = contents_of(dataset, model.content, content)
    if not isinstance(new, dict):
        if len(chosen) > 1:
            raise InputError(f"the fit is of {', '.join(chosen)}", "give a dictionary of contents by name")
        new = {next(iter(chosen)): new}
    given = {name: one if hasattr(one, "kind") else Content(one) for name, one in new.items()}
    if unknown := [name for name in given if name not in chosen]:
        raise InputError(f"the fit is of {', '.join(chosen)}, not of {unknown[0]}", "name its contents")
    n_new = {one.n_items for one in given.values()}
    if len(n_new) != 1:
        raise InputError("the contents are of different numbers of items", "give a row of each for every item")
    rows: dict[str, AnyContent] = {}
    for name, known in chosen.items():
        one = given.get(name)
        if one is None:
            continue
        if form_of(one) != form_of(known):
            raise InputError(
                f"the new {name} are {one.kind} of {one.n_features}, the fit's {known.kind} of {known.n_features}",
                "make them as those of the fit were made",
            )
        if not several and not isinstance(one, Content) and not one.present.all():
            problem = f"new item {int(np.argmin(one.present)) + 1} has no {name}, which all items of the fit have"
            raise InputError(problem, "leave it out")
        rows[name] = replace(one, units=known.units) if isinstance(known, Vectors) else one
    found = encoder_rows(rows, scalings, several)
    if isinstance(found, PartRows):
        nobody = torch.zeros(n_new.pop(), dtype=torch.bool)
        parts = {name: rows_of(_nothing(one), scalings.get(f"{name}.inputs")) for name, one in chosen.items()}
        return PartRows(parts | dict(found.parts), dict.fromkeys(chosen, nobody) | dict(found.present))
    return found


def _nothing(content: AnyContent) -> AnyContent:
    """No rows of a content of this form."""
    none = np.zeros(0, bool)
    if isinstance(content, Content):
        return Content(content.counts[:0])
    if isinstance(content, Tokens):
        return replace(content, indptr=np.zeros(1, np.int64), tokens=np.zeros(0, np.int32), present=none)
    return replace(content, values=content.values[:0], present=none)


def content_likelihood_of(options: Any) -> Likelihood | None:
    """The content's likelihood of model options, made anew; ``None`` for a model that reads no content."""
    if not model_class(options.model).has_content:
        return None
    likelihood = content_likelihood(options.content_likelihood, options.content_likelihood_args)
    if options.balance and len(likelihood.each()) > 1:
        likelihood.balanced = True  # type: ignore[assignment]
    return likelihood


def rating_likelihood(options: Any) -> ratings.RatingLikelihood:
    """The ratings likelihood of model options: the package's own of that name, or the class of a path.

    The paper's takes its precisions a and b, and the power of b, from the options. Raises InputError.
    """
    name, arguments = options.rating_likelihood, dict(options.rating_likelihood_args)
    if name == "confidence-normal":
        arguments = {"a": options.a, "b": options.b, "b_power": getattr(options, "b_power", 0.0)} | arguments
    return made("rating_likelihood", name, arguments)


def observe(
    dataset: Dataset,
    split: Split,
    likelihood: Likelihood | None,
    options: Any,
    scaling: Literal["auto", Scaling],
    known: Mapping[str, ContentScaling] | None = None,
) -> tuple[Observations, dict[str, ContentScaling]]:
    """What the model is conditioned on, and the fitted scalings of word counts: "content" and "inputs".

    Of several contents these are "name.content" and "name.inputs". ``options`` are the model's options; ``scaling``
    "auto" takes the likelihood's own; without a ``likelihood`` no content is read. Scalings that are ``known`` from
    another fit are taken and not fitted. Raises InputError if the content is outside the likelihood's support or there
    is no training rating.
    """
    if not split.train.observed.any():
        raise InputError("the training set is empty", "give at least one rating, or another split")
    columns = observed_ratings(dataset, split, options)
    if likelihood is None:
        nothing = NoRows(dataset.n_items)
        return Observations(nothing, nothing, columns), {}
    content, inputs, scalings = observed_contents(dataset, likelihood, options, scaling, known)
    return Observations(content, inputs, columns), scalings


def observed_contents(
    dataset: Dataset,
    likelihood: Likelihood,
    options: Any,
    scaling: Literal["auto", Scaling],
    known: Mapping[str, ContentScaling] | None = None,
) -> tuple[AnyRows, AnyRows, dict[str, ContentScaling]]:
    """Rows of content, what the encoder reads of them, and the scalings of word counts, fitted or ``known``."""
    chosen, parts, several = contents_of(dataset, likelihood, options.content)
    scalings: dict[str, ContentScaling] = {}
    for (name, one), part in zip(chosen.items(), _each(parts, chosen), strict=True):
        if isinstance(one, Content):
            counts, start = one.counts[one.present], f"{name}." if several else ""
            if known is not None:
                scalings |= {f"{start}{which}": known[f"{start}{which}"] for which in ("content", "inputs")}
                continue
            own = ContentScaling.fit(counts, part.default_scaling if scaling == "auto" else scaling)
            weighted = options.encoder_input == "tfidf" and not model_class(options.model).as_is
            scalings |= {
                f"{start}content": own,
                f"{start}inputs": ContentScaling.fit(counts, "tfidf") if weighted else own,
            }
    content = encoder_rows(chosen, scalings, several, "content")
    for block in torch.arange(len(content)).split(CHECKED_AT_ONCE):
        parts.check(content.select(block))
    return content, encoder_rows(chosen, scalings, several), scalings


def observed_ratings(dataset: Dataset, split: Split, options: Any) -> RatingColumns:
    """The columns of the training ratings; InputError where one is outside the likelihood's support."""
    rating = rating_likelihood(options)
    columns = RatingColumns.from_interactions(
        split.train, rating.default_confidence, options.unrated, torch.float64, weight_unit(dataset, split)
    )
    if not is_own(rating):
        check_cell(rating, columns.ratings)
    rating.check(columns)
    columns = rating.weighed(columns)
    given = columns.ratings[columns.confidences > 0]
    if rating.explicit and len(given) > 1 and bool((given == given[0]).all()):
        raise InputError(
            f"all ratings are {float(given[0]):g}: they are no explicit ratings",
            "use data with a column of ratings, or another --rating-likelihood",
        )
    return columns


def weight_unit(dataset: Dataset, split: Split) -> float | None:
    """The training weight that stands for the model's ``a``; ``None`` of simulated data that state precisions."""
    stated = dataset.truth is not None and "a" in dataset.truth
    return None if stated else split.train.weight_unit


def model_class(name: str) -> type[FactorModel]:
    """The package's own model of that name, or the class of a path ``module.Class``; InputError if unknown."""
    return class_of("model", name)


def make_model(
    n_users: int,
    n_items: int,
    form: int | Forms | None,
    likelihood: Likelihood | None,
    o: Any,
    cls: type[FactorModel] | None = None,
) -> FactorModel:
    """The model of the options ``o``, its networks, if it has any, at a random start.

    ``form`` is that of the rows of content; a number stands for so many words. Both are ``None`` for a model that reads
    no content; another is given its item prior, by default a :class:`~models.cvae.VAE`. Precisions that are not given
    are 1 until they are found (:mod:`inference.algorithms.precisions`).
    ``cls`` is the class where it is at hand, otherwise that which the options name.
    """
    rating = rating_likelihood(o)
    rating.prepare(n_users)
    own: dict[str, Any] = {name: getattr(o, name) or 1.0 for name in ("lambda_u", "lambda_v")}
    own["lambda_b"] = (o.lambda_b or 1.0) if o.biases == "on" else None
    name, arguments = getattr(o, "model", "cvae"), dict(getattr(o, "model_args", {}))
    maker: Any = model_class(name) if cls is None else cls
    sizes: tuple[Any, ...] = n_users, n_items, o.factors
    if maker.has_content:
        assert likelihood is not None and form is not None
        known = Form("words", (form,)) if isinstance(form, int) else form
        sizes += ((maker.reads_by or VAE).made(n_items, known, likelihood, o),)
    try:
        model = maker(*sizes, rating, **own, **arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {error}", "give the arguments that its constructor takes") from error
    model.parametrization = o.parametrization
    model.to_find = tuple(one for one in ("lambda_u", "lambda_v", "lambda_b") if not getattr(o, one))
    return model


def model_of(dataset: Dataset, options: Any) -> FactorModel:
    """The model of model options for a data set, as :func:`make_model` makes it."""
    likelihood = content_likelihood_of(options)
    form, parts = (None, None) if likelihood is None else forms_of(dataset, likelihood, options.content)
    return make_model(dataset.n_users, dataset.n_items, form, parts, options)
