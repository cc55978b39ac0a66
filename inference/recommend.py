"""Recommendations from a run folder: ``python -m inference.recommend RUN --user ID --top 10``.

External ids go in and come out. All items that a user is known to have chosen are left out, those held out for a test
among them; items without a training rating are ranked through the encoder and marked cold. Users without a training
pair get the average user's list and are marked so (:mod:`inference.average`). In ``bayes`` each score has its posterior
standard deviation and, if asked for, an interval and the chance to be listed. Users may be folded in from lists of
items, and items added from their contents (:mod:`inference.recommending`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.commands import parse
from inference.kinds import Format
from inference.printing import emit, sheet_of, show, write_frame
from inference.reasons import large_rests, told_reasons
from inference.recommending.options import PAIR_DRAWS, RecommendOptions
from pyro_cvae.data.sources import parse_all
from pyro_cvae.errors import InputError, about_file, run_command
from pyro_cvae.kinds import Ratings, Unknown
from pyro_cvae.runs import check_runs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from inference.fitting import Fit
    from pyro_cvae.data.reading import Reading

NEW_USER = "new user"
EXAMPLES = (
    ("python -m inference.recommend runs/simulated-bayes --user user-0001 --top 5", "five items for one user"),
    ("python -m inference.recommend RUN --users-from users.txt --out lists.parquet", "lists for many users"),
    ("python -m inference.recommend RUN --similar item-0001", "items like this one"),
    ("python -m inference.recommend RUN --likes item-0001 item-0007", "for a new user, from all they chose"),
    (
        "python -m inference.recommend RUN --user user-0001 --interval 0.9 --top-probability 10",
        "how sure the list is",
    ),
    ("python -m inference.recommend RUN --user user-0001 --why 3", "which items of the user's own each one is due to"),
    (
        "python -m inference.recommend RUN --user 42 --new-items items.csv --new-contents pictures=FOLDER",
        "items that were not in the fit, by their pictures",
    ),
)


def main() -> None:
    """The command line."""
    (options,) = parse(
        "python -m inference.recommend",
        "Rank items for users, or find similar items, with a fitted model.",
        (RecommendOptions,),
        positionals=("run",),
        examples=EXAMPLES,
    )
    check_runs([options.run])
    fit = _opened(options)
    table = _answer(fit, options)
    tables = {"recommendations": table} | (_why(fit, table, options.why) if options.why else {})
    if options.likes:
        for one in tables.values():
            one["user"] = NEW_USER
    notes = [*_notes(table, options.why > 0), *(large_rests(tables["scores"]) if options.why else ())]
    if options.out:
        _write(tables, options.out, options.csv_safe, notes)
    else:
        _print(tables, fit, options.format, notes, options.csv_safe)


def _answer(fit: Fit, options: RecommendOptions) -> pd.DataFrame:
    """The table that is asked for: similar items, chances of pairs, or lists."""
    from inference.recommending import compare_items, recommend, similar_items
    from inference.recommending.updated import folded_in
    from pyro_cvae.data.delimited import read_ids

    known_users, known_items = fit.dataset.user_ids, fit.dataset.item_ids
    candidates, exclude = (
        None if path is None else _typed(read_ids(path, options.encoding), known_items)
        for path in (options.candidates, options.exclude)
    )
    ranked: dict[str, Any] = {"candidates": candidates, "exclude": exclude or ()}
    if options.similar:
        return similar_items(fit, _typed(options.similar, known_items), options.top, unknown=options.unknown, **ranked)
    listed = read_ids(options.users_from, options.encoding) if options.users_from else []
    named = _typed([*options.user, *listed], known_users) + list(known_users[folded_in(fit)])
    if not named:
        raise InputError(
            "nobody is named", "give --user ID, --users-from FILE, --history FILE, --likes ITEM or --similar ITEM"
        )
    if options.above:
        things = _typed(options.above, known_items)
        pairs, draws = list(zip(things[::2], things[1::2], strict=True)), options.draws or PAIR_DRAWS
        return compare_items(fit, named, pairs, draws=draws, seed=options.seed, unknown=options.unknown)
    return recommend(fit, named, options.top, **ranked, **asdict(options.lists))


def _opened(options: RecommendOptions) -> Fit:
    """The fit with the new items added and the users folded in."""
    from inference.fitting import load

    fit = load(options.run, trust=options.trust)
    if options.new_items:
        fit = _with_items(fit, options)
    if options.history:
        fit = _with_users(fit, options)
    return _with_new_user(fit, options) if options.likes else fit


def _with_items(fit: Fit, options: RecommendOptions) -> Fit:
    """The fit with the items of ``--new-items`` added."""
    from inference.recommending import add_items
    from pyro_cvae.data.readers import read_new_items

    assert options.new_items is not None
    others = parse_all(options.new_contents)
    new = read_new_items(options.new_items, others, fit.dataset, _known(options), _reading(fit, options))
    with about_file(options.new_items):
        ids = _typed(map(str, new.item_ids), fit.dataset.item_ids)
        return add_items(fit, ids, contents=new.contents, titles=new.titles)


def _with_users(fit: Fit, options: RecommendOptions) -> Fit:
    """The fit with the users of ``--history`` folded in."""
    from inference.recommending import fold_in
    from pyro_cvae.data.frames import read_pairs

    assert options.history is not None
    dataset = fit.dataset
    kind: Ratings = "stars" if fit.model.ratings.explicit else "clicks"
    pairs = read_pairs(options.history, ratings=kind, reading=_reading(fit, options))
    users, items, weights, stars = pairs
    users, items = _typed(map(str, users), dataset.user_ids), _typed(map(str, items), dataset.item_ids)
    with about_file(options.history):
        return fold_in(fit, users, items, ratings=stars, confidences=weights, unknown=_known(options))


def _with_new_user(fit: Fit, options: RecommendOptions) -> Fit:
    """The fit with the user of ``--likes`` folded in, under an id that nobody has."""
    from inference.recommending import fold_in
    from inference.recommending.updated import unused_id

    if fit.model.ratings.explicit:
        raise InputError("--likes says no ratings, which this run is of", "give --history with a column rating")
    liked = _typed(options.likes, fit.dataset.item_ids)
    return fold_in(fit, [unused_id(fit.dataset.user_ids, NEW_USER)] * len(liked), liked, unknown=_known(options))


def _known(options: RecommendOptions) -> Unknown:
    """What to do with an unknown id in a list of the user's own."""
    return "error" if options.unknown == "error" else "drop"


def _reading(fit: Fit, options: RecommendOptions) -> Reading:
    """How the tables of the command are read."""
    return fit.options.data.reading.of_another_file(options.columns, options.separator, options.encoding)


def _typed(ids: Iterable[str], known: np.ndarray) -> list[Any]:
    """Ids from text in the type of the data's own; what is no whole number stays text, and is unknown."""
    from pyro_cvae.data.dataset import spells_integer

    return [int(one) if known.dtype.kind == "i" and spells_integer(one) else one for one in ids]


def _why(fit: Fit, table: pd.DataFrame, most: int) -> dict[str, pd.DataFrame]:
    """What the scores of the lists are sums of, and the reasons, for users whose choices are known."""
    from inference.recommending import why

    known = table[table["origin"] != "average"]
    found = why(fit, known["user"].tolist(), known["item"].tolist(), most)
    return {"scores": found.scores, "reasons": found.reasons}


def _notes(table: pd.DataFrame, reasons: bool = False) -> list[str]:
    """Who got the average user's list, in a line."""
    if "origin" not in table or not (average := table.loc[table["origin"] == "average", "user"].nunique()):
        return []
    told = f"{average} of {table['user'].nunique()} users without a training pair get the average user's list"
    return [f"{told} (origin: average)" + (", for which there are no reasons" if reasons else "")]


def _write(tables: dict[str, pd.DataFrame], out: str, csv_safe: bool, notes: list[str]) -> None:
    """Each table as a file, the first as it is called, the others beside it, as in ``lists.reasons.csv``."""
    path = Path(out)
    for place, (name, table) in enumerate(tables.items()):
        own = path.with_suffix(f".{name}{path.suffix}") if place else out
        write_frame(table, own, csv_safe)
        show(f"{len(table)} rows: {own}")
    for line in notes:
        show(line)


def _print(tables: dict[str, pd.DataFrame], fit: Fit, format: Format, notes: list[str], csv_safe: bool) -> None:
    """The lists, and behind them the reasons if there are any, for people or as CSV or JSON."""
    table = tables["recommendations"]
    key = table.columns[0]
    if "title" in table and fit.dataset.titles is None:
        table = table.drop(columns="title")
    ends = [row for row, last in enumerate(table[key] != table[key].shift(-1)) if last]
    everybody_known = "origin" in table and (table["origin"] == "fit").all()
    printed = table.drop(columns="origin") if everybody_known else table
    sheet = sheet_of(printed, f"{fit.dataset.name}, {fit.options.fit.mode}", ["title"], ends)
    more = told_reasons(table, tables["scores"], tables["reasons"]) if "reasons" in tables else []
    emit([sheet, *more], tables, format, notes, csv_safe)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
