"""The objective of a fit and its named terms by epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison.runs import OBJECTIVES
from analysis.plots import CYCLE, panels
from inference.algorithms.elbo import SIGNS
from inference.fitting import Fit
from pyro_cvae.errors import InputError


def traces(fit: Fit) -> Any:
    """A figure of the objective and its named terms by epoch, in nats, a panel each, a colour a phase.

    A panel holds one number alone: an ELBO and a MAP objective are different ones, and so is the objective before
    ratings are in it (phase "content"). A term is drawn as it is logged: those named kl_ are subtracted.
    """
    table = pd.DataFrame(fit.history)
    if table.empty:
        raise InputError("the fit has no history", "fit for an epoch or more")
    objective = fit.options.objective
    phases = list(dict.fromkeys(table["phase"]))
    shown = [(f"{objective_name(fit)} ({phase})", table[objective].where(table["phase"] == phase)) for phase in phases]
    terms = [name for name in table.columns if name in SIGNS or str(name).startswith("validation_")]
    shown += [(_term(name), table[name]) for name in terms if table[name].notna().any()]
    drawn, axes = panels(len(shown), 3, width=3.9, height=2.5)
    for panel, (title, values) in zip(axes.flat, shown, strict=False):
        for phase, color in zip(phases, CYCLE, strict=False):
            mine = (table["phase"] == phase) & values.notna() & np.isfinite(values)
            if mine.any():
                panel.plot(table["epoch"][mine], values[mine], ".-", color=color, markersize=4, label=phase)
        panel.set_title(title, fontsize=10)
        panel.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
    for panel in axes[-1]:
        panel.set_xlabel("epoch")
    if len(shown) > len(phases):
        axes.flat[len(phases)].legend(fontsize=8)
    return drawn


def objective_name(fit: Fit) -> str:
    """What the objective is to be called."""
    name = OBJECTIVES[fit.options.objective]
    name = f"pseudo-{name}" if fit.model.pseudo else name
    return f"{name} of a tempered fit" if fit.options.tempered else name


def _term(name: str) -> str:
    """What a term is to be called, in words."""
    words = {
        "ratings": "E log p(R | U, V)",
        "content": "E log p(X | Z)",
        "kl_u": "KL of q(U), subtracted",
        "kl_v": "KL of q(V), subtracted",
        "kl_z": "KL of q(Z | X), subtracted",
        "log_p_u": "log p(U)",
        "log_p_v": "log p(V | Z)",
        "log_p_m": "log p(topics)",
        "kl_above": "KL of q above U and V, subtracted",
        "log_p_above": "log p above U and V",
        "weights": "log p(theta)",
        "penalty": "encoder's penalty",
        "precisions": "log p of precisions",
        "validation_recall": "validation recall",
        "validation_rmse": "validation RMSE",
    }
    return words.get(name, name)
