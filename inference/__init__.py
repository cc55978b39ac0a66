"""Inference: interchangeable algorithms over the model, and what can be asked of a posterior.

``fit(dataset, mode=...)`` and ``load(run)`` are for notebooks; commands are modules (``python -m inference.svi``).
"""

import pyro_cvae  # noqa: F401, I001  # first of all, since it takes run folders off the path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.fitted import Fit
    from inference.fitting import fit
    from inference.loading import load

__all__ = ["Fit", "fit", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from inference import fitting

        return getattr(fitting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
