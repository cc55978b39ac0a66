"""The folder of a comparison's files."""

from __future__ import annotations

from pathlib import Path

from analysis.comparison.figures import draw
from analysis.comparison.result import FIGURE, Comparison
from analysis.plots import save


def write(comparison: Comparison, folder: Path) -> None:
    """Write the frames as CSV files and the figure into a folder that exists."""
    for name, file in comparison.files.items():
        getattr(comparison, name).to_csv(folder / f"{file}.csv", index=False)
    save(draw(comparison), folder / FIGURE)
