"""The page itself: what is gathered of each run, and the template that it is put into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.comparison.options import CompareOptions
from analysis.comparison.result import Comparison
from analysis.comparison.runs import open_runs, short_names
from analysis.comparison.shrinkage import can_be_structured
from analysis.comparison.side_by_side import compare
from analysis.page.examples import example_lists, example_rows, user_facts, with_strips
from analysis.page.facts import data_facts, fit_facts, reproduce, was_given
from analysis.page.figures import page_figures
from analysis.page.options import ReportOptions
from analysis.page.tables import (
    NAMES,
    RIVALS,
    cards,
    difference_table,
    group_table,
    history_table,
    recall_table,
    reliability_table,
    slope_table,
    spread_table,
    stability_lines,
)
from analysis.reliability import Reliability, reliability
from analysis.soundness.slopes import slopes
from inference.evaluation.rivals import RIVALS as ALL
from inference.fitting import Fit
from inference.liveness import SHOUTED, judge
from pyro_cvae.errors import InputError
from pyro_cvae.text import visible_lines


def report(options: ReportOptions, on_step: Callable[[int, int, str], None] = lambda done, n, name: None) -> str:
    """The page as text; raises InputError where two runs are not of the same data and split."""
    about: dict[str, dict[str, Any]] = {}
    runs = dict(zip(short_names(options.runs), open_runs(options.runs, options.trust), strict=True))
    of_both: dict[str, Any] = {"seed": options.seed, "threads": options.threads, "trust": options.trust}
    asked = CompareOptions(options.runs, users=200, draws=10, **of_both)
    shared: dict[str, Any] = {}

    def on_fit(name: str, fit: Fit) -> None:
        if not shared:
            shared.update(data_facts(fit), users=example_rows(fit, options))
        reliable, unreliable = _listed(fit, name, options.seed)
        lists = example_lists(fit, shared["users"], options.top, options.draws, options.seed, reliable)
        about[name] = {
            "fitted": fit_facts(fit, runs[name]),
            "command": reproduce(runs[name]),
            "given": was_given(runs[name]),
            "model": type(fit.model).__name__,
            "content": judge(fit),
            "latent": fit.model.item_prior.latent,
            "structured": can_be_structured(fit),
            "is_point": fit.posterior.is_point,
            "lists": lists,
            "slopes": slopes(fit),
            "reliable": reliable,
            "unreliable": unreliable,
        }
        shared.setdefault("examples", [user_facts(fit, row) for row in shared["users"]])
        shared.setdefault("n_train", fit.split.train.user_counts)

    comparison = compare(asked, on_step, on_fit, tuple(ALL) if options.rivals else RIVALS)
    return render(comparison, about, shared)


def render(comparison: Comparison, about: dict[str, dict[str, Any]], shared: dict[str, Any]) -> str:
    """The page as text, from what is known ``about`` each run and what is ``shared`` between them."""
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
    reliable = [one["reliable"] for one in about.values() if one["reliable"]]
    return environment.get_template("report.html.j2").render(
        names=names,
        shouted=SHOUTED,
        structured=any(one["structured"] for one in about.values()),
        models=", ".join(dict.fromkeys(about[name]["model"] for name in names)),
        about=about,
        shared=shared,
        headline=NAMES.get(headline, headline),
        by_user=NAMES.get(by_user, by_user),
        explicit=comparison.explicit,
        cards={name: cards(comparison, about[name], name, headline) for name in names},
        recall=recall_table(comparison),
        differences=difference_table(comparison, names),
        groups=group_table(comparison, headline),
        slopes=slope_table(about),
        spread=spread_table(comparison),
        stability=stability_lines(comparison, names),
        histories=[history_table(comparison, shared["n_train"], by_user, by) for by in ("n_train", "n_test")],
        examples=with_strips(shared["examples"], about, names),
        reliable=reliability_table(reliable),
        figures=page_figures(comparison, reliable),
        notes=comparison.notes,
        title=comparison.title,
    )


def _listed(fit: Fit, name: str, seed: int) -> tuple[Reliability | None, str]:
    """How far P(listed item is a held-out positive) can be trusted, or why that cannot be said."""
    if fit.model.ratings.explicit:
        return None, ""
    try:
        return reliability(fit, name, resamples=300, seed=seed), ""
    except InputError as error:
        return None, error.problem  # its remedy is of another command's options
