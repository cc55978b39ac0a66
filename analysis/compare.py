"""Fits of one data set and split side by side: ``python -m analysis.compare RUN RUN ... [--out FOLDER]``.

How well each ranks, or of explicit ratings how far its predictions are off, with intervals over users, and by how much
it differs from the first run user by user; what the fit
maximised and how long that took; how the posterior spread shrinks with the number of ratings; how stable the lists are,
from run to run and from one posterior draw to the next. Any posterior that answers ``score_block``, ``score``,
``covariance``, ``select`` and ``draws`` can stand here; runs are opened one after the other, scores come in blocks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.printing import Sheet, check_format, emit
from inference.progress import Lines
from inference.progress import progress as progress_of_steps
from inference.threads import torch_threads
from pyro_cvae.errors import InputError, PyroCvaeError, run_command
from pyro_cvae.metrics import CUTOFFS
from pyro_cvae.trust import Trust

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from inference.evaluation.rankings import Evaluation
    from inference.evaluation.ratings import Predict, RatingEvaluation
    from inference.fitting import Fit
    from inference.posterior import Posterior
    from pyro_cvae.data.splits import Split
    from pyro_cvae.runs import Run

    ScoreBlock = Callable[[np.ndarray], torch.Tensor]

RATINGS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
"""Least number of ratings of each bin of :func:`shrinkage`; 0 is an item of which only the content is known."""
OBJECTIVES = {"elbo": "ELBO", "map_objective": "MAP objective", "log_joint": "log joint"}
NO_BOUND = {
    "tempered": "a tempered fit (lambda_r or the weight of the KL is not 1), of which the untempered value is shown",
    "pseudo_likelihood": "a pseudo-likelihood of the content, so that the objective is of no probability of the data",
}
FRAMES = ("runs", "recall", "differences", "shrinkage", "stability")
FIGURE = "compare.png"
FLOATS_AT_ONCE = 2**25
ARTEFACT = "the spread of v takes no notice of what the text leaves open: an artefact of mean field, not knowledge"


@dataclass(frozen=True)
class CompareOptions:
    """Which runs are compared, how closely, and where tables and figure go.

    Parameters:
        runs: Run folders of one data set and split; differences are taken to the first.
        out: A folder to be made, for the tables (CSV) and the figure (PNG); without it they are only printed.
        rivals: Put popularity, TF-IDF cosine, truncated-SVD cosine and implicit's ALS beside them, or of explicit
            ratings their mean, and the mean with biases by ridge.
        cutoffs: The M of recall@M.
        resamples: Bootstrap samples of users.
        level: Level of the bootstrap intervals.
        top: Length of the lists whose stability is looked at.
        users: Users, drawn by the seed, whose lists are looked at.
        draws: Posterior draws of those lists.
        seed: Of everything random.
        threads: Number of threads; all that torch takes by itself if not given.
        block_size: Users scored at once.
        overwrite: Replace the folder, if it is of this command.
        format: How the tables are printed (table, csv, json).
        trust: Class paths outside of the package that the runs may import; see docs/security.md.
    """

    runs: tuple[str, ...]
    out: str | None = None
    rivals: bool = False
    cutoffs: tuple[int, ...] = CUTOFFS
    resamples: int = 2000
    level: float = 0.95
    top: int = 50
    users: int = 500
    draws: int = 20
    seed: int = 0
    threads: int | None = None
    block_size: int = 256
    overwrite: bool = False
    format: str = "table"
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_format(self.format)
        if not self.cutoffs or min(self.cutoffs) < 1:
            given = " ".join(map(str, self.cutoffs))
            raise InputError(f"--cutoffs is {given!r}, but it must be one or more numbers of 1 or more")
        for name in ("resamples", "top", "users", "block_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}, but it must be at least 1")
        if self.draws < 2:
            raise InputError(f"--draws is {self.draws}, but it must be at least 2")
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}, but it must be 0 or more")
        if not 0 < self.level < 1:
            raise InputError(f"--level is {self.level}, but it must be between 0 and 1")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What :func:`compare` found, a frame a question; models are runs and rivals, in the order given.

    Parameters:
        title: Data, split and protocol in words.
        runs: A row a run: how it was fitted, ``objective`` (its name) and ``value`` in nats, ``tempered``, ``seconds``.
        recall: A row for each model and metric: ``mean`` over users, bootstrap interval ``low`` to ``high``. Of
            explicit ratings the metrics are ``rmse``, ``mae``, ``log_density`` and coverage, over pairs.
        differences: The same of the difference to the first run, user by user: ``mean``, its standard error ``se``,
            ``low``, ``high``, shares of users ``better`` and ``worse``. Of explicit ratings the difference of the
            squared error (and others) over pairs, a user being better whose own mean is.
        shrinkage: :func:`shrinkage` of every run that has uncertainty, with ``artefact`` (:data:`ARTEFACT`).
        stability: Agreement of top lists (:func:`agreement`) of two models, or of two posterior draws of one model, or
            of its draws and its means.
        histories: Of each run, the epochs that saw ratings.
        evaluations: Of each model, with the metrics of every user and of hot, warm and cold items.
        notes: What has to be said beside the numbers.
    """

    title: str
    runs: pd.DataFrame
    recall: pd.DataFrame
    differences: pd.DataFrame
    shrinkage: pd.DataFrame
    stability: pd.DataFrame
    histories: dict[str, pd.DataFrame]
    evaluations: dict[str, Any]
    notes: tuple[str, ...]
    explicit: bool = False

    @property
    def files(self) -> dict[str, str]:
        """Each frame, and the name of its file: what is called recall of rankings is errors of explicit ratings."""
        return {name: "errors" if name == "recall" and self.explicit else name for name in FRAMES}


# --- the comparison --------------------------------------------------------------------------------------------------


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
        return _compare(options, on_step, on_fit, rivals)


def _compare(
    options: CompareOptions,
    on_step: Callable[[int, int, str], None],
    on_fit: Callable[[str, Fit], None],
    rivals: Sequence[str] | None,
) -> Comparison:
    import pandas as pd

    from inference.average import list_scores
    from inference.evaluation.comparison import predictor
    from inference.evaluation.rankings import evaluate
    from inference.evaluation.rating_rivals import RATING_RIVALS
    from inference.evaluation.ratings import evaluate_ratings
    from inference.evaluation.rivals import RIVALS, settings_of
    from inference.fitting import load
    from inference.recommending.asked import posterior_of
    from pyro_cvae.data.interactions import pairs_matrix

    opened = open_runs(options.runs, options.trust)
    names = short_names(options.runs)
    explicit = [predicts_ratings(run) for run in opened]
    if len(set(explicit)) > 1:
        odd = opened[explicit.index(not explicit[0])].path
        problem = f"{'ranks, but ' if explicit[0] else 'predicts ratings, but '}{options.runs[0]} does not"
        raise InputError(problem, "compare runs of explicit ratings with each other", path=odd)
    if rivals is None:
        rivals = () if not options.rivals else list(RATING_RIVALS) if explicit[0] else list(RIVALS)
    elif explicit[0]:
        rivals = list(RATING_RIVALS)
    n_models = len(names) + len(rivals)
    cutoffs = sorted(set(options.cutoffs))

    evaluations: dict[str, Any] = {}
    lists: dict[str, torch.Tensor] = {}
    about, spreads, agreements, histories = [], [], [], {}
    notes: list[str] = []
    split: Any = None
    users, known = np.zeros(0, np.int64), None

    def look(name: str, score_block: ScoreBlock | None, predict: Predict | None = None) -> None:
        nonlocal users, known
        if predict is not None:
            evaluations[name] = evaluate_ratings(predict, split)
        elif score_block is not None:
            evaluations[name] = evaluate(score_block, split, cutoffs=cutoffs, block_size=options.block_size)
        if score_block is None:
            return
        if known is None:
            users = some_users(evaluations[name], options.users, options.seed)
            parts = [part for part in (split.train, split.validation) if part is not None]
            known = pairs_matrix(*(part.select(part.observed) for part in parts))[users]
        lists[name] = top_lists(score_block, users, known, options.top, options.block_size)

    for number, (name, run) in enumerate(zip(names, opened, strict=True)):
        on_step(number, n_models, name)
        fit = load(run)
        dataset, split = fit.dataset, fit.split
        about.append({"model": name, **facts(fit, run)})
        histories[name] = _history(fit)
        try:
            look(name, list_scores(fit.posterior, split.train), predictor(fit) if explicit[0] else None)
        except InputError as error:
            raise InputError(error.problem, error.remedy, path=run.path) from None
        on_fit(name, fit)
        if fit.posterior.is_point:
            del fit
            continue
        table = shrinkage(fit.posterior, _ratings(split), seed=options.seed)
        artefact = ignores_content(fit.posterior)
        prior = (1 + 1 / fit.model.lambda_v) ** 0.5
        spreads.append(table.assign(model=name, prior_sd_v=prior, artefact=artefact))
        drawn = drawn_lists(
            posterior_of(fit, users), np.arange(len(users)), known, options.top, options.draws, options.seed
        )
        to_means = [agreement(drawn_list, lists[name]) for drawn_list in drawn]
        half = options.draws // 2  # draws far apart, since those of a Markov chain are alike when they are near
        to_draws = [agreement(drawn[k], drawn[k + half]) for k in range(half)]
        for second, parts in (("its posterior draws", to_means), ("between its draws", to_draws)):
            agreements.append({"first": name, "second": second, **_summary(*map(np.stack, zip(*parts, strict=True)))})
        del fit  # one run at a time in memory
    for number, name in enumerate(rivals, len(names)):
        on_step(number, n_models, name)
        try:
            if explicit[0]:
                look(name, None, RATING_RIVALS[name](dataset, split))
            else:
                score_block = RIVALS[name](dataset, split)
                look(name, score_block)
                notes += [f"{name}: {settings_of(score_block)}."] if settings_of(score_block) != "fixed" else []
        except PyroCvaeError as error:
            notes.append(f"{name}: {error}.")
    on_step(n_models, n_models, "")

    for first, second in combinations(lists, 2):
        agreed = agreement(lists[first], lists[second])
        agreements.append({"first": first, "second": second, **_summary(*(part[None] for part in agreed))})
    runs_frame = pd.DataFrame(about)
    if points := [row["model"] for row in about if row["posterior"] == "point"]:
        notes.append(f"{', '.join(points)}: a point estimate, which has no posterior spread; --mode bayes has.")
    if plain := [str(table["model"].iloc[0]) for table in spreads if table["artefact"].any()]:
        notes.append(f"{', '.join(plain)}: {ARTEFACT}; --guide structured passes it on.")
    n_users = evaluations[names[0]].n_users_evaluated
    how = "test ratings" if explicit[0] else "corrected protocol"
    title = f"{dataset.name}, {_split_words(split)}; {how}, {n_users:,} users"
    recall, differences = intervals(evaluations, options.resamples, options.level, options.seed)
    return Comparison(
        title,
        runs_frame,
        recall,
        differences,
        pd.concat(spreads, ignore_index=True) if spreads else pd.DataFrame(),
        pd.DataFrame(agreements),
        histories,
        evaluations,
        tuple(notes + comparability(runs_frame)),
        explicit[0],
    )


def predicts_ratings(run: Run) -> bool:
    """True for a run of explicit ratings, which are predicted as numbers."""
    from inference.stored import stored_options
    from models.build import rating_likelihood

    with run.reading():
        return rating_likelihood(stored_options(run).model).explicit


def open_runs(paths: Sequence[str | os.PathLike[str]], trust: Trust = ()) -> list[Run]:
    """Open runs; InputError, naming the run, for one of other data or another split than the first, or given twice."""
    from pyro_cvae.runs import open_run

    opened: list[Run] = []
    for path in paths:
        run = open_run(path, trust)
        if any(run.path == other.path for other in opened):
            raise InputError("is given twice", "name each run once", path=path)
        for part, what in (("data", "other data"), ("split", "another split")):
            mine, first = ((one.config.get("fingerprints") or {}).get(part) for one in (run, (opened or [run])[0]))
            if mine != first:
                problem = f"was fitted to {what} than {paths[0]}"
                raise InputError(problem, "compare runs of one data set and one split", path=path)
        opened.append(run)
    return opened


def short_names(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The last parts of the paths, where these differ, otherwise the paths."""
    last = [Path(path).absolute().name for path in paths]
    return last if len(set(last)) == len(last) else [os.fspath(path) for path in paths]


def facts(fit: Fit, run: Run) -> dict[str, Any]:
    """How a run was fitted, the objective of the state that was kept (nats) and the seconds of all epochs."""
    history, kept = fit.history, int(fit.metrics.get("best_epoch") or len(fit.history))
    objective = str(run.config.get("objective"))
    model = run.config["options"]
    return {
        "run": os.fspath(run.path),
        "method": run.config["command"],
        "mode": model.get("mode", ""),
        "posterior": fit.posterior.kind,
        "factors": fit.posterior.n_factors,
        "ratings": model.get("rating_likelihood", "confidence-normal"),
        "biases": model.get("biases", "off"),
        "content": model.get("content_likelihood", ""),
        "scaling": model.get("scaling", ""),
        "unrated": model.get("unrated", ""),
        "objective": objective,
        "value": float(history[kept - 1].get(objective, np.nan)) if history else np.nan,
        "tempered": bool(run.config.get("tempered")),
        "pseudo_likelihood": bool(run.config.get("pseudo_likelihood")),
        "epochs": len(history),
        "seconds": float(sum(row.get("seconds", np.nan) for row in history)),
        "seed": model.get("seed"),
    }


def comparability(runs: pd.DataFrame) -> list[str]:
    """What forbids to compare objectives of these runs, in words; empty where nothing does."""
    notes = []
    for objective, group in runs.groupby("objective", sort=False):
        differ = [name for name in ("ratings", "content", "scaling", "unrated") if group[name].nunique() > 1]
        label = OBJECTIVES.get(str(objective), str(objective))
        if differ:
            notes.append(f"The {label}s are of different things: the runs differ in {', '.join(differ)}.")
    notes += [f"{', '.join(runs.loc[runs[n], 'model'])}: {why}." for n, why in NO_BOUND.items() if runs[n].any()]
    if runs["objective"].nunique() > 1:
        shown = " and ".join(OBJECTIVES.get(name, name) for name in runs["objective"].unique())
        notes.append(f"{shown} are different numbers and cannot be compared.")
    return notes


def _history(fit: Fit) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(fit.history)
    frame["elapsed"] = frame["seconds"].cumsum() if "seconds" in frame else np.arange(len(frame))
    return frame[frame["ratings"].notna()] if "ratings" in frame else frame


def _ratings(split: Split) -> np.ndarray:
    """Number of training ratings of each item, (n_items,)."""
    train = split.train
    return np.bincount(train.items[train.observed], minlength=train.n_items)


def _split_words(split: Split) -> str:
    facts = {name: value for name, value in split.protocol.items() if name not in ("kind", "validation")}
    words = [str(split.protocol.get("kind", "given")), *(f"{name} {value}" for name, value in facts.items())]
    return "split " + ", ".join(words)


# --- metrics over users ----------------------------------------------------------------------------------------------


def bootstrap(
    values: np.ndarray, n: int = 2000, level: float = 0.95, seed: int = 0, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the bootstrap percentile interval of the mean over users, one for each column.

    With ``weights`` (n_users,), the numbers of pairs of each user, it is the mean over pairs.

    Users are drawn with replacement, ``n`` times; all columns see the same draws, so that a difference of columns is
    paired. Shapes: ``values`` (n_users, n_columns), result (n_columns,) each. Source: Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13.
    """
    rng, n_users = np.random.default_rng(seed), len(values)
    means = []
    for start in range(0, n, 256):
        size = min(256, n - start)
        drawn = rng.integers(n_users, size=(size, n_users)) + n_users * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n_users).reshape(size, n_users)
        means.append(
            times @ values / n_users if weights is None else times * weights @ values / (times @ weights)[:, None]
        )
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def intervals(
    evaluations: dict[str, Any], n: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means with bootstrap intervals, and differences to the first model, over headline users: two frames.

    The standard error of a difference is that of a mean of paired differences, sd / sqrt(n_users). Of explicit ratings
    means are over pairs, users still being what is drawn; the standard error is that of the ratio of sums
    (linearised: Cochran, Sampling Techniques, 1977, section 6.3).
    """
    import pandas as pd

    from inference.evaluation.ratings import RatingEvaluation

    first, *others = evaluations
    explicit = isinstance(evaluations[first], RatingEvaluation)
    values, weights = {}, None
    for name, evaluation in evaluations.items():
        headline = evaluation.per_user[~evaluation.per_user["tuning"]]
        values[name] = headline[list(evaluation.metrics)].to_numpy(float)
        if explicit:
            weights = headline["n_test"].to_numpy(float)
    metrics = evaluations[first].metrics
    n_users, width = values[first].shape
    differences = {name: values[name] - values[first] for name in others}
    low, high = bootstrap(np.hstack([*values.values(), *differences.values()]), n, level, seed, weights)
    ends = iter(zip(low.reshape(-1, width), high.reshape(-1, width), strict=True))
    means, paired = [], []
    for name, one in values.items():
        protocol = evaluations[name].protocol
        mean = np.average(one, axis=0, weights=weights)
        columns = {"model": name, "metric": metrics, "mean": mean, "protocol": protocol, "n_users": n_users}
        means.append(pd.DataFrame(columns | dict(zip(("low", "high"), next(ends), strict=True))))
    for name, one in differences.items():
        mean = np.average(one, axis=0, weights=weights)
        columns = {"model": name, "reference": first, "metric": metrics, "mean": mean}
        away = one - mean if weights is None else (one - mean) * weights[:, None] / weights.mean()
        spread = {"se": (away**2).sum(0) ** 0.5 / ((n_users - 1) * n_users) ** 0.5 if n_users > 1 else np.nan}
        sign = np.array([-1 if str(metric).endswith("error") else 1 for metric in metrics])
        shares = {"better": (sign * one > 0).mean(0), "worse": (sign * one < 0).mean(0), "n_users": n_users}
        paired.append(pd.DataFrame(columns | spread | dict(zip(("low", "high"), next(ends), strict=True)) | shares))
    found = pd.concat(means, ignore_index=True)
    compared = pd.concat(paired, ignore_index=True) if paired else pd.DataFrame()
    if explicit:
        squares = found["metric"] == "squared_error"
        found.loc[squares, ["mean", "low", "high"]] **= 0.5
        found["metric"] = found["metric"].replace({"squared_error": "rmse", "absolute_error": "mae"})
        if paired:
            compared = compared[~compared["metric"].str.startswith("coverage")].reset_index(drop=True)
    return found, compared


# --- spread against the number of ratings ----------------------------------------------------------------------------


def ignores_content(posterior: Posterior) -> bool:
    """True for the centred mean field, in which the spread of v_j does not depend on that of z_j."""
    return posterior.kind in ("mean-field", "full") and posterior.parametrization == "centred"


def shrinkage(posterior: Posterior, ratings: np.ndarray, n_pairs: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Posterior standard deviations of v and of u.v by the number of ratings of the item, a row for each bin.

    ``sd_v`` of an item is sqrt(tr cov(v_j) / n_factors), biases apart; a bin has its median over items, with the 10 %
    and 90 % quantiles. ``sd_score`` is that of u_i.v_j over ``n_pairs`` random users and items of the bin, and
    ``item_share`` the median of 1 - m_v' S_u m_v / var(u.v), the share of its variance that would go if v were known
    (only nearly so of a chain's draws, in which u and v depend on one another). ``ratings`` (n_items,). Bins without an
    item have no row. Raises InputError for a point estimate.
    """
    import pandas as pd
    import torch

    sd, rng = item_sd(posterior), np.random.default_rng(seed)
    rows = []
    for low, high in zip(RATINGS, (*RATINGS[1:], np.inf), strict=True):
        items = np.flatnonzero((ratings >= low) & (ratings < high))
        if not len(items):
            continue
        users, chosen = rng.integers(len(posterior.u_loc), size=n_pairs), rng.choice(items, n_pairs)
        score_sd = posterior.score(users, chosen)[1].double().numpy()
        v = posterior.mean("v")[torch.as_tensor(chosen)]
        of_user = torch.einsum("pk,pkl,pl->p", v, posterior.covariance("u", users), v).double().numpy()
        row = {"ratings": float(np.median(ratings[items])), "from": low, "to": ratings[items].max()}
        row |= {"n_items": len(items)}
        for name, values in (("v", sd[items]), ("score", score_sd)):
            quantiles = np.quantile(values, [0.1, 0.5, 0.9])
            row |= dict(zip((f"sd_{name}_q10", f"sd_{name}", f"sd_{name}_q90"), quantiles, strict=True))
        rows.append(row | {"item_share": float(np.median(1 - of_user / score_sd**2))})
    return pd.DataFrame(rows)


def item_sd(posterior: Posterior) -> np.ndarray:
    """sqrt(tr cov(v_j) / n_factors) of each item, biases apart, (n_items,), in blocks of items."""
    import torch

    n_items, width = posterior.v_loc.shape
    blocks = torch.arange(n_items).split(max(1, FLOATS_AT_ONCE // width**2))
    variance = [posterior.covariance("v", rows).diagonal(dim1=-2, dim2=-1).double() for rows in blocks]
    return torch.cat(variance)[:, : posterior.n_factors].mean(-1).sqrt().numpy()


# --- stability of lists ----------------------------------------------------------------------------------------------


def some_users(evaluation: Evaluation | RatingEvaluation, n: int, seed: int) -> np.ndarray:
    """Rows of ``n`` headline users (all where there are no more), in ascending order."""
    rows = evaluation.per_user.loc[~evaluation.per_user["tuning"], "user"].to_numpy()
    return np.sort(np.random.default_rng(seed).permutation(rows)[:n])


def top_lists(score_block: ScoreBlock, users: np.ndarray, known: Any, top: int, block_size: int = 256) -> torch.Tensor:
    """The best items of each user but the known ones, int64 (n_users, top); -1 where a list is shorter.

    ``known`` is a CSR matrix (n_users, n_items), a row for each of ``users``.
    """
    import torch

    parts = []
    for start in range(0, len(users), block_size):
        scores = score_block(users[start : start + block_size]).clone()
        at = known[start : start + block_size].tocoo()
        scores[torch.as_tensor(at.row).long(), torch.as_tensor(at.col).long()] = -torch.inf
        best = scores.topk(min(top, scores.shape[1]))
        parts.append(best.indices.masked_fill(best.values == -torch.inf, -1))
    return torch.cat(parts)


def drawn_lists(
    posterior: Posterior, users: np.ndarray, known: Any, top: int, n_draws: int, seed: int
) -> list[torch.Tensor]:
    """:func:`top_lists` of ``n_draws`` joint draws of u and v; the draws are streamed."""
    part = posterior.select(users=users)
    rows, at_once = np.arange(len(users)), max(1, FLOATS_AT_ONCE // (4 * part.v_loc.numel()))
    lists = []
    for draws in part.draws(n_draws, seed, at_once):
        for u, v in zip(draws["u"], draws["v"], strict=True):

            def score_block(block: np.ndarray, u: torch.Tensor = u, v: torch.Tensor = v) -> torch.Tensor:
                return u[block] @ v.mT

            lists.append(top_lists(score_block, rows, known, top))
    return lists


def agreement(first: torch.Tensor, second: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """How alike two lists of each user are: share of common items, and Kendall's tau of the order of these.

    tau = (concordant - discordant pairs) / pairs of common items; NaN where there are fewer than two. Shapes: the lists
    (n_users, top), -1 where a list is shorter; result (n_users,) each.
    """
    import torch

    overlaps, taus = [], []
    for a, b in zip(first.split(256), second.split(256), strict=True):
        same = (a[:, :, None] == b[:, None, :]) & (a >= 0)[:, :, None]
        common, place = same.any(2), same.int().argmax(2)
        later = torch.ones(a.shape[1], a.shape[1], dtype=torch.bool).triu(1)
        pairs = common[:, :, None] & common[:, None, :] & later
        concordant = (pairs & (place[:, :, None] < place[:, None, :])).sum((1, 2)).double()
        n_pairs = pairs.sum((1, 2)).double()
        overlaps.append(common.sum(1) / (a >= 0).sum(1).clamp(min=1).double())
        taus.append(2 * concordant / n_pairs - 1)  # 0 / 0 is NaN
    return torch.cat(overlaps).numpy(), torch.cat(taus).numpy()


def _summary(overlaps: np.ndarray, taus: np.ndarray) -> dict[str, Any]:
    """Means over users of their means over pairs of draws, (n_pairs, n_users) each, and the standard error of that."""
    by_user = overlaps.mean(0)
    counted = ~np.isnan(taus)
    tau = np.where(counted, taus, 0.0).sum() / counted.sum() if counted.any() else np.nan
    n = len(by_user)
    se = float(by_user.std(ddof=1) / n**0.5) if n > 1 else np.nan
    return {"overlap": float(by_user.mean()), "overlap_se": se, "kendall": float(tau), "n_users": n}


# --- what is shown ---------------------------------------------------------------------------------------------------


def tables(comparison: Comparison) -> list[Sheet | str]:
    """What the command prints: tables, and lines of text."""

    def table(title: str, *columns: str) -> Sheet:
        return Sheet(columns, title=title)

    runs = comparison.runs
    shown: list[Sheet | str] = []
    objectives = list(runs["objective"].unique())
    made = table("Fits", "run", "method", "posterior", "factors", "epochs", "seconds", *map(_label, objectives))
    for row in runs.to_dict("records"):
        value = f"{row['value']:,.0f}" + " (tempered)" * row["tempered"] + " (pseudo)" * row["pseudo_likelihood"]
        cells = [value if row["objective"] == name else "" for name in objectives]
        facts = (row["model"], row["method"], row["posterior"], row["factors"], row["epochs"], f"{row['seconds']:,.1f}")
        made.add_row(*map(str, (*facts, *cells)))
    shown.append(made)

    metrics = list(comparison.recall["metric"].unique())
    made = table(f"Mean over {'ratings' if comparison.explicit else 'users'}, bootstrap interval", "model", *metrics)
    for model, group in comparison.recall.groupby("model", sort=False):
        cells = [f"{row.mean_:.4f}\n{row.low:.4f} to {row.high:.4f}" for row in _rows(group)]
        made.add_row(str(model), *cells)
    shown.append(made)
    if len(comparison.differences):
        reference = comparison.differences["reference"].iloc[0]
        compared = comparison.differences if comparison.explicit else recalls(comparison.differences)
        made = table(
            f"Difference to {reference}, user by user: mean ± standard error, bootstrap interval, users better / worse",
            *("model", *compared["metric"].unique()),
        )
        for model, group in compared.groupby("model", sort=False):
            cells = [
                f"{row.mean_:+.4f} ± {row.se:.4f}\n[{row.low:+.4f}, {row.high:+.4f}]\n"
                f"{row.better:.0%} / {row.worse:.0%}"
                for row in _rows(group)
            ]
            made.add_row(str(model), *cells)
        shown.append(made)

    if len(comparison.shrinkage):
        bins = comparison.shrinkage.drop_duplicates("from").sort_values("from")
        labels = [_bin_label(low, high) for low, high in _bins(bins["from"])]
        made = table("Posterior sd, median, by the item's training ratings", "run", "sd of", *labels)
        for model, group in comparison.shrinkage.groupby("model", sort=False):
            mark = " *" * bool(group["artefact"].any())
            by_bin = group.set_index("from")
            for column, what in (("sd_v", "v" + mark), ("sd_score", "u.v" + mark), ("item_share", "item's share")):
                form = ".0%" if column == "item_share" else "#.3g"
                cells = [f"{by_bin[column].get(low, np.nan):{form}}" for low in bins["from"]]
                made.add_row(str(model), what, *cells)
        shown.append(made)
        shown.append("item's share: of the variance of u.v, what would go if v were known; the rest is the user's.")
        if comparison.shrinkage["artefact"].any():
            shown.append(f"* {ARTEFACT}.")

    made = table("Top lists of the same users", "list", "and list", "common items", "Kendall's tau of these", "users")
    rivals = set(comparison.recall["model"]) - set(runs["model"])
    for row in comparison.stability.to_dict("records"):
        if row["second"] in rivals and row["first"] != runs["model"].iloc[0]:
            continue  # of the rivals only their likeness to the first run; the CSV file has all
        numbers = (f"{row['overlap']:.3f} ± {row['overlap_se']:.3f}", f"{row['kendall']:.3f}", str(row["n_users"]))
        made.add_row(row["first"], row["second"], *numbers)
    if made.rows:
        shown.append(made)
    return [comparison.title, *shown, *comparison.notes]


def _label(objective: str) -> str:
    return OBJECTIVES.get(objective, objective.replace("_", " ")) + ", nats"


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    return frame.rename(columns={"mean": "mean_"}).itertuples()


def _bins(lows: Any) -> list[tuple[int, int | None]]:
    ends: dict[int, int | None] = dict(zip(RATINGS, (*(low - 1 for low in RATINGS[1:]), None), strict=True))
    return [(low, ends[low]) for low in lows]


def _bin_label(low: int, high: int | None) -> str:
    return "0: content only" if low == 0 else f"{low}" if low == high else f"{low}-{high}" if high else f"{low}+"


def draw(comparison: Comparison) -> Any:
    """The figure: recall, differences, objectives (a panel for each name), spread, stability."""
    from analysis.plots import figure

    panels: list[Callable[..., None]] = [draw_errors if comparison.explicit else draw_recall]
    if len(comparison.differences):
        panels.append(draw_error_differences if comparison.explicit else draw_differences)
    for objective in comparison.runs["objective"].unique():
        panels.append(partial(draw_objective, objective=objective))
    if len(comparison.shrinkage):
        panels.append(partial(draw_shrinkage, column="sd_v", what="of v (root mean square over factors)"))
        panels.append(partial(draw_shrinkage, column="sd_score", what="of u.v"))
    if len(comparison.stability):
        panels.append(draw_stability)
    drawn, axes = figure(2, -(-len(panels) // 2), width=6.2, height=4.0)
    for panel, ax in zip(panels, axes.flat, strict=False):
        panel(ax, comparison)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    drawn.suptitle(comparison.title, parse_math=False)
    return drawn


def _style(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Colour and line of each model: runs by the cycle, rivals grey and dashed."""
    from analysis.plots import RIVAL, colors

    runs = list(comparison.runs["model"])
    found = {name: {"color": color} for name, color in zip(runs, colors(runs), strict=True)}
    rivals = [name for name in comparison.recall["model"].unique() if name not in found]
    lines = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3)), (0, (8, 3)))
    grey = {name: {"color": RIVAL, "linestyle": lines[k % len(lines)]} for k, name in enumerate(rivals)}
    return found | grey


def recalls(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of recall@M alone, with M as ``cutoff``."""
    chosen = frame[frame["metric"].str.startswith("recall@")]
    return chosen.assign(cutoff=chosen["metric"].str.partition("@")[2].astype(int))


def draw_recall(axes: Any, comparison: Comparison) -> None:
    """Recall of every model, with bands."""
    style = _style(comparison)
    for model, group in recalls(comparison.recall).groupby("model", sort=False):
        axes.fill_between(group["cutoff"], group["low"], group["high"], color=style[model]["color"], alpha=0.2, lw=0)
        axes.plot(group["cutoff"], group["mean"], marker=".", label=_plain(model), **style[model])
    axes.set(
        xlabel="M", ylabel="recall@M (corrected protocol)", title="Mean over users, bootstrap band", ylim=(0, None)
    )
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # many names would hide curves
    axes.legend(fontsize="small", **beside if comparison.recall["model"].nunique() > 5 else {})


def draw_differences(axes: Any, comparison: Comparison) -> None:
    """Differences to the first run, with intervals."""
    style = _style(comparison)
    frame, runs = recalls(comparison.differences), list(comparison.runs["model"])
    if len(runs) > 1:  # rivals are so far away that nothing would be seen of the runs
        frame = frame[frame["model"].isin(runs)]
    models = list(frame["model"].unique())
    step = np.diff(np.unique(frame["cutoff"])).min() if frame["cutoff"].nunique() > 1 else 1.0
    for number, (model, group) in enumerate(frame.groupby("model", sort=False)):
        at = group["cutoff"] + 0.6 * step * (number - (len(models) - 1) / 2) / len(models)
        ends = np.abs([group["mean"] - group["low"], group["high"] - group["mean"]])
        axes.errorbar(at, group["mean"], ends, fmt="o", ms=4, color=style[model]["color"], label=_plain(model))
    reference = _plain(comparison.differences["reference"].iloc[0])
    axes.axhline(0, color="#222222", lw=1)
    axes.set(xlabel="M", ylabel=f"recall@M less that of {reference}", title="Paired differences, bootstrap intervals")
    axes.legend(fontsize="small")


def draw_errors(axes: Any, comparison: Comparison) -> None:
    """RMSE of every model of explicit ratings, with intervals."""
    _intervals(axes, comparison, comparison.recall[comparison.recall["metric"] == "rmse"])
    axes.set(xlabel="RMSE of test ratings", title="Over ratings, bootstrap intervals over users")


def draw_error_differences(axes: Any, comparison: Comparison) -> None:
    """Differences of squared errors to the first run, with intervals."""
    frame = comparison.differences[comparison.differences["metric"] == "squared_error"]
    runs = list(comparison.runs["model"])
    _intervals(axes, comparison, frame[frame["model"].isin(runs)] if len(runs) > 1 else frame)
    axes.axvline(0, color="#222222", lw=1)
    reference = _plain(comparison.differences["reference"].iloc[0])
    axes.set(xlabel=f"squared error less that of {reference}", title="Paired differences, bootstrap intervals")


def _intervals(axes: Any, comparison: Comparison, frame: pd.DataFrame) -> None:
    """A line for each model, from above: mean and interval."""
    style = _style(comparison)
    for place, row in enumerate(_rows(frame)):
        ends = [[row.mean_ - row.low], [row.high - row.mean_]]
        axes.errorbar(row.mean_, -place, xerr=ends, fmt="o", ms=5, color=style[row.model]["color"])
    axes.set_yticks(range(0, -len(frame), -1), [_plain(model) for model in frame["model"]])
    axes.set_ylim(0.5 - len(frame), 0.5)


def draw_objective(axes: Any, comparison: Comparison, objective: str) -> None:
    """The objective of this name, of the runs that maximised it, by the seconds of the fit."""
    style = _style(comparison)
    for row in comparison.runs[comparison.runs["objective"] == objective].to_dict("records"):
        history = comparison.histories[row["model"]]
        if objective not in history:
            continue
        label = row["model"] + " (tempered)" * row["tempered"] + " (pseudo)" * row["pseudo_likelihood"]
        axes.plot(history["elapsed"], history[objective], marker=".", label=_plain(label), **style[row["model"]])
    axes.set(
        xlabel="seconds of the fit", ylabel=_label(objective), title=f"{_label(objective)}: since ratings are seen"
    )
    axes.legend(fontsize="small")


def draw_shrinkage(axes: Any, comparison: Comparison, column: str, what: str) -> None:
    """``column`` of :func:`shrinkage` by the number of ratings; an artefact of mean field is dashed and named so."""
    style = _style(comparison)
    for model, group in comparison.shrinkage.groupby("model", sort=False):
        color, artefact = style[model]["color"], bool(group["artefact"].any())
        label = _plain(f"{model}: artefact of mean field" if artefact else str(model))
        axes.fill_between(
            group["ratings"], group[f"{column}_q10"], group[f"{column}_q90"], color=color, alpha=0.15, lw=0
        )
        axes.plot(group["ratings"], group[column], "--" if artefact else "-", marker=".", color=color, label=label)
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = [tick for tick in (0, 1, 10, 100, 1000) if tick <= 2 * comparison.shrinkage["ratings"].max()]
    axes.set_xticks(ticks, ["0\n(content)", *map(str, ticks[1:])])
    axes.set(xlabel="training ratings of the item", ylabel=f"posterior sd {what}", ylim=(0, None))
    axes.set_title("Spread by ratings: median, 10 to 90 % of items")
    axes.legend(fontsize="small")


def draw_stability(axes: Any, comparison: Comparison) -> None:
    """Overlap of the lists of every two models; on the diagonal that of a model's own posterior draws."""
    listed = {*comparison.stability["first"], *comparison.stability["second"]}
    models = [name for name in comparison.recall["model"].unique() if name in listed]
    grid = np.full((len(models), len(models)), np.nan)
    for row in comparison.stability.to_dict("records"):
        i = models.index(row["first"])
        if row["second"] == "between its draws":
            grid[i, i] = row["overlap"]
        elif row["second"] in models:
            j = models.index(row["second"])
            grid[i, j] = grid[j, i] = row["overlap"]
    axes.imshow(grid, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (i, j), value in np.ndenumerate(grid):
        text = "–" if np.isnan(value) else f"{value:.2f}"
        axes.text(j, i, text, ha="center", va="center", fontsize="small", color="white" if value > 0.6 else "#222222")
    labels = [_plain(model) for model in models]
    axes.set_xticks(range(len(models)), labels, rotation=25, ha="right", fontsize="small")
    axes.set_yticks(range(len(models)), labels, fontsize="small")
    axes.grid(False)
    axes.set_title("Common items of two top lists; diagonal: of two posterior draws", fontsize="medium")


def _plain(text: object) -> str:
    """Text in which matplotlib sees no mathematics; a label must not begin with an underscore, or it is not shown."""
    plain = str(text).replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


# --- the command -----------------------------------------------------------------------------------------------------


@contextmanager
def new_folder(out: str | os.PathLike[str], overwrite: bool, ours: Sequence[str]) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` at the end, whole or not at all.

    Raises InputError, before anything is done, where ``out`` exists, and with ``overwrite`` where it holds anything but
    the files named in ``ours``.
    """
    target = Path(os.path.abspath(os.path.expanduser(os.fspath(out))))
    if os.path.lexists(target):
        if not overwrite:
            raise InputError("exists already", "choose another --out, or replace it with --overwrite", path=out)
        if not target.is_dir() or target.is_symlink() or {entry.name for entry in target.iterdir()} - set(ours):
            raise InputError("is not a folder of this command", "choose another --out", path=out)
    if not target.parent.is_dir():
        raise InputError("--out: no such folder", "make it first", path=target.parent)
    new, old = (target.with_name(f".{target.name}.{word}-pid{os.getpid()}") for word in ("new", "old"))
    new.mkdir()
    try:
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def write(comparison: Comparison, folder: Path) -> None:
    """Write the frames as CSV files and the figure into a folder that exists."""
    from analysis.plots import save

    for name, file in comparison.files.items():
        getattr(comparison, name).to_csv(folder / f"{file}.csv", index=False)
    save(draw(comparison), folder / FIGURE)


@contextmanager
def progress() -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal for the ``on_step`` of :func:`compare`, lines where there is none."""
    with progress_of_steps(lines=Lines(free=0), transient=True) as tell:
        yield lambda done, n, name: tell("models", done, n, name)


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m analysis.compare``."""
    from inference.commands import parse

    (options,) = parse(
        "python -m analysis.compare",
        "Fits of one data set and split side by side: recall (of explicit ratings errors and coverage) with intervals, "
        "differences user by user, objectives and seconds, posterior spread by the number of ratings, stability of the "
        "lists.",
        (CompareOptions,),
        argv,
        positionals=("runs",),
        examples=(
            ("python -m analysis.compare runs/map runs/bayes", "bayes beside map"),
            ("python -m analysis.compare runs/map runs/bayes --rivals --out compared", "and simple rivals, in files"),
        ),
    )
    notes = []
    if options.out is None:
        with progress() as on_step:
            comparison = compare(options, on_step)
    else:
        own = [*(f"{name}.csv" for name in (*FRAMES, "errors")), FIGURE]
        with new_folder(options.out, options.overwrite, own) as folder:
            with progress() as on_step:
                comparison = compare(options, on_step)
            write(comparison, folder)
        notes = [f"Tables and {FIGURE}: {options.out}"]
    frames = {file: getattr(comparison, name) for name, file in comparison.files.items()}
    emit(tables(comparison), frames, options.format, notes)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
