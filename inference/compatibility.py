"""What goes with what, by names alone, so that a combination that cannot work is refused before torch is imported.

What is known of each is in :mod:`models.catalogue`. Classes of one's own are checked by what they say themselves, once
they are loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from models.catalogue import CONTENTS, MODELS, NETWORKS
from pyro_cvae.data.chosen import select
from pyro_cvae.errors import InputError
from pyro_cvae.trust import is_path

PRODUCT = "product"
"""The likelihood of several contents: its arguments are its parts."""
AUTO = "auto"
"""No likelihood, but the choice of one for each content by its kind; its arguments are by kind."""
BY_KIND: dict[str, Any] = {
    **{"words": "multinomial", "tokens": "tokens"},
    **{"images": "normal", "images.learned": True, "vectors": "normal", "vectors.learned": True},
}
"""What ``auto`` takes for a kind that its arguments do not name."""


def merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``auto``, those ``given`` over ``base``; one that names no kind belongs to the likelihood of words.

    A likelihood that ``given`` names in the place of another leaves the arguments of that one behind.
    """
    base, given = (
        {(key if key.partition(".")[0] in BY_KIND else f"words.{key}"): value for key, value in one.items()}
        for one in (base, given)
    )
    changed = {key for key in given if "." not in key and given[key] != base.get(key)}
    return {key: value for key, value in base.items() if key.partition(".")[0] not in changed} | given


def by_kind(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``auto`` on top of :data:`BY_KIND`; InputError where one kind has a product."""
    found = merged(BY_KIND, arguments)
    if nested := [key for key in found if "." not in key and found[key] in (PRODUCT, AUTO)]:
        problem = f"--content-likelihood.{nested[0]} is {found[nested[0]]!r}"
        raise InputError(problem, "give the likelihood of one content")
    return found


def choose(there: Mapping[str, Any], arguments: Mapping[str, Any], content: str) -> tuple[str, dict[str, Any]]:
    """The likelihood that ``auto`` stands for, and its arguments: of one content its kind's, of several their product.

    Parameters: ``there`` the contents of a data set, ``content`` the one that is asked for alone, or "".
    """
    kinds = by_kind(arguments)
    chosen = select(dict(there), None if content else list(there), content)
    parts: dict[str, Any] = {}
    for name, one in chosen.items():
        parts[name] = kinds[one.kind]
        start = one.kind + "."
        parts |= {f"{name}.{key.removeprefix(start)}": kinds[key] for key in kinds if key.startswith(start)}
    if len(chosen) > 1:
        return PRODUCT, parts
    (name,) = chosen
    return parts.pop(name), {key.removeprefix(name + "."): value for key, value in parts.items()}


def check_content(likelihood: str, arguments: Mapping[str, Any], content: str, network: str, start: str) -> None:
    """InputError unless likelihoods, network and start of the content go together, as far as their names tell."""
    if network != "auto" and network not in NETWORKS and not is_path(network):
        names = ", ".join(NETWORKS)
        raise InputError(f"--network is {network!r}, but it must be one of auto, {names}, or the path of a class")
    parts = {likelihood: likelihood}
    if likelihood == AUTO:  # any kinds: what of them the data have is looked at when they are known
        parts = {name: value for name, value in by_kind(arguments).items() if "." not in name}
    if likelihood == PRODUCT:
        parts = {name: value for name, value in arguments.items() if "." not in name}
        if not parts:
            raise InputError(
                "--content-likelihood is 'product', but it has no parts",
                "give each content its likelihood, as in --content-likelihood.tags bernoulli",
            )
        if content:
            raise InputError(f"--content is {content!r}, but the parts of a product name its contents", "leave it out")
    kinds = [kind for value in parts.values() for kind in _kinds(value)]
    if network in NETWORKS and kinds and not set(kinds) & set(NETWORKS[network].reads):
        able = [name for name, facts in NETWORKS.items() if set(facts.reads) & set(kinds)]
        raise InputError(
            f"--network is {network!r}, which does not read {', '.join(dict.fromkeys(kinds))}",
            f"use auto or {', '.join(able)}",
        )
    if network in NETWORKS:  # of contents that are not known yet: some may be of a kind that can start so
        facts = NETWORKS[network]
        read = [kind for kind in facts.reads if kind in kinds or not kinds]
        if set(read) <= set(facts.without_svd):
            _check_start(network, read, start)


def _check_start(network: str, kinds: Collection[str], start: str) -> None:
    """InputError where a network of the package cannot start as ``start`` says, of one of these kinds."""
    if start != "svd" or not (lacking := set(kinds) & set(NETWORKS[network].without_svd)):
        return
    able = [name for name, facts in NETWORKS.items() if lacking & set(facts.reads) - set(facts.without_svd)]
    remedy = " or ".join(["use whitened", *(f"--network {name}" for name in able)])
    raise InputError(f"--start is 'svd', which {network} networks of {', '.join(sorted(lacking))} do not know", remedy)


def check_model(model: str, likelihood: str, arguments: Mapping[str, Any]) -> None:
    """InputError unless the model takes the likelihood of contents, as far as the names tell."""
    able = MODELS[model].likelihoods if model in MODELS else ()
    named = {likelihood} if likelihood != AUTO else {by_kind(arguments)["words"]}
    wrong = [name for name in named if isinstance(name, str) and able and not is_path(name) and name not in able]
    if wrong:
        raise InputError(f"--model {model} is of words, not of {wrong[0]} content", "use " + " or ".join(able))


def check_kinds(
    there: dict[str, Any], likelihood: str, arguments: Mapping[str, Any], content: str, network: str, start: str
) -> None:
    """InputError unless the contents that a data set has are of kinds that likelihoods, network and start know."""
    parts = {name: value for name, value in arguments.items() if "." not in name} if likelihood == PRODUCT else None
    chosen = select(there, None if parts is None else list(parts), content)
    for name, one in chosen.items():
        value = likelihood if parts is None else parts[name]
        reads = _kinds(value)
        if reads and one.kind not in reads:
            able = [own for own, facts in CONTENTS.items() if own != PRODUCT and one.kind in facts.reads]
            problem = f"{value} is no likelihood of {one.kind}, which the content {name} is"
            raise InputError(problem, "use " + ", ".join(able))
    kinds = dict.fromkeys(one.kind for one in chosen.values())
    if network in NETWORKS and not set(kinds) & set(NETWORKS[network].reads):
        problem = f"the network {network} cannot read {' and '.join(kinds)}, only {', '.join(NETWORKS[network].reads)}"
        raise InputError(problem, "use --network auto")
    if network in NETWORKS:
        _check_start(network, kinds, start)


def check_normalised(likelihood: str, arguments: Mapping[str, Any]) -> None:
    """InputError for a content without a normaliser, or a part without one, of which there is no posterior to draw."""
    named = arguments.values() if likelihood in (PRODUCT, AUTO) else [likelihood]
    for name in named:
        if isinstance(name, str) and name in CONTENTS and CONTENTS[name].pseudo:
            problem = f"{name} content has no normaliser, and so no posterior for inference.mcmc to draw from"
            raise InputError(problem, "use another --content-likelihood, or inference.coordinate or inference.svi")


def _kinds(likelihood: Any) -> tuple[str, ...]:
    """The kinds of a likelihood that is named; none are known of a class of one's own."""
    if not isinstance(likelihood, str) or is_path(likelihood):
        return ()
    if likelihood not in CONTENTS:
        raise InputError(f"unknown content likelihood {likelihood!r}", "use a class path or " + ", ".join(CONTENTS))
    return CONTENTS[likelihood].reads
