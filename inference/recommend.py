"""Recommendations from a run folder: ``python -m inference.recommend RUN --user ID --top 10``.

External ids go in and come out. Training items are left out; items without a training rating are ranked through the
encoder and marked cold. In ``bayes`` each score has its posterior standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_cvae.errors import InputError, run_command

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from inference.fitting import Fit
    from pyro_cvae.data.dataset import Dataset

UNKNOWN = ("error", "drop", "prior")


@dataclass(frozen=True)
class RecommendOptions:
    """What is asked of a fitted model.

    Parameters:
        run: The run folder of a fit.
        user: Users to recommend to, by their ids.
        users_from: A file of user ids, one a line.
        similar: Items to find similar items of, instead of users.
        top: Length of each list.
        candidates: A file of item ids, one a line; only these are ranked.
        exclude: A file of item ids, one a line, that are never recommended.
        keep_seen: Rank a user's training items too.
        unknown: What to do with an unknown id (error, drop, or prior for users, who get the average user's list).
        out: A CSV or Parquet file instead of a table.
    """

    run: str
    user: tuple[str, ...] = ()
    users_from: str | None = None
    similar: tuple[str, ...] = ()
    top: int = 10
    candidates: str | None = None
    exclude: str | None = None
    keep_seen: bool = False
    unknown: str = "error"
    out: str | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise InputError(f"--top is {self.top}, but it must be at least 1")
        if self.unknown not in UNKNOWN:
            raise InputError(f"--unknown is {self.unknown!r}, but it must be one of {', '.join(UNKNOWN)}")
        if self.out and Path(self.out).suffix not in (".csv", ".parquet"):
            raise InputError(f"--out is {self.out!r}, but it must end in .csv or .parquet")
        if self.out and not Path(self.out).absolute().parent.is_dir():
            raise InputError("--out: no such folder", "make it first", path=Path(self.out).parent)
        if self.similar and (self.user or self.users_from):
            raise InputError("--similar is about items, --user about users", "ask for one of them")


def recommend(
    fit: Fit,
    users: Iterable[Any],
    top: int = 10,
    *,
    candidates: Iterable[Any] | None = None,
    exclude: Iterable[Any] = (),
    keep_seen: bool = False,
    unknown: str = "error",
    block_size: int = 256,
) -> pd.DataFrame:
    """The ``top`` items for each user: columns user, rank, item, title, score, sd, group.

    ``score`` is E[u].E[v], ``sd`` the posterior standard deviation of u.v (missing for a point estimate), ``group``
    hot, warm or cold by the item's training ratings. ``unknown`` users raise InputError ("error"), are left out
    ("drop") or get the list of the average user ("prior"). Raises InputError for unknown item ids.
    """
    import numpy as np
    import torch

    dataset = fit.dataset
    asked = list(dict.fromkeys(users))
    rows_of = dataset.user_rows(asked, unknown="error" if unknown == "error" else "prior")
    known = rows_of[rows_of >= 0]
    strangers = [user for user, row in zip(asked, rows_of.tolist(), strict=True) if row < 0]
    forbidden = torch.as_tensor(~_allowed(dataset, candidates, exclude))
    seen = None if keep_seen else fit.split.train.select(fit.split.train.observed & fit.split.train.positive).csr()
    parts = []
    for start in range(0, len(known), block_size):
        rows = known[start : start + block_size]
        scores = fit.posterior.score_block(rows).masked_fill(forbidden, -torch.inf)
        if seen is not None:
            at = seen[rows].tocoo()
            scores[torch.as_tensor(at.row).long(), torch.as_tensor(at.col).long()] = -torch.inf
        best = scores.topk(min(top, dataset.n_items))
        sd = None if fit.posterior.is_point else fit.posterior.score(rows[:, None], best.indices)[1]
        parts.append(_table(fit, dataset.user_ids[rows], best.values, best.indices, sd, "user"))
    if strangers and unknown == "prior":
        average = fit.posterior.u_loc.mean(0) @ fit.posterior.v_loc.mT
        best = average.masked_fill(forbidden, -torch.inf).topk(min(top, dataset.n_items))
        ids = np.array(strangers, dtype=object)  # in the order asked, after those that are known
        values, items = (part.expand(len(ids), -1) for part in best)
        parts.append(_table(fit, ids, values, items, None, "user"))
    return _joined(parts, "user")


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
    unit = torch.nn.functional.normalize(fit.posterior.v_loc, dim=-1)
    scores = unit[torch.as_tensor(rows)] @ unit.mT
    scores[torch.arange(len(rows)), torch.as_tensor(rows)] = -torch.inf
    scores = scores.masked_fill(torch.as_tensor(~_allowed(dataset, candidates, exclude)), -torch.inf)
    best = scores.topk(min(top, dataset.n_items))
    return _joined([_table(fit, dataset.item_ids[rows], best.values, best.indices, None, "to")], "to")


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
    fit: Fit, ids: np.ndarray, scores: torch.Tensor, items: torch.Tensor, sd: torch.Tensor | None, key: str
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    from inference.evaluate import GROUPS, item_groups

    n, length = items.shape
    chosen = items.numpy().ravel()
    groups = np.array(GROUPS, dtype=object)[item_groups(fit.split.train)[chosen]]
    titles = None if fit.dataset.titles is None else fit.dataset.titles[chosen]
    columns = {
        key: np.repeat(ids, length),
        "rank": np.tile(np.arange(1, length + 1), n),
        "item": fit.dataset.item_ids[chosen],
        "title": titles,
        "score": scores.numpy().ravel(),
        "sd": np.nan if sd is None else sd.numpy().ravel(),
        "group": groups,
    }
    table = pd.DataFrame(columns)
    return table[np.isfinite(table["score"])]


def _joined(parts: Sequence[pd.DataFrame], key: str) -> pd.DataFrame:
    import pandas as pd

    if not parts:
        return pd.DataFrame(columns=[key, "rank", "item", "title", "score", "sd", "group"])
    if len({part[key].dtype.kind for part in parts}) > 1:  # a stranger's id may be of another type
        parts = [part.assign(**{key: part[key].map(str)}) for part in parts]
    return pd.concat(parts, ignore_index=True)


def read_ids(path: str) -> list[str]:
    """Ids of a file, one a line; empty lines are skipped. Raises InputError if there is none."""
    from pyro_cvae.data.files import read_lines

    ids = [line.strip() for line in read_lines(path) if line.strip()]
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
        ),
    )
    from inference.fitting import load

    fit = load(options.run)
    candidates, exclude = (
        None if path is None else _typed(read_ids(path), fit.dataset.item_ids)
        for path in (options.candidates, options.exclude)
    )
    if options.similar:
        asked = _typed(options.similar, fit.dataset.item_ids)
        table = similar_items(
            fit, asked, options.top, candidates=candidates, exclude=exclude or (), unknown=options.unknown
        )
    else:
        named = [*options.user, *(read_ids(options.users_from) if options.users_from else [])]
        if not named:
            raise InputError("nobody is named", "give --user ID, --users-from FILE or --similar ITEM")
        table = recommend(
            fit,
            _typed(named, fit.dataset.user_ids),
            options.top,
            candidates=candidates,
            exclude=exclude or (),
            keep_seen=options.keep_seen,
            unknown=options.unknown,
        )
    _write(table, options.out) if options.out else _print(table, fit)


def _write(table: pd.DataFrame, out: str) -> None:
    temporary = Path(out).with_name(f".{Path(out).name}.new")
    try:
        table.to_csv(temporary, index=False) if out.endswith(".csv") else table.to_parquet(temporary, index=False)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{len(table)} rows: {out}")


def _print(table: pd.DataFrame, fit: Fit) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    key = table.columns[0]
    shown = Table(*(str(name) for name in table.columns), title=f"{escape(fit.dataset.name)}, {fit.options.fit.mode}")
    for row in table.itertuples(index=False):
        first, rank, item, title, score, sd, group = row
        sd_text = "" if sd != sd else f"{sd:.3f}"
        cells = (first, rank, item, "" if title is None or title != title else title, f"{score:.3f}", sd_text, group)
        shown.add_row(
            *(escape(str(cell)) for cell in cells), end_section=rank == table.loc[table[key] == first, "rank"].max()
        )
    Console().print(shown)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
