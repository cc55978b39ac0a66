"""Networks for a content of any form: the pair of that kind, or of that name or class path; of several a product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.catalogue import NETWORKS
from models.making import class_of, made
from models.networks.base import Decoder, Encoder, NetworkPair
from models.networks.product import ProductDecoder, ProductEncoder
from models.returns import wrong
from pyro_cvae.errors import InputError

if TYPE_CHECKING:
    from models.contents.base import ContentLikelihood
    from models.rows import Form, Forms

AUTO = "auto"
NOTHING_ELSE: Mapping[str, str] = {}


def make_networks(
    form: Forms, likelihood: ContentLikelihood, options: Any, usual: Mapping[str, str] = NOTHING_ELSE
) -> tuple[Encoder, Decoder]:
    """Encoder and decoder for content of this form at a random start; of several contents a product.

    ``options`` are the model's: ``network`` names a pair, or its class, or is "auto"; ``network_args`` are the
    arguments of that class. ``usual`` names what "auto" stands for, by kind, where that is not the package's default.
    Raises InputError where it cannot read the content.
    """
    name, arguments = options.network, dict(getattr(options, "network_args", {}))
    if not isinstance(form, dict):
        return _made(form, _named(name, form, usual), arguments, likelihood.param_names, options)
    read = [one for one in form.values() if name == AUTO or one.kind in reads(name)]
    if not read:
        raise _unreadable(name, " and ".join(dict.fromkeys(one.kind for one in form.values())))
    free = _Free(options)
    experts: dict[str, Encoder] = {}
    decoders: dict[str, Decoder] = {}
    for content, part in likelihood.each():
        own: tuple[str, dict[str, Any]] = (name, arguments) if form[content] in read else (AUTO, {})
        pair = _named(own[0], form[content], usual)
        experts[content], decoders[content] = _made(form[content], pair, own[1], part.param_names, free)
    return ProductEncoder(experts, options.factors, options.radius), ProductDecoder(decoders)


@dataclass(frozen=True)
class _Free:
    """The options of an expert, whose means are of any length: that of their product is given."""

    options: Any
    radius: float = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.options, name)


def pair_class(name: str) -> type[NetworkPair]:
    """The package's pair of that name, or the class of a path ``module.Class``; InputError if unknown."""
    return class_of("network", name)


def reads(name: str) -> tuple[str, ...]:
    """Kinds of content that the pair of that name reads; InputError for an unknown name."""
    return pair_class(name).reads


def _made(
    form: Form, name: str, arguments: Mapping[str, Any], heads: tuple[str, ...], options: Any
) -> tuple[Encoder, Decoder]:
    if form.kind not in reads(name):
        raise _unreadable(name, form.kind)
    pair: NetworkPair = made("network", name, arguments)
    both = pair.make(form, heads, options)
    if not (isinstance(both, tuple) and list(map(isinstance, both, (Encoder, Decoder))) == [True, True]):
        wrong(pair, "make", both, "an Encoder and a Decoder of models.networks")
    encoder, decoder = both
    encoder.pair = pair
    return encoder, decoder


def _named(name: str, form: Form, usual: Mapping[str, str]) -> str:
    """What "auto" stands for, for content of this form; any other name stays."""
    if name != AUTO:
        return name
    return usual.get(form.kind) or [own for own, facts in NETWORKS.items() if form.kind in facts.reads][-1]


def _unreadable(name: str, kinds: str) -> InputError:
    return InputError(f"the network {name} cannot read {kinds}, only {', '.join(reads(name))}", "use --network auto")
