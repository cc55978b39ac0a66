"""A fit, or two side by side, as one HTML page: ``python -m analysis.report RUN [RUN] [--out FILE.html]``.

What was fitted, whether the content posterior lives, how good the rankings are (of explicit ratings how far predictions
are off), how sure, and for which users; lists of a few users with what is known about each score. The page
(``report.html.j2``) needs nothing besides itself: figures are inline SVG, there is no script, no font and no address in
it, its own policy forbids to load anything, and every text from the data is escaped.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.liveness import judge
from inference.printing import show
from pyro_cvae.data import files
from pyro_cvae.errors import InputError, run_command
from pyro_cvae.text import visible_lines

if TYPE_CHECKING:
    import pandas as pd

    from analysis.compare import Comparison
    from analysis.reliability import Reliability
    from inference.evaluation.rankings import Evaluation
    from inference.fitting import Fit
    from pyro_cvae.runs import Run

RIVALS = ("popularity", "tfidf")
HISTORY = (0, 1, 2, 4, 8, 16, 32, 64)
"""Least number of ratings of each group of users."""
LEVELS = (0.9, 0.5)
NAMES = {
    "rmse": "RMSE",
    "mae": "MAE",
    "log_density": "log density, nats",
    "coverage@50": "within 50 %",
    "coverage@90": "within 90 %",
    "squared_error": "squared error",
    "absolute_error": "absolute error",
}
"""What metrics of explicit ratings are called on the page."""


@dataclass(frozen=True)
class ReportOptions:
    """Which runs the page is about, and whose lists it shows.

    Parameters:
        runs: One run folder, or two of one data set and split.
        out: The HTML file; by default report-RUN.html, after the folders of the runs, in the working folder.
        user: Users whose lists are shown, by their ids; otherwise --users of them, drawn by the seed.
        users: How many users are drawn.
        top: Length of each shown list.
        draws: Posterior draws behind the intervals of each list.
        rivals: Put truncated-SVD cosine and implicit's ALS beside popularity and TF-IDF cosine; of explicit ratings
            their mean, and mean with biases, are there anyway.
        seed: Of everything random.
        threads: Number of threads; all that torch takes by itself if not given.
        overwrite: Replace the file if it exists.
        trust: Class paths outside of the package that the runs may import; see docs/security.md.
    """

    runs: tuple[str, ...]
    out: str | None = None
    user: tuple[str, ...] = ()
    users: int = 3
    top: int = 10
    draws: int = 1000
    rivals: bool = False
    seed: int = 0
    threads: int | None = None
    overwrite: bool = False
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.runs) > 2:
            raise InputError(f"{len(self.runs)} runs are named", "a report is about one or two; see analysis.compare")
        for name, least in (("users", 0), ("top", 1), ("draws", 20), ("seed", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"--{name} is {value}, but it must be at least {least}")
        if self.out is None:
            names = "-".join(re.sub(r"[^\w.-]+", "_", Path(run).absolute().name) for run in self.runs)
            object.__setattr__(self, "out", f"report-{names}.html")
        assert self.out is not None
        if Path(self.out).suffix not in (".html", ".htm"):
            raise InputError(f"--out is {self.out!r}, but it must end in .html")
        if not Path(self.out).absolute().parent.is_dir():
            raise InputError("--out: no such folder", "make it first", path=Path(self.out).parent)
        if Path(self.out).is_dir():
            raise InputError("is a folder", "name a file", path=self.out)
        if Path(self.out).exists() and not self.overwrite:
            raise InputError("exists already", "choose another --out, or replace it with --overwrite", path=self.out)


def report(options: ReportOptions, on_step: Callable[[int, int, str], None] = lambda done, n, name: None) -> str:
    """The page as text; raises InputError where two runs are not of the same data and split."""
    from analysis.compare import CompareOptions, compare, open_runs, short_names
    from inference.evaluation.rivals import RIVALS as ALL

    about: dict[str, dict[str, Any]] = {}
    runs = dict(zip(short_names(options.runs), open_runs(options.runs, options.trust), strict=True))
    of_both: dict[str, Any] = {"seed": options.seed, "threads": options.threads, "trust": options.trust}
    asked = CompareOptions(options.runs, users=200, draws=10, **of_both)
    shared: dict[str, Any] = {}

    def on_fit(name: str, fit: Fit) -> None:
        if not shared:
            shared.update(_data_facts(fit), users=_example_rows(fit, options))
        reliable, unreliable = _listed(fit, name, options.seed)
        lists = example_lists(fit, shared["users"], options.top, options.draws, options.seed, reliable)
        about[name] = {
            "fitted": _fit_facts(fit, runs[name]),
            "command": reproduce(runs[name]),
            "given": _was_given(runs[name]),
            "content": judge(fit),
            "is_point": fit.posterior.is_point,
            "lists": lists,
            "reliable": reliable,
            "unreliable": unreliable,
        }
        shared.setdefault("examples", [_user_facts(fit, row) for row in shared["users"]])
        shared.setdefault("n_train", fit.split.train.user_counts)

    comparison = compare(asked, on_step, on_fit, tuple(ALL) if options.rivals else RIVALS)
    return render(comparison, about, shared)


def render(comparison: Comparison, about: dict[str, dict[str, Any]], shared: dict[str, Any]) -> str:
    """The page from what was found: ``about`` each run, and what is ``shared`` between them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: visible_lines(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda value: f"{value:,.0f}"
    names = list(about)
    last = comparison.evaluations[names[0]].metrics
    headline = "rmse" if comparison.explicit else [name for name in last if name.startswith("recall@")][-1]
    by_user = "squared_error" if comparison.explicit else headline
    return environment.get_template("report.html.j2").render(
        names=names,
        about=about,
        shared=shared,
        headline=NAMES.get(headline, headline),
        by_user=NAMES.get(by_user, by_user),
        explicit=comparison.explicit,
        cards={name: _cards(comparison, about[name], name, headline) for name in names},
        recall=_recall_table(comparison),
        differences=_difference_table(comparison, names),
        groups=_group_table(comparison, headline),
        spread=_spread_table(comparison),
        stability=_stability(comparison, names),
        histories=[_history_table(comparison, shared["n_train"], by_user, by) for by in ("n_train", "n_test")],
        examples=_with_strips(shared["examples"], about, names),
        reliable=_reliability_table([one["reliable"] for one in about.values() if one["reliable"]]),
        figures=_figures(comparison, [one["reliable"] for one in about.values() if one["reliable"]]),
        notes=comparison.notes,
        title=comparison.title,
    )


# --- what was fitted -------------------------------------------------------------------------------------------------


def reproduce(run: Run) -> str:
    """The command that fits the run again: the mode and every option that is not at its default, for a shell."""
    from inference.options import Options
    from pyro_cvae.runs import FREE_OPTIONS

    method, stored = run.config["command"], run.config["options"]
    defaults = {f.name: f.default for part in Options.classes(method) for f in fields(part)}
    words = ["python", "-m", f"inference.{method}"]
    for name, value in stored.items():
        flag = "--" + name.replace("_", "-")
        if name.endswith("_args"):
            for argument, given in (value or {}).items():
                words += [f"{flag.removesuffix('-args')}.{argument.replace('_', '-')}", str(given)]
            continue
        default = defaults.get(name)
        same = value == (list(default) if isinstance(default, tuple) else default)
        if name in FREE_OPTIONS or (same and name != "mode"):
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        else:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def _was_given(run: Run) -> bool:
    """True where the data came from Python and not by ``--data``, so that the command alone cannot fit again."""
    named = Path(str(run.config["options"].get("data", "")))
    return run.config.get("data_name") not in (named.name, named.stem)


def _fit_facts(fit: Fit, run: Run) -> dict[str, str]:
    from analysis.compare import OBJECTIVES, facts

    found, options = facts(fit, run), run.config["options"]
    versions = run.config.get("versions") or {}
    kinds = {
        "point": "points of u and v (MAP)",
        "mean-field": "mean field, diagonal Normals",
        "full": "mean field, a full covariance for each user and item",
        "structured": "structured, q(z|x) q(v|z), which passes the content's uncertainty on",
        "draws": "draws of a Markov chain",
    }
    marks = [" (tempered)" * found["tempered"], " (pseudo-likelihood of the content)" * found["pseudo_likelihood"]]
    precisions = fit.metrics.get("precisions") or {name: options.get(name) for name in ("lambda_u", "lambda_v")}
    return {
        "Algorithm": f"inference.{found['method']}, mode {found['mode']}",
        "Posterior": kinds.get(found["posterior"], found["posterior"]),
        "Factors": f"{found['factors']}",
        "Content": f"{found['content']} likelihood, scaling {found['scaling']}, "
        f"{'tied' if options.get('tied') else 'untied'} layers {' '.join(map(str, options.get('hidden', ())))}",
        "Ratings": _ratings_fact(fit),
        "Precisions": ", ".join(f"{name} {value:g}" for name, value in precisions.items()),
        "Objective": f"{OBJECTIVES.get(found['objective'], found['objective'])} {found['value']:,.0f} nats"
        + "".join(marks),
        "Epochs, seconds": f"{found['epochs']}, {found['seconds']:,.1f}",
        "Seed": f"{found['seed']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "Commit": str(run.config.get("commit") or "unknown"),
    }


def _ratings_fact(fit: Fit) -> str:
    """The likelihood of ratings, its own parameters, and whether there are biases."""
    from analysis.posterior import noise_precision

    model, ratings = fit.options.model, fit.model.ratings
    said = f"{model.rating_likelihood} likelihood"
    if model.rating_likelihood == "confidence-normal":
        said += f", a {model.a:g}, b {model.b:g}"
    if ratings.explicit and (tau := noise_precision(ratings)) is not None:
        said += f", noise of standard deviation {tau**-0.5:.3f}"
    return said + (f", biases of precision {fit.model.lambda_b:g}" if model.biases == "on" else ", no biases")


def _data_facts(fit: Fit) -> dict[str, Any]:
    dataset, split = fit.dataset, fit.split
    shown = {str: "{}", int: "{:,}", float: "{:.3g}"}
    facts = {name: shown[type(value)].format(value) for name, value in dataset.describe().items() if name != "name"}
    return {
        "name": dataset.name,
        "data": facts,
        "split": {name: f"{value:,}" if isinstance(value, int) else value for name, value in split.describe().items()},
        "fingerprints": {"data": dataset.fingerprint(), "split": split.fingerprint()},
    }


# --- how good, how sure, for whom ------------------------------------------------------------------------------------


def _cards(comparison: Comparison, about: dict[str, Any], name: str, headline: str) -> list[dict[str, str]]:
    from inference.evaluation.rating_rivals import RATING_RIVALS

    recall = comparison.recall[comparison.recall["metric"] == headline].set_index("model")
    row, run = recall.loc[name], comparison.runs.set_index("model").loc[name]
    beside = [model for model in recall.index if model in (*RIVALS, *RATING_RIVALS)]
    rivals = ", ".join(f"{rival} {recall.loc[rival, 'mean']:.3f}" for rival in beside)
    cards = [
        {
            "what": NAMES.get(headline, headline),
            "value": f"{row['mean']:.3f}",
            "more": f"95 %: {row['low']:.3f} to {row['high']:.3f}",
        },
        {"what": "Content", "value": about["content"]["state"], "more": _first_number(about["content"])},
    ]
    drawn = comparison.stability
    if about["is_point"]:
        cards.append({"what": "Uncertainty", "value": "none", "more": "a point estimate; --mode bayes has it"})
    else:
        drawn = drawn[(drawn["first"] == name) & (drawn["second"] == "between its draws")].iloc[0]
        more = "of a list of 50 are the same in two posterior draws"
        cards.append({"what": "Stability", "value": f"{drawn['overlap']:.0%}", "more": more})
    cards.append({"what": "Fit", "value": f"{run['seconds']:,.0f} s", "more": f"{run['epochs']} epochs"})
    if rivals:
        cards[0]["more"] += f"; {rivals}"
    return cards


def _first_number(content: dict[str, Any]) -> str:
    units = content["numbers"]["Active units (directions of the means)"]
    return f"{units} units active"


def _recall_table(comparison: Comparison) -> dict[str, Any]:
    metrics = list(comparison.recall["metric"].unique())
    rows = []
    for model, group in comparison.recall.groupby("model", sort=False):
        cells = [
            {"value": f"{mean:.3f}", "more": f"{low:.3f} – {high:.3f}"}
            for mean, low, high in zip(group["mean"], group["low"], group["high"], strict=True)
        ]
        rows.append({"name": str(model), "cells": cells, "is_run": str(model) in set(comparison.runs["model"])})
    return {"head": [NAMES.get(metric, metric) for metric in metrics], "rows": rows}


def _difference_table(comparison: Comparison, names: Sequence[str]) -> dict[str, Any] | None:
    if len(names) < 2:
        return None
    group = comparison.differences[comparison.differences["model"] == names[1]]
    columns = (group[name] for name in ("mean", "low", "high", "better", "worse"))
    cells = [
        {"value": f"{mean:+.4f}", "more": f"{low:+.4f} to {high:+.4f}", "shares": f"{better:.0%} / {worse:.0%}"}
        for mean, low, high, better, worse in zip(*columns, strict=True)
    ]
    return {
        "head": [NAMES.get(metric, metric) for metric in group["metric"]],
        "cells": cells,
        "model": names[1],
        "reference": names[0],
    }


def _group_table(comparison: Comparison, headline: str) -> dict[str, Any]:
    groups = [name for name in ("hot", "warm", "cold") if name in next(iter(comparison.evaluations.values())).groups.T]
    rows = [
        {"name": name, "cells": [f"{found.groups.loc[group, headline]:.3f}" for group in groups]}
        for name, found in comparison.evaluations.items()
    ]
    first = next(iter(comparison.evaluations.values())).groups
    counts = [f"{first.loc[g, 'n_items']:,.0f} items, {first.loc[g, 'n_pairs']:,.0f} test pairs" for g in groups]
    return {"head": groups, "counts": counts, "rows": rows}


def _spread_table(comparison: Comparison) -> dict[str, Any] | None:
    if not len(comparison.shrinkage):
        return None
    frame = comparison.shrinkage
    lows = sorted(frame["from"].unique())
    ends = frame.groupby("from")["to"].max()
    rows = []
    for model, group in frame.groupby("model", sort=False):
        by_bin, artefact = group.set_index("from"), bool(group["artefact"].any())
        for column, what in (("sd_v", "sd of v"), ("sd_score", "sd of u.v"), ("item_share", "item's share")):
            form = ".0%" if column == "item_share" else "#.3g"
            cells = [f"{by_bin[column].get(low, np.nan):{form}}" for low in lows]
            rows.append({"name": str(model), "what": what, "artefact": artefact, "cells": cells})
    counts = frame.groupby("from")["n_items"].max()
    head = ["0: content only" if low == 0 else _range(low, int(ends[low])) for low in lows]
    return {"head": head, "counts": [f"{counts[low]:,.0f} items" for low in lows], "rows": rows}


def _listed(fit: Fit, name: str, seed: int) -> tuple[Reliability | None, str]:
    """How far P(listed item is a held-out positive) can be trusted, or why that cannot be said."""
    from analysis.reliability import reliability

    if fit.model.ratings.explicit:
        return None, ""
    try:
        return reliability(fit, name, resamples=300, seed=seed), ""
    except InputError as error:
        return None, str(error)


def _reliability_table(results: Sequence[Reliability]) -> list[dict[str, Any]]:
    rows = []
    for one in results:
        shown = ("recalibrated", "clipped score", "model's own", "popularity")
        for prediction in [name for name in shown if name in one.scores.index]:
            row = one.scores.loc[prediction]
            cells = [{"value": f"{row['mean']:.3f}", "more": f"truly {one.base_rate.value:.3f}"}]
            for column in ("calibration_error", "skill", "skill_over_popularity"):
                # no interval of a mean of absolute values: resampling adds noise to each, so that it lies above
                ends = "" if column == "calibration_error" else "{:.4f} to {:.4f}"
                more = ends.format(row[f"{column}_low"], row[f"{column}_high"])
                cells.append({"value": f"{row[column]:.4f}", "more": more})
            rows.append({"name": one.name, "what": prediction, "cells": cells})
    return rows


def draw_listed(axes: Any, results: Sequence[Reliability]) -> None:
    """Share of held-out positives among listed items against what was said, in equal-mass bins with intervals."""
    from analysis.plots import colors

    top = 0.0
    for one, color in zip(results, colors([one.name for one in results]), strict=True):
        bins = one.bins[one.bins["prediction"] == "recalibrated"]
        ends = abs(bins[["low", "high"]].to_numpy().T - bins["share"].to_numpy())
        axes.errorbar(bins["mean"], bins["share"], ends, fmt="o", ms=4, lw=1, color=color, label=one.name)
        top = max(top, bins["mean"].max(), bins["high"].max())
    axes.axline((0, 0), slope=1, color="#222222", lw=0.8)
    axes.set(xlim=(0, 1.05 * top), ylim=(0, 1.05 * top), xlabel="P(listed item is a held-out positive), recalibrated")
    axes.set(ylabel="share that is", title="Does it come true?")
    axes.legend(fontsize="small")


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}–{high}"


def _stability(comparison: Comparison, names: Sequence[str]) -> list[str]:
    said = []
    for row in comparison.stability.to_dict("records"):
        share = f"{row['overlap']:.0%} of the items in common, Kendall's tau of their order {row['kendall']:.2f}"
        if row["first"] in names and row["second"] == "between its draws":
            said.append(f"{row['first']}: the lists of two posterior draws have {share}.")
        elif row["first"] in names and row["second"] in names:
            said.append(f"{row['first']} and {row['second']}: their lists have {share}.")
    return said


def by_history(evaluation: Evaluation, counts: np.ndarray, metric: str) -> pd.DataFrame:
    """Mean of a metric over groups of headline users by a count of each user: n_users, mean, standard error ``se``.

    ``counts`` (n_users,) of all users; groups are those of :data:`HISTORY`, in the index as (least, most).
    """
    import pandas as pd

    users = evaluation.per_user[~evaluation.per_user["tuning"]]
    mine = counts[users["user"].to_numpy()]
    group = np.searchsorted(HISTORY, mine, side="right") - 1
    rows = []
    for number in np.unique(group):
        values, of = users[metric].to_numpy()[group == number], mine[group == number]
        se = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        rows.append({"least": of.min(), "most": of.max(), "n_users": len(of), "mean": values.mean(), "se": se})
    return pd.DataFrame(rows).set_index(["least", "most"])


def _history_table(comparison: Comparison, n_train: np.ndarray, headline: str, by: str) -> dict[str, Any]:
    what = {"n_train": "training ratings of the user", "n_test": "held-out ratings of the user"}[by]
    tables = {}
    for name, evaluation in comparison.evaluations.items():
        counts = np.zeros(len(n_train), np.int64)
        column = "n_test" if comparison.explicit else "n_relevant"
        counts[evaluation.per_user["user"].to_numpy()] = evaluation.per_user[column]
        tables[name] = by_history(evaluation, n_train if by == "n_train" else counts, headline)
    first = next(iter(tables.values()))
    rows = [
        {"name": name, "cells": [_with_error(*pair) for pair in zip(table["mean"], table["se"], strict=True)]}
        for name, table in tables.items()
    ]
    head = [_range(*ends) for ends in first.index]
    return {"what": what, "head": head, "counts": [f"{n:,} users" for n in first["n_users"]], "rows": rows}


def _with_error(mean: float, se: float) -> str:
    return f"{mean:.3f} ± {se:.3f}" if np.isfinite(se) else f"{mean:.3f}"


# --- example users ---------------------------------------------------------------------------------------------------


def _example_rows(fit: Fit, options: ReportOptions) -> np.ndarray:
    """Rows of the users that are shown: those asked for, or a seeded few of the headline users with test items."""
    dataset, split = fit.dataset, fit.split
    if options.user:
        return dataset.user_rows(dict.fromkeys(options.user))
    counted = split.test.observed if fit.model.ratings.explicit else split.test.positive
    able = np.unique(split.test.users[counted])
    if split.tuning_users is not None:
        able = able[~split.tuning_users[able]]
    return np.sort(np.random.default_rng(options.seed).permutation(able)[: options.users])


def _user_facts(fit: Fit, row: int) -> dict[str, Any]:
    """What a reader needs to judge a user's list: the id, how much is known, and some training items."""
    dataset, train, test = fit.dataset, fit.split.train, fit.split.test
    explicit = fit.model.ratings.explicit
    items = train.items[(train.users == row) & train.observed & (train.positive | explicit)]
    return {
        "id": str(dataset.user_ids[row]),
        "n_train": len(items),
        "n_test": int(((test.users == row) & (test.observed if explicit else test.positive)).sum()),
        "verb": "rated" if explicit else "chosen",
        "chosen": [{"id": str(dataset.item_ids[j]), "title": _title(fit, j)} for j in items[:5]],
    }


def _title(fit: Fit, item: int) -> str:
    return "" if fit.dataset.titles is None else str(fit.dataset.titles[item])


def example_lists(
    fit: Fit, users: np.ndarray, top: int, draws: int, seed: int, reliable: Reliability | None = None
) -> list[list[dict[str, Any]]]:
    """The list of each user (rows), best first: id, title, group, score, and whether it is a held-out positive.

    Held-out items are candidates, as in evaluation; users without training pairs have the average user's list.
    With uncertainty also ``ends``: of each level of :data:`LEVELS` the interval of u.v by quantiles of ``draws``
    posterior draws. With ``reliable`` also ``p``, the recalibrated P that the item is a held-out positive.
    """
    from inference.recommending import recommend
    from inference.recommending.asked import posterior_of

    if not len(users):
        return []
    dataset, test, asked = fit.dataset, fit.split.test, np.unique(users)
    table = recommend(fit, dataset.user_ids[users].tolist(), top, keep_test=True)
    items = dataset.item_rows(table["item"].tolist())
    rows = dataset.user_rows(table["user"].tolist())
    came = test.observed if fit.model.ratings.explicit else test.positive
    held_out = test.users[came] * test.n_items + test.items[came]
    hits = np.isin(rows * test.n_items + items, held_out)
    quantiles = None
    if not fit.posterior.is_point:
        at = [0.5 - level / 2 for level in LEVELS] + [0.5 + level / 2 for level in LEVELS]
        place = np.searchsorted(asked, rows)
        drawn = posterior_of(fit, asked).score_draws(place, items, draws, seed)
        quantiles = np.quantile(drawn.double().numpy(), at, axis=0)
    p = None
    if reliable is not None:
        from analysis.over_users import counted_pairs

        popularity = counted_pairs(fit).item_counts[items]
        p = reliable.recalibration(table["score"].to_numpy(), table["rank"].to_numpy(), popularity)
    lists: dict[int, list[dict[str, Any]]] = {int(user): [] for user in users}
    for number, (row, item, score, group) in enumerate(zip(rows, items, table["score"], table["group"], strict=True)):
        ends = None
        if quantiles is not None:
            mine, n = quantiles[:, number], len(LEVELS)
            ends = {level: (float(mine[k]), float(mine[n + k])) for k, level in enumerate(LEVELS)}
        entry: dict[str, Any] = {"id": str(dataset.item_ids[item]), "title": _title(fit, item), "group": str(group)}
        entry["p"] = None if p is None else float(p[number])
        lists[int(row)].append(entry | {"score": float(score), "hit": bool(hits[number]), "ends": ends})
    return list(lists.values())


def _with_strips(examples: list[dict[str, Any]], about: dict[str, dict[str, Any]], names: Sequence[str]) -> list[Any]:
    """The users with their lists, each strip placed on one scale a user, 0 to 100 from its lowest to its highest."""
    placed = []
    for number, user in enumerate(examples):
        lists = {name: about[name]["lists"][number] for name in names}
        entries = [entry for found in lists.values() for entry in found]
        ends = [end for entry in entries for pair in (entry["ends"] or {}).values() for end in pair]
        values = [entry["score"] for entry in entries] + ends
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        width = (high - low) or 1.0

        def at(value: float, low: float = low, width: float = width) -> float:
            return round(100 * (value - low) / width, 2)

        for entry in entries:
            entry["at"] = at(entry["score"])
            entry["strips"] = {
                f"i{100 * level:.0f}": (at(pair[0]), at(pair[1])) for level, pair in (entry["ends"] or {}).items()
            }
            entry["told"] = "; ".join(
                [f"mean {entry['score']:.3f}"]
                + [f"{level:.0%} from {a:.3f} to {b:.3f}" for level, (a, b) in (entry["ends"] or {}).items()]
            )
        placed.append(user | {"lists": lists, "low": f"{low:.2f}", "high": f"{high:.2f}"})
    return placed


# --- figures ---------------------------------------------------------------------------------------------------------


def _figures(comparison: Comparison, reliable: Sequence[Reliability]) -> dict[str, list[dict[str, Any]]]:
    """Inline SVG by section, each with the words for who cannot see it."""
    from analysis import compare
    from analysis.compare import OBJECTIVES, draw_objective, draw_shrinkage

    explicit = comparison.explicit
    runs = ", ".join(comparison.runs["model"])
    found: dict[str, list[dict[str, Any]]] = {"good": [], "sure": [], "reliable": [], "objective": []}

    def add(section: str, told: str, paint: Callable[..., None], **more: Any) -> None:
        number = sum(map(len, found.values())) + 1
        drawn = svg(lambda axes: paint(axes, comparison, **more), f"f{number}", told)
        found[section].append({"svg": drawn, "told": told})

    add(
        "good",
        f"{'RMSE' if explicit else 'Recall against the length of the list'}, of {runs} and of simple rivals; the table "
        "has the numbers.",
        compare.draw_errors if explicit else compare.draw_recall,
    )
    if len(comparison.runs) > 1:
        add(
            "good",
            f"Difference in {'squared error' if explicit else 'recall'} of the second run to the first, with "
            "intervals; the table has the numbers.",
            compare.draw_error_differences if explicit else compare.draw_differences,
        )
    if len(comparison.shrinkage):
        for column, what in (("sd_v", "of v"), ("sd_score", "of u.v")):
            told = (
                f"Posterior standard deviation {what} against the item's number of ratings; the table has the numbers."
            )
            add("sure", told, draw_shrinkage, column=column, what=what)
    if reliable:
        told = "Share of held-out positives among listed items against the recalibrated probability of it."
        found["reliable"].append({"svg": svg(lambda axes: draw_listed(axes, reliable), "f0", told), "told": told})
    for objective in comparison.runs["objective"].unique():
        label = OBJECTIVES.get(objective, objective)
        add("objective", f"{label} in nats against the seconds of the fit.", draw_objective, objective=objective)
    return found


def svg(paint: Callable[[Any], None], prefix: str, told: str) -> Any:
    """A figure as SVG text for an HTML page: no address in it, ids of its own, and lines in the colour of the text."""
    from markupsafe import Markup, escape
    from matplotlib import rc_context

    from analysis.plots import figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        drawn, axes = figure(width=5.2, height=3.6)
        paint(axes[0, 0])
        if legend := axes[0, 0].get_legend():
            legend.set_frame_on(False)
        stream = io.StringIO()
        empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawn.savefig(stream, format="svg", transparent=True, metadata=empty)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.S)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", text).replace("xlink:href", "href")
    text = re.sub(r"#(000000|222222)\b", "currentColor", text)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None
    head = f'<svg {view[0]} role="img" aria-label="{escape(told)}">'
    return Markup(re.sub(r"<svg[^>]*>", lambda found: head, text, count=1))


# --- the command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m analysis.report``."""
    from inference.commands import parse

    (options,) = parse(
        "python -m analysis.report",
        "One HTML page about a fit, or about two side by side: what was fitted, whether the content posterior lives, "
        "how good, how sure, for which users. It needs no network.",
        (ReportOptions,),
        argv,
        positionals=("runs",),
        examples=(
            ("python -m analysis.report runs/bayes", "a page about one fit, report-bayes.html"),
            ("python -m analysis.report runs/map runs/bayes --user 42 --out report.html", "two fits, one user's lists"),
        ),
    )
    from analysis.compare import progress

    with progress() as on_step:
        page = report(options, on_step)
    assert options.out is not None
    path = Path(options.out)
    with files.whole_file(path) as new:
        new.write_text(page, encoding="utf-8")
    show(f"{len(page.encode()) / 1024:,.0f} KiB: {path}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
