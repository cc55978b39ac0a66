"""One look for all figures: made without a display, saved in one go, a colour a mode."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cycler import cycler
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from pyro_cvae.text import visible_lines
from pyro_cvae.whole import whole_file

CYCLE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222222")
"""Of Paul Tol's bright set, which people with colour vision deficiencies can tell apart."""
RIVAL = "#999999"


def figure(n_columns: int = 1, n_rows: int = 1, width: float = 5.0, height: float = 3.6) -> tuple[Any, Any]:
    """A figure without a display and its axes, as an array (n_rows, n_columns); inches are of one axes."""
    style: dict[str, Any] = {"axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(style | {"axes.prop_cycle": cycler(color=CYCLE), "legend.frameon": False}):
        drawn = Figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
        return drawn, drawn.subplots(n_rows, n_columns, squeeze=False)


def panels(n: int, n_columns: int, width: float, height: float) -> tuple[Any, Any]:
    """The same for ``n`` panels in rows of ``n_columns``: the axes beyond them are not shown."""
    drawn, axes = figure(n_columns, -(-n // n_columns), width, height)
    for spare in axes.flat[n:]:
        spare.set_visible(False)
    return drawn, axes


def save(drawn: Any, path: str | os.PathLike[str], dpi: int = 120) -> Path:
    """Write the figure, whole or not at all; the kind is told by the name's end.

    Names of strangers' data in it are text: control characters are shown, and a dollar begins no formula.
    """
    path = Path(path)
    show_as_text(drawn)
    with whole_file(path) as new:
        drawn.savefig(new, dpi=dpi)
    return path


def show_as_text(drawn: Any) -> None:
    """Take all that is written in a figure as plain text, with control characters shown."""
    for text in drawn.findobj(Text):
        text.set_text(visible_lines(text.get_text()))
        text.set_parse_math(False)


def colors(names: Sequence[str]) -> list[str]:
    """A colour for each of some models, the same for the same order."""
    return [CYCLE[index % len(CYCLE)] for index, _ in enumerate(names)]
