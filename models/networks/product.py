"""Networks of several contents at once: a product of experts inwards, one decoder a content outwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.networks.base import Decoder, Encoder, Start, of_length
from models.networks.joint_start import start_together
from models.rows import AnyRows, PartRows

if TYPE_CHECKING:
    from models.contents.base import ContentLikelihood


class ProductEncoder(Encoder):
    """q(z | x) proportional to N(z; 0, I) prod over the parts m that are there of N(z; mu_m, diag(sigma_m^2)).

    Precision 1 + sum_m sigma_m^-2, mean (sum_m mu_m sigma_m^-2) / precision: the prior itself where nothing is there.
    Source: Wu and Goodman, Multimodal generative models for scalable weakly-supervised learning, NeurIPS 2018.

    With a ``radius`` above 0 the mean is given this length, the experts' are free. Without one, an expert with many
    factors can only be as little certain of each as the KL asks by having no weight, and the mean of the product
    shrinks to 0.
    """

    def __init__(self, experts: Mapping[str, Encoder], n_factors: int, radius: float = 0.0) -> None:
        super().__init__()
        self.experts = nn.ModuleDict(experts)
        self.n_factors, self.radius = n_factors, radius

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Kinds of content of the experts."""
        return tuple(dict.fromkeys(kind for expert in self.experts.values() for kind in expert.reads))  # type: ignore

    def forward(self, content: PartRows) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), both (n_items, n_factors)."""
        parameter = next(self.parameters())
        precision = parameter.new_ones(len(content), self.n_factors)
        shift = torch.zeros_like(precision)
        for name, expert in self.experts.items():
            items = content.items(name)
            if not len(items):
                continue
            loc, scale = expert(content.parts[name])
            weight = scale.square().reciprocal()
            precision = precision.index_add(0, items, weight)
            shift = shift.index_add(0, items, weight * loc)
        loc = shift / precision
        if self.radius:
            loc = of_length(self.radius, loc)
        return loc, precision.rsqrt()

    @torch.no_grad()
    def start(self, decoder: Any, start: Start) -> None:
        """Start the experts and their decoders from their contents, in axes that they share.

        With "svd", those that can start from given directions start from the contents side by side
        (:func:`models.networks.joint_start.start_together`); the others from their own, to be turned (:meth:`align`).
        """
        together: dict[str, Any] = {}
        if start.how == "svd":
            together = {name: expert for name, expert in self.experts.items() if expert.directions}
        if len(together) > 1:
            start_together(together, {name: decoder.part(name) for name in together}, start)
        for name, expert in self.experts.items():
            own: Any = expert
            if len(together) < 2 or name not in together:
                own.start(decoder.part(name), start.part(name))
        self.align(start.inputs, tuple(together) if len(together) > 1 else ())
        product: Any = start.likelihood
        if product.balanced:
            product.balance(self, decoder, start)

    @torch.no_grad()
    def align(self, inputs: PartRows, aligned: tuple[str, ...] = (), block: int = 4096) -> None:
        """Turn the means of each expert to those of the experts before it, over the items that have both.

        Those of the experts ``aligned`` come first, and are not turned.

        What an expert says of a content it says in axes of its own. The rotation is the orthogonal Procrustes solution
        (Schoenemann, Psychometrika 1966); without an item that has both there is none. An expert that cannot be turned
        keeps its axes.
        """
        total, there = None, None
        for name in [*aligned, *(name for name in self.experts if name not in aligned)]:
            expert = self.experts[name]
            own: Any = expert
            nothing = next(own.parameters()).new_zeros(0, self.n_factors)
            part, items = inputs.parts[name], inputs.items(name)
            chunks = torch.arange(len(part), device=part.device).split(block)
            found = torch.cat([own(part.select(chunk))[0] for chunk in chunks if len(chunk)] or [nothing])
            loc = found.new_zeros(len(inputs), self.n_factors).index_copy(0, items, found)
            if total is None or there is None:
                total, there = loc, inputs.present[name]
                continue
            both = there & inputs.present[name]
            if bool(both.any()) and name not in aligned:
                left, _, right = torch.linalg.svd(total[both].mT @ loc[both])
                turn = left @ right
                if own.turn(turn):
                    loc = loc @ turn.mT
            total, there = total + loc, there | inputs.present[name]


class ProductDecoder(Decoder):
    """One decoder for each content, from the same z; heads are ``name.head``."""

    def __init__(self, decoders: Mapping[str, Decoder]) -> None:
        super().__init__()
        self.decoders = nn.ModuleDict(decoders)

    def part(self, name: str) -> Decoder:
        """The decoder of one content."""
        return self.decoders[name]  # type: ignore[return-value]

    def forward(self, z: Tensor, columns: Tensor | None = None) -> dict[str, Tensor]:
        """Parameters of all parts for all items, whether they have them or not."""
        if columns is not None:
            raise NotImplementedError("features of several contents have no common numbers; ask a part")
        return {
            f"{name}.{head}": value for name, decoder in self.decoders.items() for head, value in decoder(z).items()
        }

    def given(self, z: Tensor, content: AnyRows) -> dict[str, Tensor]:
        """Parameters of each part for the items that have it, (n_present, ...)."""
        assert isinstance(content, PartRows)
        return {
            f"{name}.{head}": value
            for name in self.decoders
            for head, value in self.part(name).given(z[content.items(name)], content.parts[name]).items()
        }

    def draw(self, likelihood: ContentLikelihood, z: Tensor, like: AnyRows) -> AnyRows:
        """A draw of the parts that are there in ``like``."""
        assert isinstance(like, PartRows)
        own: Any = likelihood
        parts: dict[str, Any] = {
            name: self.part(name).draw(part, z[like.items(name)], like.parts[name]) for name, part in own.each()
        }
        return PartRows(parts, like.present)
