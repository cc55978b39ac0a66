"""Networks started from the data, so that the posterior of the content does not collapse."""

from __future__ import annotations

from typing import Any

from models.base import FactorModel
from models.networks import Start
from models.observations import Observations


def start_alive(model: FactorModel, observations: Observations, how: str = "whitened", sample: int = 4096) -> None:
    """Start the networks of the item prior from the data, each part of a product from its own.

    ``how`` is "whitened" or, where no network is convolutional of images, "svd"; see :mod:`models.networks.mlp_pair`.
    Every pair of networks has its own way. ``sample`` items are looked at where not all are needed.
    """
    own: Any = model.item_prior
    own.start(Start(observations.content, observations.inputs, own.content, how, sample))
