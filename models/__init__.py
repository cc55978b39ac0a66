"""What is believed: generative processes as Pyro programs, likelihoods, networks, priors.

``FactorModel``, ``ItemPrior`` and ``NormalPrior`` are for models of one's own (docs/models.md).
"""

import pyro_cvae  # noqa: F401, I001  # first of all, since it takes run folders off the path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.base import FactorModel, ItemPrior
    from models.priors import NormalPrior

__all__ = ["FactorModel", "ItemPrior", "NormalPrior"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from models import base

        return getattr(base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
