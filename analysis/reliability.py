"""P(an item of the top list is a held-out positive): does it come true?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from analysis.draws.ratings import confidences_of_zeros
from analysis.over_users import (
    LEVEL,
    Interval,
    cell_groups,
    counted_pairs,
    interval,
    named,
    predicts_ratings,
    sums_by_user,
    user_weights,
)
from analysis.plots import CYCLE, figure
from analysis.recalibration import (
    Recalibration,
    calibration_error,
    candidates_for,
    choose_recalibration,
    equal_mass_bins,
    fit_recalibration,
    predict,
    raw_probability,
)
from inference.average import list_scores, parts_of
from pyro_cvae.data.interactions import pairs_matrix
from pyro_cvae.data.splits import need_test
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

if TYPE_CHECKING:
    from inference.fitting import Fit
    from pyro_cvae.data.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Listed:
    """The top lists of some users, (n_users, top) each; missing places of short lists are left out by ``there``."""

    users: np.ndarray
    items: np.ndarray
    score: np.ndarray
    sd: np.ndarray | None
    popularity: np.ndarray
    relevant: np.ndarray
    there: np.ndarray

    @property
    def rank(self) -> np.ndarray:
        """Place in the list, from 1."""
        return np.broadcast_to(np.arange(1, self.items.shape[1] + 1), self.items.shape)

    def flat(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of recalibrations, with ``user`` (row among the chosen), ``item`` and ``y``, of some users."""
        there = self.there[chosen]
        columns = {"score": self.score, "rank": self.rank, "popularity": self.popularity}
        if self.sd is not None:
            columns["sd"] = self.sd
        columns |= {"item": self.items, "y": self.relevant}
        flat = {name: column[chosen][there] for name, column in columns.items()}
        return flat | {"user": there.nonzero()[0]}


def top_lists(fit: Fit, users: np.ndarray, top: int) -> Listed:
    """The first ``top`` candidates of each user by posterior mean score, and whether they are test positives.

    Candidates are all items but the pairs known from training and validation, as in ``inference.evaluate``.
    """
    test, known = test_and_known(fit)
    score_block = list_scores(fit.posterior, fit.split.train)
    counts = counted_pairs(fit).item_counts
    items, scores = [], []
    for block in _blocks(users, 256):
        block_scores = score_block(block).clone()
        at = known[block].tocoo()
        block_scores[torch.as_tensor(at.row).long(), torch.as_tensor(at.col).long()] = -torch.inf
        best = block_scores.topk(min(top, fit.dataset.n_items))
        items.append(best.indices.numpy())
        scores.append(best.values.double().numpy())
    item, score = np.concatenate(items), np.concatenate(scores)
    sd = None
    if not fit.posterior.is_point:
        sd = np.zeros(item.shape)
        for at, posterior, rows in parts_of(fit.posterior, fit.split.train, users):
            sd[at] = posterior.score(rows[:, None], item[at])[1].double().numpy()
    positive = pairs_matrix(test)
    relevant = np.asarray(positive[np.repeat(users, item.shape[1]), item.ravel()]).reshape(item.shape)
    return Listed(users, item, score, sd, counts[item], relevant.astype(np.float64), np.isfinite(score))


def test_and_known(fit: Fit) -> tuple[Interactions, Any]:
    """Test positives, and the CSR matrix of pairs that are no candidates; a pair of both, as at P = 1, is test."""
    split = fit.split
    test = split.test.select(split.test.positive)
    parts = [split.train] if split.validation is None else [split.train, split.validation]
    known = pairs_matrix(*(part.select(part.observed) for part in parts))
    known = known - known.multiply(pairs_matrix(test))
    known.eliminate_zeros()
    return test, known


def reserved_users(fit: Fit, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Users with test positives, as rows: those that recalibrations are fitted on, and those that are reported.

    The first are the split's tuning users if it has any, otherwise a seeded ``share`` of all. Raises InputError where
    one of the two is left without users.
    """
    need_test(fit.split)
    test = fit.split.test
    able = np.unique(test.users[test.positive])
    tuning = fit.split.tuning_users
    if tuning is not None and tuning[able].any():
        reserved = able[tuning[able]]
    else:
        reserved = np.random.default_rng(seed).permutation(able)[: max(2, round(share * len(able)))]
    reported = np.setdiff1d(able, reserved)
    if len(reserved) < 2 or len(reported) < 2:
        raise InputError(
            f"only {counted(len(able), 'user', 'have')} held-out positives",
            "choose a split that leaves more, or another --reserve",
        )
    return np.sort(reserved), reported


def _blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Does P(listed item is a held-out positive) come true, for the top lists of the reported users?

    Parameters:
        name: The run.
        kind: The posterior's kind.
        top: Length of the lists.
        n_users: Reported users.
        n_reserved: Users that recalibrations were fitted on.
        base_rate: Share of listed items that are held-out positives, with its interval.
        scores: One row a prediction (clipped score, weights undone, recalibrated, recalibrated with sd, popularity; of
            Bernoulli and Poisson ratings "model's own", E[R], in place of the first two):
            ``mean``, ``calibration_error``, ``brier``, ``skill`` (1 - Brier / that of the base rate) and
            ``skill_over_popularity``, each but the first with ``_low`` and ``_high``.
        sd_gain: Brier skill of the recalibration with sd among its inputs less that without; NaN for a point.
        bins: Curve of each prediction: ``prediction``, ``bin``, ``n``, ``mean``, ``share``, ``low``, ``high``.
        groups: The recalibrated prediction by group: ``by``, ``group``, ``n``, ``mean``, ``share``, ``low``, ``high``,
            ``calibration_error``.
        histogram: Counts of recalibrated predictions between ``edges``.
        edges: Edges of the histogram.
        recalibration: The chosen one.
        with_sd: The same with sd among its inputs, ``None`` for a point.
        candidates: What it was chosen from, see :func:`choose_recalibration`.
    """

    name: str
    kind: str
    top: int
    n_users: int
    n_reserved: int
    base_rate: Interval
    scores: pd.DataFrame
    sd_gain: Interval
    bins: pd.DataFrame
    groups: pd.DataFrame
    histogram: np.ndarray
    edges: np.ndarray
    recalibration: Recalibration
    with_sd: Recalibration | None
    candidates: pd.DataFrame


def reliability(
    fit: Fit,
    name: str = "",
    *,
    top: int = 50,
    reserve: float = 0.1,
    n_bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> Reliability:
    """P(listed item is a held-out positive) over the ``top`` items of each user with test positives.

    The recalibration is chosen and fitted on reserved users (:func:`reserved_users`), whose pairs appear in no figure;
    all else is on the others. Intervals are percentiles of a bootstrap over users. Raises InputError where too few
    users have test positives, and for explicit ratings, which are no positives.
    """
    if predicts_ratings(fit):
        problem = "explicit ratings are predicted as numbers: P(listed item is a held-out positive) has no meaning"
        raise InputError(problem, "see the coverage of held-out ratings, by analysis.calibration or inference.evaluate")
    reserved, reported = reserved_users(fit, reserve, seed)
    learn = top_lists(fit, reserved, top).flat(np.ones(len(reserved), bool))
    recalibration, candidates = choose_recalibration(learn, candidates_for(learn))
    chosen = recalibration.method, recalibration.inputs
    popularity, _ = choose_recalibration(learn, (("logistic", ("popularity",)), ("isotonic", ("popularity",))))

    found = top_lists(fit, reported, top).flat(np.ones(len(reported), bool))
    predictions = _untrained_predictions(fit, found) | {
        "popularity": predict(popularity, found),
        "recalibrated": predict(recalibration, found),
    }
    with_sd = None
    if found.get("sd") is not None:
        with_sd = fit_recalibration(chosen[0], (*chosen[1], "sd"), learn)
        predictions["recalibrated with sd"] = predict(with_sd, found)
    weights = user_weights(len(reported), resamples, seed)
    scores, bins, base, gain = _scored(predictions, found, weights, len(reported), n_bins)
    p = predictions["recalibrated"]
    counts, edges = np.histogram(p, bins=100, range=(0, p.max()))
    return Reliability(
        name=name,
        kind=fit.posterior.kind,
        top=top,
        n_users=len(reported),
        n_reserved=len(reserved),
        base_rate=base,
        scores=scores,
        sd_gain=gain,
        bins=bins,
        groups=_reliability_groups(fit, found, reported, p, weights, n_bins),
        histogram=counts,
        edges=edges,
        recalibration=recalibration,
        with_sd=with_sd,
        candidates=candidates,
    )


def _untrained_predictions(fit: Fit, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities that the model alone gives of listed items, by name."""
    sd, model = found.get("sd"), fit.options.model
    if not is_normal(fit):
        return {"model's own": expected_rating(fit, found["score"], sd).clip(0.0, 1.0)}
    return {
        "clipped score": np.clip(found["score"], 0.0, 1.0),
        "weights undone": raw_probability(found["score"], sd, model.a, confidences_of_zeros(fit, found["item"])),
    }


def _scored(
    predictions: dict[str, np.ndarray], found: dict[str, np.ndarray], weights: Any, n_users: int, n_bins: int
) -> tuple[pd.DataFrame, pd.DataFrame, Interval, Interval]:
    """A row of errors and skills for each prediction, its bins, the base rate, and what the sd adds to the skill."""
    y, user = found["y"], found["user"]
    n, positives = (weights @ sums_by_user(user, values, n_users) for values in (np.ones(len(y)), y))
    base = positives / n
    losses = {prediction: weights @ sums_by_user(user, (p - y) ** 2, n_users) for prediction, p in predictions.items()}
    skills = {prediction: 1 - loss / (n * base * (1 - base)) for prediction, loss in losses.items()}
    rows, bins = [], []
    for prediction, p in predictions.items():
        place = equal_mass_bins(p, n_bins)
        excess = weights @ sums_by_user(user, p - y, n_users, place)
        values = {
            "calibration_error": np.abs(excess).sum(1) / n,
            "brier": losses[prediction] / n,
            "skill": skills[prediction],
            "skill_over_popularity": 1 - losses[prediction] / losses["popularity"],
        }
        row: dict[str, Any] = {"prediction": prediction, "mean": p.mean()}
        for statistic, value in values.items():
            row |= named(statistic, interval(value))
        rows.append(row)
        frame = _shares(user, y, p, place, weights).rename(columns={"place": "bin"})
        frame.insert(0, "prediction", prediction)
        bins.append(frame)
    gain = Interval(np.nan, np.nan, np.nan)
    if "recalibrated with sd" in skills:
        gain = interval(skills["recalibrated with sd"] - skills["recalibrated"])
    scores = pd.DataFrame(rows).set_index("prediction")
    return scores, pd.concat(bins, ignore_index=True), interval(base), gain


def is_normal(fit: Fit) -> bool:
    """True for the paper's likelihood of ratings, whose scores are means of R."""
    return fit.model is None or fit.model.ratings.noise_precision is not None


def expected_rating(fit: Fit, score: np.ndarray, sd: np.ndarray | None) -> np.ndarray:
    """E[R] of cells whose scores are N(score, sd^2), by the likelihood: of clicks a probability."""
    mean = torch.as_tensor(score)
    variance = torch.zeros_like(mean) if sd is None else torch.as_tensor(sd).square()
    with torch.no_grad():
        return fit.model.ratings.predict(mean, variance)[0].numpy()


def _reliability_groups(
    fit: Fit, found: dict[str, np.ndarray], users: np.ndarray, p: np.ndarray, weights: np.ndarray, n_bins: int
) -> pd.DataFrame:
    frames = []
    for by, group, chosen in cell_groups(fit, users[found["user"]], found["item"]):
        user, y, place = found["user"][chosen], found["y"][chosen], np.zeros(chosen.sum(), np.int64)
        frame = _shares(user, y, p[chosen], place, weights).drop(columns="place")
        frame.insert(0, "by", by)
        frame.insert(1, "group", group)
        frames.append(frame.assign(calibration_error=calibration_error(p[chosen], y, n_bins)))
    return pd.concat(frames, ignore_index=True)


def _shares(user: np.ndarray, y: np.ndarray, p: np.ndarray, place: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
    """Of each bin the mean prediction and the share of positives: place, n, mean, share, low, high."""
    n_users, total = weights.shape[1], np.bincount(place)
    n, positives = (weights @ sums_by_user(user, values, n_users, place) for values in (np.ones(len(y)), y))
    shares = positives / np.maximum(n, 1)
    low, high = np.quantile(shares[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    columns = {"place": np.arange(len(total)), "n": total, "mean": np.bincount(place, p) / total}
    return pd.DataFrame(columns | {"share": shares[0], "low": low, "high": high})


def draw_reliability(results: Sequence[Reliability]) -> Any:
    """For each fit the share of held-out positives by prediction, raw and recalibrated, above a histogram.

    Points are equal-mass bins with 95 % intervals; four fits stand side by side. Returns a matplotlib figure.
    """
    wide = min(len(results), 4)
    drawn, axes = figure(wide, 2 * -(-len(results) // wide), width=3.9, height=2.8)
    shown = {"recalibrated": ("recalibrated", CYCLE[1], "o"), "weights undone": ("raw: weights undone", CYCLE[6], "s")}
    shown["model's own"] = ("raw: the model's own", CYCLE[6], "s")
    shown["popularity"] = ("by popularity alone", CYCLE[0], "^")
    for place in range(axes.size // 2):
        curve, histogram = axes[2 * (place // wide), place % wide], axes[2 * (place // wide) + 1, place % wide]
        if place >= len(results):
            curve.set_axis_off()
            histogram.set_axis_off()
            continue
        result, top = results[place], 0.0
        for prediction, (label, color, marker) in shown.items():
            bins = result.bins[result.bins["prediction"] == prediction]
            if not len(bins):
                continue
            top = max(top, draw_bins(curve, bins, fmt=marker, color=color, label=label))
        curve.axline((0, 0), slope=1, color="#222222", linewidth=0.8)
        row = result.scores.loc["recalibrated"]
        curve.set(xlim=(0, 1.05 * top), ylim=(0, 1.05 * top), ylabel="share of held-out positives")
        title = f"{result.name}\ncalibration error {row['calibration_error']:.4f}, Brier skill {row['skill']:.4f}"
        curve.set_title(title, fontsize="medium")
        histogram.stairs(result.histogram, result.edges, fill=True, color=CYCLE[1], alpha=0.7)
        histogram.set(xlim=(0, 1.05 * top), yscale="log", ylabel="listed items")
        histogram.set_xlabel("P(listed item is a held-out positive)")
    axes[0, 0].legend(fontsize="small", loc="upper left")
    return drawn


def draw_bins(axes: Any, bins: pd.DataFrame, **style: Any) -> float:
    """The share of positives in each bin against the mean prediction, with intervals; the largest number drawn."""
    ends = np.abs(bins[["low", "high"]].to_numpy().T - bins["share"].to_numpy())
    axes.errorbar(bins["mean"], bins["share"], ends, markersize=4, linewidth=1, **style)
    return max(bins["mean"].max(), bins["high"].max())
