"""What was fitted, to which data, and the command that fits it again."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from analysis.comparison.runs import OBJECTIVES, facts, marks
from inference.fitting import Fit
from inference.numerals import number
from inference.options import Options
from models.build import contents_of
from pyro_cvae.runs import FREE_OPTIONS, Run


def reproduce(run: Run) -> str:
    """The command that fits the run again: the mode and every option that is not at its default, for a shell."""
    method, stored = run.config["command"], run.config["options"]
    defaults = {f.name: f.default for options in Options.classes(method) for f in fields(options)}
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


def was_given(run: Run) -> bool:
    """True where the data came from Python and not by ``--data``, so that the command alone cannot fit again."""
    named = Path(str(run.config["options"].get("data", "")))
    return run.config.get("data_name") not in (named.name, named.stem)


def fit_facts(fit: Fit, run: Run) -> dict[str, str]:
    """How a run was fitted, in words."""
    fitted, options = facts(fit, run), run.config["options"]
    versions = run.config.get("versions") or {}
    kinds = {
        "point": "points of u and v (MAP)",
        "mean-field": "mean field, diagonal Normals",
        "full": "mean field, a full covariance for each user and item",
        "structured": "structured, q(z|x) q(v|z), which passes the content's uncertainty on",
        "draws": "draws of a Markov chain",
    }
    objective = OBJECTIVES.get(fitted["objective"], fitted["objective"])
    marked = marks(fitted, "pseudo-likelihood of the content")
    precisions = fit.metrics.get("precisions") or {name: options.get(name) for name in ("lambda_u", "lambda_v")}
    return {
        "Algorithm": f"inference.{fitted['method']}, mode {fitted['mode']}",
        "Posterior": kinds.get(fitted["posterior"], fitted["posterior"]),
        "Factors": f"{fitted['factors']}",
        "Content": _content_fact(fit),
        "Ratings": _ratings_fact(fit),
        "Precisions": ", ".join(f"{name} {value:g}" for name, value in precisions.items()) + _scale_fact(fit),
        "Objective": f"{objective} {fitted['value']:,.0f} nats{marked}",
        "Epochs, seconds": f"{fitted['epochs']}, {fitted['seconds']:,.1f}",
        "Seed": f"{fitted['seed']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "Commit": str(run.config.get("commit") or "unknown"),
    }


def _scale_fact(fit: Fit) -> str:
    """By how much contents count of items without a training rating, where that is not as they are."""
    scale = fit.model.content_scale
    if scale is None:
        return ""
    unrated = scale[:-1][scale[:-1] != 1]
    of_unrated = float(unrated[0]) if len(unrated) else 1.0
    return f"; contents of unrated items count {of_unrated:.3g} times, of new ones {float(scale[-1]):.3g} times"


def _content_fact(fit: Fit) -> str:
    """What the model reads and how: the likelihood, the scaling of words and the layers, of those that it has."""
    model, prior = fit.options.model, fit.model.item_prior
    if not fit.model.has_content:
        return "the model reads none"
    read = contents_of(fit.dataset, fit.model.content, model.content)[0]
    kinds = {one.kind for one in read.values()}
    said = [", ".join(read)] + [f"{model.content_likelihood} likelihood"] * prior.generates
    said += [f"scaling {fit.options.data.scaling}"] * ("words" in kinds)
    if prior.trained:
        tied = ("tied " if model.tied else "untied ") if prior.generates and kinds & {"words", "tokens"} else ""
        said.append(f"{tied}layers {' '.join(map(str, model.hidden))}")
    return ", ".join(said)


def _ratings_fact(fit: Fit) -> str:
    """The likelihood of ratings, its own parameters, and whether there are biases."""
    model, ratings = fit.options.model, fit.model.ratings
    said = f"{model.rating_likelihood} likelihood"
    if model.rating_likelihood == "confidence-normal":
        said += f", a {model.a:g}, b {ratings.background:g}"
        said += f" n^{ratings.b_power:g}" if ratings.b_power else ""
    if ratings.explicit and (tau := ratings.noise_precision) is not None:
        said += f", noise of standard deviation {number(tau**-0.5)}"
    return said + (f", biases of precision {fit.model.lambda_b:g}" if model.biases == "on" else ", no biases")


def data_facts(fit: Fit) -> dict[str, Any]:
    """Name, sizes, split and fingerprints of the data."""
    dataset, split = fit.dataset, fit.split
    shown = {str: "{}", int: "{:,}", float: "{:.3g}"}
    facts = {name: shown[type(value)].format(value) for name, value in dataset.describe().items() if name != "name"}
    return {
        "name": dataset.name,
        "data": facts,
        "split": {name: f"{value:,}" if isinstance(value, int) else value for name, value in split.describe().items()},
        "fingerprints": {"data": dataset.fingerprint(), "split": split.fingerprint()},
    }
