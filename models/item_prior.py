"""The contract of item priors: what the contents of items say of their factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from models.observations import Batch


@dataclass(frozen=True, eq=False)
class Pull:
    """What q(V) says of m while it is held: m_j ~ N(loc_j, 1 / precision) of items with ratings.

    Shapes: ``loc`` (n_items, n_factors), ``observed`` (n_items,).
    """

    loc: Tensor
    precision: float
    observed: Tensor


class ItemPrior(nn.Module, ABC):
    """Where the factors of an item lie before anybody has chosen it: m_j, (n_factors,).

    - ``site`` is the site that m_j is, "" where there is none: a latent one of which :meth:`guide` says q, or a
      deterministic one;
    - ``drawn`` says that it is latent, ``latent`` that its q is Gaussian, with a spread that counts;
    - ``trained`` that it has networks which learn by gradients: an ``encoder`` and, where it makes contents, a
      ``decoder``; ``learns`` that it has what is learned otherwise, by :meth:`learn`;
    - ``phases`` are the stages of a fit: ("content", "joint") where m_j is known of the contents before ratings are
      seen, ("ratings", "content") where it is learned of the factors of rated items, until then m_j = 0;
    - ``generates`` says that the story draws contents x of it;
    - ``lambda_r`` is the factor of the content's terms. While ``prior_by_decay`` is true an optimiser's weight decay
      stands for the gradient of its weights' prior.
    """

    site: ClassVar[str] = ""
    drawn: ClassVar[bool] = False
    latent: ClassVar[bool] = False
    trained: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    generates: ClassVar[bool] = False
    phases: ClassVar[tuple[str, ...]] = ("content", "joint")
    prior_by_decay: bool = False
    lambda_r: float = 1.0

    @classmethod
    def made(cls, n_items: int, form: Any, likelihood: Any, options: Any) -> ItemPrior:
        """One for a catalogue of so many items whose contents have this form, from model options."""
        raise NotImplementedError(f"{cls.__name__} does not say how it is made: define made")

    @property
    def knows_content(self) -> bool:
        """Whether m tells items apart before any rating has been seen."""
        return self.phases[0] == "content"

    @property
    def staged(self) -> bool:
        """Whether it learns of the factors that ratings alone give."""
        return self.phases[0] == "ratings"

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """The sites of the items' contents, inside the plate "items"; m of the minibatch, (n_items, n_factors)."""

    @abstractmethod
    def encode(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(m_j) from what is observed of any items, (n_items, n_factors) each."""

    def encode_new(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """The same of items that were not in the fit."""
        return self.encode(inputs)

    def of_items(self, items: Tensor, inputs: Any) -> tuple[Tensor, Tensor]:
        """The same of the items of the fit in these rows, of which more may be known than their contents say."""
        return self.encode(inputs)

    def guide(self, batch: Batch) -> TorchDistribution | None:
        """Q of the latent ``site`` of the minibatch, inside the plate "items"; ``None`` where it is not ``drawn``."""
        return None

    def draw(self, n: int, m: Tensor, generator: torch.Generator) -> Tensor:
        """``n`` draws of m from the prior, (n, n_items, n_factors); ``m`` (n_items, n_factors) is what the fit has.

        By default m itself: a function of contents that the story does not draw.
        """
        return m.expand(n, *m.shape)

    def start(self, start: Any) -> None:
        """Start what is ``trained`` from the data (:class:`models.networks.Start`), in place."""

    def networks(self) -> list[nn.Module]:
        """What is trained and has a prior of its weights: by default ``encoder`` and ``decoder``, where there are."""
        own = (getattr(self, name, None) for name in ("encoder", "decoder")) if self.trained else ()
        return [network for network in own if network is not None]

    def learn(self, content: Any, pull: Pull | None) -> None:
        """Bring what no gradient moves up to date, once an epoch, in place.

        ``content`` are the rows of all items as the likelihood reads them; ``pull`` is what is known of the ratings,
        ``None`` as long as contents alone are looked at.
        """

    def weights(self) -> None:
        """The sites of its own weights, outside of all plates."""

    def weight_terms(self) -> dict[str, Tensor]:
        """What its weights add to the objective, by name, in nats."""
        return {}


class NoContent(ItemPrior):
    """m_j = 0: an item of which nobody has said anything is like any other."""

    phases: ClassVar[tuple[str, ...]] = ("joint",)

    def __init__(self, n_factors: int) -> None:
        super().__init__()
        self.nothing: Tensor
        self.register_buffer("nothing", torch.zeros(n_factors), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Zeros."""
        return self.nothing.expand(len(batch.items), -1)

    def encode(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """Zeros, known for certain; of ``inputs`` the length alone counts."""
        nothing = self.nothing.expand(len(inputs), -1)
        return nothing, nothing
