"""The contract of encoders and decoders."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.making import Remembered
from models.rows import AnyRows, DenseRows, Form

if TYPE_CHECKING:
    from models.contents.base import ContentLikelihood


@dataclass(frozen=True, eq=False)
class Start:
    """What networks are started from, and how.

    ``content`` and ``inputs`` are the rows of all items as the ``likelihood`` and the encoder read them. ``how`` is
    "whitened" or "svd" (:mod:`models.networks.mlp_pair`); ``sample`` items are looked at where not all are needed.
    ``directions`` (n_directions, n_features) are those in which the content varies, where they are known.
    """

    content: Any
    inputs: Any
    likelihood: ContentLikelihood
    how: str = "whitened"
    sample: int = 4096
    directions: Any = None

    def some(self, most: int | None = None) -> Tensor:
        """Rows of ``most`` items, by default ``sample``, drawn at random, ascending."""
        n = self.sample if most is None else most
        return torch.randperm(len(self.inputs), device="cpu")[:n].to(self.inputs.device).sort().values

    def part(self, name: str) -> Start:
        """The same of one of several contents, for the items that have it."""
        parts = dict(self.likelihood.each())
        return replace(self, content=self.content.parts[name], inputs=self.inputs.parts[name], likelihood=parts[name])

    def start_likelihood(self) -> None:
        """Start what the likelihood learns of vectors and images, from the mean variance of their features."""
        if isinstance(self.inputs, DenseRows):
            chosen = self.some()
            variance = self.content.select(chosen).dense().var(0).mean() if len(chosen) > 1 else 0.0
            self.likelihood.start(float(variance))


class Encoder(nn.Module, ABC):
    """The amortised posterior q(z_j | x_j) = N(mu(x_j), diag(sigma(x_j)^2)) (paper, section 2.1).

    ``reads`` are the kinds of content that it can read; ``pair`` is the pair that made it.
    """

    reads: ClassVar[tuple[str, ...]]
    pair: NetworkPair | None = None

    @abstractmethod
    def forward(self, content: Any) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), both (n_items, n_factors)."""

    @torch.no_grad()
    def start(self, decoder: Any, start: Start) -> None:
        """Start itself, its decoder and the likelihood from the data, in place, as its ``pair`` does."""
        start.start_likelihood()
        if self.pair is not None:
            self.pair.start(self, decoder, start)

    @property
    def directions(self) -> int:
        """How many directions of the content, as a :class:`Start` may name them, its ``pair`` starts it from."""
        return 0 if self.pair is None else self.pair.directions(self)

    @torch.no_grad()
    def turn(self, rotation: Tensor) -> bool:
        """Turn the means by an orthogonal ``rotation`` (n_factors, n_factors), in place; False where it cannot.

        By default the layer ``loc`` is turned, if it is linear; override it where the means come from elsewhere.
        """
        head = getattr(self, "loc", None)
        if not isinstance(head, nn.Linear) or head.out_features != len(rotation):
            return False
        head.weight.copy_(rotation @ head.weight)
        if head.bias is not None:
            head.bias.copy_(rotation @ head.bias)
        return True


class Decoder(nn.Module, ABC):
    """The generation network: parameters of p(x_j | z_j)."""

    @abstractmethod
    def forward(self, z: Tensor, columns: Tensor | None = None) -> dict[str, Tensor]:
        """One tensor (n_items, n_features) per name of the likelihood; with ``columns``, of those features only."""

    def given(self, z: Tensor, content: AnyRows) -> dict[str, Tensor]:
        """Parameters for the content that is observed: those of :meth:`forward`, which do not depend on it.

        Override it where a part of x is predicted from another, as a token from those before it.
        """
        return self(z)

    def draw(self, likelihood: ContentLikelihood, z: Tensor, like: AnyRows) -> AnyRows:
        """A draw of p(x | z); ``like`` gives what is not drawn (a text's length)."""
        return likelihood.sample(self(z), like)

    def at(
        self, z: Tensor, rows: Tensor, columns: Tensor, drawn: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters at single cells, each (n_cells,), and those of the features ``drawn``, (n_items, n_drawn).

        ``rows`` and ``columns`` (n_cells,) are the cells' items and features. Override it where the other features need
        not be computed.
        """
        params = self(z)
        cells = {name: value[rows, columns] for name, value in params.items()}
        return cells, {name: value[:, drawn] for name, value in params.items()}


class NetworkPair(Remembered, ABC):
    """An encoder and a decoder that belong together: ``--network my_module.MyPair``.

    ``reads`` are the kinds of content that it is for: words, vectors, images, tokens.
    """

    reads: ClassVar[tuple[str, ...]]

    @abstractmethod
    def make(self, form: Form, heads: Sequence[str], options: Any) -> tuple[Encoder, Decoder]:
        """Both networks at a random start, for content of this form.

        Parameters: ``heads`` what the decoder has to make, the likelihood's ``param_names``; ``options`` the model's
        (``factors``, ``hidden``, ``activation``, ``radius``, ``tied``).
        """

    def directions(self, encoder: Any) -> int:
        """How many given directions of the content (``start.directions``) :meth:`start` takes; 0: it finds its own."""
        return 0

    def start(self, encoder: Any, decoder: Any, start: Start) -> None:
        """Start both from the data, in place, so that the content does not collapse; by default they stay."""


def of_length(radius: float, loc: Tensor) -> Tensor:
    """The same directions at the length ``radius``, (n_items, n_factors).

    Rows below a hundredth stay in proportion: at 0, where an empty text may start, the gradient would have no bound.
    """
    return radius * F.normalize(loc, dim=-1, eps=0.01)


def log_normal(network: nn.Module, precision: float, without: nn.Module | None = None) -> Tensor:
    """Log N(w; 0, 1 / precision) of all weights and biases of a network, in nats; not of those in ``without``."""
    others = set() if without is None else set(without.parameters())
    weights = [w for w in network.parameters() if w not in others]
    square = torch.stack([w.square().sum() for w in weights]).sum()
    count = sum(w.numel() for w in weights)
    return 0.5 * (count * math.log(precision / (2 * math.pi)) - precision * square)
