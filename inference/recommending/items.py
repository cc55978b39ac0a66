"""Items added to a fit from their contents alone.

An item with contents x_j has, as long as nobody has rated it, v_j ~ N(mu(x_j), sigma(x_j)^2 + 1/lambda_v), with mu and
sigma from the encoder: what a fit with ``--guide structured`` and ``--unrated masked`` says of an item without a
training rating. The other families leave out sigma^2 for items of the fit, never for added ones. The fit itself stays
as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from inference.fitting import Fit
from inference.posterior import Posterior
from inference.recommending.updated import UpdatedFit, extended, fitted_part, folded_in, refuse_draws, updated
from models.build import contents_of
from models.gaussians import Gaussians
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import AnyContent
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

log = logging.getLogger("pyro_cvae")


def add_items(
    fit: Fit,
    ids: Iterable[Any],
    texts: Sequence[str] | None = None,
    *,
    counts: Any = None,
    contents: dict[str, AnyContent] | None = None,
    titles: Sequence[str | None] | np.ndarray | None = None,
) -> UpdatedFit:
    """The fit with items added after its own, from their texts, word counts or other contents.

    Parameters: ``ids`` external ids that the fit does not have; ``texts`` are counted by the fit's vocabulary (with
    ``titles``, whose words count too, as in a fit from tables); ``counts`` (n_new, n_features) in their place;
    ``contents`` contents by name, a row an item, of the forms that the fit's have. Of those that the fit is of,
    one that is left out is one that none of the items has. The data set of the result has texts alone. Raises
    InputError where an id is taken or of the wrong type, where there is no content that the fit is of, where it has no
    vocabulary and ``counts`` are needed, and for the stored draws of inference.mcmc.
    """
    refuse_draws(fit)
    dataset, base, new = fit.dataset, fitted_part(fit), list(ids)
    if not fit.model.has_content:
        problem = f"{type(fit.model).__name__} reads no content, from which it could tell new items apart"
        raise InputError(problem, "fit a model that does, for instance --model cvae")
    chosen, _, several = contents_of(base.dataset, fit.model.content, fit.options.model.content)
    given = _given(dataset, contents or {}, texts, counts, titles)
    encoded = {name: one for name, one in given.items() if name != "text" or name in chosen}
    if not encoded:
        able = "texts or word counts" if list(chosen) == ["text"] else ", ".join(chosen)
        more = "" if "text" in chosen else f" by --new-contents {next(iter(chosen))}, or with =PATH"
        raise InputError(f"new items need {able}, which the fit is of", f"give them{more}")
    item_ids = extended(dataset.item_ids, new, "item")
    _check(dataset, new, given)
    loc, scale = base.encode_content(encoded)
    text = given.get(
        "text", Content(sp.csr_matrix((len(new), dataset.content.n_features)), given=np.zeros(len(new), bool))
    )
    assert isinstance(text, Content)
    if "text" in encoded and text.empty.any():
        told = counted(text.empty.sum(), "new item", "have", of=len(new))
        log.warning("%s no word of the vocabulary", told)
    split, n_items = fit.split, len(item_ids)
    parts: dict[str, Any] = {
        name: None if part is None else replace(part, n_items=n_items)
        for name, part in (("train", split.train), ("test", split.test), ("validation", split.validation))
    }
    whole = dataset.content.given is None and not several
    return updated(
        fit,
        posterior=_with_items(fit.posterior, loc, scale, base.around_new_items(loc), fit.model.scale_of_new_items),
        dataset=Dataset(
            dataset.name,
            replace(dataset.interactions, n_items=n_items),
            _joined(dataset.content, text, whole),
            dataset.user_ids,
            item_ids,
            _joined_titles(dataset, titles, len(new)),
        ),
        split=replace(split, **parts),
        folded_in=folded_in(fit),
    )


def _given(
    dataset: Dataset,
    contents: Mapping[str, AnyContent],
    texts: Sequence[str] | None,
    counts: Any,
    titles: Sequence[str | None] | np.ndarray | None,
) -> dict[str, AnyContent]:
    """The contents of the new items by name, words from texts or counts among them."""
    given = dict(contents)
    if (texts is not None) + (counts is not None) + ("text" in given) > 1:
        raise InputError("new items need either texts or word counts", "give one of them")
    if texts is not None:
        documents = texts if titles is None else [f"{t}\n{text}" for t, text in zip(titles, texts, strict=True)]
        given["text"] = dataset.content.of(documents)
    elif counts is not None:
        given["text"] = Content(counts)
    return given


def _check(dataset: Dataset, new: Sequence[Any], given: Mapping[str, AnyContent]) -> None:
    """InputError where an id is taken, or where contents have another number of rows than there are new items."""
    taken = dataset.item_rows(new, unknown="prior")
    if (taken >= 0).any() or len(set(new)) < len(new):
        again = next(one for place, one in enumerate(new) if taken[place] >= 0 or one in new[:place])
        raise InputError(f"item {again!r} is there more than once", "add items under ids of their own")
    for name, one in given.items():
        if one.n_items != len(new):
            raise InputError(
                f"{counted(len(new), 'new item', 'have')} {counted(one.n_items, 'row')} of {name}",
                "give a row for each item",
            )


def _joined(content: Content, more: Content, whole: bool) -> Content:
    """The words of all items; ``whole`` says that each has a text, if only an empty one."""
    return Content(
        sp.vstack([content.counts, more.counts], "csr"),
        content.vocabulary,
        content.vectorizer,
        None if whole else np.concatenate([content.present, more.present]),
    )


def _joined_titles(dataset: Dataset, titles: Sequence[str | None] | np.ndarray | None, n_new: int) -> np.ndarray | None:
    """The titles of all items, (n_items + n_new,); ``None`` where no item has one."""
    old = dataset.titles
    if old is None and titles is None:
        return None
    if old is None:
        old = np.full(dataset.n_items, None, object)
    return np.concatenate([old, np.array([None] * n_new if titles is None else list(titles), object)])


def _with_items(posterior: Posterior, loc: Tensor, scale: Tensor, around: Tensor, c: float) -> Posterior:
    """The posterior with items added after its own, v ~ N(around, c^2 scale^2 + 1/lambda_v), biases at their prior."""
    own = torch.full_like(around[0], 1 / posterior.lambda_v)
    if posterior.v_pad is not None:
        own[-2] = 0.0  # what meets the users' biases is given
    of_z, v = torch.nn.functional.pad((c * scale).square(), (0, len(own) - loc.shape[1])), Gaussians(around)
    if posterior.v.variance is not None:
        v = Gaussians(around, of_z + own)
    elif posterior.v.spread is not None:  # z is the parent, which adds its spread itself
        block = torch.zeros(len(loc), dtype=torch.int64)
        v = Gaussians(around, covariance=torch.diag(own)[None], block=block, spread=of_z)
    elif posterior.v.covariance is not None:
        v = Gaussians(around, covariance=torch.diag_embed(of_z + own))
    z, scales = Gaussians(loc, scale.square()), posterior.content_scale
    if scales is None and c != 1:
        scales = torch.ones_like(posterior.v.loc[:, 0])
    if scales is not None:
        scales = torch.cat([scales, scales.new_full((len(loc),), c)])
    return replace(posterior, v=posterior.v.joined(v), z=posterior.z.joined(z), content_scale=scales)
