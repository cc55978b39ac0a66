"""Table 1: two users at one training item each, and what the CVAE and CDL recommend to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.text import visible

LEAST_TEST = 20
QUANTILES = (0.9, 0.5)
CHOICE = (
    f"Users are chosen by rule: of those with {LEAST_TEST} or more held-out items the two whose precision@10, averaged "
    "over both methods, is nearest to its 90th and its 50th percentile; of equals the first."
)


def choose_users(precisions: Sequence[np.ndarray], n_test: np.ndarray, least: int = LEAST_TEST) -> list[int]:
    """Places of the chosen users, one for each of QUANTILES, no user twice; fewer where there are no more.

    Parameters: ``precisions`` of each method, (n_users,) each; ``n_test`` held-out items, (n_users,).
    """
    mean = np.mean(precisions, 0)
    able = np.flatnonzero(n_test >= least)
    chosen: list[int] = []
    for quantile in QUANTILES:
        left = able[~np.isin(able, chosen)]
        if len(left):
            away = np.abs(mean[left] - np.quantile(mean[able], quantile))
            chosen.append(int(left[np.argmin(np.round(away, 12))]))
    return chosen


@dataclass(frozen=True)
class Recommended:
    """What one method recommends to one user: titles or ids, and whether each is in the user's library."""

    method: str
    items: list[str]
    in_library: list[bool]
    mean_precision: float


@dataclass(frozen=True)
class Example:
    """One chosen user: the id, the rated article, and the lists of the methods."""

    user: str
    rated: str
    n_test: int
    quantile: float
    lists: list[Recommended]


def examples(dataset: Dataset, split: Split, lists: Mapping[str, Mapping[str, np.ndarray]]) -> list[Example]:
    """The chosen users with the lists of each method, ``lists`` by its label as ``fits.best_lists`` gives them."""
    first = next(iter(lists.values()))
    users, n_test = first["users"], first["n_test"]
    test = set(zip(split.test.users.tolist(), split.test.items.tolist(), strict=True))
    found = []
    chosen = choose_users([one["precision"] for one in lists.values()], n_test)
    for place, quantile in zip(chosen, QUANTILES, strict=False):
        user = int(users[place])
        rated = split.train.items[split.train.users == user]
        made = [
            Recommended(
                label,
                [name_of(dataset, item) for item in one["items"][place].tolist()],
                [(user, item) in test for item in one["items"][place].tolist()],
                float(one["precision"].mean()),
            )
            for label, one in lists.items()
        ]
        names = "; ".join(name_of(dataset, int(item)) for item in rated)
        found.append(Example(visible(dataset.user_ids[user]), names, int(n_test[place]), quantile, made))
    return found


def name_of(dataset: Dataset, item: int) -> str:
    """The title of an item row where there is one, otherwise its id."""
    return visible(dataset.item_ids[item] if dataset.titles is None else dataset.titles[item])


def as_markdown(data: str, found: Sequence[Example]) -> str:
    """The table for people, in Markdown."""
    lines = [f"## {data}", "", CHOICE, ""]
    if not found:
        return "\n".join([*lines, f"No user has {LEAST_TEST} or more held-out items.", ""])
    told = "; ".join(f"{one.method} {one.mean_precision:.3f}" for one in found[0].lists)
    lines += [f"precision@10 over all users with held-out items: {told}.", ""]
    for number, example in enumerate(found, 1):
        lines += [f"### User {'I' * number} (id {example.user}, near the {example.quantile:.0%} point)", ""]
        lines += [f"The rated article: {_cell(example.rated)}. Held out: {example.n_test}.", ""]
        for one in example.lists:
            lines += [f"| # | {one.method}: precision {np.mean(one.in_library):.0%} | in the library? |"]
            lines += ["| --- | --- | --- |"]
            pairs = enumerate(zip(one.items, one.in_library, strict=True), 1)
            lines += [f"| {rank} | {_cell(item)} | {'yes' if hit else 'no'} |" for rank, (item, hit) in pairs]
            lines += [""]
    return "\n".join(lines)


def as_lines(data: str, found: Sequence[Example]) -> list[str]:
    """The same for a terminal, to be folded."""
    lines = ["", f"table1, {data}, P = 1", CHOICE]
    if not found:
        return [*lines, f"No user has {LEAST_TEST} or more held-out items."]
    lines += [f"precision@10 over all users: {one.method} {one.mean_precision:.3f}" for one in found[0].lists]
    for number, example in enumerate(found, 1):
        lines += ["", f"User {'I' * number} (id {example.user}); the rated article: {example.rated}"]
        for one in example.lists:
            lines.append(f"{one.method}, precision {np.mean(one.in_library):.0%}; + is in the library")
            pairs = enumerate(zip(one.items, one.in_library, strict=True), 1)
            lines += [f"{rank}. {'+' if hit else '-'} {item}" for rank, (item, hit) in pairs]
    return lines


def _cell(text: str) -> str:
    """A text as a cell of Markdown may have it."""
    for one in "\\|[]*_`":
        text = text.replace(one, f"\\{one}")
    return text.replace("<", "&lt;")
