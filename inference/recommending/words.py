r"""The words that the decoder sees in both of two items.

With p_w(z) the decoder's mean of word w, which is its probability where the content is multinomial, and z-bar the mean
of z over the catalogue, a word is raised in an item by log p_w(z_j) - log p_w(z-bar), and in two items by the lesser of
both. Only words that stand in one of the two texts at least are looked at: of a rare word that neither has the decoder
knows little.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from inference.fitting import Fit
from inference.recommending.updated import fitted_part
from models.build import contents_of
from models.contents import ContentLikelihood
from models.gaussians import Gaussians
from models.networks import Decoder
from pyro_cvae.data.content import Content

PAIRS_AT_ONCE = 256
_USUAL: WeakKeyDictionary[Gaussians, Tensor | None] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of a fit's items and the decoder that makes them; ``counts`` (n_items, n_words)."""

    words: np.ndarray
    counts: sp.csr_matrix
    decoder: Decoder
    likelihood: ContentLikelihood
    z: Tensor

    @torch.no_grad()
    def log_means(self, z: Tensor) -> Tensor | None:
        """Logs of the decoder's means, (n_rows, n_words); ``None`` where they are no positive numbers, one a word."""
        mean = self.likelihood.distribution(**self.decoder(z)).mean
        return mean.double().log() if mean.shape == (len(z), len(self.words)) and bool((mean > 0).all()) else None


def vocabulary_of(fit: Fit) -> Vocabulary | None:
    """The bag of words with a vocabulary that a fit's decoder makes, the first of several; ``None`` without one."""
    model, base = fit.model, fitted_part(fit)
    if not (model.has_content and model.item_prior.generates):
        return None
    chosen, likelihood, several = contents_of(base.dataset, model.content, fit.options.model.content)
    parts = dict(likelihood.each())
    for name, content in chosen.items():
        if content.kind != "words" or not isinstance(content, Content) or content.vocabulary is None:
            continue
        decoder = model.decoder.part(name) if several else model.decoder
        counts = fit.dataset.content.counts if name == "text" else content.counts
        missing = fit.dataset.n_items - counts.shape[0]  # items that were added without it
        if missing:
            counts = sp.vstack([counts, sp.csr_matrix((missing, counts.shape[1]))], "csr")
        words = np.array(content.vocabulary, object)
        return Vocabulary(words, counts, decoder, parts[name] if several else likelihood, fit.posterior.z.loc)
    return None


def common_words(fit: Fit, first: np.ndarray, second: np.ndarray, most: int = 3) -> list[str] | None:
    """For each pair of items the ``most`` words that the decoder raises most in both, "one, two, three".

    Shapes: ``first`` and ``second`` rows, (n_pairs,). ``None`` where the fit is of no bag of words, or the decoder has
    no means above 0 of it; "" for a pair without such a word.
    """
    known = vocabulary_of(fit)
    if known is None or (usual := _usual(fit.posterior.z, known)) is None:
        return None
    found: list[str] = []
    for start in range(0, len(first), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        raised = known.log_means(known.z[torch.as_tensor(np.concatenate([first[some], second[some]]))])
        if raised is None:
            return None
        both = torch.minimum(*raised.chunk(2)) - usual
        there = torch.as_tensor((known.counts[first[some]] + known.counts[second[some]]).toarray() > 0)
        best = both.masked_fill(~there, 0.0).topk(min(most, both.shape[1]))
        for values, words in zip(best.values.numpy(), known.words[best.indices.numpy()], strict=True):
            found.append(", ".join(words[values > 0]))
    return found


def _usual(z: Gaussians, known: Vocabulary) -> Tensor | None:
    """Logs of the decoder's means at the mean of z, (1, n_words); they are kept with the z of the fit."""
    if z not in _USUAL:
        _USUAL[z] = known.log_means(known.z.mean(0, keepdim=True))
    return _USUAL[z]
