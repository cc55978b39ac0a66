"""Several contents of an item at once, any of which it may lack: the product of their likelihoods."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from models.contents.base import ContentDistribution, ContentLikelihood, Params
from models.contents.making import content_likelihood
from models.networks.base import Decoder, Start
from models.networks.product import ProductDecoder
from models.rows import AnyRows, PartRows
from pyro_cvae.errors import InputError


class Product(ContentLikelihood):
    """log p(x_j | z_j) = sum over the parts m that item j has of log p_m(x_jm | z_j).

    ``parts`` are the likelihoods by the names of the contents they are of: each a name of the package's own, a class
    path or an instance; ``name.argument`` gives an argument of that part's constructor. The heads are ``name.head``. A
    part that an item lacks says nothing of it: its term is 0.

    Where it is ``balanced``, the terms have factors w_m, the buffer ``weights`` (n_parts,), once :meth:`balance` has
    found them: a tempered likelihood, whose objective is no bound. Otherwise ``weights`` is ``None``.
    """

    several: ClassVar[bool] = True
    balanced: bool = False

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        arguments: dict[str, dict[str, Any]] = {}
        for key in [key for key in parts if "." in key]:
            name, _, argument = key.partition(".")
            arguments.setdefault(name, {})[argument] = parts.pop(key)
        if unknown := [name for name in arguments if name not in parts]:
            raise InputError(
                f"product has an argument of {unknown[0]!r}, which is no part of it", "name its likelihood"
            )
        if not parts:
            raise InputError(
                "product has no parts",
                "give each content a likelihood, --content-likelihood.tags bernoulli for instance",
            )
        made = {}
        for name, part in parts.items():
            made[name] = (
                part if isinstance(part, ContentLikelihood) else content_likelihood(part, arguments.get(name, {}))
            )
            if isinstance(made[name], Product):
                raise InputError(f"the part {name} of the product is a product itself", "name its parts one by one")
        self.parts = nn.ModuleDict(made)
        self.weights: Tensor | None
        self.register_buffer("weights", None)

    @property
    def param_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Heads of all parts, ``name.head``."""
        return tuple(f"{name}.{head}" for name, part in self.each() for head in part.param_names)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Kinds of content of the parts."""
        return tuple(dict.fromkeys(kind for _, part in self.each() for kind in part.reads))

    @property
    def pseudo(self) -> bool:  # type: ignore[override]
        """True if any part has no normaliser, or the parts are weighted."""
        return self.balanced or any(part.pseudo for _, part in self.each())

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """True if the estimates of all parts are."""
        return all(part.unbiased for _, part in self.each())

    def each(self) -> list[tuple[str, ContentLikelihood]]:
        """The parts by name."""
        return list(self.parts.items())  # type: ignore[arg-type]

    def distribution(self, **params: Tensor) -> Distribution:
        """None: parts that are not there have no place in a dense row."""
        raise NotImplementedError("a product has no dense distribution; ask its parts")

    def log_prob(self, obs: PartRows, params: Params) -> Tensor:
        """Log p(x_j | z_j) in nats, (n_items,); parameters as :meth:`ProductDecoder.given` gives them."""
        found = {name: part.log_prob(obs.parts[name], of_part(params, name)) for name, part in self.each()}
        return added(weighted(found, self.weights), obs)

    def check(self, obs: PartRows) -> None:
        """Every part must be in its support."""
        for name, part in self.each():
            try:
                part.check(obs.parts[name])
            except InputError as error:
                raise InputError(f"{name}: {error.problem}", error.remedy) from None

    def sample(self, params: Params, like: PartRows) -> PartRows:
        """A draw of the parts that are there in ``like``; parameters as for :meth:`log_prob`."""
        parts = {name: part.sample(of_part(params, name), like.parts[name]) for name, part in self.each()}
        return PartRows(parts, like.present)  # type: ignore[arg-type]

    def conditional(self, decoder: Decoder, z: Tensor, content: PartRows, sampled: bool) -> TorchDistribution:
        """The parts' own conditionals, of which some may look at drawn features only."""
        if not isinstance(decoder, ProductDecoder):
            raise TypeError("a product needs a ProductDecoder")
        parts = {
            name: part.conditional(decoder.part(name), z[content.items(name)], content.parts[name], sampled)
            for name, part in self.each()
        }
        return JointContent(parts, content, self.weights)

    def balance(self, encoder: Any, decoder: ProductDecoder, start: Start) -> None:
        """Weigh the parts so that each pulls z as hard as the hardest of them at the networks' start.

        g_m is the root mean square length of d log p(x_jm | z_j) / d z_j at z_j the encoder's mean, over the items that
        have the part, of a sample; w_m = max(g) / g_m. A long text does not drown a few tags, nor pixels a title.
        Cf. Chen et al., GradNorm, ICML 2018. Parts that pull at nothing keep 1.
        """
        chosen = start.some(BALANCED_BY)
        content, inputs = start.content.select(chosen), start.inputs.select(chosen)
        pulls = torch.zeros(len(self.parts), dtype=torch.float64)
        for place, (name, part) in enumerate(self.each()):
            items = content.items(name)
            if not len(items):
                continue
            with torch.enable_grad():
                z = encoder(inputs)[0].detach()[items].requires_grad_()
                rows = content.parts[name]
                total = part.conditional(decoder.part(name), z, rows, False).log_prob(rows).sum()
                (slope,) = torch.autograd.grad(total, z)
            pulls[place] = slope.double().square().sum(1).mean().sqrt()
        able = pulls > 0
        if able.any():
            found = torch.where(able, pulls.max() / pulls.clamp(min=1e-30), torch.ones_like(pulls))
            self.weights = found.to(z)


BALANCED_BY = 512
"""Items by which parts are weighed."""


def weighted(terms: dict[str, Tensor], weights: Tensor | None) -> dict[str, Tensor]:
    """Terms of the parts, each times its factor, if there are any."""
    if weights is None:
        return terms
    return {name: weight * term for (name, term), weight in zip(terms.items(), weights, strict=True)}


def of_part(params: Params, name: str) -> Params:
    """The parameters of one part, by their own names."""
    start = name + "."
    return {key.removeprefix(start): value for key, value in params.items() if key.startswith(start)}


def added(terms: dict[str, Tensor], content: PartRows) -> Tensor:
    """Terms of the parts' own rows, summed by item, (n_items,); 0 for one that has none."""
    total = next(iter(terms.values())).new_zeros(len(content))
    for name, term in terms.items():
        total = total.index_add(0, content.items(name), term)
    return total


class JointContent(TorchDistribution):
    """Several contents given the same z, independent of one another: values are :class:`PartRows`."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, parts: dict[str, TorchDistribution], like: PartRows, weights: Tensor | None = None) -> None:
        self.parts, self.like, self.weights = parts, like, weights
        super().__init__(torch.Size([len(like)]), torch.Size(like.shape[1:]), validate_args=False)

    expand = ContentDistribution.expand

    def log_prob(self, value: PartRows) -> Tensor:
        """Log p(x_j | z_j) in nats, (n_items,); an item must have the same parts as in ``like``."""
        terms = {name: part.log_prob(value.parts[name]) for name, part in self.parts.items()}
        return added(weighted(terms, self.weights), value)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> AnyRows:
        """A draw of the parts that are there."""
        if len(sample_shape):
            raise NotImplementedError("draw content one sample at a time")
        return PartRows({name: part.sample() for name, part in self.parts.items()}, self.like.present)
