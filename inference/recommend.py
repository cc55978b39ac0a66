"""Recommendations from a run folder: ``python -m inference.recommend RUN --user ID --top 10``.

External ids go in and come out. All items that a user is known to have chosen are left out, those held out for a test
among them; items without a training rating are ranked through the encoder and marked cold. Users without a training
pair get the average user's list and are marked so (:mod:`inference.average`). In ``bayes`` each score has its posterior
standard deviation and, if asked for, an interval and the chance to be listed. Users may be folded in from lists of
items, and items added from their contents (:mod:`inference.updates`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.printing import check_format, emit, sheet_of, show, write_frame
from pyro_cvae.data.reading import Reading, parse_columns
from pyro_cvae.data.sources import parse_all
from pyro_cvae.errors import InputError, run_command

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from inference.fitting import Fit
    from pyro_cvae.data.dataset import Dataset

UNKNOWN = ("error", "drop", "prior")
RANKINGS = ("mean", "thompson", "ucb")
NEW_USER = "new user"
TOP_DRAWS, PAIR_DRAWS = 200, 4000
COLUMNS = ("rank", "item", "title", "score", "sd", "group")


@dataclass(frozen=True)
class RecommendOptions:
    """What is asked of a fitted model.

    Parameters:
        run: The run folder of a fit.
        user: Users to recommend to, by their ids.
        users_from: A file of user ids, one a line.
        history: A table (user, item[, weight]) of users to be folded in and recommended to; their whole history, since
            what is not in it counts as not chosen; with a column rating where the run is of explicit ratings.
        likes: All items that one new user has chosen, by their ids; recommend to this user.
        similar: Items to find similar items of, instead of users.
        above: Items two by two; for each user the probability that the first scores above the second.
        new_items: A table (item, text[, title]) of items to be added before anything is ranked.
        new_contents: Further contents of these items, as in --contents of the fit: NAME=PATH, or NAME for a column of
            that table; what the fit is of and they lack is left to its prior.
        columns: What columns of these tables are called, each NAME=COLUMN; by default as in the fit's own tables.
        separator: Of these text tables; by default told by the header.
        encoding: Of these text tables; by default UTF-8, or what a byte order mark says.
        top: Length of each list.
        interval: Probability of an interval for each score, or each explicit rating, noise included, for instance 0.9.
        top_probability: M, for the probability that an item is among the user's M best candidates.
        ranking: What lists are ordered by (mean, thompson: one posterior draw a user, ucb: mean + kappa sd).
        kappa: Standard deviations that ucb adds.
        draws: Posterior draws for the probabilities; 0 takes 200 of whole rankings, 4,000 of pairs.
        seed: Of the draws.
        candidates: A file of item ids, one a line; only these are ranked.
        exclude: A file of item ids, one a line, that are never recommended.
        keep_seen: Rank the items that a user is known to have chosen, too.
        keep_test: Rank those of them that were held out for the test, as evaluation does.
        unknown: What to do with an unknown id (error, drop, or prior for users, who get the average user's list).
        out: A CSV or Parquet file instead of a table.
        format: How the answer is printed (table, csv, json).
        trust: Class paths outside of the package that the run may import; see docs/security.md.
        csv_safe: Put an apostrophe before texts in CSV that a spreadsheet program would take for formulas.
    """

    run: str
    user: tuple[str, ...] = ()
    users_from: str | None = None
    history: str | None = None
    likes: tuple[str, ...] = ()
    similar: tuple[str, ...] = ()
    above: tuple[str, ...] = ()
    new_items: str | None = None
    new_contents: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    separator: str = ""
    encoding: str = ""
    top: int = 10
    interval: float | None = None
    top_probability: int | None = None
    ranking: str = "mean"
    kappa: float = 1.0
    draws: int = 0
    seed: int = 0
    candidates: str | None = None
    exclude: str | None = None
    keep_seen: bool = False
    keep_test: bool = False
    unknown: str = "error"
    out: str | None = None
    format: str = "table"
    trust: tuple[str, ...] = ()
    csv_safe: bool = False

    def __post_init__(self) -> None:
        check_format(self.format)
        if self.top < 1:
            raise InputError(f"--top is {self.top}, but it must be at least 1")
        if self.unknown not in UNKNOWN:
            raise InputError(f"--unknown is {self.unknown!r}, but it must be one of {', '.join(UNKNOWN)}")
        if self.out and Path(self.out).suffix not in (".csv", ".parquet"):
            raise InputError(f"--out is {self.out!r}, but it must end in .csv or .parquet")
        if self.out and not Path(self.out).absolute().parent.is_dir():
            raise InputError("--out: no such folder", "make it first", path=Path(self.out).parent)
        people = self.user or self.users_from or self.history or self.likes
        if self.similar and (people or self.above):
            raise InputError("--similar is about items, --user about users", "ask for one of them")
        if self.likes and (self.user or self.users_from or self.history):
            raise InputError("--likes is about one new user alone", "ask for the others in a call of their own")
        if self.new_contents and not self.new_items:
            raise InputError("--new-contents are of new items", "name these with --new-items FILE")
        parse_all(self.new_contents)
        Reading(parse_columns(self.columns), self.separator, self.encoding)  # checks them
        if len(self.above) % 2:
            raise InputError(f"--above has {len(self.above)} items, which are no pairs", "give them two by two")
        if self.draws < 0:
            raise InputError(f"--draws is {self.draws}, but it must be 0 or more")
        if not 0 <= self.seed < 2**62:
            raise InputError(f"--seed is {self.seed}, but it must be 0 or more and below 2^62")
        _check_asked(self.interval, self.top_probability, self.ranking, self.kappa)


def _check_asked(interval: float | None, top_probability: int | None, ranking: str, kappa: float) -> None:
    if interval is not None and not 0 < interval < 1:
        raise InputError(f"--interval is {interval}, but it must be between 0 and 1", "for instance 0.9")
    if top_probability is not None and top_probability < 1:
        raise InputError(f"--top-probability is {top_probability}, but it must be at least 1")
    if ranking not in RANKINGS:
        raise InputError(f"--ranking is {ranking!r}, but it must be one of {', '.join(RANKINGS)}")
    if not 0 <= kappa < float("inf"):
        raise InputError(f"--kappa is {kappa}, but it must be a finite number, 0 or more")


def recommend(
    fit: Fit,
    users: Iterable[Any],
    top: int = 10,
    *,
    candidates: Iterable[Any] | None = None,
    exclude: Iterable[Any] = (),
    keep_seen: bool = False,
    keep_test: bool = False,
    unknown: str = "error",
    interval: float | None = None,
    top_probability: int | None = None,
    ranking: str = "mean",
    kappa: float = 1.0,
    draws: int = TOP_DRAWS,
    seed: int = 0,
    block_size: int = 256,
) -> pd.DataFrame:
    """The ``top`` items for each user: user, rank, item, title, score, sd, group, origin, and what is asked for.

    ``score`` is E[u].E[v], ``sd`` the posterior standard deviation of u.v (missing for a point estimate), ``group``
    hot, warm or cold by the item's training ratings, or new for an added item. ``origin`` says where the user's list is
    from: "fit", "folded in" (:func:`inference.updates.fold_in`), or "average" where nothing is known of the user, who
    then gets the average user's list (:mod:`inference.average`). With

    - explicit ratings: ``rating`` and ``rating_sd``, mean and standard deviation of a new rating, noise included;
    - ``interval``, a probability: ``low`` and ``high`` (:func:`inference.ranking.credible_interval`), of the score,
      or of a new rating where ratings are explicit;
    - ``top_probability``, a number M: ``p_top_M``, the probability to be among the user's M best candidates, by
      ``draws`` joint draws (:func:`inference.ranking.top_probabilities`);
    - ``ranking`` "thompson" or "ucb": lists in the order of one posterior draw a user, or of score + ``kappa`` sd, in a
      column of that name.

    Candidates are the items that a user is not known to have chosen, in whatever part of the split; with ``keep_test``
    those of the test part are candidates too, as in evaluation, with ``keep_seen`` all are. ``unknown`` users raise
    InputError ("error"), are left out ("drop") or get the average user's list ("prior"), after the known ones. Raises
    InputError for unknown item ids, and for a point estimate that is asked for uncertainty.
    """
    import numpy as np
    import pandas as pd
    import torch

    from inference.average import lacks_pairs, posterior_of
    from inference.candidates import known_pairs
    from inference.predicted import predicted, score_moments
    from inference.ranking import Candidates, best_items, credible_interval, top_probabilities
    from inference.updates import folded_in

    _check_asked(interval, top_probability, ranking, kappa)
    dataset = fit.dataset
    if fit.posterior.is_point and (interval is not None or top_probability is not None or ranking != "mean"):
        raise InputError("a MAP fit is a point and has no uncertainty", "fit with --mode bayes")
    asked = list(dict.fromkeys(users))
    rows = dataset.user_rows(asked, unknown="error" if unknown == "error" else "prior")
    order = [*np.flatnonzero(rows >= 0), *(np.flatnonzero(rows < 0) if unknown == "prior" else ())]
    if not order:
        return pd.DataFrame(columns=["user", *COLUMNS, "origin"])
    rows, ids = rows[order], _as_ids([asked[at] for at in order], dataset.user_ids)
    seen = None if keep_seen else known_pairs(fit, rows, keep_test)
    allowed = Candidates(torch.as_tensor(_allowed(dataset, candidates, exclude)), seen)
    posterior, place = posterior_of(fit, rows), np.arange(len(rows))
    values, items = best_items(posterior, place, top, allowed, ranking, kappa, seed, block_size)
    columns: dict[str, torch.Tensor | None] = {"score": values, "sd": None}
    if ranking != "mean":
        columns |= {"score": posterior.mean_score(place[:, None], items), ranking: values}
    if not posterior.is_point:
        mean, sd = posterior.score(place[:, None], items)
        columns["sd"] = sd
    if fit.model.ratings.explicit:
        found = predicted(fit.model.ratings, *score_moments(posterior, place[:, None], items), fit.split.train)
        columns |= {"rating": found.mean, "rating_sd": found.sd}
        if interval is not None:
            ends = found.distribution.interval(interval)
            columns["low"], columns["high"] = (end.view_as(found.mean) for end in ends)
    elif interval is not None:
        columns["low"], columns["high"] = credible_interval(mean, sd, interval)
    if top_probability is not None:
        chances = top_probabilities(posterior, place, items, top_probability, allowed, draws, seed)
        columns[f"p_top_{top_probability}"] = chances
    origin = np.where(folded_in(fit)[rows], "folded in", "fit")
    origin = np.where(lacks_pairs(fit, rows), "average", origin)
    return _table(fit, ids, items, columns, torch.isfinite(values), "user", origin)


def compare_items(
    fit: Fit,
    users: Iterable[Any],
    pairs: Iterable[tuple[Any, Any]],
    *,
    draws: int = PAIR_DRAWS,
    seed: int = 0,
    unknown: str = "error",
) -> pd.DataFrame:
    """For each user the probability that one item scores above another: columns user, item, other, p_above.

    The share of ``draws`` joint draws in which u.v is larger for ``item`` than for ``other``; of users without a
    training pair, for the average user. ``unknown`` users and items raise InputError ("error") or leave their rows out
    ("drop"); with "prior" such users are the average user, too. Raises InputError for a point estimate.
    """
    import numpy as np
    import pandas as pd

    from inference.average import posterior_of
    from inference.ranking import above_probabilities

    dataset, strict = fit.dataset, unknown == "error"
    asked = list(dict.fromkeys(users))
    rows = dataset.user_rows(asked, unknown="error" if strict else "prior")
    kept = np.flatnonzero(np.full(len(rows), True) if unknown == "prior" else rows >= 0)
    names, posterior = _as_ids([asked[at] for at in kept], dataset.user_ids), posterior_of(fit, rows[kept])
    ids, parts = dataset.item_ids, [pd.DataFrame(columns=["user", "item", "other", "p_above"])]
    for pair in pairs:
        first, second = dataset.item_rows(pair, unknown="error" if strict else "prior")
        if min(first, second) < 0:
            continue
        found = above_probabilities(posterior, np.arange(len(kept)), int(first), int(second), draws, seed)
        columns = {"user": names, "item": ids[first], "other": ids[second]}
        parts.append(pd.DataFrame(columns | {"p_above": found.numpy().astype(np.float64)}))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def similar_items(
    fit: Fit,
    items: Iterable[Any],
    top: int = 10,
    *,
    candidates: Iterable[Any] | None = None,
    exclude: Iterable[Any] = (),
    unknown: str = "error",
) -> pd.DataFrame:
    """The ``top`` items nearest by cosine of the means of v: columns to, rank, item, title, score, group."""
    import torch

    dataset = fit.dataset
    rows = dataset.item_rows(dict.fromkeys(items), unknown="error" if unknown == "error" else "drop")
    unit = torch.nn.functional.normalize(fit.posterior.v_loc[:, : fit.posterior.n_factors], dim=-1)
    scores = unit[torch.as_tensor(rows)] @ unit.mT
    scores[torch.arange(len(rows)), torch.as_tensor(rows)] = -torch.inf
    scores = scores.masked_fill(torch.as_tensor(~_allowed(dataset, candidates, exclude)), -torch.inf)
    best = scores.topk(min(top, dataset.n_items))
    columns, kept = {"score": best.values, "sd": None}, torch.isfinite(best.values)
    return _table(fit, dataset.item_ids[rows], best.indices, columns, kept, "to")


def _allowed(dataset: Dataset, candidates: Iterable[Any] | None, exclude: Iterable[Any]) -> np.ndarray:
    """True for the items that may be ranked, bool (n_items,); InputError if there is none."""
    import numpy as np

    allowed = np.full(dataset.n_items, candidates is None)
    if candidates is not None:
        allowed[dataset.item_rows(candidates)] = True
    allowed[dataset.item_rows(exclude)] = False
    if not allowed.any():
        raise InputError("no item is left to be ranked", "give more candidates or fewer exclusions")
    return allowed


def _table(
    fit: Fit,
    ids: np.ndarray,
    items: torch.Tensor,
    columns: dict[str, torch.Tensor | None],
    kept: torch.Tensor,
    key: str,
    origin: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rows of lists; ``items``, ``kept`` and each of the columns (n_ids, n_listed), a column ``None`` is missing."""
    import numpy as np
    import pandas as pd

    from inference.evaluate import GROUPS, item_groups
    from inference.updates import fitted_part

    n, length = items.shape
    chosen = items.numpy().ravel()
    groups = np.full(fit.dataset.n_items, len(GROUPS))
    trained = item_groups(fitted_part(fit).split.train)
    groups[: len(trained)] = trained
    titles = None if fit.dataset.titles is None else fit.dataset.titles[chosen]
    shown = {
        key: np.repeat(ids, length),
        "rank": np.tile(np.arange(1, length + 1), n),
        "item": fit.dataset.item_ids[chosen],
        "title": titles,
    }
    shown |= {name: np.nan if column is None else column.numpy().ravel() for name, column in columns.items()}
    shown["group"] = np.array([*GROUPS, "new"], dtype=object)[groups[chosen]]
    if origin is not None:
        shown["origin"] = np.repeat(origin.astype(object), length)
    return pd.DataFrame(shown)[kept.numpy().ravel()].reset_index(drop=True)


def _as_ids(asked: Sequence[Any], known: np.ndarray) -> np.ndarray:
    """Ids in the type of the data's own, or as text where a stranger's is of another type."""
    import numpy as np

    from pyro_cvae.data.dataset import spells_integer

    whole = known.dtype.kind == "i" and all(spells_integer(str(one)) for one in asked)
    return np.array(list(map(int, asked)), np.int64) if whole else np.array(list(map(str, asked)), object)


def read_ids(path: str, encoding: str = "") -> list[str]:
    """Ids of a file, one a line; empty lines are skipped. Raises InputError if there is none."""
    from pyro_cvae.data.delimited import read_lines

    ids = [line.strip() for line in read_lines(path, encoding) if line.strip()]
    if not ids:
        raise InputError("holds no id", "write one id a line", path=path)
    return ids


def _typed(ids: Iterable[str], known: np.ndarray) -> list[Any]:
    """Ids from text in the type of the data's own; what is no whole number stays text, and is unknown."""
    from pyro_cvae.data.dataset import spells_integer

    return [int(one) if known.dtype.kind == "i" and spells_integer(one) else one for one in ids]


def main() -> None:
    """The command line."""
    from inference.commands import parse

    (options,) = parse(
        "python -m inference.recommend",
        "Rank items for users, or find similar items, with a fitted model.",
        (RecommendOptions,),
        positionals=("run",),
        examples=(
            ("python -m inference.recommend runs/simulated-bayes --user user-0001 --top 5", "five items for one user"),
            ("python -m inference.recommend RUN --users-from users.txt --out lists.parquet", "lists for many users"),
            ("python -m inference.recommend RUN --similar item-0001", "items like this one"),
            ("python -m inference.recommend RUN --likes item-0001 item-0007", "for a new user, from all they chose"),
            (
                "python -m inference.recommend RUN --user user-0001 --interval 0.9 --top-probability 10",
                "how sure the list is",
            ),
            (
                "python -m inference.recommend RUN --user 42 --new-items items.csv --new-contents pictures=FOLDER",
                "items that were not in the fit, by their pictures",
            ),
        ),
    )
    fit, new_user = _opened(options)
    known_users, known_items = fit.dataset.user_ids, fit.dataset.item_ids
    candidates, exclude = (
        None if path is None else _typed(read_ids(path, options.encoding), known_items)
        for path in (options.candidates, options.exclude)
    )
    if options.similar:
        asked = _typed(options.similar, known_items)
        table = similar_items(
            fit, asked, options.top, candidates=candidates, exclude=exclude or (), unknown=options.unknown
        )
    else:
        listed = read_ids(options.users_from, options.encoding) if options.users_from else []
        named = _typed([*options.user, *listed], known_users)
        named += _folded_ids(fit)
        if not named:
            raise InputError(
                "nobody is named", "give --user ID, --users-from FILE, --history FILE, --likes ITEM or --similar ITEM"
            )
        if options.above:
            things = _typed(options.above, known_items)
            pairs = list(zip(things[::2], things[1::2], strict=True))
            chosen = {"draws": options.draws or PAIR_DRAWS, "seed": options.seed, "unknown": options.unknown}
            table = compare_items(fit, named, pairs, **chosen)
        else:
            table = recommend(
                fit,
                named,
                options.top,
                candidates=candidates,
                exclude=exclude or (),
                keep_seen=options.keep_seen,
                keep_test=options.keep_test,
                unknown=options.unknown,
                interval=options.interval,
                top_probability=options.top_probability,
                ranking=options.ranking,
                kappa=options.kappa,
                draws=options.draws or TOP_DRAWS,
                seed=options.seed,
            )
    if new_user:
        table["user"] = NEW_USER
    notes = _notes(table)
    if options.out:
        write_frame(table, options.out, options.csv_safe)
        for line in (f"{len(table)} rows: {options.out}", *notes):
            show(line)
    else:
        _print(table, fit, options.format, notes, options.csv_safe)


def _notes(table: pd.DataFrame) -> list[str]:
    """Who got the average user's list, in a line."""
    if "origin" not in table or not (average := table.loc[table["origin"] == "average", "user"].nunique()):
        return []
    told = f"{average} of {table['user'].nunique()} users without a training pair get the average user's list"
    return [f"{told} (origin: average)"]


def _opened(options: RecommendOptions) -> tuple[Fit, bool]:
    """The fit with the new items added and the users folded in, and whether these are one without an id."""
    from inference.fitting import load
    from inference.updates import add_items, fold_in
    from pyro_cvae.data.frames import read_pairs
    from pyro_cvae.data.readers import read_new_items

    fit = load(options.run, trust=options.trust)
    unknown = "error" if options.unknown == "error" else "drop"
    reading = fit.options.data.reading.of_another_file(options.columns, options.separator, options.encoding)
    if options.new_items:
        new = read_new_items(options.new_items, parse_all(options.new_contents), fit.dataset, unknown, reading)
        with _at(options.new_items):
            ids = _typed(map(str, new.item_ids), fit.dataset.item_ids)
            fit = add_items(fit, ids, contents=new.contents, titles=new.titles)
    dataset = fit.dataset
    if options.history:
        explicit = fit.model.ratings.explicit
        users, items, weights, stars = read_pairs(
            options.history, ratings="stars" if explicit else "clicks", reading=reading
        )
        users, items = _typed(map(str, users), dataset.user_ids), _typed(map(str, items), dataset.item_ids)
        with _at(options.history):
            fit = fold_in(fit, users, items, ratings=stars, confidences=weights, unknown=unknown)
    if options.likes:
        if fit.model.ratings.explicit:
            raise InputError("--likes says no ratings, which this run is of", "give --history with a column rating")
        taken = dataset.user_ids
        name = int(taken.max()) + 1 if taken.dtype.kind == "i" else max([NEW_USER, *taken], key=len) + "+"
        fit = fold_in(fit, [name] * len(options.likes), _typed(options.likes, dataset.item_ids), unknown=unknown)
    return fit, bool(options.likes)


def _folded_ids(fit: Fit) -> list[Any]:
    from inference.updates import folded_in

    return list(fit.dataset.user_ids[folded_in(fit)])


@contextmanager
def _at(path: str) -> Iterator[None]:
    """An error about what a file says names that file."""
    try:
        yield
    except InputError as error:
        raise InputError(error.problem, error.remedy, path=error.path or path, line=error.line) from None


def _print(table: pd.DataFrame, fit: Fit, format: str, notes: list[str], csv_safe: bool) -> None:
    key = table.columns[0]
    if "title" in table and fit.dataset.titles is None:
        table = table.drop(columns="title")
    ends = [row for row, last in enumerate(table[key] != table[key].shift(-1)) if last]
    everybody_known = "origin" in table and (table["origin"] == "fit").all()
    printed = table.drop(columns="origin") if everybody_known else table
    sheet = sheet_of(printed, f"{fit.dataset.name}, {fit.options.fit.mode}", ["title"], ends)
    emit([sheet], {"recommendations": table}, format, notes, csv_safe)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
