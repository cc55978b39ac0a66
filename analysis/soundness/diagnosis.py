"""All diagnostics of a fit in one result, and its files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from analysis.kinds import DrawnFrom
from analysis.plots import save
from analysis.soundness.check import Check, plot_checks
from analysis.soundness.content import content_units
from analysis.soundness.objective import objective_name, traces
from analysis.soundness.pareto import good_k, need_density, pareto_k, plot_pareto_k
from analysis.soundness.predictive import predictive_checks
from analysis.soundness.slopes import TOP, slopes, told_slope
from analysis.soundness.text_checks import word_counts
from inference.fitting import Fit
from inference.liveness import judge
from inference.numerals import largest, number
from inference.posterior import content_diagnostics
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted

Finding = tuple[str, str, str]
"""What was looked at, its value, and a note."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the diagnostics say of a fit.

    Parameters:
        summary: One row a finding: ``what``, ``value`` (text), ``note``.
        pareto_k: The table of :func:`pareto_k`, or ``None`` where there is no q.
        slopes: The table of :func:`slopes`, or ``None`` of explicit ratings and where nothing is held out.
        checks: Predictive checks by source of the draws, "posterior" and "prior".
        figures: Matplotlib figures by name, as the files of the command are called.
    """

    summary: pd.DataFrame
    pareto_k: pd.DataFrame | None
    checks: dict[str, list[Check]]
    slopes: pd.DataFrame | None = None
    figures: dict[str, Any] = field(default_factory=dict)


def diagnose(
    fit: Fit,
    *,
    n_users: int = 50,
    draws: int = 1000,
    check_users: int = 200,
    check_texts: int = 100,
    check_draws: int = 200,
    seed: int = 0,
    on_part: Callable[[str], None] = lambda part: None,
) -> Diagnosis:
    """All diagnostics of a fit; of a point those that it has. No file is written.

    ``n_users`` and ``draws`` are those of :func:`pareto_k`, ``check_`` of :func:`predictive_checks`; ``on_part`` is
    called with the name of each part before it begins.
    """
    figures: dict[str, Any] = {}
    on_part("objective and content")
    rows = [*_objective_rows(fit), *_noise_rows(fit)]
    if fit.history:
        figures["traces"] = traces(fit)
    if fit.model.item_prior.latent:
        _, figures["content"] = content_units(fit)
    rows += _content_rows(fit, seed)
    on_part("scores of hot, warm and cold items")
    by_group = slopes(fit)
    rows += [] if by_group is None else _slope_rows(by_group)
    table = None
    try:
        need_density(fit)
    except InputError as error:
        rows.append(("Pareto k", "-", str(error)))
    else:
        on_part("Pareto k")
        table = pareto_k(fit, n_users=n_users, draws=draws, seed=seed)
        figures["pareto-k"] = plot_pareto_k(table, good_k(draws))
        rows += _pareto_rows(fit, table, good_k(draws))
    checks: dict[str, list[Check]] = {}
    sources: tuple[DrawnFrom, ...] = ("prior",) if fit.posterior.is_point else get_args(DrawnFrom)
    for source in sources:
        on_part(f"{source} predictive checks")
        checks[source] = predictive_checks(
            fit, source, n_users=check_users, n_texts=check_texts, draws=check_draws, seed=seed
        )
        figures[f"{source}-checks"] = plot_checks(checks[source], f"{source} predictive checks")
        rows += [
            (f"{source}: {check.name}", str(check), check.meaning if source == "posterior" or table is None else "")
            for check in checks[source]
        ]
    if fit.model.has_content and word_counts(fit) is None:
        why = "this content is no table of word counts, and only those have predictive checks"
        rows.append(("texts", "-", why if fit.model.item_prior.generates else "the model draws no contents to check"))
    summary = pd.DataFrame(rows, columns=["what", "value", "note"])
    return Diagnosis(summary, table, checks, by_group, figures)


def _objective_rows(fit: Fit) -> list[Finding]:
    """The last value of the objective, under its right name."""
    if not fit.history:
        return []
    name, last = fit.options.objective, fit.history[-1]
    note = "the untempered sum of a tempered fit, no bound" if fit.options.tempered else ""
    if fit.model.pseudo:
        note = "with a content likelihood without a normaliser: no bound on any evidence"
    return [(objective_name(fit), f"{last[name]:,.1f} nats", note)]


def _noise_rows(fit: Fit) -> list[Finding]:
    """The noise of explicit ratings, and the biases where there are any."""
    rows = []
    if fit.model.ratings.explicit and (tau := fit.model.ratings.noise_precision) is not None:
        rows.append(("noise of a rating", number(tau**-0.5), "standard deviation, in units of the ratings"))
    for side, (loc, _) in fit.posterior.biases().items():
        note = "mean and standard deviation over them"
        if side == "item":
            note += ", the global mean included"
        both = float(loc.mean()), float(loc.std(correction=0))
        rows.append((f"{side} biases", ", ".join(number(one, 3, largest(both)) for one in both), note))
    return rows


def _content_rows(fit: Fit, seed: int) -> list[Finding]:
    """Whether the content lives, and the numbers that say so."""
    verdict = judge(fit)
    if not fit.model.item_prior.latent:
        return [("content", verdict["state"], verdict["words"])]
    content = content_diagnostics(fit.posterior.z_loc, fit.posterior.z_scale, seed=seed)
    n_items, n_factors = fit.posterior.z_loc.shape
    active = f"{content['active_units']:.0f} of {n_factors}"
    information = f"{content['mutual_information']:.2f} nats"
    return [
        ("content", verdict["state"], verdict["words"]),
        ("KL(q(z|x) || p(z))", f"{content['kl']:.2f} nats", "mean over items; 0 says that the content is dead"),
        ("active units", active, "directions of E[z] with variance above 0.01"),
        ("I(x; z)", information, f"at most log of {counted(n_items, 'item')}, {np.log(n_items):.2f}"),
    ]


def _slope_rows(table: pd.DataFrame) -> list[Finding]:
    """What a score and a place in the list are worth, by group of items."""
    rows = []
    for name, row in table.iterrows():
        scaled = f", whose content counts {row['scale']:.2f} times" if row["scale"] != 1 else ""
        note = f"held-out ratings on score, through 0, {counted(row['n_pairs'], 'test pair')}{scaled}"
        rows.append((f"{name} items: slope", told_slope(row), note))
        if not np.isnan(row["hit"]):
            note = f"are held out, of the {row['listed']:.0%} of the top {TOP} that {name} items have"
            rows.append((f"{name} items: listed", f"{row['hit']:.1%}", note))
    return rows


def _pareto_rows(fit: Fit, table: pd.DataFrame, limit: float) -> list[Finding]:
    """How many users have a k below the limit, and how far q(u) is from its target."""
    good = (table["k"] < limit).mean()
    given = "one draw from q" if fit.model.ratings.noise_precision is None else "drawn from q"
    share = f"{good:.0%} of {counted(len(table), 'user')}"
    return [
        (f"Pareto k below {limit:.2f}", share, "q(u) against p(u | R, V), V " + given),
        ("KL(q(u) || p(u | R, V))", f"{table['kl'].median():.2f} nats", "median over the same users"),
    ]


def write(diagnosis: Diagnosis, out: str | Path) -> Path:
    """Figures as PNG, summary, Pareto k, slopes and checks as CSV, into a folder that appears whole."""
    out = Path(out)
    temporary = out.with_name(f".{out.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, drawn in diagnosis.figures.items():
            save(drawn, temporary / f"{name}.png")
        diagnosis.summary.to_csv(temporary / "summary.csv", index=False)
        if diagnosis.pareto_k is not None:
            diagnosis.pareto_k.to_csv(temporary / "pareto-k.csv", index=False)
        if diagnosis.slopes is not None:
            diagnosis.slopes.to_csv(temporary / "slopes.csv")
        rows = [
            (source, check.name, check.observed.mean(), check.replicated.mean(), check.replicated.std(), check.p)
            for source, checks in diagnosis.checks.items()
            for check in checks
        ]
        columns = ["source", "check", "data", "drawn", "drawn sd", "p"]
        pd.DataFrame(rows, columns=columns).to_csv(temporary / "checks.csv", index=False)
        if out.exists():
            for path in temporary.iterdir():
                path.replace(out / path.name)
        else:
            temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out
