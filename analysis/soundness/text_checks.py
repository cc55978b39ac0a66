"""Predictive checks of texts, contents that are word counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from analysis.draws.pairs import spread_rows
from analysis.kinds import DrawnFrom
from analysis.soundness.check import Check
from inference.fitting import Fit
from inference.posterior import Posterior
from models.build import contents_of
from models.observations import SparseRows
from pyro_cvae.data.content import Content
from pyro_cvae.turns import in_turn


def text_checks(fit: Fit, source: DrawnFrom, n_texts: int, draws: int, seed: int) -> Iterator[Check]:
    """The checks of texts among :func:`analysis.soundness.predictive.predictive_checks`, by draws from ``source``."""
    known = word_counts(fit)
    if known is None:
        return
    counts = known.counts
    full = np.flatnonzero(np.diff(counts.indptr))
    items = full[spread_rows(np.diff(counts.indptr)[full], n_texts)]
    dtype = fit.posterior.z_loc.dtype
    content = SparseRows.from_csr(fit.scalings["content"].transform(counts[items]), dtype)
    chosen = fit.posterior.select(items=torch.as_tensor(items))
    words, alone, largest = np.empty(draws), np.empty(draws), np.empty(draws)
    whole = True
    with in_turn(), torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        for draw, z in enumerate(_z_draws(fit, chosen, source, draws, seed)):
            text = fit.model.decoder.draw(fit.model.content, z, content)
            assert isinstance(text, SparseRows)
            whole = whole and bool((text.values == text.values.round()).all() and (text.values >= 0).all())
            words[draw], alone[draw], largest[draw] = _word_statistics(text)
    same = np.ones(draws)
    if not whole:
        return
    of_data = _word_statistics(content)
    yield Check("different words of a text", "Mean over texts.", of_data[0] * same, words)
    yield Check(
        "words of one text alone",
        "Share, of the words that occur, of those in one text only: the tail of word frequencies.",
        of_data[1] * same,
        alone,
    )
    yield Check(
        "most common word",
        "Share of the texts that have the word that most have.",
        of_data[2] * same,
        largest,
    )


def word_counts(fit: Fit) -> Content | None:
    """The word counts that the fit's content is, ``None`` where it is of another kind or of several contents."""
    if not fit.model.item_prior.generates:
        return None
    contents, _, several = contents_of(fit.dataset, fit.model.content, fit.options.model.content)
    content = next(iter(contents.values()))
    return None if several or not isinstance(content, Content) else content


def _z_draws(fit: Fit, chosen: Posterior, source: DrawnFrom, draws: int, seed: int) -> Iterator[Tensor]:
    """Draws of z of the chosen items, (n_items, n_factors) each."""
    if source == "prior":
        generator = torch.Generator().manual_seed(seed)
        for _ in range(draws):
            yield fit.model.item_prior.draw(1, chosen.z_loc, generator)[0]
    else:
        for drawn in chosen.draws(draws, seed):
            yield from drawn["z"]


def _word_statistics(text: SparseRows) -> tuple[float, float, float]:
    """Mean number of different words, share of words in one text alone, share of texts with the most common word."""
    there = text.values > 0
    frequency = torch.bincount(text.columns[there], minlength=text.n_columns)
    occurring = (frequency > 0).sum().clamp(min=1)
    n_texts = len(text)
    return float(there.sum()) / n_texts, float((frequency == 1).sum() / occurring), float(frequency.max()) / n_texts
