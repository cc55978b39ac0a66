"""What a comparison of fits says, and the names of its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyro_cvae.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FRAMES = ("runs", "recall", "differences", "shrinkage", "stability")
FIGURE = "compare.png"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison says, a frame a question; models are runs and rivals, in the order given.

    Parameters:
        title: Data, split and protocol in words.
        runs: A row a run: how it was fitted, ``objective`` (its name) and ``value`` in nats, ``tempered``, ``seconds``.
        recall: A row for each model and metric: ``mean`` over users, bootstrap interval ``low`` to ``high``. Of
            explicit ratings the metrics are ``rmse``, ``mae``, ``log_density`` and coverage, over pairs.
        differences: The same of the difference to the first run, user by user: ``mean``, its standard error ``se``,
            ``low``, ``high``, shares of users ``better`` and ``worse``. Of explicit ratings the difference of the
            squared error (and others) over pairs, a user being better whose own mean is.
        shrinkage: :func:`analysis.comparison.shrinkage.shrinkage` of every run that has uncertainty, with ``artefact``.
        stability: Agreement of top lists (:func:`analysis.comparison.stability.agreement`) of two models, or of two
            posterior draws of one model, or of its draws and its means.
        histories: Of each run, the epochs that saw ratings.
        evaluations: Of each model, with the metrics of every user and of hot, warm and cold items.
        notes: What has to be said beside the numbers.
    """

    title: str
    runs: pd.DataFrame
    recall: pd.DataFrame
    differences: pd.DataFrame
    shrinkage: pd.DataFrame
    stability: pd.DataFrame
    histories: dict[str, pd.DataFrame]
    evaluations: dict[str, Any]
    notes: tuple[str, ...]
    explicit: bool = False

    @property
    def reads(self) -> bool:
        """Whether a run reads contents, so that something is known of items without ratings."""
        return bool((self.runs["contents"] != "").any())

    @property
    def files(self) -> dict[str, str]:
        """Each frame, and the name of its file: what is called recall of rankings is errors of explicit ratings."""
        return {name: "errors" if name == "recall" and self.explicit else name for name in FRAMES}


def recalls(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of recall@M alone, with M as ``cutoff``; InputError where there are none."""
    if not len(frame):
        raise InputError("one model alone has no differences", "name two runs or more, or rivals")
    chosen = frame[frame["metric"].str.startswith("recall@")]
    if not len(chosen):
        raise InputError("explicit ratings have errors, no recall@M", "use draw_errors and draw_error_differences")
    return chosen.assign(cutoff=chosen["metric"].str.partition("@")[2].astype(int))


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame as named tuples, its column ``mean`` as ``mean_``."""
    return frame.rename(columns={"mean": "mean_"}).itertuples()
