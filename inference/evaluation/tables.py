"""What ``inference.evaluate`` prints and writes: tables of means, of users and of items, and their frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd

from inference.evaluation.by_user import shown
from inference.evaluation.comparison import Comparison
from inference.numerals import metric
from inference.printing import Sheet
from pyro_cvae.data.splits import Split
from pyro_cvae.protocol import Protocol
from pyro_cvae.text import counted


def report(comparison: Comparison, protocol: Protocol) -> list[Sheet | str]:
    """What is printed: lines of text, the table of means, and the table of hot, warm and cold items."""
    _, first = comparison.evaluations[0]
    title = f"{protocol} protocol; {_where(comparison)}"
    notes = [f"{name}: {result}" for name, result in comparison.rows if isinstance(result, str)]
    notes += _settings(comparison)
    if comparison.candidates is not None:
        notes.append(comparison.candidates.told(comparison.split))
    if protocol == "paper":
        notes.append("Training items stay in the ranking and count as hits: mostly a measure of what was remembered.")
    means = Sheet(["model", *first.metrics])
    for model, result in comparison.rows:
        if isinstance(result, str):
            means.add_row(model, *("-" for _ in first.metrics))
        else:
            _add_means(means, model, result)
    notes += _starred(first)
    recalls = [name for name in first.metrics if name.startswith("recall@")]
    groups = Sheet(["model", "items", "pairs", "users", *recalls])
    for model, result in comparison.evaluations:
        for group, row in result.groups.iterrows():
            counts = (f"{int(row[name]):,}" for name in ("n_pairs", "n_users"))
            groups.add_row(model, f"{group}, all ranked", *counts, *(f"{row[name]:.4f}" for name in recalls))
            groups.add_row(model, f"{group}, alone", "", "", *(f"{row[f'own_{name}']:.4f}" for name in recalls))
        groups.add_rule()
    return [
        f"{title}; {counted(first.n_users_evaluated, 'user')} evaluated",
        means,
        *notes,
        *_users_apart(comparison, {name: name for name in first.metrics}),
        f"\n{title}; hot, warm and cold items",
        groups,
        "Share of a user's relevant items of the group within the first M of the ranking, mean over users with any:\n"
        "of the ranking of all candidates (all ranked), and of the group's candidates among themselves (alone).\n"
        "cold: no training rating; warm: up to the median number of ratings of rated items; hot: more.\n",
    ]


def rating_report(comparison: Comparison) -> list[Sheet | str]:
    """The same of explicit ratings: errors and coverage, over all items and over hot, warm and cold ones."""
    _, first = comparison.evaluations[0]
    title = f"{_where(comparison)}; {counted(first.headline['n_test'].sum(), 'test rating')}"
    head = {
        "rmse": "RMSE",
        "mae": "MAE",
        "log_density": "log density",
        "coverage@50": "in 50 %",
        "coverage@90": "in 90 %",
    }
    means = Sheet(["model", *head.values()])
    groups = Sheet(["model", "items", "pairs", "users", *head.values()])
    for model, result in comparison.evaluations:
        _add_means(means, model, result)
        for group, row in result.groups.iterrows():
            counts = (f"{int(row[name]):,}" for name in ("n_pairs", "n_users"))
            groups.add_row(model, str(group), *counts, *(metric(name, row[name]) for name in head))
        groups.add_rule()
    return [
        title,
        means,
        *_starred(first),
        *_settings(comparison),
        "log density: mean over ratings of log p(rating), nats; in 90 %: share of ratings within that "
        "central interval. A point estimate has the noise alone in its intervals.",
        *_users_apart(comparison, head),
        f"\n{title}; hot, warm and cold items",
        groups,
        "cold: no training rating; warm: up to the median number of ratings of rated items; hot: more.\n",
    ]


def _where(comparison: Comparison) -> str:
    """Data and split, in words."""
    dataset = comparison.dataset
    size = f"{counted(dataset.n_users, 'user')}, {counted(dataset.n_items, 'item')}"
    return f"{dataset.name} ({size}); split {split_name(comparison.split)}"


def _add_means(sheet: Sheet, model: str, result: Any) -> None:
    """The headline means of a model, and below them those over all users where these are others."""
    sheet.add_row(model, *itertools.starmap(metric, result.means().items()))
    if result.per_user["tuning"].any():
        sheet.add_row(f"{model} *", *itertools.starmap(metric, result.all_user_means().items()))


def _starred(result: Any) -> list[str]:
    """What the star behind a model's name says, where there is one."""
    if not result.per_user["tuning"].any():
        return []
    users = counted(len(result.per_user), "user")
    return [f"* over all: {users}, with those on whom settings were chosen."]


def _settings(comparison: Comparison) -> list[str]:
    """How the rivals came to their settings."""
    chosen = [f"{name}: {settings}." for name, settings in comparison.settings.items() if settings != "fixed"]
    fixed = [name for name, settings in comparison.settings.items() if settings == "fixed"]
    return chosen + ([f"{', '.join(fixed)}: no setting was chosen for these data."] if fixed else [])


def _users_apart(comparison: Comparison, head: dict[str, str]) -> list[Sheet | str]:
    """The means over users with and without training pairs; nothing where all have some."""
    sheet = Sheet(["model", "users", "number", "pairs", *head.values()])
    for model, result in comparison.evaluations:
        for group, row in shown(result.user_groups):
            counts = (f"{row[name]:,}" for name in ("n_users", "n_pairs"))
            sheet.add_row(model, group, *counts, *(metric(name, row[name]) for name in head))
        sheet.add_rule()
    told = "A user without training pairs gets the average user's list: the mean of all others' scores, of each model "
    told += "without a prior of users of its own."
    return ["\nUsers with and without training pairs", sheet, told] if sheet.rows else []


def split_name(split: Split) -> str:
    """How a split was made, in words: ``per-user, train_per_user 10, seed 0``."""
    facts = {name: value for name, value in split.protocol.items() if name not in ("kind", "validation")}
    words = [str(split.protocol.get("kind", "given")), *(f"{name} {value}" for name, value in facts.items())]
    if validation := split.protocol.get("validation"):
        words.append(f"validation {validation['fraction']:g} ({validation['kind']})")
    return ", ".join(words)


def means_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row for each model and group of users or items; what does not apply to a row is missing in it."""
    rows: list[dict[str, Any]] = []
    for comparison in comparisons:
        for model, result in comparison.evaluations:
            about = {
                "model": model,
                "dataset": comparison.dataset.name,
                "split": split_name(comparison.split),
                "split_fingerprint": comparison.split.fingerprint(),
                "protocol": result.protocol,
            } | ({"settings": comparison.settings[model]} if model in comparison.settings else {})
            counts = result.headline[result.measured_pairs]
            headline = {"users": "headline", "items": "all", "n_users": len(counts), "n_pairs": int(counts.sum())}
            rows.append(about | headline | result.means())
            if len(counts) < len(result.per_user):
                n_pairs = int(result.per_user[result.measured_pairs].sum())
                everybody = {"users": "all", "items": "all", "n_users": len(result.per_user), "n_pairs": n_pairs}
                rows.append(about | everybody | result.all_user_means())
            rows += [about | {"users": name, "items": "all"} | row for name, row in shown(result.user_groups)]
            for group, row in result.groups.iterrows():
                counted = {"n_users": int(row["n_users"]), "n_pairs": int(row["n_pairs"])}
                means = {str(name): value for name, value in row.items() if not str(name).startswith("n_")}
                rows.append(about | {"users": "headline", "items": str(group)} | counted | means)
    return pd.DataFrame(rows)


def per_user_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """The metrics of every user under its external id, for every model; ids as text where data sets differ in type."""
    frames = []
    for comparison in comparisons:
        about = {"dataset": comparison.dataset.name, "split_fingerprint": comparison.split.fingerprint()}
        for model, result in comparison.evaluations:
            ids = comparison.dataset.user_ids[result.per_user["user"].to_numpy()]
            frames.append(result.per_user.assign(user=ids, model=model, protocol=result.protocol, **about))
    if len({frame["user"].dtype.kind for frame in frames}) > 1:
        frames = [frame.assign(user=frame["user"].map(str)) for frame in frames]
    whole = pd.concat(frames, ignore_index=True)
    first = ["model", "protocol", *about]
    return whole[[*first, *(name for name in whole if name not in first)]]
