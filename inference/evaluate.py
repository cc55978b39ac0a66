"""Metrics of a fitted model on the test part of a split, beside what a user would pick instead.

``evaluate`` asks for the scores of a block of users at a time and keeps a row of metrics a user; nothing of size
users x items exists. ``python -m inference.evaluate RUN... --rivals`` prints a table for each data set and split. Fits
of explicit ratings are not ranked: their tables have errors and coverage (:mod:`inference.explicit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inference.printing import Sheet, check_format, emit, write_frame
from inference.threads import torch_threads
from inference.user_groups import shown, user_groups
from pyro_cvae.errors import InputError, PyroCvaeError, run_command
from pyro_cvae.metrics import CUTOFFS, NDCG_CUTOFFS, hit_chance, metrics_of, rank_positions, recall_at

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from inference.candidates import CandidateSet
    from inference.explicit import RatingEvaluation
    from inference.posterior import Posterior
    from models.ratings import RatingLikelihood
    from pyro_cvae.data.dataset import Dataset
    from pyro_cvae.data.interactions import Interactions
    from pyro_cvae.data.splits import Split

    ScoreBlock = Callable[[np.ndarray], torch.Tensor]

GROUPS = ("hot", "warm", "cold")
BLOCK_SCORES = 2**26


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of one model on one split.

    Parameters:
        protocol: ``corrected`` or ``paper`` (:mod:`pyro_cvae.metrics`).
        per_user: One row a user: ``user`` (row), ``tuning`` (settings were chosen on this user's test pairs),
            ``n_train``, ``n_test``, ``n_relevant`` (the denominator of recall), then ``recall@M`` and ``ndcg@M``.
        groups: One row for each of hot, warm and cold items (:func:`item_groups`), over headline users: ``n_items``,
            ``n_pairs`` (relevant pairs), ``n_users`` (users with such a pair), ``pooled_recall@M`` (share of those
            pairs within the first M of their user's whole ranking), ``recall@M`` (the same share by user, averaged
            over those users) and ``own_recall@M`` (of the ranking of the group's items alone). A group without pairs
            has no row.
    """

    protocol: str
    per_user: pd.DataFrame
    groups: pd.DataFrame
    metrics: tuple[str, ...] = field(default=())

    @property
    def n_users_evaluated(self) -> int:
        """Number of users in the headline mean."""
        return int((~self.per_user["tuning"]).sum())

    def means(self) -> dict[str, float]:
        """Headline: the mean of each metric over the users on whose test pairs no setting was chosen."""
        return _means(self.per_user.loc[~self.per_user["tuning"]], self.metrics)

    def all_user_means(self) -> dict[str, float]:
        """The mean of each metric over all users, those included on whom settings were chosen."""
        return _means(self.per_user, self.metrics)

    @property
    def user_groups(self) -> pd.DataFrame:
        """Headline users with and without training pairs (:func:`inference.user_groups.user_groups`)."""
        return user_groups(self.per_user, "n_relevant", lambda users: _means(users, self.metrics))

    def to_metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` of a run folder holds: headline means, protocol, users, groups, other means if any.

        ``user_groups`` are there where some users have no training pairs.
        """
        result: dict[str, Any] = {
            **self.means(),
            "protocol": self.protocol,
            "n_users_evaluated": self.n_users_evaluated,
            "groups": {row.pop("group"): row for row in self.groups.reset_index().to_dict("records")},
        }
        if apart := shown(self.user_groups):
            result["user_groups"] = dict(apart)
        if self.per_user["tuning"].any():
            result["all_users"] = {**self.all_user_means(), "n_users_evaluated": len(self.per_user)}
        return result


def evaluate(
    score_block: ScoreBlock,
    split: Split,
    *,
    cutoffs: Sequence[int] = CUTOFFS,
    protocol: str = "corrected",
    users: np.ndarray | None = None,
    block_size: int = 256,
    ndcg_cutoffs: Sequence[int] = NDCG_CUTOFFS,
    candidates: CandidateSet | None = None,
) -> Evaluation:
    """Rank all candidate items of each user that has relevant ones, and average over users.

    ``score_block(users (B,)) -> (B, n_items)`` is asked for at most ``block_size`` users and 2^26 scores at once.
    Relevant are test pairs with a positive rating; candidates are all items, never-rated ones too, or those of
    ``candidates``, but not the pairs known from training or validation (``corrected``). A relevant pair that is no
    candidate counts for nothing. A training pair of confidence 0 is missing, hence not known. A pair that is in the
    test part and the validation part, as at P = 1, is a test pair; its user is marked ``tuning``. ``users``
    (n_chosen,) restricts to some user rows. Raises ``InputError`` where nobody has a relevant item.
    """
    import pandas as pd
    import torch

    from inference.candidates import CandidateSet, Ranking
    from pyro_cvae.data.interactions import pairs_matrix
    from pyro_cvae.data.splits import need_test

    need_test(split)
    parts = [split.train] if split.validation is None else [split.train, split.validation]
    chosen = [part.select(part.positive if protocol == "paper" else part.observed) for part in parts]
    known, test = pairs_matrix(*chosen), pairs_matrix(split.test.select(split.test.positive))
    among = candidates or CandidateSet(np.ones(split.train.n_items, bool))
    group_of = item_groups(split.train)
    whole, *own = (
        Ranking(known, test, among.items & mask, among.pairs)
        for mask in (np.ones(len(group_of), bool), *(group_of == group for group in range(len(GROUPS))))
    )
    what = "any" if protocol == "paper" else "a test"
    rows = _users_with(
        whole.relevant(protocol),
        users,
        f"no user has {what} item to rank{' among the candidates' * (candidates is not None)}",
    )

    groups_of = torch.from_numpy(group_of)
    pairs, hits = torch.zeros(3, dtype=torch.float64), torch.zeros(3, len(cutoffs), dtype=torch.float64)
    group_users, recalls, own_recalls = torch.zeros_like(pairs), torch.zeros_like(hits), torch.zeros_like(hits)
    columns: dict[str, list[np.ndarray]] = {}
    tuning = (
        np.zeros(len(known.indptr) - 1, bool) if split.tuning_users is None else np.asarray(split.tuning_users, bool)
    )
    depth = max((*cutoffs, *ndcg_cutoffs))
    for block in _blocks(rows, len(group_of), block_size):
        scores, headline = score_block(block), torch.from_numpy(~tuning[block])
        positions = whole.positions(scores, block, depth, protocol)
        values = {"n_relevant": positions.n_relevant, **metrics_of(positions, cutoffs, ndcg_cutoffs)}
        for name, value in values.items():
            columns.setdefault(name, []).append(value.numpy())

        cell = positions.row * 3 + groups_of[positions.item]
        in_group = torch.bincount(cell, minlength=3 * len(block)).reshape(-1, 3).double() * headline[:, None]
        pairs += in_group.sum(0)
        group_users += (in_group > 0).sum(0)
        for column, cutoff in enumerate(cutoffs):
            found = torch.zeros(3 * len(block), dtype=torch.float64).index_add_(0, cell, hit_chance(positions, cutoff))
            found = found.reshape(-1, 3) * headline[:, None]
            hits[:, column] += found.sum(0)
            recalls[:, column] += (found / in_group.clamp(min=1)).sum(0)
        for group in in_group.sum(0).nonzero().flatten().tolist():
            alone = own[group].positions(scores, block, depth, protocol)
            for column, cutoff in enumerate(cutoffs):
                own_recalls[group, column] += recall_at(alone, cutoff)[in_group[:, group] > 0].sum()

    metrics = [name for name in columns if name != "n_relevant"]
    n_test = np.diff(whole.relevant("corrected").indptr)[rows]
    per_user = pd.DataFrame(
        {"user": rows, "tuning": tuning[rows], "n_train": split.train.user_counts[rows], "n_test": n_test}
        | {name: np.concatenate(blocks) for name, blocks in columns.items()}
    )
    n_items = np.bincount(group_of[among.items], minlength=3)
    groups = pd.DataFrame(
        {"n_items": n_items, "n_pairs": pairs.long(), "n_users": group_users.long()}
        | {f"pooled_recall@{cutoff}": hits[:, i] / pairs.clamp(min=1) for i, cutoff in enumerate(cutoffs)}
        | {f"recall@{cutoff}": recalls[:, i] / group_users.clamp(min=1) for i, cutoff in enumerate(cutoffs)}
        | {f"own_recall@{cutoff}": own_recalls[:, i] / group_users.clamp(min=1) for i, cutoff in enumerate(cutoffs)},
        index=pd.Index(GROUPS, name="group"),
    )
    return Evaluation(protocol, per_user, groups[groups["n_pairs"] > 0], tuple(metrics))


def recall_on_validation(score_block: ScoreBlock, split: Split, cutoff: int = 300, block_size: int = 256) -> float:
    """Mean recall@cutoff over users with validation pairs, training items taken out: what early stopping looks at.

    Test pairs stay among the candidates, unknown as they are. Raises ``InputError`` where the split has no validation.
    """
    from pyro_cvae.data.interactions import pairs_matrix

    if split.validation is None or not len(split.validation):
        raise InputError("the split has no validation part", "choose one with --validation, for instance 0.1")
    known = pairs_matrix(split.train.select(split.train.observed))
    validation = pairs_matrix(split.validation.select(split.validation.positive))
    rows = _users_with(validation, None, "no user has a validation pair with a positive rating")
    total = 0.0
    for block in _blocks(rows, validation.shape[1], block_size):
        positions = rank_positions(score_block(block), known[block], validation[block], cutoff)
        total += float(recall_at(positions, cutoff).sum())
    return total / len(rows)


def predict_ratings(
    posterior: Posterior, likelihood: RatingLikelihood, users: np.ndarray, items: np.ndarray, train: Interactions | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of new ratings of pairs of rows, (n_pairs,) each, float64.

    ``likelihood`` is the fitted model's. Of a point estimate the score is taken to be known: the standard deviation is
    the noise alone. Where ``train`` is given, means stay within the range of its ratings.
    """
    from inference.predicted import predicted, score_moments

    found = predicted(likelihood, *score_moments(posterior, users, items), train)
    return found.mean, found.sd


def root_mean_square_error(posterior: Posterior, test: Interactions, train: Interactions) -> float:
    """Root mean square of rating less posterior mean score, which is kept within the range of the training ratings."""
    from inference.average import parts_of

    kept, given = test.select(test.observed), train.ratings[train.observed]
    mean = np.zeros(len(kept))
    for at, some, rows in parts_of(posterior, train, kept.users):
        mean[at] = some.mean_score(rows, kept.items[at]).double().numpy()
    return float(np.sqrt(np.mean((kept.ratings - mean.clip(given.min(), given.max())) ** 2)))


def rating_metrics(
    posterior: Posterior, likelihood: RatingLikelihood, test: Interactions, train: Interactions
) -> dict[str, Any]:
    """How explicit test ratings are predicted: errors, log density, coverage of intervals, and the number of pairs.

    ``rmse`` and ``mae`` are in units of the ratings, ``log_density`` is the mean over pairs of log p(r), the
    likelihood's own with the score averaged out, in nats (of discrete ratings their log probability); ``coverage@50``
    and ``coverage@90`` are the shares of ratings within its central intervals.
    """
    from inference.average import predictions
    from inference.explicit import METRICS, pair_errors

    kept = test.select(test.observed)
    found = predictions(posterior, likelihood, kept.users, kept.items, train)
    errors = pair_errors(kept.ratings, found.mean.numpy(), found.sd.numpy(), found.distribution)
    means = [float(values.mean()) for values in errors.values()]
    return dict(zip(METRICS, [means[0] ** 0.5, *means[1:]], strict=True)) | {"n_ratings_evaluated": len(kept)}


def item_groups(train: Interactions) -> np.ndarray:
    """Group of each item, (n_items,), an index into ``GROUPS``, by its positive training ratings.

    cold: no positive training rating. warm: from 1 to the median number of ratings of the items that have any. hot:
    more than that median.
    """
    counts = np.bincount(train.items[train.positive], minlength=train.n_items)
    median = np.median(counts[counts > 0]) if counts.any() else 0.0
    return np.where(counts == 0, 2, np.where(counts <= median, 1, 0)).astype(np.int64)


def _users_with(matrix: Any, users: np.ndarray | None, problem: str) -> np.ndarray:
    rows = np.flatnonzero(np.diff(matrix.indptr)).astype(np.int64)
    if users is not None:
        rows = np.intersect1d(rows, users)
    if not len(rows):
        raise InputError(problem, "choose a split that leaves some pairs over, with a smaller --train-per-user")
    return rows


def _blocks(rows: np.ndarray, n_items: int, block_size: int) -> Iterator[np.ndarray]:
    """``rows`` in blocks of at most ``block_size`` users and ``BLOCK_SCORES`` scores."""
    if block_size < 1:
        raise InputError(f"block_size is {block_size}, but it must be at least 1")
    step = max(1, min(block_size, BLOCK_SCORES // max(1, n_items)))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _means(frame: pd.DataFrame, metrics: Sequence[str]) -> dict[str, float]:
    if not len(frame):
        raise InputError("every user with test items is a tuning user", "use all_user_means, or a smaller --validation")
    return {name: float(frame[name].mean()) for name in metrics}


# --- the command -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EvaluateOptions:
    """Which runs are compared, how, and where the numbers go.

    Parameters:
        runs: Run folders, as the fit commands leave them.
        rivals: Put popularity, TF-IDF cosine, truncated-SVD cosine and implicit's ALS into the same table, of explicit
            ratings their mean, and the mean with biases by ridge.
        protocol: corrected takes training items out of the ranking; paper leaves them in and counts them as hits.
        cutoffs: The M of recall@M.
        candidates: A file of the items that are ranked: a table with a column item, and if there user, for candidates
            of each user, test items among them; or one id a line. By default all items.
        out: A .csv or .parquet file for the means, by model, users and group of items.
        per_user: A .csv or .parquet file for the metrics of every user.
        threads: Number of threads; all that torch takes by itself if not given.
        block_size: Users scored at once.
        format: How the tables are printed (table, csv, json).
        trust: Class paths outside of the package that the runs may import; see docs/security.md.
        csv_safe: Put an apostrophe before texts in CSV that a spreadsheet program would take for formulas.
    """

    runs: tuple[str, ...]
    rivals: bool = False
    protocol: Literal["corrected", "paper"] = "corrected"
    cutoffs: tuple[int, ...] = CUTOFFS
    candidates: str | None = None
    out: str | None = None
    per_user: str | None = None
    threads: int | None = None
    block_size: int = 256
    format: str = "table"
    trust: tuple[str, ...] = ()
    csv_safe: bool = False

    def __post_init__(self) -> None:
        check_format(self.format)
        if not self.cutoffs or min(self.cutoffs) < 1:
            given = " ".join(map(str, self.cutoffs))
            raise InputError(f"--cutoffs is {given!r}, but it must be one or more numbers of 1 or more")
        for flag, value in (("threads", self.threads), ("block-size", self.block_size)):
            if value is not None and value < 1:
                raise InputError(f"--{flag} is {value}, but it must be at least 1")
        for flag, file in (("out", self.out), ("per-user", self.per_user)):
            if file is not None and Path(file).suffix not in (".csv", ".parquet"):
                raise InputError(f"--{flag} is {file!r}, but it must end in .csv or .parquet")
            if file is not None and not Path(file).absolute().parent.is_dir():
                raise InputError(f"--{flag}: no such folder", "make it first", path=Path(file).parent)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models on one split of one data set: ``rows`` are (name, evaluation), or (name, why there is none).

    ``explicit`` says that they predict ratings, and do not rank; ``candidates`` which items are ranked, if not all;
    ``settings`` of rivals, in words, by name.
    """

    dataset: Dataset
    split: Split
    rows: list[tuple[str, Evaluation | RatingEvaluation | str]]
    explicit: bool = False
    candidates: CandidateSet | None = None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def evaluations(self) -> list[tuple[str, Any]]:
        """The rows that have an evaluation."""
        return [(name, result) for name, result in self.rows if not isinstance(result, str)]


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m inference.evaluate``."""
    from inference.commands import parse

    (options,) = parse(
        "python -m inference.evaluate",
        "Metrics of fitted models on the test part of their split, in one table for each data set and split: of their "
        "rankings, or of explicit ratings errors and coverage.",
        (EvaluateOptions,),
        argv,
        positionals=("runs",),
        examples=(
            ("python -m inference.evaluate runs/bayes --rivals", "a run beside what one would pick instead"),
            ("python -m inference.evaluate runs/map runs/bayes --out table.csv", "two runs, the numbers kept"),
        ),
    )
    from inference.evaluation_tables import means_frame, per_user_frame, rating_report, report

    comparisons = compare(options)
    parts: list[Sheet | str] = []
    for comparison in comparisons:
        parts += rating_report(comparison) if comparison.explicit else report(comparison, options.protocol)
    emit(parts, {"means": means_frame(comparisons)}, options.format, safe=options.csv_safe)
    if options.out is not None:
        write_frame(means_frame(comparisons), options.out, options.csv_safe)
    if options.per_user is not None:
        write_frame(per_user_frame(comparisons), options.per_user, options.csv_safe)


def compare(options: EvaluateOptions) -> list[Comparison]:
    """Evaluate runs one after another, and the rivals once for each data set and split that they were fitted on."""
    with torch_threads(options.threads):
        return _compare(options)


def _compare(options: EvaluateOptions) -> list[Comparison]:
    import inference
    from inference.average import list_scores
    from inference.candidates import read_candidates
    from inference.explicit import evaluate_ratings, predictor
    from inference.rivals import RATING_RIVALS, RATING_SETTINGS, RIVALS, settings_of

    asked: dict[str, Any] = {
        "cutoffs": sorted(set(options.cutoffs)),
        "protocol": options.protocol,
        "block_size": options.block_size,
    }
    comparisons: dict[tuple[str, str, bool], Comparison] = {}
    for path in options.runs:
        fit = inference.load(path, trust=options.trust)
        key = fit.dataset.fingerprint(), fit.split.fingerprint(), fit.model.ratings.explicit
        if key not in comparisons:
            if options.candidates and key[-1]:
                raise InputError(
                    "--candidates are of rankings, and this run predicts ratings", "leave it out", path=path
                )
            among = read_candidates(options.candidates, fit.dataset) if options.candidates else None
            comparisons[key] = Comparison(fit.dataset, fit.split, [], key[-1], among)
        comparison = comparisons[key]
        asked["candidates"] = comparison.candidates
        result: Evaluation | RatingEvaluation
        try:
            if comparison.explicit:
                result = evaluate_ratings(predictor(fit), fit.split)
            else:
                result = evaluate(list_scores(fit.posterior, fit.split.train), fit.split, **asked)
        except InputError as error:
            raise InputError(error.problem, error.remedy, path=path) from None
        comparison.rows.append((path, result))
    if options.rivals:
        for comparison in comparisons.values():
            asked["candidates"] = comparison.candidates
            for name, of_ratings in RATING_RIVALS.items() if comparison.explicit else ():
                predict = of_ratings(comparison.dataset, comparison.split)
                comparison.settings[name] = RATING_SETTINGS.get(name, "fixed")
                comparison.rows.append((name, evaluate_ratings(predict, comparison.split)))
            for name, factory in () if comparison.explicit else RIVALS.items():
                try:
                    score_block = factory(comparison.dataset, comparison.split)
                except PyroCvaeError as error:
                    comparison.rows.append((name, str(error)))
                    continue
                comparison.settings[name] = settings_of(score_block)
                comparison.rows.append((name, evaluate(score_block, comparison.split, **asked)))
    return list(comparisons.values())


if __name__ == "__main__":
    raise SystemExit(run_command(main))
