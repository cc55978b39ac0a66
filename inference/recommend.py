"""Recommendations from a run folder: ``python -m inference.recommend RUN --user ID --top 10``.

External ids go in and come out. All items that a user is known to have chosen are left out, those held out for a test
among them; items without a training rating are ranked through the encoder and marked cold. Users without a training
pair get the average user's list and are marked so (:mod:`inference.average`). In ``bayes`` each score has its posterior
standard deviation and, if asked for, an interval and the chance to be listed. Users may be folded in from lists of
items, and items added from their contents (:mod:`inference.recommending`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.commands import parse
from inference.kinds import Format, Method
from inference.printing import emit, sheet_of, show, write_frame
from inference.progress import Lines, progress
from inference.reasons import large_rests, told_reasons, told_rests
from inference.recommending.options import PAIR_DRAWS, RecommendOptions
from pyro_cvae.data.sources import parse_all
from pyro_cvae.errors import InputError, about_file, run_command
from pyro_cvae.kinds import Ratings, Unknown
from pyro_cvae.runs import check_runs
from pyro_cvae.text import counted

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from inference.fitting import Fit
    from inference.recommending.exclusions import Exclusions
    from inference.recommending.lists import Lists
    from pyro_cvae.data.reading import Reading

NEW_USER = "new user"
EXAMPLES = (
    ("python -m inference.recommend runs/simulated-bayes --user user-0001 --top 5", "five items for one user"),
    ("python -m inference.recommend RUN --users-from users.txt --out lists.parquet", "lists for many users"),
    ("python -m inference.recommend RUN --everybody --out lists.parquet", "lists for all users"),
    ("python -m inference.recommend RUN --similar item-0001", "items like this one"),
    ("python -m inference.recommend RUN --similar-users user-0001", "users like this one"),
    (
        "python -m inference.recommend RUN --users-from users.txt --exclude-pairs read.csv --out lists.parquet",
        "lists without what each user has read elsewhere",
    ),
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
        "Rank items for users, or find similar items or users, with a fitted model.",
        (RecommendOptions,),
        positionals=("run",),
        examples=EXAMPLES,
    )
    check_runs([options.run])
    fit = _opened(options)
    if options.out and options.of_lists:
        _stream(fit, options, options.out)
        return
    tables = _tables(fit, _answer(fit, options), options)
    notes = _Notes(fit.options.method_name)
    notes.count(tables)
    if options.out:
        _write(tables["recommendations"], options.out, options.csv_safe)
    else:
        _print(tables, fit, options.format, notes.lines(options.why > 0), options.csv_safe)


def _answer(fit: Fit, options: RecommendOptions) -> pd.DataFrame:
    """The table that is asked for: similar items or users, chances of pairs, or lists."""
    from inference.recommending import compare_items, recommend, similar_items, similar_users

    ranked = _ranked(fit, options)
    if options.similar:
        asked = _typed(options.similar, fit.dataset.item_ids)
        return similar_items(fit, asked, options.top, unknown=options.unknown, **ranked)
    if options.similar_users:
        asked = _typed(options.similar_users, fit.dataset.user_ids)
        return similar_users(fit, asked, options.top, unknown=options.unknown)
    named = _named(fit, options)
    if options.above:
        things = _typed(options.above, fit.dataset.item_ids)
        pairs, draws = list(zip(things[::2], things[1::2], strict=True)), options.draws or PAIR_DRAWS
        return compare_items(fit, named, pairs, draws=draws, seed=options.seed, unknown=options.unknown)
    ranked |= _barred(fit, options, named)
    return recommend(fit, named, options.top, **ranked, **asdict(options.lists))


def _barred(fit: Fit, options: RecommendOptions, asked: Sequence[Any]) -> dict[str, Exclusions]:
    """What the table of ``--exclude-pairs`` bars, as a keyword; of what is unknown in it is told once."""
    if options.exclude_pairs is None:
        return {}
    from inference.recommending.exclusions import exclusions_of
    from pyro_cvae.data.frames import read_id_pairs

    pairs = read_id_pairs(options.exclude_pairs, _reading(fit, options))
    users = _typed(map(str, pairs["user"]), fit.dataset.user_ids)
    items = _typed(map(str, pairs["item"]), fit.dataset.item_ids)
    return {"exclude_pairs": exclusions_of(fit.dataset, users, items, asked)}


def _ranked(fit: Fit, options: RecommendOptions) -> dict[str, Any]:
    """The items that are ranked, as keywords."""
    from pyro_cvae.data.delimited import read_ids

    candidates, exclude = (
        None if path is None else _typed(read_ids(path, options.encoding), fit.dataset.item_ids)
        for path in (options.candidates, options.exclude)
    )
    return {"candidates": candidates, "exclude": exclude or ()}


def _named(fit: Fit, options: RecommendOptions) -> Sequence[Any]:
    """The users that are asked for, by their ids; InputError where there is none."""
    from inference.recommending.updated import folded_in
    from pyro_cvae.data.delimited import read_ids

    known = fit.dataset.user_ids
    if options.everybody:
        return known.tolist()
    listed = read_ids(options.users_from, options.encoding) if options.users_from else []
    if not (named := _typed([*options.user, *listed], known) + list(known[folded_in(fit)])):
        raise InputError(
            "nobody is named",
            "give --user ID, --users-from FILE, --everybody, --history FILE, --likes ITEM, --similar ITEM "
            "or --similar-users ID",
        )
    return named


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


def _tables(fit: Fit, table: pd.DataFrame, options: RecommendOptions) -> dict[str, pd.DataFrame]:
    """The answer; with ``--why`` what scores are sums of, and the reasons, for users whose choices are known, too."""
    tables = {"recommendations": table}
    if options.why:
        from inference.recommending import why

        known = table[table["origin"] != "average"]
        found = why(fit, known["user"].tolist(), known["item"].tolist(), options.why)
        tables |= {"scores": found.scores, "reasons": found.reasons}
    if options.likes:
        for one in tables.values():
            one["user"] = NEW_USER
    return tables


@dataclass
class _Notes:
    """What is told of lists in a line each: that they are empty, who got the average user's, what is unexplained."""

    method: Method
    users: int = 0
    average: int = 0
    scores: int = 0
    rests: int = 0
    rows: int = 0

    def count(self, tables: dict[str, pd.DataFrame]) -> None:
        """Count a part of the lists."""
        table = tables["recommendations"]
        self.rows += len(table)
        if "origin" in table:
            self.users += table["user"].nunique()
            self.average += table.loc[table["origin"] == "average", "user"].nunique()
        if "scores" in tables:
            self.scores += len(tables["scores"])
            self.rests += large_rests(tables["scores"])

    def lines(self, reasons: bool) -> list[str]:
        """The lines."""
        told = f"{counted(self.average, 'user', of=self.users)} without a training pair: the average user's list"
        line = f"{told} (origin: average)" + (", for which there are no reasons" if reasons else "")
        nothing = "nothing is left to be listed: what there is has been chosen, is unknown or is left out"
        return (
            [nothing] * (self.rows == 0)
            + [line] * (self.average > 0)
            + told_rests(self.rests, self.scores, self.method)
        )


def _stream(fit: Fit, options: RecommendOptions, out: str) -> None:
    """Write lists part by part, and reasons beside them, as in ``lists.reasons.csv``; each file appears whole."""
    from inference.parts import parts_to
    from inference.recommending.lists import lists_in_parts

    users = None if options.everybody else _named(fit, options)
    ranked = _ranked(fit, options) | _barred(fit, options, users or ())
    parts = lists_in_parts(fit, users, options.top, **ranked, **asdict(options.lists))
    names = ("", "scores", "reasons") if options.why else ("",)
    path, notes, rows = Path(out), _Notes(fit.options.method_name), Counter[str]()
    paths = [str(path.with_suffix(f".{name}{path.suffix}")) if name else out for name in names]
    with ExitStack() as files, progress(lines=Lines(free=0), transient=True) as tell:
        written = [files.enter_context(parts_to(one, options.csv_safe)) for one in paths]
        for part in parts:
            tables = _tables(fit, part, options)
            notes.count(tables)
            for write, own, table in zip(written, paths, tables.values(), strict=True):
                write(table)
                rows[own] += len(table)
            tell("users", notes.users, len(parts.rows), "")
    for own in paths:
        show(f"{counted(rows[own], 'row')}: {own}")
    for line in [*notes.lines(options.why > 0), *_told_recall(parts, options)]:
        show(line)


def _told_recall(lists: Lists, options: RecommendOptions) -> list[str]:
    """How much of the exact lists an index has found, in a line."""
    from inference.recommending.lists import RECALL_USERS

    if options.index == "exact":
        return []
    found = f"--index {options.index} --probes {options.probes} finds {lists.recall():.1%} of the exact lists"
    return [f"{found} (measured on {counted(min(RECALL_USERS, len(lists.rows)), 'user')})"]


def _write(table: pd.DataFrame, out: str, csv_safe: bool) -> None:
    """Another answer as a file."""
    write_frame(table, out, csv_safe)
    show(f"{counted(len(table), 'row')}: {out}")


def _print(tables: dict[str, pd.DataFrame], fit: Fit, format: Format, notes: list[str], csv_safe: bool) -> None:
    """The lists, and behind them the reasons if there are any, for people or as CSV or JSON."""
    table = tables["recommendations"]
    key = table.columns[0]
    if "title" in table and fit.dataset.titles is None:
        table = table.drop(columns="title")
    ends = [row for row, last in enumerate(table[key] != table[key].shift(-1)) if last]
    says_nothing = {"origin": lambda told: (told == "fit").all(), "sd": lambda told: told.isna().all()}  # sd of points
    printed = table.drop(columns=[name for name, test in says_nothing.items() if name in table and test(table[name])])
    sheet = sheet_of(printed, f"{fit.dataset.name}, {fit.options.fit.mode}", ["title"], ends)
    more = told_reasons(table, tables["scores"], tables["reasons"]) if "reasons" in tables else []
    emit([sheet, *more], tables, format, notes, csv_safe)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
