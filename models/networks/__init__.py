"""Networks: encoders q(z | x) and decoders of p(x | z), in pairs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from models.networks.base import Decoder, Encoder
from pyro_cvae.errors import InputError

if TYPE_CHECKING:
    from models.contents.base import ContentLikelihood
    from models.rows import Form, Forms

NAMES = {
    "mlp": "models.networks.mlp",
    "convolutional": "models.networks.convolutional",
    "recurrent": "models.networks.recurrent",
}
"""The package's pairs: name on the command line, and the module whose ``pair`` makes one.

The networks of a kind of content are, by default, the last pair here that reads it.
"""

__all__ = ["NAMES", "Decoder", "Encoder", "make_networks"]


def make_networks(form: Forms, likelihood: ContentLikelihood, options: Any) -> tuple[Encoder, Decoder]:
    """Encoder and decoder for content of this form at a random start; of several contents a product.

    ``options`` are the model's: ``network`` names a pair or is "auto". Raises InputError where it cannot read it.
    """
    if not isinstance(form, dict):
        return _module(form, options.network).pair(form, likelihood.param_names, options)
    from models.contents.product import Product
    from models.networks.product import ProductDecoder, ProductEncoder

    assert isinstance(likelihood, Product)
    read = [one for one in form.values() if options.network == "auto" or one.kind in reads(options.network)]
    if not read:
        raise _unreadable(options.network, " and ".join(dict.fromkeys(one.kind for one in form.values())))
    pairs = {
        name: _module(form[name], options.network if form[name] in read else "auto").pair(
            form[name], part.param_names, options
        )
        for name, part in likelihood.each()
    }
    experts, decoders = ({name: pair[place] for name, pair in pairs.items()} for place in (0, 1))
    return ProductEncoder(experts, options.factors, options.radius), ProductDecoder(decoders)


def reads(name: str) -> tuple[str, ...]:
    """Kinds of content that the pair of that name reads; InputError for an unknown name."""
    if name not in NAMES:
        raise InputError(f"there is no network {name!r}", "use auto or one of " + ", ".join(NAMES))
    return importlib.import_module(NAMES[name]).READS


def _module(form: Form, name: str) -> Any:
    reading = [own for own in NAMES if form.kind in reads(own)]
    chosen = reading[-1] if name == "auto" else name
    if form.kind not in reads(chosen):
        raise _unreadable(chosen, form.kind)
    return importlib.import_module(NAMES[chosen])


def _unreadable(name: str, kinds: str) -> InputError:
    return InputError(f"the network {name} cannot read {kinds}, only {', '.join(reads(name))}", "use --network auto")
