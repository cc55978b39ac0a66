"""What is compared: a method is a preset with some options changed, or a rival without a preset.

The names of a part are those of its figure; two methods with the same options are one fit.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.kinds import Part
from inference import presets
from pyro_cvae.errors import InputError

log = logging.getLogger("pyro_cvae")


@dataclass(frozen=True)
class Method:
    """One line of a figure.

    Parameters:
        name: What ``--methods`` and the results call it.
        label: What figures and tables call it.
        preset: Of ``inference.coordinate --mode map``; without one it is a rival of this name.
        changes: Options that win over the preset.
        family: Methods of one family share a colour.
        line: How it is drawn, as matplotlib says it.
        at: Its place on the horizontal axis, in a figure over settings.
        beside: Methods from which its differences are taken, by name.
    """

    name: str
    label: str
    preset: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    line: str = "-"
    at: float | None = None
    beside: tuple[str, ...] = ()


BOTH = ("paper", "paper-alive", "best")
"""The CVAE, from which the differences of figures 4 and 5 are taken."""
DRAWN: dict[str, dict[str, Any]] = {
    "paper": {"content_likelihood": "pseudo-bernoulli", "content_likelihood_args": {"subsample": 1500}},
    "cdl-paper": {"content_likelihood_args": {"lambda_x": 1000.0, "subsample": 1500}},
}
"""Words that a step looks at, drawn at random: an unbiased estimate of the same objective at a fifth of the time."""


GIVEN: dict[str, dict[str, Any]] = {"best": {"tune": 0}}
"""Of the CVAE the settings of the preset, as of all other methods: none of them tunes itself on each split."""


def _pair(family: str, papers: str, ours: str) -> tuple[Method, Method]:
    changes = DRAWN.get(papers, {})
    return (
        Method(papers, f"{family}, the paper's settings", papers, changes, family, beside=BOTH),
        Method(ours, f"{family}, validated", ours, GIVEN.get(ours, {}), family, line="--", beside=BOTH),
    )


COMPARED: tuple[Method, ...] = (
    *_pair("CVAE", "paper", "best"),
    Method("paper-alive", "CVAE, the paper's networks, alive", "paper-alive", family="CVAE", line="-.", beside=BOTH),
    *_pair("CDL", "cdl-paper", "cdl"),
    *_pair("CTR", "ctr-paper", "ctr"),
    *_pair("DeepMusic", "deepmusic-paper", "deepmusic"),
    Method("svd-300-prior", "SVD as prior of v", line=":", family="SVD as prior of v", beside=BOTH),
    Method("tfidf", "TF-IDF cosine", line=":", family="TF-IDF cosine", beside=BOTH),
    Method("svd-50", "SVD cosine", line=":", family="SVD cosine", beside=BOTH),
    Method("als", "ALS, no content", line=":", family="ALS", beside=BOTH),
    Method("popularity", "popularity", line=":", family="popularity", beside=BOTH),
)
"""Figures 4 and 5."""

LAMBDA_R = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
JOINT, HELD, CONTENT = "joint training", "networks held", "content alone, as many epochs"
EPOCHS, PRETRAIN_EPOCHS, LEARNING_RATE = 10, 24, 0.001
"""Of figure 6, in which the epochs of the content have this step too."""
TRAINED: dict[str, dict[str, Any]] = {
    JOINT: {"pretrain_epochs": PRETRAIN_EPOCHS, "epochs": EPOCHS, "learning_rate": LEARNING_RATE},
    HELD: {"pretrain_epochs": PRETRAIN_EPOCHS, "epochs": EPOCHS, "learning_rate": 0.0},
    CONTENT: {"pretrain_epochs": PRETRAIN_EPOCHS + EPOCHS, "epochs": EPOCHS, "learning_rate": 0.0},
}
"""Joint training and its controls: held after the content, and after as many epochs of content as the joint fit has."""
SHORT = {JOINT: "joint", HELD: "held", CONTENT: "content"}


def lambda_r_method(training: str, lambda_r: float) -> Method:
    """The paper's networks with a content that lives and one lambda_r, trained jointly or as a control."""
    name = f"{SHORT[training]}-lambda-r-{lambda_r:g}"
    changes = {"lambda_r": lambda_r, **TRAINED[training]}
    line = {JOINT: "-", HELD: "--", CONTENT: ":"}[training]
    controls = tuple(f"{SHORT[control]}-lambda-r-{lambda_r:g}" for control in (HELD, CONTENT))
    beside = controls if training == JOINT else ()
    label = f"{SHORT[training]}, lambda_r {lambda_r:g}"
    return Method(name, label, "paper-alive", changes, training, line, lambda_r, beside)


OVER_LAMBDA_R = tuple(lambda_r_method(training, lambda_r) for lambda_r in LAMBDA_R for training in TRAINED)
"""Figure 6."""

FACTORS = (5, 10, 25, 50, 100, 200)
WIDE = (500, 1000)


def factors_method(factors: int) -> Method:
    """The paper's networks with a content that lives and some number of factors, the layer next to them as wide."""
    family = "CVAE, the paper's networks, alive"
    changes = {"factors": factors, "hidden": (200, max(100, factors))}
    return Method(f"k-{factors}", f"CVAE, K = {factors}", "paper-alive", changes, family, "-", factors, ("k-50",))


def wide_method(factors: int) -> Method:
    """The CVAE of the preset ``best`` with some number of factors, and one layer as wide."""
    changes = {"factors": factors, "hidden": (factors,), **GIVEN["best"]}
    family = "CVAE, validated"
    return Method(
        f"best-k-{factors}", f"{family}, K = {factors}", "best", changes, family, "--", factors, ("best-k-500",)
    )


OVER_FACTORS = (
    *map(factors_method, FACTORS),
    Method("k-50-untied", "CVAE, K = 50, weights untied", "paper-alive", {"tied": False}, beside=("k-50",)),
    *map(wide_method, WIDE),
)
"""Figure 7; the fit with untied weights is not drawn, and is for a sentence of section 3.3."""

LISTED = ("best", "cdl")
"""Whose ten best items table 1 has: the CVAE and CDL, each with validated settings."""

METHODS: dict[Part, tuple[Method, ...]] = {
    "fig4": COMPARED,
    "fig5": COMPARED,
    "fig6": OVER_LAMBDA_R,
    "fig7": OVER_FACTORS,
    "table1": tuple(method for method in COMPARED if method.name in LISTED),
}
PER_USER: dict[Part, tuple[int, ...]] = {"fig4": (1,), "fig5": (10,), "fig6": (1, 10), "fig7": (1, 10), "table1": (1,)}
"""Training items a user."""


def methods_of(part: Part, wanted: Collection[str] = ()) -> tuple[Method, ...]:
    """The methods of a part, or those of them that are wanted; one whose preset there is not is left out."""
    there = presets.names()
    chosen = (method for method in METHODS[part] if not wanted or method.name in wanted)
    return tuple(method for method in chosen if not method.preset or method.preset in there)


def tell_missing(parts: Sequence[Part], wanted: Collection[str]) -> None:
    """Say in the log which methods are left out."""
    asked = {method.name for part in parts for method in METHODS[part] if not wanted or method.name in wanted}
    there = {method.name for part in parts for method in methods_of(part, wanted)}
    if asked - there:
        log.warning("left out, since there is no preset of the name: %s", ", ".join(sorted(asked - there)))


def check_methods(parts: Sequence[Part], wanted: Collection[str]) -> None:
    """InputError where a wanted method is one of no part that is computed."""
    known = list(dict.fromkeys(method.name for part in parts for method in METHODS[part]))
    for name in wanted:
        if name not in known:
            raise InputError(f"--methods has {name!r}, which {' and '.join(parts)} have not", "use " + ", ".join(known))
