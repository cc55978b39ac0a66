"""Predictive checks: data drawn from posterior or prior beside the data themselves."""

from __future__ import annotations

from typing import get_args

from analysis.kinds import DrawnFrom
from analysis.soundness.check import Check
from analysis.soundness.rating_checks import rating_checks
from analysis.soundness.text_checks import text_checks
from inference.fitting import Fit
from pyro_cvae.errors import InputError


def predictive_checks(
    fit: Fit,
    source: DrawnFrom = "posterior",
    *,
    n_users: int = 200,
    n_texts: int = 100,
    draws: int = 200,
    seed: int = 0,
) -> list[Check]:
    """Checks of ratings and texts against what the model would have given, ``source`` "posterior" or "prior".

    Of ``n_users`` users (evenly over their numbers of ratings) the stored cells, their held-out pairs and some cells
    that are neither; of ``n_texts`` items (evenly over theirs) the texts. A drawn R_ij comes from the run's likelihood,
    for the paper N(u_i.v_j, 1 / C_ij), with the exposure of the data. Where zeros are part of the data, as of Bernoulli
    and Poisson, whole rows of users are drawn, since "stored" then is a value, not an exposure. A drawn text has the
    length of its own; contents other than words have no check. Of MCMC no more draws are taken than are stored. Raises
    InputError for the posterior of a point; its prior can be asked for.
    """
    if source not in get_args(DrawnFrom):
        raise InputError(f"{source!r} is no source of draws", "use " + " or ".join(get_args(DrawnFrom)))
    if source == "posterior" and fit.posterior.is_point:
        raise InputError("a MAP fit is a point: it has no posterior to check", "fit with --mode bayes")
    if source == "posterior" and hasattr(fit.posterior, "chains"):  # of MCMC no more than there are, all chains alike
        n_chains, n_stored = fit.posterior.chains("u").shape[:2]
        draws = n_chains * min(max(1, draws // n_chains), n_stored)
    return [*rating_checks(fit, source, n_users, draws, seed), *text_checks(fit, source, n_texts, draws, seed)]
