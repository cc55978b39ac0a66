"""The figures of the page, as inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context

from analysis.comparison.figures import (
    draw_differences,
    draw_error_differences,
    draw_errors,
    draw_objective,
    draw_recall,
    draw_shrinkage,
)
from analysis.comparison.result import Comparison
from analysis.comparison.runs import OBJECTIVES
from analysis.plots import colors, figure
from analysis.reliability import Reliability, draw_bins


def page_figures(comparison: Comparison, reliable: Sequence[Reliability]) -> dict[str, list[dict[str, Any]]]:
    """Inline SVG by section, each with the words for who cannot see it."""
    explicit = comparison.explicit
    runs = ", ".join(comparison.runs["model"])
    sections: dict[str, list[dict[str, Any]]] = {"good": [], "sure": [], "reliable": [], "objective": []}

    def add(section: str, told: str, paint: Callable[..., None], **more: Any) -> None:
        number = sum(map(len, sections.values())) + 1
        drawn = svg(lambda axes: paint(axes, comparison, **more), f"f{number}", told)
        sections[section].append({"svg": drawn, "told": told})

    add(
        "good",
        f"{'RMSE' if explicit else 'Recall against the length of the list'}, of {runs} and of simple rivals; the table "
        "has the numbers.",
        draw_errors if explicit else draw_recall,
    )
    if len(comparison.runs) > 1:
        add(
            "good",
            f"Difference in {'squared error' if explicit else 'recall'} of the second run to the first, with "
            "intervals; the table has the numbers.",
            draw_error_differences if explicit else draw_differences,
        )
    if len(comparison.shrinkage):
        for column, what in (("sd_v", "of v"), ("sd_score", "of u.v")):
            told = (
                f"Posterior standard deviation {what} against the item's number of ratings; the table has the numbers."
            )
            add("sure", told, draw_shrinkage, column=column, what=what)
    if reliable:
        told = "Share of held-out positives among listed items against the recalibrated probability of it."
        sections["reliable"].append({"svg": svg(lambda axes: draw_listed(axes, reliable), "f0", told), "told": told})
    for objective in comparison.runs["objective"].unique():
        label = OBJECTIVES.get(objective, objective)
        add("objective", f"{label} in nats against the seconds of the fit.", draw_objective, objective=objective)
    return sections


def svg(paint: Callable[[Any], None], prefix: str, told: str) -> Any:
    """A figure as SVG text for an HTML page: no address in it, ids of its own, and lines in the colour of the text."""
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
    return Markup(re.sub(r"<svg[^>]*>", lambda whole: head, text, count=1))


def draw_listed(axes: Any, results: Sequence[Reliability]) -> None:
    """Share of held-out positives among listed items against what was said, in equal-mass bins with intervals."""
    top = 0.0
    for one, color in zip(results, colors([one.name for one in results]), strict=True):
        bins = one.bins[one.bins["prediction"] == "recalibrated"]
        top = max(top, draw_bins(axes, bins, fmt="o", color=color, label=one.name))
    axes.axline((0, 0), slope=1, color="#222222", lw=0.8)
    axes.set(xlim=(0, 1.05 * top), ylim=(0, 1.05 * top), xlabel="P(listed item is a held-out positive), recalibrated")
    axes.set(ylabel="share that is", title="Does it come true?")
    axes.legend(fontsize="small")
