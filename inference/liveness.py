"""Does the content live? One judgement of a fit, for its end, ``analysis.report`` and ``analysis.diagnostics``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.build import contents_of

if TYPE_CHECKING:
    from inference.fitted import Fit
    from pyro_cvae.data.contents import AnyContent

LOOKED_AT = 4096
"""Items that are looked at for contents that are the same; of more, a seeded sample."""
MOST_NATS = 10.0
"""KL a factor beyond which no content says so much: a standard deviation of e^-10, or a mean of four and a half."""
NONE = "none"
"""The state of a model that reads no content."""
POINT = "a point"
"""The state of a model to which the content of an item has no posterior."""
SHOUTED = ("collapsed", "implausible", "constant", "faint")
"""States of :func:`content_verdict` that are no good news."""


def n_distinct(contents: Iterable[AnyContent]) -> int:
    """How many different contents the items have, all that an item has taken together; of a sample of many items."""
    given = list(contents)
    n_items = given[0].n_items
    rows = np.arange(n_items)
    if n_items > LOOKED_AT:
        rows = np.sort(np.random.default_rng(0).choice(n_items, LOOKED_AT, replace=False))
    keys = [hashlib.blake2b(digest_size=16) for _ in rows]
    for one in given:
        there = np.asarray(one.present)[rows]
        for place, row in enumerate(_rows(one, rows)):
            keys[place].update(row if there[place] else b"nothing")
    some = np.any([np.asarray(one.present)[rows] for one in given], axis=0)
    return len({key.digest() for key, has in zip(keys, some, strict=True) if has})


def _rows(content: Any, rows: np.ndarray) -> Iterable[bytes]:
    """The bytes of the content of each of these items."""
    if content.kind == "words":
        counts = content.counts[rows]
        counts.sort_indices()
        for begin, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
            yield counts.indices[begin:end].tobytes() + counts.data[begin:end].tobytes()
    elif content.kind == "tokens":
        for row in rows:
            yield content.tokens[content.indptr[row] : content.indptr[row + 1]].tobytes()
    else:
        for row in rows:
            yield np.ascontiguousarray(content.values[row]).tobytes()


def content_verdict(
    content: dict[str, float], n_items: int, n_factors: int, distinct: int | None = None, n_features: int | None = None
) -> dict[str, Any]:
    """Does q(z|x) know the items apart? A ``state``, a sentence ``words``, and the ``numbers``.

    ``content`` are the figures of :func:`inference.posterior.content_diagnostics`, all of them in units of the prior
    N(0, I), so that no scale of the data is in them; ``distinct`` how many different contents the items have, at most
    ``n_items``, and ``n_features`` in how many numbers. The first that holds:

    - implausible: the KL is no number, or above ten nats a factor;
    - constant: at most two different contents, which no posterior can tell further apart;
    - collapsed: no active unit, or I(x; z) below a tenth of a nat: every content says the same;
    - faint: I(x; z) below a nat and below half of what would tell all different contents apart, log(distinct); or
      fewer active units than a tenth of those there can be: the least of the factors, the features, and distinct - 1;
    - alive.

    At most I(x; z) = log n_items, at which every item is known apart from all others.
    """
    kl, units = content.get("kl", np.nan), content.get("active_units", np.nan)
    information, most = content.get("mutual_information", np.nan), float(np.log(n_items))
    apart = n_items if distinct is None else distinct
    possible = min(n_factors, max(apart - 1, 1), n_factors if n_features is None else n_features)
    share = f"{information / most:.0%}" if np.isfinite(information) and most else "an unknown share"
    if content and not kl <= MOST_NATS * n_factors:
        state, words = (
            "implausible",
            f"The posterior claims {kl:.3g} nats of an item, far more than any content says: its numbers are not to be "
            "trusted. Contents that hardly vary, very large numbers or too large steps lead there.",
        )
    elif apart <= 2:
        contents = {0: "no content", 1: "the same content"}.get(apart, "one of two contents")
        state, words = (
            "constant",
            f"All items have {contents}: it cannot tell them apart, and what is recommended rests on ratings alone.",
        )
    elif units == 0 or information < 0.1:
        state, words = (
            "collapsed",
            "Every content leads to nearly the same z: what is recommended rests on ratings alone, and items that "
            "nobody has chosen cannot be told apart. More pre-training or a KL warm-up may cure it.",
        )
    elif (information < 1 and information < 0.5 * float(np.log(apart))) or units < possible / 10:
        state, words = (
            "faint",
            "The contents tell items apart only a little. Items that nobody has chosen are ranked on thin evidence.",
        )
    else:
        state, words = (
            "alive",
            f"A content says which item it is of: {share} of what would tell every item apart from all others.",
        )
    return {
        "state": state,
        "words": words,
        "numbers": {
            "KL(q(z|x) || p(z)), mean over items": f"{kl:.2f} nats",
            "Active units (directions of the means)": f"{units:.0f} of {n_factors}",
            "Active axes (single units)": f"{content.get('active_axes', np.nan):.0f} of {n_factors}",
            "Mutual information I(x; z)": f"{information:.2f} of at most {most:.2f} nats",
        },
    }


def judge(fit: Fit) -> dict[str, Any]:
    """The verdict on the content of a fit, of all that the model is of.

    State "none" of a model that reads none, "a point" of one to which contents have no posterior.
    """
    if not fit.model.has_content:
        words = "The model reads no content: items that nobody has chosen are all alike to it."
        return {"state": NONE, "words": words, "numbers": {}}
    if not fit.model.item_prior.latent:
        return _of_points(fit.posterior.z_loc)
    chosen, _, _ = contents_of(fit.dataset, fit.model.content, fit.options.model.content)
    n_features = sum(one.n_features for one in chosen.values())
    n_items, n_factors = fit.posterior.z_loc.shape
    known = n_distinct(chosen.values())
    return content_verdict(fit.metrics.get("content", {}), n_items, n_factors, known, n_features)


def constant_parts(fit: Fit) -> list[str]:
    """Names of those of several contents of which items have one or two different ones."""
    if not fit.model.has_content:
        return []
    chosen, _, _ = contents_of(fit.dataset, fit.model.content, fit.options.model.content)
    return [name for name, one in chosen.items() if n_distinct([one]) <= 2] if len(chosen) > 1 else []


def _of_points(m: torch.Tensor) -> dict[str, Any]:
    """The verdict where the content of an item is a point, m (n_items, n_factors): in how many directions it varies.

    These are (sum of the eigenvalues)^2 / (sum of their squares) of the covariance of m, whatever its length is.
    """
    eigenvalues = torch.linalg.eigvalsh(torch.atleast_2d(torch.cov(m.double().mT))).clamp(min=0)
    directions = float(eigenvalues.sum() ** 2 / eigenvalues.square().sum().clamp(min=1e-300))
    words = "The content of an item is a point to this model, without a posterior that could collapse."
    figures = {"Directions in which the contents vary": f"{directions:.1f} of {m.shape[1]}"}
    return {"state": POINT, "words": words, "numbers": figures}


def doubt(fit: Fit) -> str:
    """One line about a content that is not alive, "" of one that is; of several, about those that are constant too."""
    found = judge(fit)
    if found["state"] not in SHOUTED:
        constant = constant_parts(fit)
        told = "all items that have it have one of two contents, which tell nothing of them"
        return f"of the contents {', '.join(constant)} is constant: {told}; leave it out" if constant else ""
    numbers = fit.metrics.get("content", {})
    figures = f"{numbers.get('active_units', np.nan):.0f} of {fit.options.model.factors} units active"
    return f"the content is {found['state']} ({figures}, KL {numbers.get('kl', np.nan):.3g} nats): {found['words']}"
