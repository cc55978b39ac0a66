"""The comparison itself: each run is opened, evaluated and closed, then rivals; scores come in blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from analysis.comparison.intervals import intervals
from analysis.comparison.options import CompareOptions
from analysis.comparison.result import Comparison
from analysis.comparison.runs import (
    comparability,
    contents_read,
    facts,
    history_of,
    open_runs,
    predicts_ratings,
    short_names,
    split_words,
)
from analysis.comparison.shrinkage import ARTEFACT, can_be_structured, ignores_content, ratings_of_items, shrinkage
from analysis.comparison.stability import ScoreBlock, agreement, drawn_lists, some_users, summary, top_lists
from inference.average import list_scores
from inference.evaluation.comparison import predictor
from inference.evaluation.rankings import evaluate
from inference.evaluation.rating_rivals import RATING_RIVALS
from inference.evaluation.ratings import evaluate_ratings
from inference.evaluation.rivals import OF_CONTENTS, RIVALS, rival, settings_of
from inference.fitting import Fit, load
from inference.recommending.asked import posterior_of
from inference.threads import torch_threads
from pyro_cvae.data.interactions import pairs_matrix
from pyro_cvae.errors import InputError, PyroCvaeError, about_file
from pyro_cvae.protocol import telling
from pyro_cvae.runs import Run
from pyro_cvae.text import counted


def compare(
    options: CompareOptions,
    on_step: Callable[[int, int, str], None] = lambda done, n, name: None,
    on_fit: Callable[[str, Fit], None] = lambda name, fit: None,
    rivals: Sequence[str] | None = None,
) -> Comparison:
    """Compare runs; raises InputError where they are not of the same data and split.

    ``on_step`` is called with the number of models done, their number, and the name of the next; ``on_fit`` with each
    run while it is open; ``rivals`` are some of ``inference.rivals.RIVALS`` in place of all or none.
    """
    with torch_threads(options.threads):
        opened = open_runs(options.runs, options.trust)
        names = short_names(options.runs)
        gathered = _Gathered(options, _explicit(options.runs, opened))
        others = _rivals(rivals, options.rivals, gathered.explicit)
        n_models = len(names) + len(others)
        for number, (name, run) in enumerate(zip(names, opened, strict=True)):
            on_step(number, n_models, name)
            gathered.add_run(name, run, on_fit)
        for number, name in enumerate(others, len(names)):
            on_step(number, n_models, name)
            gathered.add_rival(name)
        on_step(n_models, n_models, "")
        return gathered.comparison()


def _explicit(paths: Sequence[str], opened: Sequence[Run]) -> bool:
    """Whether the runs are of explicit ratings. Raises InputError where some are and some are not."""
    explicit = [predicts_ratings(run) for run in opened]
    if len(set(explicit)) > 1:
        odd = opened[explicit.index(not explicit[0])].path
        problem = f"{'ranks, but ' if explicit[0] else 'predicts ratings, but '}{paths[0]} does not"
        raise InputError(problem, "compare runs of explicit ratings with each other", path=odd)
    return explicit[0]


def _rivals(named: Sequence[str] | None, all_of_them: bool, explicit: bool) -> list[str]:
    """The rivals that stand beside the runs; explicit ratings have their own, and all of these where any is named."""
    if named is not None and not explicit:
        return list(named)
    if named is None and not all_of_them:
        return []
    return list(RATING_RIVALS) if explicit else list(RIVALS)


@dataclass(eq=False)
class _Gathered:
    """What is known so far, model after model.

    Shapes: ``lists`` (n_users, top) of each model, the rows being ``users``, whose known pairs are ``known``, a CSR
    matrix (n_users, n_items). ``dataset`` and ``split`` are the same for all runs;
    ``contents`` are those that any of them reads, ``passing`` the runs whose spread can follow that of contents.
    """

    options: CompareOptions
    explicit: bool
    evaluations: dict[str, Any] = field(default_factory=dict)
    lists: dict[str, Tensor] = field(default_factory=dict)
    histories: dict[str, pd.DataFrame] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    spreads: list[pd.DataFrame] = field(default_factory=list)
    agreements: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    users: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    known: Any = None
    contents: list[str] = field(default_factory=list)
    passing: set[str] = field(default_factory=set)
    dataset: Any = None
    split: Any = None

    def add_run(self, name: str, run: Run, on_fit: Callable[[str, Fit], None]) -> None:
        """Open a run, look at all there is of it, and close it: one run at a time is in memory."""
        fit = load(run)
        self.dataset, self.split = fit.dataset, fit.split
        self.contents += [one for one in contents_read(fit) if one not in self.contents]
        self.runs.append({"model": name, **facts(fit, run)})
        self.histories[name] = history_of(fit)
        with about_file(run.path):
            score_block = list_scores(fit.posterior, fit.split.train)
            if self.explicit:
                self.evaluations[name] = evaluate_ratings(predictor(fit), fit.split)
            else:
                self._rank(name, score_block)
            self._list(name, score_block)
        on_fit(name, fit)
        if not fit.posterior.is_point:
            self._add_spread(name, fit)
            self._add_draws(name, fit)

    def add_rival(self, name: str) -> None:
        """Evaluate a rival; one that cannot be had is noted."""
        try:
            if self.explicit:
                self.evaluations[name] = evaluate_ratings(RATING_RIVALS[name](self.dataset, self.split), self.split)
                return
            score_block = rival(name, self.contents)(self.dataset, self.split)
            self._rank(name, score_block)
            self._list(name, score_block)
            if name in OF_CONTENTS and len(self.contents) > 1:
                self.notes.append(f"{name}: of {', '.join(self.contents)}, side by side.")
            if settings_of(score_block) != "fixed":
                self.notes.append(f"{name}: {settings_of(score_block)}.")
        except PyroCvaeError as error:
            self.notes.append(f"{name}: {error}.")

    def _rank(self, name: str, score_block: ScoreBlock) -> None:
        """Evaluate the ranking of a model by its scores."""
        cutoffs, block_size = telling(self.options.cutoffs, self.split.train.n_items), self.options.block_size
        self.evaluations[name] = evaluate(score_block, self.split, cutoffs=cutoffs, block_size=block_size)

    def _list(self, name: str, score_block: ScoreBlock) -> None:
        """The top lists of a model, of the same users as those of the first."""
        options, split = self.options, self.split
        if self.known is None:
            self.users = some_users(self.evaluations[name], options.users, options.seed)
            seen = [split.train] if split.validation is None else [split.train, split.validation]
            self.known = pairs_matrix(*(pairs.select(pairs.observed) for pairs in seen))[self.users]
        self.lists[name] = top_lists(score_block, self.users, self.known, options.top, options.block_size)

    def _add_spread(self, name: str, fit: Fit) -> None:
        """The posterior spread of a fit, beside that of the prior."""
        table = shrinkage(fit.posterior, ratings_of_items(fit.split), seed=self.options.seed)
        self.passing |= {name} if can_be_structured(fit) else set()
        prior = (fit.model.item_prior.latent + 1 / fit.model.lambda_v) ** 0.5
        self.spreads.append(
            table.assign(
                model=name, prior_sd_v=prior, artefact=fit.model.item_prior.latent and ignores_content(fit.posterior)
            )
        )

    def _add_draws(self, name: str, fit: Fit) -> None:
        """How alike the lists of posterior draws are to each other, and to those of the means."""
        options, rows = self.options, np.arange(len(self.users))
        posterior = posterior_of(fit, self.users)
        drawn = drawn_lists(posterior, rows, self.known, options.top, options.draws, options.seed)
        to_means = [agreement(drawn_list, self.lists[name]) for drawn_list in drawn]
        half = options.draws // 2  # draws far apart, since those of a Markov chain are alike when they are near
        to_draws = [agreement(drawn[k], drawn[k + half]) for k in range(half)]
        for second, agreed in (("its posterior draws", to_means), ("between its draws", to_draws)):
            overlaps, taus = map(np.stack, zip(*agreed, strict=True))
            self.agreements.append({"first": name, "second": second, **summary(overlaps, taus)})

    def comparison(self) -> Comparison:
        """All of it, with the models' lists compared with each other and what has to be said beside the numbers."""
        options, first_run = self.options, self.runs[0]["model"]
        of_models = []
        for first, second in combinations(self.lists, 2):
            overlaps, taus = agreement(self.lists[first], self.lists[second])
            of_models.append({"first": first, "second": second, **summary(overlaps[None], taus[None])})
        runs = pd.DataFrame(self.runs)
        n_users = self.evaluations[first_run].n_users_evaluated
        how = "test ratings" if self.explicit else "corrected protocol"
        recall, differences = intervals(self.evaluations, options.resamples, options.level, options.seed)
        return Comparison(
            title=f"{self.dataset.name}, {split_words(self.split)}; {how}, {counted(n_users, 'user')}",
            runs=runs,
            recall=recall,
            differences=differences,
            shrinkage=pd.concat(self.spreads, ignore_index=True) if self.spreads else pd.DataFrame(),
            stability=pd.DataFrame([*self.agreements, *of_models]),
            histories=self.histories,
            evaluations=self.evaluations,
            notes=(*self.notes, *self._notes_on_uncertainty(), *comparability(runs)),
            explicit=self.explicit,
        )

    def _notes_on_uncertainty(self) -> list[str]:
        """Which runs have no posterior spread, and of which it is an artefact."""
        notes = []
        if points := [row["model"] for row in self.runs if row["posterior"] == "point"]:
            notes.append(f"{', '.join(points)}: a point estimate, which has no posterior spread; --mode bayes has.")
        if plain := [str(table["model"].iloc[0]) for table in self.spreads if table["artefact"].any()]:
            remedy = "; --guide structured passes it on" if set(plain) & self.passing else ""
            notes.append(f"{', '.join(plain)}: {ARTEFACT}{remedy}.")
        return notes
